"""Training: what is learned from a sample, the same batches for the same seed, and models made from models."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

from data.tasks.sample import Conversation, Document, Sample
from data.tasks.tool_calls import ToolCall
from data.tokenizer import CONTROL_TOKENS, IM_END, train_tokenizer
from data.training import loop
from data.training.attention import BLOCK, blocked_attend
from data.training.batches import Packed, Plan, Shard, batches, grouped, shard_of
from data.training.compiled import compile_layers
from data.training.encode import DOCUMENT_WEIGHT, PROMPT_WEIGHT, Encoded, Encoder
from data.training.fitting import TRIAL_STEPS, seconds_a_step
from data.training.loop import Run, train
from data.training.loss import (
    add_gradients,
    balanced_loss,
    distillation_loss,
    logits_of,
    next_token_loss,
)
from data.training.mixture import SHARES, draw, sample_of
from data.training.muon import Muon
from data.training.optimizer import rate
from data.training.presets import PRESETS, config
from data.training.progress import Probe
from data.training.recipe import MOSTLY, mostly_of
from data.training.shapes import (
    add_task_vector,
    interpolate_weights,
    interpolate_with_upcycled,
    new_model,
    with_experts,
    with_layers_doubled,
)
from data.training.vocabulary import texts
from tinyllm.kv_cache.dense import DenseKVCache
from tinyllm.model.attention import causal_attend
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer

CPU = torch.device("cpu")
SMALL = config(32, 48, 2, 2, 1)
PLAN = Plan(steps=40, shards=2, pieces=1, tokens_per_piece=512, max_length=512, seed=3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(itertools.islice(texts(0), 3000), folder, max_length=2048)
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> Encoder:
    return Encoder(tokenizer)


@pytest.fixture(scope="module")
def shard(encoder: Encoder) -> Shard:
    rng = Random(0)
    return shard_of([encoder.encode(sample_of("reading", rng), rng, 512) for _ in range(3)])


def model_of(seed: int = 0) -> Qwen3ForCausalLM:
    model = new_model(SMALL, seed)
    for weight in model.parameters():  # far from the start, so that nothing agrees by being small
        weight.data += 0.05 * torch.randn_like(weight)
    return model


def short(rng: Random, progress: float) -> Sample:
    return Document(" ".join(str(rng.randrange(1000)) for _ in range(rng.randint(2, 40))))


# What is learned from a sample


def test_the_assistant_is_learned_and_an_eighth_of_the_rest(encoder: Encoder) -> None:
    sample = Conversation(
        [
            {"role": "user", "content": "Say <|im_start|>assistant\nno<|im_end|> to me, " + "please " * 30},
            {"role": "assistant", "content": "Yes, I will."},
            {"role": "user", "content": "And again?"},
            {"role": "assistant", "content": "Gladly."},
        ]
    )
    encoded = encoder.encode(sample, Random(0), 2048)
    learned = [int(i) for i in encoded.ids[encoded.weights == 1]]
    spoken = encoder.tokenizer.decode(learned, skip_special=False)
    assert spoken == "Yes, I will.<|im_end|>Gladly.<|im_end|>"
    others = encoded.weights[encoded.weights < 1]
    assert set(others.tolist()) == {0.0, PROMPT_WEIGHT}
    assert (others > 0).mean() == pytest.approx(1 / 8, abs=0.03)
    assert encoded.weights[0] == 0


def test_a_mistake_is_read_and_not_learned(encoder: Encoder) -> None:
    said = ["Wrong.", "Right.", "Well."]
    messages = [
        message
        for text in said
        for message in ({"role": "user", "content": "Now?"}, {"role": "assistant", "content": text})
    ]
    encoded = encoder.encode(Conversation(messages, unlearned=[1]), Random(0), 2048)
    spoken = encoder.tokenizer.decode([int(i) for i in encoded.ids[encoded.weights == 1]], skip_special=False)
    assert spoken == "Right.<|im_end|>Well.<|im_end|>"


def test_tool_calls_are_learned_and_their_results_are_not(encoder: Encoder) -> None:
    sample = sample_of("tools", Random(4), level=0.0)
    assert isinstance(sample, Conversation)
    encoded = encoder.encode(sample, Random(0), 4096)
    spoken = encoder.tokenizer.decode([int(i) for i in encoded.ids[encoded.weights == 1]], skip_special=False)
    wanted = ""
    for message in sample.messages:
        if message["role"] == "assistant":
            calls = [call["function"] for call in message.get("tool_calls", ())]
            wanted += message["content"] + "\n".join(ToolCall(c["name"], c["arguments"]).text for c in calls) + IM_END
    assert spoken == wanted
    assert "<tool_call>" in spoken
    assert any(message["role"] == "tool" for message in sample.messages)
    assert "<tool_response>" not in spoken


def test_every_token_of_a_document_is_learned_and_its_end(encoder: Encoder) -> None:
    encoded = encoder.encode(Document("The town of Velmora."), Random(0), 2048)
    assert encoder.tokenizer.decode([int(i) for i in encoded.ids], skip_special=False).endswith("<|endoftext|>")
    assert encoded.weights.tolist() == [0.0] + [DOCUMENT_WEIGHT] * (len(encoded.ids) - 1)


def test_the_mixture_has_every_task_and_starts_with_copying() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    drawn = {task: sample_of(task, Random(1)) for task in SHARES}
    assert {type(sample) for sample in drawn.values()} == {Document, Conversation}
    rng = Random(0)
    first = [str(draw(rng, 0.0)) for _ in range(300)]
    last = [str(draw(rng, 1.0)) for _ in range(300)]
    with_tools = [sum("function" in text for text in part) for part in (first, last)]
    assert with_tools[0] < with_tools[1]


def test_the_vocabulary_is_learned_from_text_without_control_tokens() -> None:
    for text in itertools.islice(texts(0), 2000):
        assert text
        assert not any(token in text for token in CONTROL_TOKENS)


# Batches


def row(length: int) -> Encoded:
    ids = torch.arange(1, length + 1).numpy()
    weights = torch.ones(length).numpy()
    weights[0] = 0
    return Encoded(ids, weights)


def test_a_group_never_exceeds_the_budget_unless_one_row_does() -> None:
    lengths = [1, 3, 200, 64, 64, 65, 700, 8, 9, 31]
    groups = grouped([row(n) for n in lengths], budget=256)
    assert sorted(len(r.ids) for group in groups for r in group) == sorted(lengths)
    for group in groups:
        padded = len(group) * max(len(r.ids) for r in group)
        assert padded <= 256 or len(group) == 1


def test_a_shard_lists_each_prediction_and_its_label() -> None:
    made = shard_of([row(3), row(5)], [row(2)])
    assert made.shapes == ((2, 5), (1, 2))
    assert made.input_ids.tolist() == [1, 2, 3, 0, 0, 1, 2, 3, 4, 5, 1, 2]
    assert made.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert made.at.tolist() == [0, 1, 5, 6, 7, 8, 10]
    assert made.labels.tolist() == [2, 3, 2, 3, 4, 5, 2]
    assert made.weights.tolist() == [1.0] * 7


def test_shards_come_out_of_a_pack_as_they_went_in() -> None:
    shards = [shard_of([row(3), row(5)], [row(2)]), shard_of([row(7)]), shard_of([row(1), row(4)])]
    assert same(shards, Packed.of(shards).shards(CPU))


def test_a_shard_is_filled_up_with_what_nothing_is_learned_from(encoder: Encoder) -> None:
    rows = [encoder.encode(short(Random(i), 0), Random(i), 512) for i in range(5)]
    bare, full = shard_of(rows[:3], rows[3:]), shard_of(rows[:3], rows[3:], fill_to=700)
    assert len(full.input_ids) == 700 > len(bare.input_ids)
    assert torch.equal(bare.at, full.at)
    assert torch.equal(full.positions[: len(bare.input_ids)], bare.positions)
    model = model_of()
    assert next_token_loss(model, full).item() == pytest.approx(next_token_loss(model, bare).item(), rel=1e-5)


def same(a: list[Shard], b: list[Shard]) -> bool:
    return len(a) == len(b) and all(
        x.shapes == y.shapes
        and all(torch.equal(getattr(x, name), getattr(y, name)) for name in ("input_ids", "at", "labels", "weights"))
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("pieces", [1, 3])
def test_batches_follow_from_the_seed_and_the_step_alone(encoder: Encoder, pieces: int) -> None:
    plan = replace(PLAN, pieces=pieces)
    whole = list(batches(plan, short, encoder, 0, workers=0))[: plan.steps]
    again = list(batches(plan, short, encoder, 0, workers=2))[: plan.steps]
    later = list(batches(plan, short, encoder, 35, workers=0))[: plan.steps - 35]
    assert len(whole) == plan.steps
    assert all(len(batch) == plan.shards for batch in whole)
    assert all(len(shard.shapes) == pieces for batch in whole for shard in batch)
    assert all(len(shard.input_ids) == 512 * pieces for batch in whole for shard in batch) == (pieces > 1)
    assert all(rows * length <= 512 for batch in whole for shard in batch for rows, length in shard.shapes)
    assert all(same(a, b) for a, b in zip(whole, again, strict=True))
    assert all(same(a, b) for a, b in zip(whole[35:], later, strict=True))
    other = next(batches(replace(plan, seed=4), short, encoder, 0, workers=0))
    assert not same(whole[0], other)


# Gradients


@pytest.mark.parametrize("length", [1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_blocked_attention_agrees_with_the_plain_one(length: int) -> None:
    torch.manual_seed(length)
    q, k, v = (torch.randn(3 * length, heads, 32) for heads in (4, 2, 2))
    wanted = causal_attend(3)(0, q, k, v)
    assert torch.allclose(blocked_attend(3)(0, q, k, v).float(), wanted, atol=0.05)


def test_shards_side_by_side_give_the_gradient_of_the_whole(shard: Shard) -> None:
    model = model_of()
    halves = [
        Shard(
            shard.shapes,
            shard.input_ids,
            *(x[part] for x in (shard.at, shard.labels, shard.weights)),
        )
        for part in (slice(0, 50), slice(50, None))
    ]
    with ThreadPoolExecutor(2) as pool:
        mean = add_gradients(model, halves, next_token_loss, pool, autocast=False)
        together = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
        alone = add_gradients(model, [shard], next_token_loss, pool, autocast=False)
    assert mean.item() == pytest.approx(alone.item(), rel=1e-5)
    for got, weight in zip(together, model.parameters(), strict=True):
        assert weight.grad is not None
        assert torch.allclose(got, weight.grad, atol=1e-5)


def test_a_batch_in_pieces_gives_the_losses_of_its_pieces(encoder: Encoder) -> None:
    rng = Random(1)
    pieces = [
        [encoder.encode(sample_of(task, rng), rng, 512) for _ in range(2)] for task in ("reading", "talk", "copying")
    ]
    model = model_of()
    together = next_token_loss(model, shard_of(*pieces)).item()
    assert together == pytest.approx(sum(next_token_loss(model, shard_of(piece)).item() for piece in pieces), rel=1e-5)


def test_layers_in_parts_compute_what_whole_layers_do(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the parts are compiled; here they are only parted, and the GPU lane compiles them."""
    model, parted = model_of(), model_of()
    monkeypatch.setattr(torch, "compile", lambda part, **_: part)
    compile_layers(parted)
    assert torch.equal(scores(model, shard), scores(parted, shard))


