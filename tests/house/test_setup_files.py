"""pyproject.toml, constraints.txt, environment.yml, the Makefile and the README tell one story."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
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
    assert listed == ["3.11", "3.12", "3.13"]
    allowed = SpecifierSet(project["requires-python"])
    assert [v for v in ("3.10", "3.11", "3.12", "3.13", "3.14") if v in allowed] == listed
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in (ROOT / "Makefile").read_text()


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("target", ["lab", "test", "rounding", "test-all", "grade", "gate", "book", "format", "lint", "help"])
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
    (command,) = re.findall(r"^ATEN_CPU_CAPABILITY=(\w+) \S+ -m pytest (.+)$", plan, re.MULTILINE)
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


def test_the_licence_is_apache_2(project: dict[str, Any]) -> None:
    assert project["license"] == "Apache-2.0"
    text = Path(ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_changelog_has_this_version(project: dict[str, Any]) -> None:
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
