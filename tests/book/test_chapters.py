"""Every chapter has what a chapter must have, and what it says of pictures and results is what they show."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from book.figures._serving import serve, serve_and_record
from book.figures.batching import BUDGET, CROWD, DECODERS, LONG, POOL, SEATS, SMALL_BUDGET, THREE
from book.figures.evaluated import TASKS, entry, evaluation
from book.figures.roofline import prefill_intensity
from tinyllm.paths import project_root

SRC = project_root() / "book" / "src"
DAYS = sorted(SRC.glob("day*.md"))

#: What every chapter of a day has, in this order.
SECTIONS = (
    r"After this day you can",
    r"\{\{#figure system_day\d",
    r"## The problem in (a|two) pictures?",
    r"## What must always hold",
    r"## Ten tokens",
    r"\{\{#object tinyllm/",
    r"## What it costs, by hand",
    r"## What production systems do differently",
    r"\{\{#quiz day\d\}\}",
    r"## Check yourself",
    r"## To read",
)


def assert_says(chapter: str, *sentences: str) -> None:
    text = " ".join((SRC / f"{chapter}.md").read_text(encoding="utf-8").split())
    assert [sentence for sentence in sentences if sentence not in text] == []


@pytest.mark.parametrize("chapter", DAYS, ids=lambda path: path.stem)
def test_a_day_s_chapter_has_all_its_sections(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf-8")
    missing = [pattern for pattern in SECTIONS if not re.search(pattern, text)]
    assert missing == []
    answers = re.findall(r"<details>\n<summary>[^<]+\?</summary>\n\n(.*?)</details>", text, re.DOTALL)
    assert len(answers) >= 3
    assert all("good answer" in answer for answer in answers if len(answer) > 300)


@pytest.mark.parametrize("day", [path.stem for path in DAYS])
def test_a_day_s_quiz_asks_why_and_for_a_number(day: str) -> None:
    path = project_root() / "book" / "quizzes" / f"{day}.toml"
    questions = tomllib.loads(path.read_text(encoding="utf-8"))["question"]
    assert any("why" in question["ask"].casefold() for question in questions)
    assert any("number" in question for question in questions)
    for question in questions:
        assert not set(question.get("hints", ())) & {str(question.get("number"))}


@pytest.mark.needs("checkpoint")
def test_day2_says_what_its_schedules_show() -> None:
    runs = {
        static: serve(CROWD, static=static, max_num_seqs=SEATS, max_num_batched_tokens=BUDGET)
        for static in (True, False)
    }
    used = {sum(map(len, steps)) for steps in runs.values()}
    assert len(used) == 1
    steps, few = len(runs[True]), len(runs[False])
    assert_says(
        "day2",
        f"Of {SEATS * steps} seats in {steps} steps, static batching uses {used.pop()}",
        f"of {SEATS * few} in {few} steps, continuous batching uses the same",
        f"Static batching takes {steps} steps",
        f"Continuous batching takes {few} steps",
    )
    small, records = serve_and_record(THREE, num_blocks=POOL, max_num_batched_tokens=SMALL_BUDGET, max_num_seqs=4)
    totals = ", ".join(str(sum(step.values())) for step in small)
    free = ", ".join(str(record.num_free_blocks) for record in records)
    assert_says("day2", f"Tokens in the step: {totals}.", f"Free blocks after scheduling: {free}.")
    assert [record.num_preempted for record in records] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert [step.get("C", 0) for step in small] == [0, 1, 5, 1, 0, 0, 8, 1]
    most = [
        max(sum(step.values()) for step in serve([*DECODERS, LONG], max_num_seqs=8, max_num_batched_tokens=budget))
        for budget in (64, 12)
    ]
    assert_says("day2", f"one step of {most[0]} tokens", f"six steps of {most[1]} tokens each")


def test_day2_says_what_the_roofline_is_drawn_from() -> None:
    assert_says("day2", f"That is {prefill_intensity():.0f} {{{{#term operations a byte}}}}.")


@pytest.mark.needs("checkpoint")
def test_the_results_say_of_the_models_what_was_measured() -> None:
    """These figures have no machine of their own, so they are not read by `number`."""
    models, floors = evaluation()["models"], evaluation()["floors"]

    def percent(name: str, keys: tuple[str, ...]) -> str:
        return f"{100 * entry(models[name], keys)['share']:.0f}"

    reading, unanswered, by_hand, two_calls, four_calls, tools_by_hand, pass_key = (keys for _, keys, _ in TASKS)
    floor = [f"{100 * entry(floors, keys)['share']:.0f}" for _, _, keys in TASKS if keys]
    share = {row: f"{100 * rest['share']:.0f} %" for row, rest in models["draft"]["acceptance"].items()}
    assert_says(
        "results",
        f"target {percent('target', reading)} %, draft {percent('draft', reading)} %, regular expressions {floor[0]} %",
        f"{percent('target', unanswered)}, {percent('draft', unanswered)} and {floor[1]} %",
        f"Reading written by hand: {percent('target', by_hand)}, {percent('draft', by_hand)} and {floor[2]} %",
        f"of 2 calls: {percent('target', two_calls)} and {percent('draft', two_calls)} %",
        f"of 4 calls: {percent('target', four_calls)} and {percent('draft', four_calls)} %",
        f"Tools written by hand: {percent('target', tools_by_hand)} and {percent('draft', tools_by_hand)} %",
        f"in 1,900 tokens: {percent('target', pass_key)} and {percent('draft', pass_key)} %",
        f"reading {share['reading']}, tools {share['tools']}, talk {share['talk']}, all {share['all']}",
    )
    assert entry(models["target"], by_hand)["low"] < entry(floors, TASKS[2][2] or ())["share"]  # "no better than"
