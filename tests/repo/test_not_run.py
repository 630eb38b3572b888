"""A skip is listed and, in CI, fails the run: tests/conftest.py is put beside a few small tests and really run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

CONFIG = """
[pytest]
markers =
    gpu: needs a GPU
    slow: takes minutes
    needs(name): needs a program
"""

PASSES = "def test_passes(): pass\n"
SKIPS = "import pytest\n\ndef test_skips(): pytest.skip('no cat')\n"
SKIPPED_MODULE = "import pytest\npytest.importorskip('no_such_module')\n"
XFAILS = "import pytest\n\n@pytest.mark.xfail\ndef test_xfails(): assert False\n"
GPU = "import pytest\n\n@pytest.mark.gpu\ndef test_gpu(): pytest.skip('no GPU')\n"
NEEDS = "import pytest\n\n@pytest.mark.needs('chromium')\ndef test_browser(): pass\n"
NEEDS_UNKNOWN = "import pytest\n\n@pytest.mark.needs('coffee')\ndef test_coffee(): pass\n"


def run(folder: Path, source: str, *args: str, ci: bool, **env: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on `source` in an empty folder that has our conftest."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "pytest.ini").write_text(CONFIG)
    (folder / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args, str(folder)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"CI": "true" if ci else "", **env}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("source", [SKIPS, SKIPPED_MODULE], ids=["test", "module"])
def test_a_skip_is_listed_everywhere_and_fails_only_in_ci(tmp_path: Path, source: str) -> None:
    source += PASSES if source == SKIPS else ""
    (tmp_path / "test_other.py").write_text(PASSES)
    for ci in (False, True):
        done = run(tmp_path, source, ci=ci)
        assert done.returncode == int(ci), done.stdout
        assert "not run: 1" in done.stdout
        assert "no cat" in done.stdout or "no_such_module" in done.stdout


def test_what_the_kernel_forbids_is_listed_and_fails_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, PASSES + SKIPS.replace("no cat", "bubblewrap is not permitted on this machine"), ci=True)
    assert done.returncode == 0, done.stdout
    assert "not run: 1" in done.stdout


def test_under_xdist_too(tmp_path: Path) -> None:
    done = run(tmp_path, SKIPS + "\n" + PASSES, "-n", "2", ci=True)
    assert done.returncode == 1, done.stdout
    assert "not run: 1" in done.stdout


@pytest.mark.parametrize("source", [PASSES, XFAILS, GPU], ids=["passes", "xfails", "gpu"])
def test_what_does_not_count_as_a_skip(tmp_path: Path, source: str) -> None:
    done = run(tmp_path, source, ci=True)
    assert done.returncode == 0, done.stdout
    assert "not run" not in done.stdout


def test_a_missing_program_skips_with_its_fix(tmp_path: Path) -> None:
    done = run(tmp_path, NEEDS, ci=False, CHROMIUM=str(tmp_path / "no-chromium"))
    assert done.returncode == 0, done.stdout
    assert "apt install chromium" in done.stdout


def test_an_unknown_need_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, NEEDS_UNKNOWN, ci=False)
    assert done.returncode == 1
    assert "the doctor has no such check" in done.stdout
