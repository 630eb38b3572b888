"""One student's feedback page: points, what went wrong in words, what to try, and the answers that were graded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from grader.framework import CheckResult, Outcome
from grader.framework.rendering import MARKS, diagnosis_title, escape, next_step, prose, with_details
from grader.marks.final import FinalExercise, FinalMarks
from grader.marks.record import Status
from grader.reporting.page import page
from grader.reporting.tables import number

MAX_ANSWER = 20_000  # characters of an answer that the page shows

#: What a status means for the student, and what to try.
STATUS_WORDS: Mapping[Status, str] = {
    Status.REPAIRED: (
        "Your notebook was not quite as it was handed out, and was repaired before it was graded. That cost no points. "
        "To be safe, hand in the file that `tinyllm submit` writes."
    ),
    Status.TIMED_OUT: (
        "A cell took too long and was left out; everything else was graded. It is shown at the end of this page. Look "
        "for a loop that never ends, and take long demonstrations out of your own cells."
    ),
    Status.CRASHED: (
        "A cell ended Python itself and was left out; everything else was graded. It is shown at the end of this page. "
        "That happens when memory runs out, when code calls `exit` or `os._exit`, or when a compiled library crashes."
    ),
    Status.REFUSED: (
        "Your file could not be read as this notebook, so there was nothing to grade. Open the notebook in JupyterLab, "
        "save it, and hand in the file that `tinyllm submit` writes."
    ),
    Status.MISSING: "No notebook of this day was found. If you handed one in, tell your instructor.",
    Status.FAILED: (
        "Grading failed, through no fault of yours, and there are no marks yet. Your instructor will grade this again."
    ),
}

NOTHING_RUN = (Status.REFUSED, Status.MISSING, Status.FAILED)


def feedback_page(
    marks: FinalMarks, title: str, answers: Mapping[str, str], failed: Sequence[tuple[str, str]] = ()
) -> str:
    """The page as HTML.

    Args:
        marks: the student's marks for the day.
        title: of the day.
        answers: the source that was graded, by exercise.
        failed: source and error of each cell of the student's own that did not run through.
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">Feedback for {escape(marks.student)}</p>',
        *totals(marks),
        *status_box(marks),
        summary(marks),
    ]
    for item in marks.exercises if marks.status not in NOTHING_RUN else ():
        parts += exercise_section(item, answers.get(item.name, ""))
    parts += own_cells(failed)
    return page(f"{title}: {marks.student}", "\n".join(parts))


def totals(marks: FinalMarks) -> Iterator[str]:
    """The points, and what lateness took off."""
    if not marks.known:
        yield '<p class="total">No marks yet</p>'
        return
    yield f'<p class="total">{number(marks.total)} of {number(marks.max_total)} points</p>'
    if marks.days_late:
        free = f", of which {count(marks.free_days, 'free day')} cost nothing" if marks.free_days else ""
        yield (
            f"<p>Handed in {count(marks.days_late, 'day')} late{free}: {number(marks.earned)} points earned, "
            f"{number(marks.penalty)} taken off.</p>"
        )


def status_box(marks: FinalMarks) -> Iterator[str]:
    """What happened to the submission as a whole; nothing where all went as usual."""
    words = STATUS_WORDS.get(marks.status, "")
    if not words and not marks.notes:
        return
    kind = "box" if marks.status in (Status.GRADED, Status.REPAIRED) else "box bad"
    notes = "".join(f"<li>{prose(sentence(note))}</li>" for note in marks.notes)
    yield f'<div class="{kind}"><p>{prose(words)}</p>{f"<ul>{notes}</ul>" if notes else ""}</div>'


