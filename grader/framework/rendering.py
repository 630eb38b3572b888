"""A check's result as text for terminals and feedback, and as HTML for notebooks."""

from __future__ import annotations

import html
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from grader.framework.outcome import Outcome, PropertyResult

if TYPE_CHECKING:
    from grader.framework.results import CheckResult

MARKS = {
    Outcome.RIGHT: "✓",
    Outcome.WRONG: "✗",
    Outcome.TIMED_OUT: "✗",
    Outcome.CRASHED: "!",
    Outcome.NOT_ATTEMPTED: "-",
    Outcome.NOT_CHECKED: "○",
}
COLORS = {  # JupyterLab's own, so that they follow its light and dark themes
    Outcome.RIGHT: "var(--jp-success-color1, #2e7d32)",
    Outcome.WRONG: "var(--jp-error-color1, #c62828)",
    Outcome.TIMED_OUT: "var(--jp-error-color1, #c62828)",
    Outcome.CRASHED: "var(--jp-error-color1, #c62828)",
    Outcome.NOT_ATTEMPTED: "inherit",
    Outcome.NOT_CHECKED: "inherit",
}
WIDTH = 100
INPUT = "smallest failing input"
PRINTED = "your code printed"
FIRST = "<the first failure>"  # among what has been told


def to_text(result: CheckResult) -> str:
    """The tick list as plain text."""
    lines = [headline(result)]
    column = max(len(item.outcome) for item in result.properties)
    for item, below in with_details(result):
        lines.append(f"  {MARKS[item.outcome]} {item.outcome:<{column}}  {item.sentence} ({points(item)})")
        for label, text in below:
            lines.extend(indented(f"{label}: {text}" if label else text, column + 6))
    if result.diagnoses:
        lines.append("")
        lines.append("  " + diagnosis_title(result))
        for diagnosis in result.diagnoses:
            lines.extend(indented(diagnosis.text, 4))
    lines.append("")
    lines.append("  " + next_step(result))
    return clean("\n".join(lines))


def to_html(result: CheckResult) -> str:
    """The tick list as HTML without scripts, every text escaped."""
    column = max(len(item.outcome) for item in result.properties)
    rows = "".join(html_row(item, below, column) for item, below in with_details(result))
    diagnosis = ""
    if result.diagnoses:
        texts = "".join(f"<p style='margin:4px 0 0'>{prose(item.text)}</p>" for item in result.diagnoses)
        diagnosis = (
            "<div style='margin:10px 0;padding:8px 12px;border-left:3px solid var(--jp-warn-color1, #b26a00)'>"
            f"<strong>{escape(diagnosis_title(result))}</strong>{texts}</div>"
        )
    return (
        "<div style='max-width:60em;line-height:1.5'>"
        f"<p style='margin:0 0 6px'><strong>{escape(headline(result))}</strong></p>"
        f"<ul style='list-style:none;margin:0;padding:0'>{rows}</ul>{diagnosis}"
        f"<p style='margin:8px 0 0;opacity:.8'>{prose(next_step(result))}</p></div>"
    )


def html_row(item: PropertyResult, below: list[tuple[str, str]], column: int) -> str:
    """One property: mark, outcome in a column of so many letters, sentence, and what went wrong below."""
    extra = ""
    for label, text in below:
        name = f"<span style='opacity:.8'>{escape(label)}:</span> " if label else ""
        body = f"<pre style='margin:0;white-space:pre-wrap'>{escape(text)}</pre>" if label == PRINTED else prose(text)
        extra += f"<div style='grid-column:2/-1;overflow-wrap:anywhere'>{name}{body}</div>"
    color = f"color:{COLORS[item.outcome]}"
    columns = f"1.6em {column + 1}ch 1fr"
    return (
        f"<li style='display:grid;grid-template-columns:{columns};margin:2px 0'>"
        f"<span style='{color}'>{MARKS[item.outcome]}</span> <span style='{color}'>{item.outcome}</span> "
        f"<span>{escape(item.sentence)} <span style='opacity:.7'>({escape(points(item))})</span></span>{extra}</li>"
    )


