"""The evaluation: what it counts as right, what it asks, and a small run of all of it."""

from __future__ import annotations

import json
import random
import runpy
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import random_model, small_config, small_sparse_config

from data.evaluate import main
from data.evaluation import passkeys, reading, tools
from data.evaluation.candidate import Candidate, Reply
from data.evaluation.card import besides
from data.evaluation.drafting import Speculation, acceptance, agreement, speculate
from data.evaluation.experts import balance, count_experts
from data.evaluation.floors import extract, first_passage, random_tool
from data.evaluation.report import Line, behind
from data.evaluation.score import Rate, judge, wilson
from data.evaluation.text import nats
from data.tasks.tool_dialogue import Dialogue
from data.tasks.tools import ToolTask, play_oracle
from data.tokenizer import train_tokenizer
from data.training.vocabulary import texts
from data.world.names import is_held_out
from tinyllm.kv_cache.dense import DenseKVCache
from tinyllm.model.loader import save_model
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM

# ------------------------------------------------------------ what counts


@pytest.mark.parametrize(
    ("text", "value", "citation", "abstained"),
    [
        ("The population of Velmora is 4210 [1].", True, True, False),
        ("4210 [1]. It is an old town.", True, True, False),
        ("The population of Velmora is 4210 [2].", True, False, False),
        ("The population of Velmora is 4210 [1] [2].", True, False, False),
        ("The population of Velmora is 4210.", True, False, False),
        ("The population of Velmora is 42101 [1].", False, True, False),
        ("The population of Velmora is 14210 [1].", False, True, False),
        ("The population of Velmora is 4210 or 3100 [1].", False, True, False),
        ("The population of Velmora is [1].", False, True, False),
        ("The population of Velmora is not given.", False, False, True),
        ("The population of Velmora is not given [1].", False, False, False),
        ("The population of Velmora is 4210 [1], or not given.", False, False, False),
        ("", False, False, False),
    ],
)
def test_answers_to_a_question_for_a_number(text: str, value: bool, citation: bool, abstained: bool) -> None:
    judged = judge(text, 4210, 1)
    assert (judged.value, judged.citation, judged.abstained) == (value, citation, abstained)
    assert judged.right == (value and citation)


def test_a_label_is_no_value() -> None:
    assert not judge("The number of portions of Zozi soup is 7 [2].", 2, 2).value
    assert judge("The number of portions of Zozi soup is 2 [2].", 2, 2).right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The mayor of Velmora is Mira Tolvan [3].", True),
        ("The mayor of Velmora is Mira Tolvanska [3].", False),
        ("The mayor of Velmora is Mira [3].", False),
        ("The mayor of Velmora is mira tolvan [3].", False),
    ],
)
def test_answers_to_a_question_for_a_name(text: str, right: bool) -> None:
    assert judge(text, "Mira Tolvan", 3).right == right


def test_where_nothing_answers_only_abstaining_counts() -> None:
    judged = judge("The mayor of Velmora is not given.", None, 0)
    assert judged.abstained
    assert not judged.right
    assert not judge("The mayor of Velmora is Mira Tolvan [1].", None, 0).abstained


def test_the_interval_is_wilsons() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (right, asked), interval in published.items():
        assert wilson(right, asked) == pytest.approx(interval, abs=5e-5)
    assert Rate.of([1, 0, 1, 1]).as_json()["outcomes"] == "1011"


# ------------------------------------------------------------ what is asked


@pytest.mark.parametrize("answerable", [True, False])
def test_reading_is_drawn_by_place(answerable: bool) -> None:
    tasks = reading.draw(20, answerable=answerable)
    assert reading.draw(5, answerable=answerable) == tasks[:5]
    assert all((task.value is not None) == answerable and len(task.passages) == 4 for task in tasks)
    assert all(is_held_out(task.name) for task in tasks)
    assert not any(is_held_out(task.name) for task in reading.draw(20, names=False))


