"""The lessons as texts: their shape, their exercises and hints, and the numbers that they work out by hand."""

from __future__ import annotations

import ast
import re
import tomllib
from statistics import median

import pytest

from data.world.names import is_held_out
from grader.build.course import CellKind, Day, days, find_day
from grader.build.sources import exercise_sources
from tinyllm.config import ModelConfig
from tinyllm.kv_cache.allocator import BlockAllocator
from tinyllm.kv_cache.block_table import BlockTable
from tinyllm.kv_cache.copy_on_write import CopyOnWrite
from tinyllm.kv_cache.prefix_cache import PrefixCache
from tinyllm.kv_cache.sizing import Snapshot, Waste, kv_bytes_per_token, reservation_waste
from tinyllm.parts import all_parts
from tinyllm.paths import shipped_checkpoint

DAYS = days()
DAY_1 = find_day("day1")


def text_of(day: Day) -> str:
    return "\n\n".join(cell.source for cell in day.cells if cell.kind is CellKind.MARKDOWN)


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.name)
def test_a_lesson_says_first_what_it_is_for_and_how_long_it_takes(day: Day) -> None:
    opening = day.cells[0].source
    assert opening.startswith(f"# Day {day.name[3]}:")
    assert "**When you are through, you can**" in opening
    assert "**Time:**" in opening


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.name)
def test_cells_are_short(day: Day) -> None:
    sizes = [len(c.source.splitlines()) for c in day.cells if c.kind in (CellKind.DEMO, CellKind.SETUP)]
    assert median(sizes) <= 4
    assert max(sizes) <= 30


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.name)
def test_every_question_has_an_answer_that_opens(day: Day) -> None:
    text = text_of(day)
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>") == text.count("</summary>")
    questions = re.findall(r"\*\*Before you [^*]+\*\*", text)
    assert len(questions) >= 5
    # Each question's own cell holds its answer.
    for cell in day.cells:
        if cell.kind is CellKind.MARKDOWN and "**Before you " in cell.source:
            assert "<details>" in cell.source, cell.source[:80]
    self_check = next(cell.source for cell in day.cells if cell.source.startswith("## Check yourself"))
    assert self_check.count("A good answer says") >= 5


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.name)
def test_setup_imports_only_what_exercises_may_need(day: Day) -> None:
    """Setup cells run when grading too: no pictures, no model."""
    setup = "\n".join(cell.source for cell in day.cells if cell.kind is CellKind.SETUP)
    assert "import torch" in setup
    assert "plots" not in setup
    assert "LLM" not in setup


def test_day_1_has_its_seven_parts_for_twenty_points() -> None:
    parts = [name for name, part in all_parts().items() if part.day == 1]
    assert list(DAY_1.exercises) == parts
    assert [spec.points for spec in DAY_1.exercises.values()] == [2, 2, 3, 3, 3, 3, 4]
    assert 150 <= sum(spec.minutes for spec in DAY_1.exercises.values()) <= 210


def test_every_exercise_is_followed_by_its_check_and_by_its_use() -> None:
    for i, cell in enumerate(DAY_1.cells):
        if cell.kind is CellKind.EXERCISE and cell.exercise:
            name = cell.exercise.name
            assert f"<!-- head: {name} -->" in DAY_1.cells[i - 1].source
            assert DAY_1.cells[i + 1].kind is CellKind.CHECK
            assert DAY_1.cells[i + 2].source == f"use({name})"


def hints() -> dict[str, list[str]]:
    path = DAY_1.lesson.with_name("hints.toml")
    return {name: entry["hints"] for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()}


def test_every_exercise_has_two_or_three_hints() -> None:
    assert list(hints()) == list(DAY_1.exercises)
    for name, levels in hints().items():
        assert 2 <= len(levels) <= 3, name
        assert len(set(levels)) == len(levels), name


def test_no_hint_gives_a_line_of_the_solution_away() -> None:
    for name, levels in hints().items():
        stub = {line.strip() for line in exercise_sources(name).stub.splitlines()}
        answer = [line.strip() for line in exercise_sources(name).solution.splitlines()]
        for line in answer:
            if line not in stub and len(line) > 20:
                assert not any(line in level for level in levels), (name, line)


def test_the_text_gives_no_line_of_a_solution_away() -> None:
    text = "\n".join(c.source for c in DAY_1.cells if c.kind is not CellKind.EXERCISE)
    for name in DAY_1.exercises:
        stub = {line.strip() for line in exercise_sources(name).stub.splitlines()}
        for line in exercise_sources(name).solution.splitlines():
            line = line.strip().split("  #")[0]
            if line not in stub and len(line) > 25:
                assert line not in text, (name, line)


