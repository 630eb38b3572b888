"""Messages between the judge and the process that runs a learner's code: length-prefixed JSON, tensors as bytes.

Nothing that arrives is executed or trusted: there is no pickle, sizes are capped, and every tensor is rebuilt from a
checked dtype, shape and stride.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import time
from math import prod
from typing import Any

import torch
from torch import Tensor

from grader.framework.observe import MAX_TENSOR_BYTES
from grader.running.report import Ending, Report

MAX_MESSAGE_BYTES = 2 * MAX_TENSOR_BYTES
MAX_TEXT = 2000  # characters of a message or of printed output in a report

TENSOR, ESCAPED = "__tensor__", "__dict__"
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
    )
}


class WireError(Exception):
    """What arrived is no message, or nothing arrived in time."""


class SilenceError(WireError):
    """Nothing, or not all, arrived in time."""


# ---------------------------------------------------------------- data


def encode(value: Any) -> Any:
    """Plain data with tensors as JSON."""
    if isinstance(value, Tensor):
        size = extent(value.shape, value.stride())
        data = value.as_strided((size,), (1,)).view(torch.uint8).numpy().tobytes() if size else b""
        return {
            TENSOR: str(value.dtype).removeprefix("torch."),
            "shape": list(value.shape),
            "stride": list(value.stride()),
            "data": base64.b64encode(data).decode("ascii"),
        }
    if isinstance(value, dict):
        encoded = {key: encode(item) for key, item in value.items()}
        return {ESCAPED: encoded} if TENSOR in value or ESCAPED in value else encoded
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode(value: Any) -> Any:
    """The plain data and tensors that `encode` was given (tuples come back as lists).

    Raises:
        WireError: a tensor whose parts do not fit together, or that is too large.
    """
    if isinstance(value, dict):
        if TENSOR in value:
            return decode_tensor(value)
        value = value.get(ESCAPED, value)
        if not isinstance(value, dict):
            raise WireError("an escaped value is no dict")
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def decode_tensor(value: dict[str, Any]) -> Tensor:
    """A tensor from its dtype, shape, stride and bytes."""
    dtype = DTYPES.get(str(value[TENSOR]))
    shape, stride, text = value.get("shape"), value.get("stride"), value.get("data")
    if dtype is None or not is_sizes(shape) or not is_sizes(stride) or not isinstance(text, str):
        raise WireError("a tensor lacks dtype, shape, stride or data")
    assert isinstance(shape, list)
    assert isinstance(stride, list)
    size = extent(shape, stride)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise WireError("a tensor's data is no base64") from None
    if (
        len(shape) != len(stride)
        or len(data) != size * dtype.itemsize
        or prod(shape) * dtype.itemsize > MAX_TENSOR_BYTES
    ):
        raise WireError("a tensor's shape, stride and bytes do not fit together")
    if not size:
        return torch.empty(shape, dtype=dtype)
    if dtype is torch.bool:  # any byte but 0 and 1 is undefined
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8) != 0
    else:
        flat = torch.frombuffer(bytearray(data), dtype=dtype)
    return flat.as_strided(shape, stride)


def is_sizes(value: Any) -> bool:
    """Whether a value is a list of sizes or strides."""
    return isinstance(value, list) and len(value) <= 16 and all(type(n) is int and 0 <= n < 2**40 for n in value)


def extent(shape: Any, stride: Any) -> int:
    """How many elements of memory a strided tensor spans."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=False))


# ---------------------------------------------------------------- reports


def encode_report(report: Report) -> dict[str, Any]:
    """A driver's report as JSON."""
    return {
        "ending": str(report.ending),
        "observations": encode(report.observations),
        "message": report.message[:MAX_TEXT],
        "error": report.error[:MAX_TEXT],
        "changed": list(report.changed),
        "printed": report.printed[:MAX_TEXT],
    }


def decode_report(data: Any) -> Report:
    """A report from a process that is not trusted.

    Raises:
        WireError: it is no report.
    """
    if not isinstance(data, dict) or data.get("ending") not in list(Ending):
        raise WireError("a report without a known ending")
    texts = [data.get(name, "") for name in ("message", "error", "printed")]
    changed = data.get("changed", [])
    if not isinstance(changed, list) or not all(isinstance(text, str) for text in [*texts, *changed]):
        raise WireError("a report whose words are no text")
    message, error, printed = (text[:MAX_TEXT] for text in texts)
    names = tuple(name[:40] for name in changed[:8])
    return Report(Ending(data["ending"]), decode(data.get("observations")), message, error, names, printed)


# ---------------------------------------------------------------- messages


def send(connection: socket.socket, message: dict[str, Any], seconds: float) -> None:
    """Send one message.

    Raises:
        WireError: it is too large or no JSON, or the other side does not take it in time.
    """
    try:
        data = json.dumps(message).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"a message cannot be written as JSON: {error}") from None
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"a message of {len(data):,} bytes is larger than {MAX_MESSAGE_BYTES:,}")
    try:
        connection.settimeout(seconds)
        connection.sendall(struct.pack(">I", len(data)) + data)
    except OSError as error:
        raise WireError(f"the other side does not listen: {error}") from None


def receive(connection: socket.socket, seconds: float) -> dict[str, Any]:
    """The next message.

    Raises:
        SilenceError: it has not come, whole, after `seconds`.
        WireError: the connection has ended, or this is no message.
    """
    deadline = time.monotonic() + seconds
    (size,) = struct.unpack(">I", receive_bytes(connection, 4, deadline))
    if size > MAX_MESSAGE_BYTES:
        raise WireError(f"a message of {size:,} bytes is larger than {MAX_MESSAGE_BYTES:,}")
    try:
        message = json.loads(receive_bytes(connection, size, deadline))
    except (ValueError, RecursionError):
        raise WireError("a message is no JSON") from None
    if not isinstance(message, dict):
        raise WireError("a message is no JSON object")
    return message


def receive_bytes(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly `size` bytes, before the deadline (of time.monotonic)."""
    data = bytearray()
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise SilenceError("nothing came in time")
        try:
            connection.settimeout(left)
            piece = connection.recv(min(size - len(data), 1 << 20))
        except TimeoutError:
            raise SilenceError("nothing came in time") from None
        except OSError as error:
            raise WireError(f"the connection broke: {error}") from None
        if not piece:
            raise WireError("the connection has ended")
        data += piece
    return bytes(data)
