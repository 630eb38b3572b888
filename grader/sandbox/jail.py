"""A jail for one exercise: a child of the warmed zygote, alone in new namespaces, without privileges.

What is in a jail ends with it: its first process is the init of its process-id namespace, so that nothing which it
started can live on. It sees one course (the build in which its exercise is a stub) and an empty temporary file system.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from grader.sandbox import linux
from grader.sandbox.limits import Limits, apply_limits

COURSE = "/course"  # where a jail, and the zygote itself, find the packages `grader` and `tinyllm`
COMMON = "common"  # the course in which every exercise is a stub; the warmed zygote starts from it
BUILDS = "/builds"  # one course for each exercise; no jail sees them


@dataclass(frozen=True, slots=True)
class Jail:
    """A jail in use: `outer` is our own child, `inner` the jail's first process (the same without namespaces)."""

    outer: int
    inner: int


class JailError(Exception):
    """No jail can be made here. The message says which call the kernel refused."""


def open_jail(main: Callable[[], None], build: str, limits: Limits, isolated: bool) -> Jail:
    """Fork a child into a jail of its own and run `main` in it.

    Args:
        main: what the child does; the jail ends when it returns.
        build: folder with the packages that the jail sees as `COURSE`.
        isolated: with namespaces of its own; without them only the limits are set.

    Raises:
        JailError: the kernel does not allow it.
    """
    reader, writer = os.pipe()
    outer = os.fork()
    if outer == 0:
        os.close(reader)
        in_namespaces(main, build, limits, writer) if isolated else only_limited(main, limits, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        word, _, rest = pipe.read().decode().partition(" ")
    if word != "pid":
        os.waitpid(outer, 0)
        raise JailError(rest or "the child ended before it was in its jail")
    return Jail(outer, int(rest))


def close_jail(jail: Jail, isolated: bool) -> None:
    """End a jail and everything in it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(jail.inner, signal.SIGKILL)  # the init of its namespace: the kernel ends all the others
    if not isolated:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(jail.inner, signal.SIGKILL)
    os.waitpid(jail.outer, 0)
    if not isolated:
        end_descendants()


def in_namespaces(main: Callable[[], None], build: str, limits: Limits, report: int) -> NoReturn:
    """In the outer child: new namespaces, then the jail's init as a child in them."""
    try:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        linux.prctl(linux.PR_SET_DUMPABLE, 1)  # or the maps could not be written
        uid, gid = os.getuid(), os.getgid()
        linux.unshare(linux.ALL_NAMESPACES)
        linux.write_id_maps(uid, gid)
        inside_reader, inside_writer = os.pipe()
        inner = os.fork()
    except BaseException as error:
        fail(report, error)
    if inner == 0:
        try:
            os.close(report)
            os.close(inside_reader)
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            furnish(build, limits)
            linux.drop_capabilities()
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
            apply_limits(limits)
        except BaseException as error:
            fail(inside_writer, error)
        os.close(inside_writer)
        finish(main)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    os.close(inside_writer)
    with os.fdopen(inside_reader, "rb") as pipe:
        problem = pipe.read()
    os.write(report, problem or f"pid {inner}".encode())
    os.close(report)
    os.waitpid(inner, 0)
    os._exit(0)


def only_limited(main: Callable[[], None], limits: Limits, report: int) -> NoReturn:
    """In the child, where there is nothing but limits: a session of its own."""
    try:
        os.setsid()
        apply_limits(limits)
        os.write(report, f"pid {os.getpid()}".encode())
        os.close(report)
    except BaseException as error:
        fail(report, error)
    finish(main)


def furnish(build: str, limits: Limits) -> None:
    """Mount the jail's course over the zygote's, hide the others, and give it empty places to write."""
    size = f"size={limits.disk_mib}m,nr_inodes=20000,mode=1777"
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount(build, COURSE, flags=linux.MS_BIND)
    linux.mount("tmpfs", BUILDS, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_RDONLY, "size=4k,mode=0755")
    for place in ("/tmp", "/dev/shm"):
        below = {path: os.open(path, os.O_PATH) for path in sorted(linux.mounts_below(place)) if path != place}
        linux.mount("tmpfs", place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, size)
        for path, descriptor in below.items():  # Python itself may be installed below /tmp
            show_again(path, descriptor)
    with contextlib.suppress(
        PermissionError
    ):  # where parts of /proc are covered the outer one stays; zygote.py hides itself
        linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV)


def show_again(path: str, descriptor: int) -> None:
    """Mount what a descriptor stands for at its old path, read-only, in a file system that has covered it."""
    parent = path if os.path.isdir(f"/proc/self/fd/{descriptor}") else os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    if parent != path:
        with open(path, "w"):
            pass
    linux.mount(f"/proc/self/fd/{descriptor}", path, flags=linux.MS_BIND)
    linux.remount_read_only(path)
    os.close(descriptor)


def finish(main: Callable[[], None]) -> NoReturn:
    """Run `main`; whatever it raises, the process ends here and never runs the zygote's code."""
    try:
        main()
    except BaseException:
        import traceback

        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(0)


def fail(report: int, error: BaseException) -> NoReturn:
    """Tell the other end of a pipe why there is no jail, and end."""
    os.write(report, f"error {error}".encode())
    os._exit(1)


def descendants(pid: int) -> list[int]:
    """Every process below one, by /proc; empty where there is none."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def end_descendants() -> None:
    """Kill whatever a jail without namespaces has left behind. The caller is the reaper of its orphans."""
    while left := descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0)[0]:
                pass
