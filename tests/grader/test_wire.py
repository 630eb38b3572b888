"""Data survives the wire as it is; what is no data is refused."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grader.running import Ending, Report
from grader.running.copies import same
from grader.running.wire import (
    DTYPES,
    MAX_MESSAGE_BYTES,
    TENSOR,
    SilenceError,
    WireError,
    decode,
    decode_report,
    encode,
    encode_report,
    receive,
    send,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just(TENSOR), inner, max_size=3),
    max_leaves=10,
)


@given(JSON_VALUES)
def test_plain_data_survives(value: Any) -> None:
    assert same(value, decode(json.loads(json.dumps(encode(value)))))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: torch.arange(24).to(dtype).view(4, 6)[1::2, ::3],
        lambda dtype: torch.arange(6).to(dtype).view(2, 3).t(),
        lambda dtype: torch.ones(3).to(dtype).expand(2, 3),
        lambda dtype: torch.tensor(1).to(dtype),
        lambda dtype: torch.empty(0, 3, dtype=dtype),
    ],
    ids=["sliced", "transposed", "expanded", "scalar", "empty"],
)
def test_tensors_survive_with_their_strides(make: Any, dtype: torch.dtype) -> None:
    value = make(dtype)
    copy = decode(json.loads(json.dumps(encode({"k": value}))))["k"]
    assert copy.dtype == dtype
    assert copy.stride() == value.stride()
    assert same(value, copy)


@pytest.mark.parametrize(
    "change",
    [
        {TENSOR: "object"},
        {"shape": [4]},
        {"shape": [-2]},
        {"shape": [2**50]},
        {"shape": "2"},
        {"shape": [True]},
        {"stride": [0, 1]},
        {"stride": None},
        {"data": ""},
        {"data": 3},
        {"data": "not base64!"},
        {"shape": [2**30], "stride": [0], "data": encode(torch.zeros(1))["data"]},  # small on the wire, 4 GiB in use
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_together_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode({**encode(torch.zeros(2)), **change})


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"ending": "right"},
        {"ending": ["observed"]},
        {"ending": "observed", "message": 3},
        {"ending": "observed", "changed": "values"},
        {"ending": "observed", "changed": [None]},
        {"ending": "observed", "observations": {"__dict__": 3}},
    ],
    ids=str,
)
def test_reports_that_are_none_are_refused(data: Any) -> None:
    with pytest.raises(WireError):
        decode_report(data)


def test_reports_survive_and_their_words_are_cut() -> None:
    report = Report(Ending.OBSERVED, [1, {"a": 2.0}], "message", "Error", ("values",), "printed")
    assert decode_report(json.loads(json.dumps(encode_report(report)))) == report
    assert len(decode_report({"ending": "crashed", "message": "x" * 10**6}).message) == 2000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_messages(ends: tuple[socket.socket, socket.socket]) -> None:
    send(ends[0], {"case": [1, 2]}, 1)
    send(ends[0], {"case": []}, 1)
    assert [receive(ends[1], 1), receive(ends[1], 1)] == [{"case": [1, 2]}, {"case": []}]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (struct.pack(">I", MAX_MESSAGE_BYTES + 1), "larger"),
        (struct.pack(">I", 3) + b"{]}", "no JSON"),
        (struct.pack(">I", 2) + b"[]", "no JSON object"),
        (struct.pack(">I", 100_000) + b"[" * 100_000, "no JSON"),
        (struct.pack(">I", 10) + b"{", "has ended"),
        (b"", "has ended"),
    ],
)
def test_what_is_no_message(ends: tuple[socket.socket, socket.socket], data: bytes, words: str) -> None:
    ends[0].sendall(data)
    ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(WireError, match=words):
        receive(ends[1], 5)


def test_silence_ends_and_drips_do_not_prolong_it(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(SilenceError):
        receive(ends[1], 0.05)
    ends[0].sendall(struct.pack(">I", 1000) + b"x")
    began = time.monotonic()
    with pytest.raises(SilenceError):
        receive(ends[1], 0.05)
    assert time.monotonic() >= began + 0.05


def test_what_cannot_be_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(WireError, match="JSON"):
        send(ends[0], {"observations": 10**5000}, 1)
    with pytest.raises(WireError, match="larger"):
        send(ends[0], {"observations": "x" * MAX_MESSAGE_BYTES}, 1)
