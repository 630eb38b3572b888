"""Ranks that are threads: they exchange what gloo's do, nobody hangs, and what went wrong is said."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from experts.ranks import on_ranks
from torch import Tensor

from grader.running.limits import TimeLimitExceeded, time_limit
from tinyllm.parallel.ranks import Ranks
from tinyllm.parallel.thread_group import ExchangeError
from tinyllm.parallel.thread_ranks import ForgottenGroupError, run_ranks

Group = dist.ProcessGroup | None


def rows(rank: int, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.arange(count * 2).view(count, 2) + 100 * rank).to(dtype)


def all_to_all_single(group: Group) -> list[Any]:
    """Rank r sends (r + receiver) % 3 rows to each receiver; then one to each."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    splits = [(rank + other) % 3 for other in range(size)]  # alike in both directions
    got = []
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        output = torch.empty(sum(splits), 2, dtype=dtype)
        dist.all_to_all_single(output, rows(rank, sum(splits), dtype), splits, splits, group=group)
        got.append(output.tolist())
    output = torch.empty(size, 2)
    work = dist.all_to_all_single(output, rows(rank, size), group=group, async_op=True)
    work.wait()
    return [*got, output.tolist()]


def gathered(group: Group) -> list[Any]:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    listed = [torch.empty(2, 2) for _ in range(size)]
    dist.all_gather(listed, rows(rank, 2).T, group=group)
    objects: list[Any] = [None] * size
    dist.all_gather_object(objects, {"rank": rank}, group=group)
    reduced = []
    for op in (dist.ReduceOp.SUM, dist.ReduceOp.MAX, dist.ReduceOp.MIN):
        reduced.append(rows(rank, 3) * (-1) ** rank)
        dist.all_reduce(reduced[-1], op, group=group)
    swapped = [torch.empty(1, 2) for _ in range(size)]
    dist.all_to_all(swapped, list(rows(rank, size).split(1)), group=group)
    dist.barrier(group)
    return [
        [item.tolist() for item in listed],
        objects,
        [item.tolist() for item in reduced],
        [item.tolist() for item in swapped],
    ]


def gathered_in_one(group: Group) -> list[Any]:
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    output = torch.empty(2 * size, 2)
    dist.all_gather_into_tensor(output, rows(rank, 2), group=group)
    nothing = torch.empty(0)
    dist.all_gather_into_tensor(nothing, torch.empty(0), group=group)
    return output.tolist()


