"""Draft tokens: who proposes them, and who decides which of them stay.

A step computes a request's drafts beside its last known token, so it has the logits of 1 + drafts positions. The
verifier reads these from the left: each token that it accepts makes the next position's logits valid, and the first
that differs from its draft ends the block. Each step so gives at least the one token that it would give without drafts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from tinyllm.engine.request import AfterDrafts, Request
from tinyllm.engine.sampler import Sampled, sample
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.errors import GenerationError


class Proposer(ABC):
    """Guesses the tokens that follow.

    Attributes:
        max_draft_tokens: the most that it ever guesses for one request; buffers are made for as many.
    """

    max_draft_tokens: int

    @abstractmethod
    def propose(self, requests: Sequence[Request]) -> Sequence[list[int]]:
        """Guess how some requests go on, once their new tokens are accepted.

        Args:
            requests: those that a step has brought up to date and that go on.

        Returns:
            For each its draft tokens: token ids of the model, none where there is nothing to guess.
        """


class NoProposer(Proposer):
    """Plain decoding: one token a step."""

    max_draft_tokens = 0

    def propose(self, requests: Sequence[Request]) -> Sequence[list[int]]:
        """Nothing."""
        return [[] for _ in requests]


class Verifier(ABC):
    """Decides which drafts stay, and which token comes after them."""

    @abstractmethod
    def verify(
        self, logits: Tensor, requests: Sequence[Request], drafts: Sequence[Sequence[int]]
    ) -> list[list[Sampled | GenerationError]]:
        """The new tokens of some requests.

        Args:
            logits: [n, V] float32; for each request a row after its last known token and one after each of its drafts.
            requests: those that get tokens.
            drafts: the draft tokens of each that were computed.

        Returns:
            For each request the drafts that stay and one token after them, or the error that ends it.
        """


class ExactVerifier(Verifier):
    """A draft stays while it is the very token that sampling gives in its place: outputs are those without drafts.

    That holds at any temperature, because the noise of a draw depends on the request's seed and the position alone
    (see `gumbel`), and not on how many tokens a step computes.
    """

    def verify(
        self, logits: Tensor, requests: Sequence[Request], drafts: Sequence[Sequence[int]]
    ) -> list[list[Sampled | GenerationError]]:
        """See `Verifier.verify`."""
        if not any(drafts):
            return [[result] for result in sample(logits, requests)]
        states = [
            AfterDrafts(request, guesses[:count])
            for request, guesses in zip(requests, drafts, strict=True)
            for count in range(len(guesses) + 1)
        ]
        results = iter(sample(logits, states))
        return [agreeing([next(results) for _ in range(len(guesses) + 1)], guesses) for guesses in drafts]


def verify_step(
    verifier: Verifier, logits: Tensor, scheduled: Sequence[ScheduledRequest], groups: Sequence[Sequence[Request]]
) -> list[list[Sampled | GenerationError]]:
    """The new tokens of a whole step.

    Args:
        logits: what the runner gave.
        groups: for each share of the step who gets tokens: nobody in the middle of a prompt; its request; or that and
            its siblings, which have no drafts and share the row of their prompt's last token.

    Returns:
        The tokens of all members of all groups, in order.
    """
    requests = [request for group in groups for request in group]
    if not requests:
        return []
    rows: list[int] = []
    drafts: list[list[int]] = []
    first = 0
    for item, group in zip(scheduled, groups, strict=True):
        if group:
            guesses = item.draft_token_ids
            rows += [*range(first, first + 1 + len(guesses)), *[first] * (len(group) - 1)]
            drafts += [guesses] * len(group)
            first += 1 + len(guesses)
    return verifier.verify(logits if len(rows) == first else logits[rows], requests, drafts)


def agreeing(results: Sequence[Sampled | GenerationError], drafts: Sequence[int]) -> list[Sampled | GenerationError]:
    """The results up to the first that is not the draft in its place; the last has no draft beside it."""
    for count, (result, draft) in enumerate(zip(results, drafts, strict=False), 1):
        if isinstance(result, GenerationError) or result.token_id != draft:
            return list(results[:count])
    return list(results)
