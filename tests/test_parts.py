"""Learner's parts: recorded, stamped, used by the engine, and named when they fail."""

from __future__ import annotations

import inspect
import linecache
from typing import Any

import pytest
from support.models import drain, make_engine, tiny_model

from tinyllm.config import SamplingParams
from tinyllm.errors import PartError, WorkspaceError
from tinyllm.kv_cache.allocator import BlockAllocator
from tinyllm.part_table import Part
from tinyllm.parts import (
    Parts,
    all_parts,
    find_part,
    is_reference,
    own_reason,
    resolve,
    source_file,
    stamp,
    status,
    use,
)
from tinyllm.recorded import source_hash, source_of

STACK_ALLOCATOR = '''
from tinyllm.kv_cache.allocator import OutOfBlocksError

class BlockAllocator:
    """Hands out the block that was freed last."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.stack = list(range(num_blocks))
        self.ref_counts = [0] * num_blocks

    @property
    def num_free(self):
        return len(self.stack)

    def ref_count(self, block_id):
        return self.ref_counts[block_id]

    def allocate(self, num_blocks):
        if num_blocks > len(self.stack):
            raise OutOfBlocksError("full")
        taken = [self.stack.pop() for _ in range(num_blocks)]
        for block_id in taken:
            self.ref_counts[block_id] = 1
        return taken

    def share(self, block_id):
        self.ref_counts[block_id] += 1

    def free(self, block_id):
        self.ref_counts[block_id] -= 1
        if self.ref_counts[block_id] == 0:
            self.stack.append(block_id)
'''
BREAKS_LATER = STACK_ALLOCATOR.replace("self.ref_counts[block_id] -= 1", "self.ref_counts[block_idd] -= 1")
LOSES_BLOCKS = STACK_ALLOCATOR.replace("self.stack.append(block_id)", "pass")
ANNOTATED_BY_ANOTHER_CELL = '''
class CopyOnWrite:
    """Annotations name a class of another cell."""

    def __init__(self, allocator: BlockAllocator, copy_block) -> None:
        self.allocator = allocator

    def fork(self, table: BlockTable) -> BlockTable:
        raise NotImplementedError
'''
NONSENSE_SLOTS = """
from tinyllm.kv_cache.block_table import BlockTable as Reference

class BlockTable(Reference):
    def slots(self, start, stop):
        return [-1] * (stop - start)
"""


def run_cell(source: str, name: str) -> Any:
    """Define an object as a notebook does: the source is known to linecache under the cell's file name."""
    filename = f"<cell {source_hash(source)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("from __future__ import annotations\n" + source, filename, "exec"), namespace)
    return namespace[name]


def outputs(parts: Parts, **options: Any) -> dict[str, Any]:
    engine = make_engine(tiny_model(), parts, num_blocks=20, **options)
    for i in range(6):
        engine.add_request([i, *range(20)], SamplingParams(max_tokens=10), str(i))
    engine.add_request([1, 2, 3, 4, 5], SamplingParams(max_tokens=9, n=3, temperature=1.0, seed=1), "forked")
    return drain(engine)


def owner(name: str) -> str:
    return next(row.owner for row in status() if row.name == name)


@pytest.mark.parametrize("item", all_parts().values(), ids=lambda item: item.name)
def test_a_part_is_where_the_table_says(item: Part) -> None:
    assert item.reference.__name__ == item.name
    own = inspect.unwrap(item.reference)  # a Triton function is an object of the interpreter, around a function
    assert own.__module__ == item.module, "its own module, not one that imports it"


