"""One chapter: finds the directives, formulas and links outside code, and puts in what they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable

from book.preprocessor.context import Context
from book.preprocessor.faults import Fault, FaultError
from book.preprocessor.figures import figure
from book.preprocessor.frontmatter import put_below_heading, take_front_matter
from book.preprocessor.glossary import define, place_users, term
from book.preprocessor.interactive import interactive
from book.preprocessor.links import check_link
from book.preprocessor.listings import contract_listing, object_listing
from book.preprocessor.numbers import measured_note, number
from book.preprocessor.quizzes import quiz
from book.preprocessor.tokens import TOKEN


def notebook_link(args: str, context: Context) -> str:
    """A download link to a day's release notebook."""
    name = args.strip()
    context.file(f"notebooks/{name}.ipynb")
    address = context.url(f"notebooks/{name}.ipynb")
    return f'<p class="notebook"><a href="{address}" download>Download the notebook: {name}.ipynb</a></p>'


def solution_link(args: str, context: Context) -> str:
    """A link to the page of a day's solved notebook."""
    name = args.strip()
    context.file(f"solutions/{name}/lesson.py")
    address = context.url(f"solutions/{name}.html")
    return f'<p class="notebook"><a href="{address}">The solved notebook, run from top to bottom</a></p>'


#: The boxes that mdBook knows.
ALERTS = ("NOTE", "TIP", "IMPORTANT", "WARNING", "CAUTION")

#: Directives that become a block of their own, and those that stand inside a sentence.
BLOCKS: dict[str, Callable[[str, Context], str]] = {
    "object": object_listing,
    "contract": contract_listing,
    "figure": figure,
    "interactive": interactive,
    "quiz": quiz,
    "notebook": notebook_link,
    "solution": solution_link,
    "define": define,
}
INLINE: dict[str, Callable[[str, Context], str]] = {"number": number, "term": term}


def render_chapter(text: str, context: Context) -> tuple[str, list[Fault]]:
    """The chapter as plain Markdown and HTML, and everything that is wrong with it."""
    body, front = take_front_matter(text, context)
    faults = list(front.faults)

    def replace(match: re.Match[str]) -> str:
        try:
            return render_token(match, context)
        except FaultError as error:
            line = front.num_lines + body.count("\n", 0, match.start()) + 1
            faults.append(Fault(context.chapter, line, str(error)))
            return ""

    rendered = TOKEN.sub(replace, body)
    rendered = place_users(put_below_heading(front.html, rendered), context)
    return rendered + measured_note(context), faults


def render_token(match: re.Match[str], context: Context) -> str:
    """What one directive, formula or link becomes; code and comments stay as they are.

    Raises:
        FaultError: it cannot be rendered.
    """
    if match["name"]:
        return render_directive(match, context)
    if match["open"]:
        raise FaultError("a directive is opened with {{# and never closed, or holds a brace")
    if match["display"]:
        return context.maths.render(match["display"], display=True)
    if match["inline"]:
        return context.maths.render(match["inline"], display=False)
    if match["alert"] and match["alert"] not in ALERTS:
        raise FaultError(f"unknown box [!{match['alert']}]; there are: {', '.join(ALERTS)}")
    if match["image"] and not match["alt"].strip():
        raise FaultError("a picture has no alternative text; write ![what it shows](file)")
    if match["link"]:
        check_link(match["link"], context)
    return match[0]


def render_directive(match: re.Match[str], context: Context) -> str:
    """What `{{#name args}}` becomes.

    Raises:
        FaultError: unknown name, a block that does not stand on a line of its own, or whatever the directive finds.
    """
    name, args = match["name"], match["args"].strip()
    if name in INLINE:
        return INLINE[name](args, context)
    if name not in BLOCKS:
        known = ", ".join([*BLOCKS, *INLINE])
        hint = "; listings are taken by {{#object file.py:Name}}" if "include" in name else ""
        raise FaultError(f"unknown directive {{{{#{name}}}}}; there are: {known}{hint}")
    before = match.string[: match.start()]
    after = match.string[match.end() :]
    if (before and not before.endswith("\n")) or (after and not after.startswith("\n")):
        raise FaultError(f"{{{{#{name}}}}} must stand on a line of its own, at its beginning")
    return BLOCKS[name](args, context)
