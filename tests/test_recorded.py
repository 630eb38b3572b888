"""Which cell an object comes from, however it was made, and what that cell does alone."""

from __future__ import annotations

import linecache
from typing import Any

import pytest

from tinyllm.errors import PartError, WorkspaceError
from tinyllm.parts import defined_alone
from tinyllm.recorded import run_alone, source_hash, source_of, without_magics

IMPORTS = "import functools\nimport torch\nfrom tinyllm.kv_cache.allocator import BlockAllocator as Reference\n"
WRAPS = """
def loud(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper
"""
STYLES = {
    "no_grad": "@torch.no_grad()\ndef Thing(x):\n    return x\n",
    "inference_mode": "@torch.inference_mode()\ndef Thing(x):\n    return x\n",
    "wraps": WRAPS + "@loud\n@torch.no_grad()\ndef Thing(x):\n    return x\n",
    "a Triton function": "from tinyllm.kernels.runtime import triton\n\n@triton.jit\ndef Thing(x):\n    return x\n",
    "first method decorated": (
        "class Thing:\n    @torch.no_grad()\n    def first(self):\n        pass\n    def second(self):\n        pass\n"
    ),
    "every method decorated": "class Thing:\n    @torch.inference_mode()\n    def first(self):\n        pass\n",
    "methods of the library": "class Thing(Reference):\n    pass\n\nTHING = Thing(2)\n",
    "methods of a base in the cell": "class Base:\n    def a(self):\n        pass\n\nclass Thing(Base):\n    pass\n",
    "only static methods": "class Thing:\n    @staticmethod\n    def a():\n        pass\n",
    "only class methods": "class Thing:\n    @classmethod\n    def a(cls):\n        pass\n",
    "only properties": "class Thing:\n    @property\n    def a(self):\n        return 1\n",
    "only cached properties": "class Thing:\n    @functools.cached_property\n    def a(self):\n        return 1\n",
    "a method from elsewhere": "class Thing:\n    go = torch.nn.Module.train\n    def own(self):\n        pass\n",
}


def run_cell(source: str, name: str) -> Any:
    """Define an object as a notebook does, in a file of its own."""
    filename = f"<cell {source_hash(source)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, filename, "exec"), namespace)
    return namespace[name]


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that the notebook has run so far."""
    run: list[str] = []
    monkeypatch.setattr("tinyllm.recorded.cells_run", lambda: run)
    return run


@pytest.mark.parametrize("style", STYLES)
def test_an_answer_of_any_style_records_its_own_cell(style: str, cells: list[str]) -> None:
    source = IMPORTS + STYLES[style]
    cells += ["x = 1", source, "print(Thing)"]
    obj = run_cell(source, "Thing")
    assert source_of(obj) == source
    assert run_alone(source_of(obj), "Thing", {}).__name__ == "Thing"


def test_the_last_cell_that_defines_a_class_without_methods_counts(cells: list[str]) -> None:
    cells += ["class Thing(Reference):\n    old = 1", "class Thing(Reference):\n    new = 1", "Thing"]
    thing = type("Thing", (), {"new": 1})
    assert source_of(thing) == cells[1]
    with pytest.raises(WorkspaceError, match="cannot be read"):
        source_of(type("Other", (), {}))


@pytest.mark.parametrize(
    ("cell", "plain"),
    [
        ("%%time\ndef f():\n    return 1\n", "\ndef f():\n    return 1\n"),
        ("%%time\n%matplotlib inline\nx = 1\n", "\n\nx = 1\n"),
        ("%load_ext autoreload\n!ls\nx = 1\n", "\n\nx = 1\n"),
        ("%%time\n%%capture\nx = 1\n", "\n\nx = 1\n"),
        ("x = 5 % 3\n", "x = 5 % 3\n"),
        ("not python", "not python"),
    ],
)
def test_a_cell_is_recorded_without_its_magics_and_with_its_line_numbers(cell: str, plain: str) -> None:
    pytest.importorskip("IPython")
    assert without_magics(cell) == plain


# ---------------------------------------------------------------- alone


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("def Thing():\n    return helper()\n", "`helper` lives in another cell: move it into this one"),
        ("Thing = helper\n", "`helper` lives in another cell: move it into this one"),
        ("class Thing:\n    def a(self):\n        return LIMIT\n", "`LIMIT` lives in another cell"),
        ("def Thing():\n    return [math.pi for _ in range(3)]\n", "`math` is imported in another cell: import it"),
        ("def Thing():\n    return deque()\n", "`deque` is imported in another cell: import it"),
        ("def Thing():\n    return nonsense\n", "`nonsense` is not defined in this cell"),
        ("def Thing():\n    get_ipython()\n", "`get_ipython` is there in a notebook only"),
        ("def Other():\n    pass\n", "does not define Thing"),
        ("def Thing(:\n", "not Python that runs outside its notebook"),
        ("await nothing\ndef Thing():\n    pass\n", "not Python that runs outside its notebook"),
        ("1 / 0\n", "failed in line 1 .*ZeroDivisionError"),
    ],
)
def test_what_a_cell_lacks_is_named(cell: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import math
    from collections import deque

    import __main__

    def helper() -> None:
        """In another cell of the notebook."""

    helper.__module__ = "__main__"
    for name, value in {"helper": helper, "LIMIT": 3, "math": math, "deque": deque}.items():
        monkeypatch.setattr(__main__, name, value, raising=False)
    with pytest.raises(PartError, match=words):
        defined_alone("Thing", cell)


def test_the_future_import_may_stand_anywhere_as_in_a_notebook() -> None:
    cell = "import torch\nfrom __future__ import annotations\ndef Thing(x: NoSuchName) -> None:\n    pass\n"
    assert defined_alone("Thing", cell)(1) is None


def test_a_cell_may_use_the_other_parts_and_what_its_functions_set() -> None:
    cell = "def Thing():\n    global count\n    count = 1\n    return BlockAllocator(count)\nprint('said')\n"
    assert defined_alone("Thing", cell)().num_free == 1
