"""A step as it is planned: what the scheduler tells everybody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinyllm.engine.request import Request


@dataclass(slots=True)
class ScheduledRequest:
    """A request's share of a step: its next `len(slots)` tokens, known ones first, and where their K and V go.

    Attributes:
        slots: the slot of each token.
        block_ids: all blocks of the request, once the step is planned; see `SchedulerOutput`.
    """

    request: Request
    slots: list[int]
    block_ids: Sequence[int] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens that the request computes in this step."""
        return len(self.slots)

    @property
    def num_known_tokens(self) -> int:
        """Those of them that are known, from prompt or output. The rest are drafts."""
        return min(len(self.slots), self.request.num_uncomputed_tokens)

    @property
    def num_draft_tokens(self) -> int:
        """Those of them that are guesses; see `Request.draft_token_ids`."""
        return max(0, len(self.slots) - self.request.num_uncomputed_tokens)

    @property
    def draft_token_ids(self) -> list[int]:
        """The guesses that are computed in this step."""
        drafts = self.request.draft_token_ids
        return drafts[: self.num_draft_tokens] if drafts else []

    @property
    def finishes_known_tokens(self) -> bool:
        """Whether no known token is left after this step, so that the last one's logits give a new token."""
        return len(self.slots) >= self.request.num_uncomputed_tokens

    @property
    def num_logits(self) -> int:
        """Positions whose logits are needed: the last known token and each draft, or none in the middle of a prompt."""
        return max(0, 1 + len(self.slots) - self.request.num_uncomputed_tokens)


@dataclass(frozen=True, slots=True)
class SchedulerOutput:
    """A step as it is planned: all that a runner needs, and what the step's record says of it.

    Attributes:
        scheduled: who computes what, in order of arrival.
        preempted: who has lost its blocks to make room.
        admitted: those of `scheduled` that did not run before.
        num_admitted_tokens: their known tokens.
        num_prefix_tokens_hit: those of them whose K and V the prefix cache had.
    """

    scheduled: list[ScheduledRequest]
    preempted: list[Request]
    admitted: list[ScheduledRequest]
    num_admitted_tokens: int
    num_prefix_tokens_hit: int
