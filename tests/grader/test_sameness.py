"""An answer gets the same marks at home, from `check` in a notebook, as in grading, in a jail of the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from grader.build.course import gradable_days
from grader.build.sources import exercise_sources
from grader.checks import find_exercise
from grader.pipeline.courses import write_courses
from grader.pipeline.work import Cell, WorkItem, judge_submission
from grader.running import PUBLIC_SEED
from grader.sandbox.command import isolation_here
from grader.sandbox.host import Sandbox, find_level
from grader.sandbox.limits import Limits

pytestmark = pytest.mark.timeout(600)  # every style runs in a notebook and in a jail


class Style(NamedTuple):
    """An answer in cells. `note` is what `check` or `use` must say; `grades` what the answer earns of its points."""

    exercise: str
    cells: tuple[str, ...]
    grades: float = 1.0
    note: str = ""


BYTES = "kv_bytes_per_token"
PRODUCT = "2 * config.num_layers * config.num_kv_heads * config.head_dim * bytes_per_element"
DEF = f"def {BYTES}(config, bytes_per_element):\n    return {PRODUCT}\n"
HELPER = f"def product(config, bytes_per_element):\n    return {PRODUCT}\n"
USES = f"def {BYTES}(config, bytes_per_element):\n    return product(config, bytes_per_element)\n"
UNNAMED = "def loud(function):\n    def wrapper(*args):\n        return function(*args)\n    return wrapper\n"
WRAPS = UNNAMED.replace("    def wrapper", "    @functools.wraps(function)\n    def wrapper")
ALLOCATOR = exercise_sources("BlockAllocator").solution
CACHE = exercise_sources("PagedKVCache").solution
COPY = exercise_sources("CopyOnWrite").solution
TABLE_STUB = exercise_sources("BlockTable").stub
ELSEWHERE = "`product` lives in another cell: move it into this one"

STYLES = {
    "plain": Style(BYTES, (DEF,)),
    "wrong": Style(BYTES, (DEF.replace("2 * ", ""),), 0),
    "no_grad": Style(BYTES, ("import torch\n@torch.no_grad()\n" + DEF,)),
    "inference_mode": Style(BYTES, ("import torch\n@torch.inference_mode()\n" + DEF,)),
    "wraps": Style(BYTES, (f"import functools\n{WRAPS}\n@loud\n{DEF}",)),
    "a decorator without wraps": Style(BYTES, (f"{UNNAMED}\n@loud\n{DEF}",)),
    "a decorator in another cell": Style(BYTES, (UNNAMED, f"@loud\n{DEF}"), note="`loud` lives in another cell"),
    "helper in the cell": Style(BYTES, (HELPER + USES,)),
    "helper in another cell": Style(BYTES, (HELPER, USES), note=ELSEWHERE),
    "import in another cell": Style(
        BYTES, ("import math", DEF.replace("return ", "return math.prod([1]) * ")), note="`math` is imported in another"
    ),
    "time above": Style(BYTES, (f"%%time\n{DEF}",)),
    "capture above": Style(BYTES, (f"%%capture\n{DEF}",)),
    "line magic in the cell": Style(BYTES, (f"%load_ext autoreload\n{DEF}",)),
    "lambda": Style(BYTES, (f"{BYTES} = lambda config, bytes_per_element: {PRODUCT}",), 0, "a lambda"),
    "nested": Style(BYTES, (DEF.replace("return ", "def inner():\n        return ") + "    return inner()\n",)),
    "async": Style(BYTES, ("async " + DEF,), 0, "async def"),
    "a class in place of a function": Style(BYTES, (f"class {BYTES}:\n    pass",), 0, "must be a function"),
    "the stub": Style(BYTES, (exercise_sources(BYTES).stub,), 0),
    "another definition later": Style(BYTES, (DEF, DEF.replace("2 * ", "")), 0),
    "class": Style("BlockAllocator", (ALLOCATOR,)),
    "first method decorated": Style(
        "BlockAllocator",
        ("import torch\n" + ALLOCATOR.replace("    def __init__", "    @torch.no_grad()\n    def __init__"),),
    ),
    "inherited in the cell": Style(
        "BlockAllocator",
        (ALLOCATOR.replace("class BlockAllocator", "class Base") + "\nclass BlockAllocator(Base): pass",),
    ),
    "inherited from another cell": Style(
        "BlockAllocator",
        (ALLOCATOR.replace("class BlockAllocator", "class Base"), "class BlockAllocator(Base):\n    pass"),
        note="`Base` lives in another cell",
    ),
    "decorated method": Style("PagedKVCache", (CACHE.replace("    def write", "    @torch.no_grad()\n    def write"),)),
    "beside a stub of another exercise": Style(
        "CopyOnWrite", (TABLE_STUB, COPY.replace("type(table)(", "BlockTable("))
    ),
}

CHECK = """
import io, json
from contextlib import redirect_stdout
from grader import check
from grader.usage import UsageError
from tinyllm.parts import forget, own_reason, use
forget("{name}")
said = io.StringIO()
with redirect_stdout(said):
    try:
        found = [[str(item.outcome), item.points] for item in check({name}).properties]
        use({name})
    except UsageError as error:
        found = []
        print(error)
print(json.dumps([found, said.getvalue(), own_reason("{name}")[0]]))
"""


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `check` and `use` find and say of each style, and whether the part may be used, in one real kernel."""
    cells = []
    for style in STYLES.values():
        cells += [new_code_cell("%reset -f"), *map(new_code_cell, style.cells)]
        cells.append(new_code_cell(CHECK.format(name=style.exercise), metadata={"tags": ["result"]}))
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLLM_WORK", str(tmp_path_factory.mktemp("work")))
        patch.delenv("NBGRADER_EXECUTION", raising=False)
        NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    results = [cell.outputs for cell in notebook.cells if cell.metadata.get("tags")]
    texts = [next(out.text for out in outputs if out.output_type == "stream") for outputs in results]
    return {name: json.loads(text) for name, text in zip(STYLES, texts, strict=True)}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    courses = tmp_path_factory.mktemp("courses")
    write_courses(courses, gradable_days())
    courses.chmod(0o755)
    isolation = isolation_here(courses / "common", courses, Limits())
    with Sandbox(find_level(isolation, unsafe=True), isolation) as sandbox:
        yield sandbox


def graded(sandbox: Sandbox, style: Style) -> list[list[Any]]:
    """The outcomes and points of a style in grading, on the cases of `check`."""
    names = [style.exercise if style.exercise in text else "" for text in style.cells]
    answer = max(index for index, name in enumerate(names) if name)
    cells = [
        Cell(f"cell-{index}", text, style.exercise if index == answer else "BlockTable" if text == TABLE_STUB else "")
        for index, text in enumerate(style.cells)
    ]
    item = WorkItem("ada", "day1", tuple(cells), {style.exercise: len(cells)}, PUBLIC_SEED)
    result = judge_submission(item, sandbox).results[style.exercise]
    return [[str(one.outcome), one.points] for one in result.properties]


@pytest.mark.parametrize("name", STYLES)
def test_home_and_grading_give_the_same_marks(name: str, at_home: dict[str, Any], sandbox: Sandbox) -> None:
    style = STYLES[name]
    home, said, usable = at_home[name]
    there = graded(sandbox, style)
    if home:
        assert home == there
    assert sum(points for _, points in there) == style.grades * find_exercise(style.exercise).points
    assert style.note in said, said
    assert usable is (style.grades == 1.0 and not style.note)
