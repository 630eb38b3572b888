"""nbgrader's side: a course folder with its configuration, sources, releases and gradebook."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nbgrader.api import MissingEntry
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

from grader.build.course import Day
from grader.build.notebook import instructor_notebook, notebook_text, release_notebook
from grader.build.sources import STUB
from grader.reporting.gradebook import COURSE_ID, open_gradebook
from tinyllm.files import write_text

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

    def create(self, days: Sequence[Day]) -> None:
        """Write the configuration and sources, and have nbgrader make the releases and the gradebook.

        A day that is there already stays; one that was cut off in the middle is made again.
        """
        write_text(self.root / "nbgrader_config.py", CONFIG_TEXT)
        for day in days:
            release = self.root / "release" / day.name / f"{day.name}.ipynb"
            whole = notebook_text(release_notebook(day)).strip()
            if release.is_file() and release.read_text(encoding="utf-8").strip() == whole and self.knows(day.name):
                continue
            for stage in ("source", "release"):
                shutil.rmtree(self.root / stage / day.name, ignore_errors=True)
            write_text(self.root / "source" / day.name / f"{day.name}.ipynb", notebook_text(instructor_notebook(day)))
            coursedir = CourseDirectory(config=self.config, log=self.log, assignment_id=day.name, student_id="*")
            GenerateAssignment(coursedir=coursedir, config=self.config, log=self.log).start()

    def knows(self, day: str) -> bool:
        """Whether the gradebook has a day with its cells."""
        with open_gradebook(self.root) as gradebook:
            try:
                return bool(gradebook.find_notebook(day, day).grade_cells)
            except MissingEntry:
                return False