def test_names_that_the_lessons_use_are_defined_before_them() -> None:
    """A demo may use what setup, exercises and demos before it have made: run by name, not by running."""
    for day in DAYS:
        known = set(dir(__builtins__)) | set(__builtins__ if isinstance(__builtins__, dict) else dir(__builtins__))
        for cell in day.cells:
            if cell.kind is CellKind.MARKDOWN:
                continue
            tree = ast.parse(cell.source)
            stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
            stored |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            stored |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
            stored |= {n.name for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.name}
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    stored |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            loaded = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            assert loaded <= known | stored, (day.name, cell.source[:60], loaded - known - stored)
            known |= stored


# ---------------------------------------------------------------- numbers worked out by hand in the text


def test_bytes_of_a_token() -> None:
    text = text_of(DAY_1)
    qwen3 = ModelConfig(151_936, 1024, 3072, num_layers=28, num_heads=16, num_kv_heads=8, head_dim=128)
    assert kv_bytes_per_token(qwen3, 2) == 114_688
    assert "**114,688 bytes** = 112 KiB" in text
    assert 2048 * 114_688 == 224 * 2**20
    assert "224 MiB" in text
    other = ModelConfig(1000, 4096, 1000, num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128)
    assert kv_bytes_per_token(other, 2) == 131_072
    assert 8 * 2**30 // (16 * 131_072) == 4096
    assert "131,072 bytes a token, 2 MiB a block, so 4,096 blocks" in text


@pytest.mark.needs("checkpoint")
def test_bytes_of_the_model_that_ships() -> None:
    target = ModelConfig.from_pretrained(shipped_checkpoint())
    layers, heads, dim = target.num_layers, target.num_kv_heads, target.head_dim
    per_token = kv_bytes_per_token(target, 4)
    worked_out = f"2 x {layers} x {heads} x {dim} x 4 = {per_token:,} bytes"
    assert f"2 x L x Hkv x D x 4 bytes = {worked_out}" in text_of(find_day("day0"))
    assert target.gqa_ratio == 3  # "Of what would have to be kept of each token, that leaves a third here"
    assert target.max_position_embeddings == 2048  # "a row for the longest: 2,048 tokens"


def test_the_names_that_the_model_has_never_met() -> None:
    (cell,) = [cell.source for cell in find_day("day0").cells if cell.source.startswith("passages =")]
    names = re.findall(r"[A-Z]\w+(?: [A-Z]\w+)?(?= lies| works)", cell)
    assert len(names) == 2
    assert all(is_held_out(name) for name in names)


def test_waste_of_the_three_requests() -> None:
    requests = [Snapshot(10, 13), Snapshot(6, 9), Snapshot(3, 11)]
    contiguous = reservation_waste(requests, num_slots=40, region=16, paged=False)
    paged = reservation_waste(requests, num_slots=40, region=4, paged=True)
    assert contiguous == Waste(used=16, reserved=6, internal=10, external=8)
    assert paged == Waste(used=19, reserved=0, internal=5, external=0)
    assert "Waste(used=16, reserved=6, internal=10, external=8)" in text_of(DAY_1)
    assert "Waste(used=19, reserved=0, internal=5, external=0)" in text_of(DAY_1)
    assert 40 - paged.used - paged.internal == 4 * 4  # "four blocks are still free"


def busy_pool() -> BlockAllocator:
    allocator = BlockAllocator(16)
    allocator.allocate(16)
    for block_id in (12, 5, 3, 8, 14):
        allocator.free(block_id)
    return allocator


def test_slots_of_the_ten_tokens() -> None:
    table = BlockTable(busy_pool(), block_size=4)
    slots = table.append(10)
    assert table.block_ids == [12, 5, 3]
    assert slots[6] == 22
    assert (table.num_new_blocks(2), table.num_new_blocks(3)) == (0, 1)
    assert "slot 5 x 4 + 2 = **22**" in text_of(DAY_1)


@pytest.mark.parametrize(("num_tokens", "copies"), [(10, 3), (8, 0)])
def test_copies_of_four_continuations(num_tokens: int, copies: int) -> None:
    copied: list[tuple[int, int]] = []
    allocator = BlockAllocator(16)
    copy_on_write = CopyOnWrite(allocator, lambda source, target: copied.append((source, target)))
    first = BlockTable(allocator, 4)
    first.append(num_tokens)
    for table in (first, *(copy_on_write.fork(first) for _ in range(3))):
        copy_on_write.append(table, 1)
    assert len(copied) == copies


def test_hits_of_the_prompts() -> None:
    allocator = BlockAllocator(16)
    cache = PrefixCache(allocator, 4)
    hits = {}
    for text in ("Ten tokens", "Ten tokens!", "Ten to one", "Ten toke", "Six tokens"):
        token_ids = list(text.encode())
        block_ids = cache.match(token_ids)
        table = BlockTable(allocator, 4, block_ids, 4 * len(block_ids))
        table.append(len(token_ids) - table.num_tokens)
        cache.insert(token_ids, table.block_ids)
        hits[text] = 4 * len(block_ids)
    assert hits == {"Ten tokens": 0, "Ten tokens!": 8, "Ten to one": 4, "Ten toke": 4, "Six tokens": 0}
