"""The same engine on a GPU: tokens equal those of the CPU in float32."""

from __future__ import annotations

import pytest
from support.models import drain, make_engine, tiny_model

from tinyllm.config import SamplingParams


@pytest.mark.gpu
def test_tokens_on_cuda_equal_those_on_the_cpu() -> None:
    def run(device: str) -> dict[str, tuple[tuple[int, ...], ...]]:
        engine = make_engine(tiny_model().to(device), num_blocks=24)
        for i in range(12):
            engine.add_request([i, *range(2 * i + 1)], SamplingParams(max_tokens=10), str(i))
        engine.add_request([1, 2, 3], SamplingParams(max_tokens=10, n=3, temperature=0.8, top_k=9, seed=1), "sampled")
        return drain(engine)

    assert run("cuda") == run("cpu")
