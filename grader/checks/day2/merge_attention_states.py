"""Checks of `merge_attention_states`, against one softmax over all positions in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.closeness import closeness_problem
from grader.framework import Case, Exercise, Observations, Prop, generator, plain, short

STATE = ("out_a", "lse_a", "out_b", "lse_b")
NAN, INF = float("nan"), float("inf")
EMPTY = -INF


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """The merged state, as it came, and the arguments that it shares memory with."""
    merged = parts.merge_attention_states(*(case[name] for name in STATE))
    tensors = [item for item in merged if isinstance(item, Tensor)] if isinstance(merged, tuple | list) else []
    memory = [item.untyped_storage().data_ptr() for item in tensors]
    shared = [name for name in STATE if case[name].untyped_storage().data_ptr() in memory]
    return {"merged": plain(merged), "shared": shared}


def judge(case: Case, observations: Observations) -> str | None:
    """Held against attention over all positions, or row by row over two whose scores are the log-sum-exps."""
    merged, shared = observations["merged"], observations["shared"]
    if not isinstance(merged, list) or len(merged) != 2:
        return f"it must return two tensors, output and log-sum-exp, got {short(merged)}"
    if shared:
        return f"what it returns must be new; it shares memory with its argument {short(shared[0])}"
    expected = attend_to_part(case["scores"], case["values"]) if "scores" in case else merged_state(case)
    largest = float(torch.stack([case["lse_a"], case["lse_b"]]).nan_to_num(neginf=0).abs().max())
    rtol = 1e-4 + 1e-6 * largest  # at 1,000 float32 has four digits after the point
    problem = closeness_problem("the merged output", expected[0], merged[0], rtol=rtol, atol=rtol / 10)
    return problem or closeness_problem("the merged log-sum-exp", expected[1], merged[1], rtol=1e-5, atol=1e-5)


def merged_state(case: Case) -> tuple[Tensor, Tensor]:
    """The sets that are there, each as one position."""
    out, lse = torch.zeros_like(case["out_a"]).double(), torch.full_like(case["lse_a"], EMPTY).double()
    for at in product(*map(range, lse.shape)):
        there = [side for side in "ab" if case[f"lse_{side}"][at] != EMPTY]
        if there:
            scores, values = (torch.stack([case[f"{name}_{side}"][at] for side in there]) for name in ("lse", "out"))
            out[at], lse[at] = attend_to_part(scores, values)
    return out, lse


def attend_to_part(scores: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention in float64: output [..., D] and log-sum-exp [...] of scores [..., S] over values [S, D]."""
    lse = scores.double().logsumexp(-1)
    return (scores.double() - lse[..., None]).exp() @ v.double(), lse


def describe(case: Case) -> str:
    """The sizes in words; the numbers only where they are few."""
    rows = case["lse_a"].numel()
    sets = f" over {case['scores'].shape[-1]} positions in two sets" if "scores" in case else ""
    text = f"{'1 query' if rows == 1 else f'{rows} queries'}{sets}"
    if rows > 1 and sets:
        return f"{text}, lse_a of shape {list(case['lse_a'].shape)}, out_a of shape {list(case['out_a'].shape)}"
    return f"{text}: " + ", ".join(f"{name}={rounded(case[name])}" for name in STATE)


def rounded(values: Tensor) -> Any:
    """A tensor's values with three decimals; a single one without brackets."""
    if values.dim() > 1 and len(values) > 1:
        return [rounded(row) for row in values]
    numbers = [round(value, 3) for value in values.flatten().tolist()]
    return numbers[0] if values.numel() == 1 else numbers


def split_case(rng: random.Random, rows: list[int], sizes: tuple[int, int], dim: int, spread: float = 1.0) -> Case:
    """Queries of any shape over two sets of positions, and the state of each set."""
    gen = generator(rng)
    scores = torch.randn(*rows, sum(sizes), generator=gen) * spread
    v = torch.randn(sum(sizes), dim, generator=gen)
    state_a = attend_to_part(scores[..., : sizes[0]], v[: sizes[0]])
    state_b = attend_to_part(scores[..., sizes[0] :], v[sizes[0] :])
    states = {name: tensor.float() for name, tensor in zip(STATE, (*state_a, *state_b), strict=True)}
    return {"scores": scores, "values": v, **states}


