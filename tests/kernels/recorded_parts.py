"""Prints, as JSON, what an engine answers on recorded kernels and on the reference. Run with the interpreter on."""

from __future__ import annotations

import json

import torch
from support.cells import record_solution
from support.models import NumberTokenizer, drain, tiny_model

from tinyllm.attention.triton import TritonAttention
from tinyllm.config import EngineConfig, SamplingParams
from tinyllm.engine.engine import LLMEngine
from tinyllm.kernels.cases import KERNELS
from tinyllm.parts import resolve


def main() -> None:
    """Record, serve, print; the pool of parts is the one of $TINYLLM_WORK."""
    torch.set_num_threads(1)
    for name in KERNELS:
        record_solution(name)
    mine = resolve("mine")
    files = {name: mine[name].__code__.co_filename for name in KERNELS}
    tokens = {}
    for label, parts, split_size in (("reference", resolve(), None), ("mine", mine, None), ("mine in splits", mine, 1)):
        config = EngineConfig.from_options(block_size=3, num_blocks=30, max_num_batched_tokens=8)
        backend = TritonAttention(split_size=split_size, parts=parts)
        engine = LLMEngine(tiny_model(gqa_ratio=3), NumberTokenizer(), config, parts, backend=backend)  # type: ignore[arg-type]
        for i, length in enumerate((1, 19, 6)):
            engine.add_request(list(range(i, i + length)), SamplingParams(max_tokens=5), str(i))
        tokens[label] = drain(engine)
    print(json.dumps({"files": files, "tokens": tokens}))


if __name__ == "__main__":
    main()
