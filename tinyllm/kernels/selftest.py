"""Hold every kernel against a float64 oracle over a grid of shapes, between guard zones.

    python -m tinyllm.kernels.selftest                  compiled where there is CUDA, else in Triton's interpreter
    python -m tinyllm.kernels.selftest --device cpu     in the interpreter, in about a minute
    python -m tinyllm.kernels.selftest --json FILE      and a line of JSON for each case

The interpreter cannot survive some wild accesses. A case without a line in FILE is one that ended the process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyllm.kernels import reference
from tinyllm.kernels.cases import Case, GroupedCase, device_grid, interpreter_grid
from tinyllm.kernels.grouped_inputs import GroupedInputs, make_grouped_inputs
from tinyllm.kernels.guards import CANARY, Inputs, changed, make_inputs, snapshot

#: Largest |got - expected| / (1 + |expected|) from float64, by dtype: two units in the last place in 16 bits, and room
#: for sums and `exp2` of large scores in float32. TF32 would be 50 times the latter.
TOLERANCES = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}

#: A kernel to try: takes the inputs and the case, writes `inputs.out` (or the pool, for store_kv).
Kernel = Callable[[Any, Any], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case showed.

    Attributes:
        error: the largest error, see `TOLERANCES`; NaN where something that must not be read was.
        problems: what is wrong, in words; empty when all is well.
    """

    case: Case | GroupedCase
    error: float
    problems: tuple[str, ...]


def triton_kernels() -> dict[str, Kernel]:
    """The kernels of this package.

    Raises:
        KernelsUnavailable: there is no Triton here.
    """
    # Only here: the environment chooses the interpreter before Triton is imported.
    from tinyllm.kernels.grouped_gemm import grouped_gemm
    from tinyllm.kernels.paged_decode import paged_decode
    from tinyllm.kernels.paged_decode_split import paged_decode_split
    from tinyllm.kernels.paged_prefill import paged_prefill
    from tinyllm.kernels.store_kv import store_kv

    def attention(launch: Callable[..., Tensor], **more: Callable[[Case], int]) -> Kernel:
        def run(inputs: Inputs, case: Case) -> None:
            own = {name: value(case) for name, value in more.items()}
            launch(*attention_inputs(inputs, case), sliding_window=case.sliding_window, out=inputs.out, **own)

        return run

    def products(inputs: GroupedInputs, case: GroupedCase) -> None:
        num_pairs = inputs.topk_ids.numel()
        grouped_gemm(inputs.a, inputs.w, *inputs.blocks, num_pairs, inputs.topk_weights, out=inputs.out)

    return {
        "store_kv": lambda i, case: store_kv(i.k, i.v, i.k_cache, i.v_cache, i.slot_mapping),
        "paged_decode": attention(paged_decode),
        "paged_decode_split": attention(paged_decode_split, split_size=lambda case: case.split_size),
        "paged_prefill": attention(paged_prefill, max_query_len=lambda case: max(case.query_lens)),
        "grouped_gemm": products,
    }


def attention_inputs(inputs: Inputs, case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int]:
    """The arguments that all attention kernels and the reference begin with."""
    tables = (inputs.block_tables, inputs.context_lens, inputs.query_start_loc)
    return (inputs.q, inputs.k_cache, inputs.v_cache, *tables, case.block_size)


def run_case(case: Case | GroupedCase, kernel: Kernel, device: str) -> Outcome:
    """Run one kernel on one case and compare what it wrote, and only that, with the oracle."""
    if isinstance(case, GroupedCase):
        return judge_grouped(case, kernel, make_grouped_inputs(case, device))
    inputs = make_inputs(case, device)
    before = snapshot(inputs)
    if case.kernel == "store_kv":
        return judge_store(case, kernel, inputs, before)
    oracle = reference.paged_attention_with_lse(
        *attention_inputs(inputs, case), sliding_window=case.sliding_window, dtype=torch.float64
    )[0]
    kernel(inputs, case)
    mine = torch.zeros(len(oracle), dtype=torch.bool, device=device)
    starts = inputs.query_start_loc.tolist()
    for i, query_len in enumerate(case.query_lens):
        mine[starts[i] : starts[i + 1]] = case.kernel == "paged_prefill" or query_len == 1
    return judge_rows(case, inputs, before, oracle, mine)


