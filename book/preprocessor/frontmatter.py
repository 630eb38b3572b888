"""The facts about a chapter that stand before its heading, and how they are shown below it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

from book.preprocessor.context import Context
from book.preprocessor.faults import Fault, FaultError
from book.preprocessor.inline import inline_html

BLOCK = re.compile(r"\A---\n(?P<lines>.*?)^---\n+", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"\A# [^\n]+\n")
LINK = re.compile(r"\[[^\]]+\]\([^)\s#]+\.md(?:#[^)\s]+)?\)")


def minutes(value: str, context: Context) -> str:
    """Minutes of reading, 1 to 240."""
    if not value.isdigit() or not 1 <= int(value) <= 240:
        raise FaultError(f"minutes is {value!r}; write how many minutes reading takes, 1 to 240")
    return "1 minute" if int(value) == 1 else f"{int(value)} minutes"


def needs(value: str, context: Context) -> str:
    """What must be at hand."""
    return inline_html(value, context)


def prerequisites(value: str, context: Context) -> str:
    """Links to the chapters to read before, or none."""
    if value == "none":
        return value
    if not LINK.search(value) or LINK.sub("", value).strip(" ,"):
        raise FaultError(f"prerequisites is {value!r}; write [title](chapter.md), parted by commas, or none")
    return inline_html(value, context)


def verified(value: str, context: Context) -> str:
    """The day on which somebody last worked through the page."""
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise FaultError(f"verified is {value!r}; write a date such as 2026-11-26") from None
    if day > date.today() + timedelta(days=1):  # a day of grace: it is tomorrow already further east
        raise FaultError(f"verified is {value}, which has not come yet")
    return f'<time datetime="{day.isoformat()}">{day.day} {day:%B %Y}</time>'


#: Key -> what it is called on the page, and what checks and shows its value. All are required.
FACTS: dict[str, tuple[str, Callable[[str, Context], str]]] = {
    "minutes": ("Reading", minutes),
    "needs": ("You need", needs),
    "prerequisites": ("Read before", prerequisites),
    "verified": ("Last verified", verified),
}


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What was read before a chapter's heading: its lines, the facts as HTML, and what is wrong with them."""

    num_lines: int
    html: str
    faults: list[Fault]


def take_front_matter(text: str, context: Context) -> tuple[str, FrontMatter]:
    """The chapter from its heading on, and its front matter."""
    block = BLOCK.match(text)
    if block is None:
        message = f"no front matter; a chapter begins with ---, {', '.join(FACTS)}, --- (see book/preprocessor)"
        faults = [Fault(context.chapter, 1, message)] if context.needs_front_matter else []
        return text, FrontMatter(0, "", faults)
    shown, faults = read_facts(block["lines"], context)
    num_lines, rest = block[0].count("\n"), text[block.end() :]
    if not HEADING.match(rest):
        faults.append(Fault(context.chapter, num_lines + 1, "no # heading after the front matter"))
    facts = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown)
    return rest, FrontMatter(num_lines, f'<dl class="facts">{facts}</dl>', faults)


def put_below_heading(facts: str, text: str) -> str:
    """The rendered chapter with its facts below the heading that it begins with."""
    return HEADING.sub(lambda heading: f"{heading[0]}\n{facts}\n", text, count=1) if facts else text


def read_facts(lines: str, context: Context) -> tuple[list[tuple[str, str]], list[Fault]]:
    """Names and values to show, in the order of `FACTS`, and what is wrong."""
    values: dict[str, str] = {}
    faults = []
    for number, line in enumerate(lines.splitlines(), start=2):
        key, colon, value = (piece.strip() for piece in line.partition(":"))
        try:
            if not colon or key not in FACTS or key in values:
                raise FaultError(f"front matter {line.strip()!r}: write each of {', '.join(FACTS)} once, as key: value")
            if not value:
                raise FaultError(f"front matter: {key} is empty")
            values[key] = FACTS[key][1](value, context)
        except FaultError as error:
            faults.append(Fault(context.chapter, number, str(error)))
            values.setdefault(key, "")
    missing = [key for key in FACTS if key not in values]
    if missing:
        faults.append(Fault(context.chapter, 1, f"front matter lacks {', '.join(missing)}"))
    return [(FACTS[key][0], values[key]) for key in FACTS if key in values], faults
