"""Start one command in W processes that find each other, as torchrun does on a machine, and keep hold of each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tinyllm.paths import project_root


@contextmanager
def started_ranks(world_size: int, *args: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Run `tinyllm ARGS` in W processes, for as long as the block lasts.

    What torchrun adds is that it looks after them: it ends the others when one fails. Here they are on their own, so
    that one can be killed to see what the others do.

    Args:
        args: of the command line, such as `generate`, a text, `--expert-parallel` and "2".

    Yields:
        The processes in the order of their ranks; what they write can be read from `stdout` and `stderr`. None is left
        when the block has ended.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    # A notebook's kernel asks for colors, which are for a screen.
    inherited = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    processes: list[subprocess.Popen[str]] = []
    try:
        for rank in range(world_size):
            own = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tinyllm", *args],
                    cwd=project_root(),
                    env={**inherited, **own},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()  # closes the pipes too
