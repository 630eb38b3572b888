"""How much a submission may use, and how the kernel is told."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one jail may use.

    Attributes:
        memory_mib: beyond what the warmed zygote has, for one process; and for all of a jail's processes together.
        disk_mib: on the temporary file system, its only place to write; it counts as memory too.
        processes: processes and threads at once.
        open_files: file descriptors of a process.
        cell_seconds: for a cell that holds the student's code.
        case_seconds: for one case, where its property does not say less.
        grace_seconds: beyond that, for the alarm in the jail to be told; then the jail is ended.
        gpu: whether it may see the GPU. CUDA maps far more addresses than memory, so there the address space is free.
    """

    memory_mib: int = 2048
    disk_mib: int = 128
    processes: int = 64
    open_files: int = 256
    cell_seconds: float = 30.0
    case_seconds: float = 60.0
    grace_seconds: float = 5.0
    gpu: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


def apply_limits(limits: Limits) -> None:
    """Set this process's limits for good; what it starts has them too."""
    hard = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: limits.disk_mib * MIB,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_NPROC: limits.processes,
        resource.RLIMIT_MEMLOCK: 16 * MIB,
    }
    if sys.platform == "linux":
        hard |= {resource.RLIMIT_MSGQUEUE: 0, resource.RLIMIT_NICE: 0, resource.RLIMIT_RTPRIO: 0}
        if not limits.gpu:
            hard[resource.RLIMIT_AS] = address_space() + limits.memory_mib * MIB
    for name, value in hard.items():
        _, most = resource.getrlimit(name)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(name, (value, value))


def address_space() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def memory_at_most(pids: list[int]) -> int:
    """Bytes that processes use together, shared pages counted for each: never less than `memory_in_use`, and quick."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue  # it has ended
    return total


def memory_in_use(pids: list[int]) -> int:
    """Bytes that processes use together; pages that they share with others count in part."""
    total = 0
    for pid in pids:
        for name, field, unit in (("smaps_rollup", "Pss:", 1024), ("status", "RssAnon:", 1024)):
            try:
                with open(f"/proc/{pid}/{name}") as file:
                    line = next((line for line in file if line.startswith(field)), None)
            except OSError:
                continue  # it has ended, or may not be looked into
            if line is not None:
                total += int(line.split()[1]) * unit
                break
    return total
