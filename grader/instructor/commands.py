"""The instructor's verbs of the `grader` command: export, override, similar and bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tinyllm.console import make_console

console = make_console()

OutArgument = Annotated[Path, typer.Argument(help="A folder that `grader grade --out` wrote.")]
ClassOption = Annotated[Path | None, typer.Option("--class", help="The class file; without it, the folder's own.")]


def add_commands(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (export, override, similar, bundle):
        app.command()(verb)


def export(out: OutArgument, class_file: ClassOption = None) -> None:
    """Write marks, feedback pages and report again, with the class file and the overrides, without grading again.

    Examples:

        grader export results/

        grader export results/ --class class.toml
    """
    from grader.marks.class_file import FILE_NAME, course_of
    from grader.marks.kept import keep_class_file, kept_records
    from grader.reporting.export import export as export_folder

    course = course_of(class_file or out / FILE_NAME)
    marks = kept_records(out)
    keep_class_file(out, class_file, course)
    exported = export_folder(out, course)
    statuses = Counter(str(one.status) for one in exported.finals)
    words = ", ".join(f"{number} {status}" for status, number in statuses.most_common())
    console.print(f"{len(marks)} submissions ({words}). Written: {out}/marks.csv, students.csv, report.html, feedback/")


def override(
    out: OutArgument,
    student: Annotated[str, typer.Argument(help="As in marks.csv.")],
    exercise: Annotated[str, typer.Argument(help="For example BlockAllocator.")],
    points: Annotated[float | None, typer.Argument(help="What the exercise earns now.")] = None,
    reason: Annotated[str, typer.Option(help="Why, in words that the student will read.")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take an earlier override back.")] = False,
) -> None:
    """Set a mark by hand, with a reason. It is kept in overrides.jsonl and shown in CSV, feedback and report.

    Examples:

        grader override results/ ada BlockAllocator 3 --reason "The check misjudged a lazy free list."

        grader override results/ ada BlockAllocator --withdraw --reason "The answer is wrong after all."
    """
    from grader.marks.class_file import FILE_NAME, course_of
    from grader.marks.decide import decide
    from grader.reporting.export import export as export_folder

    course = course_of(out / FILE_NAME)
    done = decide(out, course, student, exercise, points, reason, withdraw)
    exported = export_folder(out, course)
    now = next(one for one in exported.finals if (one.student, one.day) == (done.student, done.day))
    what = "back to the judge's mark" if done.points is None else f"set to {done.points:g}"
    console.print(f"{student}, {exercise}: {what}. {student} now has {now.total:g} of {now.max_total:g} points.")


def similar(out: OutArgument) -> None:
    """List answers that are equal to the reference or to each other, whatever their names, comments and layout.

    Examples:

        grader similar results/
    """
    from grader.marks.class_file import FILE_NAME, course_of
    from grader.marks.similar import alike_in

    found = alike_in(out, course_of(out / FILE_NAME))
    table = Table(box=None, pad_edge=False)
    for name, options in (("Exercise", {}), ("Size", {"justify": "right"}), ("Reference", {}), ("Students", {})):
        table.add_column(name, **options)  # type: ignore[arg-type]
    for one in found:
        table.add_row(one.exercise, str(one.size), "equal" if one.reference else "", ", ".join(one.students))
    if found:
        console.print(table)
    console.print(f"{len(found)} groups of equal answers. Short answers are equal by chance; look before you ask.")


def bundle(
    archive: Annotated[Path, typer.Argument(help="The zip to write.")],
    class_file: ClassOption = None,
    days: Annotated[list[str] | None, typer.Option("--day", help="Only this day; may be given again.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a zip that is there.")] = False,
) -> None:
    """Write a zip to hand out: the release notebooks as your class gets them, and no solution.

    Examples:

        grader bundle week1.zip --day day1

        grader bundle week1.zip --class class.toml
    """
    from grader.instructor.bundle import write_bundle

    names: Sequence[str] = write_bundle(archive, class_file, days, force)
    console.print(f"{archive}: {', '.join(names)}")
