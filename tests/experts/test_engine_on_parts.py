"""The engine runs experts on the parts that it is given, and blames a part for its own failure and nonsense."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from experts.engine_on_parts import BROKEN, EXPERTS, IN_TORCH, LENGTHS, answers, record, spies
from experts.ranks import on_ranks
from kernels.interpreted import run_interpreted
from support.models import drain, make_engine, tiny_model

from tinyllm.config import SamplingParams
from tinyllm.errors import PartError
from tinyllm.experts.backends import TritonExperts
from tinyllm.experts.layer import experts_sorted
from tinyllm.experts.parallel import ExpertParallel
from tinyllm.parallel.ranks import Ranks
from tinyllm.parts import all_parts, resolve

BETWEEN_RANKS = (*IN_TORCH, "dispatch_all_to_all", "combine_all_to_all")
X, IDS, LOGITS = torch.zeros(5, 3), torch.tensor([[0, 1], [2, 3], [0, -1], [3, 4], [1, 0]]), torch.zeros(5, 4)
WEIGHTS = torch.zeros(5, 2)
ROWS, COUNTS = torch.zeros(8, 3), torch.tensor([3, 2, 1, 2])  # of the 10 pairs two have no expert
PAIRS = torch.arange(8)
#: [W, E / W] that one of two ranks received.
FROM_RANKS = torch.tensor([[1, 2], [0, 1]])

RIGHT: dict[str, tuple[tuple[Any, ...], Any]] = {
    "topk_router": ((LOGITS, 2, True), (WEIGHTS, IDS.clamp(0, 3))),
    "permute": ((X, IDS, 4), (ROWS, PAIRS, COUNTS)),
    "unpermute": ((ROWS, PAIRS, WEIGHTS), X),
    "moe_align_block_size": (
        (IDS, 4, 4),
        (torch.full((24,), 10), torch.tensor([0, 1, 2, 3, -1, -1]), torch.tensor([16])),
    ),
    "dispatch_all_to_all": ((ROWS, COUNTS), (torch.zeros(4, 3), FROM_RANKS, [5, 3], [3, 1])),
    "combine_all_to_all": ((torch.zeros(4, 3), [5, 3], [3, 1]), ROWS),
}

#: Part, which of its results (None where it has one), what stands in its place, and what is said about it.
WRONG: list[tuple[str, int | None, Any, str]] = [
    ("topk_router", 0, WEIGHTS.T, r"topk_weights must be \[5, 2\], torch.float32 on cpu; it is \[2, 5\]"),
    ("topk_router", 0, WEIGHTS.double(), r"topk_weights .* it is \[5, 2\], torch.float64"),
    ("topk_router", 1, IDS.double(), r"topk_ids must be \[5, 2\], integers on cpu; it is \[5, 2\], torch.float64"),
    ("topk_router", 1, IDS > 0, r"topk_ids must be \[5, 2\], integers"),
    ("topk_router", 1, IDS, "topk_ids must be from 0 to 3; they go from -1 to 4"),
    ("permute", 0, torch.zeros(10, 3), r"permuted must be \[8, 3\]"),
    ("permute", 1, PAIRS + 3, "pairs must be from 0 to 9; they go from 3 to 10"),
    ("permute", 1, PAIRS.tolist(), "returned .* which cannot be used"),
    ("permute", 2, COUNTS[:3], r"counts must be \[4\]"),
    ("permute", 2, COUNTS + 1, "counts add up to 12, and there are 8 rows"),
    ("permute", 2, torch.tensor([9, -1, 0, 0]), "counts must be from 0 to 8"),
    ("unpermute", None, torch.zeros(10, 3), r"the result must be \[5, 3\]"),
    ("unpermute", None, X.bfloat16(), r"the result must be \[5, 3\], torch.float32"),
    ("unpermute", None, None, "returned None, which cannot be used"),
    ("moe_align_block_size", 0, torch.full((20,), 10), r"sorted_token_ids must be \[24\]"),
    ("moe_align_block_size", 0, torch.full((24,), 11), "sorted_token_ids must be from 0 to 10"),
    ("moe_align_block_size", 0, torch.full((24,), -1), "sorted_token_ids must be from 0 to 10"),
    ("moe_align_block_size", 1, torch.arange(6), "expert_ids must be from -1 to 3"),
    ("moe_align_block_size", 1, torch.zeros(24, dtype=torch.int32), r"expert_ids must be \[6\]"),
    ("moe_align_block_size", 2, torch.tensor([18]), "num_tokens_post_padded is 18, which is no multiple of 4"),
    ("moe_align_block_size", 2, torch.tensor([28]), "num_tokens_post_padded must be from 0 to 24"),
    ("moe_align_block_size", 2, 16, "returned .* which cannot be used"),
    ("dispatch_all_to_all", 0, ROWS, r"received must be \[4, 3\]"),
    ("dispatch_all_to_all", 1, COUNTS, r"received_counts must be \[2, 2\]"),
    ("dispatch_all_to_all", 1, FROM_RANKS.T.contiguous(), r"got is \[3, 1\], but received_counts has \[1, 3\] rows"),
    ("dispatch_all_to_all", 2, [4, 3], r"sent \[4, 3\] does not add up to the 8 rows"),
    ("dispatch_all_to_all", 3, [3.0, 1.0], r"must return 2 numbers of rows got, returned \[3.0, 1.0\]"),
    ("combine_all_to_all", None, torch.zeros(4, 3), r"the result must be \[8, 3\]"),
]


def part_that_returns(name: str, value: Any) -> Any:
    return resolve({name: lambda *arguments: value})[name]


@pytest.mark.parametrize("name", RIGHT)
def test_what_fits_passes_whatever_integers_it_has(name: str) -> None:
    arguments, value = RIGHT[name]
    assert part_that_returns(name, value)(*arguments) is value
    if isinstance(value, tuple):
        small = tuple(x.int() if isinstance(x, torch.Tensor) and not x.is_floating_point() else x for x in value)
        assert part_that_returns(name, small)(*arguments) is small


@pytest.mark.parametrize(("name", "place", "value", "words"), WRONG)
def test_nonsense_is_blamed_on_the_part(name: str, place: int | None, value: Any, words: str) -> None:
    arguments, right = RIGHT[name]
    wrong = value if place is None else (*right[:place], value, *right[place + 1 :])
    with pytest.raises(PartError, match=f"your {name}: {words}"):
        part_that_returns(name, wrong)(*arguments)


@pytest.mark.parametrize("name", RIGHT)
def test_a_look_at_no_token_at_all(name: str) -> None:
    """A rank may have none."""
    ids, rows = IDS[:0], X[:0]
    cases: dict[str, tuple[Any, ...]] = {
        "topk_router": (LOGITS[:0], 2, True),
        "permute": (rows, ids, 4),
        "unpermute": (rows, PAIRS[:0], WEIGHTS[:0]),
        "moe_align_block_size": (ids, 4, 4),
    }
    if name in cases:
        resolve({name: all_parts()[name].reference})[name](*cases[name])
    elif name == "dispatch_all_to_all":
        part_that_returns(name, (rows, 0 * FROM_RANKS, [0, 0], [0, 0]))(rows, 0 * COUNTS)
    else:
        part_that_returns(name, rows)(rows, [0, 0], [0, 0])


# ---------------------------------------------------------------- through the engine


def test_the_engine_calls_each_part_in_each_sparse_layer() -> None:
    calls: Counter[str] = Counter()
    assert answers(spies(IN_TORCH, calls)) == answers()
    assert calls["topk_router"] == calls["permute"] == calls["unpermute"] > 2 * len(LENGTHS)


def test_what_is_recorded_is_what_the_given_router_chose() -> None:
    """A router that sends all tokens to the last two experts."""

    def last_two(router_logits: torch.Tensor, top_k: int, norm_topk_prob: bool) -> Any:
        ids = torch.arange(EXPERTS - top_k, EXPERTS).expand(len(router_logits), top_k)
        return torch.full_like(router_logits[:, :top_k], 0.5), ids

    engine = make_engine(tiny_model(num_experts=EXPERTS), resolve({"topk_router": last_two}), record_experts=True)
    engine.add_request(list(range(20)), SamplingParams(max_tokens=2))
    drain(engine)
    loads = [load for record in engine.step_records for load in record.experts]
    assert loads
    assert all((load.num_touched, load.imbalance) == (2, EXPERTS / 2) for load in loads)


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_part_that_fails_is_named_with_its_line(name: str) -> None:
    record(name, BROKEN.format(name=name))
    with pytest.raises(PartError, match=rf"your {name} failed in line 3 \(return 1 / 0\): ZeroDivisionError"):
        answers(resolve("mine"))


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_part_that_returns_nonsense_is_named(name: str) -> None:
    with pytest.raises(PartError, match=f"your {name}: returned None"):
        answers(resolve({name: lambda *arguments: None}))


@pytest.mark.needs("triton")
def test_the_engine_on_a_given_kernel() -> None:
    done = run_interpreted("-m", "experts.engine_on_parts")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    expected = {name: [list(tokens) for tokens in group] for name, group in answers().items()}
    assert told["spied"] == expected
    assert 0 < told["calls"]["moe_align_block_size"] <= told["calls"]["topk_router"], "few pairs need no sorting"
    assert told["empty"] != expected
    assert told["blamed"].startswith("your grouped_gemm_tile failed in line 9"), told["blamed"]


def test_a_cuda_graph_holds_no_part_that_may_wait_for_the_gpu() -> None:
    assert TritonExperts().supports_cuda_graphs
    assert TritonExperts(tile=object()).supports_cuda_graphs
    for name, argument in (("topk_router", "router"), ("moe_align_block_size", "align")):
        given: dict[str, Any] = {argument: resolve({name: all_parts()[name].reference})[name]}
        assert not TritonExperts(**given).supports_cuda_graphs


# ---------------------------------------------------------------- on two ranks


def on_parts(ranks: Ranks) -> tuple[float, Counter[str], list[str]]:
    """The distance to the reference, the calls of each part, and how nonsense of each exchange is told."""
    layer = tiny_model(num_experts=EXPERTS).layers[0].mlp
    half = EXPERTS // 2
    for name in ("gate_up_proj", "down_proj"):
        whole = getattr(layer.experts, name).data
        setattr(layer.experts, name, torch.nn.Parameter(whole[half * ranks.rank : half * (ranks.rank + 1)], False))
    x, calls = torch.rand(5, 32, generator=torch.Generator().manual_seed(3)), Counter[str]()
    out = layer(x, ExpertParallel(experts_sorted, ranks, spies(BETWEEN_RANKS, calls)))
    away = float((out - layer(x, ExpertParallel(experts_sorted, ranks))).abs().max())
    told = []
    for name in BETWEEN_RANKS[-2:]:
        wrong = resolve({name: lambda *arguments: None})
        try:
            layer(x, ExpertParallel(experts_sorted, ranks, wrong))
        except PartError as error:
            told.append(str(error))
    return away, calls, told


def test_ranks_exchange_rows_by_the_given_parts(tmp_path: Path) -> None:
    results = on_ranks(2, on_parts, tmp_path)
    assert sorted(results) == [0, 1]
    for away, calls, told in results.values():
        assert away == 0.0
        assert calls == dict.fromkeys(BETWEEN_RANKS, 1)
        assert [words.partition(": returned")[0] for words in told] == [f"your {name}" for name in BETWEEN_RANKS[-2:]]
