"""Rotary position embedding (RoPE, arXiv 2104.09864): a token's position turns its queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_cos_sin(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """What `apply_rotary` multiplies with, made once a step for all layers.

    Pair i of the D/2 pairs turns by `position * theta ** (-2i / D)` radians: the first pairs turn fast and tell
    neighbors apart, the last turn slowly and tell far from near.

    Args:
        positions: [T] integers, each token's place in its own sequence.
        head_dim: D, even.
        theta: the base; a larger one slows every pair but the first.

    Returns:
        cos and sin, each [T, 1, D], float32: the same for all heads. Both channels of a pair, i and i + D/2, hold the
        cosine and the sine of its angle; the sine of the first has a minus.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    inverse_frequencies = 1.0 / theta ** (pairs / head_dim)
    angles = positions[:, None, None].float() * inverse_frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the channel pairs of every head. Channel i is paired with channel i + D/2, as Hugging Face stores them.

    The pair (a, b) becomes (a cos - b sin, b cos + a sin): each channel times cos, and its partner times sin. After it,
    the dot product of a query and a key depends on their distance only, not on where they stand.

    Args:
        x: [T, H, D] queries or keys.
        cos, sin: [T, 1, D] from `rotary_cos_sin`.

    Returns:
        [T, H, D] in the dtype of `x`.
    """
    partners = x.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(x * cos.to(x.dtype), partners, sin.to(x.dtype))