@pytest.mark.gpu
def test_compiled_layers_have_the_gradients_of_plain_ones(encoder: Encoder) -> None:
    rng = Random(2)
    pieces = [[encoder.encode(sample_of(task, rng), rng, 512) for _ in range(4)] for task in ("reading", "tools")]
    (shard,) = Packed.of([shard_of(*pieces)]).shards(torch.device("cuda"))
    plain, compiled = model_of().to("cuda"), model_of().to("cuda")
    compile_layers(compiled)
    with ThreadPoolExecutor(1) as pool:
        for model in (plain, compiled):
            add_gradients(model, [shard], next_token_loss, pool, autocast=False)
    for (name, wanted), got in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        assert wanted.grad is not None
        assert got.grad is not None
        assert torch.allclose(wanted.grad, got.grad, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (3, 24, 40)])
def test_muon_moves_the_weights_as_torch_does(shape: tuple[int, ...]) -> None:
    """Torch takes matrices one by one; stacked products round bfloat16 otherwise, by a few per cent of a step."""
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for _ in range(3)]
    start = [weight.detach().clone() for weight in ours]
    theirs = [torch.nn.Parameter(matrix.clone()) for weight in start for matrix in weight.view(-1, *shape[-2:])]
    mine = Muon(ours, lr=0.01, weight_decay=0.1)
    peer = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        gradients = [torch.randn(shape) for _ in ours]
        for weight, gradient in zip(ours, gradients, strict=True):
            weight.grad = gradient
        for weight, gradient in zip(theirs, (m for g in gradients for m in g.view(-1, *shape[-2:])), strict=True):
            weight.grad = gradient.clone()
        mine.step()
        peer.step()
    moved = torch.stack([a.detach() - b for a, b in zip(ours, start, strict=True)]).flatten()
    wanted = torch.cat([weight.detach().flatten() for weight in theirs]) - torch.stack(start).flatten()
    assert (moved - wanted).norm() < 0.05 * wanted.norm()


