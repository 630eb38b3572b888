"""`{{#define term | other forms}}` in the glossary and `{{#term form}}` anywhere: definitions, and who uses them."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from book.preprocessor.context import Context
from book.preprocessor.faults import FaultError
from book.preprocessor.tokens import TOKEN

#: Stands where the list of a term's users goes once the definition's text is known.
USERS = "<!-- users of {} -->"
PLACE = re.compile(r"<!-- users of (?P<name>[^>]+?) -->\n(?P<text>.*?)(?=\n#{2,3} |\Z)", re.DOTALL)


@dataclass(slots=True)
class Term:
    """A term of the course: where it is defined, and the chapters that use it, path to title."""

    name: str
    chapter: str
    users: dict[str, str] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """Its id on the glossary's page."""
        return f"term-{slug(self.name)}"


@dataclass(slots=True)
class Glossary:
    """Every form of every term that the book defines, folded, with its term."""

    terms: dict[str, Term] = field(default_factory=dict)

    def find(self, form: str) -> Term:
        """The term that a form belongs to.

        Raises:
            FaultError: no chapter defines it.
        """
        found = self.terms.get(fold(form))
        if found is None:
            known = ", ".join(sorted({term.name for term in self.terms.values()}, key=str.casefold))
            raise FaultError(f"no definition of {form!r}; the glossary defines: {known or 'nothing'}")
        return found


def read_glossary(chapters: Mapping[str, tuple[str, str]]) -> Glossary:
    """All definitions of a book and all uses of them; what is wrong with them is found when they are rendered.

    Args:
        chapters: path to title and text.
    """
    glossary = Glossary()
    directives = [
        (path, title, match["name"], match["args"])
        for path, (title, text) in chapters.items()
        for match in TOKEN.finditer(text)
        if match["name"] in ("define", "term")
    ]
    for path, _, name, args in directives:
        if name == "define":
            term = Term(forms(args)[0], path)
            for form in forms(args):
                glossary.terms.setdefault(fold(form), term)
    for path, title, name, args in directives:
        used = glossary.terms.get(fold(args.partition("|")[0]))
        if name == "term" and used and used.chapter != path:
            used.users[path] = title
    return glossary


def define(args: str, context: Context) -> str:
    """The heading of a definition, with the term's other forms."""
    name, *others = forms(args)
    if not name:
        raise FaultError("a definition without a term; write {{#define block table | block tables}}")
    for form in (name, *others):
        term = context.glossary.find(form)
        if term.name != name or term.chapter != context.chapter or fold(form) in context.defined:
            raise FaultError(f"{form!r} is defined twice")
        context.defined.add(fold(form))
    return f"### {name} {{#{context.glossary.find(name).anchor}}}\n\n{USERS.format(name)}"


def term(args: str, context: Context) -> str:
    """A link to a term's definition. The first on a page is what the glossary links back to."""
    form, _, shown = (" ".join(piece.split()) for piece in args.partition("|"))
    found = context.glossary.find(form)
    place = back_anchor(context.chapter, found)
    first = "" if place in context.defined else f' id="{place}"'
    context.defined.add(place)
    address = f"#{found.anchor}"
    if found.chapter != context.chapter:
        address = context.url(found.chapter.removesuffix(".md") + ".html") + address
    return f'<a class="term"{first} href="{address}">{html.escape(shown or form)}</a>'


def place_users(text: str, context: Context) -> str:
    """Put the list of its users below the text of each definition."""

    def with_users(match: re.Match[str]) -> str:
        found = context.glossary.find(match["name"])
        links = ", ".join(
            f'<a href="{context.url(path.removesuffix(".md") + ".html")}#{back_anchor(path, found)}">'
            f"{html.escape(title)}</a>"
            for path, title in found.users.items()
        )
        used = f'\n\n<p class="users">Used in: {links}</p>\n' if links else "\n"
        return match["text"].strip("\n") + used

    return PLACE.sub(with_users, text)


def back_anchor(chapter: str, used: Term) -> str:
    """The id of a term's first use in a chapter."""
    return f"{chapter.removesuffix('.md').replace('/', '-')}-{used.anchor}"


def forms(args: str) -> list[str]:
    """The term of a definition, then its other forms."""
    name, _, others = args.partition("|")
    return [" ".join(form.split()) for form in [name, *others.split(",")] if form.strip() or form is name]


def fold(form: str) -> str:
    """What two spellings of a form have in common."""
    return " ".join(form.split()).casefold()


def slug(name: str) -> str:
    """A name as part of an address."""
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")
