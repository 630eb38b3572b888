"""A request that fails while it runs: its caller learns why, and no other request notices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from support.models import VOCAB, assert_no_block_lost, make_engine, tiny_model
from torch import Tensor

from tinyllm.attention.paged_attention import paged_attention
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.request import RequestOutput
from tinyllm.errors import GenerationError
from tinyllm.kv_cache.storage import PagedKVCache
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.parts import resolve
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
    assert_no_block_lost(engine)


def test_a_prompt_that_failed_is_not_cached() -> None:
    engine = make_engine(MODEL)
    engine.add_request([POISON] * 20, SamplingParams(), "bad")
    run(engine)
    assert engine.kv.num_free == engine.kv.num_blocks


class LosesFarPositions(PagedKVCache):
    """A learner's storage that reads rubbish beyond the 20th position of a context."""

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        k, v = super().gather(layer, slots)
        far = torch.arange(slots.shape[-1])[:, None, None] >= 20
        return k.masked_fill(far, torch.nan), v.masked_fill(far, torch.nan)


def loses_far_positions(
    q: Tensor, k: Tensor, v: Tensor, tables: Tensor, context_lens: Tensor, starts: Tensor, block_size: int
) -> Tensor:
    """A learner's attention that computes rubbish for prompts of more than 20 tokens."""
    out = paged_attention(q, k, v, tables, context_lens, starts, block_size)
    far = (context_lens > 20).repeat_interleave(starts.diff())
    return out.masked_fill(far[:, None, None], torch.nan)


def test_a_broken_part_fails_the_requests_that_need_it_and_no_other() -> None:
    params = SamplingParams(max_tokens=4)
    prompts = {"short": [1, 2, 3], "long at once": [1] * 25, "long later": [2] * 18, "short too": [4]}
    engine = make_engine(MODEL, resolve({"PagedKVCache": LosesFarPositions, "paged_attention": loses_far_positions}))
    for name, prompt in prompts.items():
        engine.add_request(prompt, params, name)
    outputs = {name: output.outputs[0] for name, output in run(engine).items()}
    assert {name: len(output.token_ids) for name, output in outputs.items() if not output.error} == {
        "short": 4,
        "short too": 4,
    }
    assert [len(outputs[name].token_ids) for name in ("long at once", "long later")] == [0, 3]
    assert "attention or the model computed nonsense" in outputs["long later"].error
    assert_no_block_lost(engine)


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