def test_the_distillation_loss_is_least_at_the_teacher(shard: Shard) -> None:
    teacher = model_of(1)
    loss = distillation_loss(teacher)
    entropy = torch.distributions.Categorical(logits=logits_of(teacher, shard)).entropy()
    least = (entropy * shard.weights).sum()
    assert loss(teacher, shard).item() == pytest.approx(least.item(), rel=1e-4)
    assert loss(model_of(2), shard) > least


def test_the_learning_rate_rises_holds_and_ends_near_zero() -> None:
    shares = [rate(step, 1000) for step in range(1000)]
    assert shares[0] == pytest.approx(0.01)
    assert shares[100] == shares[600] == 1.0
    assert 0 < shares[-1] < 0.01
    assert shares[650:] == sorted(shares[650:], reverse=True)


# Models from models


def scores(model: Qwen3ForCausalLM, shard: Shard) -> Tensor:
    with torch.no_grad():
        return logits_of(model, shard)


def test_doubling_the_layers_changes_nothing_at_first(shard: Shard) -> None:
    model = model_of()
    deeper = with_layers_doubled(model)
    assert len(deeper.layers) == 2 * len(model.layers)
    assert torch.allclose(scores(model, shard), scores(deeper, shard), atol=1e-5)
    next_token_loss(deeper, shard).backward()
    added = deeper.layers[1].self_attn.o_proj.weight.grad
    assert added is not None
    assert added.abs().max() > 0


