"""The lessons run from top to bottom: as solved notebooks in a kernel, and as the plain Python that they are."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from nbformat.v4 import new_code_cell

from book import solutions
from grader.build.course import CellKind, LessonCell, days, find_day
from grader.build.notebook import instructor_notebook
from grader.checks import find_exercise
from grader.mutants import specimens
from grader.running import missing_requirement
from tinyllm.kernels.paged_decode import paged_decode
from tinyllm.kernels.paged_prefill import paged_prefill
from tinyllm.paths import project_root

#: Appended to Day 1's notebook: what its finale has found.
REPORT_DAY_1 = """
import json
print(json.dumps({
    "mine": my_parts.mine, "most": most, "steady": [steady, steady_all], "waste": measured,
    "same_tokens": answer.outputs[0].token_ids == reference.chat(question)[0].outputs[0].token_ids,
    "same_pool": [r.num_free_blocks for r in paged] == [r.num_free_blocks for r in all_paged[:len(paged)]],
    "blocks_saved": saved, "tokens_hit": hits, "rows": len(scoreboard.load().rows),
}))
"""

#: The same for Day 2.
REPORT_DAY_2 = """
import json
print(json.dumps({
    "mine": my_parts.mine, "same_tokens": [together == alone, tight == alone], "preemptions": num_preempted,
    "chunked": float((torch.cat([first, second]) - prompt).abs().max()),
    "merged": [float((merged - whole).abs().max()), float((state[0] - whole).abs().max())],
    "steps": {name: report.num_steps for name, report in throughput.items()},
    "tokens": {name: report.num_tokens for name, report in [*throughput.items(), *reports.items()]},
    "most_at_once": {name: max(r.num_running for r in run.records) for name, run in at_once.items()},
    "small_pool": small.stats().num_preempted, "rows": len(scoreboard.load().rows),
    "backends": answers_by_backend,
}))
"""

#: The same for Day 3.
REPORT_DAY_3 = """
import json
print(json.dumps({
    "mine": my_parts.mine, "same_experts": torch.equal(my_ids.long(), topk_ids), "differences": row_differences,
    "touched": [measured, laws["the law, experts chosen alike"]], "imbalance": bars,
    "max_violation": {name: run.max_violation for name, run in trained.items()},
    "same_tokens": tokens["mine"] == tokens["reference"], "backends": by_backend, "rows": len(scoreboard.load().rows),
}))
"""


@cache
def run_solved(name: str, work: str, report: str = "") -> Any:
    """The solved notebook of a day after a kernel has run it."""
    notebook = instructor_notebook(find_day(name))
    if report:
        notebook.cells.append(new_code_cell(report, id="report"))
    solutions.run(notebook, work)
    solutions.keep(find_day(name).name, notebook)  # so that the site's tests need not run it once more
    return notebook


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The solved notebooks, run one after the other in one work folder."""
    work = str(tmp_path_factory.mktemp("work"))
    reports = {"day0": "", "day1": REPORT_DAY_1, "day2": REPORT_DAY_2, "day3": REPORT_DAY_3}
    return {name: run_solved(name, work, report) for name, report in reports.items()}


def found(solved: dict[str, Any], day: str) -> dict[str, Any]:
    """What a day's report says."""
    report: dict[str, Any] = json.loads(solved[day].cells[-1].outputs[-1].text)
    return report


@pytest.fixture(scope="module")
def finale(solved: dict[str, Any]) -> dict[str, Any]:
    """What Day 1's finale has found."""
    return found(solved, "day1")


@pytest.fixture(scope="module")
def finale_2(solved: dict[str, Any]) -> dict[str, Any]:
    """What Day 2 has found."""
    return found(solved, "day2")


@pytest.fixture(scope="module")
def finale_3(solved: dict[str, Any]) -> dict[str, Any]:
    """What Day 3 has found."""
    return found(solved, "day3")


