"""The class report: scores, what was hard, the most common mistakes, and what a person should look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from grader.framework import Outcome
from grader.framework.rendering import escape, prose
from grader.marks.final import FinalExercise, FinalMarks
from grader.marks.overrides import Override
from grader.marks.record import Status
from grader.marks.similar import Alike
from grader.reporting.feedback_page import count
from grader.reporting.page import page
from grader.reporting.pictures import KINDS, as_image, histogram, median, mistakes, pass_rates
from grader.reporting.tables import number

MOST_COMMON = 10  # mistakes that are shown

#: Statuses that a person should know of, and why.
LOOK: Mapping[Status, str] = {
    Status.FAILED: "grading failed: grade it again",
    Status.REFUSED: "the file is no notebook that can be read",
    Status.MISSING: "nothing was handed in",
    Status.CRASHED: "a cell or a check ended Python",
    Status.TIMED_OUT: "a cell or a check took too long",
    Status.REPAIRED: "cells were put back or found elsewhere",
}


def class_report(
    finals: Sequence[FinalMarks], titles: Mapping[str, str], alike: Sequence[Alike] = (), title: str = ""
) -> str:
    """The report as one HTML page that needs no other file.

    Args:
        finals: everybody's marks.
        titles: of the days, by name.
        alike: answers that are equal to the reference or to each other.
        title: the class's.
    """
    heading = title or "Class report"
    body = [f"<h1>{escape(heading)}</h1>"]
    for day in dict.fromkeys(one.day for one in finals):
        body += day_section([one for one in finals if one.day == day], titles.get(day, day))
    body += look_section(finals)
    body += alike_section(alike)
    return page(heading, "\n".join(body))


def day_section(finals: Sequence[FinalMarks], title: str) -> Iterator[str]:
    """One day: its scores, its exercises and its mistakes."""
    graded = [one for one in finals if one.known and one.status is not Status.MISSING]
    totals = [one.total for one in graded]
    max_total = max(one.max_total for one in finals)
    yield f"<h2>{escape(title)}</h2>"
    missing = sum(one.status is Status.MISSING for one in finals)
    words = f"{count(len(graded), 'submission')} graded"
    words += f", {count(missing, 'student')} handed nothing in" if missing else ""
    if not graded:
        yield f"<p>{words}.</p>"
        return
    mean = sum(totals) / len(totals)
    yield (
        f"<p>{words}. Median {number(median(totals))}, mean {number(round(mean, 2))} of {number(max_total)} points; "
        f"{sum(total >= max_total for total in totals)} with full points.</p>"
    )
    if max_total:
        alt = f"Histogram of {len(totals)} totals from {number(min(totals))} to {number(max(totals))} points."
        yield as_image(histogram(totals, max_total), alt)
    yield "<h3>Exercises</h3>"
    kinds = exercise_kinds(graded)
    yield as_image(pass_rates(kinds), "; ".join(f"{name}: {spoken(counts)}" for name, counts in kinds.items()))
    yield "<h3>Most common mistakes</h3>"
    yield from mistakes_section(graded)


def exercise_kinds(finals: Sequence[FinalMarks]) -> dict[str, Counter[str]]:
    """By exercise, how many students are of each kind."""
    kinds: dict[str, Counter[str]] = {}
    for one in finals:
        for item in one.exercises:
            kinds.setdefault(item.name, Counter())[kind_of(item)] += 1
    return kinds


def kind_of(item: FinalExercise) -> str:
    """Which of the picture's kinds an exercise of a student is."""
    if item.points >= item.max_points:
        return "right"
    if item.points > 0:
        return "partly right"
    untouched = item.result is None or item.result.outcome is Outcome.NOT_ATTEMPTED
    return "not attempted" if untouched else "no points"