class _Screen:
    """What was shown last, and in which run of a cell: a result is shown once there, by `check` or as its value."""

    result: CheckResult | None = None  # the object, not its id: that of a result that is gone may be given to the next
    run = 0


def show(result: CheckResult) -> None:
    """Show the tick list, as HTML in a notebook and as text elsewhere; once in each run of a cell."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        print(to_text(result))
        return
    if _Screen.result is not result or _Screen.run != shell.execution_count:
        _Screen.result, _Screen.run = result, shell.execution_count
        data = {"text/plain": to_text(result), "text/html": to_html(result)}
        sys.modules["IPython"].display.display(data, raw=True)


def headline(result: CheckResult) -> str:
    """Name, outcome, points and seed."""
    seed = "" if result.seed is None else f" (seed {result.seed})"
    outcome = "not finished" if half_done(result) else result.outcome
    return f"{result.exercise}: {outcome}, {result.points:g} of {result.max_points:g} points{seed}"


def half_done(result: CheckResult) -> bool:
    """Whether all that is not right yet has not been attempted: a class of which some methods are still stubs."""
    left = {item.outcome for item in result.properties} - {Outcome.RIGHT, Outcome.NOT_CHECKED}
    return left == {Outcome.NOT_ATTEMPTED} and result.outcome is not Outcome.NOT_ATTEMPTED


def points(item: PropertyResult) -> str:
    """What a property earned."""
    return f"{item.points:g} of {item.weight:g}"


def with_details(result: CheckResult) -> Iterator[tuple[PropertyResult, list[tuple[str, str]]]]:
    """Each property with what to say below it, as (label, text).

    The first failure is told with its input; the others in their sentence, and only if it is a new one: they often
    are the first one's echo.
    """
    told: set[str] = set()
    for item in result.properties:
        below = []
        if item.message and item.message not in told:
            below.append(("", item.message))
            failed = item.outcome not in (Outcome.RIGHT, Outcome.NOT_CHECKED, Outcome.NOT_ATTEMPTED)
            if failed and FIRST not in told:
                below += [(INPUT, item.case_text)] if item.case_text else []
                below += [(PRINTED, item.printed.rstrip("\n"))] if item.printed else []
                told.add(FIRST)
            told.add(item.message)
        yield item, below


def diagnosis_title(result: CheckResult) -> str:
    """What stands above the diagnoses."""
    if len(result.diagnoses) == 1:
        return "Your code behaves as this mistake does on everything tried here:"
    return f"Your code behaves as these {len(result.diagnoses)} mistakes do on everything tried here:"


def next_step(result: CheckResult) -> str:
    """The last line: what to do now."""
    name = result.exercise
    if result.outcome is Outcome.RIGHT:
        unchecked = sum(item.outcome is Outcome.NOT_CHECKED for item in result.properties)
        done = f"All right, but {unchecked} could not be checked on this machine." if unchecked else "All right."
        at_home = result.seed is not None
        return f"{done} `spot({name})` shows a wrong solution: what is the least that breaks it?" if at_home else done
    if result.outcome is Outcome.NOT_ATTEMPTED:
        return f"Replace `raise NotImplementedError` by your code and run the cell again. `hint({name})` gives a nudge."
    if result.outcome is Outcome.NOT_CHECKED:
        return "Nothing could be checked on this machine."
    if half_done(result):
        return f"So far so good: go on with what is still a stub. `hint({name})` gives a nudge."
    return f"Fix the first one that is not right and check again. `hint({name})` gives a nudge."


def indented(text: str, indent: int) -> list[str]:
    """`text` wrapped to the width of a terminal behind `indent` blanks, its own line breaks kept."""
    lines: list[str] = []
    for line in text.splitlines() or [""]:
        lines += textwrap.wrap(line, WIDTH - indent, break_on_hyphens=False) or [""]
    return [" " * indent + line for line in lines]


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(clean(text))


def prose(text: str) -> str:
    """Text as HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escape(text))


def clean(text: str) -> str:
    """Text without the control characters that terminals obey."""
    return "".join(letter for letter in text if letter in "\n\t" or letter.isprintable())
