"""Numbers that Day 3's lesson works out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from lessons.test_lesson_texts import text_of

from grader.build.course import find_day
from tinyllm.config import ModelConfig
from tinyllm.experts.align import moe_align_block_size
from tinyllm.experts.cost import touched_experts
from tinyllm.experts.placement import Placement, place_experts
from tinyllm.experts.plan import SparseShape, plan_ranks
from tinyllm.paths import shipped_checkpoint

TEN_TOKENS = [[2, 3], [3, 0], [1, 3], [1, 3], [0, 3], [1, 0], [0, 3], [3, 0], [1, 3], [1, 3]]


def test_the_waste_of_ten_tokens_in_blocks() -> None:
    text = " ".join(text_of(find_day("day3")).split())
    ids = torch.tensor(TEN_TOKENS)
    assert f"topk_ids = torch.tensor({TEN_TOKENS})" in "".join(cell.source for cell in find_day("day3").cells)
    rows = {size: int(moe_align_block_size(ids, size, 4)[2]) for size in (2, 4, 16)}
    assert rows == {2: 24, 4: 32, 16: 64}
    assert ids.flatten().bincount().tolist() == [5, 5, 1, 9]
    for size, told in ((2, "17 %"), (4, "38 %"), (16, "69 %")):
        assert told == f"{100 * (1 - 20 / rows[size]):.0f} %"
        assert f"{told} padding" in text or f"{told} or" in text or f"or {told} padding" in text


def test_the_law_in_the_text() -> None:
    text = text_of(find_day("day3"))
    assert [round(touched_experts(n, 8, 128)) for n in (8, 64)] == [52, 126]
    assert "**52**" in text
    assert "**126** of 128" in text
    assert round(touched_experts(5, 8, 128) / touched_experts(1, 8, 128), 1) == 4.4
    assert "4.4 times the experts" in text
    assert round(touched_experts(64, 8, 128) / 8) == 16  # "16 times as many"


def test_the_rows_that_two_ranks_exchange_in_the_text() -> None:
    text = text_of(find_day("day3"))
    by_rank = [torch.tensor(TEN_TOKENS[share]).flatten() for share in (slice(0, 4), slice(4, 10))]
    sent = [[int((ids // 2 == rank).sum()) for rank in range(2)] for ids in by_rank]
    assert sent == [[3, 5], [7, 5]]
    for told in ("`sent` is **[3, 5]**", "`got` is **[3, 7]**", "[7, 5] and `got` is [5, 5]"):
        assert told in " ".join(text.split())


def test_what_many_ranks_read_and_send_in_the_text() -> None:
    text, shape = text_of(find_day("day3")), SparseShape()
    assert round(48 * shape.num_experts * shape.expert_bytes / 1e9) == 58
    assert "58 of them are its experts'" in text
    eight, sixteen, *_ = plan_ranks(shape, 4096)
    assert eight.rows_per_expert == sixteen.rows_per_expert == pytest.approx(256)
    assert sixteen.bytes_sent / eight.bytes_sent == pytest.approx(15 / 14 / 2)
    eight = plan_ranks(shape, 64)[0]
    assert round(eight.bytes_read / 1e6) == 149
    assert round(eight.bytes_read / 3.35e12 * 1e6) == 44
    assert round(eight.bytes_sent / 450e9 * 1e6) == 1
    assert "reads 149 MB, which takes 44 microseconds" in text


def test_the_placement_in_the_text() -> None:
    loads = [9, 2, 2, 2, 2, 3, 2, 2]
    in_order = Placement(((0, 1), (2, 3), (4, 5), (6, 7)))
    assert in_order.load(loads) == [11, 4, 5, 4]
    assert in_order.imbalance(loads) == place_experts(loads, 4).imbalance(loads) == pytest.approx(1.83, abs=0.005)
    spread = place_experts(loads, 4, 4)
    assert max(spread.load(loads)) == 6.25
    assert all(0 in rank for rank in spread.ranks)
    assert spread.imbalance(loads) == pytest.approx(1.04, abs=0.005)


def test_the_weight_in_check_yourself() -> None:
    assert math.exp(3) / (math.exp(3) + 2 * math.e + 1) == pytest.approx(0.76, abs=0.005)


@pytest.mark.needs("checkpoint")
def test_the_shipped_mixture_in_the_text() -> None:
    config = ModelConfig.from_pretrained(shipped_checkpoint("moe"))
    assert (config.sparse_layers, config.num_experts, config.num_experts_per_tok) == ((4, 9, 14, 19), 8, 2)
    asleep = len(config.sparse_layers) * 6 * 3 * config.hidden_size * config.moe_intermediate_size
    assert round((10_826_400 - asleep) / 1e6, 1) == 6.4
