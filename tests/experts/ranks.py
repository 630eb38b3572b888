"""Runs a function in several processes that form a gloo group, and collects what each returns or raises."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def member(rank: int, world_size: int, store: str, timeout: float, function: Callable[..., Any], out: Any) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=timeout)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=limit)
    try:
        out.put((rank, function(rank, world_size)))
    except Exception as error:
        out.put((rank, f"{type(error).__name__}: {error}"))
    finally:
        dist.destroy_process_group()


def on_ranks(world_size: int, function: Callable[..., Any], folder: Path, timeout: float = 60.0) -> dict[int, Any]:
    """rank -> what `function(rank, world_size)` returned; a rank that ended without a word is missing."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    store = str(folder / "store")
    processes = [
        context.Process(target=member, args=(rank, world_size, store, timeout, function, out))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    results: dict[int, Any] = {}
    while len(results) < world_size:
        try:
            rank, value = out.get(timeout=0.2)
            results[rank] = value
        except queue.Empty:
            if not any(process.is_alive() for process in processes):
                break
    for process in processes:
        process.join(timeout=30)
        assert not process.is_alive(), "a rank hangs"
    return results
