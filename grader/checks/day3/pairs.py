"""What the checks of the router and of the dispatch share: tensors and ids to draw, and the reading of answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grader.framework import short

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def drawn(shape: Sequence[int], seed: int, dtype: str = "float32", spread: float = 1.0) -> Tensor:
    """Random numbers from -spread to spread, to the last bit the same on every CPU; those of `torch.randn` are not."""
    numbers = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return ((2 * numbers - 1) * spread).to(DTYPES[dtype])


def strided(values: Tensor) -> Tensor:
    """The same values, column by column in memory and with room between them."""
    return torch.stack([values.T, values.T], dim=-1).contiguous()[..., 0].T


def with_nan(values: Tensor, *rows: int) -> Tensor:
    """A copy with these rows NaN."""
    return values.index_fill(0, torch.tensor(rows), float("nan"))


def drawn_ids(rng: random.Random, num_tokens: int, top_k: int, num_experts: int) -> list[list[int]]:
    """K different experts for each of T tokens."""
    return [rng.sample(range(num_experts), top_k) for _ in range(num_tokens)]


def tensors_problem(answer: Any, names: Sequence[str]) -> str | None:
    """Whether a plain answer is not a tensor for each of these names."""
    if isinstance(answer, list) and len(answer) == len(names) and all(isinstance(item, Tensor) for item in answer):
        return None
    return f"it must return {len(names)} tensors ({', '.join(names)}), got {short(answer)}"


def form_problem(name: str, got: Any, shape: Sequence[int], *dtypes: torch.dtype) -> str | None:
    """What is wrong with shape or dtype of a tensor, of which any of `dtypes` will do."""
    if not isinstance(got, Tensor):
        return f"{name} should be a tensor of shape {list(shape)}, got {short(got)}"
    if list(got.shape) != list(shape):
        return f"{name} should have shape {list(shape)}, got {list(got.shape)}"
    if got.dtype not in dtypes:
        return f"{name} should be {' or '.join(map(str, dtypes))}, got {got.dtype}"
    return None


def ids_problem(name: str, got: Any, shape: Sequence[int]) -> str | None:
    """The same of ids or counts, which are int64 or int32."""
    return form_problem(name, got, shape, torch.int64, torch.int32)
