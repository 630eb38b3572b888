"""Find the other processes that `torchrun` has started, and form a group with them."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from functools import cache

import torch
from torch.distributed.rendezvous import rendezvous

from tinyllm.config import ParallelConfig
from tinyllm.errors import OptionError, RankLostError
from tinyllm.parallel.ranks import Ranks, short_cause


def join_ranks(config: ParallelConfig, device: str | torch.device) -> Ranks | None:
    """Form the group that a config asks for, out of the processes that torchrun has started.

    A process has one group; whoever asks again gets the same. On CUDA each process takes the GPU of its own number.

    Args:
        config: how many processes share the model.
        device: "cpu", for which they talk through gloo, or "cuda", for which they talk through NCCL.

    Returns:
        None where one process has all of the model.

    Raises:
        OptionError: the process was not started by torchrun, or with another number of them, or there is no GPU for it.
        RankLostError: not all of them came in time.
    """
    size = config.world_size
    if size == 1:
        return None
    name, flag = next((n, f) for n, f in FLAGS.items() if getattr(config, n) > 1)
    command = f"torchrun --nproc-per-node {size} -m tinyllm generate {flag} {size} ..."
    started = os.environ.get("WORLD_SIZE")
    if started is None or "RANK" not in os.environ:
        raise OptionError(f"{name} is {size}, but this process is alone; start {size} of them: {command}")
    if int(started) != size:
        raise OptionError(f"{name} is {size}, but torchrun has started {started} processes; start {size}: {command}")
    on_gpu = str(device).startswith("cuda")
    if on_gpu:
        take_gpu(device, int(os.environ.get("LOCAL_RANK", "0")))
    return torchrun_group("nccl" if on_gpu else "gloo", config.distributed_timeout_seconds)


#: The options that ask for several processes, and how the command line calls them.
FLAGS = {"tensor_parallel_size": "--tensor-parallel", "expert_parallel_size": "--expert-parallel"}


def take_gpu(device: str | torch.device, number: int) -> None:
    """Let "cuda" mean this GPU.

    Raises:
        OptionError: torch sees no such GPU, or the device is one GPU for all processes.
    """
    if str(device) != "cuda":
        raise OptionError(f'the device is {device}, and each process needs its own; give "cuda"')
    if number >= torch.cuda.device_count():
        raise OptionError(
            f"torch sees {torch.cuda.device_count()} GPUs, and each process needs its own; start as many processes as "
            "there are GPUs, or run on the CPU: --device cpu"
        )
    torch.cuda.set_device(number)


@cache
def torchrun_group(backend: str, timeout_seconds: float) -> Ranks:
    """The group of all processes of this torchrun; see `Ranks`."""
    try:
        store, rank, world_size = next(iter(rendezvous("env://", timeout=timedelta(seconds=timeout_seconds))))
    except (RuntimeError, ValueError) as error:
        raise RankLostError(f"this process cannot reach torchrun ({short_cause(error)}); start all again") from error
    ranks = Ranks(store, rank, world_size, backend, timeout_seconds)
    atexit.register(ranks.close)
    return ranks
