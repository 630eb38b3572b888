"""Programs of the project, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys

from tinyllm.paths import project_root


def run_without_gpu(module: str) -> subprocess.CompletedProcess[str]:
    """`python -m module` from the project's root, with every GPU hidden."""
    return subprocess.run(
        [sys.executable, "-m", module],
        cwd=project_root(),
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
