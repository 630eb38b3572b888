"""What a schedule means in numbers, for the step's record and the requests' metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tinyllm.engine.request import Request
from tinyllm.engine.scheduler import ScheduledRequest, Scheduler
from tinyllm.kv_cache.manager import KVCacheManager


def occupancy(kv: KVCacheManager, scheduler: Scheduler, scheduled: Sequence[ScheduledRequest]) -> dict[str, int]:
    """The part of a step record that is known once the step is scheduled."""
    sizes = [item.num_tokens for item in scheduled]
    tables = [kv.table(request.request_id) for request in scheduler.running]
    lens = [table.num_tokens for table in tables]
    return {
        "num_prefill_tokens": sum(size for size in sizes if size > 1),
        "num_decode_tokens": sum(size == 1 for size in sizes),
        "num_running": len(scheduler.running),
        "num_waiting": len(scheduler.waiting),
        "num_free_blocks": kv.num_free,
        "num_table_blocks": kv.num_blocks_in_tables,
        "num_block_references": kv.num_block_references,
        "num_cached_tokens": sum(lens),
        "num_wasted_slots": sum(-length % kv.block_size for length in lens),
    }


def note_scheduling(scheduled: Iterable[ScheduledRequest], preempted: Iterable[Request], now: float) -> None:
    """Write down in the requests' metrics what a step's schedule means to them."""
    for item in scheduled:
        metrics = item.request.metrics
        if metrics.first_scheduled is None:
            metrics.first_scheduled = now
            metrics.num_prefix_tokens_hit = item.request.num_computed_tokens
    for request in preempted:
        request.metrics.num_preemptions += 1
