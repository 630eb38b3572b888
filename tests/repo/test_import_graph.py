"""Imports run one way: no circle among modules or packages, and no arrow from a lower layer to a higher one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from tinyllm.paths import project_root

ROOT = project_root()
PACKAGES = ("tinyllm", "grader", "benchmarks", "data", "book")

#: Which of the others a package may import.
MAY_IMPORT = {
    "tinyllm": set(),
    "grader": {"tinyllm"},
    "benchmarks": {"tinyllm", "grader"},
    "data": {"tinyllm", "benchmarks"},
    "book": {"tinyllm", "grader", "benchmarks", "data"},
}

#: From the bottom up: a part may import from the rows below its own, and from itself. What stands in no row is on top.
LAYERS: dict[str, tuple[set[str], ...]] = {
    "tinyllm": (
        {"errors", "names", "paths", "files", "checkpoint", "sampling_params", "options", "config", "traces"}
        | {"part_table", "recorded", "boundary", "parts"},
        {"kv_cache", "kernels", "parallel"},
        {"experts"},
        {"model", "speculative", "long_context"},
        {"attention"},
        {"engine"},
        {"rag", "agent"},
        {"serving"},
    ),
    "grader": (
        {"usage"},
        {"framework"},
        {"running", "own"},
        {"checks", "sandbox"},
        {"build", "workers"},
        {"mutants", "marks"},
        {"mutation", "learner", "reporting"},
        {"hidden", "pipeline"},
        {"selftest", "instructor"},
        {"cli"},
    ),
    "benchmarks": (
        {"record", "shapes", "stopwatch", "floor", "sparse_layers"},
        {"peers", "rivals", "breakdown", "grouped_product"},
    ),
    "book": ({"preprocessor", "figures", "solutions", "finish", "sitecheck"},),
    "data": ({"world", "tokenizer"}, {"tasks"}, {"training"}, {"evaluation", "train"}),
}
#: Rows in which a part may import its neighbors too: the lowest of tinyllm, and its top (command line, doctor, plots).
FREE_ROWS = {("tinyllm", 0), ("tinyllm", len(LAYERS["tinyllm"]))}

Graph = Mapping[str, set[str]]


# ---------------------------------------------------------------- reading the imports


def modules_below(root: Path, *packages: str) -> dict[str, Path]:
    """Every module by its full name; a package's is that of its folder."""
    paths = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(path: Path) -> Iterator[str]:
    """The full names that a file imports, inside functions too; what only a type checker reads is left out."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            todo += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; the project uses full names"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            todo += ast.iter_child_nodes(node)


def graph_of(modules: Mapping[str, Path]) -> Graph:
    """The modules that each module imports; an import of a thing is one of the module that it stands in."""
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = {name if name in modules else name.rpartition(".")[0] for name in imported(path)}
        graph[module] = (names & modules.keys()) - {module}
    return graph


def part_of(module: str) -> str:
    """The part that a module belongs to, with its package: `grader.marks` of grader.marks.record."""
    return ".".join(module.split(".")[:2])


def parts_of(graph: Graph) -> Graph:
    """The same of whole parts."""
    parts: dict[str, set[str]] = {}
    for module, targets in graph.items():
        part = part_of(module)
        parts.setdefault(part, set()).update({part_of(target) for target in targets} - {part})
    return parts


def circle_in(graph: Graph) -> str:
    """A circle in words, `a -> b -> a` where a imports b; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1][::-1])
    return ""


@cache
def course() -> Graph:
    return graph_of(modules_below(ROOT, *PACKAGES))


# ---------------------------------------------------------------- the layers


def row_of(package: str, part: str) -> int:
    rows = LAYERS[package]
    return next((number for number, names in enumerate(rows) if part in names), len(rows))


def goes_up(module: str, name: str) -> bool:
    """Whether a module of the course may not import a name, because that stands too high or in another package."""
    package, part = [*module.split("."), "__init__"][:2]
    target, target_part = [*name.split("."), "__init__"][:2]
    if part == "__init__" or target not in (*PACKAGES, "solutions", "tests"):
        return False
    if target != package:
        return target not in MAY_IMPORT[package]
    if name == "tinyllm.LLM":  # the public door to the engine
        return row_of(package, part) < row_of("tinyllm", "engine")
    if part in ("rag", "agent") and target_part == "engine":
        return True  # they know the public LLM only
    if part == target_part:
        return False
    row, target_row = row_of(package, part), row_of(package, target_part)
    return target_row > row or (target_row == row and (package, row) not in FREE_ROWS)