def sent_around(group: Group) -> list[Any]:
    """Each rank's rows go to the next one; the first of two letters is taken first."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    following, before = (rank + 1) % size, (rank - 1) % size
    got = torch.empty(2, 2)
    receiving = dist.irecv(got, group_src=before, group=group)
    sending = [dist.isend(rows(rank, n), group_dst=following, group=group) for n in (2, 1)]
    second = torch.empty(1, 2)
    assert receiving is not None
    receiving.wait()
    dist.recv(second, group_src=before, group=group)
    for work in sending:
        assert work is not None
        work.wait()
    return [got.tolist(), second.tolist()]


FUNCTIONS = (all_to_all_single, gathered, gathered_in_one, sent_around)


def on_gloo(ranks: Ranks) -> list[Any]:
    return [function(None) for function in FUNCTIONS]


@pytest.mark.filterwarnings("ignore:.*all_gather_into_tensor.*")
@pytest.mark.parametrize("world_size", [2, 3])
def test_threads_exchange_what_processes_exchange(world_size: int, tmp_path: Path) -> None:
    expected = on_ranks(world_size, on_gloo, tmp_path)
    for number, function in enumerate(FUNCTIONS):
        assert run_ranks(world_size, function) == [expected[rank][number] for rank in range(world_size)], function


def test_what_is_not_waited_for_is_not_there() -> None:
    def begins(group: dist.ProcessGroup) -> list[list[float]]:
        output, summed = torch.ones(2), torch.ones(2)
        works = [
            dist.all_to_all_single(output, torch.ones(2), group=group, async_op=True),
            dist.all_reduce(summed, group=group, async_op=True),
        ]
        before = [*output.tolist(), *summed.tolist()]
        for work in works:
            assert work is not None
            work.wait()
        return [before, [*output.tolist(), *summed.tolist()]]

    assert run_ranks(2, begins) == [[[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 2.0, 2.0]]] * 2


def test_one_rank_exchanges_with_itself() -> None:
    assert run_ranks(1, all_to_all_single) == [[[], [], [], [[0.0, 1.0]]]]
    assert run_ranks(1, gathered)[0][1] == [{"rank": 0}]


# ------------------------------------------------------------ what goes wrong


def barrier_but(*absent: int) -> Callable[[dist.ProcessGroup], None]:
    return lambda group: None if group.rank() in absent else dist.barrier(group)


def test_a_rank_that_returns_is_not_waited_for() -> None:
    with pytest.raises(ExchangeError, match=r"^rank 1 waits in barrier, rank 0 has returned$"):
        run_ranks(2, barrier_but(0))
    with pytest.raises(ExchangeError, match=r"^ranks 0, 2 and 4 wait in barrier, ranks 1 and 3 have returned$"):
        run_ranks(5, barrier_but(1, 3))


def test_a_rank_that_fails_is_the_error_of_all() -> None:
    def second_fails(group: dist.ProcessGroup) -> None:
        if group.rank() == 1:
            raise ArithmeticError("of its own")
        dist.barrier(group)

    with pytest.raises(ArithmeticError, match="of its own"):
        run_ranks(3, second_fails)


def test_ranks_that_do_different_things_are_told() -> None:
    def another(group: dist.ProcessGroup) -> None:
        dist.barrier(group) if group.rank() else dist.all_reduce(torch.ones(1), group=group)

    with pytest.raises(ExchangeError, match="rank 0 calls all_reduce where rank 1 calls barrier"):
        run_ranks(2, another)
    with pytest.raises(ExchangeError, match="rank 0 waits in recv from rank 1, rank 1 waits in recv from rank 0"):
        run_ranks(2, lambda group: dist.recv(torch.empty(1), group_src=1 - group.rank(), group=group))


def single(group: dist.ProcessGroup, output: Tensor, sent: Tensor, *splits: Any) -> None:
    dist.all_to_all_single(output, sent, *splits, group=group)


REFUSED: dict[str, tuple[type[Exception], Callable[[dist.ProcessGroup], Any]]] = {
    r"rank 0 expects torch.float32 of shape \[2\] from rank 1, which sends torch.float32 of shape \[1\]": (
        ExchangeError,
        lambda group: single(group, torch.empty(4), torch.empty(3), [2, 2], [2 - group.rank(), 1 + group.rank()]),
    ),
    r"rank 0 expects torch.float32 of shape \[1\] from rank 1, which sends torch.float64 of shape \[1\]": (
        ExchangeError,
        lambda group: single(group, *([torch.empty(2).double() if group.rank() else torch.empty(2)] * 2)),
    ),
    "takes contiguous tensors": (ValueError, lambda group: single(group, torch.empty(2, 2).T, torch.empty(2, 2))),
    "rank 1 has sent rank 0 what it never received": (
        ExchangeError,
        lambda group: dist.send(torch.ones(1), group_dst=0, group=group) if group.rank() else None,
    ),
    "send takes contiguous tensors": (
        ValueError,
        lambda group: dist.send(torch.empty(2, 2).T, group_dst=1 - group.rank(), group=group),
    ),
    "3 rows cannot be shared evenly among 2": (ValueError, lambda group: single(group, torch.empty(3), torch.empty(3))),
    r"the splits \[1, 1\] do not share 3 rows": (
        ValueError,
        lambda group: single(group, torch.empty(2), torch.empty(3), [1, 1], [1, 1]),
    ),
    r"call .tolist\(\)": (TypeError, lambda group: single(group, *[torch.empty(2)] * 2, *[torch.ones(2).int()] * 2)),
    "all_to_all_single takes uneven splits": (
        RuntimeError,
        lambda group: dist.all_to_all([torch.empty(1), torch.empty(2)], [torch.empty(1), torch.empty(2)], group=group),
    ),
    "all_reduce takes SUM, MAX and MIN, and nothing else": (
        ValueError,
        lambda group: dist.all_reduce(torch.ones(1), dist.ReduceOp.PRODUCT, group=group),
    ),
    "rank 1 sends to itself": (
        ValueError,
        lambda group: dist.isend(torch.ones(1), group_dst=1, group=group) if group.rank() else None,
    ),
}


@pytest.mark.parametrize("words", list(REFUSED))
def test_what_is_refused(words: str) -> None:
    error, call = REFUSED[words]
    with pytest.raises(error, match=words):
        run_ranks(2, call)


@pytest.mark.parametrize(
    "call",
    [
        lambda group: dist.get_world_size(),
        lambda group: dist.barrier(),
        lambda group: dist.all_reduce(torch.ones(1)),
        lambda group: dist.all_to_all_single(torch.ones(2), torch.ones(2)),
        lambda group: dist.all_gather([torch.ones(1)] * 2, torch.ones(1)),
        lambda group: dist.broadcast(torch.ones(1), 0),
    ],
)
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_forgotten_group_is_told(call: Callable[[dist.ProcessGroup], Any], world_size: int) -> None:
    with pytest.raises(ForgottenGroupError, match="without group=group"):
        run_ranks(world_size, call)


def test_torch_has_its_own_groups_back_afterwards() -> None:
    assert not dist.is_initialized()
    assert run_ranks(2, lambda group: (dist.get_rank(), dist.get_global_rank(group, 0))) == [(1, 1), (2, 1)]
    with pytest.raises(ZeroDivisionError):
        run_ranks(2, lambda group: 1 / 0)
    assert not dist.is_initialized()


def test_an_alarm_ends_ranks_that_never_end() -> None:
    def second_loops(group: dist.ProcessGroup) -> None:
        while group.rank() == 1:
            pass
        dist.barrier(group)

    before = set(threading.enumerate())
    with pytest.raises(TimeLimitExceeded), time_limit(0.3):
        run_ranks(3, second_loops)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=20)
        assert not thread.is_alive()
