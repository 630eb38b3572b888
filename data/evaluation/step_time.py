"""How long one step of decoding takes at batch 1 on one thread: the draft's beside the target's."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch

from benchmarks.record import provenance
from tinyllm.kv_cache.dense import DenseKVCache
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM

CONTEXT = 256  # tokens in the cache
WARM_UP, ROUNDS = 20, 400


class Decoder:
    """A model with a full cache that computes the same next token again and again."""

    def __init__(self, model: Qwen3ForCausalLM) -> None:
        self.model = model
        self.cache = DenseKVCache(model.config, max_len=CONTEXT + 1)
        self._compute(torch.arange(CONTEXT) % model.config.vocab_size)

    @torch.inference_mode()
    def _compute(self, tokens: torch.Tensor) -> None:
        step = self.cache.step([len(tokens)])
        hidden = self.model(tokens, step.positions, LayerOps(step))
        self.model.compute_logits(hidden[-1:])

    def seconds(self) -> float:
        """The time of one step: the model's pass over one token, and its logits."""
        token = torch.zeros(1, dtype=torch.long)
        self.cache.lengths = [CONTEXT]
        started = time.perf_counter()
        self._compute(token)
        return time.perf_counter() - started


def step_times(target: Qwen3ForCausalLM, draft: Qwen3ForCausalLM, rounds: int = ROUNDS) -> dict[str, Any]:
    """Medians over steps of the two in turn, so that what else the machine does falls on both; both are on the CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        decoders = {"target": Decoder(target), "draft": Decoder(draft)}
        times: dict[str, list[float]] = {name: [] for name in decoders}
        for _ in range(WARM_UP + rounds):
            for name, decoder in decoders.items():
                times[name].append(decoder.seconds())
    finally:
        torch.set_num_threads(threads)
    medians = {name: median(taken[WARM_UP:]) for name, taken in times.items()}
    return {
        **provenance(seed=0),
        "threads": 1,
        "context": CONTEXT,
        "rounds": rounds,
        **{f"{name}_ms": round(1000 * seconds, 4) for name, seconds in medians.items()},
        "ratio": round(medians["draft"] / medians["target"], 4),
    }
