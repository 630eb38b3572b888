"""`LLM`: prompts in, texts out, all batched together. The class that most users need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from tinyllm.config import EngineConfig, ParallelConfig, SamplingParams
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.input_processor import as_params, refuse_other_kinds
from tinyllm.engine.request import RequestOutput
from tinyllm.errors import OptionError, PartError, RequestError
from tinyllm.model.loader import load_model
from tinyllm.model.shard import Shard, Sharding
from tinyllm.model.tokenizer import Message, Tokenizer
from tinyllm.options import nested
from tinyllm.parallel.join import join_ranks
from tinyllm.parallel.ranks import Ranks
from tinyllm.parts import resolve
from tinyllm.paths import shipped_checkpoint

Prompt = str | Sequence[int]


class LLM:
    """An offline engine over one checkpoint.

    Attributes:
        engine: the engine inside, for stepping by hand and for its records.
        tokenizer: the checkpoint's tokenizer.
        rank: this process's number among those that share the model; 0 for one alone.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        parts: str | Mapping[str, Any] = "reference",
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "cpu",
        **engine_options: Any,
    ) -> None:
        """Load a checkpoint and reserve the KV pool.

        With `tensor_parallel_size` or `expert_parallel_size` above 1 it loads a part: torchrun starts the same script
        in several processes, and each has to make the same calls. All get the same outputs.

        Args:
            model: a folder in Hugging Face format; the target that ships with the course by default.
            parts: "reference", "mine", or a mapping of part names to objects; see `tinyllm.parts.resolve`.
            dtype: of weights, activations and KV cache: "float32", "bfloat16", "float16", or "auto" for the
                checkpoint's own on CUDA and float32 elsewhere.
            device: where the model runs, for example "cpu" or "cuda".
            engine_options: those of `EngineConfig` and of the configs inside it by their names alone, for example
                `num_blocks=64` or `attention_backend="torch"`.

        Raises:
            CheckpointError: the folder is missing, damaged or of another architecture.
            OptionError: an option is unknown or of the wrong type, or asks for a device or for processes that are not
                there, or for more processes than can share the model.
            RankLostError: not all processes came in time.
            KernelsUnavailable: the attention backend is "triton", and Triton cannot run on this device.
            NativeUnavailable: the attention or the experts backend is "native", and the C kernel cannot be compiled.
        """
        if not isinstance(model, str | PathLike | None):
            raise OptionError(f"the model is {model!r:.100}; give the path of a checkpoint folder")
        folder = Path(model) if model is not None else shipped_checkpoint()
        config = nested(EngineConfig, engine_options, beside=("model", "parts", "dtype", "device"))
        ranks = join_ranks(config.parallel, device)
        self.rank = ranks.rank if ranks else 0
        self.model = load_model(folder, dtype=dtype, device=device, sharding=sharding_of(config.parallel, ranks))
        self.tokenizer = Tokenizer(folder)
        self.engine = LLMEngine(self.model, self.tokenizer, config, resolve(parts), ranks=ranks)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """Continue each prompt; all of them run together.

        Another thread's call waits for this one. `engine.abort(name)` from another thread ends a request early.

        Args:
            prompts: one prompt or many, each a text or a list of token ids.
            params: one for all, or one for each prompt; greedy by default.
            progress: show a progress bar.

        Returns:
            One output for each prompt, in the order of the prompts. Where one failed while it ran, its continuation
            says so (`error`), and asking for its `text` raises GenerationError.

        Raises:
            RequestError: a prompt or its parameters can never be served; no request has been started.
            EngineBusyError: the engine belongs to an `AsyncEngine`, or a step of its own is calling.
        """
        many = as_list(prompts)
        each = one_each(params, len(many))
        ids: list[str] = []
        with self.engine.guard.call():
            try:
                for number, (prompt, chosen) in enumerate(zip(many, each, strict=True)):
                    with naming("prompt", number, len(many)):
                        ids.append(self.engine.add_request(prompt, chosen))
                return self._run(ids, progress)
            except BaseException:
                self._give_up(ids)
                raise

    def chat(
        self,
        conversations: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """Answer one conversation or many.

        Args:
            conversations: messages like `{"role": "user", "content": "Hello"}`, or a list of such lists.
            params: one for all, or one for each conversation; greedy by default.
            tools: the functions that the model may call in all of them; see `Tokenizer.apply_chat_template`.
            progress: show a progress bar.

        Raises:
            RequestError: a conversation or its parameters can never be served; no request has been started.
            EngineBusyError: the engine belongs to an `AsyncEngine`, or a step of its own is calling.
        """
        many = as_conversations(conversations)
        one_each(params, len(many))
        prompts = []
        for number, messages in enumerate(many):
            with naming("conversation", number, len(many)):
                prompts.append(self.tokenizer.apply_chat_template(messages, tools))
        return self.generate(prompts, params, progress=progress)

    def _run(self, ids: list[str], progress: bool) -> list[RequestOutput]:
        """Step the engine until the given requests are done; whatever else it holds moves along.

        What that finishes, and what its listeners raise, stays in the outbox for whoever steps next.
        """
        finished: dict[str, RequestOutput | None] = dict.fromkeys(ids)
        with progress_bar(len(ids), progress) as advance:
            num_open = len(ids)
            while num_open:
                if not self.engine.scheduler.has_unfinished:
                    raise PartError(f"the Scheduler has lost {num_open} of {len(ids)} requests: it has nothing to do")
                self.engine.advance()
                ours = {output.request_id: output for output in self.engine.outbox.pick(finished)}
                finished |= ours
                num_open -= len(ours)
                advance(len(ours))
        return [output for output in finished.values() if output is not None]

    def _give_up(self, ids: Sequence[str]) -> None:
        """Drop the requests of a call that failed or was interrupted, so that the next call does not compute them."""
        self.engine.outbox.pick(ids)
        for request_id in ids:
            with suppress(Exception):  # a broken part may fail again here; the first error is the one to show
                self.engine.drop(request_id)


def sharding_of(config: ParallelConfig, ranks: Ranks | None) -> Sharding:
    """Which part of the model this process holds."""
    if ranks is None:
        return Sharding()
    part = Shard(ranks.rank, ranks.world_size)
    return Sharding(
        tensor=part if config.tensor_parallel_size > 1 else Shard(),
        experts=part if config.expert_parallel_size > 1 else None,
    )


@contextmanager
def naming(what: str, number: int, count: int) -> Iterator[None]:
    """Say of which of several prompts or conversations a RequestError speaks."""
    try:
        yield
    except RequestError as error:
        if count == 1:
            raise
        raise RequestError(f"{what} {number} of {count} (counted from 0): {error}") from None


@contextmanager
def progress_bar(total: int, show: bool) -> Iterator[Callable[[int], object]]:
    """A function to call with each number of finished requests; tqdm is needed only where a bar is wanted."""
    if not show:
        yield lambda count: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc="requests") as bar:
        yield bar.update


