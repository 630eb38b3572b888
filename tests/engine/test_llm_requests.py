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
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.errors import GenerationError, OptionError, RequestError
from tinyllm.model.loader import save_model

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
FOUR = SamplingParams(max_tokens=4)
MESSAGE = {"role": "user", "content": "Hi"}


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
        ("a", {}, "the sampling parameters are {}"),
        ("a", "greedy", "the sampling parameters are 'greedy'"),
        (b"a", None, "bytes are no text"),
        (["a", b"b"], None, r"prompt 1 of 2.*bytes are no text"),
        (bytearray(b"a"), None, "bytes are no text"),
        ({1: 2}, None, r"the prompt is \{1: 2\}"),
        ({1, 2}, None, r"the prompt is \{1, 2\}"),
        ([{1: 2}], None, r"the prompt is \{1: 2\}"),
        (MESSAGE, None, r"a message belongs in a list that is given to LLM.chat\(\)"),
        ([MESSAGE], None, r"a message belongs in a list that is given to LLM.chat\(\)"),
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


@pytest.mark.parametrize(
    ("conversations", "params", "words"),
    [
        (MESSAGE, None, "give a list of messages"),
        ("Hi", None, "the conversation is 'Hi'; give a list of messages"),
        (b"Hi", None, "give a list of messages"),
        (None, None, "the conversation is None"),
        (3, None, "the conversation is 3"),
        ([[MESSAGE], MESSAGE], None, "conversation 1 of 2.*give a list of messages"),
        (["Hi"], None, "conversation 0 of 1.*'Hi'"),
        ([MESSAGE], {"temperature": 1}, r"SamplingParams\(\*\*params\)"),
        ([MESSAGE], [FOUR, FOUR], "1 prompts but 2"),
    ],
    ids=str,
)
def test_a_conversation_of_another_kind_is_refused(llm: LLM, conversations: Any, params: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        llm.chat(conversations, params)
    assert not llm.engine._groups


@pytest.mark.parametrize(
    "wrong", [{"request_id": 3}, {"request_id": ["a"]}, {"on_delta": "print"}, {"params": {"n": 2}}], ids=str
)
def test_a_request_of_another_kind_leaves_nothing_behind(llm: LLM, wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"name is|on_delta is|sampling parameters are"):
        llm.engine.add_request("a", **wrong)
    assert not llm.engine._groups
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
    for dtype in (torch.int8, torch.bool, 16, ["float32"], None):
        with pytest.raises(OptionError, match="the dtype is"):
            LLM(folder, dtype=dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "device", ["gpu", "GPU:0", "mps", "meta", "vulkan", "", None, 1.5, ["cpu"], "cpu:x", "cuda:99"], ids=repr
)
def test_a_device_that_no_model_runs_on_is_refused(folder: Path, device: Any) -> None:
    with pytest.raises(OptionError, match="the device is") as error:
        LLM(folder, device=device)
    assert ('is called "cuda"' in str(error.value)) == (str(device).lower()[:3] == "gpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_blocks": "64"}, "num_blocks is '64'; it must be a whole number"),
        ({"num_blocks": 64.0}, "num_blocks is 64.0; it must be a whole number"),
        ({"num_blocks": None}, "num_blocks is None; it must be a whole number"),
        ({"block_size": True}, "block_size is True; it must be a whole number"),
        ({"max_num_seqs": float("nan")}, "max_num_seqs is nan; it must be a whole number"),
        ({"max_model_len": 0}, "max_model_len is 0; it must be at least 1"),
        ({"enable_prefix_caching": "no"}, "enable_prefix_caching is 'no'; it must be True or False"),
        ({"enforce_eager": 1}, "enforce_eager is 1; it must be True or False"),
        ({"attention_backend": None}, "the attention backend is None"),
        ({"experts_backend": "cutlass"}, "the experts backend is 'cutlass'"),
        ({"num_block": 64}, "no option num_block; did you mean num_blocks"),
        ({"max_seqs": 64}, "no option max_seqs; did you mean max_num_seqs"),
        ({"devise": "cpu"}, "no option devise; did you mean device"),
        ({"cache.num_block": 64}, "no option cache.num_block; did you mean cache.num_blocks"),
        ({"cache.num_blocks": 0}, "num_blocks is 0; it must be at least 1"),
        ({"cache": 64}, "no option cache"),
        ({"zzz": 1}, "no option zzz; there are block_size, num_blocks"),
    ],
    ids=str,
)
def test_an_option_of_the_wrong_type_or_name_is_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        LLM(folder, **options)


@pytest.mark.parametrize("model", [3, b"folder", ["folder"]], ids=repr)
def test_a_model_that_is_no_path_is_refused(model: Any) -> None:
    with pytest.raises(OptionError, match="the model is"):
        LLM(model)
