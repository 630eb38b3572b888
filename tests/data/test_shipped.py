"""The shipped checkpoints: what transformers computes, and what evaluation.json says of them."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.evaluate import CHECKPOINTS, FIGURES
from data.evaluation import reading, tools
from data.evaluation.candidate import Candidate
from data.evaluation.report import MODELS, as_json, lines
from data.evaluation.score import Rate
from data.evaluation.suite import fingerprint
from data.training.mixture import sample_of
from tinyllm.model.attention import causal_attend
from tinyllm.model.loader import load_model
from tinyllm.model.ops import LayerOps
from tinyllm.model.tokenizer import Tokenizer

QUESTIONS, TASKS = 24, 10
# Sums are taken in another order on another machine, so two tokens that are almost equally likely may change places.
MARGIN = 2


@cache
def figures() -> dict[str, Any]:
    return json.loads((CHECKPOINTS / FIGURES).read_text())


MEASURED = tuple(figures()["models"])


@cache
def candidate(name: str) -> Candidate:
    return Candidate(CHECKPOINTS / name)


def conversation() -> Any:
    return sample_of("tools", random.Random(0), held_out=True)


@pytest.mark.parametrize("name", MODELS)
def test_logits_agree_with_transformers(name: str) -> None:
    folder = CHECKPOINTS / name
    sample = conversation()
    ids = torch.tensor(Tokenizer(folder).apply_chat_template(sample.messages, sample.tools))
    ours = load_model(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = theirs(ids[None]).logits[0]
        logits = ours.compute_logits(ours(ids, torch.arange(len(ids)), LayerOps(causal_attend())))
    assert len(ids) > 200
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_tokenizers_agree_with_transformers(name: str) -> None:
    folder = CHECKPOINTS / name
    sample = conversation()
    theirs = AutoTokenizer.from_pretrained(folder)
    expected = theirs.apply_chat_template(
        list(sample.messages), tools=list(sample.tools), add_generation_prompt=True, return_dict=False
    )
    assert Tokenizer(folder).apply_chat_template(sample.messages, sample.tools) == expected
    assert (folder / "tokenizer.json").read_bytes() == (CHECKPOINTS / "target" / "tokenizer.json").read_bytes()


def test_the_checkpoints_are_small() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINTS.rglob("*") if path.is_file()) < 40e6


@pytest.mark.parametrize("name", MEASURED)
def test_the_figures_are_of_these_weights(name: str) -> None:
    assert figures()["models"][name]["weights"] == fingerprint(CHECKPOINTS / name)


def test_the_target_is_measured() -> None:
    assert "target" in MEASURED


def test_the_table_is_what_the_figures_give() -> None:
    assert json.loads(json.dumps(as_json(lines(figures())))) == figures()["table"]


@pytest.mark.parametrize("name", MEASURED)
def test_the_card_states_the_figures(name: str) -> None:
    folder = CHECKPOINTS / name
    card = (folder / "card.md").read_text()
    for line in lines(figures()):
        if name in line.values:
            assert f"| {line.measure} | {line.written(line.values[name])}" in card
    for run in json.loads((folder / "training.json").read_text())["runs"]:
        assert (
            f"| {run['steps']:,} | {run['tokens_per_step_at_most']:,} | {run['minutes']:g} | {run['device']} |" in card
        )
    assert "(curve.svg)" in card
    assert (folder / "curve.svg").is_file()
    assert json.loads((folder / "training.json").read_text())["log"]


def differences(measured: Rate, recorded: dict[str, Any]) -> int:
    """How many of the outcomes are not those recorded for the same items."""
    pairs = zip(measured.outcomes, recorded["outcomes"], strict=False)
    return sum(hit != (mark == "1") for hit, mark in pairs)


@pytest.mark.parametrize("name", MEASURED)
def test_answers_are_as_recorded(name: str) -> None:
    recorded = figures()["models"][name]["reading"][reading.MAIN]
    measured = reading.read(candidate(name), reading.draw(QUESTIONS))
    assert len(measured["right"].outcomes) == QUESTIONS <= recorded["right"]["asked"]
    assert differences(measured["right"], recorded["right"]) <= MARGIN
    assert differences(measured["value"], recorded["value"]) <= MARGIN


@pytest.mark.parametrize("name", MEASURED)
def test_tool_tasks_are_solved_as_recorded(name: str) -> None:
    recorded = figures()["models"][name]["tools"][tools.calls_row(2)]
    measured = tools.solve(candidate(name), tools.draw(TASKS, 2))
    assert len(measured["solved"].outcomes) == TASKS <= recorded["solved"]["asked"]
    assert differences(measured["solved"], recorded["solved"]) <= MARGIN