def test_no_module_and_no_part_imports_itself_in_a_circle() -> None:
    assert len(course()) > 250
    assert circle_in(course()) == ""
    assert circle_in(parts_of(course())) == ""


def test_no_import_goes_up() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in modules_below(ROOT, *PACKAGES).items()
        for name in imported(path)
        if goes_up(module, name)
    ]
    assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("tinyllm.kv_cache.allocator", "tinyllm.engine.llm.LLM"),
        ("tinyllm.kv_cache.allocator", "grader.check"),
        ("tinyllm.config", "tinyllm.model.qwen3"),
        ("tinyllm.engine.runner", "tinyllm.cli"),
        ("tinyllm.model.qwen3", "tinyllm.engine.sampler.sample"),
        ("tinyllm.kv_cache.allocator", "tinyllm.kernels.paged_decode"),
        ("tinyllm.agent.grammar", "tinyllm.engine.scheduler.Scheduler"),
        ("tinyllm.rag.index", "tinyllm.agent.tools"),
        ("tinyllm.kv_cache.allocator", "tinyllm.LLM"),
        ("tinyllm.cli", "grader.cli.main"),
        ("tinyllm.cli", "tests.support"),
        ("grader.sandbox.inside", "grader.pipeline.courses.write_courses"),
        ("grader.running.wire", "grader.checks.find_exercise"),
        ("grader.marks.final", "grader.reporting.export"),
        ("data.world.facts", "data.tasks"),
        ("data.train", "grader.check"),
        ("grader.build.drift", "solutions.day1"),
    ],
)
def test_a_wrong_import_is_seen(module: str, name: str) -> None:
    assert goes_up(module, name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("tinyllm.kv_cache.allocator", "tinyllm.parts.part"),
        ("tinyllm.parts", "tinyllm.paths.work_dir"),
        ("tinyllm.engine.runner", "tinyllm.model.qwen3.Attend"),
        ("tinyllm.agent.grammar", "tinyllm.LLM"),
        ("tinyllm.serving.server", "tinyllm.engine.engine.LLMEngine"),
        ("tinyllm.cli", "tinyllm.doctor.doctor"),
        ("tinyllm.kv_cache.block_table", "tinyllm.kv_cache.allocator.BlockAllocator"),
        ("tinyllm.plots.memory", "torch"),
        ("tinyllm", "tinyllm.engine.llm.LLM"),
        ("grader.cli", "grader.pipeline.grade.grade"),
        ("book.figures.testing", "grader.running.run"),
    ],
)
def test_a_right_import_is_left_alone(module: str, name: str) -> None:
    assert not goes_up(module, name)


# ---------------------------------------------------------------- the reading itself


def small_package(folder: Path, **sources: str) -> Graph:
    (folder / "small").mkdir()
    for name, source in {"__init__": "", **sources}.items():
        (folder / "small" / f"{name}.py").write_text(source)
    return graph_of(modules_below(folder, "small"))


def test_a_circle_is_found_inside_functions_and_named(tmp_path: Path) -> None:
    graph = small_package(
        tmp_path,
        a="def f():\n    if True:\n        from small.b import thing\n",
        b="from small import c\n",
        c="try:\n    import small.a\nexcept ImportError:\n    pass\n",
    )
    assert graph == {"small": set(), "small.a": {"small.b"}, "small.b": {"small.c"}, "small.c": {"small.a"}}
    steps = circle_in(graph).split(" -> ")
    assert set(steps) == {"small.a", "small.b", "small.c"}
    assert steps[0] == steps[-1]
    assert all(after in graph[before] for before, after in pairwise(steps))


def test_what_only_a_type_checker_reads_is_no_import(tmp_path: Path) -> None:
    graph = small_package(
        tmp_path,
        a="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from small.b import B\nelse:\n    import small.c\n",
        b="import small.a",
        c="",
    )
    assert graph["small.a"] == {"small.c"}
    assert circle_in(graph) == ""


def test_a_circle_of_parts_is_found_where_no_module_is_in_one() -> None:
    graph = {"p.a.one": {"p.b.one"}, "p.b.one": set(), "p.b.two": {"p.a.two"}, "p.a.two": set()}
    assert circle_in(graph) == ""
    assert set(circle_in(parts_of(graph)).split(" -> ")) == {"p.a", "p.b"}
