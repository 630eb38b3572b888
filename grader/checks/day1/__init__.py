"""Day 1, a paged KV cache: its exercises in course order."""

from grader.checks.day1.block_allocator import EXERCISE as BLOCK_ALLOCATOR
from grader.checks.day1.block_table import EXERCISE as BLOCK_TABLE
from grader.checks.day1.copy_on_write import EXERCISE as COPY_ON_WRITE
from grader.checks.day1.kv_bytes_per_token import EXERCISE as KV_BYTES_PER_TOKEN
from grader.checks.day1.paged_kv_cache import EXERCISE as PAGED_KV_CACHE
from grader.checks.day1.prefix_cache import EXERCISE as PREFIX_CACHE
from grader.checks.day1.reservation_waste import EXERCISE as RESERVATION_WASTE

EXERCISES = (
    KV_BYTES_PER_TOKEN,
    RESERVATION_WASTE,
    BLOCK_ALLOCATOR,
    BLOCK_TABLE,
    PAGED_KV_CACHE,
    COPY_ON_WRITE,
    PREFIX_CACHE,
)
