"""A checkpoint that is measured: the course's own engine over it, many prompts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.agent.token_mask import ToolCallMask
from tinyllm.config import SamplingParams
from tinyllm.engine.llm import LLM
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer

BATCH = 64  # requests that run together
NUM_BLOCKS = 2048  # 32,768 tokens: the batch at 512 tokens each; longer ones wait
MAX_TOKENS = 128  # of a reply


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote, as text and as token ids, the end token included."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]
    text: str


class Candidate:
    """A model that writes replies.

    Args:
        folder: a checkpoint in Hugging Face format; its name is the model's.
        device: where the weights are put.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder = folder
        self.name = folder.name
        self.llm = LLM(
            folder,
            dtype="float32",  # on every device: what is measured is the model, not the rounding
            device=device,
            num_blocks=NUM_BLOCKS,
            max_num_batched_tokens=2048,
            max_num_seqs=BATCH,
        )

    @property
    def model(self) -> Qwen3ForCausalLM:
        """The weights, for what is measured without writing."""
        return self.llm.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer."""
        return self.llm.tokenizer

    @property
    def longest_prompt(self) -> int:
        """Tokens that leave room for a reply."""
        return self.llm.engine.max_model_len - MAX_TOKENS

    def prompt(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Token ids of a conversation up to the head of the assistant's next turn."""
        return self.tokenizer.apply_chat_template(list(messages), list(tools) or None)

    def mask(self, tools: Sequence[dict[str, Any]]) -> ToolCallMask:
        """What holds a reply's calls to the schemas of these tools."""
        return ToolCallMask(self.tokenizer, tools, self.model.config.vocab_size)

    def ask(self, questions: Sequence[str], temperature: float = 0.0) -> list[Reply]:
        """Replies to one message each."""
        prompts = [self.prompt([{"role": "user", "content": question}]) for question in questions]
        return self.replies(prompts, temperature)

    def replies(
        self,
        prompts: Sequence[Sequence[int]],
        temperature: float = 0.0,
        max_tokens: int = MAX_TOKENS,
        masks: Sequence[ToolCallMask | None] = (),
    ) -> list[Reply]:
        """Continue each prompt to its end token or to `max_tokens`; the place in the list seeds the draws.

        Args:
            masks: for each prompt, what may be written; by default anything.
        """
        params = [
            SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=place, allowed_tokens=mask)
            for place, mask in enumerate(masks or [None] * len(prompts))
        ]
        outputs = self.llm.generate(list(prompts), params) if prompts else []
        return [Reply(out.prompt_token_ids, out.outputs[0].token_ids, out.text) for out in outputs]
