"""The warmed zygote: has imported what every submission needs, and forks a jail for each exercise.

`python -m grader.sandbox.zygote CONTROL LIMITS warm|cold BUILDS isolated|none` is started in the outer isolation by
host.py and speaks to it over the socket with the file descriptor CONTROL. It runs no code of a submission itself. One
jail at a time is open; it ends when told so, when it uses too much memory, or when the other end of CONTROL has gone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import socket
import sys
from typing import Any

from grader.sandbox.jail import COURSE, Jail, JailError, close_jail, descendants, open_jail
from grader.sandbox.limits import MIB, Limits, memory_at_most, memory_in_use

#: Imported once, before any fork. None of them holds an exercise's reference.
WARM = ("torch", "numpy", "matplotlib.pyplot", "grader.sandbox.inside")

WATCH_SECONDS = 0.1  # between two looks at a jail's memory
MAX_COMMAND_BYTES = 4096


class Zygote:
    """Opens and closes jails as it is told, one at a time."""

    def __init__(self, control: socket.socket, limits: Limits, builds: str, isolated: bool) -> None:
        self.control = control
        self.limits = limits
        self.builds = builds
        self.isolated = isolated
        self.jail: Jail | None = None
        self.ended_for = ""

    def serve(self) -> None:
        """Answer commands until the other end goes."""
        self.say({"ready": True})
        while True:
            ready, _, _ = select.select([self.control], [], [], WATCH_SECONDS if self.jail else None)
            if not ready:
                self.watch()
                continue
            data, descriptors, _, _ = socket.recv_fds(self.control, MAX_COMMAND_BYTES, 1)
            if not data:
                self.close()
                return
            command = json.loads(data)
            if "open" in command:
                self.open(command["open"], descriptors[0])
            else:
                self.close()
                self.say({"closed": True, "ended_for": self.ended_for})

    def open(self, build: str, descriptor: int) -> None:
        """Open a jail in which inside.py runs, connected by a socket to whoever asked."""
        self.ended_for = ""
        course = f"{self.builds}/{build}"

        def main() -> None:
            self.control.close()
            keep_only(descriptor)
            see_course(COURSE if self.isolated else course)
            inside = importlib.import_module("grader.sandbox.inside")
            with socket.socket(fileno=descriptor) as connection:
                inside.work(connection)

        try:
            self.jail = open_jail(main, course, self.limits, self.isolated)
        except JailError as error:
            self.say({"error": str(error)})
        else:
            self.say({"opened": True})
        finally:
            os.close(descriptor)

    def watch(self) -> None:
        """End the jail if its processes use too much memory together."""
        if self.jail is None:
            return
        pids, limit = descendants(self.jail.outer), self.limits.memory_mib * MIB
        if memory_at_most(pids) <= limit or memory_in_use(pids) <= limit:
            return
        self.close()
        self.ended_for = f"it used more than {self.limits.memory_mib} MiB of memory"

    def close(self) -> None:
        """End the jail, if one is open."""
        if self.jail is not None:
            close_jail(self.jail, self.isolated)
            self.jail = None

    def say(self, message: dict[str, Any]) -> None:
        """Tell the other end."""
        self.control.sendall(json.dumps(message).encode())


def keep_only(descriptor: int) -> None:
    """Close every file but the standard ones and one; what the jail's code prints unasked goes nowhere."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))


def see_course(folder: str) -> None:
    """Import what is not imported yet of `grader` and `tinyllm` from the jail's own course."""
    sys.path[:] = [folder if path == os.environ["PYTHONPATH"] else path for path in sys.path]
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("grader", "tinyllm") and hasattr(module, "__path__"):
            module.__path__ = ["/".join([folder, *name.split(".")])]
    importlib.invalidate_caches()


def warm_up() -> None:
    """Import what every jail needs, and make the shell in which cells run."""
    for name in WARM:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):  # there are machines without
        importlib.import_module("triton")
    importlib.import_module("torch").set_num_threads(1)
    importlib.import_module("grader.sandbox.inside").prepare_shell()
    gc.collect()
    gc.freeze()  # a jail that collects would else write to, and so copy, every page that holds an object of these


def main() -> None:
    """Read the command line, warm up and serve."""
    control, limits, warm, builds, isolation = sys.argv[1:]
    if sys.platform == "linux":
        from grader.sandbox import linux

        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        linux.prctl(linux.PR_SET_DUMPABLE, 0)  # nobody of the same user may look into this process by /proc
    with socket.socket(fileno=int(control)) as connection:
        if warm == "warm":
            warm_up()
        Zygote(connection, Limits(**json.loads(limits)), builds, isolation == "isolated").serve()
    os._exit(0)  # at once: there is nothing to tidy up, and torch takes its time


if __name__ == "__main__":
    main()