def test_the_reference_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner's cell may put anything into the course's modules."""
    assert is_reference(BlockAllocator)
    monkeypatch.setattr("tinyllm.kv_cache.allocator.BlockAllocator", run_cell(STACK_ALLOCATOR, "BlockAllocator"))
    assert all_parts()["BlockAllocator"].reference is BlockAllocator
    assert is_reference(BlockAllocator)


def test_day_1_has_its_seven_parts_in_order() -> None:
    day_1 = [item.name for item in all_parts().values() if item.day == 1]
    assert day_1 == [
        "kv_bytes_per_token",
        "reservation_waste",
        "BlockAllocator",
        "BlockTable",
        "PagedKVCache",
        "CopyOnWrite",
        "PrefixCache",
    ]


def test_a_checked_part_runs_the_engine_with_the_same_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    use(run_cell(STACK_ALLOCATOR, "BlockAllocator"))
    assert owner("BlockAllocator") == "reference", "not checked yet"
    stamp("BlockAllocator", STACK_ALLOCATOR, right=True)
    assert owner("BlockAllocator") == "yours"
    capsys.readouterr()
    parts = resolve("mine")
    assert capsys.readouterr().out.startswith("Your parts: BlockAllocator. Reference: kv_bytes_per_token,")
    assert hasattr(parts["BlockAllocator"](3), "stack")
    assert outputs(parts) == outputs(resolve())


def test_a_part_whose_check_failed_or_is_out_of_date_is_not_used() -> None:
    use(run_cell(STACK_ALLOCATOR, "BlockAllocator"))
    stamp("BlockAllocator", STACK_ALLOCATOR, right=False)
    assert own_reason("BlockAllocator") == (False, "its last check failed")
    stamp("BlockAllocator", STACK_ALLOCATOR, right=True)
    source_file("BlockAllocator").write_text(BREAKS_LATER)
    assert own_reason("BlockAllocator") == (False, "changed since its last check")


def test_a_part_that_did_not_fail_is_not_said_to_have() -> None:
    use(run_cell(STACK_ALLOCATOR, "BlockAllocator"))
    stamp("BlockAllocator", STACK_ALLOCATOR, right=False, reason="not attempted yet")
    assert own_reason("BlockAllocator") == (False, "not attempted yet")


def test_the_reference_itself_is_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    use(BlockAllocator)
    assert "reference itself" in capsys.readouterr().out
    assert not source_file("BlockAllocator").exists()


def test_a_part_that_raises_is_named_with_its_line() -> None:
    stamp("BlockAllocator", BREAKS_LATER, right=True)
    use(run_cell(BREAKS_LATER, "BlockAllocator"))
    with pytest.raises(PartError, match=r"your BlockAllocator failed in line \d+ .*block_idd.*NameError"):
        outputs(resolve("mine"))


def test_a_part_that_loses_blocks_is_found_when_nothing_can_run() -> None:
    parts = resolve({"BlockAllocator": run_cell(LOSES_BLOCKS, "BlockAllocator")})
    with pytest.raises(PartError, match=r"nothing runs, and \d+ of 20 blocks.*BlockAllocator"):
        outputs(parts)


def test_a_part_that_returns_nonsense_is_named() -> None:
    parts = resolve({"BlockTable": run_cell(NONSENSE_SLOTS, "BlockTable")})
    with pytest.raises(PartError, match="BlockTable"):
        outputs(parts)


def test_a_source_that_does_not_run_is_named() -> None:
    broken = "import no_such_module\n" + STACK_ALLOCATOR
    source_file("BlockAllocator").parent.mkdir(parents=True)
    source_file("BlockAllocator").write_text(broken)
    stamp("BlockAllocator", broken, right=True)
    with pytest.raises(PartError, match="your BlockAllocator failed in line 1"):
        resolve("mine")


def test_annotations_may_name_classes_of_other_cells() -> None:
    use(run_cell(ANNOTATED_BY_ANOTHER_CELL, "CopyOnWrite"))
    stamp("CopyOnWrite", ANNOTATED_BY_ANOTHER_CELL, right=True)
    assert resolve("mine").mine == ("CopyOnWrite",)


def test_a_damaged_stamp_counts_as_not_checked() -> None:
    use(run_cell(STACK_ALLOCATOR, "BlockAllocator"))
    source_file("BlockAllocator").with_suffix(".stamp.json").write_text("[1")
    assert own_reason("BlockAllocator") == (False, "recorded but not checked yet")


def test_the_source_of_a_cell_is_the_whole_cell() -> None:
    assert source_of(run_cell(STACK_ALLOCATOR, "BlockAllocator")) == STACK_ALLOCATOR
    with pytest.raises(WorkspaceError, match="cannot be read"):
        source_of(type("Made", (), {}))


@pytest.mark.parametrize("wrong", ["Mine", {"NoSuchPart": BlockAllocator}])
def test_unknown_choices_are_refused(wrong: Any) -> None:
    with pytest.raises(WorkspaceError):
        resolve(wrong)


def test_an_unknown_part_lists_the_known_ones() -> None:
    with pytest.raises(WorkspaceError, match="BlockAllocator, BlockTable"):
        find_part("BlockAlocator")


# ---------------------------------------------------------------- nonsense is blamed on the part that it comes from

OVER_BUDGET = """
from tinyllm.engine.scheduler import Scheduler as Reference
from tinyllm.engine.scheduler_output import ScheduledRequest

