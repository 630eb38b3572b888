"""The courses that submissions run in: for each exercise one in which its part alone is a stub, and checks that drive.

Nothing in such a course tells an answer: no solutions, no hints, no mutants, no cases, no judgments.
"""

from __future__ import annotations

import ast
import compileall
import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from grader.build.course import Day, Spec
from grader.build.sources import STUB, body_slices
from grader.build.uses import names_in, reachable
from grader.checks import find_exercise
from grader.own import path_of_checks
from grader.sandbox.jail import COMMON
from tinyllm.paths import project_root

#: The modules of `grader` that run beside a student's code.
INSIDE = (
    *("usage", "checks/__init__", "framework/*", "running/*"),
    *("sandbox/__init__", "sandbox/inside", "sandbox/limits", "sandbox/linux", "sandbox/zygote", "sandbox/jail"),
)

#: Packages that every jail imports from; of the others the source is compiled when it is needed.
COMPILED = (
    *("grader", "grader/checks", "grader/framework", "grader/running", "grader/sandbox"),
    *("tinyllm", "tinyllm/attention", "tinyllm/engine", "tinyllm/experts", "tinyllm/kernels", "tinyllm/kv_cache"),
    *("tinyllm/model", "tinyllm/parallel"),
)

#: What the setup cell of a notebook imports; the checks earn nothing while grading, and hints are not there.
VERBS = '''"""The learner's verbs, which do nothing while a notebook is graded."""


def check(obj, seed=1):
    """Nothing: the judge gives the marks."""


hint = solution = spot = check
'''

#: The methods of a property, and the functions in a row of a table of properties, that only the judge needs.
HIDDEN_METHODS = ("fixed_cases", "random_cases", "judge", "describe")
HIDDEN_OPTIONS = ("fixed", "random", "judge", "describe")


def write_courses(folder: Path, days: Sequence[Day]) -> None:
    """Write the common course and one for each exercise of these days to `folder`.

    Args:
        days: every day of the course that can be graded; stubs are made for all their exercises.
    """
    specs = [spec for day in days for spec in day.exercises.values()]
    base = folder / ".base"
    write_grader(base)
    # Without the byte code that is there: it may be of an older source, and hold an answer.
    shutil.copytree(project_root() / "tinyllm", base / "tinyllm", ignore=shutil.ignore_patterns("__pycache__"))
    (base / "data").symlink_to(project_root() / "data")
    for package in COMPILED:
        compileall.compile_dir(base / package, maxlevels=0, quiet=2)
    for name in [COMMON, *(spec.name for spec in specs)]:
        course = folder / name
        shutil.copytree(base, course, symlinks=True, copy_function=os.link)  # most files are the same in all of them
        if name != COMMON:
            write_checks(course, name)
        for spec in specs:
            if name in (COMMON, spec.name):
                for stub in stubs_of(spec):
                    write_stub(course, stub)
    shutil.rmtree(base)
    for path in (folder, *folder.rglob("*")):  # whoever runs submissions is another user, and umask may be strict
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def stubs_of(spec: Spec) -> list[Spec]:
    """What is a stub while an exercise is graded: its part, and each function that does the same in another way."""
    twins = [twin.split(":") for twin in find_exercise(spec.name).twins]
    own = [spec] if spec.module else []
    return [*own, *(replace(spec, module=module, name=name, stub=(name,)) for module, name in twins)]


def write_stub(course: Path, spec: Spec) -> None:
    """Replace the bodies of a part in a course by its stub."""
    path = course.joinpath(*spec.module.split(".")).with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    path.unlink()  # the other courses have the same file
    path.write_text(stubbed(text, spec), encoding="utf-8")
    compileall.compile_file(path, quiet=2, force=True)


def write_grader(course: Path) -> None:
    """Write the modules of `grader` that run beside a student's code."""
    source = project_root() / "grader"
    for path in (path for pattern in INSIDE for path in source.glob(f"{pattern}.py")):
        target = course / "grader" / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (course / "grader" / "__init__.py").write_text(VERBS, encoding="utf-8")


def write_checks(course: Path, name: str) -> None:
    """Write what drives an exercise: the driving part of its checks, and of the modules of checks that it imports."""
    needed = {find_exercise(name).module: {"EXERCISE"}}
    todo = list(needed)
    while todo:
        module = todo.pop()
        text = driving_part(path_of_checks(module).read_text(encoding="utf-8"), needed[module])
        target = course.joinpath(*module.split(".")).with_suffix(".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        compileall.compile_file(target, quiet=2)
        for other, names in imported_names(text).items():
            if other.startswith("grader.checks.") and not names <= needed.get(other, set()):
                needed[other] = needed.get(other, set()) | names
                todo.append(other)


def imported_names(text: str) -> dict[str, set[str]]:
    """The names that a source imports, by module."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    return found


def stubbed(module_text: str, spec: Spec) -> str:
    """A module of the course with an exercise's bodies replaced as the learner's cell has them."""
    lines = module_text.splitlines()
    for first, last in reversed(body_slices(module_text, spec)):
        indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
        lines[first:last] = [indent + STUB]
    return "\n".join(lines) + "\n"


def driving_part(module_text: str, names: Collection[str] = ("EXERCISE",)) -> str:
    """A module of checks with no more in it than `drive` needs: no cases, no judgments, and nothing only they use.

    Args:
        names: what is asked of the module.
    """
    tree = ast.parse(module_text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(name in HIDDEN_METHODS for name in map(name_of, node.body)):
            node.body = [hidden(item) if name_of(item) in HIDDEN_METHODS else item for item in node.body]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_kernel(node):
            without_annotations(node)
    for node in (call for item in tree.body if isinstance(item, ast.Assign) for call in ast.walk(item)):
        if isinstance(node, ast.Call):
            for option in node.keywords:
                option.value = ast.Constant(None) if option.arg in HIDDEN_OPTIONS else option.value
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and not isinstance(node.annotation, ast.Constant):
            node.annotation = ast.Constant("")
    kept = reachable(uses_of(tree), names)
    tree.body = [node for node in tree.body if not defines(node) or defines(node) & kept or always_kept(node)]
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            node.names = [alias for alias in node.names if (alias.asname or alias.name) in kept]
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def name_of(node: ast.stmt) -> str:
    """The name of a function; empty for anything else."""
    return node.name if isinstance(node, ast.FunctionDef) else ""


def hidden(node: ast.stmt) -> ast.stmt:
    """`name = None` in place of a method, so that the class can still be instantiated."""
    return ast.Assign([ast.Name(name_of(node), ast.Store())], ast.Constant(None))


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is Triton's, to which its annotations say what is a constant."""
    return any(ast.unparse(decorator) == "triton.jit" for decorator in node.decorator_list)


def without_annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Drop annotations: they would keep imports that nothing else needs."""
    node.returns = None
    arguments = node.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if argument is not None:
            argument.annotation = None


def uses_of(tree: ast.Module) -> dict[str, set[str]]:
    """What each top-level name of a module uses."""
    uses: dict[str, set[str]] = {}
    for node in tree.body:
        for name in defines(node):
            uses.setdefault(name, set()).update(names_in(node))
    return uses


def defines(node: ast.stmt) -> set[str]:
    """The names that a top-level statement gives a value."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {item.id for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)}
    return set()


def always_kept(node: ast.stmt) -> bool:
    """Whether a statement stays whoever uses it."""
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
