"""The process that workers are forked from. It imports torch and the checks once, for all of them."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext


def fork_context() -> ForkServerContext:
    """The context that starts workers, with what they need imported beforehand."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["grader.pipeline.pool"])
    return context


def start_forkserver() -> None:
    """Start it, so that it imports what workers need while this process imports nbgrader, which takes seconds."""
    fork_context()
    forkserver.ensure_running()
