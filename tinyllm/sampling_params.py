"""What a request may ask for: how its tokens are drawn, what it reports, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import NoneType
from typing import TYPE_CHECKING, Any

from tinyllm.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor  # the command line need not wait for torch


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one request's tokens are drawn and when it ends.

    Attributes:
        temperature: 0 is greedy; above it the logits are divided by it.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of likeliest tokens whose probability reaches p.
        max_tokens: most tokens to generate.
        n: continuations of the same prompt; they share its KV blocks.
        seed: makes the request repeatable; None draws a fresh one. Every token is the likeliest one after noise is
            added to the log-probabilities, and the noise hangs on seed, continuation, output position and token id
            alone (see `tinyllm.engine.gumbel`). So the same request to the same model gives the same tokens, whatever
            runs beside it, preempted or not, on any machine, with one exception: another batch or machine may round
            the logits otherwise, and two tokens that come closer to each other than this rounding may change places.
            In float32 that is about one token in a million; in 16 bits rounding is coarser and it happens more often.
        stop: strings that end the output; they are cut from it.
        ignore_eos: go on past the end token (for load tests with a fixed length).
        min_p: keep tokens at least this share as likely as the likeliest one; 0 keeps all.
        repetition_penalty: above 1 makes tokens of the prompt and the output less likely: their logits are divided by
            it where positive and multiplied where negative.
        presence_penalty: taken from the logit of every token that the output holds.
        frequency_penalty: taken from a token's logit once for every time the output holds it.
        logit_bias: token id to what is added to its logit; -inf bans the token.
        allowed_tokens: called before each token with the output so far; returns bool [V], True at the tokens that may
            come next. It sees one continuation at a time and must not remember anything between calls.
        min_tokens: no end token, and no stop string, ends the output before it has this many tokens.
        stop_token_ids: tokens that end the output beside the model's own; the text leaves them out.
        logprobs: how many of the likeliest tokens to report with each output token, from the logits as the model gave
            them; 0 reports the chosen token alone, None nothing.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 64
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_tokens: Callable[[Sequence[int]], Tensor] | None = None
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        # people write one string, one token id, or a list
        object.__setattr__(self, "stop", as_tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", as_tuple(self.stop_token_ids))
        object.__setattr__(self, "logit_bias", self._checked_bias())
        if not all(isinstance(text, str) and text for text in self.stop):
            raise RequestError(f"stop is {self.stop!r}; give one or more non-empty strings")
        if not all(isinstance(token, Integral) for token in self.stop_token_ids):
            raise RequestError(f"stop_token_ids is {self.stop_token_ids!r}; give one or more token ids")
        if not (self.allowed_tokens is None or callable(self.allowed_tokens)):
            raise RequestError(f"allowed_tokens is {self.allowed_tokens!r}; give a function of the output so far")
        for name, (kind, will_do, rule) in SAMPLING_RULES.items():
            value = getattr(self, name)
            # NaN will not do either: every comparison with it is false
            if not (isinstance(value, kind) and will_do(value)):
                raise RequestError(f"{name} is {value!r}; it must be {rule}")
        if self.min_tokens > self.max_tokens:
            raise RequestError(f"min_tokens is {self.min_tokens}; it must be at most max_tokens, {self.max_tokens}")

    @property
    def changes_logits(self) -> bool:
        """Whether tokens other than by temperature and the filters become more or less likely at every position."""
        return bool(
            self.logit_bias
            or self.allowed_tokens
            or self.presence_penalty
            or self.frequency_penalty
            or self.repetition_penalty != 1
        )

    def _checked_bias(self) -> dict[int, float]:
        given: Any = self.logit_bias
        if not isinstance(given, Mapping) or not all(
            isinstance(token, Integral) and isinstance(bias, Real) and bias <= LARGEST for token, bias in given.items()
        ):
            raise RequestError(
                f"logit_bias is {given!r:.200}; give a mapping of token ids to numbers of at most {LARGEST:g}, or -inf"
            )
        return dict(given)


#: Logits are float32, up to 3.4e38. A penalty or bias of this size leaves room for the logits and counts it meets.
LARGEST = 1e30

#: For each number in `SamplingParams`: its kind, whether a value will do, and the rule in words.
SAMPLING_RULES: dict[str, tuple[type | tuple[type, ...], Callable[[Any], bool], str]] = {
    "temperature": (Real, lambda x: 0 <= x < math.inf, "0 (greedy) or above"),
    "top_k": (Integral, lambda x: x >= 0, "0 (off) or above, a whole number"),
    "top_p": (Real, lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "min_p": (Real, lambda x: 0 <= x <= 1, "from 0 (off) to 1"),
    "repetition_penalty": (Real, lambda x: 1 / LARGEST <= x <= LARGEST, f"from 1/{LARGEST:g} to {LARGEST:g}; 1 is off"),
    "presence_penalty": (Real, lambda x: abs(x) <= LARGEST, f"from -{LARGEST:g} to {LARGEST:g}; 0 is off"),
    "frequency_penalty": (Real, lambda x: abs(x) <= LARGEST, f"from -{LARGEST:g} to {LARGEST:g}; 0 is off"),
    "max_tokens": (Integral, lambda x: x >= 1, "at least 1, a whole number"),
    "min_tokens": (Integral, lambda x: x >= 0, "0 or above, a whole number"),
    "n": (Integral, lambda x: x >= 1, "at least 1, a whole number"),
    "seed": ((Integral, NoneType), lambda x: True, "a whole number or None"),
    "logprobs": ((Integral, NoneType), lambda x: x is None or x >= 0, "0 or above, a whole number, or None"),
}


def as_tuple(given: Any) -> tuple[Any, ...]:
    """Several things as a tuple, and one thing alone (a string is one) as a tuple of it."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
