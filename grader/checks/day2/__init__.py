"""Day 2, attention over pages and continuous batching: its exercises in course order."""

from grader.checks.day2.merge_attention_states import EXERCISE as MERGE_ATTENTION_STATES
from grader.checks.day2.paged_attention import EXERCISE as PAGED_ATTENTION
from grader.checks.day2.scheduler import EXERCISE as SCHEDULER

EXERCISES = (PAGED_ATTENTION, MERGE_ATTENTION_STATES, SCHEDULER)
