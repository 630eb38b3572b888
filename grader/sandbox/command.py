"""The command that starts a warmed zygote in its isolation at each level, as a pure function of its needs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from grader.sandbox.jail import BUILDS, COURSE
from grader.sandbox.limits import MIB, Limits
from tinyllm.paths import project_root

FIRST_UID = 61184  # of a range that no user has (systemd's dynamic users); a grader started by root uses them

#: System files that Python and its libraries read. What is not there is left out.
SYSTEM_PATHS = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/fonts", "/etc/alternatives"),
)


class Level(StrEnum):
    """What holds a submission, the best first."""

    BUBBLEWRAP = "bubblewrap"
    UNSHARE = "unshare"  # the same namespaces and mounts, made by this program
    NONE = "none"  # limits on memory, files and processes alone: it runs with the grader's own rights


@dataclass(frozen=True, slots=True)
class Isolation:
    """What the zygote and its jails get of this machine.

    Attributes:
        course: folder with the course in which every exercise is a stub; the zygote starts from it.
        builds: folder with one course for each exercise.
        limits: of a jail.
        uid: the user to become; None keeps the present one, which must not be root.
        readable: files and folders that are there, read-only, at their own places.
        devices: device nodes that may be used.
    """

    course: str
    builds: str
    limits: Limits = field(default_factory=Limits)
    uid: int | None = None
    readable: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def to_json(self) -> str:
        """For another process; `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Isolation:
        """What `to_json` wrote."""
        data = json.loads(text)
        lists = {name: tuple(data[name]) for name in ("readable", "devices")}
        return cls(**{**data, **lists, "limits": Limits(**data["limits"])})


def zygote_command(level: Level, isolation: Isolation, control: int, warm: bool = True) -> list[str]:
    """The command that starts the zygote, which listens at the file descriptor `control`."""
    python = sys.executable
    zygote = [python, "-P", "-s", "-m", "grader.sandbox.zygote", str(control), json.dumps(isolation.limits.to_dict())]
    zygote.append("warm" if warm else "cold")
    if level is Level.BUBBLEWRAP:
        return bubblewrap_command(isolation, [*zygote, BUILDS, "isolated"])
    if level is Level.UNSHARE:
        return [python, "-P", "-s", "-m", "grader.sandbox.unshare", isolation.to_json(), *zygote, BUILDS, "isolated"]
    return [*zygote, isolation.builds, "none"]


def bubblewrap_command(isolation: Isolation, command: list[str]) -> list[str]:
    """`command` under bubblewrap.

    Started by root it makes the mounts with root's rights, so that a private home may hold Python, and `setpriv`
    becomes a real user without any: bubblewrap's own `--uid` would leave root's powers over files and limits.
    """
    argv = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    argv += ["--die-with-parent", "--new-session", "--clearenv"]
    if isolation.uid is None:
        argv += ["--unshare-user", "--cap-drop", "ALL"]
    for name, value in zygote_environment(COURSE, isolation.limits.gpu).items():
        argv += ["--setenv", name, value]
    # Before what is readable, which may lie below /tmp.
    argv += ["--perms", "1777", "--size", str(isolation.limits.disk_mib * MIB), "--tmpfs", "/tmp"]
    for folder in sorted({str(above) for path in isolation.readable for above in Path(path).parents} - {"/", "/tmp"}):
        argv += ["--perms", "0755", "--dir", folder]  # else bubblewrap lets only the user who starts it pass
    for path in isolation.readable:
        if os.path.islink(path):
            argv += ["--symlink", os.readlink(path), path]
        else:
            argv += ["--ro-bind", path, path]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    for device in isolation.devices:
        argv += ["--dev-bind-try", device, device]
    argv += [
        "--ro-bind",
        isolation.course,
        COURSE,
        "--ro-bind",
        isolation.builds,
        BUILDS,
        "--remount-ro",
        "/",
        "--chdir",
        "/",
    ]
    if isolation.uid is not None:
        ids = ["--reuid", str(isolation.uid), "--regid", str(isolation.uid), "--clear-groups"]
        command = ["setpriv", *ids, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", *command]
    return [*argv, "--", *command]


def zygote_environment(course: str, gpu: bool, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The whole environment of a zygote: one thread, no model hub, every path in the temporary file system.

    Without a GPU, kernels run in Triton's interpreter.
    """
    kept = {name: environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in environ}
    kept |= {name: value for name, value in environ.items() if name.startswith(("CUDA_", "NVIDIA_"))}
    here = dict.fromkeys(("HOME", "TMPDIR", "IPYTHONDIR", "MPLCONFIGDIR", "TRITON_CACHE_DIR"), "/tmp")
    interpreter = {} if gpu else {"TRITON_INTERPRET": "1"}
    return {
        **kept,
        **here,
        **interpreter,
        "TINYLLM_WORK": "/tmp/work",
        "NBGRADER_EXECUTION": "autograde",
        "PYTHONPATH": course,
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def isolation_here(course: Path, builds: Path, limits: Limits, number: int = 0) -> Isolation:
    """The isolation for this machine and this Python. `number` tells workers apart, which get a user each."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    paths = [path for path in SYSTEM_PATHS if os.path.lexists(path)]
    paths += [sys.base_prefix, sys.prefix, str(project_root() / "data")]
    devices: tuple[str, ...] = ()
    if limits.gpu:
        devices = tuple(sorted(str(path) for path in Path("/dev").glob("nvidia*")))
        paths.append("/sys")
    uid = FIRST_UID + number if root else None
    return Isolation(str(course), str(builds), limits, uid, tuple(outermost(paths)), devices)


def readable_answers(isolation: Isolation) -> list[str]:
    """Readable places where the course with its answers lies, as this machine is set up; there must be none."""
    places = [project_root() / name for name in ("solutions", "tinyllm")]
    places += [Path(folder) / "tinyllm" for folder in sys.path if folder and Path(folder) != project_root()]
    found = [str(place) for place in places if place.is_dir()]
    return [place for place in found if any(place.startswith(f"{path}/") for path in isolation.readable)]


def outermost(paths: Iterable[str]) -> list[str]:
    """Paths without those that lie below another one."""
    kept: list[str] = []
    for path in sorted(dict.fromkeys(paths), key=len):
        if not any(path == other or path.startswith(f"{other}/") for other in kept):
            kept.append(path)
    return kept


def has_programs(level: Level) -> bool:
    """Whether the programs that a level starts are installed."""
    if level is not Level.BUBBLEWRAP:
        return True
    needed = ["bwrap", "setpriv"] if os.geteuid() == 0 else ["bwrap"]
    return all(shutil.which(name) for name in needed)
