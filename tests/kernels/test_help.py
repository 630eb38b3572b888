"""Shift+Tab and help() on a kernel show its own arguments and docstring: interpreted, compiled, and without Triton."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyllm.paths import project_root

#: What ipykernel answers Shift+Tab with, for a kernel of the course and for one that was written in a cell.
PROGRAM = '''
import sys; sys.path[:0] = sys.argv[1:]
import pydoc
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_cell("""
from __future__ import annotations
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import load_tile
from tinyllm.kernels.whole_tiles import attend_whole_tiles

@triton.jit
def double_it(x_ptr, num_numbers, BLOCK: tl.constexpr = 4):
    'Doubles what is there.'
""")
for name in ("load_tile", "attend_whole_tiles", "double_it"):
    print(shell.object_inspect_mime(name)["text/plain"])
print("HELP", pydoc.render_doc(shell.user_ns["load_tile"], renderer=pydoc.plaintext))
'''


def shown(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=project_root(), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stdout


def assert_says_what_a_kernel_takes(text: str) -> None:
    inspected, _, helped = text.partition("HELP")
    for name in ("load_tile(\n    ptr", "attend_whole_tiles(\n    q", "double_it(x_ptr, num_numbers, BLOCK"):
        assert name in inspected, inspected
    for line in ("numbers from each of `offsets`", "a multiple of TILE of them", "Doubles what is there."):
        assert line in inspected, inspected
    assert "load_tile" in helped
    assert "numbers from each of `offsets`" in helped


@pytest.mark.needs("triton")
@pytest.mark.parametrize("interpret", ["1", "0"])
def test_a_kernel_of_triton_shows_its_arguments_and_docstring(interpret: str) -> None:
    assert_says_what_a_kernel_takes(shown({**os.environ, "TRITON_INTERPRET": interpret}))


def test_so_does_one_that_cannot_run_here(tmp_path: Path) -> None:
    (tmp_path / "triton.py").write_text("raise ImportError('no triton here')\n")
    assert_says_what_a_kernel_takes(shown(dict(os.environ), str(tmp_path)))