def state(lse_a: Any, lse_b: Any, out_a: Sequence[float] = (1, 2), out_b: Sequence[float] = (3, -2)) -> Case:
    """Two states given as numbers; with lists of log-sum-exps, rows with these outputs, NaN or infinity where empty."""
    case = {"lse_a": torch.tensor(lse_a).float(), "lse_b": torch.tensor(lse_b).float()}
    for name, out in (("a", out_a), ("b", out_b)):
        outs = torch.tensor(out).float().expand(*case["lse_a"].shape, len(out))
        unread = torch.tensor([NAN, INF] * len(out))[: len(out)]
        case[f"out_{name}"] = outs.where(case[f"lse_{name}"][..., None] > EMPTY, unread) if outs.dim() > 1 else outs
    return {name: case[name] for name in STATE}


def strided(case: Case) -> Case:
    """The same with the outer two dimensions of every output swapped in memory, and room between the rows of a."""
    outs = {name: case[name].transpose(0, 1).contiguous().transpose(0, 1) for name in ("out_a", "out_b")}
    outs["out_a"] = torch.cat([outs["out_a"]] * 2, -1)[..., : outs["out_a"].shape[-1]]
    return {**case, **outs, "lse_b": case["lse_b"].T.contiguous().T}


def any_sets(rng: random.Random) -> Iterator[Case]:
    for _ in range(3):
        rows = [rng.randint(1, 4) for _ in range(rng.randint(1, 3))]
        yield split_case(rng, rows, (rng.randint(1, 20), rng.randint(1, 20)), rng.randint(1, 8), rng.choice([1, 4]))


def any_levels(rng: random.Random) -> Iterator[Case]:
    for _ in range(3):
        level = rng.choice([-1000.0, -500.0, 500.0, 1000.0])
        outs = [[round(rng.gauss(0, 1), 2) for _ in range(3)] for _ in range(2)]
        yield state(level, level + rng.choice([-3.0, 0.0, 0.5, 2.0]), *outs)


def any_empty(rng: random.Random) -> Iterator[Case]:
    rows = rng.randint(4, 8)
    yield state(*([rng.choice([EMPTY, rng.uniform(-3, 3)]) for _ in range(rows)] for _ in range(2)))


prop = partial(Prop, drive=drive, judge=judge, describe=describe)

EXERCISE = Exercise(
    name="merge_attention_states",
    kind="function",
    properties=(
        prop(
            "the states of two sets of positions merge to attention over all of them",
            weight=1.0,
            fixed=[
                state(1, 2),
                state(-2.5, -3),
                split_case(random.Random(1), [1], (6, 4), 2),
                split_case(random.Random(2), [2], (1, 9), 3, spread=3.0),
                strided(split_case(random.Random(3), [3, 2], (5, 5), 4, spread=0.1)),
            ],
            random=any_sets,
        ),
        prop(
            "large scores, positive or negative, do not overflow",
            weight=0.5,
            fixed=[
                state(100, 101),
                state(-200, -200.5),
                state(300, -300),
                state(-300, 300),
                state([100, -200, 0.5, -1000, 90], [101, -201, 0, 1000, -90]),
            ],
            random=any_levels,
        ),
        prop(
            "an empty set (log-sum-exp -inf) changes nothing, and two of them make one: output 0, log-sum-exp -inf",
            weight=0.5,
            fixed=[
                state(0.5, EMPTY, [1, 2], [NAN, INF]),
                state(0.5, EMPTY, [1, 2], [0, 0]),
                state(EMPTY, EMPTY, [0, 0], [0, 0]),
                state(EMPTY, -0.5, [-INF, NAN], [1, 2]),
                state([1, EMPTY, 2, EMPTY, 200, EMPTY], [2, 1, EMPTY, EMPTY, EMPTY, -200]),
            ],
            random=any_empty,
        ),
    ),
)
