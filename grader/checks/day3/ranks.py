"""What the checks of the two exchanges share: ranks that are threads, and careful reading of what each returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from grader.framework import Case, Observations, plain
from tinyllm.parallel.thread_group import ExchangeError
from tinyllm.parallel.thread_ranks import run_ranks


def on_ranks(world_size: int, call: Callable[[int, dist.ProcessGroup], Any]) -> Observations:
    """What `call(rank, group)` returns on each rank, or why the ranks do not come together."""
    try:
        return {"ranks": run_ranks(world_size, lambda group: plain(call(group.rank(), group)))}
    except ExchangeError as error:
        return {"problem": str(error)}


def rows_of(rank: int, num_rows: int, width: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of whole numbers, no two of them alike on four ranks of 32 rows; bfloat16 holds them too."""
    return (torch.arange(num_rows * width).view(num_rows, width) + 64 * rank).to(dtype)


def strided(rows: Tensor) -> Tensor:
    """The same rows, column by column in memory."""
    return rows.T.contiguous().T


def rows_given(case: Case, name: str) -> list[Tensor]:
    """Each rank's rows; if the case says `apart`, with room for one more number behind each row.

    No tensor of a case has such room: a copy would be without it.
    """
    rows: list[Tensor] = case[name]
    return [torch.cat((each, each[:, :1]), dim=1)[:, :-1] for each in rows] if case.get("apart") else rows


def counts_in_words(counts: Sequence[Sequence[int]], of: str) -> str:
    """Whose counts are which: `rank 0: [1, 2], rank 1: [0, 3]`."""
    listed = ", ".join(f"rank {rank}: {list(row)}" for rank, row in enumerate(counts))
    return f"{len(counts)} rank{'s' * (len(counts) > 1)}; {of} {listed}"
