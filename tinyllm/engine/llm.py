"""`LLM`: prompts in, texts out, all batched together. The class that most users need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        **engine_options: Any,
    ) -> None:
        """Load a checkpoint and reserve the KV pool.

        Args:
            model: a folder in Hugging Face format; the target that ships with the course by default.
            parts: "reference", "mine", or a mapping of part names to objects; see `tinyllm.parts.resolve`.
            engine_options: the fields of `EngineConfig`, for example `num_blocks=64`.

        Raises:
            CheckpointError: the folder is missing, damaged or of another architecture.
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
            One output for each prompt, in the order of the prompts.

        Raises:
            RequestError: a prompt or its parameters can never be served; no request has been started.
        """
        many = as_list(prompts)
        each = list(params) if isinstance(params, Sequence) else [params or SamplingParams()] * len(many)
        if len(each) != len(many):
            raise RequestError(f"{len(many)} prompts but {len(each)} sampling parameters; give one for all or one each")
        ids: list[str] = []
        try:
            for prompt, chosen in zip(many, each, strict=True):
                ids.append(self.engine.add_request(prompt, chosen))
        except RequestError:
            for request_id in ids:
                self.engine.abort(request_id)
            raise
        return self._run(ids, progress)

    def chat(
        self,
        conversations: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        progress: bool = False,
    ) -> list[RequestOutput]:
        """Answer one conversation or many.

        Args:
            conversations: messages like `{"role": "user", "content": "Hello"}`, or a list of such lists.
            tools: the functions that the model may call in all of them; see `Tokenizer.apply_chat_template`.
        """
        many = [conversations] if conversations and isinstance(conversations[0], Mapping) else conversations
        prompts = [self.tokenizer.apply_chat_template(list(messages), tools) for messages in many]  # type: ignore[arg-type]
        return self.generate(prompts, params, progress=progress)

    def _run(self, ids: list[str], progress: bool) -> list[RequestOutput]:
        """Step the engine until the given requests are done; whatever else it holds moves along."""
        finished: dict[str, RequestOutput] = {}
        with progress_bar(len(ids), progress) as advance:
            while len(finished) < len(ids):
                outputs = self.engine.step()
                finished |= {output.request_id: output for output in outputs}
                advance(len(outputs))
        return [finished[request_id] for request_id in ids]


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
    """One prompt or many as a list of prompts; a list of ints is one prompt."""
    if isinstance(prompts, str):
        return [prompts]
    if not prompts:
        raise RequestError("no prompt was given")
    if isinstance(prompts[0], int):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]