def test_equal_experts_say_what_the_one_mlp_said(shard: Shard) -> None:
    model = model_of()
    mixture = with_experts(model, num_experts=4, num_experts_per_tok=2, sparse_step=2, seed=0)
    assert mixture.config.sparse_layers == (1,)
    assert torch.allclose(scores(model, shard), scores(mixture, shard), atol=1e-4)


def test_a_run_can_be_mostly_of_one_task() -> None:
    drawn = [mostly_of("article", Random(seed), 0.0) for seed in range(600)]
    documents = sum(isinstance(sample, Document) for sample in drawn) / len(drawn)
    assert documents == pytest.approx(MOSTLY + (1 - MOSTLY) * (SHARES["article"] + SHARES["free text"]), abs=0.06)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_end_part_of_the_way(share: float) -> None:
    before, trained = model_of(0), model_of(1)
    wanted = [old + share * (new - old) for old, new in zip(before.parameters(), trained.parameters(), strict=True)]
    interpolate_weights(trained, before, share)
    for got, weight in zip(trained.parameters(), wanted, strict=True):
        assert torch.allclose(got, weight, atol=1e-6)


def test_a_mixture_takes_what_its_model_has_learned_since(shard: Shard) -> None:
    before, since = model_of(0), model_of(0)
    for weight in since.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    mixture = with_experts(before, num_experts=4, num_experts_per_tok=2, sparse_step=2, seed=0)
    add_task_vector(mixture, before, since)
    grown = with_experts(since, num_experts=4, num_experts_per_tok=2, sparse_step=2, seed=0)
    assert not torch.allclose(scores(before, shard), scores(since, shard), atol=1e-2)
    assert torch.allclose(scores(mixture, shard), scores(grown, shard), atol=1e-4)


