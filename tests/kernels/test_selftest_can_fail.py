"""The self-test finds what kernels do wrong: each mistake below, made in torch, fails with the right words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tinyllm.kernels import reference
from tinyllm.kernels.cases import KERNELS, Case, GroupedCase, decode, device_grid, interpreter_grid, prefill
from tinyllm.kernels.grouped_inputs import GroupedInputs
from tinyllm.kernels.guards import GUARD, Inputs
from tinyllm.kernels.selftest import attention_inputs, run_case, summary

DECODE = decode((20, 9), 4, 2, 32, 16)
PREFILL = prefill((6, 3), (20, 9), 4, 2, 32, 16, sliding_window=7)
STORE = replace(PREFILL, kernel="store_kv")
GROUPED = GroupedCase((9, 0, 3), 2, 24, 20, 16, absent=2, weighted="float32", room=3)


def right(inputs: Inputs, case: Case) -> None:
    out, _ = reference.paged_attention_with_lse(*attention_inputs(inputs, case), sliding_window=case.sliding_window)
    for i, query_len in enumerate(case.query_lens):
        rows = slice(*inputs.query_start_loc[i : i + 2].tolist())
        if case.kernel == "paged_prefill" or query_len == 1:
            inputs.out[rows] = out[rows].to(inputs.out.dtype)


def right_store(inputs: Inputs, case: Case) -> None:
    reference.store_kv(inputs.k, inputs.v, inputs.k_cache, inputs.v_cache, inputs.slot_mapping)


def one_position_too_many(inputs: Inputs, case: Case) -> None:
    right(replace(inputs, context_lens=inputs.context_lens + 1), case)


def window_off_by_one(inputs: Inputs, case: Case) -> None:
    right(inputs, replace(case, sliding_window=(case.sliding_window or 0) + 1))


def low_precision(inputs: Inputs, case: Case) -> None:
    right(replace(inputs, q=inputs.q.bfloat16().float()), case)


def writes_everywhere(inputs: Inputs, case: Case) -> None:
    right(inputs, case)
    inputs.watched["out"][GUARD - 1] = 0


def writes_all_rows(inputs: Inputs, case: Case) -> None:
    right(inputs, replace(case, kernel="paged_prefill"))


def writes_nothing(inputs: Inputs, case: Case) -> None:
    pass


def spoils_its_input(inputs: Inputs, case: Case) -> None:
    right(inputs, case)
    inputs.q.mul_(2)


def last_slot_for_minus_one(inputs: Inputs, case: Case) -> None:
    inputs.k_cache[inputs.slot_mapping] = inputs.k
    inputs.v_cache[inputs.slot_mapping] = inputs.v


def right_products(inputs: GroupedInputs, case: GroupedCase) -> None:
    products = reference.grouped_gemm(inputs.a, inputs.w, inputs.topk_ids, inputs.topk_weights)
    mine = (inputs.topk_ids >= 0).flatten()
    inputs.out[mine] = products[mine].to(inputs.out.dtype)


def no_weights(inputs: GroupedInputs, case: GroupedCase) -> None:
    right_products(replace(inputs, topk_weights=None), case)


def all_pairs(inputs: GroupedInputs, case: GroupedCase) -> None:
    right_products(inputs, case)
    inputs.out[(inputs.topk_ids < 0).flatten()] = 0


def padding_stored(inputs: GroupedInputs, case: GroupedCase) -> None:
    right_products(inputs, case)
    inputs.watched["out"][GUARD + inputs.out.numel()] = 0


def reads_between_rows(inputs: GroupedInputs, case: GroupedCase) -> None:
    wide = inputs.a.as_strided((*inputs.a.shape[:-1], case.depth + 1), inputs.a.stride())
    right_products(replace(inputs, a=inputs.a + 0 * wide[:, -1:]), case)


def spoils_the_blocks(inputs: GroupedInputs, case: GroupedCase) -> None:
    right_products(inputs, case)
    inputs.blocks[0].zero_()


MIXED = decode((12, 10, 30), 4, 2, 32, 16, query_lens=(1, 3, 1))


@pytest.mark.parametrize(
    "case", [DECODE, PREFILL, MIXED, replace(DECODE, dtype="bfloat16")], ids=lambda case: case.name
)
def test_the_right_answer_passes(case: Case) -> None:
    outcome = run_case(case, right, "cpu")
    assert outcome.problems == ()
    assert 0 < outcome.error < 0.01


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_right_products_pass(dtype: str) -> None:
    outcome = run_case(replace(GROUPED, dtype=dtype), right_products, "cpu")
    assert outcome.problems == ()
    assert 0 < outcome.error < 0.01


def test_the_right_store_passes() -> None:
    assert run_case(STORE, right_store, "cpu").problems == ()


@pytest.mark.parametrize(
    ("case", "kernel", "words"),
    [
        (DECODE, one_position_too_many, "error nan"),
        (PREFILL, window_off_by_one, "is allowed"),
        (DECODE, low_precision, "is allowed"),
        (PREFILL, writes_everywhere, "outside its rows"),
        (MIXED, writes_all_rows, "outside its rows"),
        (DECODE, writes_nothing, "is allowed"),
        (DECODE, spoils_its_input, "wrote to projection"),
        (STORE, last_slot_for_minus_one, "pool is not as expected"),
        (STORE, writes_nothing, "pool is not as expected"),
        (GROUPED, no_weights, "is allowed"),
        (GROUPED, writes_nothing, "is allowed"),
        (GROUPED, all_pairs, "outside its rows"),
        (GROUPED, padding_stored, "outside its rows"),
        (GROUPED, reads_between_rows, "error nan"),
        (GROUPED, spoils_the_blocks, "wrote to sorted_token_ids"),
    ],
)
def test_a_mistake_is_found(case: Case | GroupedCase, kernel: Callable[..., None], words: str) -> None:
    outcome = run_case(case, kernel, "cpu")
    assert any(words in problem for problem in outcome.problems), outcome
    assert " 1 " in summary([outcome]).splitlines()[1], "the summary counts the failure"


@pytest.mark.parametrize("grid", [interpreter_grid(), device_grid()], ids=["interpreter", "device"])
def test_the_grids_have_what_they_promise(grid: tuple[Case | GroupedCase, ...]) -> None:
    assert len({case.name for case in grid}) == len(grid), "two cases have one name"
    for kernel in KERNELS:
        cases = [case for case in grid if isinstance(case, Case) and case.kernel == kernel]
        assert {case.dtype for case in cases} == {"float32", "float16", "bfloat16"}
        assert {1, 3, 16} <= {case.block_size for case in cases}
        assert min(sum(case.query_lens) for case in cases) == 1
    attention = [case for case in grid if isinstance(case, Case) and case.kernel != "store_kv"]
    assert {32, 64, 128, 256} <= {case.head_dim for case in attention}
    assert {1, 2, 3, 8} <= {case.num_heads // case.num_kv_heads for case in attention}
    assert any(case.sliding_window for case in attention)
    grouped = [case for case in grid if isinstance(case, GroupedCase)]
    assert {case.dtype for case in grouped} == {"float32", "float16", "bfloat16"}
    assert {1, 2, 3} <= {case.pairs_per_row for case in grouped}
    assert {16, 32, 64} <= {case.block_size for case in grouped}
    assert min(sum(case.counts) for case in grouped) == 1
    for what in ("absent", "room", "large", "weighted"):
        assert {bool(getattr(case, what)) for case in grouped} == {False, True}, what
    assert any(0 in case.counts for case in grouped)
