"""Rotary position embedding (RoPE, arXiv 2104.09864): a token's position turns its queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_cos_sin(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle by which each position turns each pair of channels.

    Pair i of the D/2 pairs turns by `position * theta ** (-2i / D)` radians: the first pairs turn fast and tell
    neighbours apart, the last turn slowly and tell far from near.

    Args:
        positions: [T] integers, each token's place in its own sequence.
        head_dim: D, even.
        theta: the base; a larger one slows every pair but the first.

    Returns:
        cos and sin, each [T, D / 2], float32.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    inverse_frequencies = 1.0 / theta ** (pairs / head_dim)
    angles = positions[:, None].float() * inverse_frequencies
    return angles.cos(), angles.sin()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the channel pairs of every head. Channel i is paired with channel i + D/2, as Hugging Face stores them.

    After it, the dot product of a query and a key depends on their distance only, not on where they stand.

    Args:
        x: [T, H, D] queries or keys.
        cos, sin: [T, D / 2] from `rotary_cos_sin`.

    Returns:
        [T, H, D] in the dtype of `x`.
    """
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)  # one angle for all heads
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
