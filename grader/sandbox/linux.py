"""The few system calls that Python 3.11 does not wrap: namespaces, mounts, capabilities, process flags (Linux only)."""

from __future__ import annotations

import ctypes
import os
import re

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
ALL_NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
)

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
MOUNT_FLAGS = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
LAST_CAPABILITY = 63

SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """Raise the OSError of a call that failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones. A new process-id namespace begins with the next child."""
    checked(libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode())
    checked(libc.mount(*arguments), f"mount {target}")


def unmount(target: str) -> None:
    """Take a mount and all below it out of sight."""
    checked(libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def pivot_root(new_root: str, put_old: str | None = None) -> None:
    """Make a mounted folder the root; the old one is at `put_old` (a folder in the new one) or let go."""
    number = SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"pivot_root is not known for {os.uname().machine}")
    os.chdir(new_root)
    old = (put_old or ".").encode()
    checked(libc.syscall(ctypes.c_long(number), b".", old), "pivot_root")
    if put_old is None:
        unmount(".")
    os.chdir("/")


def mounts_below(target: str, proc: str = "/proc") -> dict[str, int]:
    """The mount at `target` and all below it, with the flags of each."""
    found: dict[str, int] = {}
    with open(f"{proc}/self/mountinfo") as file:
        for line in file:
            words = line.split()
            place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4])  # a blank is \040
            if place == target or place.startswith(target.rstrip("/") + "/"):
                options = words[5].split(",")
                found[place] = sum(flag for name, flag in MOUNT_FLAGS.items() if name in options)
    return found


def remount_read_only(target: str, proc: str = "/proc") -> None:
    """Make a mount read-only; its other flags stay, since in a user namespace they are locked."""
    mount("none", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | mounts_below(target, proc).get(target, 0))


def prctl(option: int, value: int = 0, value2: int = 0) -> None:
    """prctl(2)."""
    zero = ctypes.c_ulong(0)
    checked(libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), ctypes.c_ulong(value2), zero, zero), "prctl")


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def drop_capabilities() -> None:
    """Give up every capability, for this process and whatever it starts."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    drop_bounding_set()
    header = _Header(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    checked(libc.capset(ctypes.byref(header), nothing), "capset")


def drop_bounding_set() -> None:
    """Make sure that no program can give this process a capability."""
    for number in range(LAST_CAPABILITY + 1):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) != 0:
            break  # past the last one that this kernel has


def write_id_maps(uid: int, gid: int) -> None:
    """In a new user namespace: keep the own user and group, and have no other."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
