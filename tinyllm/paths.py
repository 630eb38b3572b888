"""Where things are: the project's root, the learner's work folder, the checkpoint that ships."""

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


def shipped_checkpoint() -> Path:
    """The checkpoint folder that comes with the course."""
    return project_root() / "data" / "bootstrap" / "checkpoint"
