"""Writes a result with what a reader needs to judge it: machine, versions, seed and date."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The processor and accelerator this runs on."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": cpu_name(),
        "cpu_cores": os.cpu_count(),
        "gpu": gpus[0] if gpus else None,
        "system": platform.system(),
    }


def cpu_name() -> str:
    """The processor's model name, as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def provenance(seed: int) -> dict[str, Any]:
    """Date, machine, versions and seed: what stands at the head of a result."""
    return {
        "date": date.today().isoformat(),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seed": seed,
    }


def write_result(name: str, seed: int, settings: dict[str, Any], values: dict[str, Any]) -> Path:
    """Write results/<name>.json and return its path.

    Args:
        settings: what was chosen before the run.
        values: what came out of it.
    """
    result = {**provenance(seed), "settings": settings, **values}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path
