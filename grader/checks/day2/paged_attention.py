"""Checks of `paged_attention`, against attention by definition: one query and one head at a time, in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from grader.checks.closeness import closeness_problem
from grader.checks.support import shuffled
from grader.framework import Case, Exercise, Observations, Prop, generator, plain

NO_BLOCK = 1000  # more than any pool here has


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Arguments by position, as the engine gives them."""
    return plain(parts.paged_attention(*case.values()))


def judge(case: Case, observations: Observations) -> str | None:
    """Held against the definition, within the rounding of the scores to the dtype."""
    q, expected = case["q"], attention_by_definition(case)
    highest = float(q.abs().max() * case["k_cache"].abs().nan_to_num(0).max()) / q.shape[2] ** 0.5
    atol = 1e-4 + 2 * torch.finfo(q.dtype).eps * highest
    problem = closeness_problem("the output ([T, Hq, D])", expected, observations, rtol=1e-3, atol=atol)
    if problem or observations.dtype is q.dtype:
        return problem
    return f"the output should be {q.dtype}, as q is, got {observations.dtype}"


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


def describe(case: Case) -> str:
    """Lengths and sizes in words."""
    new = case["query_start_loc"].diff().tolist()
    sequences = [
        f"{context_len} tokens, the last {count} of them new" if context_len > 1 else "1 token, which is new"
        for context_len, count in zip(case["context_lens"].tolist(), new, strict=True)
    ]
    (_, num_heads, head_dim), (num_slots, num_kv_heads, _) = case["q"].shape, case["k_cache"].shape
    sizes = f"P={case['block_size']}, Hq={num_heads}, Hkv={num_kv_heads}, D={head_dim}"
    table = f", block_tables={case['block_tables'].tolist()}" if case["block_tables"].numel() <= 12 else ""
    nan = f", NaN in all other slots of {num_slots}" if case["k_cache"].isnan().any() else ""
    dtype = "" if case["q"].dtype is torch.float32 else f", {str(case['q'].dtype).removeprefix('torch.')}"
    strides = "" if case["k_cache"].is_contiguous() else ", tensors with gaps between their rows"
    return f"{'; '.join(sequences)}: {sizes}{table}{nan}{dtype}{strides}"


# ---------------------------------------------------------------- cases