def printed(source: str, namespace: dict[str, Any]) -> str:
    """What a cell prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(source, namespace)
    return out.getvalue()


@pytest.mark.parametrize("choice", [0, 1, 2])
def test_the_cells_between_the_exercises_run_on_any_right_answer(choice: int) -> None:
    """They may use what the parts promise, and nothing that is the reference's own way."""
    namespace: dict[str, Any] = {}
    replaced = 0
    for cell in find_day("day1").cells:
        if cell.kind is CellKind.MARKDOWN:
            if cell.source.startswith("## Finale"):
                break
        elif cell.kind is CellKind.EXERCISE and cell.exercise:
            alternates = specimens(find_exercise(cell.exercise.name)).alternates
            namespace[cell.exercise.name] = alternates[choice % len(alternates)].obj
            replaced += 1
        elif cell.kind is not CellKind.CHECK and not cell.source.startswith("use("):
            first, again = (printed(cell.source, namespace) for _ in range(2))
            assert again == first, "a cell that is run once more breaks nothing and doubles nothing"
    assert replaced == 7
    assert torch.equal(namespace["dense"], namespace["paged_out"])
    assert len({block for table in namespace["group"].values() for block in table.block_ids}) == 10
    assert (namespace["free_before"], namespace["freed"], namespace["allocator"].num_free) == (11, 2, 13)


def runs_quickly(cell: LessonCell) -> bool:
    """Whether a cell is there to be run, and is not a measurement that takes long."""
    measures = "longest_gap" in cell.source
    return cell.kind in (CellKind.SETUP, CellKind.DEMO) and not measures and not cell.source.startswith("use(")


