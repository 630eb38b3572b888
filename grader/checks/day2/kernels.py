"""What the checks of the paged kernels share: cases by their sizes, guarded tensors, and attention in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from grader.checks.kernels import TIME_LIMIT, kernel_device, numbers_problem, synchronize
from grader.checks.support import count_of
from grader.framework import Case, Observations, Prop
from grader.running.kernel_access import access_rules
from tinyllm.kernels import cases as kernel_cases
from tinyllm.kernels.guards import CANARY, Inputs, changed, make_inputs, snapshot
from tinyllm.kernels.selftest import TOLERANCES

SIZES = ("num_heads", "num_kv_heads", "head_dim", "block_size")
#: What the scores of a case can be beside random, with the sign of their slope: over the positions they rise or fall
#: from below 0 to above, they are of another sign for the next head and token, 64 times smaller for the next head, or
#: all far below 0 and the same.
SCORES = {"rising": 1, "falling": -1, "of both signs": 0, "of very different size": 0, "far below 0": 0}

#: What a case says beyond the fields of `tinyllm.kernels.cases.Case`.
OWN: Case = {"seed": 1, "opposed": False, "far": False, "room": False, "scores": "", "values": 0.0}


def attention_case(kernel: str, context_lens: list[int], *sizes: int, seed: int = 1, **changes: Any) -> Case:
    """A case with one new token a sequence, unless `query_lens` says otherwise.

    The first block of the first sequence is never block 0, where a position would be its own slot.

    Args:
        kernel: one of `tinyllm.kernels.cases.KERNELS`.
        sizes: Hq, Hkv, D and P.
        seed: what the tensors are drawn from.
        changes: other fields of `tinyllm.kernels.cases.Case`; `opposed=True` makes all scores negative, `far=True`
            lays the slots of the pools so far apart that offsets pass 2**31, `room=True` leaves room between their
            heads, `scores` is one of SCORES, and `values` is added to V.
    """
    named = dict(zip(SIZES, sizes, strict=True))
    lens = {"query_lens": [1] * len(context_lens), "context_lens": context_lens}
    case = {"kernel": kernel, **lens, **named, **OWN, "seed": seed, **changes}
    while int(inputs_of(case, "cpu").block_tables[0, 0]) == 0:
        case["seed"] += 1
    return case


def inputs_of(case: Case, device: str) -> Inputs:
    """The tensors of a case, the same on both sides: what must not be read is NaN, all else is watched."""
    fields = {key: value for key, value in case.items() if key not in OWN}
    lens = {key: tuple(case[key]) for key in ("query_lens", "context_lens")}
    inputs = make_inputs(kernel_cases.Case(**{**fields, **lens}), device, case["seed"])
    if case["opposed"]:
        inputs.q.abs_()
        inputs.k_cache.copy_(-inputs.k_cache.abs())
    inputs.v_cache.add_(case["values"])
    if case["scores"]:
        set_scores(inputs, case)
    if case["room"]:
        inputs = replace(inputs, k_cache=with_room(inputs, "k_cache"), v_cache=with_room(inputs, "v_cache"))
    return inputs


def set_scores(inputs: Inputs, case: Case) -> None:
    """Have the scores be as one of SCORES says."""
    q, k = inputs.q, inputs.k_cache
    if case["scores"] == "far below 0":  # whole numbers, so that all scores are one
        q.fill_(64)
        k.mul_(0).sub_(32)  # what is NaN remains so
        return
    q.abs_()
    k.abs_()
    if case["scores"] == "of both signs":
        q[::2, 1::2] *= -1
        q[1::2, ::2] *= -1
        return
    if case["scores"] == "of very different size":
        q[:, 1::2] /= 64
        return
    for sequence, length in enumerate(case["context_lens"]):
        positions = torch.arange(length, device=k.device)
        slots = inputs.block_tables[sequence, positions // case["block_size"]] * case["block_size"]
        levels = torch.linspace(-1, 1, length, dtype=k.dtype, device=k.device)
        k[slots + positions % case["block_size"]] *= SCORES[case["scores"]] * levels[:, None, None]


def with_room(inputs: Inputs, name: str) -> Tensor:
    """A pool with room for one more head and 16 more numbers behind each head's: all NaN, and watched."""
    pool = getattr(inputs, name)
    num_slots, heads, dim = pool.shape
    wide = torch.full((num_slots, heads + 1, dim + 16), float("nan"), dtype=pool.dtype, device=pool.device)
    inputs.watched[f"room in {name}"] = wide
    view = wide[:, :heads, :dim]
    return view.copy_(pool)


def drive_attention(case: Case, answer: Callable[..., Any], **options: Any) -> Observations:
    """Call an answer; the output, and the names of the buffers that have changed beside it."""
    device = kernel_device()
    inputs = inputs_of(case, device)
    before = snapshot(inputs)
    where = (inputs.block_tables, inputs.context_lens, inputs.query_start_loc, case["block_size"])
    options |= {"sliding_window": case.get("sliding_window"), "out": inputs.out}
    with access_rules() as rules:
        rules.only(inputs.block_tables, used_entries(inputs.block_tables, case))
        pools = [rules.spread(pool) if case["far"] else pool for pool in (inputs.k_cache, inputs.v_cache)]
        answer(inputs.q, *pools, *where, **options)
        synchronize(device)
    out = inputs.out.clone()
    inputs.out.fill_(CANARY)
    return {"out": out, "changed": changed(inputs, before)}


