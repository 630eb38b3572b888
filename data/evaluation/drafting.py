"""How many of a draft's tokens the target accepts, when both are greedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from data.evaluation.candidate import Reply
from tinyllm.model.attention import causal_attend
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM

DRAFT_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Speculation:
    """Counts over one output or many.

    Attributes:
        steps: times the target checked what the draft proposed.
        proposed: tokens that the draft proposed; none past the end of the output.
        accepted: those that the target would have written too.
        written: tokens of the outputs that came of these steps: what was accepted, and the target's own.
    """

    steps: int = 0
    proposed: int = 0
    accepted: int = 0
    written: int = 0

    def __add__(self, other: Speculation) -> Speculation:
        return Speculation(
            self.steps + other.steps,
            self.proposed + other.proposed,
            self.accepted + other.accepted,
            self.written + other.written,
        )

    def as_json(self) -> dict[str, Any]:
        """The counts, the share that is accepted, and the tokens that one step of the target yields."""
        return {
            "proposed": self.proposed,
            "accepted": self.accepted,
            "share": round(self.accepted / max(1, self.proposed), 4),
            "accepted a step": round(self.accepted / max(1, self.steps), 3),
            "tokens a step": round(self.written / max(1, self.steps), 3),
        }


def speculate(agrees: Sequence[bool], num_draft_tokens: int = DRAFT_TOKENS) -> Speculation:
    """The speculative loop over one output: propose, keep the longest right beginning, add the target's own token.

    Args:
        agrees: for each token of the target's output, whether the draft, given all before it, would write the same.
            That is all the loop needs: proposals after a wrong one are dropped, and those before it are the target's.
        num_draft_tokens: how many are proposed at once. The first token of an output comes of the prompt's own pass.
    """
    total = Speculation()
    place = 1
    while place < len(agrees):
        proposed = agrees[place : place + num_draft_tokens]
        accepted = next((i for i, agreed in enumerate(proposed) if not agreed), len(proposed))
        written = min(accepted + 1, len(agrees) - place)
        total += Speculation(1, len(proposed), accepted, written)
        place += written
    return total


@torch.inference_mode()
def agreement(draft: Qwen3ForCausalLM, reply: Reply) -> list[bool]:
    """For each token that the target wrote, whether the draft would have written it after the same beginning."""
    ids = torch.tensor([*reply.prompt, *reply.output], device=draft.head_weight.device)
    hidden = draft(ids[:-1], torch.arange(len(ids) - 1, device=ids.device), LayerOps(causal_attend()))
    likeliest = draft.compute_logits(hidden[len(reply.prompt) - 1 :]).argmax(dim=-1)
    return (likeliest == ids[len(reply.prompt) :]).tolist()


def acceptance(draft: Qwen3ForCausalLM, replies: Iterable[Reply]) -> Speculation:
    """The loop over everything that the target wrote."""
    return sum((speculate(agreement(draft, reply)) for reply in replies), Speculation())
