"""Checks of `keep_top_k`, against a sorted list."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace

import torch

from grader.framework import Case, Exercise, Observations, Property, generator, plain, tensor_problem


class KeepsTheBest(Property):
    """Compares with the k best of a sorted list."""

    sentence = "the k largest logits stay, all others are minus infinity"
    weight = 1.5

    def fixed_cases(self) -> Iterator[Case]:
        """One token, then a few: everybody meets these."""
        yield {"logits": torch.tensor([-1.5]), "k": 1}
        yield {"logits": torch.tensor([0.5, -2.0, 3.0, 1.0]), "k": 2}

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """More and more tokens, drawn from a seed."""
        for size in (2, 7, 50):
            logits = torch.randn(size, generator=generator(rng))
            yield {"logits": logits, "k": rng.randint(1, size)}

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Call the function."""
        return {"masked": plain(parts.keep_top_k(case["logits"], case["k"]))}

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Every place must hold its logit, or minus infinity."""
        order = sorted(range(len(case["logits"])), key=lambda i: -case["logits"][i].item())
        expected = torch.tensor([float("-inf")] * len(order))
        for place in order[: case["k"]]:
            expected[place] = case["logits"][place]
        return tensor_problem("the result", expected, observations.get("masked"))


class KeepsItsType(KeepsTheBest):
    """The same in half precision."""

    sentence = "the result has the dtype of the logits"
    weight = 0.5

    def fixed_cases(self) -> Iterator[Case]:
        """Two sizes."""
        for size in (3, 8):
            yield {"logits": torch.arange(size).to(torch.bfloat16), "k": 2}

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """None: a dtype does not depend on the numbers."""
        yield from ()

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Only the dtype is looked at."""
        got = getattr(observations.get("masked"), "dtype", None)
        return None if got == case["logits"].dtype else f"expected {case['logits'].dtype}, got {got}"


EXERCISE = Exercise(name="keep_top_k", kind="function", properties=(KeepsTheBest(), KeepsItsType()))
