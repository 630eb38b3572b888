"""What the engine writes down: one record a step, the times of each request, and the numbers made from them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinyllm.experts.recording import ExpertLoad


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One engine step.

    Attributes:
        start, end: seconds on a monotonic clock.
        num_prefill_tokens: tokens of sequences that computed more than one token.
        num_decode_tokens: sequences that computed exactly one.
        num_running, num_waiting: requests after scheduling.
        num_free_blocks: blocks that nothing holds, after scheduling.
        num_table_blocks: different blocks held by running requests.
        num_block_references: the same, counted once for every request that holds them.
        num_cached_tokens: tokens in the cache, counted once for every request that holds them.
        num_wasted_slots: slots in running requests' own last blocks that hold no token.
        num_preempted: requests that lost their blocks in this step.
        num_admitted_tokens: known tokens of the requests that were admitted, or admitted again, in this step.
        num_prefix_tokens_hit: those of them whose K and V were in the prefix cache.
        experts: the load of each sparse layer, where `EngineConfig.record_experts` asks for it.
    """

    step: int
    start: float
    end: float
    num_prefill_tokens: int
    num_decode_tokens: int
    num_running: int
    num_waiting: int
    num_free_blocks: int
    num_table_blocks: int
    num_block_references: int
    num_cached_tokens: int
    num_wasted_slots: int
    num_preempted: int
    num_admitted_tokens: int = 0
    num_prefix_tokens_hit: int = 0
    experts: tuple[ExpertLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineStats:
    """An engine at one moment, for whoever chooses between several and for metrics.

    Attributes:
        num_running, num_waiting: requests that have blocks, and those that wait for some.
        num_blocks: N, blocks in the pool.
        num_table_blocks: blocks that running requests hold, each counted once however many share it.
        num_cached_blocks: blocks that only the prefix cache holds; they are given up when a request needs them.
        num_steps: steps so far.
        num_admitted_tokens, num_prefix_tokens_hit: sums over all steps, as in `StepRecord`.
        num_preempted: sum over all steps.
    """

    num_running: int
    num_waiting: int
    num_blocks: int
    num_table_blocks: int
    num_cached_blocks: int
    num_steps: int
    num_admitted_tokens: int
    num_prefix_tokens_hit: int
    num_preempted: int

    @property
    def kv_use(self) -> float:
        """Share of the pool that running requests hold, 0 to 1; what only the prefix cache holds can be had."""
        return self.num_table_blocks / self.num_blocks


@dataclass(slots=True)
class RequestMetrics:
    """The times of one output, in seconds on a monotonic clock, and what it cost.

    Attributes:
        arrival: when the request was added.
        token_times: when each output token was ready.
        first_scheduled: when the first step began that computed something of it; until then it waited.
        num_prefix_tokens_hit: prompt tokens found in the prefix cache at first admission.
        num_preemptions: how often its blocks were taken away and recomputed.
    """

    arrival: float
    token_times: list[float] = field(default_factory=list)
    first_scheduled: float | None = None
    num_prefix_tokens_hit: int = 0
    num_preemptions: int = 0

    @property
    def ttft(self) -> float:
        """Time to first token, in seconds."""
        return self.token_times[0] - self.arrival

    @property
    def latency(self) -> float:
        """Time from arrival to the last token, in seconds."""
        return self.token_times[-1] - self.arrival

    @property
    def itl(self) -> list[float]:
        """Inter-token latencies: every gap between two neighboring output tokens, in seconds."""
        return [b - a for a, b in zip(self.token_times, self.token_times[1:], strict=False)]

    @property
    def tpot(self) -> float:
        """Time per output token after the first, in seconds: (latency - TTFT) / (n - 1); 0 for a single token."""
        gaps = len(self.token_times) - 1
        return (self.latency - self.ttft) / gaps if gaps else 0.0
