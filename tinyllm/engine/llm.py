"""`LLM`: prompts in, texts out, all batched together. The class that most users need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from tinyllm.config import EngineConfig, SamplingParams
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.request import RequestOutput
from tinyllm.errors import RequestError
from tinyllm.model.loader import load_model
from tinyllm.model.tokenizer import Message, Tokenizer
from tinyllm.parts import resolve
from tinyllm.paths import shipped_checkpoint

Prompt = str | Sequence[int]


class LLM:
    """An offline engine over one checkpoint.

    Attributes:
        engine: the engine inside, for stepping by hand and for its records.
        tokenizer: the checkpoint's tokenizer.
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

        Args:
            model: a folder in Hugging Face format; the target that ships with the course by default.
            parts: "reference", "mine", or a mapping of part names to objects; see `tinyllm.parts.resolve`.
            dtype: of weights, activations and KV cache: "float32", "bfloat16", "float16", or "auto" for the
                checkpoint's own on CUDA and float32 elsewhere.
            device: where the model runs, for example "cpu" or "cuda".
            engine_options: the fields of `EngineConfig`, for example `num_blocks=64` or `attention_backend="torch"`.

        Raises:
            CheckpointError: the folder is missing, damaged or of another architecture.
            OptionError: an option is unknown here, or asks for a device that is not there.
            KernelsUnavailable: the attention backend is "triton", and Triton cannot run on this device.
            NativeUnavailable: the attention backend is "native", and the C kernel cannot be compiled.
        """
        folder = Path(model) if model is not None else shipped_checkpoint()
        config = EngineConfig(**engine_options)
        self.model = load_model(folder, dtype=dtype, device=device)
        self.tokenizer = Tokenizer(folder)
        self.engine = LLMEngine(self.model, self.tokenizer, config, resolve(parts))

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """Continue each prompt; all of them run together.

        Args:
            prompts: one prompt or many, each a text or a list of token ids.
            params: one for all, or one for each prompt; greedy by default.
            progress: show a progress bar.

        Returns:
            One output for each prompt, in the order of the prompts. Where one failed while it ran, its continuation
            says so (`error`), and asking for its `text` raises GenerationError.

        Raises:
            RequestError: a prompt or its parameters can never be served; no request has been started.
        """
        many = as_list(prompts)
        ids: list[str] = []
        try:
            for number, (prompt, chosen) in enumerate(zip(many, one_each(params, len(many)), strict=True)):
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
        """
        many: Any = [conversations] if conversations and isinstance(conversations[0], Mapping) else conversations
        prompts = []
        for number, messages in enumerate(many):
            with naming("conversation", number, len(many)):
                prompts.append(self.tokenizer.apply_chat_template(list(messages), tools))
        return self.generate(prompts, params, progress=progress)

    def _run(self, ids: list[str], progress: bool) -> list[RequestOutput]:
        """Step the engine until the given requests are done; whatever else it holds moves along."""
        finished: dict[str, RequestOutput | None] = dict.fromkeys(ids)
        with progress_bar(len(ids), progress) as advance:
            num_open = len(ids)
            while num_open:
                ours = {output.request_id: output for output in self.engine.step() if output.request_id in finished}
                finished |= ours
                num_open -= len(ours)
                advance(len(ours))
        return [output for output in finished.values() if output is not None]

    def _give_up(self, ids: Sequence[str]) -> None:
        """Drop the requests of a call that failed or was interrupted, so that the next call does not compute them."""
        for request_id in ids:
            with suppress(Exception):  # a broken part may fail again here; the first error is the one to show
                self.engine.abort(request_id)


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
        RequestError: there is none.
    """
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Iterable):
        raise RequestError(f"the prompt is {prompts!r:.100}; give a text, a list of token ids, or a list of prompts")
    many: list[Any] = list(prompts)
    if not many:
        raise RequestError("no prompt was given: the list is empty")
    return [many] if isinstance(many[0], Integral) else many


def one_each(params: SamplingParams | Sequence[SamplingParams] | None, count: int) -> list[SamplingParams]:
    """The sampling parameters of each of `count` prompts.

    Raises:
        RequestError: there are more or fewer, or one is something else.
    """
    each = list(params) if isinstance(params, Sequence) else [params or SamplingParams()] * count
    if len(each) != count:
        raise RequestError(f"{count} prompts but {len(each)} sampling parameters; give one for all or one each")
    for item in each:
        if not isinstance(item, SamplingParams):
            raise RequestError(f"the sampling parameters are {item!r:.100}; give SamplingParams(...)")
    return each
