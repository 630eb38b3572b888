"""A request inside the engine, and what the user gets back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tinyllm.engine.logprobs import TokenLogprobs
from tinyllm.engine.metrics import RequestMetrics
from tinyllm.engine.output_text import OutputText
from tinyllm.errors import GenerationError
from tinyllm.sampling_params import SamplingParams


class FinishReason(StrEnum):
    """Why an output ended: an end token or stop string, a limit, a failure, or `LLMEngine.abort`."""

    STOP = "stop"
    LENGTH = "length"
    ERROR = "error"
    ABORT = "abort"


@dataclass(slots=True, eq=False)
class Request:
    """One sequence that the engine works on. There is no prefill or decode phase: only tokens still to compute.

    Attributes:
        request_id: name inside the engine; continuation i of a request with n > 1 is `id.i`.
        group_id: the name that the user's request has; all its continuations share it.
        index: which continuation of the group this is.
        token_ids: prompt, then the output so far.
        num_prompt_tokens: how many of `token_ids` are the prompt.
        text: the output's text.
        end_token_ids: tokens that end this request's output.
        num_computed_tokens: tokens whose K and V are in the cache; the scheduler alone counts them.
        num_siblings_to_fork: continuations that will be forked off when the prompt is computed.
        draft_token_ids: guesses at the tokens that follow, fewer than the request may still generate. A step computes
            them beside the last known token where there is room, and those that are right become output. With the
            next token the rest is void.
        on_delta: called with what each step adds, where someone listens.
    """

    request_id: str
    group_id: str
    index: int
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    metrics: RequestMetrics
    text: OutputText
    end_token_ids: frozenset[int] = frozenset()
    num_computed_tokens: int = 0
    num_siblings_to_fork: int = 0
    draft_token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    on_delta: Callable[[OutputDelta], None] | None = None

    @property
    def num_seqs(self) -> int:
        """What it takes of `max_num_seqs`: its own seat, and one for each sibling still to be forked."""
        return 1 + self.num_siblings_to_fork

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens that are known but whose K and V are not in the cache: the prompt at first, then one a step."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def output_token_ids(self) -> list[int]:
        """The generated tokens."""
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def num_output_tokens(self) -> int:
        """How many tokens have been generated."""
        return len(self.token_ids) - self.num_prompt_tokens


@dataclass(frozen=True, slots=True)
class AfterDrafts:
    """A request as it would be with some of its drafts accepted: what decides the token that follows them."""

    request: Request
    drafts: Sequence[int]

    @property
    def params(self) -> SamplingParams:
        """The request's."""
        return self.request.params

    @property
    def index(self) -> int:
        """The request's."""
        return self.request.index

    @property
    def end_token_ids(self) -> frozenset[int]:
        """The request's."""
        return self.request.end_token_ids

    @property
    def token_ids(self) -> list[int]:
        """Prompt, output and the drafts."""
        return [*self.request.token_ids, *self.drafts]

    @property
    def output_token_ids(self) -> list[int]:
        """Output and the drafts."""
        return [*self.request.output_token_ids, *self.drafts]

    @property
    def num_output_tokens(self) -> int:
        """How many tokens output and drafts are."""
        return self.request.num_output_tokens + len(self.drafts)


#: All that sampling looks at.
SamplingState = Request | AfterDrafts


@dataclass(frozen=True, slots=True)
class OutputDelta:
    """What one step added to one continuation of a request.

    Attributes:
        index: which continuation.
        text: new text, in whole characters. What may begin a stop string is kept back, so it may be empty.
        token_ids: the new tokens, one or, with drafts, several; none where the continuation failed or was aborted.
        logprobs: one report for each token, where `SamplingParams.logprobs` asks for them.
        finish_reason: set in the continuation's last delta.
        error: why it failed, with the finish reason `ERROR`.
        metrics: its times so far.
    """

    request_id: str
    index: int
    text: str
    token_ids: tuple[int, ...]
    metrics: RequestMetrics
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: FinishReason | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One continuation of a prompt.

    Attributes:
        text: without the end token and the stop string.
        token_ids: all that was generated, the end token and the stop string's tokens included.
        logprobs: one report for each token, where `SamplingParams.logprobs` asks for them.
        error: why it failed, with the finish reason `ERROR`; what came before is kept.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    metrics: RequestMetrics
    logprobs: tuple[TokenLogprobs, ...] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """A finished request: its prompt and its n continuations."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...] = field(default=())

    @property
    def text(self) -> str:
        """The text of the first continuation.

        Raises:
            GenerationError: it failed while it ran.
        """
        if self.outputs[0].error:
            raise GenerationError(f"{self.request_id} failed: {self.outputs[0].error}")
        return self.outputs[0].text