def as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or many as a list of prompts; a list of whole numbers is one prompt.

    Raises:
        RequestError: there is none, or it is of another kind.
    """
    if isinstance(prompts, str):
        return [prompts]
    refuse_other_kinds(prompts)
    if not isinstance(prompts, Iterable):
        raise RequestError(f"the prompt is {prompts!r:.100}; give a text, a list of token ids, or a list of prompts")
    many: list[Any] = list(prompts)
    if not many:
        raise RequestError("no prompt was given: the list is empty")
    return [many] if isinstance(many[0], Integral) else many


def as_conversations(given: Sequence[Message] | Sequence[Sequence[Message]]) -> list[list[Message]]:
    """One conversation or many as a list of conversations.

    Raises:
        RequestError: it is of another kind, or empty.
    """
    example = 'give a list of messages such as [{"role": "user", "content": "Hello"}]'
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise RequestError(f"the conversation is {given!r:.100}; {example}")
    many: list[Any] = list(given)
    if not many:
        raise RequestError(f"no prompt was given: the list of messages is empty; {example}")
    if isinstance(many[0], Mapping):
        return [many]
    for number, messages in enumerate(many):
        if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
            raise RequestError(
                f"conversation {number} of {len(many)} (counted from 0) is {messages!r:.100}; {example}, or a list of "
                "such lists"
            )
    return [list(messages) for messages in many]


def one_each(params: SamplingParams | Sequence[SamplingParams] | None, count: int) -> list[SamplingParams]:
    """The sampling parameters of each of `count` prompts.

    Raises:
        RequestError: there are more or fewer, or one is something else.
    """
    given: Any = params
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        return [as_params(given)] * count
    if len(given) != count:
        raise RequestError(f"{count} prompts but {len(given)} sampling parameters; give one for all or one each")
    if None in given:
        raise RequestError("the sampling parameters are None for one of several prompts; give SamplingParams(...)")
    return [as_params(item) for item in given]
