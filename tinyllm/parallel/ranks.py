"""The processes that share a model, what they exchange, and who of them is gone when an exchange fails."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from tinyllm.errors import RankLostError

#: How long the others have to answer a roll call. All ranks do the same work at the same time, so it can be short.
GRACE_SECONDS = 0.75


class Ranks:
    """A group of W processes that run one model together, each with its part of the weights.

    Every collective must be called by every rank, in the same order and with tensors of the same shapes. So all ranks
    run the same engine on the same requests, as vLLM's "external_launcher" has it: what they compute they exchange, and
    what they decide they decide alike. Nothing may be left to chance or to the clock of one process; a number that is
    drawn comes from `random`.

    A rank that is killed is an error on the others at once, with gloo; one that stalls is an error at the timeout. NCCL
    runs beside Python: there the timeout of torch's watchdog ends the process, or torchrun does, which names the rank.

    Attributes:
        rank: which one this process is, from 0.
        world_size: W.
        random: gives the same numbers on every rank.
    """

    def __init__(self, store: Store, rank: int, world_size: int, backend: str, timeout_seconds: float) -> None:
        """Form the group; returns when all ranks are there.

        Args:
            store: where they find each other, and where they answer a roll call.
            backend: "gloo" on the CPU, "nccl" on CUDA.
            timeout_seconds: how long an exchange may wait for the slowest rank.

        Raises:
            RankLostError: not all of them came in time.
        """
        self.rank, self.world_size = rank, world_size
        self._store, self._timeout_seconds = store, timeout_seconds
        self._lost = ""  # why the group is no more
        timeout = timedelta(seconds=timeout_seconds)
        try:
            store.set_timeout(timeout)
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
            if rank == 0:
                store.set("seed", str(secrets.randbits(63)))
            self.random = random.Random(int(store.get("seed")))
        except RuntimeError as error:
            raise RankLostError(
                f"rank {rank}: the {world_size} ranks did not all find each other within {timeout_seconds:g} s "
                f"({short_cause(error)}). Look for an error of another rank, and start all of them again"
            ) from error

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of all ranks' x, in place; every rank gets the same bits."""
        with self.collective():
            dist.all_reduce(x)
        return x

    def all_gather(self, x: Tensor) -> Tensor:
        """[n, ...] on each rank -> [W * n, ...] on every rank, in the order of the ranks; n is the same on all."""
        gathered = x.new_empty(self.world_size, *x.shape)
        with self.collective():
            dist.all_gather(list(gathered.unbind()), x.contiguous())
        return gathered.flatten(0, 1)

    def broadcast(self, x: Tensor) -> Tensor:
        """Rank 0's x on every rank, in place."""
        with self.collective():
            dist.broadcast(x, src=0)
        return x

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Around a collective of `torch.distributed`: one that fails is told as the loss of a rank.

        Raises:
            RankLostError: the message names the ranks that do not answer. The group is of no use from then on.
        """
        if self._lost:
            raise RankLostError(self._lost)
        try:
            yield
        except RuntimeError as error:
            self._lost = self._who_is_gone(short_cause(error))
            raise RankLostError(self._lost) from error

    def close(self) -> None:
        """Leave the group. Whoever waits for this rank gets an error at once."""
        with suppress(Exception):  # it may be closed, or broken
            dist.destroy_process_group()

    def _who_is_gone(self, cause: str) -> str:
        """Leave the group and hold a roll call in the store; in words, who did not answer it.

        To leave closes the connections. So those that wait for this rank, and not for the one that is gone, get an
        error too and come to answer.
        """
        self.close()
        try:
            self._store.set(f"here/{self.rank}", "")
        except RuntimeError:
            return f"rank {self.rank}: what keeps the ranks together (torchrun, or rank 0) is gone ({cause})"
        others = [rank for rank in range(self.world_size) if rank != self.rank]
        missing = [rank for rank in others if not self._answers(rank)]
        if not missing:
            return (
                f"rank {self.rank}: the others have given this one up, since it was late by more than "
                f"{self._timeout_seconds:g} s, or did something else than they ({cause})"
            )
        names = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))} of {self.world_size}"
        return (
            f"rank {self.rank} lost {names}: killed, failed, or stalled for {self._timeout_seconds:g} s ({cause}). "
            "The model is in parts, so nobody can go on alone; look for the error of the lost rank, and start all again"
        )

    def _answers(self, rank: int) -> bool:
        try:
            self._store.wait([f"here/{rank}"], timedelta(seconds=GRACE_SECONDS))
        except RuntimeError:
            return False
        return True


def short_cause(error: BaseException) -> str:
    """What an error of torch says, without the place in its sources before it and the advice and stack behind."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[\S+\] ", "", line).split(". ")[0].strip()


def split_rows(num_rows: int, rank: int, world_size: int) -> tuple[slice, int]:
    """This rank's share of some rows, and how many rows the largest share has; the last shares may be short or empty.

    Example:
        >>> split_rows(5, 1, 4), split_rows(5, 3, 4)
        ((slice(2, 4, None), 2), (slice(5, 5, None), 2))
    """
    share = -(-num_rows // world_size)
    return slice(min(rank * share, num_rows), min((rank + 1) * share, num_rows)), share
