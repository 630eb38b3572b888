"""Day 2, attention over pages and continuous batching: its exercises in course order."""

from grader.checks.day2.merge_attention_states import EXERCISE as MERGE_ATTENTION_STATES
from grader.checks.day2.paged_attention import EXERCISE as PAGED_ATTENTION
from grader.checks.day2.paged_decode import EXERCISE as PAGED_DECODE
from grader.checks.day2.paged_decode_split import EXERCISE as PAGED_DECODE_SPLIT
from grader.checks.day2.paged_prefill import EXERCISE as PAGED_PREFILL
from grader.checks.day2.scheduler import EXERCISE as SCHEDULER
from grader.checks.day2.store_kv import EXERCISE as STORE_KV

EXERCISES = (
    PAGED_ATTENTION,
    MERGE_ATTENTION_STATES,
    STORE_KV,
    PAGED_DECODE,
    PAGED_DECODE_SPLIT,
    PAGED_PREFILL,
    SCHEDULER,
)