def judge_grouped(case: GroupedCase, kernel: Kernel, inputs: GroupedInputs) -> Outcome:
    """The rows of the pairs that have an expert are those of the oracle."""
    before = snapshot(inputs)
    oracle = reference.grouped_gemm(inputs.a, inputs.w, inputs.topk_ids, inputs.topk_weights)
    kernel(inputs, case)
    mine = (inputs.topk_ids >= 0).flatten().to(oracle.device)
    return judge_rows(case, inputs, before, oracle, mine)


def judge_rows(
    case: Case | GroupedCase, inputs: Inputs | GroupedInputs, before: dict[str, Tensor], oracle: Tensor, mine: Tensor
) -> Outcome:
    """These rows of `out` are those of the oracle, and nothing else has changed."""
    problems = [f"wrote to {name}" for name in changed(inputs, before) if name != "out"]
    error = float(((inputs.out - oracle).abs() / (1 + oracle.abs()))[mine].max()) if mine.any() else 0.0
    if not error <= TOLERANCES[case.dtype]:  # NaN too
        problems.append(f"error {error:.1e} where {TOLERANCES[case.dtype]:.1e} is allowed")
    inputs.out[mine] = CANARY
    if "out" in changed(inputs, before):
        problems.append("wrote outside its rows of out")
    return Outcome(case, error, tuple(problems))


def judge_store(case: Case, kernel: Kernel, inputs: Inputs, before: Mapping[str, Tensor]) -> Outcome:
    """Every bit of the pool and its guards is what the reference leaves."""
    expected = make_inputs(case, str(inputs.q.device))
    reference.store_kv(expected.k, expected.v, expected.k_cache, expected.v_cache, expected.slot_mapping)
    kernel(inputs, case)
    wrong = changed(inputs, expected.watched)
    return Outcome(case, float("nan") if wrong else 0.0, tuple(f"{name} is not as expected" for name in wrong))


def summary(outcomes: list[Outcome]) -> str:
    """A line for each kernel and dtype: cases, failures, the largest error beside what is allowed."""
    lines = [f"{'kernel':20}{'dtype':10}{'cases':>6}{'failed':>8}{'largest error':>15}{'allowed':>10}"]
    for kernel, dtype in sorted({(o.case.kernel, o.case.dtype) for o in outcomes}):
        group = [o for o in outcomes if (o.case.kernel, o.case.dtype) == (kernel, dtype)]
        failed = sum(bool(o.problems) for o in group)
        allowed = 0.0 if kernel == "store_kv" else TOLERANCES[dtype]
        largest = torch.tensor([o.error for o in group]).max()  # NaN, where there is one
        lines.append(f"{kernel:20}{dtype:10}{len(group):>6}{failed:>8}{largest:>15.1e}{allowed:>10.1e}")
    return "\n".join(lines)


def main() -> int:
    """Run the grid; the exit status is 1 when a case failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tinyllm.kernels.selftest", description="Hold the kernels against a float64 oracle."
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, choices=("cpu", "cuda"), help=f"default here: {default}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a line of JSON for each case")
    args = parser.parse_args()
    if args.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
        torch.set_num_threads(1)
    kernels, outcomes = triton_kernels(), []
    for case in device_grid() if args.device == "cuda" else interpreter_grid():
        outcome = run_case(case, kernels[case.kernel], args.device)
        outcomes.append(outcome)
        print(
            "FAILED" if outcome.problems else "ok    ", f"{outcome.error:.1e}", case.name, *outcome.problems, flush=True
        )
        if args.json:
            record = {"case": case.name, "error": repr(outcome.error), "problems": outcome.problems}
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
    print(summary(outcomes))
    return int(any(outcome.problems for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
