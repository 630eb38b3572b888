"""A request that fails while it runs: its caller learns why, and no other request notices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from support.models import VOCAB, make_engine, tiny_model
from torch import Tensor

from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.request import RequestOutput
from tinyllm.errors import GenerationError
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.sampling_params import SamplingParams

POISON = VOCAB - 1


def poisoned_model() -> Qwen3ForCausalLM:
    """A model whose last token has an embedding of NaN: hidden states, K, V and logits after it are NaN."""
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(replace(tiny_model().config, tie_word_embeddings=False))
    for name, weight in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.embed_tokens.weight.data[POISON] = torch.nan
    return model.requires_grad_(False).eval()


MODEL = poisoned_model()


def run(engine: LLMEngine) -> dict[str, RequestOutput]:
    outputs = {}
    while engine.has_unfinished:
        outputs |= {output.request_id: output for output in engine.step()}
    return outputs


@pytest.mark.parametrize("num_blocks", [256, 24], ids=["roomy", "tiny pool"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_ends_one_request_and_no_other(num_blocks: int, temperature: float) -> None:
    """Its blocks go to others afterwards: what lies in them must not reach anyone, the first block of the pool too."""
    params = SamplingParams(max_tokens=15, temperature=temperature, seed=5)
    good = {str(i): [1 + i, *range(3 * i)] for i in range(8)}
    alone = {}
    for name, prompt in good.items():
        engine = make_engine(MODEL)
        engine.add_request(prompt, params, name)
        alone |= {key: output.outputs[0].token_ids for key, output in run(engine).items()}
    engine = make_engine(MODEL, num_blocks=num_blocks, max_num_batched_tokens=40)
    bad = [2, POISON, *range(20)]
    engine.add_request(bad, replace(params, n=2), "bad at once")
    for name, prompt in good.items():
        engine.add_request(prompt, params, name)
        engine.add_request(bad, params, f"bad {name}")
    outputs = run(engine)
    for name in good:
        assert outputs[name].outputs[0].token_ids == alone[name]
        failed = outputs[f"bad {name}"]
        assert failed.outputs[0].finish_reason == "error"
        with pytest.raises(GenerationError, match=f"bad {name} failed: the logits hold NaN"):
            _ = failed.text
    assert [output.token_ids for output in outputs["bad at once"].outputs] == [(), ()]
    assert engine.kv.prefix_cache is not None
    engine.kv.prefix_cache.evict(engine.kv.num_blocks)
    assert engine.kv.num_free == engine.kv.num_blocks


def test_a_prompt_that_failed_is_not_cached() -> None:
    engine = make_engine(MODEL)
    engine.add_request([POISON] * 20, SamplingParams(), "bad")
    run(engine)
    assert engine.kv.num_free == engine.kv.num_blocks


def test_what_came_before_the_failure_is_kept() -> None:
    def fails_third(output: Sequence[int]) -> Tensor:
        allowed = torch.ones(VOCAB, dtype=torch.bool)
        allowed[POISON] = False
        return allowed if len(output) < 2 else allowed & False

    engine = make_engine(MODEL)
    engine.add_request([1, 2], SamplingParams(allowed_tokens=fails_third), "a")
    engine.add_request([1, 2], SamplingParams(max_tokens=5, logit_bias={POISON: -torch.inf}), "b")
    outputs = run(engine)
    (failed,), (whole,) = outputs["a"].outputs, outputs["b"].outputs
    assert "no token is left" in failed.error
    assert failed.token_ids == whole.token_ids[:2]
    assert failed.text == " ".join(map(str, failed.token_ids))
    assert whole.finish_reason == "length"