def used_entries(block_tables: Tensor, case: Case) -> list[Tensor]:
    """Of each row the entries that name blocks of the context."""
    blocks = [-(-length // case["block_size"]) for length in case["context_lens"]]
    return [row[:used] for row, used in zip(block_tables, blocks, strict=True)]


def judge_attention(case: Case, observations: Observations) -> str | None:
    """Row by row of the output, then what nobody should have touched."""
    out, expected = observations["out"], expected_rows(json.dumps(case))
    shape = [len(expected), case["num_heads"], case["head_dim"]]
    if not isinstance(out, Tensor) or list(out.shape) != shape:
        return f"out must stay a tensor of shape {shape}"
    allowed = TOLERANCES[case.get("dtype", "float32")] * max(1.0, case.get("sharpness", 1.0))
    for sequence, query_len in enumerate(case["query_lens"]):
        for number in range(query_len):
            place = sum(case["query_lens"][:sequence]) + number
            row = out[place].double()
            where = row_name(case, sequence, number)
            if case["kernel"] != "paged_prefill" and query_len != 1:
                if not bool((row == CANARY).all()):
                    return f"{where}: it is written, though its sequence has {query_len} new tokens"
                continue
            problem = row_problem(expected[place], row, allowed)
            if problem:
                return f"{where}, {problem}"
    if observations["changed"]:
        return f"it writes where nothing of its own is: {observations['changed'][0]}"
    return None


def describe_attention(case: Case) -> str:
    """As a learner reads it."""
    heads = f"{count_of(case['num_heads'], 'query head')} on {count_of(case['num_kv_heads'], 'K/V head')}"
    new = "" if set(case["query_lens"]) == {1} else f", new tokens: {case['query_lens']}"
    text = f"context_lens = {case['context_lens']}{new}, {heads} of {case['head_dim']} numbers"
    more = [f"{name} = {case[name]}" for name in ("sliding_window", "split_size", "dtype") if case.get(name)]
    blocks = f"blocks of {count_of(case['block_size'], 'slot')} in any order"
    far = ["a pool of more than 2**31 numbers"] if case["far"] else []
    room = ["room between the heads of the pool"] if case["room"] else []
    values = [f"all of V near {case['values']:g}"] if case["values"] else []
    return ", ".join([text, blocks, *more, *scores_of(case), *far, *room, *values])


#: A row of a table of attention properties, but for `drive`.
attention_prop = partial(
    Prop, judge=judge_attention, describe=describe_attention, requires="triton", time_limit=TIME_LIMIT
)


def scores_of(case: Case) -> list[str]:
    """What is special about a case's scores, if anything."""
    if case["scores"]:
        return [f"scores {case['scores']}"]
    if "sharpness" not in case:
        return []
    if case["sharpness"] == 0:
        return ["all scores 0"]
    return ["large negative scores" if case["opposed"] else "large scores"]


def row_name(case: Case, sequence: int, number: int) -> str:
    """A row of the output in words."""
    token = f"new token {number} of " if case["query_lens"][sequence] > 1 else ""
    return f"{token}sequence {sequence} ({count_of(case['context_lens'][sequence], 'token')} in the cache)"


@lru_cache(maxsize=256)
def expected_rows(text: str) -> list[Tensor]:
    """The output of a case, given as JSON: [Hq, D] float64 for each new token. Kept, since many answers meet a case."""
    case = json.loads(text)
    inputs = inputs_of(case, "cpu")
    return [
        expected_row(inputs, case, sequence, number)
        for sequence, query_len in enumerate(case["query_lens"])
        for number in range(query_len)
    ]


def expected_row(inputs: Inputs, case: Case, sequence: int, number: int) -> Tensor:
    """[Hq, D] float64: attention of one new token, position by position through the block table, head by head."""
    context_len, size = case["context_lens"][sequence], case["block_size"]
    own = context_len - case["query_lens"][sequence] + number
    table = inputs.block_tables[sequence].tolist()
    first = max(0, own - (case.get("sliding_window") or context_len) + 1)
    slots = [table[position // size] * size + position % size for position in range(first, own + 1)]
    q = inputs.q[int(inputs.query_start_loc[sequence]) + number].double()
    out = torch.zeros(q.shape, dtype=torch.float64)
    group = case["num_heads"] // case["num_kv_heads"]
    if context_len == 0:
        return out
    for head in range(case["num_heads"]):
        keys, values = (pool[slots, head // group].double() for pool in (inputs.k_cache, inputs.v_cache))
        out[head] = (keys @ q[head] / case["head_dim"] ** 0.5).softmax(0) @ values
    return out


def row_problem(expected: Tensor, got: Tensor, allowed: float) -> str | None:
    """What is wrong with the output of one token, [Hq, D], in words."""
    if bool((got == CANARY).all()):
        return "its output is never written"
    # One short message for NaN and infinity: how many there are depends on how a sum is written.
    if not bool(got.isfinite().all()):
        head = int((~got.isfinite()).any(1).nonzero()[0])
        return (
            f"head {head}: NaN or infinite. Something is read that is not of this sequence (all of that is NaN here), "
            "or the arithmetic overflows or divides by 0"
        )
    for head in range(len(expected)):
        problem = numbers_problem(expected[head], got[head], allowed)
        if problem:
            return f"head {head}: {problem}"
    return None
