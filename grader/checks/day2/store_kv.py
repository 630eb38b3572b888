"""Checks of `store_kv`: its kernel between guard zones, against one assignment a token."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.day2.kernels import KernelProperty, kernel_device, synchronize
from grader.checks.support import count_of
from grader.framework import Case, Exercise, Observations
from tinyllm.kernels.guards import guarded

POOLS = ("K", "V")
#: What stands around the tensors: a number that no case draws.
OUTSIDE = 1000.0


def tensors(case: Case) -> dict[str, Tensor]:
    """New K and V as [T, Hkv, D], and the pools [num_slots, Hkv, D] before the call; drawn from the case's seed.

    `fused` makes K and V views into one projection, in which queries stand too, and gives slots of the pool room that
    is not theirs. The rest of such tensors is NaN.
    """
    generator = torch.Generator().manual_seed(case["seed"])
    dtype = getattr(torch, case["dtype"])
    shape = (case["num_kv_heads"], case["head_dim"])
    num_tokens, extra = len(case["slot_mapping"]), 2 if case["fused"] else 0
    wide = torch.full((num_tokens, extra + 2 * shape[0], shape[1]), float("nan"), dtype=dtype)
    wide[:, extra:] = numbers(generator, num_tokens, 2 * shape[0], shape[1])
    pools = torch.full((2, case["num_slots"], shape[0] + extra, shape[1]), float("nan"), dtype=dtype)
    pools[:, :, : shape[0]] = numbers(generator, 2, case["num_slots"], *shape)
    k, v = wide[:, extra:].split(shape[0], dim=1)
    if case["fused"]:
        return {"wide": wide, "k": k, "v": v, "K": pools[0], "V": pools[1]}
    return {"k": k.contiguous(), "v": v.contiguous(), "K": pools[0], "V": pools[1]}


def numbers(generator: torch.Generator, *shape: int) -> Tensor:
    """Random float32 from -1 to 1, to the last bit the same on every CPU; those of `torch.randn` are not.

    Both sides draw a case's numbers, perhaps on two machines, and the pools must then be equal.
    """
    return 2 * torch.rand(shape, generator=generator) - 1


class StoreProperty(KernelProperty):
    """Stores tokens in pools full of others, and looks at every number of both."""

    def case(self, rng: random.Random, num_slots: int, slots: list[int], *sizes: int, **changes: Any) -> Case:
        """`sizes` are Hkv and D."""
        named = dict(zip(("num_kv_heads", "head_dim"), sizes, strict=True))
        rest = {"num_slots": num_slots, "slot_mapping": slots, "fused": False, "dtype": "float32"}
        return {**rest, **named, "seed": rng.getrandbits(32), **changes}

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Both pools afterwards, and the names of the tensors that have changed where they should not."""
        device = kernel_device()
        given = tensors(case)
        wide, pools, buffers = given.pop("wide", None), {}, {}
        if wide is not None:  # K and V must stay views into one buffer
            num_heads = case["num_kv_heads"]
            buffers["k and v"], projection = guarded(wide, float("nan"), device)
            given["k"], given["v"] = projection[:, -2 * num_heads :].split(num_heads, dim=1)
        else:
            for name in ("k", "v"):
                buffers[name], given[name] = guarded(given[name], float("nan"), device)
        for name in POOLS:
            buffers[f"the pool of {name}"], room = guarded(given[name], OUTSIDE, device)
            pools[name] = room[:, : case["num_kv_heads"]]
        before = {name: whole.clone() for name, whole in buffers.items()}
        contents = {name: pool.clone() for name, pool in pools.items()}
        slots = torch.tensor(case["slot_mapping"], dtype=torch.int64)
        buffers["slot_mapping"], slots = guarded(slots, -1, device)
        before["slot_mapping"] = buffers["slot_mapping"].clone()
        parts.store_kv(given["k"], given["v"], pools["K"], pools["V"], slots)
        synchronize(device)
        after = {name: pool.clone() for name, pool in pools.items()}
        for name, pool in pools.items():
            pool.copy_(contents[name])
        changed = [
            n for n, whole in buffers.items() if not torch.equal(whole.view(torch.uint8), before[n].view(torch.uint8))
        ]
        return {**after, "changed": changed}

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Token by token, then what nobody should have touched."""
        given = tensors(case)
        for name, new in zip(POOLS, ("k", "v"), strict=True):
            expected = given[name][:, : case["num_kv_heads"]].clone()
            for token, slot in enumerate(case["slot_mapping"]):
                if slot >= 0:
                    expected[slot] = given[new][token]
            problem = pool_problem(name, case["slot_mapping"], expected, observations[name])
            if problem:
                return problem
        if observations["changed"]:
            return f"it writes where nothing of its own is, outside the slots: {observations['changed'][0]}"
        return None

    def describe(self, case: Case) -> str:
        """As a learner reads it."""
        text = f"slot_mapping = {case['slot_mapping']}, K/V heads of {case['head_dim']} numbers: {case['num_kv_heads']}"
        fused = ", k and v are slices of one projection and the pool's slots have room between them"
        return f"{text}, {case['num_slots']} slots, {case['dtype']}{fused if case['fused'] else ''}"


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
            values = f"expected {expected[slot, head, dim].item():.3g}, got {got[slot, head, dim].item():.3g}"
            token = f"{name} of token {slots.index(slot)}, which belongs in slot {slot}"
            return f"{token}: {count_of(len(wrong), 'number')} wrong, first number {dim} of head {head}: {values}"
    return None


class EachTokenInItsSlot(StoreProperty):
    """Tokens, heads and slots of every kind."""

    sentence = "each token's K and V go into its slot, head by head, and nothing else changes"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One token, slots in any order, several heads, sizes that are no power of two, float16."""
        yield self.case(rng, 4, [2], 1, 16)
        yield self.case(rng, 8, [5, 1, 6], 2, 16)
        yield self.case(rng, 6, [4, 0], 3, 48)
        slots = rng.sample(range(12), 4)
        yield self.case(rng, 12, slots, rng.choice((2, 3)), rng.choice((20, 32)), dtype="float16")


class SkipsPadding(StoreProperty):
    """Tokens without a slot."""

    sentence = "a token whose slot is -1 is not stored"
    weight = 0.25

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Some of the tokens, then all of them."""
        yield self.case(rng, 5, [3, -1, 1], 1, 16)
        yield self.case(rng, 3, [-1], 2, 16)


class AnyStrides(StoreProperty):
    """Tensors as they are in a model."""

    sentence = "k, v and the pool may have any strides, such as slices of one fused projection"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One head, then several."""
        yield self.case(rng, 4, [1, 3], 1, 16, fused=True)
        yield self.case(rng, 6, rng.sample(range(6), 3), 2, 32, fused=True)


class ManyNumbers(StoreProperty):
    """A token that several programs share."""

    sentence = "a token with more numbers than one program takes is stored whole"
    weight = 0.25

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """1,280 numbers, more than BLOCK = 1,024."""
        yield self.case(rng, 3, [2, 0], 5, 256)


EXERCISE = Exercise(
    name="store_kv",
    kind="kernel",
    properties=(EachTokenInItsSlot(), SkipsPadding(), AnyStrides(), ManyNumbers()),
)
