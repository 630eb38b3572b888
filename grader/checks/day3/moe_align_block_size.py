"""Checks of `moe_align_block_size`, against lists filled expert by expert."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.day3.waits import watched
from grader.checks.support import count_of
from grader.framework import Case, Exercise, Observations, Prop, expected_got, plain, short

NAMES = ("sorted_token_ids", "expert_ids", "num_tokens_post_padded")
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """What it returns."""
    return plain(parts.moe_align_block_size(case["topk_ids"], case["block_size"], case["num_experts"]))


def drive_watched(parts: SimpleNamespace, case: Case) -> Observations:
    """What it returns, and what of it would have waited for a GPU first."""
    with watched() as waits:
        answer = drive(parts, case)
    return {"answer": answer, "waits": waits[:1]}


def blocks_of(case: Case) -> list[tuple[int, list[int]]]:
    """The expert of each block in use, and its pairs."""
    ids, block_size = case["topk_ids"].flatten().tolist(), case["block_size"]
    blocks = []
    for expert in range(case["num_experts"]):
        pairs = [pair for pair, chosen in enumerate(ids) if chosen == expert]
        while pairs:
            blocks.append((expert, pairs[:block_size]))
            pairs = pairs[block_size:]
    return blocks


def form_problem(answer: Any) -> str | None:
    """Whether it is three tensors that can be read."""
    if not isinstance(answer, list) or len(answer) != len(NAMES):
        return f"it must return three tensors, {', '.join(NAMES)}; got {short(answer)}"
    for name, tensor in zip(NAMES, answer, strict=True):
        if not isinstance(tensor, Tensor) or tensor.dtype not in INTEGERS or tensor.dim() > 1:
            return f"{name} must be a tensor of integers with one dimension, got {short(tensor)}"
    return None


def judge_rows(case: Case, answer: Observations) -> str | None:
    """What stands in the blocks in use, expert by expert; the order of an expert's pairs is free."""
    blocks, problem = blocks_of(case), form_problem(answer)
    if problem:
        return problem
    rows, in_use = answer[0].tolist(), len(blocks) * case["block_size"]
    if answer[2].flatten().tolist() != [in_use]:
        return f"num_tokens_post_padded: {expected_got([in_use], answer[2].flatten().tolist())}"
    if len(rows) < in_use:
        return f"sorted_token_ids has a length of {len(rows)}, and {in_use} should be in use"
    padding, start = case["topk_ids"].numel(), 0
    for expert in sorted({expert for expert, _ in blocks}):
        pairs = {pair for owner, block in blocks if owner == expert for pair in block}
        size = -(-len(pairs) // case["block_size"]) * case["block_size"]
        got, start = rows[start : start + size], start + size
        own, pads = len(pairs.intersection(got)), got.count(padding)
        if (own, pads) != (len(pairs), size - len(pairs)):
            wanted = f"{count_of(len(pairs), 'pair')} and {size - len(pairs)} times {padding} (T * K) as padding"
            came = f"{own} of its pairs, {pads} times {padding}, and {size - own - pads} besides"
            return f"sorted_token_ids, expert {expert}: expected {wanted}, got {came}"
        if padding in got[:own]:
            return f"sorted_token_ids, expert {expert}: its padding must stand behind its pairs"
    return None


def judge_experts(case: Case, answer: Observations) -> str | None:
    """The expert of each block in use."""
    expected, problem = [expert for expert, _ in blocks_of(case)], form_problem(answer)
    if problem:
        return problem
    got = answer[1].flatten().tolist()[: len(expected)]
    return None if got == expected else f"expert_ids of the blocks in use: {expected_got(expected, got)}"


def judge_all(case: Case, answer: Observations) -> str | None:
    """Rows and experts."""
    return judge_rows(case, answer) or judge_experts(case, answer)


def judge_sizes(case: Case, answer: Observations) -> str | None:
    """The dtypes, the sizes, and what stands behind the blocks in use."""
    block_size, problem = case["block_size"], form_problem(answer)
    if problem:
        return problem
    num_pairs = case["topk_ids"].numel()
    most = num_pairs + min(case["num_experts"], num_pairs) * (block_size - 1)
    num_blocks = (most + block_size - 1) // block_size
    sizes = (num_blocks * block_size, num_blocks, 1)
    for name, tensor, size in zip(NAMES, answer, sizes, strict=True):
        if list(tensor.shape) != [size] or tensor.dtype != torch.int32:
            return f"{name} should be int32 of shape {[size]}, got {str(tensor.dtype)[6:]} of {list(tensor.shape)}"
    return tail_problem(case, answer)


def judge_left_out(case: Case, answer: Observations) -> str | None:
    """All that is in use, and that no pair is left behind it."""
    return judge_all(case, answer) or tail_problem(case, answer)


def tail_problem(case: Case, answer: list[Tensor]) -> str | None:
    """Whether something else than padding stands behind what is in use."""
    in_use = len(blocks_of(case))
    starts, fills = (in_use * case["block_size"], in_use), (case["topk_ids"].numel(), -1)
    for name, tensor, start, fill in zip(NAMES, answer, starts, fills, strict=False):
        others = sorted(set(tensor[start:].tolist()) - {fill})
        if others:
            return f"{name} should be {fill} behind what is in use, got {others[0]}"
    return None


def judge_waits(case: Case, observations: Observations) -> str | None:
    """A right answer that waits for nothing."""
    waits = observations["waits"]
    return judge_all(case, observations["answer"]) or (f"it would wait for the GPU: {waits[0]}" if waits else None)


def make(ids: list[list[int]], block_size: int, num_experts: int, dtype: torch.dtype = torch.int64) -> Case:
    """A case with the ids written out."""
    return {"topk_ids": torch.tensor(ids, dtype=dtype), "block_size": block_size, "num_experts": num_experts}


def draw(seed: int, tokens: int, top_k: int, block_size: int, experts: int, lowest: int = 0, highest: int = 0) -> Case:
    """A case with ids from `lowest` to E - 1 + `highest` drawn from a seed; not all of a token's are different."""
    rng = random.Random(seed)
    ids = [rng.randint(lowest, experts - 1 + highest) for _ in range(tokens * top_k)]
    sizes = {"block_size": block_size, "num_experts": experts}
    return {"topk_ids": torch.tensor(ids, dtype=torch.int64).view(tokens, top_k), **sizes}


def turned(case: Case) -> Case:
    """The same with ids that lie in memory column by column, in int32."""
    return {**case, "topk_ids": case["topk_ids"].int().T.contiguous().T}


def any_ids(rng: random.Random, lowest: int = 0, highest: int = 0) -> Iterator[Case]:
    for _ in range(4):
        sizes = (rng.randint(1, 33), rng.randint(1, 8), rng.choice((1, 3, 8, 16, 64)), rng.choice((1, 3, 8, 128)))
        yield draw(rng.getrandbits(32), *sizes, lowest, highest)


prop = partial(Prop, drive=drive)

EXERCISE = Exercise(
    name="moe_align_block_size",
    kind="function",
    properties=(
        prop(
            "up to num_tokens_post_padded stand each expert's pairs, filled up to whole blocks with T * K",
            judge=judge_rows,
            weight=1.5,
            fixed=[
                make([[0]], 2, 1),
                make([[0], [0], [0], [0]], 16, 1),
                make([[1, 0], [0, 1], [1, 0]], 2, 2),
                make([[2, 0], [1, 2], [0, 1], [2, 0]], 4, 3),
                make([[0, 1], [1, 0]], 1, 2),
                make([[2, 0], [2, 0], [2, 0]], 2, 3),
                turned(make([[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]], 3, 3)),
                *(draw(tokens, tokens, 2, 4, 3) for tokens in range(5, 34, 4)),
            ],
            random=any_ids,
        ),
        prop(
            "expert_ids names the expert of each block in use",
            judge=judge_experts,
            weight=0.75,
            fixed=[
                make([[0]], 2, 1),
                make([[0, 1]], 2, 2),
                make([[1, 0], [0, 1], [1, 0]], 2, 2),
                make([[0, 1], [1, 0]], 1, 2),
                make([[2, 0], [2, 0], [2, 0]], 2, 3),
                make([[1, 2], [2, 1], [0, 2], [2, 0], [2, 1]], 2, 3, torch.int32),
                draw(1, 33, 2, 4, 3),
            ],
            random=any_ids,
        ),
        prop(
            "three int32 tensors whose sizes hang on shapes alone, T * K and -1 behind what is in use",
            judge=judge_sizes,
            weight=0.5,
            fixed=[
                make([[0]], 1, 1),
                make([[0], [0]], 2, 1),
                make([[1, 0], [0, 1]], 4, 2),
                make([[0, 1, 2], [0, 1, 2]], 4, 3, torch.int32),
                make([[3]], 4, 8),
                make([[5, 3]], 16, 128),
                make([[0, 1], [1, 0], [0, 1]], 4, 4),
                draw(1, 14, 4, 64, 1),
            ],
            random=any_ids,
        ),
        prop(
            "an expert without a pair gets no block, and T may be 0",
            judge=judge_all,
            weight=0.25,
            fixed=[
                make([[2]], 2, 3),
                make([[3], [3], [3], [3], [3]], 4, 4),
                make([[0, 3], [3, 0], [5, 0]], 2, 8),
                draw(1, 0, 2, 4, 3),
                make([[100, 7, 41]], 16, 128),
            ],
        ),
        prop(
            "a pair whose id is not one of 0 to E - 1 is left out",
            judge=judge_left_out,
            weight=0.5,
            fixed=[
                make([[-1, 0]], 2, 1),
                make([[0, -1], [-1, 1], [1, 0]], 2, 2),
                make([[0, 2], [3, 1]], 2, 2),
                make([[-1, -1]], 4, 3),
                make([[0, 1], [2, -1]], 4, 3),
                make([[-7, 0], [1, 64], [2, -1]], 2, 3, torch.int32),
                draw(1, 11, 3, 4, 5, lowest=-2, highest=2),
            ],
            random=partial(any_ids, lowest=-2, highest=2),
        ),
        prop(
            "nothing waits for the GPU",
            drive=drive_watched,
            judge=judge_waits,
            weight=0.5,
            fixed=[make([[0]], 2, 1), make([[1, 0], [0, 1], [1, 0]], 2, 2), make([[2, 0], [1, 2], [0, 1]], 4, 3)],
        ),
    ),
)
