"""The parts of the engine that learners rebuild: one line each, in the order in which the course builds them.

Nothing is imported before somebody asks for a reference, so the table costs neither torch nor Triton.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """A thing that learners rebuild: its name, the day of the course, and the module that its reference is in."""

    name: str
    day: int
    module: str

    @property
    def reference(self) -> Any:
        """The course's own class or function; its module is imported on first use."""
        return reference_of(self)


@cache  # what was there first stays the reference, whatever takes its place in the module later
def reference_of(part: Part) -> Any:
    """The object that a part names."""
    return getattr(import_module(part.module), part.name)


PARTS = (
    Part("kv_bytes_per_token", 1, "tinyllm.kv_cache.sizing"),
    Part("reservation_waste", 1, "tinyllm.kv_cache.sizing"),
    Part("BlockAllocator", 1, "tinyllm.kv_cache.allocator"),
    Part("BlockTable", 1, "tinyllm.kv_cache.block_table"),
    Part("PagedKVCache", 1, "tinyllm.kv_cache.storage"),
    Part("CopyOnWrite", 1, "tinyllm.kv_cache.copy_on_write"),
    Part("PrefixCache", 1, "tinyllm.kv_cache.prefix_cache"),
    Part("paged_attention", 2, "tinyllm.attention.paged_attention"),
    Part("merge_attention_states", 2, "tinyllm.kernels.reference"),
    Part("store_kv", 2, "tinyllm.kernels.store_kv"),
    Part("paged_decode", 2, "tinyllm.kernels.paged_decode"),
    Part("paged_decode_split", 2, "tinyllm.kernels.paged_decode_split"),
    Part("paged_prefill", 2, "tinyllm.kernels.paged_prefill"),
    Part("Scheduler", 2, "tinyllm.engine.scheduler"),
    Part("topk_router", 3, "tinyllm.experts.routing"),
    Part("permute", 3, "tinyllm.experts.dispatch"),
    Part("unpermute", 3, "tinyllm.experts.dispatch"),
    Part("moe_align_block_size", 3, "tinyllm.experts.align"),
    Part("grouped_gemm_tile", 3, "tinyllm.kernels.grouped_gemm"),
    Part("expert_capacity", 3, "tinyllm.experts.capacity"),
    Part("drop_over_capacity", 3, "tinyllm.experts.capacity"),
    Part("load_balancing_loss", 3, "tinyllm.experts.balance"),
    Part("update_expert_bias", 3, "tinyllm.experts.balance"),
    Part("dispatch_all_to_all", 3, "tinyllm.experts.exchange"),
    Part("combine_all_to_all", 3, "tinyllm.experts.exchange"),
)
