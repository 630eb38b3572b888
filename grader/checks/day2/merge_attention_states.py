"""Checks of `merge_attention_states`, against one softmax over all positions in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.day2.tensors import closeness_problem
from grader.framework import Case, Exercise, Observations, Property, generator, plain, short

STATE = ("out_a", "lse_a", "out_b", "lse_b")


def attend_to_part(scores: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention in float64: output [..., D] and log-sum-exp [...] of scores [..., S] over values [S, D]."""
    lse = scores.double().logsumexp(-1)
    return (scores.double() - lse[..., None]).exp() @ v.double(), lse


def split_case(rng: random.Random, rows: list[int], sizes: tuple[int, int], dim: int, spread: float = 1.0) -> Case:
    """Queries of any shape over two sets of positions, and the state of each set."""
    gen = generator(rng)
    scores = torch.randn(*rows, sum(sizes), generator=gen) * spread
    v = torch.randn(sum(sizes), dim, generator=gen)
    out_a, lse_a = attend_to_part(scores[..., : sizes[0]], v[: sizes[0]])
    out_b, lse_b = attend_to_part(scores[..., sizes[0] :], v[sizes[0] :])
    return {
        "scores": scores,
        "values": v,
        "out_a": out_a.float(),
        "lse_a": lse_a.float(),
        "out_b": out_b.float(),
        "lse_b": lse_b.float(),
    }


def state_case(outs: list[list[float]], lses: list[float]) -> Case:
    """One query's two states, given as numbers."""
    (out_a, out_b), (lse_a, lse_b) = (torch.tensor(out) for out in outs), (torch.tensor(lse) for lse in lses)
    return {"out_a": out_a, "lse_a": lse_a, "out_b": out_b, "lse_b": lse_b}


def state_problem(expected: tuple[Tensor, Tensor], observations: Any, rtol: float = 1e-4) -> str | None:
    """How a merged state differs from the expected one; `rtol` is for the output."""
    if not isinstance(observations, list) or len(observations) != 2:
        return f"it must return two tensors, output and log-sum-exp, got {short(observations)}"
    problem = closeness_problem("the merged output", expected[0], observations[0], rtol=rtol, atol=rtol / 10)
    return problem or closeness_problem("the merged log-sum-exp", expected[1], observations[1], rtol=1e-5, atol=1e-5)


class MergeProperty(Property):
    """Merges two states (see `split_case` and `state_case`)."""

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """The merged state, as it came."""
        return plain(parts.merge_attention_states(*(case[name] for name in STATE)))


