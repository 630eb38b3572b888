"""W ranks in one process, a thread each, and a process group between them: for lessons, checks and small tests.

What is called on a rank is what runs on real ones, `torch.distributed` and all, with `group=`. Nothing is started, no
network is used, and nobody waits for a timeout: a rank that is waited for in vain is an error at once.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from tinyllm.parallel.thread_group import Board, ExchangeError, Group, ThreadGroup

T = TypeVar("T")


class ForgottenGroupError(RuntimeError):
    """Something of `torch.distributed` was called without `group=`."""


def run_ranks(world_size: int, function: Callable[[dist.ProcessGroup], T]) -> list[T]:
    """Call `function(group)` on W ranks at the same time.

    One rank runs at a time, until it waits for the others: what comes out never depends on who was faster.

    Args:
        function: gets the group as its rank sees it: `dist.get_rank(group)` is another one in each call.

    Returns:
        What it returned on each rank.

    Raises:
        ExchangeError: the ranks did not all do the same, or what one sends is not what another expects.
        Exception: what the first rank with an error of its own has raised.

    Example:
        >>> run_ranks(2, lambda group: dist.get_rank(group))
        [0, 1]
    """
    board = Board(world_size)
    groups = [ThreadGroup(board, rank) for rank in range(world_size)]
    results: dict[int, T] = {}
    errors: dict[int, BaseException] = {}

    def on_rank(rank: int) -> None:
        with suppress(SystemExit), board.turn:
            world.here.default = Elsewhere(rank, world_size)
            try:
                results[rank] = function(groups[rank])
            except BaseException as error:  # SystemExit too: it is told on the thread that asked
                errors[rank] = error
            board.leave(rank, "failed" if rank in errors else "returned")

    threads = [threading.Thread(target=on_rank, args=(rank,), daemon=True) for rank in range(world_size)]
    with thread_world(groups) as world:
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:  # an alarm, or Ctrl-C: nobody goes on
            for thread in threads:
                stop(thread)
            raise
    for rank in sorted(errors, key=lambda rank: (isinstance(errors[rank], ExchangeError), rank)):
        raise errors[rank]
    if board.unread():
        raise ExchangeError(board.unread())
    return [results[rank] for rank in range(world_size)]


def stop(thread: threading.Thread) -> None:
    """Raise SystemExit in a thread at its next line of Python."""
    if thread.ident is not None and thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


class Elsewhere(Group):
    """The default group of a rank's thread: a larger world, in which our W ranks are those from 1 on.

    torch asks it who a rank is. Whoever else comes here has forgotten to pass `group` on.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__(rank + 1, world_size + 1)

    def size(self) -> int:
        """Of the whole world; nobody should ask."""
        if sys.exc_info()[0] is None:  # else it is torch, which writes a log of an error
            self.refuse()
        return super().size()

    def refuse(self, *_: Any, **__: Any) -> Any:
        """In place of every collective."""
        raise ForgottenGroupError("a call without group=group went to the default group, which has other ranks")

    all_to_all_single = alltoall_base = alltoall = all_gather_single = _allgather_base = allgather = refuse
    allreduce = reduce = broadcast = gather = scatter = reduce_scatter = barrier = send = recv = refuse


class ThreadWorld(c10d._World):
    """What torch keeps of all groups, with a default group for each thread."""

    def __init__(self, groups: list[ThreadGroup]) -> None:
        super().__init__()
        self.here = threading.local()
        self._ranks = {rank + 1: rank for rank in range(len(groups))}
        self._groups = groups

    @property  # type: ignore[misc]  # which nobody sets
    def default_pg(self) -> dist.ProcessGroup | None:
        """The default group of the thread that asks."""
        return getattr(self.here, "default", None)

    @property
    def pg_group_ranks(self) -> dict[dist.ProcessGroup, dict[int, int]]:
        """Which rank of a group a rank of the world is."""
        return dict.fromkeys(self._groups, self._ranks)

    @property
    def pg_map(self) -> dict[dist.ProcessGroup, Any]:
        """What a group runs on, and its store."""
        default = [self.default_pg] if self.default_pg is not None else []
        return dict.fromkeys([*self._groups, *default], ("threads", None))


@contextmanager
def thread_world(groups: list[ThreadGroup]) -> Iterator[ThreadWorld]:
    """Let `torch.distributed` know these groups; a group that the process has of its own is there again afterwards."""
    before, world = c10d._world, ThreadWorld(groups)
    c10d._world = world
    try:
        yield world
    finally:
        c10d._world = before
