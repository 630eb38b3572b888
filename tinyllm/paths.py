"""Where things are: the project's root, the learner's work folder, the checkpoints that ship."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """The checkout that this package runs from: the folder with `notebooks/`, `solutions/` and `data/`."""
    return Path(__file__).resolve().parent.parent


def work_dir() -> Path:
    """The learner's folder: `$TINYLLM_WORK`, else `work/` in the checkout. It need not exist yet."""
    chosen = os.environ.get("TINYLLM_WORK")
    return Path(chosen) if chosen else project_root() / "work"


#: The checkpoints that come with the course: the model of every day, its draft, and a mixture of experts.
SHIPPED = ("target", "draft", "moe")


def shipped_checkpoint(name: str = "target") -> Path:
    """The folder of one of the checkpoints that come with the course; see `SHIPPED`."""
    return project_root() / "data" / "checkpoints" / name
