"""The end tokens of a checkpoint: one order for model and tokenizer, and nothing erases what another file says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.checkpoints import small_config
from support.conversations import FAMILY_TOKENS, write_tokenizer

from tinyllm.config import ModelConfig
from tinyllm.errors import CheckpointError
from tinyllm.model.tokenizer import Tokenizer

EOS = FAMILY_TOKENS.index("</s>")
UNSAID = object()


def write(folder: Path, *, generation: object, config: object, tokenizer: object) -> None:
    """A folder whose three files name these end tokens; UNSAID leaves the entry out."""
    write_tokenizer(folder, eos_token=tokenizer)
    (folder / "config.json").write_text(json.dumps(small_config(vocab_size=500).to_hf()))
    for name, entry in (("generation_config.json", generation), ("config.json", config)):
        path = folder / name
        raw = json.loads(path.read_text()) if path.is_file() else {}
        raw.pop("eos_token_id", None)
        path.write_text(json.dumps(raw if entry is UNSAID else {**raw, "eos_token_id": entry}))


@pytest.mark.parametrize("nothing", [UNSAID, None, []], ids=["not named", "null", "empty"])
@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "expected"),
    [
        (7, [4, 5], "</s>", (7,)),
        ([7, 0], 4, "</s>", (7, 0)),
        ("nothing", [4, 5], "</s>", (4, 5)),
        ("nothing", 0, None, (0,)),
        ("nothing", "nothing", "</s>", (EOS,)),
        ("nothing", "nothing", {"content": "</s>", "__type": "AddedToken"}, (EOS,)),
        ("nothing", "nothing", None, ()),
        (7, "nothing", None, (7,)),
    ],
)
def test_the_first_file_that_names_end_tokens_counts(
    tmp_path: Path, nothing: object, generation: object, config: object, tokenizer: object, expected: tuple[int, ...]
) -> None:
    generation, config = (nothing if entry == "nothing" else entry for entry in (generation, config))
    write(tmp_path, generation=generation, config=config, tokenizer=tokenizer)
    assert ModelConfig.from_pretrained(tmp_path).eos_token_ids == expected
    assert Tokenizer(tmp_path).eos_token_ids == expected


@pytest.mark.parametrize("file", ["generation", "config"])
@pytest.mark.parametrize("entry", ["</s>", [1, "2"], -1, True, 1.5, {"id": 3}])
def test_an_entry_that_is_no_token_id(tmp_path: Path, file: str, entry: object) -> None:
    write(tmp_path, **{"generation": UNSAID, "config": UNSAID, "tokenizer": "</s>", file: entry})
    name = "generation_config.json" if file == "generation" else "config.json"
    with pytest.raises(CheckpointError, match=rf"{name}: eos_token_id is .*; expected a token id, a list of token ids"):
        ModelConfig.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"{name}: eos_token_id is"):
        Tokenizer(tmp_path)


def test_an_end_token_that_the_tokenizer_does_not_have(tmp_path: Path) -> None:
    write(tmp_path, generation=UNSAID, config=None, tokenizer="<stop>")
    with pytest.raises(CheckpointError, match=r"eos_token is '<stop>', which tokenizer\.json does not have; name the"):
        ModelConfig.from_pretrained(tmp_path)


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(small_config(eos_token_ids=()).to_hf()))
    assert ModelConfig.from_pretrained(tmp_path).eos_token_ids == ()
