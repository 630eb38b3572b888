"""Triton's interpreter made faster, and in nothing else different: what it does again and again is done once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

REWRITTEN = ("triton.language", "tinyllm.kernels")


def patch_once_a_launch() -> None:
    """From now on the interpreter prepares the language once in a launch for each module that functions of it are from.

    By itself it does so with every call of a function by a kernel, which takes longer than most of them.
    """
    from triton.runtime import interpreter

    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched: set[int] = set()  # in this launch: the globals of a module, by identity

    def patch_once(function: Callable[..., Any]) -> Any:
        if id(function.__globals__) in patched:
            return interpreter._LangPatchScope()  # with nothing to restore
        scope = patch(function)
        patched.add(id(function.__globals__))
        return scope

    def launch_patched(executor: Any, *args: Any, **kwargs: Any) -> Any:
        patched.clear()  # the last launch has restored what it found
        return launch(executor, *args, **kwargs)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch_once, launch_patched


def rewrite_functions() -> None:
    """Have the interpreter import what it needs, and rewrite the functions that kernels share.

    In a process that forks: its forks, one for each answer, would all do that with their first launch.
    """
    from triton.runtime.interpreter import InterpretedFunction

    import_module("triton.experimental.gluon")
    for name, module in list(sys.modules.items()):
        if name.startswith(REWRITTEN):
            for value in list(vars(module).values()):
                if isinstance(value, InterpretedFunction):
                    value.rewrite()