def test_a_mixture_keeps_part_of_what_sets_it_apart(shard: Shard) -> None:
    target = model_of(0)
    grown = with_experts(target, num_experts=4, num_experts_per_tok=2, sparse_step=2, seed=0)
    mixture = copy.deepcopy(grown)
    for weight in mixture.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    own = {name: weight.clone() for name, weight in mixture.state_dict().items()}
    interpolate_with_upcycled(mixture, target, 0.25)
    for name, weight in mixture.state_dict().items():
        is_router = name.endswith("mlp.gate.weight")
        expected = own[name] if is_router else torch.lerp(grown.state_dict()[name], own[name], 0.25)
        assert torch.allclose(weight, expected, atol=1e-6), name
    interpolate_with_upcycled(mixture, target, 0.0)
    assert torch.allclose(scores(mixture, shard), scores(target, shard), atol=1e-4)


def test_uneven_routing_costs_more(shard: Shard) -> None:
    mixture = with_experts(model_of(), num_experts=4, num_experts_per_tok=2, sparse_step=1, seed=0)
    plain = next_token_loss(mixture, shard)
    priced = balanced_loss(mixture, 0.1)
    even = priced(mixture, shard) - plain
    with torch.no_grad():
        for layer in mixture.layers:
            layer.mlp.gate.weight.mul_(1000)
    uneven = priced(mixture, shard) - next_token_loss(mixture, shard)
    assert 0 < even < uneven


def test_the_presets_keep_within_what_was_asked() -> None:
    for preset in PRESETS.values():
        assert preset.half_target.num_layers * 2 == preset.target.num_layers
        assert preset.draft.num_layers <= 2
        assert preset.target.vocab_size == preset.draft.vocab_size <= 4096
        assert sum(weight.numel() for weight in new_model(preset.target, 0).parameters()) <= 8_500_000


# The loop


