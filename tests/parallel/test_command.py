"""`tinyllm generate` in two processes that torchrun has started, or that have what it gives to those it starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from experts.ranks import processes
from typer.testing import CliRunner

from tinyllm import cli
from tinyllm.paths import project_root, shipped_checkpoint

MODEL = str(shipped_checkpoint("moe"))
GENERATE = ("generate", "The baker", "--model", MODEL)
DRAWN = (*GENERATE, "--max-tokens", "6", "--n", "2", "--temperature", "0.8", "--seed", "3")
BOTH = ("--tensor-parallel", "2", "--expert-parallel", "2")


def as_rank(rank: int, port: int, args: tuple[str, ...], out: Path) -> None:
    """What a process of torchrun does: the command, in an environment that says who and where the others are."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    result = CliRunner().invoke(cli.app, list(args))
    out.write_text(result.output if result.exit_code == 0 else repr(result.exception), encoding="utf-8")


@pytest.mark.needs("checkpoint")
def test_the_first_rank_writes_what_one_process_writes_and_the_others_nothing(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    outputs = [tmp_path / "0", tmp_path / "1"]
    ranks = [
        processes().Process(target=as_rank, args=(rank, port, (*DRAWN, *BOTH), out), daemon=True)
        for rank, out in enumerate(outputs)
    ]
    for process in ranks:
        process.start()
    alone = CliRunner().invoke(cli.app, list(DRAWN))
    for process in ranks:
        process.join(timeout=200)
        assert process.exitcode == 0
    assert outputs[0].read_text(encoding="utf-8") == alone.output
    assert alone.output.count("The baker") == 2
    assert outputs[1].read_text(encoding="utf-8") == ""


def torchrun(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "tinyllm", *args]
    return subprocess.Popen(command, cwd=project_root(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.needs("checkpoint")
def test_torchrun_starts_it() -> None:
    running = torchrun(*DRAWN, *BOTH)
    out, err = running.communicate(timeout=200)
    assert running.returncode == 0, err
    assert out == CliRunner().invoke(cli.app, list(DRAWN)).output


@pytest.mark.slow
@pytest.mark.needs("checkpoint")
def test_torchrun_ends_the_others_when_one_is_killed() -> None:
    running = torchrun(*GENERATE, "--max-tokens", "1900", "--expert-parallel", "2")
    assert running.stdout is not None
    assert running.stdout.read(12), "the text has begun"
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    if not children.exists():
        running.terminate()
        pytest.skip("whose child a process is, is read from /proc here: not permitted on this machine")
    pids = children.read_text().split()
    of_rank_1 = [pid for pid in pids if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    start = time.monotonic()
    os.kill(int(of_rank_1[0]), signal.SIGKILL)
    _, err = running.communicate(timeout=100)
    assert time.monotonic() - start < 60
    assert running.returncode != 0
    assert "rank      : 1" in err
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
