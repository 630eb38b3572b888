"""Runs a function in several processes that form a group, and collects what each returns or raises.

The processes are forked from a server that has imported torch already, so that only the first costs seconds.
"""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tinyllm.parallel.ranks import Ranks

#: A function of the group, and of what else it needs. It must be a module's own, and what it returns is pickled.
OnRank = Callable[..., Any]


def member(rank: int, world_size: int, store: str, timeout: float, function: OnRank, args: Any, out: Any) -> None:
    torch.set_num_threads(1)
    try:
        ranks = Ranks(dist.FileStore(store, world_size), rank, world_size, "gloo", timeout)
        out.put((rank, function(ranks, *args)))
        ranks.close()
    except Exception as error:
        out.put((rank, f"{type(error).__name__}: {error}"))


def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "tinyllm.engine.llm"])
    return context


def on_ranks(
    world_size: int, function: OnRank, folder: Path, *args: Any, timeout: float = 60.0, absent: tuple[int, ...] = ()
) -> dict[int, Any]:
    """rank -> what `function(ranks, *args)` returned; a rank that ended without a word is missing.

    Every process has ended when this returns; one that hangs fails the test.

    Args:
        absent: ranks that are never started.
    """
    context = processes()
    out = context.Queue()
    store = str(folder / f"store{len(list(folder.iterdir()))}")
    members = [
        context.Process(target=member, args=(rank, world_size, store, timeout, function, args, out), daemon=True)
        for rank in range(world_size)
        if rank not in absent
    ]
    for process in members:
        process.start()
    results: dict[int, Any] = {}
    while len(results) < len(members):
        some_live = any(process.is_alive() for process in members)
        try:
            rank, value = out.get(timeout=0.2)
            results[rank] = value
        except queue.Empty:
            if not some_live:
                break
    for process in members:
        process.join(timeout=30)
        assert not process.is_alive(), "a rank hangs"
    return results