def summary(marks: FinalMarks) -> str:
    """A line for each exercise."""
    rows = "".join(
        f"<tr><td>{link(marks, item)}</td>"
        f'<td class="{css_class(item)}">{escape(outcome_words(item))}</td>'
        f'<td class="number">{number(item.points)} of {number(item.max_points)}</td></tr>'
        for item in marks.exercises
    )
    head = '<tr><th>Exercise</th><th>Outcome</th><th class="number">Points</th></tr>'
    return f"<table>{head}{rows}</table>" if marks.known else ""


def link(marks: FinalMarks, item: FinalExercise) -> str:
    """An exercise's name, leading to its section where there is one."""
    name = escape(item.name)
    return name if marks.status in NOTHING_RUN else f'<a href="#{name}">{name}</a>'


def exercise_section(item: FinalExercise, answer: str) -> Iterator[str]:
    """The tick list of an exercise, its diagnoses, the next step, and the answer."""
    yield f'<h2 id="{escape(item.name)}">{escape(item.name)}</h2>'
    if item.override:
        yield (
            f'<div class="box"><p>These points were set by a person: {number(item.points)} of '
            f"{number(item.max_points)}. {prose(sentence(item.override.reason))}</p></div>"
        )
    if item.result is None:
        yield '<p class="soft">Nothing was run.</p>'
    else:
        yield from tick_list(item.result)
    if answer:
        shown = answer if len(answer) <= MAX_ANSWER else answer[:MAX_ANSWER] + "\n..."
        fine = item.result is None or item.result.outcome in (Outcome.RIGHT, Outcome.NOT_ATTEMPTED)
        is_open = "" if fine else " open"
        yield f"<details{is_open}><summary>Your answer</summary><pre>{numbered(shown)}</pre></details>"


def tick_list(result: CheckResult) -> Iterator[str]:
    """Every property of an exercise with its outcome, and what to do next."""
    rows = []
    for item, below in with_details(result.without_inputs()):
        more = "".join(f"<div>{prose(text)}</div>" for _, text in below)
        css = str(item.outcome).replace(" ", "-")
        rows.append(
            f'<li><span class="{css}">{MARKS[item.outcome]}</span><span class="{css}">{item.outcome}</span>'
            f"<span>{escape(item.sentence)}</span>{more}</li>"
        )
    yield f'<ul class="ticks">{"".join(rows)}</ul>'
    if result.diagnoses:
        texts = "".join(f"<p>{prose(item.text)}</p>" for item in result.diagnoses)
        yield f'<div class="box"><p><strong>{escape(diagnosis_title(result))}</strong></p>{texts}</div>'
    yield f"<p>{prose(next_step(result))}</p>"


def own_cells(failed: Sequence[tuple[str, str]]) -> Iterator[str]:
    """The cells of the student's own that did not run through: they may be what an answer needs."""
    if failed:
        yield "<h2>Cells of your own that did not run through</h2>"
        yield "<p>They earn nothing and cost nothing, unless an answer needs what they define.</p>"
    for source, error in failed:
        shown = source if len(source) <= MAX_ANSWER else source[:MAX_ANSWER] + "\n..."
        yield f"<p>{prose(sentence(error))}</p><pre>{numbered(shown)}</pre>"


def outcome_words(item: FinalExercise) -> str:
    """An exercise's outcome in the table."""
    words = "nothing was run" if item.result is None else str(item.result.outcome)
    return f"{words}, points set by a person" if item.override else words


def css_class(item: FinalExercise) -> str:
    """The style of an exercise's outcome."""
    return "soft" if item.result is None else str(item.result.outcome).replace(" ", "-")


def numbered(source: str) -> str:
    """Source with line numbers, as HTML: messages speak of lines."""
    lines = source.splitlines()
    width = len(str(len(lines)))
    return "\n".join(f'<span class="soft">{n:>{width}}</span>  {escape(line)}' for n, line in enumerate(lines, 1))


def sentence(text: str) -> str:
    """A note as a sentence."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def count(number_of: int, noun: str) -> str:
    """ "1 day", "2 days"."""
    return f"{number_of} {noun}{'' if number_of == 1 else 's'}"
