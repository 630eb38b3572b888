"""What `LLM` makes of lists, bad input and interruptions, on a small random checkpoint with one token a byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.checkpoints import random_model, small_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from tinyllm import LLM, SamplingParams
from tinyllm.engine.model_runner import Runner
from tinyllm.engine.scheduler import ScheduledRequest
from tinyllm.errors import GenerationError, OptionError, RequestError
from tinyllm.model.loader import save_model

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
FOUR = SamplingParams(max_tokens=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose tokenizer knows the 256 bytes."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_model(random_model(small_config(vocab_size=256, eos_token_ids=())), folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


@pytest.fixture
def llm(folder: Path) -> LLM:
    return LLM(folder, num_blocks=64, max_model_len=200)


def test_one_prompt_or_many_in_every_form(llm: LLM) -> None:
    ids = llm.tokenizer.encode("Hello")
    forms: list[Any] = ["Hello", ids, tuple(ids), np.array(ids), ["Hello"], [ids], ("Hello",)]
    outputs = [llm.generate(form, FOUR) for form in forms]
    assert {len(output) for output in outputs} == {1}
    assert {output[0].outputs[0].token_ids for output in outputs} == {outputs[0][0].outputs[0].token_ids}
    assert [len(o.outputs[0].token_ids) for o in llm.generate(["a", ids], [FOUR, SamplingParams(max_tokens=2)])] == [
        4,
        2,
    ]


def test_one_conversation_or_many(llm: LLM) -> None:
    conversation = [{"role": "user", "content": "Hi"}]
    (alone,) = llm.chat(conversation, FOUR)
    first, second = llm.chat([conversation, conversation], [FOUR, SamplingParams(max_tokens=2)])
    assert alone.prompt_token_ids == tuple(llm.tokenizer.encode("user: Hi\n"))
    assert first.outputs[0].token_ids == alone.outputs[0].token_ids
    assert second.outputs[0].token_ids == alone.outputs[0].token_ids[:2]


@pytest.mark.parametrize(
    ("prompts", "params", "words"),
    [
        ("", None, "^the prompt is empty"),
        (["a", ""], None, r"prompt 1 of 2 \(counted from 0\): the prompt is empty"),
        (["a", []], None, "prompt 1 of 2.*empty"),
        ([], None, "no prompt was given"),
        (None, None, "the prompt is None"),
        (3, None, "the prompt is 3"),
        ([None], None, "list of token ids"),
        ([[1, "b"]], None, "list of token ids"),
        ([1, 2.5], None, "list of token ids"),
        ([256], None, "outside 0 to 255"),
        (["a", "b" * 200], None, "prompt 1 of 2.*200 tokens"),
        ("a", SamplingParams(stop_token_ids=[999]), "stop_token_ids"),
        ("a", {"temperature": 1}, "the sampling parameters are"),
        (["a", "b"], [FOUR], "2 prompts but 1"),
        (["a", "b"], [FOUR, None], "the sampling parameters are None"),
    ],
)
def test_a_bad_request_is_refused_before_anything_runs(llm: LLM, prompts: Any, params: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        llm.generate(prompts, params)
    assert not llm.engine.has_unfinished
    assert not llm.engine.step_records


def test_a_bad_conversation_is_named(llm: LLM) -> None:
    good = [{"role": "user", "content": "Hi"}]
    with pytest.raises(RequestError, match=r"conversation 1 of 2 \(counted from 0\): message 0"):
        llm.chat([good, [{"role": "pirate", "content": "Arr"}]])
    with pytest.raises(RequestError, match="no prompt was given"):
        llm.chat([])
    assert not llm.engine.has_unfinished


def test_a_request_that_fails_while_it_runs_leaves_the_others_their_text(llm: LLM) -> None:
    nothing = SamplingParams(max_tokens=4, allowed_tokens=lambda output: torch.zeros(256, dtype=torch.bool))
    good, bad, also_good = llm.generate(["a", "b", "c"], [FOUR, nothing, FOUR])
    assert good.text == llm.generate("a", FOUR)[0].text
    assert also_good.text == llm.generate("c", FOUR)[0].text
    assert bad.outputs[0].finish_reason == "error"
    with pytest.raises(GenerationError, match="no token is left"):
        _ = bad.text


def test_requests_of_others_move_along_and_are_not_mistaken_for_ours(llm: LLM) -> None:
    llm.engine.add_request("other", SamplingParams(max_tokens=1), "quick")
    llm.engine.add_request("other", SamplingParams(max_tokens=30), "slow")
    outputs = llm.generate(["a", "b"], FOUR)
    assert [output.prompt_token_ids for output in outputs] == [tuple(llm.tokenizer.encode(text)) for text in "ab"]
    assert llm.engine.has_unfinished


class Interrupted(Runner):
    """Ctrl-C in the second step."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.count = 0

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        self.count += 1
        if self.count == 2:
            raise KeyboardInterrupt
        return self.runner.execute(scheduled)


def test_an_interrupted_call_leaves_nothing_behind(llm: LLM) -> None:
    llm.engine.runner = Interrupted(llm.engine.runner)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["a", "b"], FOUR)
    assert not llm.engine.has_unfinished
    assert not llm.engine.kv.tables
    assert len(llm.generate("a", FOUR)[0].outputs[0].token_ids) == 4


def test_the_progress_bar_counts_requests(llm: LLM, capfd: pytest.CaptureFixture[str]) -> None:
    llm.engine.add_request("other", SamplingParams(max_tokens=1))
    llm.generate(["a"] * 5, FOUR)
    assert capfd.readouterr().err == ""
    llm.generate(["a"] * 5, FOUR, progress=True)
    assert "5/5" in capfd.readouterr().err


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_dtype_is_that_of_the_weights_and_of_the_pool(folder: Path, dtype: str) -> None:
    llm = LLM(folder, dtype=dtype, attention_backend="torch", num_blocks=64)
    assert llm.model.head_weight.dtype == llm.engine.kv.storage.k.dtype == getattr(torch, dtype)
    assert len(llm.generate("Hello", FOUR)[0].outputs[0].token_ids) == 4


def test_an_unknown_dtype_or_backend_is_refused(folder: Path) -> None:
    with pytest.raises(OptionError, match="'float8'"):
        LLM(folder, dtype="float8")
    with pytest.raises(OptionError, match="'flash'"):
        LLM(folder, attention_backend="flash")
