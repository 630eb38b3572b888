"""The judge as a process of its own: `python -m grader.judge --socket S --out scores.json`.

It takes the seed as the first line of its standard input and works until that input ends, so it never outlives the
process that started it. `JudgeProcess` does all of this.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from grader.results import CheckResult
from tinyllm.paths import project_root

START_SECONDS = 30.0
END_SECONDS = 60.0


class JudgeError(Exception):
    """The judge did not start, or ended early. The message has its last words."""


class JudgeProcess:
    """A judge for one submission, as a context manager.

    Attributes:
        env: what the process beside the learner's code needs in its environment to find the judge.
        scores: the file with the results.
    """

    def __init__(self, seed: int, folder: str | Path) -> None:
        """`folder` gets the scores and the judge's log; it must be out of the submission's reach."""
        self.seed = seed
        self.folder = Path(folder).resolve()
        self.scores = self.folder / "scores.json"
        self.log = self.folder / "judge.log"
        self.env: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.scores.unlink(missing_ok=True)
        self.place = tempfile.TemporaryDirectory(prefix="judge-")  # short: a socket's path has 107 bytes at most
        address = Path(self.place.name) / "socket"
        command = [sys.executable, "-m", "grader.judge", "--socket", str(address), "--out", str(self.scores)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=project_root(),  # never a folder of the submission's: `-m` looks there first
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        deadline = time.monotonic() + START_SECONDS
        while not address.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise JudgeError(f"the judge did not start: {self.last_words()}")
            time.sleep(0.01)
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.seed}\n".encode())
        self.process.stdin.flush()
        self.env = {"GRADER_JUDGE": str(address)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the judge once it has finished what it has begun."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.place.cleanup()

    def results(self) -> dict[str, CheckResult]:
        """The results so far by exercise; one that was never asked for is missing.

        Raises:
            JudgeError: the judge failed, on a fault of the course's own.
        """
        if not self.scores.is_file():
            raise JudgeError(f"the judge left no scores: {self.last_words()}")
        data = json.loads(self.scores.read_text(encoding="utf-8"))
        if data["errors"]:
            raise JudgeError(f"the judge failed on {', '.join(data['errors'])}: {self.last_words()}")
        return {name: CheckResult.from_dict(item) for name, item in data["results"].items()}

    def last_words(self) -> str:
        """The end of the judge's log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:].strip() or "it said nothing"


def serve(address: str, out: Path) -> None:
    """Judge until standard input ends. The socket is there before the slow imports, so nobody has to wait for them."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(16)
        seed = int(sys.stdin.readline())

        import torch

        from grader.sitting import Judge

        torch.set_num_threads(1)
        judge = Judge(seed, out)
        while True:
            ready, _, _ = select.select([server, sys.stdin.fileno()], [], [])
            if server in ready:
                connection, _ = server.accept()
                with connection:
                    judge.hear(connection)
            elif not os.read(sys.stdin.fileno(), 4096):
                return


def main() -> None:
    """Read the command line and judge."""
    parser = argparse.ArgumentParser(
        prog="python -m grader.judge",
        description="Judge one submission. The seed is the first line of standard input; it ends when that ends.",
        epilog="example: (echo 42; cat) | python -m grader.judge --socket /tmp/judge.sock --out scores.json",
    )
    parser.add_argument("--socket", required=True, help="path of the Unix socket to listen at")
    parser.add_argument("--out", required=True, type=Path, help="file for the results")
    arguments = parser.parse_args()
    serve(arguments.socket, arguments.out)


if __name__ == "__main__":
    main()
