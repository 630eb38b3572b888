"""Triton's interpreter made faster, and in nothing else different: it leaves out what it does for nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

SHARED = ("triton.language", "tinyllm.kernels")  # packages with functions that kernels call


def make_faster() -> None:
    """From now on, in this process, kernels run in half the time."""
    from triton.runtime import interpreter

    patch_once_a_launch(interpreter)
    # Sums and products of integers are else computed once more in 64 bits, for an assertion that is off.
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)


def patch_once_a_launch(interpreter: Any) -> None:
    """Have the interpreter replace the functions of `triton.language` once a launch.

    By itself it looks through all of them with every call from a kernel, and finds them replaced.
    """
    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    language = (interpreter.tl, interpreter.tl.core)
    patched: set[tuple[int, ...]] = set()  # in this launch: which of the two a function has seen

    def patch_once(function: Callable[..., Any]) -> Any:
        seen = tuple(id(value) for value in function.__globals__.values() if any(value is part for part in language))
        if seen in patched:
            return interpreter._LangPatchScope()  # with nothing to restore
        patched.add(seen)
        return patch(function)

    def launch_anew(executor: Any, *args: Any, **kwargs: Any) -> Any:
        patched.clear()  # after a launch its replacements are taken back
        return launch(executor, *args, **kwargs)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch_once, launch_anew


def rewrite_shared_functions() -> None:
    """Have the interpreter import what it needs and rewrite the functions that kernels share.

    For a process that forks: each of its forks would do that with its first launch.
    """
    from triton.runtime.interpreter import InterpretedFunction

    import_module("triton.experimental.gluon")
    for name, module in list(sys.modules.items()):
        if name.startswith(SHARED):
            for value in list(vars(module).values()):
                if isinstance(value, InterpretedFunction):
                    value.rewrite()
