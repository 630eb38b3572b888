"""Day 2 in the sandbox: kernels run in jails, and nothing there does an exercise's work under another name."""

from __future__ import annotations

import pytest
from grading import points_of, records_of

from grader.build.course import find_day
from grader.build.sources import exercise_sources
from grader.marks.record import Record, Status

DAY = find_day("day2")
KERNELS = ("store_kv", "paged_decode", "paged_decode_split", "paged_prefill")
ATTENTION = ("paged_attention", *KERNELS[1:])

#: An answer that hands its work to whichever function of the course does it, one after the other.
LEAN_ON = """
from tinyllm.attention.paged_attention import paged_attention as engine_attention
from tinyllm.kernels import paged_decode as decode, paged_decode_split as split, paged_prefill as prefill, reference

def {name}(q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size, **options):
    where = (q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size)
    longest = int(query_start_loc.diff().max())
    for attempt in (
        lambda: engine_attention(*where),
        lambda: reference.paged_attention_with_lse(*where)[0],
        lambda: prefill.paged_prefill(*where, max_query_len=longest),
        lambda: prefill.launch_paged_prefill(prefill.attend_chunk, *where, longest),
        lambda: decode.paged_decode(*where),
        lambda: decode.launch_paged_decode(decode.attend_pages, *where),
        lambda: split.paged_decode_split(*where),
    ):
        try:
            found = attempt()
        except Exception:
            continue
        if "out" in options:
            options["out"].copy_(found)
        return found
    raise RuntimeError("nothing here does it")
"""

WILD = """
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.store_kv import launch_store_kv

@triton.jit
def store_kv_kernel(k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, kt, kh, vt, vh, cs, ch,
                    NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr):
    tl.store(k_cache_ptr + 2**42, 1.0)

def store_kv(k, v, k_cache, v_cache, slot_mapping):
    launch_store_kv(store_kv_kernel, k, v, k_cache, v_cache, slot_mapping)
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """The marks of a small class."""
    right = {name: exercise_sources(name).solution for name in DAY.exercises}
    answers = {
        "perfect": right,
        "untouched": {},
        "wild": {**right, "store_kv": WILD},
        "leaning": {**right, **{name: LEAN_ON.format(name=name) for name in ATTENTION}},
    }
    return records_of(tmp_path_factory.mktemp("day2"), DAY, answers)


@pytest.mark.needs("triton")
def test_right_kernels_earn_all_points(records: dict[str, Record]) -> None:
    assert records["perfect"].status is Status.GRADED
    assert points_of(records["perfect"]) == {name: spec.points for name, spec in DAY.exercises.items()}


def test_stubs_earn_nothing(records: dict[str, Record]) -> None:
    assert records["untouched"].total == 0


@pytest.mark.needs("triton")
def test_a_wild_kernel_costs_its_own_exercise_only(records: dict[str, Record]) -> None:
    lost = DAY.exercises["store_kv"].points
    assert points_of(records["wild"]) == {**points_of(records["perfect"]), "store_kv": 0.0}
    assert records["wild"].total == records["perfect"].total - lost
    said = " ".join(str(records["wild"].results["store_kv"]).split())
    assert "outside of the tensors that the launch was given, far from all of them" in said


def test_nothing_in_the_course_does_the_work(records: dict[str, Record]) -> None:
    earned = points_of(records["leaning"])
    assert {name: earned[name] for name in ATTENTION} == dict.fromkeys(ATTENTION, 0.0)
    assert earned["Scheduler"] == DAY.exercises["Scheduler"].points
