"""The measurements and sizes that the text quotes: they are what it says, and the benchmark still gives them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kv_memory
from benchmarks.record import RESULTS
from tinyllm.config import ModelConfig
from tinyllm.kv_cache.sizing import kv_bytes_per_token
from tinyllm.paths import SHIPPED, project_root, shipped_checkpoint


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """The committed result of the KV memory study."""
    loaded: dict[str, Any] = json.loads((RESULTS / "kv_memory.json").read_text(encoding="utf-8"))
    return loaded


def test_the_result_was_measured_with_these_settings(result: dict[str, Any]) -> None:
    assert result["settings"] == kv_memory.settings()
    assert result["machine"]["cpu"]
    assert result["versions"]["torch"]


@pytest.mark.needs("checkpoint")
def test_the_chapters_say_what_the_configs_give() -> None:
    target, draft, moe = (ModelConfig.from_pretrained(shipped_checkpoint(name)) for name in SHIPPED)
    day0, day1 = (project_root() / "book" / "src" / f"{day}.md" for day in ("day0", "day1"))
    layers, heads, dim = target.num_layers, target.num_kv_heads, target.head_dim
    per_token = kv_bytes_per_token(target, 4)
    kib = per_token // 1024
    assert_says(
        day0,
        f"| {layers} | {heads} | {dim} | 4 (float32) |",
        f"| 2 · {layers} · {heads} · {dim} · 4 = **{per_token:,}** ({kib} KiB) |",
        f"the target that ships, in float32, has {kib} MiB at 1,024 tokens and {kib / 8:g} GiB at 131,072",
        f"a Qwen3 decoder of {layers} layers, hidden size {target.hidden_size} |",
        f"one of {draft.num_layers} layers, hidden size {draft.hidden_size}, with the same tokenizer |",
        f"the target with {moe.num_experts} experts in every fifth layer, {moe.num_experts_per_tok} for each token |",
    )
    assert len(moe.sparse_layers) == layers // 5
    assert_says(day1, f"For the target that ships: 16 · {kib} KiB = {16 * kib} KiB.")


def assert_says(chapter: Path, *sentences: str) -> None:
    text = re.sub(r"\{\{#term (?:[^}|]*\|)? *([^}]*?) *\}\}", r"\1", chapter.read_text(encoding="utf-8"))
    assert [sentence for sentence in sentences if sentence not in text] == []


def test_paging_holds_what_the_course_promises(result: dict[str, Any]) -> None:
    sharegpt, alpaca = result["traces"]["sharegpt"], result["traces"]["alpaca"]
    for trace in (sharegpt, alpaca):
        assert trace["block_16"]["times_contiguous"] >= 4
        wastes = [trace[policy]["waste_percent"] for policy in ("block_8", "block_16", "block_32", "contiguous")]
        assert wastes == sorted(wastes)
    assert sharegpt["block_16"]["waste_percent"] < 2
    assert alpaca["block_16"]["waste_percent"] < 10
    assert result["system_prompt"]["with"]["mean_running"] > result["system_prompt"]["without"]["mean_running"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.needs("checkpoint")
@pytest.mark.usefixtures("one_thread")
def test_the_benchmark_gives_the_committed_values(result: dict[str, Any]) -> None:
    """The committed values come from a run with the model; without it they must be the same."""
    values = json.loads(json.dumps(kv_memory.measure(result["seed"], with_model=False)))
    assert values == {name: result[name] for name in values}
