"""The sandbox: the command that builds it, every promise really tried, and what happens where there is none."""

from __future__ import annotations

import json
import marshal
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import CodeType

import pytest

from grader.build.course import days, gradable_days
from grader.checks import find_exercise
from grader.framework import Exercise
from grader.pipeline.courses import HIDDEN_METHODS, driving_part, imported_names, stubbed, stubs_of, write_courses
from grader.running.wire import receive, send
from grader.sandbox import host
from grader.sandbox.command import (
    Isolation,
    Level,
    bubblewrap_command,
    isolation_here,
    outermost,
    readable_answers,
    zygote_environment,
)
from grader.sandbox.host import Sandbox, SandboxError, find_level
from grader.sandbox.limits import Limits
from grader.selftest.attacks import ATTACKS
from grader.selftest.run import run_selftest
from grader.usage import UsageError
from tinyllm.paths import project_root

ROOT = os.geteuid() == 0
NOBODY = 61999
USERS = ["root", "ordinary user"] if ROOT else ["ordinary user"]
REST = 4  # promises that are proved from outside


@pytest.fixture(scope="module")
def courses(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("courses")
    write_courses(folder, gradable_days())
    return folder


@pytest.fixture(scope="module")
def problems(courses) -> dict[Level, str]:
    """Why a level does not work here; empty when it does."""
    isolation = isolation_here(courses / "common", courses, Limits())
    found = {}
    for level in (Level.BUBBLEWRAP, Level.UNSHARE):
        try:
            find_level(isolation, level)
            found[level] = ""
        except SandboxError as error:
            found[level] = str(error)
    return found


# ---------------------------------------------------------------- the command


def argument_pairs(argv: list[str], option: str) -> list[tuple[str, str]]:
    return [(argv[i + 1], argv[i + 2]) for i, word in enumerate(argv) if word == option]


def test_root_becomes_another_user_and_others_get_a_user_namespace(tmp_path):
    isolation = Isolation("/c/common", "/c", uid=70001, readable=(str(tmp_path),))
    as_root = bubblewrap_command(isolation, ["work"])
    inner = as_root[as_root.index("--") + 1 :]
    assert inner[0] == "setpriv"
    assert inner[inner.index("--reuid") + 1] == inner[inner.index("--regid") + 1] == "70001"
    assert {"--clear-groups", "--no-new-privs", "--bounding-set=-all"} <= set(inner)
    assert inner[-1] == "work"
    as_user = bubblewrap_command(Isolation("/c/common", "/c", readable=(str(tmp_path),)), ["work"])
    assert as_user[as_user.index("--") + 1 :] == ["work"]
    assert "--unshare-user" in as_user
    assert as_user[as_user.index("--cap-drop") + 1] == "ALL"


@pytest.mark.parametrize("uid", [None, 70001])
def test_nothing_is_bound_writable_and_nothing_of_the_environment_is_kept(tmp_path, uid, monkeypatch):
    monkeypatch.setenv("GRADER_SECRET_SEED", "4711")
    argv = bubblewrap_command(Isolation("/c/common", "/c", uid=uid, readable=(str(tmp_path),)), ["work"])
    assert {
        "--unshare-net",
        "--unshare-pid",
        "--unshare-ipc",
        "--die-with-parent",
        "--clearenv",
        "--new-session",
    } <= set(argv)
    assert not [word for word in argv if word in ("--bind", "--dev-bind", "--share-net")]
    assert (str(tmp_path), str(tmp_path)) in argument_pairs(argv, "--ro-bind")
    assert argv[argv.index("--remount-ro") + 1] == "/"
    assert "4711" not in " ".join(argv)
    assert "GRADER_SECRET_SEED" not in zygote_environment("/course", gpu=False)


def test_links_of_the_system_stay_links(tmp_path):
    link = tmp_path / "lib"
    link.symlink_to("usr/lib")
    argv = bubblewrap_command(Isolation("/c/common", "/c", readable=(str(link),)), ["work"])
    assert ("usr/lib", str(link)) in argument_pairs(argv, "--symlink")


def test_gpu_devices_are_bound_only_when_asked_for(courses):
    assert isolation_here(courses / "common", courses, Limits()).devices == ()
    argv = bubblewrap_command(Isolation("/c/common", "/c", Limits(gpu=True), devices=("/dev/nvidia0",)), ["work"])
    assert argv[argv.index("--dev-bind-try") + 1] == "/dev/nvidia0"


def test_paths_below_others_are_not_bound_twice():
    assert outermost(["/usr/lib", "/usr", "/usrlocal", "/opt/python", "/usr"]) == ["/usr", "/usrlocal", "/opt/python"]


def test_isolation_survives_its_way_to_another_process():
    isolation = Isolation("/c/common", "/c", Limits(memory_mib=7, gpu=True), 5, ("/usr",), ("/dev/nvidia0",))
    assert Isolation.from_json(isolation.to_json()) == isolation


# ---------------------------------------------------------------- the promises, tried


def as_nobody(command: list[str]) -> list[str]:
    """`command` as a user without any rights, in a view of the files in which it may reach Python and this checkout."""
    hidden = [path for path in (sys.base_prefix, sys.prefix, str(project_root())) if path.startswith("/root/")]
    script = ["set -e", "mkdir -p /tmp/.shown && mount -t tmpfs tmpfs /tmp/.shown"] if hidden else ["set -e"]
    for number, path in enumerate(hidden):
        script.append(f"mkdir /tmp/.shown/{number} && mount --bind '{path}' /tmp/.shown/{number}")
    if hidden:
        script.append("mount -t tmpfs -o mode=0755 tmpfs /root")
    for number, path in enumerate(hidden):
        script.append(f"mkdir -p '{path}' && mount --bind /tmp/.shown/{number} '{path}'")
    ids = f"--reuid {NOBODY} --regid {NOBODY} --clear-groups"
    script.append(f'exec setpriv {ids} env HOME=/tmp TINYLLM_WORK=/tmp/work "$@"')
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script), "sh", *command]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", [Level.BUBBLEWRAP, Level.UNSHARE])
def test_every_wall_holds(level, user, problems):
    if problem := problems[level]:
        pytest.skip(f"{level} is not permitted on this machine: {problem}")
    command = [sys.executable, "-m", "grader", "selftest", "--level", level]
    if ROOT and user != "root":
        command = as_nobody(command)
    environment = {**os.environ, "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(project_root())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=project_root())
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Sandbox: {level}" in done.stdout
    assert ("started by root" in done.stdout) is (user == "root")
    assert "OPEN" not in done.stdout
    assert done.stdout.count(" holds ") == len(ATTACKS) + REST


@pytest.mark.timeout(120)
def test_the_attacks_do_break_out_where_there_is_no_isolation():
    """Else the tests above would prove nothing."""
    findings = run_selftest("none")
    broken = {finding.promise.split(" (")[0].split(":")[0] for finding in findings.promises if not finding.held}
    assert {"network", "files outside cannot be read", "courses of other exercises are out of sight"} <= broken
    assert {"processes outside cannot be signaled", "nothing outside has changed"} <= broken
    held = {finding.promise for finding in findings.promises if finding.held}
    assert {"memory of one process is limited", "nothing lives on when a jail ends"} <= held
    assert "the reference cannot be imported" in held
    assert not Path("/usr/tinyllm-selftest").exists()


def test_an_unknown_level_is_told():
    with pytest.raises(UsageError, match="bubblewrap, unshare, none"):
        run_selftest("chroot")


# ---------------------------------------------------------------- jails


def run_cells(sandbox: Sandbox, build: str, *sources: str) -> list[str]:
    """What cells print in a fresh jail."""
    with sandbox.jail(build) as connection:
        send(
            connection, {"cells": [{"id": str(i), "source": text, "answers": ""} for i, text in enumerate(sources)]}, 5
        )
        printed = []
        for _ in sources:
            receive(connection, 20)
            message = receive(connection, 20)
            printed.append(str(message["printed"]).strip() or str(message["error"]))
        return printed


@pytest.fixture(scope="module")
def sandbox(courses):
    isolation = isolation_here(courses / "common", courses, Limits())
    level = find_level(isolation, unsafe=True)
    with Sandbox(level, isolation) as sandbox:
        yield sandbox


def test_cells_run_as_in_a_notebook(sandbox):
    cells = ["x = 6", "%timeit -n1 -r1 pass", "print(x * 7)", "1 / 0", "def f(:", "raise SystemExit(3)", "exit()", "x"]
    printed = run_cells(sandbox, "BlockTable", *cells)
    assert printed[2] == "42"
    assert printed[3] == "ZeroDivisionError: division by zero, in line 1: 1 / 0"
    assert printed[4].startswith("SyntaxError")
    assert printed[7].endswith("6")  # nothing of this ends the jail


def test_nothing_passes_from_one_jail_to_the_next(sandbox):
    if sandbox.level is Level.NONE:
        pytest.skip("a sandbox is not permitted on this machine: jails share its file system")
    leave = "import builtins, torch\nbuiltins.left = torch.left = 1\nopen('/tmp/x', 'w')\nopen('/dev/shm/x', 'w')"
    look = "import builtins as b, os, torch\nprint(hasattr(b, 'left'), hasattr(torch, 'left'), os.listdir('/tmp'), "
    look += "os.listdir('/dev/shm'))"
    before = run_cells(sandbox, "BlockTable", look)
    assert before[0].startswith("False False [")
    assert "'x'" not in before[0]
    assert run_cells(sandbox, "BlockTable", leave, "print('done')")[1] == "done"
    assert run_cells(sandbox, "BlockTable", look) == before


@pytest.mark.parametrize("level", [Level.BUBBLEWRAP, Level.UNSHARE])
def test_what_is_readable_may_lie_below_tmp(level, problems, courses):
    if problem := problems[level]:
        pytest.skip(f"{level} is not permitted on this machine: {problem}")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "inner" / "file.txt"
        path.parent.mkdir()
        path.write_text("seen")
        Path(folder).chmod(0o755)
        isolation = isolation_here(courses / "common", courses, Limits())
        isolation = replace(isolation, readable=(*isolation.readable, str(path.parent)))
        with Sandbox(level, isolation) as sandbox:
            read = f"print(open({str(path)!r}).read())"
            write = f"open({str(path)!r}, 'w')"
            printed = run_cells(sandbox, "BlockTable", read, write, "open('/tmp/x', 'w').write('free')")
        assert printed[0] == "seen"
        assert "Read-only file system" in printed[1] or "Permission denied" in printed[1]
        assert path.read_text() == "seen"


# ---------------------------------------------------------------- where there is no sandbox


def test_without_bubblewrap_the_fallback_is_found(courses, problems, monkeypatch):
    isolation = isolation_here(courses / "common", courses, Limits())
    if problem := problems[Level.UNSHARE]:
        pytest.skip(f"unshare is not permitted on this machine: {problem}")
    monkeypatch.setattr(host, "has_programs", lambda level: level is not Level.BUBBLEWRAP)
    assert find_level(isolation) is Level.UNSHARE


def test_with_nothing_it_refuses_unless_told_otherwise(courses, monkeypatch):
    isolation = isolation_here(courses / "common", courses, Limits())
    monkeypatch.setattr(host, "has_programs", lambda level: False)
    with pytest.raises(SandboxError, match="--unsafe-no-sandbox"):
        find_level(isolation)
    assert find_level(isolation, unsafe=True) is Level.NONE


def test_answers_among_the_systems_files_are_noticed(courses, monkeypatch):
    isolation = isolation_here(courses / "common", courses, Limits())
    assert readable_answers(isolation) == []
    above = replace(isolation, readable=(*isolation.readable, str(project_root().parent)))
    assert str(project_root() / "solutions") in readable_answers(above)
    with pytest.raises(SandboxError, match="keep the checkout elsewhere"):
        find_level(above)


def test_a_command_that_fails_is_no_sandbox(courses, monkeypatch):
    isolation = isolation_here(courses / "common", courses, Limits())
    monkeypatch.setattr(host, "zygote_command", lambda *_: ["sh", "-c", "echo not permitted >&2; exit 1"])
    with pytest.raises(SandboxError, match="not permitted"):
        find_level(isolation)


# ---------------------------------------------------------------- courses


def test_each_course_lacks_its_own_part_alone(courses):
    for day in gradable_days():
        for name, spec in day.exercises.items():
            if not spec.module:
                continue
            texts = {one.module: path_of(one.module).read_text() for one in day.exercises.values() if one.module}
            for one in stubs_of(spec):
                before = texts.get(one.module) or path_of(one.module).read_text()
                texts[one.module] = stubbed(before, one)
                assert texts[one.module] != before
            for module, text in texts.items():
                assert (courses / name / path_of(module).relative_to(project_root())).read_text() == text


def path_of(module):
    return project_root().joinpath(*module.split(".")).with_suffix(".py")


def names_in(code: CodeType) -> set[str]:
    """Every name and text in compiled code: the code of a stub has none of its answer's."""
    inner = [item for item in code.co_consts if isinstance(item, CodeType)]
    own = {*code.co_names, *code.co_varnames, *(item for item in code.co_consts if isinstance(item, str))}
    return own.union(*map(names_in, inner))


def test_courses_hold_nothing_that_tells_an_answer(courses):
    for course in courses.iterdir():
        for spec in (spec for day in gradable_days() for spec in day.exercises.values() if spec.module):
            stem = spec.module.rsplit(".", 1)[-1]
            compiled = list(course.joinpath(*spec.module.split(".")[:-1]).glob(f"__pycache__/{stem}.*"))
            assert [path.name for path in compiled] == [f"{stem}.{sys.implementation.cache_tag}.pyc"]
            code = marshal.loads(compiled[0].read_bytes()[16:])
            source = course.joinpath(*spec.module.split(".")).with_suffix(".py")
            assert code.co_code == compile(source.read_text(), str(source), "exec").co_code
            assert names_in(code) == names_in(compile(source.read_text(), str(source), "exec"))
        modules = {str(path.relative_to(course / "grader")) for path in (course / "grader").rglob("*.py")}
        telling = ("mutants", "mutation", "learner", "hidden", "build", "marks", "reporting", "pipeline", "selftest")
        assert not {name for name in modules if name.startswith(telling)}
        assert {path.name for path in course.iterdir()} == {"grader", "tinyllm", "data"}


@pytest.mark.parametrize("name", [name for day in days() for name in day.exercises])
def test_checks_are_cut_to_what_drives(name, courses):
    module = find_exercise(name).module
    text = (courses / name / Path(*module.split(".")).with_suffix(".py")).read_text()
    assert not [method for method in HIDDEN_METHODS if f"def {method}(" in text]
    whole = find_exercise(name)
    code = "import sys, json; sys.path.insert(0, sys.argv[1])\nfrom grader.framework import exercise_in\n"
    code += "e = exercise_in(sys.argv[2], sys.argv[3])\n"
    code += "print(json.dumps([[p.sentence, p.weight, p.time_limit] for p in e.properties]))"
    command = [sys.executable, "-P", "-c", code, str(courses / name), module, name]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout
    assert json.loads(shown) == [[p.sentence, p.weight, p.time_limit] for p in whole.properties]
    assert isinstance(whole, Exercise)


def test_driving_part_follows_names_through_helpers():
    text = """
import random
from grader.framework import Exercise, Property, short
LIMIT = 3
SECRET = 4711
def helper(case: Case) -> int:
    return LIMIT
def secret():
    return SECRET
class P(Property):
    sentence = "s"
    def random_cases(self, rng: random.Random):
        yield {"a": secret()}
    def drive(self, parts, case):
        return helper(case)
    def judge(self, case, observations):
        return short(secret())
EXERCISE = Exercise("x", "function", (P(),))
"""
    cut = driving_part(text)
    assert "4711" not in cut
    assert "secret" not in cut
    assert "import random" not in cut
    assert "short" not in cut
    assert "LIMIT = 3" in cut


def test_driving_part_of_a_table_has_no_cases_and_no_judgment():
    text = """
import random
from functools import partial
from grader.framework import Exercise, Prop
from grader.checks.helpers import look, answer
def drive(parts, case):
    return look(parts.x(case))
def judge(case, observations):
    return answer(case)
def drawn(rng):
    yield {"a": 4711}
prop = partial(Prop, drive=drive, judge=judge, describe=lambda case: "4711")
EXERCISE = Exercise("x", "function", (prop("s", weight=1, fixed=[{"a": 4711}], random=drawn),))
"""
    cut = driving_part(text)
    assert not [word for word in ("4711", "answer", "drawn", "import random", "def judge") if word in cut]
    assert "return look(parts.x(case))" in cut
    assert imported_names(cut)["grader.checks.helpers"] == {"look"}


def test_driving_part_keeps_the_constants_of_a_kernel():
    text = (
        "@triton.jit\ndef look(x: tl.tensor, SIZE: tl.constexpr) -> None:\n    pass\ndef drive(x: int):\n    look(x)\n"
    )
    cut = driving_part(text, {"drive"})
    assert "SIZE: tl.constexpr" in cut
    assert "def drive(x):" in cut


def test_driving_part_of_a_helper_has_what_is_asked_of_it():
    text = "SEEN = 1\ndef look(x):\n    return SEEN\ndef answer(case):\n    return 4711\n"
    cut = driving_part(text, {"look"})
    assert "4711" not in cut
    assert "SEEN = 1" in cut
