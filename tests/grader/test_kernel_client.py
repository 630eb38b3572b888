"""Answers with kernels are driven in a process of their own: what they do there is told, and ends nothing else."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from grader.checks.day2.store_kv import EXERCISE
from grader.framework import CheckResult, Outcome
from grader.mutants import as_cell
from grader.running import LocalDriver, run
from grader.running.kernel_client import kernel_host, stop_host, stubbed_function
from tinyllm.doctor import CHECKS, judge_triton
from tinyllm.kernels.store_kv import store_kv

HEAD = """\
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.store_kv import launch_store_kv, store_kv_kernel

@triton.jit
def kernel(k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, kt, kh, vt, vh, cs, ch,
           NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr):
    {body}

def store_kv(k, v, k_cache, v_cache, slot_mapping):
    {call}
"""
LAUNCH = "launch_store_kv(kernel, k, v, k_cache, v_cache, slot_mapping)"

needs_triton = pytest.mark.needs("triton")


def checked(body: str, call: str = LAUNCH, longest: float | None = None) -> CheckResult:
    """The check of a cell with this kernel and this launch."""
    answer = as_cell(EXERCISE, HEAD.format(body=body, call=call), "a cell")
    return run(EXERCISE, 1, LocalDriver(EXERCISE, answer, longest))


@needs_triton
@pytest.mark.parametrize(
    "body",
    ["tl.store(k_cache_ptr + 2**42, 1.0)", "tl.store(k_cache_ptr, tl.load(k_ptr - 2**42))"],
    ids=["store", "load"],
)
def test_a_wild_access_is_told_with_its_line(body: str) -> None:
    message = checked(body).properties[0].message
    assert "outside of the tensors that the launch was given, far from all of them" in message
    assert f"in `kernel`): {body}" in message


@needs_triton
def test_a_wild_access_in_a_launch_ends_its_own_process_only() -> None:
    result = checked("pass", "import ctypes; ctypes.memset(1, 0, 1)")
    assert result.outcome is Outcome.CRASHED
    assert "reads or writes far outside" in result.properties[0].message
    assert run(EXERCISE, 1, LocalDriver(EXERCISE, store_kv)), "the next answer is driven as ever"


@needs_triton
def test_a_write_just_outside_is_found_between_guards() -> None:
    before = "k_cache.as_strided((1,), (1,), k_cache.storage_offset() - 1).zero_()"
    result = checked("pass", f"launch_store_kv(store_kv_kernel, k, v, k_cache, v_cache, slot_mapping); {before}")
    assert result.outcome is Outcome.WRONG
    assert "writes where nothing of its own is" in result.properties[0].message


@needs_triton
def test_an_answer_that_ends_python_is_a_crash() -> None:
    result = checked("pass", "import os; os._exit(0)")
    assert result.outcome is Outcome.CRASHED
    assert "ended Python" in result.properties[0].message


@needs_triton
def test_an_endless_loop_is_stopped() -> None:
    result = checked("pass", "while True: pass", longest=0.3)
    assert result.properties[0].outcome is Outcome.TIMED_OUT


@needs_triton
def test_an_error_in_a_kernel_names_its_line() -> None:
    result = checked("tl.store(k_cache_ptr, undefined_name)")
    message = result.properties[0].message
    assert result.outcome is Outcome.CRASHED
    assert "NameError" in message
    assert "in `kernel`): tl.store(k_cache_ptr, undefined_name)" in message
    assert "checked alone" in message


@needs_triton
def test_a_process_that_was_killed_is_started_again() -> None:
    os.killpg(kernel_host().process.pid, signal.SIGKILL)
    kernel_host().process.wait()
    assert run(EXERCISE, 1, LocalDriver(EXERCISE, store_kv))
    stop_host()
    assert run(EXERCISE, 1, LocalDriver(EXERCISE, store_kv))


@needs_triton
def test_a_process_that_dies_over_a_case_is_told_and_replaced() -> None:
    host = kernel_host()
    os.kill(host.process.pid, signal.SIGSTOP)
    threading.Timer(0.3, lambda: os.killpg(host.process.pid, signal.SIGKILL)).start()
    result = run(EXERCISE, 1, LocalDriver(EXERCISE, store_kv))
    assert result.properties[0].outcome is Outcome.CRASHED
    assert "ended" in result.properties[0].message
    assert result.properties[1].outcome is Outcome.RIGHT


def test_without_triton_nothing_is_right_or_wrong_and_all_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "triton", lambda: judge_triton(None, "2.4.6", False))
    result = run(EXERCISE, 1, LocalDriver(EXERCISE, store_kv))
    assert result.outcome is Outcome.NOT_CHECKED
    assert {item.outcome for item in result.properties} == {Outcome.NOT_CHECKED}
    assert "needs Linux or a GPU" in str(result)


@pytest.mark.parametrize(
    ("source", "stub"),
    [
        ('def f():\n    """Doc."""\n    raise NotImplementedError("your code here")', "f"),
        ("def f():\n    pass\n\ndef g(x):\n    raise NotImplementedError", "g"),
        ("def f(x):\n    if x:\n        raise NotImplementedError\n    return x", ""),
        ("def f(:", ""),
    ],
)
def test_a_stub_is_found_in_the_text(source: str, stub: str) -> None:
    assert stubbed_function(source) == stub


def test_an_untouched_stub_is_not_attempted() -> None:
    result: Any = checked('raise NotImplementedError("your code here")')
    assert {item.outcome for item in result.properties} <= {Outcome.NOT_ATTEMPTED, Outcome.NOT_CHECKED}
