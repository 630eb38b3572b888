"""The models behind the interactive pictures do what the course's own parts do on the same operations."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from book.figures._serving import Arrival, serve
from book.figures.batching import CROWD
from book.figures.experts import NUM_EXPERTS, ROUTES, TOP_K
from book.preprocessor.interactive import FOLDER, PICTURES
from tinyllm.config import CacheConfig, ModelConfig
from tinyllm.experts.align import moe_align_block_size
from tinyllm.experts.routing import expert_counts
from tinyllm.kernels.reference import merge_attention_states, paged_attention_with_lse
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.parts import resolve
from tinyllm.paths import shipped_checkpoint

pytestmark = pytest.mark.needs("node", "checkpoint")

HERE = Path(__file__).parent
Operation = tuple[str, ...]


def run_node(script: str, given: str) -> list[Any]:
    """What a script prints, one JSON value a line."""
    node = shutil.which("node") or shutil.which("nodejs")
    assert node
    command = [node, script] if script.endswith(".mjs") else [node, "-e", script]
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=HERE, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def call(model: str, function: str, arguments: list[list[Any]]) -> list[Any]:
    """A function of a model, called with each list of arguments; Infinity travels as a string."""
    script = (
        "const infinite = (_, v) => v === '-inf' ? -Infinity : v, told = (_, v) => v === -Infinity ? '-inf' : v;"
        f"const model = require({json.dumps(str(FOLDER / f'{model}_model.js'))});"
        "for (const line of require('fs').readFileSync(0, 'utf8').split('\\n').filter(Boolean))"
        f" console.log(JSON.stringify(model.{function}(...JSON.parse(line, infinite)), told));"
    )
    return run_node(script, "".join(json.dumps(argument) + "\n" for argument in arguments))


def test_every_picture_has_its_scripts_and_each_is_small() -> None:
    names = {"kit"} | {f"{name}{part}" for name in PICTURES for part in ("", "_model")}
    assert {path.stem for path in FOLDER.iterdir()} == names
    for path in FOLDER.iterdir():
        assert len(path.read_text(encoding="utf-8").splitlines()) < 250


# ---------------------------------------------------------------- the page allocator

PROMPTS = ("Ten tokens", "Ten tokens more", "Ten", "Ten ", "Ten toke", "Another one", "x" * 24)


class PythonPool:
    """The engine's cache, driven as the picture's buttons drive the model."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        model = ModelConfig.from_pretrained(shipped_checkpoint())
        config = CacheConfig(num_blocks=num_blocks, block_size=block_size)
        self.kv = KVCacheManager(model, config, resolve(), torch.float32, "cpu")
        self.tokens: dict[str, str] = {}

    def start(self, name: str, text: str) -> bool:
        cached = self.kv.start(name, [ord(letter) for letter in text])
        if cached is not None:
            self.kv.append(name, len(text) - cached)
            self.tokens[name] = text
        return cached is not None

    def append(self, name: str, text: str) -> bool:
        if self.kv.append(name, len(text)) is None:
            return False
        self.tokens[name] += text
        return True

    def fork(self, parent: str, child: str) -> bool:
        self.kv.fork(parent, child)
        self.tokens[child] = self.tokens[parent]
        return True

    def free(self, name: str) -> bool:
        self.kv.cache_blocks(name, [ord(letter) for letter in self.tokens.pop(name)])
        self.kv.free(name)
        return True

    def state(self, fits: bool) -> dict[str, Any]:
        cache = self.kv.prefix_cache
        assert cache is not None
        return {
            "fits": fits,
            "free": list(self.kv.allocator.free_ids),
            "counts": list(self.kv.allocator.ref_counts),
            "tables": {name: [list(self.kv.table(name).block_ids), text] for name, text in self.tokens.items()},
            "cached": list(cache.blocks.values()),
        }


