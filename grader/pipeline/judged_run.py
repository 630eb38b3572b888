"""How nbgrader runs and scores a submission here: the judge gives the marks, and no cell can lose another's."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute, SaveAutoGrades
from nbgrader.utils import is_grade

from grader.build.notebook import SETUP_TAG
from grader.checks import find_exercise
from grader.judge import JudgeProcess
from grader.rendering import to_text
from grader.results import CheckResult, Outcome, PropertyResult
from tinyllm.paths import project_root

CELL_SECONDS = 30.0  # for a cell that holds the student's code
CHECK_SECONDS = 180.0  # for a check (the judge's own limits for each case come long before) and the course's setup
NOTEBOOK_SECONDS = 600.0
MAX_PRINTED = 100_000  # characters kept of what one cell prints

#: What the student's kernel sees of our environment.
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES")


class JudgedRun(Execute):
    """Runs a submission's cells beside a judge and puts the judge's tick lists where the checks' outputs would be.

    A cell that ends the kernel or takes too long is left out, and the rest runs again in a new kernel.

    Attributes:
        results: the judge's result for every exercise of the notebook, filled by `preprocess`.
        left_out: cells that were left out, with the reason.
    """

    def __init__(self, seed: int, judge_folder: Path, scratch: Path) -> None:
        """`judge_folder` gets the judge's scores; `scratch` is the folder that the submission works in."""
        super().__init__(
            interrupt_on_timeout=False,  # a cell may ignore the interrupt: its kernel is replaced instead
            shutdown_kernel="immediate",
            timeout_func=self._seconds_for,
        )
        self.seed = seed
        self.judge_folder = judge_folder
        self.scratch = scratch
        self.results: dict[str, CheckResult] = {}
        self.left_out: dict[str, Outcome] = {}
        self._env: dict[str, str] = {}
        self._sockets = scratch
        self._deadline = 0.0
        self._current = 0
        self._printed = 0

    def preprocess(self, nb: Any, resources: Any, km: Any = None) -> tuple[Any, Any]:
        """Run the notebook; nothing that a submission does makes this raise."""
        self._deadline = monotonic() + NOTEBOOK_SECONDS
        self.scratch.mkdir(parents=True, exist_ok=True)
        with JudgeProcess(self.seed, self.judge_folder) as judge, tempfile.TemporaryDirectory(prefix="ipc-") as sockets:
            self._sockets = Path(sockets)
            self._env = {**kernel_environment(self.scratch), **judge.env}
            self._run_all(nb, resources)
        judged = judge.results()  # after the judge has ended: it may have been waiting for a kernel that died
        cells = {cell.metadata.nbgrader["grade_id"]: cell for cell in nb.cells if "nbgrader" in cell.metadata}
        for name in [name.removeprefix("check-") for name in cells if name.startswith("check-")]:
            self.results[name] = judged[name] if name in judged else unreached(name, cells)
            cells[f"check-{name}"].outputs = [shown(self.results[name].without_inputs())]
        return nb, resources

    def _run_all(self, nb: Any, resources: Any) -> None:
        while monotonic() < self._deadline:
            try:
                super().preprocess(nb, resources)
                return
            except (DeadKernelError, CellTimeoutError) as error:
                timed_out = isinstance(error, CellTimeoutError)
                self._leave_out(nb.cells, Outcome.TIMED_OUT if timed_out else Outcome.CRASHED)
        self.left_out["the rest of the notebook"] = Outcome.TIMED_OUT

    def _leave_out(self, cells: list[Any], why: Outcome) -> None:
        """Do not run the present cell again, nor the checks before it."""
        culprit = cells[self._current]
        words = {Outcome.TIMED_OUT: "took too long", Outcome.CRASHED: "ended Python"}[why]
        text = f"This cell {words} and was left out."
        culprit.outputs = [new_output("error", ename=str(why), evalue=text, traceback=[text])]
        self.left_out[culprit.id] = why
        for cell in cells[: self._current + 1]:
            if cell is culprit or is_grade(cell):
                cell.metadata.setdefault("tags", []).append(self.skip_cells_with_tag)

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """Run one cell, and remember which."""
        self._current, self._printed = index, 0
        return super().preprocess_cell(cell, resources, index)

    def create_kernel_manager(self) -> Any:
        """A manager whose kernel listens at files and not at network ports: nobody else can speak to it."""
        place = tempfile.mkdtemp(dir=self._sockets)  # short: a socket's path has 107 bytes at most
        self.km = self.kernel_manager_class(kernel_name="python3", transport="ipc", ip=f"{place}/kernel")
        return self.km

    def setup_kernel(self, **options: Any) -> Any:
        """Start the kernel in the scratch folder, with no more of our environment than it needs."""
        return super().setup_kernel(env=self._env, cwd=str(self.scratch), **options)

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """Keep an output, but no more text of one cell than anybody will read."""
        if msg["msg_type"] == "stream":
            text = msg["content"]["text"]
            msg["content"]["text"] = text[: max(0, MAX_PRINTED - self._printed)]
            self._printed += len(text)
        return super().process_message(msg, cell, cell_index)

    def _seconds_for(self, cell: Any) -> float:
        ours = is_grade(cell) or SETUP_TAG in cell.metadata.get("tags", [])
        limit = CHECK_SECONDS if ours else CELL_SECONDS
        return max(1.0, min(limit, self._deadline - monotonic()))


class SaveJudgedScores(SaveAutoGrades):
    """Writes the judge's points to the gradebook, whatever the cells printed or returned."""

    def __init__(self, results: Mapping[str, CheckResult], **options: Any) -> None:
        """`results` is read when the notebook has run."""
        super().__init__(**options)
        self.results = results

    def _add_score(self, cell: Any, resources: Any) -> None:
        grade_id = cell.metadata["nbgrader"]["grade_id"]
        grade = self.gradebook.find_grade(grade_id, self.notebook_id, self.assignment_id, self.student_id)
        grade.auto_score = self.results[grade_id.removeprefix("check-")].points
        grade.needs_manual_grade = grade.manual_score is not None
        self.gradebook.db.commit()


def kernel_environment(scratch: Path) -> dict[str, str]:
    """The environment of a student's kernel: one thread, no network model hub, every path in the scratch folder."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    here = {name: str(scratch) for name in ("HOME", "TMPDIR", "IPYTHONDIR", "TINYLLM_WORK", "MPLCONFIGDIR")}
    return {
        **kept,
        **here,
        "NBGRADER_EXECUTION": "autograde",
        "PYTHONPATH": str(project_root()),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def unreached(name: str, cells: Mapping[str, Any]) -> CheckResult:
    """The result of an exercise that the judge was never asked about: its answer did not run, or its check did not."""
    errors = [output for cell in (name, f"check-{name}") for output in cells[cell].outputs if "ename" in output]
    reason = f"{errors[0].ename}: {errors[0].evalue}" if errors else "there was no time left"
    outcome = Outcome.CRASHED if errors and errors[0].ename != Outcome.TIMED_OUT else Outcome.TIMED_OUT
    message = f"{name} could not be checked. {reason}"[:500]
    properties = find_exercise(name).properties
    return CheckResult(
        exercise=name,
        seed=None,
        properties=tuple(
            PropertyResult(item.sentence, item.weight, outcome, message if number == 0 else "")
            for number, item in enumerate(properties)
        ),
    )


def shown(result: CheckResult) -> Any:
    """A result as the output of a cell: text, since nbgrader's sanitised feedback drops most of our HTML."""
    return new_output("stream", name="stdout", text=to_text(result) + "\n")
