"""Processes of one command that find each other: none is left behind, and one that is killed is named by the other."""

from __future__ import annotations

import subprocess

import pytest

from tinyllm.parallel.launch import started_ranks
from tinyllm.paths import shipped_checkpoint

MOE = str(shipped_checkpoint("moe"))


def test_no_process_is_left_when_the_block_fails() -> None:
    kept: list[subprocess.Popen[str]] = []

    def fails() -> None:
        with started_ranks(2, "doctor") as processes:
            kept.extend(processes)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert len(kept) == 2
    assert all(process.returncode is not None for process in kept)


@pytest.mark.needs("checkpoint")
def test_the_first_rank_writes_and_names_the_second_when_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a notebook
    command = ("generate", "The baker", "--model", MOE, "--max-tokens", "1900", "--expert-parallel", "2")
    with started_ranks(2, *command) as (first, second):
        assert first.stdout is not None
        assert first.stdout.read(12).startswith("The baker"), "the text has begun"
        second.kill()
        _, said = first.communicate(timeout=100)
    assert first.returncode == 1
    assert any(
        line.startswith("error: rank 0 lost rank 1 of 2: killed, failed, or stalled") for line in said.splitlines()
    )
