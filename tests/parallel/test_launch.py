"""Processes of one command that find each other: none is left behind, and one that is killed is named by the other."""

from __future__ import annotations

import subprocess

import pytest

from tinyllm.parallel.launch import started_ranks
from tinyllm.paths import shipped_checkpoint

MOE = str(shipped_checkpoint("moe"))


def test_no_process_is_left_whatever_ends_the_block() -> None:
    kept: list[subprocess.Popen[str]] = []
    with pytest.raises(ZeroDivisionError), started_ranks(2, "--help") as processes:
        kept += processes
        assert "generate" in (kept[0].communicate(timeout=100)[0])
        raise ZeroDivisionError
    assert len(kept) == 2
    assert all(process.returncode is not None for process in kept)


@pytest.mark.needs("checkpoint")
def test_the_first_rank_writes_and_names_the_second_when_it_is_killed() -> None:
    command = ("generate", "The baker", "--model", MOE, "--max-tokens", "1900", "--expert-parallel", "2")
    with started_ranks(2, *command) as (first, second):
        assert first.stdout is not None
        assert first.stdout.read(12).startswith("The baker"), "the text has begun"
        second.kill()
        _, said = first.communicate(timeout=100)
    assert first.returncode == 1
    assert "error: rank 0 lost rank 1 of 2: killed, failed, or stalled" in said
