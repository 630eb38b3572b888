"""Addresses of kernels are held against the numbers of the tensors that they were given, no more and no less."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels.interpreted import run_interpreted

from grader.running.kernel_access import region_of


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """Views of a buffer in any order of dimensions, with steps, with room between rows, some expanded."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    tensor = torch.zeros(shape, dtype=draw(st.sampled_from([torch.float32, torch.float16, torch.int64])))
    tensor = tensor.permute(draw(st.permutations(range(len(shape)))))
    index = tuple(slice(draw(st.integers(0, size - 1)), None, draw(st.integers(1, 2))) for size in tensor.shape)
    tensor = tensor[index]
    return tensor.unsqueeze(0).expand(2, *tensor.shape) if draw(st.booleans()) else tensor


@given(views())
def test_a_region_is_every_byte_of_a_tensors_numbers_and_no_other(tensor: torch.Tensor) -> None:
    region = region_of("x", tensor)
    assert region is not None
    itemsize, first = tensor.element_size(), tensor.data_ptr()
    offsets = [0]
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        offsets = [offset + index * stride for offset in offsets for index in range(size)]
    own = {first + offset * itemsize + byte for offset in offsets for byte in range(itemsize)}
    around = np.arange(first - 64, first + 1024)
    found, there = region.find(around)
    assert set(around[found].tolist()) == own
    assert (there[found] == around[found]).all()


def test_rows_that_overlap_are_one_piece() -> None:
    region = region_of("x", torch.zeros(9).as_strided((3, 4), (2, 1)))
    assert region is not None
    assert region.find(np.arange(region.start - 4, region.start + 40))[0].sum() == 8 * 4


def test_an_empty_tensor_has_no_region() -> None:
    assert region_of("x", torch.zeros(0, 3)) is None


@pytest.fixture(scope="module")
def seen() -> Any:
    done = run_interpreted("tests/grader/accesses.py")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


READS = "OutsideRead: program (0, 0, 0) reads a number outside of the tensors that the launch was given"
WRITES = "OutsideWrite: program (0, 0, 0) writes a number outside of the tensors that the launch was given"
BEHIND = "is 1 behind the last of the tensor at"


@pytest.mark.needs("triton")
@pytest.mark.parametrize(
    ("launch", "words"),
    [
        ("no mask", f"{READS}: it {BEHIND} `x_ptr`, [3]"),
        ("before", "reads 2 numbers outside of the tensors that the launch was given: the first is 2 before the first"),
        ("far", "reads 2 numbers outside of the tensors that the launch was given, far from all of them"),
        ("written", f"{WRITES}: it {BEHIND} `out_ptr`, [2]"),
        ("between rows", f"{READS}: it is in the room between the rows of the tensor at `x_ptr`, [6]"),
        ("atomic", f"{WRITES}: it {BEHIND} `out_ptr`"),
        ("compare and swap", f"{WRITES}: it {BEHIND} `out_ptr`"),
        ("block unchecked", f"{READS}: it {BEHIND} `x_ptr`"),
        ("not this entry", "it is 1 behind the last of what it may use of the tensor at `x_ptr`, [3]"),
        ("overflow", "program (2, 0, 0) reads a number outside of the tensors that the launch was given, far from"),
    ],
)
def test_what_is_outside_is_told_in_words(seen: Any, launch: str, words: str) -> None:
    assert words in seen["told"][launch]


@pytest.mark.needs("triton")
@pytest.mark.parametrize(
    "launch",
    [
        "within",
        "two masks",
        "all masked",
        "strided",
        "another tensor",
        "block",
        "far rows",
        "far pool",
        "rules are over",
    ],
)
def test_what_is_inside_is_let_through(seen: Any, launch: str) -> None:
    assert seen["told"][launch] == ""


@pytest.mark.needs("triton")
def test_what_is_done_with_a_spread_tensor_is_done_with_its_content(seen: Any) -> None:
    assert seen["far_out"] == seen["x"] == [3, 4, 5]
    assert [row[1][0] for row in seen["pool"]] == [0, 0, 0, 3]


@pytest.mark.needs("triton")
def test_the_faster_interpreter_computes_the_same_and_leaves_the_language_as_it_was(seen: Any) -> None:
    assert seen["totals"] == [[24, 24], [24, 24]]  # the sum of x, and its largest running sum, in every program
    assert seen["told"]["total"] == seen["told"]["replaced"] == ""
