"""The training script as a user runs it: all three models after each other, each trained further, on tiny shapes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer

from data import train
from data.train import after, main
from data.training import fitting, loop, progress, vocabulary
from data.training.presets import PRESETS, Preset, config
from tinyllm.model.loader import load_model
from tinyllm.model.tokenizer import Tokenizer

TINY = Preset(
    target=config(32, 48, 10, 2, 1),
    draft=config(32, 32, 1, 2, 1),
    steps={"target": 6, "draft": 3, "moe": 3},
    shards=2,
    pieces=1,
    tokens_per_piece=256,
    further_rate=0.25,
    workers=0,
    steps_per_chunk=2,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "cpu", TINY)
    monkeypatch.setattr(progress, "CONVERSATIONS", 1)
    monkeypatch.setattr(vocabulary, "SAMPLES", 1200)
    monkeypatch.setattr(train, "SAVES", 2)
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    monkeypatch.setattr(fitting, "COUNTED", 2)


def run(name: str, out: Path, **options: object) -> dict[str, object]:
    threads = torch.get_num_threads()
    given = {
        "device": "cpu",
        "preset": "auto",
        "steps": None,
        "minutes": None,
        "seed": 0,
        "resume": False,
        "upcycled_from": None,
        "mostly": None,
        "share": None,
    }
    try:
        main(train.Name(name), out=out, **{**given, "further": False, **options})  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)
    return json.loads((out / name / train.RECORD).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in load_model(folder).parameters()])


def test_the_three_models_are_made_one_after_the_other_and_trained_further(tmp_path: Path) -> None:
    record = run("target", tmp_path)
    assert [entry["step"] for entry in record["log"]] == [2, 3, 4, 6]  # type: ignore[attr-defined]
    assert load_model(tmp_path / "target").config == replace(TINY.target, eos_token_ids=(2, 0))
    run("draft", tmp_path)
    run("moe", tmp_path)
    mixture = load_model(tmp_path / "moe").config
    assert (mixture.num_experts, mixture.num_experts_per_tok, mixture.sparse_layers) == (8, 2, (4, 9))
    texts = [Tokenizer(tmp_path / name).encode("The town of Velmora [2].") for name in ("target", "draft", "moe")]
    assert texts[0] == texts[1] == texts[2]

    before, tokenizer = weights(tmp_path / "target"), (tmp_path / "target" / "tokenizer.json").read_bytes()
    record = run("target", tmp_path, further=True, steps=2, seed=1)
    assert [one["steps"] for one in record["runs"]] == [6, 2]  # type: ignore[attr-defined]
    assert [entry["step"] for entry in record["log"]] == [2, 3, 4, 6, 7, 8]  # type: ignore[attr-defined]
    moved = (weights(tmp_path / "target") - before).norm() / before.norm()
    assert 0 < moved < 0.2
    assert (tmp_path / "target" / "tokenizer.json").read_bytes() == tokenizer
    assert not (tmp_path / "target" / "state.pt").exists()


def test_a_run_is_told_its_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run("target", tmp_path, minutes=0.05)
    steps = record["runs"][0]["steps"]  # type: ignore[index]
    assert steps >= 1
    assert "ms a step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("draft", {}, "train the target first"),
        ("target", {"upcycled_from": Path("/")}, "give it with moe --further"),
        ("target", {"mostly": "talk"}, "give it with --further"),
        ("target", {"share": 0.5}, "give it with --further"),
        ("target", {"further": True, "mostly": "chess"}, "one of reading, tools"),
        ("target", {"resume": True}, "leave --resume out"),
        ("target", {"further": True}, "leave --further out"),
        ("target", {"preset": "tpu"}, "is none of auto"),
        ("target", {"minutes": 1.0, "steps": 5}, "by --steps or --resume already"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        run(name, tmp_path, **options)


def test_a_log_goes_on_where_the_earlier_one_ended() -> None:
    first = [{"step": 5, "seconds": 1.0, "loss": 2.0}, {"step": 9, "seconds": 2.5, "loss": 1.5}]
    assert after([], first) == first
    assert after(first, [{"step": 3, "seconds": 0.5, "loss": 1.0}]) == [
        *first,
        {"step": 12, "seconds": 3.0, "loss": 1.0},
    ]
