"""Checks of `store_kv`: its kernel between guard zones, against one assignment a token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.kernels import TIME_LIMIT, kernel_device, synchronize
from grader.checks.support import count_of
from grader.framework import Case, Exercise, Observations, Prop, two_numbers
from grader.running.kernel_access import access_rules
from tinyllm.kernels.guards import guarded

POOLS = ("K", "V")
#: What stands around the pools: a number that no case draws. Around k and v it is NaN.
OUTSIDE = 1000.0
#: How tensors lie: heads before and behind a row's own, and numbers behind each head, that are nobody's.
ROOM = {
    "packed": {},
    "fused": {"k": (2, 3, 0), "v": (3, 2, 0), "K": (0, 2, 0), "V": (0, 2, 0)},
    "apart": {"v": (1, 2, 5), "K": (0, 1, 3), "V": (0, 1, 3)},
    "k apart": {"k": (1, 2, 5)},
    "far": {},
}
LAYOUTS = {
    "packed": "",
    "fused": ", k and v are slices of one projection and the pool's slots have room between them",
    "apart": ", v has other strides than k and the pool is [Hkv, num_slots, D] in memory",
    "k apart": ", k has room between its heads and v has none",
    "far": ", slots lie so far apart that offsets pass 2**31",
}


def case(num_slots: int, slots: list[int], num_kv_heads: int, head_dim: int, **changes: Any) -> Case:
    """Tokens for `slots`; `changes` are of the layout, the dtypes and the seed."""
    sizes = {"num_slots": num_slots, "slot_mapping": slots, "num_kv_heads": num_kv_heads, "head_dim": head_dim}
    return {**sizes, "layout": "packed", "dtype": "float32", "slot_dtype": "int64", "seed": 1, **changes}


def tensors(case: Case) -> dict[str, Tensor]:
    """New k and v as [T, Hkv, D], and the pools K and V [num_slots, Hkv, D] before the call; drawn from the seed.

    Random numbers from -1 to 1, to the last bit the same on every CPU; those of `torch.randn` are not. Both sides draw
    them, perhaps on two machines, and the pools must then be equal.
    """
    generator = torch.Generator().manual_seed(case["seed"])
    dtype, shape = getattr(torch, case["dtype"]), (case["num_kv_heads"], case["head_dim"])
    num_tokens, num_slots = len(case["slot_mapping"]), case["num_slots"]
    rows = {"k": num_tokens, "v": num_tokens, "K": num_slots, "V": num_slots}
    return {name: (2 * torch.rand(n, *shape, generator=generator) - 1).to(dtype) for name, n in rows.items()}


def laid_out(content: Tensor, fill: float, room: tuple[int, int, int], heads_first: bool) -> tuple[Tensor, Tensor]:
    """A copy of `content` with room in it, as ROOM says: the buffer of `fill` around it, and the copy.

    Args:
        heads_first: in memory it is [heads, rows, D].
    """
    before, behind, between = room
    if heads_first:
        content = content.transpose(0, 1)
    rows, heads, dims = content.shape
    own = (slice(None), slice(before, before + heads), slice(dims))
    wide = torch.full((rows, before + heads + behind, dims + between), fill, dtype=content.dtype)
    wide[own] = content
    buffer, wide = guarded(wide, fill, kernel_device())
    return buffer, wide[own].transpose(0, 1) if heads_first else wide[own]


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Both pools afterwards, and the names of the tensors that have changed where they should not."""
    buffers, given = {}, {}
    for name, content in tensors(case).items():
        room, pool = ROOM[case["layout"]].get(name, (0, 0, 0)), name in POOLS
        fill, heads_first = (OUTSIDE, case["layout"] == "apart") if pool else (float("nan"), False)
        label = f"the pool of {name}" if pool else name
        buffers[label], given[name] = laid_out(content, fill, room, heads_first)
    slots = torch.tensor(case["slot_mapping"], dtype=getattr(torch, case["slot_dtype"]))
    buffers["slot_mapping"], slots = guarded(slots, -1, kernel_device())
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    contents = {name: given[name].clone() for name in POOLS}
    with access_rules() as rules:
        far = POOLS if case["layout"] == "far" else ()
        arguments = [rules.spread(tensor) if name in far else tensor for name, tensor in given.items()]
        parts.store_kv(*arguments, slots)
        synchronize(kernel_device())
    after = {name: given[name].clone() for name in POOLS}
    for name in POOLS:
        given[name].copy_(contents[name])
    bits = {name: (buffer.view(torch.uint8), before[name].view(torch.uint8)) for name, buffer in buffers.items()}
    return {**after, "changed": [name for name, (now, then) in bits.items() if not torch.equal(now, then)]}


