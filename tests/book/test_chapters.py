"""Every chapter has what a chapter must have, and what it says of pictures and results is what they show."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from book.figures._serving import serve, serve_and_record
from book.figures.batching import BUDGET, CROWD, DECODERS, LONG, POOL, SEATS, SMALL_BUDGET, THREE
from book.figures.evaluated import TASKS, entry, evaluation
from book.figures.experts import (
    BATCHES,
    BLOCK_SIZE,
    NUM_EXPERTS,
    example_ids,
    floor_microseconds,
    touched_in_the_engine,
)
from book.figures.experts_on_ranks import COUNTS, NUM_RANKS, placements, rows_to_send
from book.figures.roofline import H100_BYTES, H100_FLOPS, prefill_intensity
from tinyllm.config import ModelConfig
from tinyllm.experts.align import moe_align_block_size
from tinyllm.experts.cost import touched_experts
from tinyllm.experts.plan import SparseShape
from tinyllm.experts.routing import expert_counts
from tinyllm.paths import project_root, shipped_checkpoint

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


def test_day3_says_what_its_pictures_show() -> None:
    counts = expert_counts(example_ids(), NUM_EXPERTS).tolist()
    in_use = int(moe_align_block_size(example_ids(), BLOCK_SIZE, NUM_EXPERTS)[2])
    sent = rows_to_send()
    received = [sum(len(rank[to]) for rank in sent) for to in range(len(sent))]
    loads = {name: " and ".join(f"{x:.0f}" for x in placed.load(COUNTS)[-2:]) for name, placed in placements().items()}
    imbalance = {name: f"{placed.imbalance(COUNTS):.2f}" for name, placed in placements().items()}
    assert_says(
        "day3",
        f"{counts[0]} pairs of expert 0, {counts[1]} of expert 1, {counts[3]} of expert 3",
        f"{in_use - sum(counts)} of {in_use} rows are padding",
        f"Rank 0 has Ten t: {len(sent[0][0])} of its rows go to itself",
        f"for experts 0 and 1, and {len(sent[0][1])} to rank 1",
        f"Rank 1 has okens: {len(sent[1][0])} rows go to rank 0 and {len(sent[1][1])} stay",
        f"rank 0 computes {received[0]} rows and rank 1 computes {received[1]}",
        f"with the mean at {sum(COUNTS) // NUM_RANKS}. In order: 50, 18, {loads['in order']}",
        f"the busiest {imbalance['in order']} times the mean.",
        f"Packed: 46, 18, {loads['packed']}, {imbalance['packed']} times",
        f"24, 24, {loads['4 extra slots']}, {imbalance['4 extra slots']} times.",
        f"expert 0 by itself has {max(COUNTS) * NUM_RANKS / sum(COUNTS):.1f} times a rank's mean load",
    )


def test_day3_says_what_a_sparse_layer_costs() -> None:
    shape = SparseShape()
    one, many = (
        floor_microseconds(n, touched_experts(n, shape.top_k, shape.num_experts), shape.top_k, shape) for n in (1, 64)
    )
    whole = floor_microseconds(1, shape.num_experts, shape.top_k, shape)
    ridge = H100_FLOPS / H100_BYTES
    speculated = touched_experts(5, shape.top_k, shape.num_experts)
    assert_says(
        "day3",
        f"Three matrices of 2,048 · 768: 4.7 million parameters, **{shape.expert_bytes / 1e6:.1f} MB**",
        f"All 128 are {shape.expert_bytes * 128 / 1e9:.2f} GB a layer",
        f"and {shape.expert_bytes * 128 * 48 / 1e9:.0f} GB in 48 layers",
        f"At one token the layer reads {shape.expert_bytes * 8 / 1e6:.1f} MB: {one:.1f} µs.",
        f"At 64 tokens it reads {touched_experts(64, 8, 128):.0f} experts: {many:.0f} µs",
        f"is worth 64 · {one:.1f} / {many:.0f} = {64 * one / many:.1f} single steps",
        f"reaches {many:.0f} at 64 tokens, stays at {whole:.0f} up to about {round(ridge * 16, -2):,.0f} tokens",
        f"five tokens touch {speculated:.0f} experts in place of 8: the experts' bytes are {speculated / 8:.1f} times",
        f"**1.5 · I operations for each byte sent**, {1.5 * shape.intermediate_size:,.0f} here",
        f"{H100_FLOPS / 450e9:,.0f} for each byte",
        f"take {shape.expert_bytes * 16 / H100_BYTES * 1e6:.0f} µs, 4,096 rows of 9.4 million operations",
        f"take {4096 * shape.expert_bytes / H100_FLOPS * 1e6:.0f} µs, and 29.4 MB take {29.4e6 / 450e9 * 1e6:.0f} µs",
    )


@pytest.mark.needs("checkpoint")
def test_what_the_engine_touches_is_near_the_law() -> None:
    moe = ModelConfig.from_pretrained(shipped_checkpoint("moe"))
    touched = touched_in_the_engine()
    assert list(touched) == list(BATCHES)
    for batch, found in touched.items():
        law = touched_experts(batch, moe.num_experts_per_tok, moe.num_experts)
        assert 0.85 * law <= found <= 1.05 * law
    least_even = max(evaluation()["models"]["moe"]["experts"]["busiest over mean"].items(), key=lambda item: item[1])
    assert_says("day3", f"models.moe.experts.busiest over mean.{least_even[0]} |")


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
