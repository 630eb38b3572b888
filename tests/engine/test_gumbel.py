"""The noise against SplitMix64 in plain integers, and the draws against the probabilities, jointly and each alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.requests import make_request
from torch import Tensor

from tinyllm.engine.gumbel import CHUNK, gumbel_argmax, gumbel_noise, noise_key, noise_of, random_bits
from tinyllm.engine.sampler import Sampled, sample
from tinyllm.sampling_params import SamplingParams

KEYS = st.integers(-(2**63), 2**63 - 1)


def splitmix64(state: int, count: int) -> list[int]:
    """The first outputs of Steele, Lea and Flood's generator, in Python's own integers."""
    outputs = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        outputs.append(z ^ (z >> 31))
    return outputs


def test_the_oracle_gives_the_published_numbers() -> None:
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.lists(KEYS, min_size=1, max_size=4), st.integers(1, 70))
def test_the_bits_are_those_of_splitmix64(keys: list[int], vocab_size: int) -> None:
    bits = [[value % 2**64 for value in row] for row in random_bits(keys, vocab_size, "cpu").tolist()]
    assert bits == [splitmix64(key, vocab_size) for key in keys]


@given(KEYS, st.integers(1, 70))
def test_the_noise_is_that_of_the_bits(key: int, vocab_size: int) -> None:
    (noise,) = noise_of([key], vocab_size, "cpu").tolist()
    uniform = [((bits >> 12) + 0.5) / 2**52 for bits in splitmix64(key, vocab_size)]
    assert noise == pytest.approx([-math.log(-math.log(u)) for u in uniform], rel=1e-12, abs=1e-12)


def test_the_ends_of_the_uniform_numbers_give_finite_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.tensor([[0, -1, 2**63 - 1, -(2**63)]])
    monkeypatch.setattr("tinyllm.engine.gumbel.random_bits", lambda *_: ends.clone())
    noise = noise_of([0], 4, "cpu")[0]
    assert noise.isfinite().all()
    assert (round(float(noise.min()), 2), round(float(noise.max()), 2)) == (-3.6, 36.74)


def test_each_of_seed_continuation_position_and_token_has_its_own_noise() -> None:
    noise = [gumbel_noise(s, i, p, 5).tolist() for s in range(-2, 8) for i in range(10) for p in range(10)]
    assert len({value for row in noise for value in row}) == 5000
    assert gumbel_noise(1, 2, 3, 5).tolist() == gumbel_noise(1, 2, 3, 9)[:5].tolist(), "whatever the vocabulary's size"
    assert gumbel_noise(2**70, 0, 0, 5).isfinite().all(), "a seed may have any size"


@pytest.mark.parametrize("vocab_size", [1, 7, 30_000, CHUNK + 1])
def test_a_row_does_not_hang_on_the_rows_it_is_drawn_with(vocab_size: int) -> None:
    logits = torch.randn(7, vocab_size, dtype=torch.float64)
    keys = [noise_key(3, i, 0) for i in range(7)]
    together = gumbel_argmax(logits, keys).tolist()
    assert together == [int(gumbel_argmax(logits[i : i + 1], keys[i : i + 1])) for i in range(7)]
    assert together == [int((logits[i] + gumbel_noise(3, i, 0, vocab_size)).argmax()) for i in range(7)]


# ---------------------------------------------------------------- the law of the draws

LOGITS = torch.tensor([0.0, 1.0, -1.0, 0.5], dtype=torch.float64)
V = len(LOGITS)
COUNT = 40_000


def chi_square_p(counts: Counter[tuple[int, int]], probs: Tensor) -> float:
    """How probable so large a distance from `probs`, [n, n], is."""
    expected = probs.flatten() * counts.total()
    observed = torch.tensor([counts[a, b] for a in range(len(probs)) for b in range(len(probs))])
    statistic = ((observed - expected) ** 2 / expected).sum()
    return 1 - float(torch.special.gammainc(torch.tensor((len(expected) - 1) / 2), statistic.cpu() / 2))


def over_positions(i: int) -> int:
    return noise_key(11, 0, i)


def over_seeds(i: int) -> int:
    return noise_key(i, 0, 5)


def over_continuations(i: int) -> int:
    return noise_key(11, i, 5)


@pytest.mark.parametrize("key_of", [over_positions, over_seeds, over_continuations])
@pytest.mark.parametrize("lag", [1, 2, 64])
def test_two_draws_of_neighboring_keys_are_independent(key_of: Callable[[int], int], lag: int) -> None:
    tokens = gumbel_argmax(LOGITS.expand(COUNT + lag, V), [key_of(i) for i in range(COUNT + lag)]).tolist()
    pairs = Counter(zip(tokens, tokens[lag:], strict=False))
    p = LOGITS.softmax(0)
    assert chi_square_p(pairs, torch.outer(p, p)) > 1e-4


@pytest.mark.parametrize("lag", [1, 2, 512])
def test_the_noise_of_neighboring_tokens_is_independent(lag: int) -> None:
    """Eight equally probable classes for each of two token ids, over many keys."""
    noise = noise_of([noise_key(5, 0, i) for i in range(COUNT // 10)], 10 + lag, "cpu")
    classes = (torch.exp(-torch.exp(-noise)) * 8).long()  # the distribution function of the noise makes it uniform
    pairs = Counter(zip(classes[:, :10].flatten().tolist(), classes[:, lag : 10 + lag].flatten().tolist(), strict=True))
    assert chi_square_p(pairs, torch.full((8, 8), 1 / 64)) > 1e-4


def test_many_tokens_are_drawn_by_their_probabilities() -> None:
    logits = torch.linspace(0, 3, 50, dtype=torch.float64)
    tokens = gumbel_argmax(logits.expand(COUNT, 50), [noise_key(1, 0, i) for i in range(COUNT)])
    expected = logits.softmax(0) * COUNT
    statistic = ((tokens.bincount(minlength=50) - expected) ** 2 / expected).sum()
    assert 1 - float(torch.special.gammainc(torch.tensor(24.5), statistic.float() / 2)) > 1e-4


def inverse_cdf(logits: Tensor, draws: Tensor) -> Tensor:
    """The other way to draw: the first token, in id order, at which the sum of the probabilities passes the draw."""
    cdf = logits.softmax(dim=1).cumsum(dim=1)
    return (cdf > draws[:, None] * cdf[:, -1:]).byte().argmax(dim=1)


def test_rounding_changes_a_token_only_at_a_near_tie() -> None:
    """10,000 draws from 2,048 logits in float32 and from the same ones some roundings away.

    By inverse CDF each token's borders move with the sum before it, so that some seventy tokens change; here one may.
    """
    generator = torch.Generator().manual_seed(0)
    changed = changed_by_cdf = 0
    for block in range(10):
        logits = torch.randn(1000, 2048, generator=generator) * 3
        rounded = logits + 1e-5 * torch.randn(logits.shape, generator=generator) * logits.abs()
        keys = [noise_key(block, 0, i) for i in range(1000)]
        uniform = torch.rand(1000, generator=generator, dtype=torch.float64)
        one, other = logits.double(), rounded.double()
        changed += int((gumbel_argmax(one, keys) != gumbel_argmax(other, keys)).sum())
        changed_by_cdf += int((inverse_cdf(one, uniform) != inverse_cdf(other, uniform)).sum())
    assert changed <= 5
    assert changed_by_cdf > 25, "the comparison would say nothing"


def test_a_continuation_s_noise_is_that_of_its_index() -> None:
    params = SamplingParams(temperature=1.0, seed=1)
    requests = [replace(make_request(params), index=i) for i in range(50)]
    logits = torch.zeros(50, 20)
    tokens = [result.token_id for result in sample(logits, requests) if isinstance(result, Sampled)]
    assert tokens == [int(gumbel_noise(1, i, 0, 20).argmax()) for i in range(50)]
