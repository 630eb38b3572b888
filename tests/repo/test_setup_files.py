"""pyproject.toml, constraints.txt, environment.yml, the Makefile and the README tell one story."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tinyllm.paths import project_root

ROOT = project_root()
PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    """constraints.txt: distribution -> version. Fails on any line that is not an exact pin."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {canonicalize_name(m[1]): Version(m[2]) for m in found if m}


def requirements(project: dict[str, Any]) -> list[Requirement]:
    """Everything that `.[all,ray]` asks for by name, this project's own extras resolved."""
    extras = project["optional-dependencies"]
    wanted, seen, result = ["all", "ray"], set(), [Requirement(text) for text in project["dependencies"]]
    while wanted:
        extra = wanted.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in map(Requirement, extras[extra]):
            if requirement.name == project["name"]:
                wanted.extend(requirement.extras)
            else:
                result.append(requirement)
    assert seen == set(extras), f"extras that `all` leaves out, besides Ray: {set(extras) - seen}"
    return result


def test_every_dependency_is_pinned_to_a_version_that_it_allows(
    project: dict[str, Any], pins: dict[str, Version]
) -> None:
    wanted = requirements(project)
    assert len(wanted) > 20
    for requirement in wanted:
        assert canonicalize_name(requirement.name) in pins, f"{requirement} is not in constraints.txt"
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_pins_that_belong_together(pins: dict[str, Version]) -> None:
    assert pins["torch"] == Version("2.13.0")
    assert Version("3.7") <= pins["triton"] < Version("3.8"), "torch 2.13 goes with Triton 3.7"
    assert "tinyllm-course" not in pins


def test_the_pinned_packages_run_on_the_first_release_of_each_python(pins: dict[str, Version]) -> None:
    """Debian 12 has Python 3.11.2. Packages that are installed here in another version than the pinned are not seen."""
    seen, refused = 0, []
    for package in importlib.metadata.distributions():
        if pins.get(canonicalize_name(package.name)) == Version(package.version):
            seen += 1
            allowed = SpecifierSet(package.metadata.get("Requires-Python") or "")
            refused += [f"{package.name} on {python}.0" for python in PYTHONS if f"{python}.0" not in allowed]
    assert seen > 50
    assert not refused


@pytest.fixture(scope="module")
def new_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python whose pip is new enough to resolve from the wheels' metadata without downloading the wheels."""
    folder = tmp_path_factory.mktemp("pip")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"needs a package index: {done.stderr.strip()[-300:]}")
    return python


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", PYTHONS)
def test_pip_resolves_the_pins(new_pip: Path, tmp_path: Path, version: str) -> None:
    """For the first release of that Python, wheels only (hnswlib has none). Markers are those of the Python here."""
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--use-feature=fast-deps"]
    where = ["--python-version", version, "--target", tmp_path / "target", "-c", "constraints.txt"]
    command = [new_pip, "-m", "pip", "install", *options, *where, ".[most]"]
    log = tmp_path / "pip.log"
    try:
        with log.open("w") as output:
            done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=600)
    except subprocess.TimeoutExpired:
        pytest.fail(f"pip finds no set of versions for Python {version}. It was here:\n{log.read_text()[-2000:]}")
    assert done.returncode == 0, f"pip refuses the pins for Python {version}:\n{log.read_text()[-2000:]}"
    assert "Would install" in log.read_text()


