"""Draws without state: the likeliest token once each token's log-probability has its own Gumbel noise.

With independent Gumbel noise G the largest of log p + G is token i with probability p_i (the Gumbel-max trick). Here
the noise is a hash of seed, continuation, output position and token id. So it is the same whatever runs beside the
request, however often the request is preempted, and for any model over the same vocabulary: a draft and its target that
share the noise of a position mostly agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

#: On a CPU, rows are drawn a few at a time: those whose noise stays in the cache.
CHUNK = 2**16

# SplitMix64's step and its two multipliers, as the signed numbers that have these 64 bits.
STEP, FIRST, SECOND = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def gumbel_noise(seed: int, index: int, position: int, vocab_size: int, device: torch.device | str = "cpu") -> Tensor:
    """The noise of each token id at one output position of one continuation.

    Args:
        seed: the request's.
        index: which continuation of its prompt.
        position: how many tokens its output has so far.

    Returns:
        [V] float64, between -3.7 and 36.8. The bits before the logarithms are the same on every device.
    """
    return noise_of([noise_key(seed, index, position)], vocab_size, device)[0]


def gumbel_argmax(logits: Tensor, keys: Sequence[int]) -> Tensor:
    """The token of each row at which logit plus noise is largest: a draw from the row's softmax.

    Args:
        logits: [n, V] float64, -inf where filtered out, finite somewhere in each row.
        keys: the `noise_key` of each row.

    Returns:
        [n] int64. A token at -inf is never taken.
    """
    num_rows, vocab_size = logits.shape
    step = num_rows if logits.is_cuda else max(1, CHUNK // vocab_size)
    tokens = []
    for start in range(0, num_rows, step):
        scores = noise_of(keys[start : start + step], vocab_size, logits.device)
        scores += logits[start : start + step]
        tokens.append(scores.max(dim=1).indices)
    return torch.cat(tokens)


def noise_key(seed: int, index: int, position: int) -> int:
    """The state, a signed number of 64 bits, from which the noise of one output position is made."""
    digest = hashlib.blake2b(f"{seed}:{index}:{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def noise_of(keys: Sequence[int], vocab_size: int, device: torch.device | str) -> Tensor:
    """The noise for each of `keys`, [n, V] float64."""
    uniform = random_bits(keys, vocab_size, device).bitwise_right_shift_(12).bitwise_and_(2**52 - 1).double()
    uniform.add_(0.5).mul_(2**-52)  # the middle of one of 2^52 equal parts of (0, 1): never 0, never 1, never rounded
    return uniform.log_().neg_().log_().neg_()


def random_bits(keys: Sequence[int], vocab_size: int, device: torch.device | str) -> Tensor:
    """64 random bits for each of `keys` and each token id, [n, V] int64.

    A row is what the generator SplitMix64 puts out from the state `key`. Its sums and products are taken modulo 2^64,
    and so are torch's of int64.
    """
    counts = torch.arange(1, vocab_size + 1, device=device).mul_(STEP)
    bits = torch.tensor(keys, dtype=torch.int64, device=device)[:, None] + counts
    shifted = torch.empty_like(bits)
    for shift, multiplier in ((30, FIRST), (27, SECOND), (31, None)):
        torch.bitwise_right_shift(bits, shift, out=shifted)
        bits ^= shifted.bitwise_and_(2 ** (64 - shift) - 1)  # without the copies of the sign that came in from the left
        if multiplier is not None:
            bits *= multiplier
    return bits
