"""The filters against the logits warpers of transformers, over ties, -inf, and settings at the edge of sense."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tinyllm.engine.filters import apply_temperature, keep_min_p, keep_top_k_top_p

#: Few different values, so that there are many ties.
VALUES = st.integers(-9, 9).map(lambda n: n / 3) | st.just(-math.inf)
ROWS = (
    st.integers(1, 20)
    .flatmap(lambda width: st.lists(st.lists(VALUES, min_size=width, max_size=width), min_size=1, max_size=4))
    .filter(lambda rows: all(max(row) > -math.inf for row in rows))
)
TOP_P = st.floats(1e-12, 1.0) | st.sampled_from([1e-300, 0.5, 1.0])


def batch(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def column(value: float, rows: Tensor) -> Tensor:
    return torch.full((len(rows), 1), value, dtype=torch.float64)


def kept_values(logits: Tensor) -> list[float]:
    """The logits that are left in a row, highest first."""
    return sorted((value for value in logits.tolist() if value > -math.inf), reverse=True)


@given(ROWS, st.integers(1, 25))
def test_top_k(rows: list[list[float]], k: int) -> None:
    logits = batch(rows)
    width = logits.shape[1]
    ours = keep_top_k_top_p(logits, torch.full((len(rows), 1), min(k, width)), column(1.0, logits))
    theirs = TopKLogitsWarper(k)(None, logits)
    for row, our_row, their_row in zip(logits, ours, theirs, strict=True):
        # transformers keeps all tokens that tie with the k-th; here exactly k stay, those of lower id
        assert kept_values(our_row) == kept_values(their_row)[:k]
        order = row.argsort(descending=True, stable=True)[:k]
        assert torch.equal(our_row[order], row[order])


@given(ROWS, st.integers(1, 25), TOP_P)
def test_top_p_after_top_k(rows: list[list[float]], k: int, p: float) -> None:
    logits = batch(rows)
    width = logits.shape[1]
    ours = keep_top_k_top_p(logits, torch.full((len(rows), 1), min(k, width)), column(p, logits))
    without_p = keep_top_k_top_p(logits, torch.full((len(rows), 1), min(k, width)), column(1.0, logits))
    theirs = TopPLogitsWarper(p)(None, without_p)
    for our_row, top_k_row, their_row in zip(ours, without_p, theirs, strict=True):
        mine, other = kept_values(our_row), kept_values(their_row)
        if len(mine) != len(other):  # only where the sum meets p but for rounding
            mass = top_k_row.softmax(0).sort(descending=True).values.cumsum(0)
            assert abs(float(mass[min(len(mine), len(other)) - 1]) - p) < 1e-12
        assert mine[: len(other)] == other[: len(mine)]
        assert mine, "at least one token always stays"
        assert mine[0] == float(top_k_row.max())


@given(ROWS, st.floats(0, 1))
def test_min_p(rows: list[list[float]], p: float) -> None:
    logits = batch(rows)
    ours = keep_min_p(logits, column(p, logits))
    theirs = MinPLogitsWarper(p)(None, logits)
    probs = logits.softmax(1)
    border = (probs - p * probs.amax(1, keepdim=True)).abs() < 1e-12  # equal but for rounding
    assert torch.equal(ours[~border], theirs[~border])
    assert (ours.amax(1) == logits.amax(1)).all()


@given(ROWS, st.floats(1e-3, 1e3))
def test_temperature(rows: list[list[float]], temperature: float) -> None:
    logits = batch(rows)
    ours = apply_temperature(logits, column(temperature, logits)).softmax(1)
    theirs = TemperatureLogitsWarper(temperature)(None, logits).softmax(1)
    torch.testing.assert_close(ours, theirs)
