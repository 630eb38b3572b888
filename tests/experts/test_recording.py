"""Expert loads in the step records, against the router's logits counted by hand, and against the law."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.checkpoints import random_model, small_sparse_config
from support.models import VOCAB, drain, make_engine, tiny_model
from torch import Tensor

from tinyllm import SamplingParams
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.metrics import StepRecord
from tinyllm.engine.model_runner import DryRunner
from tinyllm.errors import OptionError
from tinyllm.experts.backends import TorchExperts
from tinyllm.experts.cost import touched_experts
from tinyllm.model.moe import SparseMLP
from tinyllm.model.qwen3 import Qwen3ForCausalLM


def serve(model: Qwen3ForCausalLM, num_requests: int = 5, max_tokens: int = 6, **options: Any) -> list[StepRecord]:
    """Prompts of different lengths, in chunks beside decodes: the records of all steps."""
    engine = make_engine(model, record_experts=True, max_num_batched_tokens=7, **options)
    return finish(engine, num_requests, max_tokens)


def finish(engine: LLMEngine, num_requests: int, max_tokens: int) -> list[StepRecord]:
    for number in range(num_requests):
        engine.add_request(list(range(number, 3 * number + 1)), SamplingParams(max_tokens=max_tokens, ignore_eos=True))
    with engine.step_log.keep_all() as records:
        drain(engine)
    return records


def watch_routers(model: Qwen3ForCausalLM) -> list[tuple[int, Tensor]]:
    """A list that gets layer and logits of every router, call by call."""
    seen: list[tuple[int, Tensor]] = []
    for layer in model.layers:
        if isinstance(layer.mlp, SparseMLP):
            number = layer.mlp.layer
            layer.mlp.gate.register_forward_hook(lambda _, __, logits, number=number: seen.append((number, logits)))
    return seen


def by_hand(layer: int, logits: Tensor, top_k: int) -> tuple[int, int, float]:
    load = [0] * logits.shape[1]
    for row in logits.tolist():
        for expert in sorted(range(len(row)), key=lambda e: -row[e])[:top_k]:
            load[expert] += 1
    return layer, sum(count > 0 for count in load), max(load) / (sum(load) / len(load))


@pytest.mark.parametrize(
    ("layers", "sparse"), [({}, (0, 1, 2)), ({"decoder_sparse_step": 2}, (1,)), ({"mlp_only_layers": (1,)}, (0, 2))]
)
@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 2), (7, 3), (3, 1)])
def test_records_hold_what_the_routers_chose(
    num_experts: int, top_k: int, layers: dict[str, Any], sparse: tuple[int, ...]
) -> None:
    model = random_model(small_sparse_config(num_experts=num_experts, num_experts_per_tok=top_k, **layers))
    seen = watch_routers(model)
    records = serve(model)
    expected = iter([by_hand(layer, logits, top_k) for layer, logits in seen])
    assert len(records) * len(sparse) == len(seen)
    for record in records:
        assert tuple(load.layer for load in record.experts) == sparse
        for load in record.experts:
            layer, num_touched, imbalance = next(expected)
            assert (load.layer, load.num_touched) == (layer, num_touched)
            assert load.imbalance == pytest.approx(imbalance)
            assert load.num_touched <= top_k * (record.num_prefill_tokens + record.num_decode_tokens)


def test_tokens_do_not_depend_on_the_recording() -> None:
    model = tiny_model(num_experts=6)
    outputs = []
    for record_experts in (False, True):
        engine = make_engine(model, record_experts=record_experts)
        assert all(not record.experts for record in engine.step_records)
        for number in range(3):
            engine.add_request([number, 5], SamplingParams(max_tokens=5, ignore_eos=True), str(number))
        outputs.append(drain(engine))
        assert all(bool(record.experts) == record_experts for record in engine.step_records)
    assert outputs[0] == outputs[1]


def test_nothing_is_recorded_where_there_are_no_experts_or_no_model() -> None:
    assert all(record.experts == () for record in serve(tiny_model()))
    engine = make_engine(tiny_model(num_experts=4), record_experts=True)
    engine.runner = DryRunner(VOCAB)
    assert [record.experts for record in finish(engine, num_requests=1, max_tokens=2)] == [(), ()]


def test_a_step_that_broke_off_leaves_nothing_to_the_next() -> None:
    model = random_model(small_sparse_config())
    engine = make_engine(model, record_experts=True)
    engine.add_request(list(range(30)), SamplingParams(max_tokens=2, ignore_eos=True))
    handle = model.norm.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.step()
    handle.remove()
    seen = watch_routers(model)
    drain(engine)
    for record in engine.step_records:
        for load in record.experts:
            assert load.num_touched == by_hand(*seen.pop(0), top_k=2)[1]
    assert not seen


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
def test_the_law_of_touched_experts_holds_for_a_fair_router(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    num_experts, top_k, steps = 32, 2, 40
    model = tiny_model(num_experts=num_experts)
    generator = torch.Generator().manual_seed(batch)
    for layer in model.layers:
        monkeypatch.setattr(layer.mlp.gate, "forward", lambda x: torch.rand(len(x), num_experts, generator=generator))
    engine = make_engine(model, record_experts=True, num_blocks=1024)
    for number in range(batch):
        engine.add_request([number], SamplingParams(max_tokens=steps, ignore_eos=True))
    with engine.step_log.keep_all() as records:
        drain(engine)
    assert all(record.num_decode_tokens == batch for record in records)
    touched = [load.num_touched for record in records for load in record.experts]
    assert len(touched) == 2 * steps
    assert sum(touched) / len(touched) == pytest.approx(touched_experts(batch, top_k, num_experts), rel=0.03)


def test_a_switch_and_nothing_else() -> None:
    with pytest.raises(OptionError, match="record_experts is 1; it must be True or False"):
        make_engine(tiny_model(), record_experts=1)


def test_no_cuda_graph_counts_padding() -> None:
    runner: Any = make_engine(tiny_model(num_experts=4), record_experts=True).runner
    runner.experts.run = type("Capturable", (TorchExperts,), {"supports_cuda_graphs": True})()
    assert not runner.supports_cuda_graphs
