"""Values in the words of a check: short, and never alike where they differ."""

from __future__ import annotations

from typing import Any

from torch import Tensor

BOTH = 80  # characters of a value in a sentence


def short(value: Any, length: int = BOTH) -> str:
    """A plain value in few characters, for a judge's sentence."""
    text = words_of(value)
    return text if len(text) <= length else text[: length - 4] + " ..."


def expected_got(expected: Any, got: Any, length: int = BOTH) -> str:
    """`expected ..., got ...`, each cut to the surroundings of the first difference."""
    wanted, came = two_texts(expected, got, length)
    return f"expected {wanted}, got {came}"


def two_texts(expected: Any, got: Any, length: int = BOTH) -> tuple[str, str]:
    """Two plain values in about `length` characters each; the texts of different values differ."""
    if isinstance(expected, float) and isinstance(got, float):
        return two_numbers(expected, got)
    texts = words_of(expected), words_of(got)
    if texts[0] == texts[1]:  # tensors of one shape
        texts = words_of(expected, with_values=True), words_of(got, with_values=True)
    same = 0
    while same < min(map(len, texts)) and texts[0][same] == texts[1][same]:
        same += 1
    start = 0
    if max(map(len, texts)) > length and same > length // 2:
        start = texts[0].find(", ", same - length // 2, same) + 2
        start = start if start > 1 else same - length // 2
    return window(texts[0], start, length), window(texts[1], start, length)


def window(text: str, start: int, length: int) -> str:
    """A piece of a text, with dots where something is left out."""
    piece = text[start:]
    end = piece if len(piece) <= length else piece[: length - 4] + " ..."
    return "... " + end if start else end


def two_numbers(expected: float, got: float, digits: int = 3) -> tuple[str, str]:
    """Two numbers with as many significant digits as it takes to tell them apart, and no fewer than `digits`."""
    if isinstance(expected, int) and isinstance(got, int):
        return str(expected), str(got)
    for count in range(digits, 18):
        texts = f"{expected:.{count}g}", f"{got:.{count}g}"
        if texts[0] != texts[1]:
            return texts
    return repr(expected), repr(got)


def words_of(value: Any, with_values: bool = False) -> str:
    """A plain value in one line; a tensor by dtype and shape."""
    if isinstance(value, Tensor):
        values = f" {value.tolist()}" if with_values else ""
        return f"a {value.dtype} tensor of shape {list(value.shape)}{values}"
    if isinstance(value, list):
        return f"[{', '.join(words_of(item, with_values) for item in value)}]"
    if isinstance(value, dict):
        items = (f"{key!r}: {words_of(item, with_values)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    return repr(value)
