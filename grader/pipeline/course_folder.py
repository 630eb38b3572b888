"""nbgrader's side: a course folder with its configuration, releases, gradebook, feedback and export."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import AssignLatePenalties, CheckCellMetadata, IgnorePattern, LimitOutput
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

from grader.build.course import Day
from grader.build.notebook import instructor_notebook, notebook_text
from grader.build.sources import STUB
from grader.pipeline.judged_run import JudgedRun, SaveJudgedScores

COURSE_ID = "tinyllm"

#: Written to the folder, so that nbgrader's own commands and formgrader agree with what is done here.
CONFIG_TEXT = f"""\
# Written by `grader grade`. Start `jupyter lab` in this folder to look through the submissions with formgrader.
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = {COURSE_ID!r}
c.ClearSolutions.code_stub = {{"python": {STUB!r}}}
c.HTMLExporter.sanitize_html = True  # outputs of submissions hold what students want them to
"""


class CourseFolder:
    """One nbgrader course under `root`, used through nbgrader's Python interface in this process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = Config(
            {
                "CourseDirectory": {"course_id": COURSE_ID, "root": str(root)},
                "ClearSolutions": {"code_stub": {"python": STUB}},
                "HTMLExporter": {"sanitize_html": True},
            }
        )
        self.log = logging.getLogger("grader.nbgrader")
        self.log.propagate = False
        self.log.setLevel(logging.INFO)

    @contextmanager
    def logging_to(self, path: Path) -> Iterator[None]:
        """Send what nbgrader has to say to a file, and SQLAlchemy's advice to nbgrader's authors nowhere.

        nbgrader starts `alembic` by its name, so this Python's programs are on the path meanwhile.
        """
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        self.log.addHandler(handler)
        path_before = os.environ.get("PATH", "")
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path_before])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SAWarning)
                yield
        finally:
            os.environ["PATH"] = path_before
            self.log.removeHandler(handler)
            handler.close()

    def create(self, days: list[Day]) -> None:
        """Write the configuration and sources, and have nbgrader make the releases and the gradebook."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "nbgrader_config.py").write_text(CONFIG_TEXT, encoding="utf-8")
        for day in days:
            source = self.root / "source" / day.name / f"{day.name}.ipynb"
            source.parent.mkdir(parents=True)
            source.write_text(notebook_text(instructor_notebook(day)), encoding="utf-8")
            self._converter(GenerateAssignment, day.name).start()

    def add_student(self, student: str) -> None:
        """Put a student on the list, so that one who handed nothing in is exported too."""
        with Gradebook(f"sqlite:///{self.root / 'gradebook.db'}", COURSE_ID) as gradebook:
            gradebook.update_or_create_student(student)

    def submit(self, student: str, day: str, notebook: Any) -> None:
        """Write a notebook that intake has rebuilt as the student's submission."""
        path = self.root / "submitted" / student / day / f"{day}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(notebook_text(notebook), encoding="utf-8")

    def autograde(self, student: str, day: str, run: JudgedRun) -> None:
        """Run and score one submission.

        Raises:
            NbGraderException: nbgrader failed; its log says why.
        """
        converter = self._converter(Autograde, day, student)
        converter.autograde_preprocessors = [
            run,
            IgnorePattern,
            ClearMetadataPreprocessor,
            LimitOutput,
            SaveJudgedScores(run.results, parent=converter),
            AssignLatePenalties,
            CheckCellMetadata,
        ]
        try:
            converter.start()
        finally:
            os.environ.pop("NBGRADER_EXECUTION", None)  # nbgrader leaves it there when it fails

    def _converter(self, kind: type, day: str, student: str = "*") -> Any:
        coursedir = CourseDirectory(config=self.config, log=self.log, assignment_id=day, student_id=student)
        return kind(coursedir=coursedir, config=self.config, log=self.log)
