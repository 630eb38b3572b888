"""The shipped checkpoints: what transformers computes, and how large they are."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.evaluate import CHECKPOINTS
from data.evaluation.report import MODELS
from data.training.mixture import sample_of
from tinyllm.model.attention import causal_attend
from tinyllm.model.loader import load_model
from tinyllm.model.tokenizer import Tokenizer


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
        logits = ours.compute_logits(ours(ids, torch.arange(len(ids)), causal_attend()))
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
