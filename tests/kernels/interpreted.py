"""Runs Python with Triton's interpreter on.

The interpreter is switched on by the environment before Triton is imported, and a wild access may end the process: so
it gets a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tinyllm.paths import project_root


def run_interpreted(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project's root, with `tests` on the path."""
    path = os.pathsep.join([str(project_root()), str(project_root() / "tests")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=project_root(), env=environment, capture_output=True, text=True, timeout=900)