class AttentionOverAll(MergeProperty):
    """Positions in two sets of any size, queries of any shape."""

    sentence = "the states of two sets of positions merge to attention over all of them"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One and one, then uneven sets, sharp and flat scores, and the shapes that heads and tokens make."""
        yield split_case(rng, [1], (1, 1), 2)
        yield split_case(rng, [1], (6, 4), 2)
        yield split_case(rng, [2], (1, 9), 3, spread=3.0)
        yield split_case(rng, [3, 2], (5, 5), 4, spread=0.1)
        for _ in range(3):
            rows = [rng.randint(1, 4) for _ in range(rng.randint(1, 3))]
            yield split_case(rng, rows, (rng.randint(1, 20), rng.randint(1, 20)), rng.randint(1, 8), rng.choice([1, 4]))

    def judge(self, case: Case, observations: Observations) -> str | None:
        """One softmax over all positions."""
        return state_problem(attend_to_part(case["scores"], case["values"]), observations)

    def describe(self, case: Case) -> str:
        """The sizes in words; the numbers only where they are few."""
        rows = case["lse_a"].numel()
        positions = case["scores"].shape[-1]
        text = f"{rows} {'query' if rows == 1 else 'queries'} over {positions} positions in two sets"
        if rows > 1:
            return f"{text}, lse_a of shape {list(case['lse_a'].shape)}, out_a of shape {list(case['out_a'].shape)}"
        return f"{text}: " + ", ".join(f"{name}={rounded(case[name])}" for name in STATE)


class LargeScores(MergeProperty):
    """Log-sum-exps far from 0, as long contexts and trained models have them."""

    sentence = "large scores, positive or negative, do not overflow"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Beyond the range of exp in float32 (about 88), in both directions, near each other and far apart."""
        yield state_case([[1.0, 2.0], [3.0, -2.0]], [100.0, 101.0])
        yield state_case([[1.0, 2.0], [3.0, -2.0]], [-200.0, -200.5])
        yield state_case([[1.0, 2.0], [3.0, -2.0]], [300.0, -300.0])
        for _ in range(3):
            level = rng.choice([-1000.0, -500.0, 500.0, 1000.0])
            lses = [level, level + rng.choice([-3.0, 0.0, 0.5, 2.0])]
            yield state_case([[round(rng.gauss(0, 1), 2) for _ in range(3)] for _ in range(2)], lses)

    def judge(self, case: Case, observations: Observations) -> str | None:
        """The same as two positions whose scores are the log-sum-exps."""
        scores = torch.stack([case["lse_a"], case["lse_b"]], -1)
        expected = attend_to_part(scores, torch.stack([case["out_a"], case["out_b"]]))
        return state_problem(expected, observations, rtol=1e-3)  # at 1,000 float32 has four digits after the point


class EmptySets(MergeProperty):
    """A set without positions: log-sum-exp minus infinity."""

    sentence = "an empty set (log-sum-exp -inf) changes nothing, and two of them make one: output 0, log-sum-exp -inf"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Empty at either side, with a NaN for its output, which nobody may read; both; and row by row."""
        nan, empty = float("nan"), float("-inf")
        yield state_case([[1.0, 2.0], [0.0, 0.0]], [0.5, empty])
        yield state_case([[0.0, 0.0], [0.0, 0.0]], [empty, empty])
        yield state_case([[1.0, 2.0], [nan, nan]], [0.5, empty])
        yield state_case([[nan, nan], [1.0, 2.0]], [empty, -0.5])
        rows = rng.randint(4, 6)
        case = split_case(rng, [rows], (3, 2), 2)
        for row in range(rows):
            for side, is_empty in zip("ab", ((row % 4) in (1, 3), (row % 4) in (2, 3)), strict=True):
                if is_empty:
                    case[f"out_{side}"][row] = nan
                    case[f"lse_{side}"][row] = empty
        yield {name: case[name] for name in STATE}

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Row by row: what is there, or nothing."""
        outs, lses = [], []
        shape = case["lse_a"].shape
        for row in range(case["lse_a"].numel()):
            states = [
                (case[f"out_{side}"].reshape(-1, case["out_a"].shape[-1])[row], case[f"lse_{side}"].reshape(-1)[row])
                for side in "ab"
            ]
            there = [(out, lse) for out, lse in states if lse != float("-inf")]
            scores = torch.tensor([float(lse) for _, lse in there], dtype=torch.float64)
            values = torch.stack([out for out, _ in there]) if there else torch.zeros(0, case["out_a"].shape[-1])
            out, lse = attend_to_part(scores, values) if there else (torch.zeros(values.shape[1]), scores.sum().log())
            outs.append(out.double())
            lses.append(lse.double())
        expected = (torch.stack(outs).reshape(case["out_a"].shape), torch.stack(lses).reshape(shape))
        return state_problem(expected, observations)


def rounded(values: Tensor) -> list[float] | float:
    """A tensor's values with three decimals."""
    numbers = [round(value, 3) for value in values.flatten().tolist()]
    return numbers[0] if values.numel() == 1 else numbers


EXERCISE = Exercise(
    name="merge_attention_states",
    kind="function",
    properties=(AttentionOverAll(), LargeScores(), EmptySets()),
)
