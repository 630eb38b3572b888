"""What a schedule means in numbers, for the step's record and the requests' metrics."""

from __future__ import annotations

from tinyllm.engine.scheduler import Scheduler
from tinyllm.engine.scheduler_output import SchedulerOutput
from tinyllm.kv_cache.manager import KVCacheManager


def plan_in_numbers(kv: KVCacheManager, scheduler: Scheduler, output: SchedulerOutput) -> dict[str, int]:
    """The part of a step record that is known once the step is scheduled."""
    sizes = [item.num_tokens for item in output.scheduled]
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
        "num_preempted": len(output.preempted),
        "num_admitted_tokens": output.num_admitted_tokens,
        "num_prefix_tokens_hit": output.num_prefix_tokens_hit,
    }


def note_scheduling(output: SchedulerOutput, now: float) -> None:
    """Write down in the requests' metrics what a step's schedule means to them."""
    for item in output.admitted:
        metrics = item.request.metrics
        if metrics.first_scheduled is None:
            metrics.first_scheduled = now
            metrics.num_prefix_tokens_hit = item.request.num_computed_tokens
    for request in output.preempted:
        request.metrics.num_preemptions += 1
