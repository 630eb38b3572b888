"""A real JupyterLab, started as a learner starts it, and a headless Chromium."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tinyllm.doctor import find_chromium

START_SECONDS = 120

# No GPU process and nothing in the background: a container has neither the devices nor a network.
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def collect(stream: IO[str], lines: Queue[str]) -> None:
    for line in stream:
        lines.put(line)


def address(lines: Queue[str]) -> str:
    """The address that JupyterLab prints, or a failure that shows what it printed instead."""
    seen = []
    try:
        while True:
            seen.append(lines.get(timeout=START_SECONDS))
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S+", seen[-1]):
                return found[0]
    except Empty:
        raise AssertionError(f"no address from JupyterLab in {START_SECONDS} s:\n{''.join(seen)}") from None


def wait_until_it_listens(url: str) -> None:
    """JupyterLab prints its address a moment before it listens there."""
    port = int(re.findall(r":(\d+)/", url)[0])
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens at {url} after {START_SECONDS} s")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address that `tinyllm lab` prints, with Day 1's release notebook in front."""
    environment = os.environ | {"TINYLLM_WORK": str(tmp_path / "work"), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    environment |= {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [str(Path(sys.executable).with_name("tinyllm")), "lab", "--day", "day1", "--no-browser"]
    command += [f"--port={free_port()}", "--LabApp.expose_app_in_browser=True"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: Queue[str] = Queue()
    try:
        assert server.stdout is not None
        threading.Thread(target=collect, args=(server.stdout, lines), daemon=True).start()
        url = address(lines)
        wait_until_it_listens(url)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium: Any = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    yield context.new_page()
    context.close()
