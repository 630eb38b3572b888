"""Checks of `paged_attention`, against attention by definition: one query and one head at a time, in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from grader.checks.day2.tensors import closeness_problem
from grader.checks.support import shuffled
from grader.framework import Case, Exercise, Observations, Property, generator, plain, tensor_problem

Lengths = Sequence[tuple[int, int]]  # of each sequence: tokens in the pool, and how many of them are new


def batch(
    rng: random.Random,
    lengths: Lengths,
    block_size: int,
    heads: tuple[int, int] = (1, 1),
    head_dim: int = 4,
    scale: float = 1.0,
    strided: bool = False,
) -> Case:
    """Sequences in a pool whose blocks lie in any order and whose other slots hold other requests' tokens.

    Args:
        heads: Hq and Hkv.
        scale: how large the queries are, and with them the scores.
        strided: q, K and V are slices of larger tensors.
    """
    gen = generator(rng)
    num_blocks = [-(-context_len // block_size) for context_len, _ in lengths]
    order = shuffled(rng, sum(num_blocks) + 2)
    tables = torch.zeros(len(lengths), max(num_blocks) + 1, dtype=torch.int32)
    for row, count in enumerate(num_blocks):
        tables[row, :count] = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32)
    num_slots = (sum(num_blocks) + 2) * block_size
    q = torch.randn(sum(new for _, new in lengths), heads[0], head_dim, generator=gen) * scale
    kv = torch.randn(num_slots, 2, heads[1], head_dim, generator=gen)
    if strided:
        q = q.transpose(0, 1).contiguous().transpose(0, 1)
    starts = [0]
    for _, new in lengths:
        starts.append(starts[-1] + new)
    return {
        "q": q,
        "k_cache": kv[:, 0] if strided else kv[:, 0].contiguous(),
        "v_cache": kv[:, 1] if strided else kv[:, 1].contiguous(),
        "block_tables": tables,
        "context_lens": torch.tensor([context_len for context_len, _ in lengths], dtype=torch.int32),
        "query_start_loc": torch.tensor(starts, dtype=torch.int32),
        "block_size": block_size,
    }


def attention_by_definition(case: Case) -> Tensor:
    """[T, Hq, D] float64: every query of every head by itself."""
    q, size = case["q"].double(), case["block_size"]
    group = q.shape[1] // case["k_cache"].shape[1]
    out = torch.zeros_like(q)
    starts = case["query_start_loc"].tolist()
    for row, context_len in enumerate(case["context_lens"].tolist()):
        table = case["block_tables"][row].tolist()
        slots = [table[position // size] * size + position % size for position in range(context_len)]
        for t in range(starts[row], starts[row + 1]):
            visible = slots[: context_len - (starts[row + 1] - 1 - t)]
            for head in range(q.shape[1]):
                keys, values = (case[name][visible, head // group].double() for name in ("k_cache", "v_cache"))
                scores = keys @ q[t, head] / q.shape[2] ** 0.5
                weights = (scores - scores.max()).exp()
                out[t, head] = weights @ values / weights.sum()
    return out


class AttentionProperty(Property):
    """Attends in one batch (see `batch`)."""

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Arguments by position, as the engine gives them."""
        return plain(parts.paged_attention(*case.values()))

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Held against the definition, within the rounding of float32."""
        expected = attention_by_definition(case)
        problem = closeness_problem("the output ([T, Hq, D])", expected, observations, rtol=1e-3, atol=1e-4)
        if problem or observations.dtype is case["q"].dtype:
            return problem
        return tensor_problem("the output", expected.to(case["q"].dtype), observations)

    def describe(self, case: Case) -> str:
        """Lengths and sizes in words."""
        new = case["query_start_loc"].diff().tolist()
        sequences = [
            f"{context_len} tokens, the last {count} of them new" if context_len > 1 else "1 token, which is new"
            for context_len, count in zip(case["context_lens"].tolist(), new, strict=True)
        ]
        (_, num_heads, head_dim), num_kv_heads = case["q"].shape, case["k_cache"].shape[1]
        table = f", block_tables={case['block_tables'].tolist()}" if case["block_tables"].numel() <= 12 else ""
        strides = "" if case["q"].is_contiguous() else ", tensors with gaps between their rows"
        return (
            f"{'; '.join(sequences)}: P={case['block_size']}, Hq={num_heads}, Hkv={num_kv_heads}, D={head_dim}"
            f"{table}{strides}"
        )


class OneNewToken(AttentionProperty):
    """Decoding: a single query per sequence, one head."""

    sentence = "one new token looks at all tokens of its sequence, wherever their blocks lie"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """A token alone, full and partly filled last blocks, blocks of 1, 3, 4 and 16 slots."""
        yield batch(rng, [(1, 1)], 2)
        yield batch(rng, [(3, 1)], 2)
        yield batch(rng, [(10, 1)], 4)
        for block_size in (1, 3, 16):
            yield batch(rng, [(rng.randint(block_size + 1, 3 * block_size + 2), 1)], block_size)


class CausalChunk(AttentionProperty):
    """Prefill: several queries, with and without a context before them."""

    sentence = "a chunk of new tokens is causal, and stands at the end of the context"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """A whole prompt, then chunks after a context, whose first query sees that context and itself."""
        yield batch(rng, [(2, 2)], 2)
        yield batch(rng, [(3, 2)], 2)
        yield batch(rng, [(10, 10)], 4)
        yield batch(rng, [(10, 4)], 4)
        for block_size in (1, 3, 16):
            context_len = rng.randint(block_size + 2, 3 * block_size + 4)
            yield batch(rng, [(context_len, rng.randint(2, context_len - 1))], block_size)


class GroupedHeads(AttentionProperty):
    """Several heads, some or all of which share a KV head."""

    sentence = "query head h reads KV head h // (Hq / Hkv)"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """No sharing, all share one, and groups of two and three, in decode and prefill."""
        yield batch(rng, [(3, 1)], 2, heads=(2, 2))
        yield batch(rng, [(3, 1)], 2, heads=(2, 1))
        yield batch(rng, [(3, 1)], 2, heads=(4, 2))
        yield batch(rng, [(5, 2)], 4, heads=(6, 2))
        yield batch(rng, [(rng.randint(4, 12), 3)], 3, heads=rng.choice([(6, 3), (8, 2)]), head_dim=rng.randint(1, 6))


class SideBySide(AttentionProperty):
    """Decodes and chunks in one flattened batch."""

    sentence = "sequences of any lengths go side by side in one batch"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Two and more sequences, tables padded with block 0, tensors that are not contiguous."""
        yield batch(rng, [(2, 1), (1, 1)], 2)
        yield batch(rng, [(5, 3), (2, 1), (4, 4)], 2)
        for block_size in (1, 3, 16):
            lengths = [(n, rng.choice([1, 1, rng.randint(1, n)])) for n in rng.choices(range(1, 40), k=5)]
            yield batch(rng, lengths, block_size, heads=(4, 2), head_dim=rng.randint(2, 8), strided=True)


class LargeScores(AttentionProperty):
    """Queries so large that the scores leave the range of exp."""

    sentence = "large scores do not overflow"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Scores of some hundreds; exp in float32 ends at about 88."""
        yield batch(rng, [(3, 1)], 2, scale=400.0)
        yield batch(rng, [(10, 4)], 4, scale=400.0)
        yield batch(rng, [(rng.randint(5, 30), 3)], 3, heads=(2, 1), scale=1000.0)


EXERCISE = Exercise(
    name="paged_attention",
    kind="function",
    properties=(OneNewToken(), CausalChunk(), GroupedHeads(), SideBySide(), LargeScores()),
    twins=(
        "tinyllm.kernels.reference:paged_attention",
        "tinyllm.kernels.paged_decode:launch_paged_decode",
        "tinyllm.kernels.paged_decode_split:launch_paged_decode_split",
        "tinyllm.kernels.paged_prefill:launch_paged_prefill",
    ),
)
