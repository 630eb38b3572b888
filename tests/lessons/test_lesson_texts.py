"""The lessons as texts: their shape, their exercises and hints, and the numbers that they work out by hand."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from book.preprocessor.solution_pages import SERVED_AT
from data.world.names import is_held_out
from grader.build.course import CellKind, Day, days, find_day
from grader.build.sources import exercise_sources
from grader.checks.day2.scheduler import Traffic, traffic
from tinyllm.config import ModelConfig
from tinyllm.engine.request import Request
from tinyllm.engine.scheduler import Scheduler
from tinyllm.kernels.tiles import load_tile
from tinyllm.kernels.whole_tiles import attend_whole_tiles
from tinyllm.kv_cache.allocator import BlockAllocator
from tinyllm.kv_cache.block_table import BlockTable
from tinyllm.kv_cache.copy_on_write import CopyOnWrite
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.kv_cache.prefix_cache import PrefixCache
from tinyllm.kv_cache.sizing import Snapshot, Waste, kv_bytes_per_token, reservation_waste
from tinyllm.parts import all_parts
from tinyllm.paths import project_root, shipped_checkpoint

DAYS = days()
DAY_1, DAY_2 = find_day("day1"), find_day("day2")
GRADED = [day for day in DAYS if day.exercises]


def id_of(value: object) -> str | None:
    return value.name if isinstance(value, Day) else None


def text_of(day: Day) -> str:
    return "\n\n".join(cell.source for cell in day.cells if cell.kind is CellKind.MARKDOWN)


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.name)
def test_a_lesson_says_first_what_it_is_for_and_how_long_it_takes(day: Day) -> None:
    opening = day.cells[0].source
    assert opening.startswith(f"# Day {day.name[3]}:")
    assert "**When you are through, you can**" in opening
    assert "**Time:**" in opening


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.name)
def test_a_lesson_names_its_chapter_and_the_readme_too(day: Day) -> None:
    chapter = f"book/src/{day.name[:4]}.md"
    assert f"](http://localhost:3000/{day.name[:4]}.html)" in day.cells[0].source
    assert chapter in day.cells[0].source
    assert (project_root() / chapter).is_file()
    assert f"]({chapter})" in (project_root() / "README.md").read_text(encoding="utf-8")


def test_the_book_is_served_where_the_lessons_say() -> None:
    assert SERVED_AT == "http://localhost:3000/"
    assert "default=3000" in (project_root() / "book" / "build.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(("day", "hours"), [(DAY_1, "four hours"), (DAY_2, "five and a half hours")], ids=id_of)
def test_the_time_of_a_day_is_the_same_wherever_it_is_told_and_has_a_pause(day: Day, hours: str) -> None:
    assert f"about {hours} for this notebook" in " ".join(day.cells[0].source.replace("# ", "").split())
    assert f"about {hours} " in (project_root() / "book" / "src" / f"{day.name[:4]}.md").read_text(encoding="utf-8")
    assert any("**A good place " in cell.source for cell in day.cells[1:])


def test_what_an_exercise_is_given_is_told_beside_it() -> None:
    """Every argument of the given kernels, and what requests and pool offer, as the code has it."""
    text = text_of(DAY_2)
    for function in (load_tile, attend_whole_tiles):
        for name in inspect.signature(function.fn).parameters:
            assert f"`{name}`" in text, name
    for name in (
        "request_id",
        "token_ids",
        "num_computed_tokens",
        "num_uncomputed_tokens",
        "num_seqs",
        "draft_token_ids",
    ):
        assert f"| `{name}` |" in text
        assert name in dir(Request) or name in Request.__dataclass_fields__
    for method in (KVCacheManager.start, KVCacheManager.append, KVCacheManager.free):
        arguments = ", ".join(list(inspect.signature(method).parameters)[1:])
        assert f"| `{method.__name__}({arguments})` |" in text


def test_the_functions_of_triton_that_kernels_need_are_shown_before_them() -> None:
    for i, cell in enumerate(DAY_2.cells):
        if cell.kind is CellKind.EXERCISE and cell.exercise:
            sources = exercise_sources(cell.exercise.name)
            told = {name for earlier in DAY_2.cells[:i] for name in re.findall(r"\btl\.\w+", earlier.source)}
            needed = set(re.findall(r"\btl\.\w+", sources.solution)) - set(re.findall(r"\btl\.\w+", sources.stub))
            assert needed <= told, cell.exercise.name


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


@pytest.mark.parametrize(("day", "points"), [(DAY_1, [2, 2, 3, 3, 3, 3, 4]), (DAY_2, [3, 2, 2, 3, 2, 3, 5])], ids=id_of)
def test_a_day_has_its_seven_parts_for_twenty_points(day: Day, points: list[int]) -> None:
    parts = [name for name, part in all_parts().items() if part.day == int(day.name[3])]
    assert list(day.exercises) == parts
    assert [spec.points for spec in day.exercises.values()] == points
    assert sum(points) == 20
    assert 150 <= sum(spec.minutes for spec in day.exercises.values()) <= 240


@pytest.mark.parametrize("day", GRADED, ids=id_of)
def test_every_exercise_is_followed_by_its_check_and_by_its_use(day: Day) -> None:
    for i, cell in enumerate(day.cells):
        if cell.kind is CellKind.EXERCISE and cell.exercise:
            name = cell.exercise.name
            assert f"<!-- head: {name} -->" in day.cells[i - 1].source
            assert day.cells[i + 1].kind is CellKind.CHECK
            assert day.cells[i + 2].source == f"use({name})"


def hints(day: Day) -> dict[str, list[str]]:
    path = day.lesson.with_name("hints.toml")
    return {name: entry["hints"] for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()}


@pytest.mark.parametrize("day", GRADED, ids=id_of)
def test_every_exercise_has_two_or_three_hints(day: Day) -> None:
    assert list(hints(day)) == list(day.exercises)
    for name, levels in hints(day).items():
        assert 2 <= len(levels) <= 3, name
        assert len(set(levels)) == len(levels), name


@pytest.mark.parametrize("day", GRADED, ids=id_of)
def test_no_hint_gives_a_line_of_the_solution_away(day: Day) -> None:
    for name, levels in hints(day).items():
        stub = {line.strip() for line in exercise_sources(name).stub.splitlines()}
        answer = [line.strip() for line in exercise_sources(name).solution.splitlines()]
        for line in answer:
            if line not in stub and len(line) > 20:
                assert not any(line in level for level in levels), (name, line)


@pytest.mark.parametrize("day", GRADED, ids=id_of)
def test_the_text_gives_no_line_of_a_solution_away(day: Day) -> None:
    text = "\n".join(c.source for c in day.cells if c.kind is not CellKind.EXERCISE)
    for name in day.exercises:
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


# ---------------------------------------------------------------- and in that of Day 2


def test_bytes_and_operations_of_a_decoding_step() -> None:
    text = text_of(DAY_2)
    assert 1000 * 2 * 2 * 32 * 4 == 512_000
    assert "**512,000 bytes**" in text
    operations, moved = 3 * (2 * 32 + 2 * 32), 2 * 32 * 4  # three query heads, one KV head, D = 32
    assert operations / moved == 1.5
    assert 256 * operations / moved == 384
    assert 1500 / (64 - 4) == 25


def test_the_positions_of_a_chunk() -> None:
    assert 20 - 5 == 15  # "0 to 15: it stands at position 20 - 5 = 15"
    table = BlockTable(busy_pool(), block_size=4)
    table.append(10)
    assert {slot // 4 for slot in table.slots(0, 7)} == {12, 5}  # what the query at position 6 sees


def test_the_schedules_that_are_drawn_and_told() -> None:
    def steps(requests: list[tuple[int, int]], budget: int, num_blocks: int) -> list[tuple[list[Any], list[str]]]:
        arrivals = [(0, prompt, output) for prompt, output in requests]
        case = traffic(arrivals, budget=budget, num_blocks=num_blocks)
        parts = SimpleNamespace(Scheduler=Scheduler)
        return [(step["scheduled"], step["preempted"]) for step in Traffic(parts, case).run()["steps"]]

    drawn = [dict(scheduled) for scheduled, _ in steps([(10, 4), (6, 4), (11, 4)], 8, 100)]
    (cell,) = [c.source for c in DAY_2.cells if c.source.startswith("plots.schedule_grid(\n    [")]
    assert drawn[:4] == [{"a": 8}, {"a": 2, "b": 6}, {"a": 1, "b": 1, "c": 6}, {"a": 1, "b": 1, "c": 5}]
    for step in drawn[:4]:
        assert str(step).replace("'", '"') in cell

    told = steps([(7, 7), (7, 5), (3, 3)], 512, 4)
    assert told[:3] == [([["a", 7], ["b", 7]], []), ([["a", 1], ["b", 1]], []), ([["a", 1]], ["b"])]
    when_a_has_ended = next(scheduled for scheduled, _ in told[3:] if "a" not in dict(scheduled))
    assert when_a_has_ended == [["b", 9], ["c", 3]]