def mistakes_section(finals: Sequence[FinalMarks]) -> Iterator[str]:
    """The known mistakes that were made most often, in a picture and in words."""
    made: Counter[tuple[str, str]] = Counter()
    texts: dict[tuple[str, str], str] = {}
    undiagnosed = 0
    for one in finals:
        for item in one.exercises:
            diagnoses = () if item.result is None else item.result.diagnoses
            wrong = item.result is not None and item.result.outcome not in (Outcome.RIGHT, Outcome.NOT_ATTEMPTED)
            undiagnosed += wrong and not diagnoses
            for diagnosis in diagnoses:
                made[item.name, diagnosis.name] += 1
                texts[item.name, diagnosis.name] = diagnosis.text
    if made:
        common = dict(sorted(made.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_COMMON])
        shown = {f"{name} ({exercise})": times for (exercise, name), times in common.items()}
        yield as_image(mistakes(shown), "; ".join(f"{name}: {times}" for name, times in shown.items()))
        rows = "".join(
            f'<tr><td>{escape(exercise)}</td><td>{escape(name)}</td><td class="number">{times}</td>'
            f"<td>{prose(texts[exercise, name].splitlines()[0])}</td></tr>"
            for (exercise, name), times in common.items()
        )
        head = '<tr><th>Exercise</th><th>Mistake</th><th class="number">Students</th><th>What students read</th></tr>'
        yield f"<table>{head}{rows}</table>"
    else:
        yield "<p>None of the known mistakes was made.</p>"
    if undiagnosed:
        yield f"<p>Wrong answers that behave like no known mistake: {undiagnosed}.</p>"


def look_section(finals: Sequence[FinalMarks]) -> Iterator[str]:
    """Submissions that came through in an unusual way, and marks that were set by hand."""
    yield "<h2>For a person to look at</h2>"
    unusual = sorted((one for one in finals if one.status in LOOK), key=lambda one: list(LOOK).index(one.status))
    if unusual:
        rows = "".join(
            f"<tr><td>{escape(one.student)}</td><td>{escape(one.day)}</td><td>{escape(str(one.status))}</td>"
            f"<td>{prose('; '.join(one.notes) or LOOK[one.status])}</td></tr>"
            for one in unusual
        )
        head = "<tr><th>Student</th><th>Day</th><th>Status</th><th>Why</th></tr>"
        yield f"<h3>Submissions</h3><table>{head}{rows}</table>"
    by_hand = [(one, item, item.override) for one in finals for item in one.exercises if item.override]
    if by_hand:
        rows = "".join(
            f"<tr><td>{escape(one.student)}</td><td>{escape(item.name)}</td>"
            f'<td class="number">{number(item.judged)}</td><td class="number">{number(item.points)}</td>'
            f'<td>{escape(override.reason)} <span class="soft">({escape(by_and_at(override))})</span></td>'
            "</tr>"
            for one, item, override in by_hand
        )
        head = (
            '<tr><th>Student</th><th>Exercise</th><th class="number">Judged</th><th class="number">Set to</th>'
            "<th>Reason</th></tr>"
        )
        yield f"<h3>Marks set by a person</h3><table>{head}{rows}</table>"
    if not unusual and not by_hand:
        yield "<p>Every submission was graded as it was handed in, and no mark was set by hand.</p>"


def alike_section(alike: Sequence[Alike]) -> Iterator[str]:
    """Answers that are equal to each other or to the reference."""
    yield "<h3>Answers that are equal</h3>"
    if not alike:
        yield "<p>No two answers are equal, and none equals the reference.</p>"
        return
    yield (
        "<p>Equal in structure: names of variables, comments, docstrings and layout do not count. A short answer can "
        "be equal by chance, so look before you ask.</p>"
    )
    rows = "".join(
        f'<tr><td>{escape(one.exercise)}</td><td class="number">{one.size}</td>'
        f"<td>{'yes' if one.reference else 'no'}</td><td>{escape(', '.join(one.students))}</td></tr>"
        for one in alike
    )
    head = '<tr><th>Exercise</th><th class="number">Size</th><th>Equal to the reference</th><th>Students</th></tr>'
    yield f"<table>{head}{rows}</table>"


def spoken(counts: Mapping[str, int]) -> str:
    """Counts of the picture's kinds in words."""
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts.get(kind))


def by_and_at(override: Override) -> str:
    """Who decided, and when."""
    return f"{override.by}, {override.at}"