class Scheduler(Reference):
    def schedule_running(self):
        return [], []

    def admit_waiting(self, budget):
        request = self.waiting.popleft()
        request.num_computed_tokens = self.kv.start(request.request_id, request.token_ids)
        self.running.append(request)
        return [ScheduledRequest(request, self.kv.append(request.request_id, request.num_uncomputed_tokens))]
"""
ASKS_FOR_LESS_THAN_NOTHING = OVER_BUDGET.replace("request.num_uncomputed_tokens)", "-1)")
TWICE = OVER_BUDGET.replace("return [Sch", "return 2 * [Sch").replace(
    "num_uncomputed_tokens)", "num_uncomputed_tokens // 4)"
)
PLANS = OVER_BUDGET.partition("    def schedule_running")[0] + "    def schedule(self):\n        return {}\n"
NONSENSE = {
    "BlockAllocator": [
        ("allocate", "None", r"your BlockAllocator: allocate returned None"),
        ("allocate", "[0] * num_blocks", r"your BlockAllocator: allocate must return different block ids from 0 to 19"),
        ("allocate", "[1.5] * num_blocks", r"your BlockAllocator: allocate must return \d+ block ids"),
    ],
    "BlockTable": [
        ("append", "[]", r"your BlockTable: append must return \d+ slots, returned \[\]"),
        ("num_new_blocks", "None", "your BlockTable: num_new_blocks must return a number, returned None"),
    ],
    "CopyOnWrite": [
        ("append", "None", "your CopyOnWrite: append returned None"),
        ("needs_copy", "'no'", "your CopyOnWrite: needs_copy must return True or False, returned 'no'"),
    ],
    "PagedKVCache": [("gather", "None", "your PagedKVCache: gather returned None")],
    "PrefixCache": [("match", "[0] * 9", "your PrefixCache: match returned 9 blocks for 21 tokens")],
}


@pytest.mark.parametrize(
    ("name", "method", "value", "words"), [(name, *rest) for name, cases in NONSENSE.items() for rest in cases]
)
def test_a_part_that_hands_over_nonsense_is_blamed_itself(name: str, method: str, value: str, words: str) -> None:
    reference = all_parts()[name].reference
    arguments = ", ".join(inspect.signature(getattr(reference, method)).parameters)
    source = f"from {reference.__module__} import {name} as Reference\n\nclass {name}(Reference):\n"
    source += f"    def {method}({arguments}):\n        return {value}\n"
    with pytest.raises(PartError, match=words):
        outputs(resolve({name: run_cell(source, name)}), enable_prefix_caching=True)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (OVER_BUDGET, "your Scheduler: step 1: 21 tokens scheduled, the budget is 16"),
        (TWICE, "your Scheduler: step 1: '0.0' is scheduled twice"),
        (ASKS_FOR_LESS_THAN_NOTHING, "the Scheduler asked for -1 slots for '0.0'"),
        (PLANS, "your Scheduler: schedule returned {}, which cannot be used"),
    ],
)
def test_a_scheduler_that_plans_nonsense_is_blamed_itself(source: str, words: str) -> None:
    with pytest.raises(PartError, match=words):
        outputs(resolve({"Scheduler": run_cell(source, "Scheduler")}), max_num_batched_tokens=16)


def test_the_references_run_unwatched() -> None:
    assert resolve()["BlockAllocator"] is BlockAllocator
    assert resolve({"BlockAllocator": BlockAllocator}).mine == ("BlockAllocator",)


def test_watched_parts_give_the_same_tokens() -> None:
    everything = {name: item.reference for name, item in all_parts().items()}
    assert outputs(resolve(everything), enable_prefix_caching=True) == outputs(resolve(), enable_prefix_caching=True)