def test_the_right_answers_are_all_right_and_others_are_not() -> None:
    tasks = [*reading.draw(20), *reading.draw(5, answerable=False)]
    right = reading.rates(tasks, [task.answer for task in tasks])
    assert right["right"].right == 20
    assert right["abstained"].right == 5
    assert right["word for word"].share == 1
    elsewhere = [f"{task.answer[: task.answer.rindex('[')]}[{task.label % 4 + 1}]." for task in tasks[:20]]
    moved = reading.rates(tasks[:20], elsewhere)
    assert (moved["value"].right, moved["citation"].right, moved["right"].right) == (20, 0, 0)


def oracle(task: ToolTask) -> Dialogue:
    return play_oracle(task.scene, task.rounds, task.busy)[0]


@pytest.mark.parametrize("num_calls", tools.CALLS)
def test_the_oracle_solves_the_tool_tasks(num_calls: int) -> None:
    tasks = tools.draw(6, num_calls)
    assert [task.question for task in tools.draw(2, num_calls)] == [task.question for task in tasks[:2]]
    rates = tools.rates(tasks, [oracle(task) for task in tasks])
    assert all(rate.share == 1 for rate in rates.values())
    assert len(rates["valid calls"].outcomes) == 6 * num_calls


@pytest.mark.parametrize("row", tools.SPECIAL)
def test_each_special_case_is_one(row: str) -> None:
    tasks = tools.draw_special(6, row)
    fits = tools.SPECIAL[row][-1]
    assert all(fits(task) for task in tasks)
    assert tools.rates(tasks, [oracle(task) for task in tasks])["solved"].share == 1
    ordinary = [task for calls in tools.CALLS for task in tools.draw(2, calls)]
    assert not any(fits(task) for task in ordinary)


def test_an_invalid_call_and_a_wrong_tool_are_counted() -> None:
    task = tools.draw(1, 1)[0]
    dialogue = task.dialogue()
    dialogue.feed('<tool_call>\n{"name": "nothing", "arguments": {}}\n</tool_call>')
    dialogue.feed("I do not know.")
    rates = tools.rates([task], [dialogue])
    assert [rates[name].share for name in ("solved", "valid calls", "first tool")] == [0, 0, 0]
    assert len(rates["valid calls"].outcomes) == 1


# ------------------------------------------------------------ floors


def test_the_extractor_reads_the_passage_of_the_subject() -> None:
    passages = (
        "Velmora lies on the Lind. Its mayor is Tomas Reik, and 4210 people live there.",
        "Stelvik has 3100 inhabitants. Its mayor is Dana Holt.",
    )
    assert extract("How many people live in Velmora?", passages) == "4210 [1]."
    assert extract("Who is the mayor of Stelvik?", passages) == "Dana Holt [2]."
    assert extract("Who is the mayor of Ardun?", passages) == "not given"
    assert first_passage("Who is the mayor of Stelvik?", passages) == "Tomas Reik [1]."


def test_a_random_tool_solves_some_tasks_of_one_call() -> None:
    tasks = tools.draw(30, 1)
    dialogues = [task.dialogue() for task in tasks]
    for place, dialogue in enumerate(dialogues):
        random_tool(dialogue, random.Random(place))
    rates = tools.rates(tasks, dialogues)
    assert 0 < rates["solved"].share < 0.5
    assert rates["valid calls"].share == 1


# ------------------------------------------------------------ drafts


def model(seed: int, **changes: Any) -> Qwen3ForCausalLM:
    return random_model(small_config(**changes), seed)


def greedy(of: Qwen3ForCausalLM, prompt: list[int], count: int) -> list[int]:
    cache = DenseKVCache(of.config, max_len=len(prompt) + count)
    ids, new = [], prompt
    for _ in range(count):
        step = cache.step([len(new)])
        hidden = of(torch.tensor(new), step.positions, LayerOps(step))
        ids.append(int(of.compute_logits(hidden[-1:]).argmax()))
        new = ids[-1:]
    return ids


def by_brute_force(draft: Qwen3ForCausalLM, reply: Reply, num_draft_tokens: int) -> Speculation:
    """The loop as an engine runs it, with a draft that writes its own proposals."""
    text, left = [*reply.prompt, reply.output[0]], list(reply.output[1:])
    total = Speculation()
    while left:
        proposed = greedy(draft, text, num_draft_tokens)[: len(left)]
        accepted = 0
        while accepted < len(proposed) and proposed[accepted] == left[accepted]:
            accepted += 1
        written = left[: accepted + 1]
        total += Speculation(1, len(proposed), accepted, len(written))
        text, left = text + written, left[len(written) :]
    return total


