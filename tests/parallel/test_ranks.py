"""A rank that is killed, fails, stalls or never comes is an error on the others, in words, and nobody hangs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from experts.ranks import on_ranks
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import RankLostError
from tinyllm.parallel.ranks import Ranks, split_rows


def sum_of_ones(ranks: Ranks) -> float:
    return float(ranks.all_reduce(torch.ones(1000)).mean())


def last_is_killed(ranks: Ranks) -> tuple[float, float, str]:
    """What a collective gave while all were there; how long one took, and what it and the next said, after a kill."""
    total = sum_of_ones(ranks)
    if ranks.rank == ranks.world_size - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(RankLostError) as caught:
        sum_of_ones(ranks)
    seconds = time.monotonic() - start
    with pytest.raises(RankLostError) as again:
        ranks.all_gather(torch.ones(1))
    assert str(again.value) == str(caught.value)
    return total, seconds, str(caught.value)


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_rank_that_is_killed_is_named_by_all_others(world_size: int, tmp_path: Path) -> None:
    results = on_ranks(world_size, last_is_killed, tmp_path, timeout=100)
    last = world_size - 1
    assert sorted(results) == list(range(last))
    for rank, (total, seconds, words) in results.items():
        assert total == world_size
        assert seconds < 50, "it must not take the timeout"
        assert words.startswith(f"rank {rank} lost rank")
        assert f" {last} of {world_size}: killed, failed, or stalled" in words
        assert "start all again" in words


def second_fails(ranks: Ranks) -> float:
    sum_of_ones(ranks)
    if ranks.rank == 1:
        raise ArithmeticError("of its own")
    return sum_of_ones(ranks)


def test_the_error_of_one_rank_is_its_own_and_a_loss_to_the_others(tmp_path: Path) -> None:
    results = on_ranks(2, second_fails, tmp_path)
    assert results[1] == "ArithmeticError: of its own"
    assert results[0].startswith("RankLostError: rank 0 lost rank 1 of 2")


def second_stalls(ranks: Ranks, seconds: float) -> float:
    sum_of_ones(ranks)
    if ranks.rank == 1:
        time.sleep(seconds)
    return sum_of_ones(ranks)


def test_a_rank_that_stalls_is_an_error_at_the_timeout_and_is_told_when_it_wakes(tmp_path: Path) -> None:
    results = on_ranks(2, second_stalls, tmp_path, 5.0, timeout=1)
    assert results[0].startswith("RankLostError: rank 0 lost rank 1 of 2: killed, failed, or stalled for 1 s")
    assert results[1].startswith("RankLostError: rank 1: the others have given this one up, since it was late")


def other_shapes(ranks: Ranks) -> torch.Tensor:
    return ranks.all_reduce(torch.ones(4 + ranks.rank))


def test_ranks_that_do_different_things_do_not_hang(tmp_path: Path) -> None:
    for rank, words in on_ranks(2, other_shapes, tmp_path, timeout=1).items():
        assert str(words).startswith(f"RankLostError: rank {rank}"), words


def test_a_rank_that_never_comes_is_an_error_at_the_timeout(tmp_path: Path) -> None:
    results = on_ranks(2, sum_of_ones, tmp_path, timeout=1, absent=(1,))
    assert results[0].startswith("RankLostError: rank 0: the 2 ranks did not all find each other within 1 s")


def exchanges(ranks: Ranks) -> tuple[list[list[int]], list[int], int]:
    mine = torch.full((2, 3), ranks.rank)
    numbers = ranks.random.getrandbits(63)
    return ranks.all_gather(mine.T.contiguous().T)[:, 0].tolist(), ranks.broadcast(mine)[0].tolist(), numbers


def test_what_the_ranks_gather_and_are_told(tmp_path: Path) -> None:
    results = on_ranks(3, exchanges, tmp_path)
    for gathered, told, number in results.values():
        assert gathered == [0, 0, 1, 1, 2, 2]
        assert told == [0, 0, 0]
        assert number == results[0][2], "what is drawn is alike on all"


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_of_rows_tile_them_and_only_the_last_are_short(num_rows: int, world_size: int) -> None:
    shares = [split_rows(num_rows, rank, world_size) for rank in range(world_size)]
    rows = list(range(num_rows))
    assert [row for mine, _ in shares for row in rows[mine]] == rows
    sizes = [len(rows[mine]) for mine, _ in shares]
    assert sizes == sorted(sizes, reverse=True)
    assert {share for _, share in shares} == {-(-num_rows // world_size)}
    assert all(size in (0, share) for size, (_, share) in zip(sizes, shares, strict=True)) or num_rows % world_size