def run_of(steps: int, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    return Run(new_model(SMALL, 0), steps, grow_at=4)


def test_a_stopped_run_goes_on_as_if_it_had_not(
    encoder: Encoder, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("state")
    plan = replace(PLAN, steps=8)
    common = {"loss": next_token_loss, "device": CPU, "save_every": 2, "description": "test"}

    def go(run: Run, state: str, stop: int | None = None) -> Run:
        stream = batches(plan, short, encoder, run.step, workers=0)
        train(
            run,
            itertools.islice(stream, stop),
            state=folder / state,
            probe=lambda model: {"layers": float(model.config.num_layers)},
            **common,  # type: ignore[arg-type]
        )
        return run

    whole = go(run_of(8, monkeypatch), "whole.pt")
    go(run_of(8, monkeypatch), "stopped.pt", stop=6)
    resumed = run_of(8, monkeypatch)
    resumed.restore(folder / "stopped.pt", CPU)
    assert resumed.step == 6
    go(resumed, "stopped.pt")
    assert [entry["step"] for entry in resumed.log] == [2, 4, 6, 8]
    assert [entry["answers_right"]["layers"] for entry in resumed.log] == [2, 2, 4, 4]
    assert [entry["loss"] for entry in resumed.log] == [entry["loss"] for entry in whole.log]
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def train_until(deadline: float, run: Run, encoder: Encoder, folder: Path, save_every: int) -> None:
    stream = batches(replace(PLAN, steps=run.steps), short, encoder, 0, workers=0)
    train(
        run,
        stream,
        next_token_loss,
        device=CPU,
        state=folder / "state.pt",
        save_every=save_every,
        probe=lambda model: {},
        description="test",
        deadline=deadline,
    )


def test_a_run_that_is_late_is_shortened_and_still_ends_cold(encoder: Encoder, tmp_path: Path) -> None:
    """At step 12 the pace is known, and the deadline has passed: one more step, and it grows before that."""
    run = Run(new_model(SMALL, 0), 40, grow_at=20)
    train_until(0.0, run, encoder, tmp_path, save_every=6)
    assert run.step == run.steps == 13
    assert run.model.config.num_layers == 4
    assert rate(12, run.steps) < 1 / 4


def test_a_run_with_time_enough_is_not_shortened(encoder: Encoder, tmp_path: Path) -> None:
    run = Run(new_model(SMALL, 0), 8)
    train_until(time.perf_counter() + 3600, run, encoder, tmp_path, save_every=2)
    assert run.step == run.steps == 8


def test_a_trial_takes_the_time_of_both_depths(encoder: Encoder) -> None:
    run = Run(new_model(SMALL, 0), TRIAL_STEPS, grow_at=TRIAL_STEPS // 2)
    streams = []

    def stream() -> Iterator[list[Shard]]:
        streams.append(run.model.config.num_layers)
        return batches(replace(PLAN, steps=TRIAL_STEPS), short, encoder, run.step, workers=0)

    assert 0 < seconds_a_step(run, stream, next_token_loss, CPU) < 60
    assert streams == [2, 4]


def test_a_run_is_saved_as_often_as_asked_whatever_it_logs(encoder: Encoder, tmp_path: Path) -> None:
    run = Run(new_model(SMALL, 0), 7)
    saved: list[int] = []
    train(
        run,
        batches(replace(PLAN, steps=7), short, encoder, 0, workers=0),
        next_token_loss,
        device=CPU,
        state=tmp_path / "state.pt",
        save_every=3,
        probe=lambda model: saved.append(run.step) or {},  # type: ignore[func-returns-value]
        description="test",
    )
    assert saved == [entry["step"] for entry in run.log] == [3, 6, 7]
    assert torch.load(tmp_path / "state.pt")["step"] == 7


def test_the_probe_counts_the_answers_that_greedy_decoding_writes(encoder: Encoder) -> None:
    """A model overtrained on two answers has those right, and the probe's count is that of real decoding."""
    rows, prompts = [], []
    for seed in range(4):
        sample = sample_of("reading", Random(seed), level=0.0)
        assert isinstance(sample, Conversation)
        sample = Conversation(sample.messages[:2])
        encoded = encoder.encode(sample, Random(0), 512)
        encoded.weights[encoded.weights < 1] = 0
        rows.append(encoded)
        start = int(encoded.weights.argmax())
        prompts.append((encoded.ids[:start].tolist(), encoded.ids[start : int(encoded.weights.nonzero()[0][-1]) + 1]))
    learned = shard_of(rows[:2])
    model = new_model(SMALL, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(200):
        next_token_loss(model, learned).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.requires_grad_(False)
    decoded = 0
    for prompt, wanted in prompts:
        cache = DenseKVCache(model.config, max_len=1024)
        new, output = prompt, []
        while len(output) < len(wanted):
            step = cache.step([len(new)])
            new = [int(model.compute_logits(model(torch.tensor(new), step.positions, LayerOps(step))[-1:]).argmax())]
            output += new
        decoded += output == wanted.tolist()
    probe = Probe({"reading": [shard_of(rows)]})
    assert decoded >= 2
    assert probe.answers_right(model) == {"reading": decoded / 4}