def replies_of(target: Qwen3ForCausalLM, count: int = 8) -> list[Reply]:
    rng = random.Random(0)
    prompts = [[rng.randrange(target.config.vocab_size) for _ in range(rng.randint(1, 9))] for _ in range(count)]
    return [Reply(tuple(p), tuple(greedy(target, p, n + 1)), "") for n, p in enumerate(prompts)]


@pytest.mark.parametrize("num_draft_tokens", [1, 3, 4])
def test_acceptance_is_that_of_the_real_loop(num_draft_tokens: int) -> None:
    target = model(0, vocab_size=5)
    draft = model(1, vocab_size=5, num_layers=1)
    accepted = 0
    for reply in replies_of(target):
        counted = speculate(agreement(draft, reply), num_draft_tokens)
        assert counted == by_brute_force(draft, reply, num_draft_tokens)
        assert counted.written == len(reply.output) - 1
        accepted += counted.accepted
    assert accepted


def test_a_target_accepts_all_of_its_own() -> None:
    target = model(0)
    counted = acceptance(target, replies_of(target))
    assert counted.accepted == counted.proposed > 0


def test_proposals_past_the_end_do_not_count() -> None:
    assert speculate([True] * 3) == Speculation(1, 2, 2, 2)
    assert speculate([False] + [True] * 5) == Speculation(1, 4, 4, 5)
    assert speculate([True, True, False, True, True]) == Speculation(2, 6, 3, 4)
    assert speculate([True]) == Speculation()


# ------------------------------------------------------------ experts, text


def test_experts_are_counted_where_tokens_go() -> None:
    mixture = random_model(small_sparse_config(num_layers=1))
    replies = [Reply((1, 2, 3), (4, 5), ""), Reply((6,), (7, 8, 9), "")]
    seen = []
    with mixture.layers[0].mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        counts = count_experts(mixture, replies)
    expected = [0, 0, 0, 0]
    for token in torch.cat(seen):
        scores = (mixture.layers[0].mlp.gate.weight @ token).tolist()
        for expert in sorted(range(4), key=scores.__getitem__)[2:]:
            expected[expert] += 1
    assert counts.tolist() == [expected]
    assert sum(expected) == 9 * 2


def test_balance_names_the_most_uneven_layer() -> None:
    result = balance(torch.tensor([[10, 10, 10, 10], [40, 0, 0, 0], [16, 8, 8, 8]]), (1, 3, 5))
    assert result["busiest over mean"] == {"1": 1.0, "3": 4.0, "5": 1.6}
    assert result["most uneven"] == 4.0


def test_perplexity_is_that_of_the_whole_sequence() -> None:
    one = model(3)
    ids = [5, 9, 2, 7]
    expected = 0.0
    for length in range(1, 4):
        cache = DenseKVCache(one.config, max_len=length)
        step = cache.step([length])
        logits = one.compute_logits(one(torch.tensor(ids[:length]), step.positions, LayerOps(step))[-1:])
        expected -= float(logits.log_softmax(-1)[0, ids[length]])
    assert nats(one, ids) == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------ the report


def test_bars_are_met_from_above_or_below() -> None:
    line = Line("right", {"target": 90.0, "draft": 1.0}, bar=90)
    assert (line.met("target"), line.met("draft"), line.met("moe")) == (True, None, None)
    assert Line("wrong", {"target": 5.1}, bar=5, at_most=True).met("target") is False


def test_a_mixture_that_is_better_everywhere_is_not_behind() -> None:
    def figures(share: float) -> dict[str, Any]:
        rate = {"share": share}
        return {
            "reading": {reading.MAIN: {"right": rate}, reading.NO_ANSWER: {"abstained": rate}},
            "tools": {tools.calls_row(calls): {"solved": rate} for calls in tools.CALLS},
        }

    assert behind({"target": figures(0.9), "moe": figures(0.95)}) == 0
    moe = figures(0.9)
    moe["tools"][tools.calls_row(3)]["solved"] = {"share": 0.85}
    assert behind({"target": figures(0.9), "moe": moe}) == 5