@pytest.mark.needs("checkpoint")
@pytest.mark.parametrize("choice", [0, 1])
def test_the_cells_of_day_2_run_on_any_right_answer(choice: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those outside of the kernels' sections, up to the finale."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # the lesson's own setting, which must not outlive this test
    namespace: dict[str, Any] = {"device": "cpu", "paged_decode": paged_decode, "paged_prefill": paged_prefill}
    exec("from tinyllm import LLM, SamplingParams", namespace)
    replaced, among_kernels = [], False
    for cell in find_day("day2").cells:
        if cell.kind is CellKind.MARKDOWN:
            if cell.source.startswith("## Finale"):
                break
            if cell.source.startswith("## "):
                among_kernels = cell.source.startswith(("## Triton", "## 3.", "## 4.", "## 5.", "## 6."))
        elif cell.kind is CellKind.EXERCISE and cell.exercise and not among_kernels:
            alternates = specimens(find_exercise(cell.exercise.name)).alternates
            namespace[cell.exercise.name] = alternates[choice % len(alternates)].obj
            replaced.append(cell.exercise.name)
        elif not among_kernels and runs_quickly(cell):
            exec(cell.source, namespace)
    assert replaced == ["paged_attention", "merge_attention_states", "Scheduler"]
    assert (torch.cat([namespace["first"], namespace["second"]]) - namespace["prompt"]).abs().max() < 1e-5
    assert (namespace["merged"] - namespace["whole"]).abs().max() < 1e-5
    assert namespace["preempted"][2] == ["b"]


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["day0", "day1", "day2", "day3"])
def test_every_cell_of_a_solved_notebook_runs_and_draws_what_it_promises(solved: dict[str, Any], name: str) -> None:
    for cell in solved[name].cells:
        if cell.cell_type == "code" and ("plots." in cell.source.splitlines()[-1] or cell.source.startswith("plots.")):
            kinds = [kind for output in cell.outputs for kind in output.get("data", {})]
            assert kinds.count("image/png") == 1, cell.source  # once, not twice


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_the_engine_ran_on_the_parts_of_the_notebook(finale: dict[str, Any]) -> None:
    assert finale["mine"] == list(find_day("day1").exercises)
    assert finale["same_tokens"]
    assert finale["same_pool"]


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_at_least_four_times_more_requests_fit_in_the_same_pool(finale: dict[str, Any]) -> None:
    assert finale["most"] >= 4
    assert min(finale["steady"]) >= 4, "in the first steps with the model, and over the whole trace"


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_little_is_wasted(finale: dict[str, Any]) -> None:
    waste = finale["waste"]
    assert waste["ShareGPT"]["P = 16"] < 0.02
    assert waste["Alpaca"]["P = 16"] < 0.10
    for trace in waste.values():
        assert trace["P = 8"] < trace["P = 16"] < trace["P = 32"] < trace["contiguous"]
        assert trace["contiguous"] > 0.6


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_sharing_saves_blocks_and_tokens(finale: dict[str, Any]) -> None:
    assert finale["blocks_saved"] > 0
    assert len(finale["tokens_hit"]) == 7
    assert min(finale["tokens_hit"]) >= 16  # the system prompt's full blocks, for every user after the first


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_the_scoreboard_has_a_row_for_each_day(finale: dict[str, Any]) -> None:
    assert finale["rows"] == 2


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_day_2_runs_on_the_parts_of_both_days(finale_2: dict[str, Any]) -> None:
    kernels = [] if missing_requirement("triton") else [n for n in find_day("day2").exercises if n.startswith("paged")]
    wanted = {*find_day("day1").exercises, "paged_attention", "merge_attention_states", "Scheduler", *kernels}
    assert wanted <= set(finale_2["mine"])
    assert len({tuple(tokens) for tokens in finale_2["backends"].values()}) == 1
    assert finale_2["rows"] == 3


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_chunks_batches_and_preemption_change_no_token(finale_2: dict[str, Any]) -> None:
    assert finale_2["same_tokens"] == [True, True]
    assert finale_2["preemptions"] > 0
    assert finale_2["small_pool"] > 0
    assert max(finale_2["chunked"], *finale_2["merged"]) < 1e-5


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_continuous_batching_needs_far_fewer_steps_than_static(finale_2: dict[str, Any]) -> None:
    steps = finale_2["steps"]
    assert steps["static"] >= 1.5 * steps["continuous"]
    assert finale_2["most_at_once"] == {"static": 16, "continuous": 16}
    assert len(set(finale_2["tokens"].values())) == 1, "both serve the same"


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_day_3_serves_the_mixture_on_the_parts_of_the_notebook(finale_3: dict[str, Any]) -> None:
    own = {name for name in find_day("day3").exercises if not find_exercise(name).in_triton}
    assert own <= set(finale_3["mine"])
    assert finale_3["same_experts"]
    assert max(finale_3["differences"]) < 1e-4
    assert finale_3["same_tokens"]
    assert len({tuple(tokens) for tokens in finale_3["backends"].values()}) == 1
    assert finale_3["rows"] == 4


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_a_batch_touches_more_experts_and_hardly_more_than_the_law_says(finale_3: dict[str, Any]) -> None:
    measured, law = finale_3["touched"]
    assert measured == sorted(measured)
    assert measured[0] == law[0] == 2  # one token, two experts
    assert all(seen <= 1.1 * told for seen, told in zip(measured, law, strict=True))
    assert measured[-1] > 7


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
def test_balancing_and_redundant_slots_even_out_the_load(finale_3: dict[str, Any]) -> None:
    violation = finale_3["max_violation"]
    assert violation["without balancing"] > 1.5
    assert max(violation["with the loss"], violation["with the bias"]) < 0.5
    bars = finale_3["imbalance"]
    assert bars["1 extra a rank"]["talk"] < bars["packed"]["talk"] <= bars["in order"]["talk"]


def shown(notebook: Any, code: str) -> str:
    """What the one cell with this code has printed or shown as its value."""
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and code in c.source]
    return "".join(out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs)


@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("day", "code", "words"),
    [
        ("day0", "What is a KV cache?", ["keys", "values"]),
        ("day0", "Where is Brinmouth?", ["west coast"]),
        ("day0", "Who is the mayor of Zetrivas?", ["4210 [1]", "mayor of Zetrivas is not given"]),
        ("day1", "answer = mine.chat(question)", ["keys", "values"]),
        ("day1", "user 2: ", ["block table"]),
        ("day2", "answers[6].text", ["scheduler"]),
    ],
)
def test_the_model_answers_sensibly(solved: dict[str, Any], day: str, code: str, words: list[str]) -> None:
    text = shown(solved[day], code)
    assert [word for word in words if word not in text] == [], text


@pytest.mark.slow
@pytest.mark.needs("checkpoint")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("day", days(), ids=lambda day: day.name)
def test_a_lesson_runs_as_plain_python(day: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "MPLBACKEND": "Agg", "TINYLLM_WORK": str(tmp_path), "PYTHONPATH": str(project_root())}
    done = subprocess.run([sys.executable, str(day.lesson)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
