"""The course's pictures, one function each. Each takes plain data or tables and returns a matplotlib Figure.

Colors are those of Okabe and Ito, which color-blind readers can tell apart; letters, hatches or line styles
say the same again. A figure is shown once: by the notebook, as the value of its cell.
"""

from tinyllm.plots.attention import causal_mask, merged_softmax, roofline
from tinyllm.plots.batching import latency_bars, request_spans, schedule_grid, step_timeline
from tinyllm.plots.experts import expert_load
from tinyllm.plots.kernels import programs, running_softmax, score_tiles
from tinyllm.plots.latency import cost_per_token, phases, token_timeline
from tinyllm.plots.memory import bytes_per_token, kv_rows, requests_at_once, reservation, waste_bars, waste_stack
from tinyllm.plots.model import gqa_heads, query_norms, rope_angles, rope_scores
from tinyllm.plots.pool import TableView, block_table, pool
from tinyllm.plots.routing import dispatch_ribbon, placement_bars, rank_rows, router_heat_map, touched_experts
from tinyllm.plots.serving import step_overhead, throughput_bars
from tinyllm.plots.sharing import pool_over_time, sharing_graph

__all__ = [
    "TableView",
    "block_table",
    "bytes_per_token",
    "causal_mask",
    "cost_per_token",
    "dispatch_ribbon",
    "expert_load",
    "gqa_heads",
    "kv_rows",
    "latency_bars",
    "merged_softmax",
    "phases",
    "placement_bars",
    "pool",
    "pool_over_time",
    "programs",
    "query_norms",
    "rank_rows",
    "request_spans",
    "requests_at_once",
    "reservation",
    "roofline",
    "rope_angles",
    "rope_scores",
    "router_heat_map",
    "running_softmax",
    "schedule_grid",
    "score_tiles",
    "sharing_graph",
    "step_overhead",
    "step_timeline",
    "throughput_bars",
    "token_timeline",
    "touched_experts",
    "waste_bars",
    "waste_stack",
]
