"""A lesson of three exercises, small enough to be read whole in a test. It is never part of the course."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from grader.framework import Case, Exercise, Prop


def drive(parts: SimpleNamespace, case: Case) -> Any:
    return parts.double(case["x"])


def judge(case: Case, observations: Any) -> str | None:
    return None if observations == case["x"] + case["x"] else "it is not doubled"


DOUBLE = Exercise(
    "double", "function", (Prop("it doubles", weight=1, drive=drive, judge=judge, fixed=[{"x": 0}, {"x": 3}]),)
)

LESSON = '''\
# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A small day

# %% setup=true
from grader import check

# %% [markdown]
# Blocks are handed out and counted.
#
# <!-- head: BlockAllocator -->

# %% exercise="BlockAllocator" stub="allocate,share,free" minutes="20" difficulty="2"
from tinyllm.kv_cache.allocator import BlockAllocator

# %% check="BlockAllocator"
check(BlockAllocator)

# %%
print(BlockAllocator(3).allocate(1))

# %% [markdown]
# <!-- head: PrefixCache -->

# %% exercise="PrefixCache" stub="match,insert,evict" minutes="30" difficulty="4"
from tinyllm.kv_cache.prefix_cache import PrefixCache

# %% check="PrefixCache"
check(PrefixCache)

# %%
print(BlockAllocator(3).allocate(1))

# %% [markdown]
# <!-- head: double -->

# %% exercise="double" inline=true minutes="2" difficulty="1"
def double(x: int) -> int:
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %% check="double"
check(double)
'''


def write_course(root: Path, text: str = LESSON, day: str = "day1_small") -> Path:
    """Make a course of one day under `root` and return `root`."""
    lesson = root / "solutions" / day / "lesson.py"
    lesson.parent.mkdir(parents=True, exist_ok=True)
    lesson.write_text(text, encoding="utf-8")
    return root
