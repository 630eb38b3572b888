"""How JupyterLab is started on the learner's notebooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyllm.doctor import INSTALL, installed
from tinyllm.errors import WorkspaceError
from tinyllm.paths import work_dir
from tinyllm.workspace import find_release


def lab_command(day: str, extra: Sequence[str] = ()) -> list[str]:
    """The command line that serves work/ with a day's notebook in front.

    Args:
        day: the notebook to open first, as `find_release` takes it.
        extra: more arguments for `jupyter lab`, for example `--no-browser`; they win over those set here.

    Raises:
        WorkspaceError: unknown day, or JupyterLab is not installed.
    """
    if installed("jupyterlab") is None:
        raise WorkspaceError(f"JupyterLab is not installed in {sys.prefix}: {INSTALL}")
    notebook = find_release(day).name
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={work_dir()}"]
    command += [f"--LabApp.default_url=/lab/tree/{notebook}"]
    command += ["--Application.log_level=ERROR"]  # leaves the address and what goes wrong
    # No news from the network, and of nbgrader the Validate button alone: the rest of its menus are the instructor's.
    command += [f"--LabApp.app_settings_dir={Path(__file__).parent / 'lab_settings'}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command += ["--allow-root"]  # containers often have no other user
    return [*command, *extra]