def batch(
    lengths: Sequence[tuple[int, int]],
    block_size: int,
    heads: tuple[int, int] = (1, 1),
    head_dim: int = 4,
    *,
    columns: int = 1,
    padding: int | None = None,
    nan: bool = False,
    levels: Sequence[float] = (),
    first_key: float = 1,
    dtype: torch.dtype = torch.float32,
    strided: bool = False,
    rng: random.Random | None = None,
) -> Case:
    """Sequences in a pool whose blocks lie in any order and whose other slots hold other requests' tokens.

    Args:
        lengths: of each sequence: tokens in the pool, and how many of them are new.
        heads: Hq and Hkv.
        columns: of padding behind the longest sequence's blocks.
        padding: what padding says; None names a block of another request.
        nan: the other slots hold NaN.
        levels: of the new tokens in turn: `level * first_key / sqrt(D)` is added to all scores, which stay exact.
        strided: the strides of q, K and V differ, and there is room between their rows and heads.
    """
    rng = rng or random.Random(1)
    gen = generator(rng)
    num_blocks = [-(-context_len // block_size) for context_len, _ in lengths]
    order = shuffled(rng, sum(num_blocks) + 2)
    tables = torch.full((len(lengths), max(num_blocks) + columns), order.pop() if padding is None else padding)
    others = torch.ones(sum(num_blocks) + 2, block_size, dtype=torch.bool)
    for row, count in enumerate(num_blocks):
        blocks = torch.tensor([order.pop() for _ in range(count)])
        tables[row, :count] = blocks
        others[blocks] = (torch.arange(count * block_size) >= lengths[row][0]).view(count, block_size)

    def eighths(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=gen) * 8).round() / 8

    q = eighths(sum(new for _, new in lengths), heads[0], head_dim)
    k, v = (eighths(others.numel(), heads[1], head_dim) for _ in range(2))
    if levels:
        k[..., 0] = first_key
        q[..., 0] = torch.tensor(levels).repeat(len(q))[: len(q), None]
    if nan:
        k[others.flatten()] = v[others.flatten()] = torch.nan
    q, k, v = (tensor.to(dtype) for tensor in (q, k, v))
    if strided:
        q = q.transpose(0, 1).contiguous().transpose(0, 1)
        k, v = torch.stack([k, v], 1)[:, 0], torch.cat([v, v], 2)[..., :head_dim]
    return {
        "q": q,
        "k_cache": k,
        "v_cache": v,
        "block_tables": tables.int(),
        "context_lens": torch.tensor([context_len for context_len, _ in lengths], dtype=torch.int32),
        "query_start_loc": torch.tensor([0, *(new for _, new in lengths)], dtype=torch.int32).cumsum(0).int(),
        "block_size": block_size,
    }


def anything(rng: random.Random) -> Iterator[Case]:
    """Decodes and chunks, with NaN wherever nobody should read."""
    for block_size in (1, 3, 16):
        lengths = [(n, rng.choice([1, 1, rng.randint(1, n)])) for n in rng.choices(range(1, 40), k=5)]
        heads, padding = rng.choice([(4, 2), (3, 3), (6, 2), (4, 1)]), rng.choice([-1, NO_BLOCK, None])
        yield batch(lengths, block_size, heads, rng.randint(1, 8), padding=padding, nan=True, rng=rng)


prop = partial(Prop, drive=drive, judge=judge, describe=describe)

EXERCISE = Exercise(
    name="paged_attention",
    kind="function",
    properties=(
        prop(
            "one new token looks at all tokens of its sequence, wherever their blocks lie",
            weight=0.5,
            fixed=[
                batch([(1, 1)], 2),
                batch([(3, 1)], 2),
                batch([(10, 1)], 4, columns=0),
                *(batch([(length, 1)], block_size) for length, block_size in ((3, 1), (8, 3), (33, 16))),
            ],
        ),
        prop(
            "a chunk of new tokens is causal, and stands at the end of the context",
            weight=0.75,
            fixed=[
                batch([(2, 2)], 2),
                batch([(3, 2)], 2),
                batch([(10, 10)], 4),
                batch([(8, 4)], 4, columns=0),
                *(batch([lengths], size) for lengths, size in (((7, 3), 1), ((9, 8), 3), ((20, 5), 16))),
            ],
        ),
        prop(
            "query head h reads KV head h // (Hq / Hkv)",
            weight=0.5,
            fixed=[
                batch([(3, 1)], 2, heads=(2, 2)),
                batch([(3, 1)], 2, heads=(2, 1)),
                batch([(3, 1)], 2, heads=(4, 2)),
                batch([(5, 2)], 4, heads=(6, 2), head_dim=3),
            ],
        ),
        prop(
            "sequences of any lengths go side by side in one batch",
            weight=0.25,
            fixed=[
                batch([(2, 1), (1, 1)], 2),
                batch([(5, 3), (2, 1), (4, 4)], 2),
                batch([(39, 1), (1, 1), (17, 17), (20, 3)], 16, heads=(4, 2), head_dim=5),
            ],
        ),
        prop(
            "large scores do not overflow",
            weight=0.5,
            fixed=[
                batch([(3, 1)], 2, levels=[400]),
                batch([(10, 4)], 4, levels=[-400]),
                batch([(7, 3)], 3, heads=(2, 1), levels=[400, -400, 0]),
                batch([(6, 4)], 4, levels=[-30000]),
                batch([(5, 2)], 2, levels=[400], first_key=250, dtype=torch.float16),
            ],
        ),
        prop(
            "neither slots behind a sequence's last token are read, nor what the padding of its table names",
            weight=0.25,
            fixed=[
                batch([(3, 1)], 4, columns=0, nan=True),
                batch([(4, 1)], 2, nan=True),
                batch([(4, 1)], 2, nan=True, padding=NO_BLOCK),
                batch([(9, 3), (1, 1)], 4, heads=(4, 2), nan=True, padding=-1),
                batch([(5, 4), (12, 1)], 3, heads=(4, 2), nan=True, padding=NO_BLOCK, columns=2),
            ],
            random=anything,
        ),
        prop(
            "the output has the dtype of q, and the tensors may have any strides",
            weight=0.25,
            fixed=[
                batch([(3, 1)], 2, dtype=torch.bfloat16),
                batch([(5, 3), (2, 1)], 2, heads=(4, 2), dtype=torch.float16),
                batch([(7, 3)], 2, heads=(6, 3), head_dim=5, strided=True),
                batch([(4, 1), (5, 2)], 4, heads=(4, 2), head_dim=3, strided=True, dtype=torch.bfloat16),
            ],
        ),
    ),
    twins=(
        "tinyllm.kernels.reference:paged_attention_with_lse",
        "tinyllm.kernels.paged_decode:launch_paged_decode",
        "tinyllm.kernels.paged_decode_split:launch_paged_decode_split",
        "tinyllm.kernels.paged_prefill:launch_paged_prefill",
    ),
)