def random_operations(draw: random.Random, length: int) -> tuple[list[Operation], list[dict[str, Any]], int, int]:
    """Operations that are possible where they stand, the states of the engine's cache, and the pool's shape."""
    num_blocks, block_size = draw.choice([(16, 4), (6, 4), (9, 2), (5, 1)])
    pool, operations, states = PythonPool(num_blocks, block_size), [], []
    for _ in range(length):
        names, unused = list(pool.tokens), [name for name in "ABCDE" if name not in pool.tokens]
        possible: list[Operation] = [("append", name, name.lower() * draw.randint(1, 5)) for name in names]
        possible += [("free", name) for name in names]
        if unused:
            possible += [("fork", name, unused[0]) for name in names] + [("start", unused[0], draw.choice(PROMPTS))] * 2
        operation = draw.choice(possible)
        operations.append(operation)
        states.append(pool.state(getattr(pool, operation[0])(*operation[1:])))
    return operations, states, num_blocks, block_size


def test_the_pool_does_what_the_engines_cache_does() -> None:
    runs = [random_operations(random.Random(seed), 40) for seed in range(60)]
    lines = [json.dumps({"numBlocks": n, "blockSize": p, "operations": ops}) + "\n" for ops, _, n, p in runs]
    answers = run_node("pool_states.mjs", "".join(lines))
    for (operations, states, _, _), answer in zip(runs, answers, strict=True):
        for operation, expected, got in zip(operations, states, answer, strict=True):
            assert got == expected, operation
    seen = [state for _, states, _, _ in runs for state in states]
    assert any(not state["fits"] for state in seen), "a pool was full"
    assert any(max(state["counts"]) > 2 for state in seen), "blocks were shared"
    assert any(state["cached"] for state in seen), "the prefix cache held blocks"


# ---------------------------------------------------------------- batching


def as_told(crowd: tuple[Arrival, ...]) -> list[dict[str, Any]]:
    return [{"name": a.name, "arrival": a.step, "prompt": a.prompt_len, "output": a.output_len} for a in crowd]


def test_the_picture_serves_the_requests_of_its_drawn_figure() -> None:
    (requests,) = run_node(
        f"console.log(JSON.stringify(require({json.dumps(str(FOLDER))} + '/batching_model').REQUESTS))", ""
    )
    assert requests == as_told(CROWD)


LATE = (
    Arrival("A", 0, 9, 2),
    Arrival("B", 1, 1, 1),
    Arrival("C", 1, 7, 5),
    Arrival("D", 5, 30, 3),
    Arrival("E", 40, 2, 2),
)


@pytest.mark.parametrize("crowd", [CROWD, LATE], ids=["all at once", "one by one"])
def test_the_timeline_is_the_engines_schedule(crowd: tuple[Arrival, ...]) -> None:
    cases = list(product((1, 2, 3, 6), (2, 5, 8, 16), (False, True)))
    arguments = [[as_told(crowd), {"seats": s, "budget": b, "continuous": c}] for s, b, c in cases]
    for (seats, budget, continuous), steps in zip(cases, call("batching", "run", arguments), strict=True):
        expected = serve(crowd, static=not continuous, max_num_seqs=seats, max_num_batched_tokens=budget)
        got = [{share["name"]: share["tokens"] for share in step} for step in steps]
        assert [step for step in got if step] == [step for step in expected if step], (seats, budget, continuous)
        for step in steps:
            places = [share["seat"] for share in step]
            assert len(set(places)) == len(places)
            assert all(0 <= place < seats for place in places)


# ---------------------------------------------------------------- merging


def test_merged_states_are_those_of_the_reference() -> None:
    draw = random.Random(0)
    cases = []
    for _ in range(200):
        length, scale = draw.randint(1, 9), draw.choice([1, 30, 2000])
        scores = [draw.uniform(-scale, scale) for _ in range(length)]
        cases.append((scores, [draw.uniform(-3, 3) for _ in scores], draw.randint(0, length)))
    lefts = call("merge", "partialState", [[s[:cut], v[:cut]] for s, v, cut in cases])
    rights = call("merge", "partialState", [[s[cut:], v[cut:]] for s, v, cut in cases])
    pairs = [list(pair) for pair in zip(lefts, rights, strict=True)]
    merged = call("merge", "mergeStates", pairs)
    lse = {
        name: call("merge", "logSumExp", [[state] for state in states])
        for name, states in (("left", lefts), ("right", rights), ("merged", merged))
    }
    for index, (scores, values, _) in enumerate(cases):
        sides = [
            (
                torch.tensor([state["output"]], dtype=torch.float64),
                torch.tensor(float(lse[name][index]), dtype=torch.float64),
            )
            for name, state in (("left", lefts[index]), ("right", rights[index]))
        ]
        out, total = merge_attention_states(*sides[0], *sides[1])
        assert merged[index]["output"] == pytest.approx(out.item(), rel=1e-12, abs=1e-12)
        assert lse["merged"][index] == pytest.approx(total.item(), rel=1e-12, abs=1e-12)
        direct = attention(scores, values)
        assert merged[index]["output"] == pytest.approx(direct[0], rel=1e-9, abs=1e-9)
        assert lse["merged"][index] == pytest.approx(direct[1], rel=1e-12, abs=1e-9)


