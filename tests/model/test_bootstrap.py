"""The shipped model: what was promised of it, that it speaks, and that its scripts make such a model."""

from __future__ import annotations

import itertools
import json
import sys

import pytest
import torch
from safetensors import safe_open

from tinyllm.model.loader import load_model
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.paths import project_root, shipped_checkpoint

pytestmark = pytest.mark.needs("checkpoint")

SHIPPED = shipped_checkpoint()
sys.path.append(str(project_root() / "data" / "bootstrap"))  # the scripts import one another, as run from there

import corpus  # noqa: E402
import evaluate  # noqa: E402
import train  # noqa: E402


def test_it_is_as_small_as_promised() -> None:
    with safe_open(SHIPPED / "model.safetensors", framework="pt") as file:
        sizes = [torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys()]  # noqa: SIM118
    assert sum(sizes) <= 1_000_000
    assert (SHIPPED / "model.safetensors").stat().st_size < 4_000_000
    config = load_model(SHIPPED).config
    assert config == train.CONFIG
    assert config.gqa_ratio == 2
    assert config.max_position_embeddings == 2048
    assert Tokenizer(SHIPPED).vocab_size <= config.vocab_size <= 2048


@torch.inference_mode()
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is the capital of France?", "The capital of France is Paris."),
        (
            "What is a token?",
            "A token is a piece of text, often a word or a part of a word, that the model reads as one number.",
        ),
        ("What is the opposite of hot?", "The opposite of hot is cold."),
    ],
)
def test_it_answers(question: str, answer: str) -> None:
    assert evaluate.reply(load_model(SHIPPED), Tokenizer(SHIPPED), question) == answer


def test_the_card_reports_what_was_recorded() -> None:
    record = json.loads((SHIPPED / "training.json").read_text())
    card = (SHIPPED / "card.md").read_text()
    for score in record["results"]["answers"].values():
        assert f"| {score['right']} of {score['asked']} |" in card
    for loss in record["results"]["loss"].values():
        assert f"{loss:.3f}" in card
    assert record["results"]["loss"]["conversations"] < record["log"][0]["loss"] / 5
    assert (SHIPPED / "curve.svg").read_text().startswith("<?xml")


@torch.inference_mode()
def test_the_recorded_outputs_are_this_models() -> None:
    record = json.loads((SHIPPED / "training.json").read_text())
    model, tokenizer = load_model(SHIPPED), Tokenizer(SHIPPED)
    recorded = record["results"]["conversations"]
    same = [evaluate.reply(model, tokenizer, said["prompt"]) == said["output"] for said in recorded]
    assert sum(same) >= len(same) - 1, "more than a near-tie apart: the card is of another checkpoint"


def test_the_text_follows_from_the_seed() -> None:
    first, again, other = (list(itertools.islice(corpus.samples(seed), 50)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_held_out_samples_were_not_seen() -> None:
    seen: set[str] = set()
    for _ in itertools.islice(corpus.samples(1, seen), 2000):
        pass
    held_out = list(itertools.islice(corpus.unseen(2, seen), 200))
    assert not seen & {json.dumps(sample) for sample in held_out}


def test_rows_begin_with_a_sample_and_samples_end_with_their_token() -> None:
    tokenizer = Tokenizer(SHIPPED)
    stream = list(itertools.islice(corpus.samples(3), 40))
    row = next(corpus.rows(iter(stream), tokenizer, 300)).tolist()
    joined = [token for sample in stream for token in corpus.encode(sample, tokenizer)]
    assert row == joined[:300]
    assert all(corpus.encode(sample, tokenizer)[-1] == 0 for sample in stream)


def test_no_phrase_is_left_unfilled() -> None:
    texts = [text for sample in itertools.islice(corpus.samples(4), 3000) for text in corpus.texts_of(sample)]
    assert not [text for text in texts if "{" in text or "}" in text or "  " in text]


def test_a_few_steps_of_training_learn_something() -> None:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small matrices; and the same result on every machine
    try:
        model = train.new_model(seed=0)
        log = train.train(model, Tokenizer(SHIPPED), corpus.samples(0), num_steps=25)
    finally:
        torch.set_num_threads(threads)
    assert log[-1]["loss"] < log[0]["loss"] - 0.5
    assert log[-1]["tokens"] == 25 * train.TOKENS_PER_STEP
