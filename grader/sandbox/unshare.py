"""Isolation without bubblewrap: `python -m grader.sandbox.unshare ISOLATION COMMAND...` runs a command in it.

New namespaces, a root file system of read-only mounts and a small temporary one, and no privileges. An ordinary user
needs user namespaces for it; root becomes another user once the mounts are made.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from grader.sandbox import linux
from grader.sandbox.command import Isolation, zygote_environment
from grader.sandbox.jail import BUILDS, COURSE

DEVICES = ("null", "zero", "full", "random", "urandom")


def enter(isolation: Isolation, command: list[str]) -> int:
    """Run a command in isolation and return its exit status; it ends when this process does."""
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    uid, gid = os.getuid(), os.getgid()
    namespaces = linux.ALL_NAMESPACES
    if isolation.uid is not None:  # real root: its own rights make the mounts; nobody inside owns the namespaces
        namespaces &= ~linux.CLONE_NEWUSER
    linux.unshare(namespaces)
    if isolation.uid is None:
        linux.write_id_maps(uid, gid)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    build_root(isolation)
    become_nobody(isolation.uid)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    os.execve(command[0], command, zygote_environment(COURSE, isolation.limits.gpu))


def become_nobody(uid: int | None) -> None:
    """Give up every privilege for good."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if uid is None:
        linux.drop_capabilities()
        return
    linux.drop_bounding_set()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)  # with the last id of root's the capabilities go too


def build_root(isolation: Isolation) -> None:
    """Put a new root file system together and move into it.

    As bubblewrap does: the old root moves to /old meanwhile, so that no mount hides what another one comes from.
    """
    small = linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", "/tmp", "tmpfs", small, "size=1m,mode=0755")
    os.mkdir("/tmp/old")
    os.mkdir("/tmp/new")
    linux.mount("tmpfs", "/tmp/new", "tmpfs", small, "size=1m,mode=0755")
    linux.pivot_root("/tmp", "/tmp/old")
    for place in ("/tmp", "/dev/shm"):  # before what is readable, which may lie below /tmp
        os.makedirs(f"/new{place}")
        linux.mount("tmpfs", f"/new{place}", "tmpfs", small, f"size={isolation.limits.disk_mib}m,mode=1777")
    for path in isolation.readable:
        bind(path, path)
    bind(isolation.course, COURSE)
    bind(isolation.builds, BUILDS)
    for device in [*(f"/dev/{name}" for name in DEVICES), *isolation.devices]:
        bind(device, device, read_only=False)
    os.mkdir("/new/proc")
    linux.mount("proc", "/new/proc", "proc", small)
    linux.unmount("/old")
    linux.pivot_root("/new")
    linux.remount_read_only("/")


def bind(source: str, place: str, read_only: bool = True) -> None:
    """Show a file or folder of the old root in the new one; a link is made again."""
    here, there = f"/old{source}", f"/new{place}"
    Path(there).parent.mkdir(parents=True, exist_ok=True)
    if os.path.islink(here):
        os.symlink(os.readlink(here), there)
        return
    if os.path.isdir(here):
        os.makedirs(there, exist_ok=True)
    else:
        Path(there).touch()
    linux.mount(here, there, flags=linux.MS_BIND | linux.MS_REC)
    if read_only:
        for mounted in linux.mounts_below(there, proc="/old/proc"):
            linux.remount_read_only(mounted, proc="/old/proc")


def main() -> None:
    """Read the command line and go."""
    sys.exit(enter(Isolation.from_json(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()