def judge(case: Case, observations: Observations) -> str | None:
    """Token by token, then what nobody should have touched."""
    given = tensors(case)
    for name, new in zip(POOLS, ("k", "v"), strict=True):
        expected = given[name]
        for token, slot in enumerate(case["slot_mapping"]):
            if slot >= 0:
                expected[slot] = given[new][token]
        problem = pool_problem(name, case["slot_mapping"], expected, observations[name])
        if problem:
            return problem
    if observations["changed"]:
        return f"it writes where nothing of its own is, outside the slots: {observations['changed'][0]}"
    return None


def pool_problem(name: str, slots: list[int], expected: Tensor, got: Any) -> str | None:
    """The first slot that is not as expected, in words."""
    if not isinstance(got, Tensor) or got.shape != expected.shape or got.dtype != expected.dtype:
        return f"the pool of {name} is no longer what it was"
    for slot in range(len(expected)):
        wrong = (expected[slot] != got[slot]).nonzero().tolist()
        if wrong and slot not in slots:
            return f"{name}: slot {slot} has changed, and no token belongs there"
        if wrong:
            head, dim = wrong[0]
            wanted, came = two_numbers(expected[slot, head, dim].item(), got[slot, head, dim].item())
            token = f"{name} of token {slots.index(slot)}, which belongs in slot {slot}"
            numbers = f"{count_of(len(wrong), 'number')} wrong, first number {dim} of head {head}"
            return f"{token}: {numbers}: expected {wanted}, got {came}"
    return None


def describe(case: Case) -> str:
    """As a learner reads it."""
    text = f"slot_mapping = {case['slot_mapping']}, K/V heads of {case['head_dim']} numbers: {case['num_kv_heads']}"
    return f"{text}, {case['num_slots']} slots, {case['dtype']}{LAYOUTS[case['layout']]}"


def any_shape(rng: random.Random, layouts: tuple[str, ...]) -> Iterator[Case]:
    layout, dtype = rng.choice(layouts), rng.choice(("float16", "bfloat16", "float32"))
    sizes = (rng.randint(1, 3), rng.choice((20, 32, 65)))
    yield case(12, rng.sample(range(12), 4), *sizes, layout=layout, dtype=dtype, seed=rng.getrandbits(32))


prop = partial(Prop, drive=drive, judge=judge, describe=describe, requires="triton", time_limit=TIME_LIMIT)

EXERCISE = Exercise(
    name="store_kv",
    kind="kernel",
    properties=(
        prop(
            "each token's K and V go into its slot, head by head, and nothing else changes",
            weight=1.0,
            fixed=[  # 144 and 65 numbers a token are no power of two
                case(4, [2], 1, 16),
                case(8, [5, 1, 6], 2, 16),
                case(6, [4, 0], 3, 48),
                case(9, [7, 0, 8, 3], 5, 13, dtype="bfloat16"),
                case(4, [1, 3], 2, 8, dtype="float16", slot_dtype="int32"),
            ],
            random=partial(any_shape, layouts=("packed",)),
        ),
        prop(
            "a token whose slot is negative is not stored",
            weight=0.25,
            fixed=[
                case(5, [3, -1, 1], 1, 16),
                case(3, [-1], 2, 16),
                case(6, [4, 3, -1], 3, 48),
                case(4, [-3, 2], 1, 16),
            ],
        ),
        prop(
            "k, v and the pool may have any strides, such as slices of one fused projection",
            weight=0.5,
            fixed=[
                case(4, [1, 3], 1, 16, layout="fused"),
                case(6, [4, 0, 2], 2, 32, layout="fused"),
                case(5, [4, 1, 2], 3, 24, layout="apart"),
                case(5, [4, 1, 2], 3, 24, layout="k apart"),
                case(4, [0, 3, 2], 2, 16, layout="far", slot_dtype="int32", dtype="float16"),
            ],
            random=partial(any_shape, layouts=("fused", "apart")),
        ),
        prop(
            "a token with more numbers than one program takes is stored whole",
            weight=0.25,
            fixed=[case(3, [2, 0], 5, 256)],  # 1,280 numbers, more than BLOCK = 1,024
        ),
    ),
)
