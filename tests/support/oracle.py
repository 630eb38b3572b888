"""The model of transformers, which nobody here wrote, and what it takes to agree with it token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

#: Two logits closer than this may swap places with the order of float32 additions.
NEAR_TIE = 1e-4


def theirs(folder: Path) -> PreTrainedModel:
    """A checkpoint as transformers reads it, in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def choices(model: PreTrainedModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[tuple[int, float]]:
    """What transformers takes after the prompt and after each token of `output`, with the gap to its second choice.

    One pass for all of them: up to the first token that differs, these are its own greedy steps.
    """
    logits = model(torch.tensor([[*prompt, *output]])).logits[0, len(prompt) - 1 : -1].float()
    best = logits.topk(2)
    return zip(best.indices[:, 0].tolist(), (best.values[:, 0] - best.values[:, 1]).tolist(), strict=True)