def test_make_constraints_keeps_what_is_pinned_by_hand(tmp_path: Path, pins: dict[str, Version]) -> None:
    """Run with a stand-in for pip: what it says is installed is taken down, beside the comments and the CUDA pins."""
    (tmp_path / "bin").mkdir()
    pip = tmp_path / "bin" / "pip"
    pip.write_text("#!/bin/sh\nprintf 'pip==1\\nnumpy==2.4.6\\nnvidia-nccl==9\\ntorch==2.13.0+cpu\\n'\n")
    pip.chmod(0o755)
    for name in ("Makefile", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "stamp").touch()
    command = ["make", "constraints", f"BIN={tmp_path}/bin", f"STAMP={tmp_path}/stamp"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after = ((folder / "constraints.txt").read_text().splitlines() for folder in (ROOT, tmp_path))
    kept = [line for line in before if line.startswith(("#", "cuda-", "nvidia-"))]
    assert any(line.startswith("cuda-") for line in kept)
    assert after == [*kept, "numpy==2.4.6", "torch==2.13.0"]


def test_the_packages_that_the_course_is_about_are_asked_for(project: dict[str, Any]) -> None:
    names = {r.name for r in requirements(project)}
    asked = {"torch", "jupyterlab", "nbgrader", "matplotlib", "triton", "sentence-transformers", "hnswlib", "pytest"}
    assert asked <= names


def test_conda_installs_the_same(project: dict[str, Any]) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert pip == ["-c constraints.txt", "-e .[all]"]
    (python,) = [item.removeprefix("python=") for item in plain if item.startswith("python=")]
    assert Version(python) in SpecifierSet(project["requires-python"])
    assert {"pip", "nodejs", "cxx-compiler"} <= set(plain)
    assert environment["channels"] == ["conda-forge"]


def test_make_installs_the_same() -> None:
    text = (ROOT / "Makefile").read_text()
    assert "pip install -c constraints.txt -e '.[$(EXTRAS)]'" in text
    assert "echo all || echo most" in text


def test_the_python_versions_agree(project: dict[str, Any]) -> None:
    listed = [c.split(" :: ")[-1] for c in project["classifiers"] if c.startswith("Programming Language :: Python :: ")]
    assert tuple(listed) == PYTHONS
    allowed = SpecifierSet(project["requires-python"])
    assert [v for v in ("3.10", "3.11", "3.12", "3.13", "3.14") if v in allowed] == listed
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in (ROOT / "Makefile").read_text()


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    "target", ["lab", "test", "rounding", "test-all", "grade", "gate", "book", "format", "lint", "help"]
)
def test_make_has_the_target_and_can_plan_it(target: str) -> None:
    assert target in targets()
    plan = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    assert plan.stdout.strip()


def test_make_test_lints_too() -> None:
    plan = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("ruff check", "ruff format --check", "mypy", "-m pytest"):
        assert command in plan


def test_make_test_runs_a_lane_on_the_rounding_of_a_plain_cpu() -> None:
    plan = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (command,) = re.findall(r"^ATEN_CPU_CAPABILITY=(\w+) \S+ -m pytest .*?(tests/.+)$", plan, re.MULTILINE)
    paths = [name.partition("::")[0] for name in command[1].split()]
    assert len(paths) > 10
    assert all((ROOT / path).is_file() for path in paths), paths
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": command[0]}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() in ("DEFAULT", "NO AVX"), "torch does not know this name of a capability"


def test_every_make_target_in_the_text_exists() -> None:
    texts = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "book" / "src").rglob("*.md")]
    named = {name for path in texts for name in re.findall(r"\bmake ([a-z][a-z-]+)", path.read_text())}
    commands = {name for path in texts for name in re.findall(r"`make ([a-z][a-z-]+)", path.read_text())}
    assert commands, "the README names no make target"
    assert commands <= targets(), commands - targets()
    assert {"lab", "test"} <= named


def test_the_system_packages_are_the_same_in_the_readme_and_in_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    named = {word for line in re.findall(r"^need \S+ (.+)$", script, re.MULTILINE) for word in line.split()}
    named |= {"python3-venv"} if "python3-venv" in script else set()
    readme = (ROOT / "README.md").read_text()
    (line,) = re.findall(r"^sudo apt install (.+)$", readme, re.MULTILINE)
    assert set(line.split()) == named


def test_the_ci_script_is_runnable_and_strict() -> None:
    path = ROOT / ".ci" / "run"
    text = path.read_text()
    assert path.stat().st_mode & 0o111
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "export CI=true" in text
    assert text.rstrip().endswith("make test")
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_license_is_apache_2(project: dict[str, Any]) -> None:
    assert project["license"] == "Apache-2.0"
    text = Path(ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_this_version(project: dict[str, Any]) -> None:
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