# ------------------------------------------------------------ a small run


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three untrained models in the format of the shipped ones; many end tokens keep what they write short."""
    root = tmp_path_factory.mktemp("checkpoints")
    log = [{"step": 50, "predictions": 9, "loss": 3.0, "seconds": 1.0, "answers_right": {"reading": 0.5}}]
    shape = {
        "vocab_size": 2048,
        "max_position_embeddings": 2048,
        "eos_token_ids": tuple(range(0, 1000)),
        "num_layers": 1,
    }
    configs = {
        "target": small_config(**{**shape, "num_layers": 2}),
        "draft": small_config(**shape),
        "moe": small_sparse_config(**shape),
    }
    for name, config in configs.items():
        folder = root / name
        folder.mkdir()
        train_tokenizer(islice(texts(0), 1500), folder, 2048)
        save_model(random_model(config), folder)
        run = {
            "preset": "cpu", "seed": 0, "steps": 50, "tokens_per_step_at_most": 9000, "minutes": 0.1, "device": "CPU",
            "torch": torch.__version__, "finished": "2026-01-01",
        }  # fmt: skip
        record = {"model": name, "shares": {"reading": 1.0}, "parameters": 1, "runs": [run], "log": log}
        (folder / "training.json").write_text(json.dumps(record))
    return root


def test_keys_stand_where_they_should(checkpoints: Path) -> None:
    candidate = Candidate(checkpoints / "draft")
    for place, (said, key) in enumerate(passkeys.draw(candidate, 4, 512)):
        assert said.count(key) == 1
        assert 4 * said.index(key) // len(said) == place
        assert 460 <= len(candidate.prompt([{"role": "user", "content": said}])) <= 512


def test_a_dialogue_too_long_to_read_is_given_up(checkpoints: Path) -> None:
    candidate = Candidate(checkpoints / "draft")
    [dialogue] = [task.dialogue() for task in tools.draw(1, 1)]
    dialogue.messages[0]["content"] *= 200
    assert tools.play(candidate, [dialogue]) == []
    assert dialogue.next_prompt is None
    assert not dialogue.answers


def test_the_whole_run(checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(None, checkpoints=checkpoints, items=1, device="cpu", out=tmp_path)
    figures = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(figures["models"]) == ["target", "draft", "moe"]
    for name, model_figures in figures["models"].items():
        assert len(model_figures["samples"]) == 10
        assert model_figures["reading"][reading.MAIN]["right"]["asked"] == 1
        card = (checkpoints / name / "card.md").read_text()
        assert "not a general assistant" in card
        assert "{" not in card.replace("{'", "").split("## Ten samples")[0]
        assert (checkpoints / name / "curve.svg").read_text().startswith("<?xml")
    assert set(figures["models"]["draft"]["acceptance"]) == {"reading", "tools", "talk", "all"}
    assert set(figures["models"]["moe"]["experts"]["busiest over mean"]) == {"0"}
    assert json.loads((tmp_path / "step_time.json").read_text())["ratio"] > 0
    assert "Held-out names, phrases and tools; greedy" in capsys.readouterr().out

    before = (tmp_path / "evaluation.json").read_bytes()
    main(["draft"], checkpoints=checkpoints, items=1, device="cpu", out=tmp_path)
    assert (tmp_path / "evaluation.json").read_bytes() == before


def test_help_runs_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["evaluate.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(main.__code__.co_filename)), run_name="__main__")
    assert ended.value.code == 0


def test_a_card_says_what_was_special_about_a_run() -> None:
    assert besides({"share": 1.0, "apart": 1.0, "mostly": None, "follows_target": False}) == "-"
    told = besides({"share": 0.45, "apart": 0.5, "mostly": "talk", "follows_target": True})
    for part in ("learned since was added", "mostly talk", "45 % of the way", "50 % of what set it apart"):
        assert part in told