def attention(scores: list[float], values: list[float]) -> tuple[float, float]:
    """Output and log-sum-exp of one query with these scores, by the oracle of the kernels."""
    k, v = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (scores, values))
    length = len(scores)
    table, lens, starts = torch.zeros(1, 1, dtype=torch.int64), torch.tensor([length]), torch.tensor([0, 1])
    q = torch.ones(1, 1, 1, dtype=torch.float64)
    out, lse = paged_attention_with_lse(q, k, v, table, lens, starts, length, scale=1.0, dtype=torch.float64)
    return out.item(), lse.item()


def test_two_empty_parts_make_an_empty_part() -> None:
    empty = {"max": "-inf", "sum": 0, "output": 0}
    assert call("merge", "partialState", [[[], []]]) == [empty]
    (merged,) = call("merge", "mergeStates", [[empty, empty]])
    assert (merged["max"], merged["sum"], merged["output"]) == ("-inf", 0, 0)


# ---------------------------------------------------------------- routing


def padded(routes: list[list[int]]) -> torch.Tensor:
    """[T, K] ids of the engine: -1 where a token has fewer experts."""
    return torch.tensor([route + [-1] * (TOP_K - len(route)) for route in routes]).view(-1, TOP_K)


def test_the_blocks_are_those_of_the_engine() -> None:
    draw = random.Random(0)
    cases: list[tuple[list[list[int]], int, int]] = [([list(route) for route in ROUTES], NUM_EXPERTS, 4), ([], 4, 4)]
    for _ in range(200):
        num_experts = draw.randint(2, 6)
        wanted = range(draw.choice([2, num_experts]))  # all on two experts, or on all
        routes = [draw.sample(wanted, draw.choice([TOP_K, TOP_K, 1, 0])) for _ in range(draw.randint(0, 17))]
        cases.append((routes, num_experts, draw.randint(1, 9)))
    got = call("experts", "blocks", [list(case) for case in cases])
    told = call("experts", "summary", [list(case) for case in cases])
    for (routes, num_experts, block_size), blocks, said in zip(cases, got, told, strict=True):
        ids = padded(routes)
        rows, experts, in_use = (x.tolist() for x in moe_align_block_size(ids, block_size, num_experts))
        pad = ids.numel()
        flat = [pad if row is None else row for block in blocks for row in block["rows"]]
        assert flat == rows[: in_use[0]]
        assert [block["expert"] for block in blocks] == [expert for expert in experts if expert >= 0]
        counts = expert_counts(ids, num_experts)
        pairs = int(counts.sum())
        assert said == {
            "pairs": pairs,
            "rows": in_use[0],
            "waste": pytest.approx((in_use[0] - pairs) / in_use[0] if pairs else 0),
            "touched": int((counts > 0).sum()),
            "imbalance": pytest.approx(float(counts.max() / counts.double().mean()) if pairs else 1),
        }


def test_the_picture_begins_with_the_routes_of_the_chapter() -> None:
    path = json.dumps(str(FOLDER / "experts_model.js"))
    (constants,) = run_node(
        f"const {{ START, EVEN, NUM_EXPERTS, TOP_K }} = require({path});"
        "console.log(JSON.stringify([START, EVEN, NUM_EXPERTS, TOP_K]))",
        "",
    )
    start, even, *sizes = constants
    assert start == [list(route) for route in ROUTES]
    assert sizes == [NUM_EXPERTS, TOP_K]
    assert expert_counts(padded(even), NUM_EXPERTS).unique().numel() == 1


def test_a_third_expert_takes_the_place_of_the_first() -> None:
    cases = [[[], 2], [[2], 1], [[2, 1], 3], [[2, 1], 1], [[2, 1], 2]]
    assert call("experts", "choose", cases) == [[2], [2, 1], [1, 3], [2], [1]]
