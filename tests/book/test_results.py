"""The committed measurements that the text quotes: they hold what it says, and the benchmark still gives them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from benchmarks import kv_memory
from benchmarks.record import RESULTS


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """The committed result of the KV memory study."""
    loaded: dict[str, Any] = json.loads((RESULTS / "kv_memory.json").read_text(encoding="utf-8"))
    return loaded


def test_the_result_was_measured_with_these_settings(result: dict[str, Any]) -> None:
    assert result["settings"] == kv_memory.settings()
    assert result["machine"]["cpu"]
    assert result["versions"]["torch"]


def test_paging_holds_what_the_course_promises(result: dict[str, Any]) -> None:
    sharegpt, alpaca = result["traces"]["sharegpt"], result["traces"]["alpaca"]
    for trace in (sharegpt, alpaca):
        assert trace["block_16"]["times_contiguous"] >= 4
        wastes = [trace[policy]["waste_percent"] for policy in ("block_8", "block_16", "block_32", "contiguous")]
        assert wastes == sorted(wastes)
    assert sharegpt["block_16"]["waste_percent"] < 2
    assert alpaca["block_16"]["waste_percent"] < 10
    assert result["system_prompt"]["with"]["mean_running"] > result["system_prompt"]["without"]["mean_running"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the benchmark runs: its tensors are small, and threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.needs("checkpoint")
@pytest.mark.usefixtures("one_thread")
def test_the_benchmark_gives_the_committed_values(result: dict[str, Any]) -> None:
    """The committed values come from a run with the model; without it they must be the same."""
    values = json.loads(json.dumps(kv_memory.measure(result["seed"], with_model=False)))
    assert values == {name: result[name] for name in values}
