"""A process that ends while a stream is open ends in order, by whatever way it ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tinyllm.paths import project_root

START = """
import asyncio, sys, threading
from support.models import make_engine, tiny_model
from tinyllm import AsyncEngine, SamplingParams

engine = AsyncEngine(make_engine(tiny_model(), num_blocks=2000))
LONG = SamplingParams(max_tokens=100_000, ignore_eos=True)

async def read(count):
    stream = engine.generate([1, 2, 3], LONG)
    async for _ in stream:
        count -= 1
        if not count:
            return stream

def start():  # a stream that is open, on a loop that stays open
    loop = asyncio.new_event_loop()
    return loop, loop.run_until_complete(read(3))
"""

WAYS = {
    "main returns": ("kept = start()", 0),
    "main returns with many streams": ("kept = [start() for _ in range(5)]", 0),
    "sys.exit": ("kept = start(); sys.exit(7)", 7),
    "an exception": ("kept = start(); raise LookupError('lost')", 1),
    "in asyncio.run": ("asyncio.run(read(3))", 0),
    "an exception in asyncio.run": (
        """
async def main():
    await read(3)
    raise LookupError("lost")
asyncio.run(main())""",
        1,
    ),
    "another thread reads on": (
        """
begun = threading.Event()
async def tell():
    async for _ in engine.generate([1], LONG):
        begun.set()
def reader():
    try:
        asyncio.run(tell())
    except BaseException as error:
        print(type(error).__name__)
threading.Thread(target=reader, daemon=True).start()
begun.wait()""",
        0,
    ),
    "after its shutdown": ("kept = start(); asyncio.run(engine.shutdown())", 0),
    "nobody ever read": ("", 0),
}


#: Each starts a Python with torch, which takes seconds: the others run with the slow tests.
FAST = ("main returns with many streams", "sys.exit", "an exception in asyncio.run", "another thread reads on")


@pytest.mark.parametrize(
    "way", [way if way in FAST else pytest.param(way, marks=pytest.mark.slow) for way in WAYS], ids=list(WAYS)
)
def test_a_process_ends_in_mid_stream(way: str) -> None:
    code, status = WAYS[way]
    done = subprocess.run(
        [sys.executable, "-c", START + code],
        cwd=project_root(),
        env={**os.environ, "PYTHONPATH": "tests"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == status, done.stderr
    assert "terminate called" not in done.stderr
    assert "Fatal Python error" not in done.stderr
