"""Request traces: how long prompts and outputs are, drawn with the published means of real ones."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import exp, log

from tinyllm.config import SamplingParams

#: Mean prompt and output length in tokens (PagedAttention, arXiv 2309.06180, section 6.1, figure 11).
PUBLISHED_MEANS = {"sharegpt": (161.31, 337.99), "alpaca": (19.31, 58.45)}

#: Spread of the log-normal lengths; the paper shows wide, right-skewed histograms and publishes the means alone.
SIGMA = 0.9


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace: its prompt's tokens, and how many it will generate."""

    prompt_token_ids: tuple[int, ...]
    output_len: int

    @property
    def total_len(self) -> int:
        """Tokens at the end of the request."""
        return len(self.prompt_token_ids) + self.output_len

    @property
    def params(self) -> SamplingParams:
        """Greedy sampling of exactly `output_len` tokens."""
        return SamplingParams(max_tokens=self.output_len, ignore_eos=True)


def make_trace(
    name: str, num_requests: int = 200, max_model_len: int = 2048, vocab_size: int = 256, seed: int = 0
) -> list[TraceRequest]:
    """Draw a trace.

    Lengths are log-normal with the published means of the named data set; a request longer than `max_model_len`
    is drawn again. Prompts are random tokens, so that no two share a prefix unless you add one.

    Raises:
        ValueError: the name is not one of `PUBLISHED_MEANS`.
    """
    if name not in PUBLISHED_MEANS:
        raise ValueError(f"no trace is called {name!r}; there are {', '.join(PUBLISHED_MEANS)}")
    rng = random.Random(f"{name}:{seed}")
    prompt_mean, output_mean = PUBLISHED_MEANS[name]
    trace: list[TraceRequest] = []
    while len(trace) < num_requests:
        prompt_len, output_len = draw_length(rng, prompt_mean), draw_length(rng, output_mean)
        if prompt_len + output_len <= max_model_len:
            prompt = tuple(rng.randrange(vocab_size) for _ in range(prompt_len))
            trace.append(TraceRequest(prompt, output_len))
    return trace


def poisson_arrivals(num_requests: int, rate: float, seed: int = 0) -> list[float]:
    """When requests come that know nothing of each other: seconds, the first at 0.

    Args:
        rate: requests per second, on average; the gaps are exponential.
    """
    rng = random.Random(seed)
    arrivals = [0.0]
    while len(arrivals) < num_requests:
        arrivals.append(arrivals[-1] + rng.expovariate(rate))
    return arrivals[:num_requests]


def draw_length(rng: random.Random, mean: float) -> int:
    """A log-normal length of at least 1 with the given mean."""
    mu = log(mean) - SIGMA**2 / 2
    return max(1, round(exp(rng.gauss(mu, SIGMA))))
