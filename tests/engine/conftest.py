"""Engine tests compare many tiny models: one thread is faster than many, and repeatable."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def inference(one_thread: None) -> Iterator[None]:
    with torch.inference_mode():
        yield
