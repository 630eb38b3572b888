"""The directives: what they put into a chapter, and that each fault is found with its line."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from book.build import install_npm_parts
from book.preprocessor.chapter import render_chapter
from book.preprocessor.context import Context
from book.preprocessor.glossary import read_glossary


def render(text: str, context: Context) -> str:
    """A chapter without faults."""
    rendered, faults = render_chapter(text, context)
    assert not faults, faults
    return rendered


def only_fault(text: str, context: Context) -> str:
    """The single fault of a chapter, as it is printed."""
    _, faults = render_chapter(text, context)
    assert len(faults) == 1, faults
    return str(faults[0])


# ---------------------------------------------------------------- listings


def test_object_takes_a_whole_class_with_its_decorator(context: Context) -> None:
    text = render("{{#object sample.py:Box}}", context)
    assert "<code>Box</code> in <code>sample.py</code>" in text
    assert "```python\n@part(day=1)\nclass Box:" in text
    assert text.endswith("        pass\n```")


def test_object_dedents_methods_and_takes_several(context: Context) -> None:
    text = render("{{#object sample.py:Box.double Box.__init__ LIMIT}}", context)
    assert "```python\n@property\ndef double(self) -> int:\n" in text
    assert (
        "    return 2 * self.value\n\ndef __init__(self, value: int) -> None:\n    self.value = value\n\nLIMIT = 3\n```"
        in text
    )


def test_contract_keeps_signatures_and_docstrings_only(context: Context) -> None:
    text = render("{{#contract sample.py:Box}}", context)
    assert "    def __init__(self, value: int) -> None:\n        ...\n" in text
    assert '        """The sum."""\n        ...' in text
    assert "    size: int = 4" in text
    assert "total" not in text
    assert "_hidden" not in text


def test_object_takes_tables_of_a_toml_file(context: Context, project: Path) -> None:
    (project / "edits.toml").write_text(
        "# All.\n\n[a.One]\nx = 1\ny = [\n    2,\n]\n[b.Two]\nx = 3\n\n[a.Three]\nx = 4\n"
    )
    text = render("{{#object edits.toml:a.One a.Three}}", context)
    assert "```toml\n[a.One]\nx = 1\ny = [\n    2,\n]\n\n[a.Three]\nx = 4\n```" in text
    assert "no table [a.Two] in edits.toml; there are: a.One, b.Two, a.Three" in only_fault(
        "{{#object edits.toml:a.Two}}", context
    )


def test_a_listing_with_backticks_gets_a_longer_fence(context: Context, project: Path) -> None:
    (project / "ticks.py").write_text('TEXT = """\n```python\n"""\n')
    assert render("{{#object ticks.py:TEXT}}", context).endswith("\n````")


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("{{#object gone.py:Box}}", "no file gone.py"),
        ("{{#object ../outside.py:Box}}", "no file ../outside.py"),
        ("{{#object sample.py:Bax}}", "no object called Bax in sample.py; there are: Box, LIMIT, twice"),
        ("{{#object sample.py:Box.sub}}", "no object called Box.sub"),
        ("{{#object sample.py:LIMIT.real}}", "no object called LIMIT.real"),
        ("{{#object sample.py:twice}}", "2 objects called twice"),
        ("{{#object sample.py}}", "names no object"),
        ("{{#include sample.py:Box}}", "unknown directive {{#include}}"),
        ("text {{#object sample.py:LIMIT}}", "must stand on a line of its own"),
        ("{{#object sample.py:LIMIT", "never closed"),
    ],
)
def test_a_listing_that_cannot_be_taken_is_a_fault(directive: str, message: str, context: Context) -> None:
    fault = only_fault(f"# One\n\nText.\n\n{directive}\n", context)
    assert fault.startswith("one.md:5: ")
    assert message in fault


def test_the_preprocessor_imports_no_torch() -> None:
    code = "import sys, book.preprocessor.__main__; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("directive", "text"),
    [
        ("{{#number result.json:waste.block_16}}", "1.25"),
        ("{{#number result.json:waste.block_16 | .1f}}", "1.2"),
        ("{{#number result.json:waste.steps | ,d}}", "1,234"),
        ("{{#number result.json:waste.sizes.1}}", "16"),
        ("{{#number result.json:machine.cpu}}", "a CPU"),
    ],
)
def test_number_reads_and_formats(directive: str, text: str, context: Context) -> None:
    shown = render(f"It is {directive} there.", context)
    assert re.search(rf'It is <a class="measured" href="#one-measured-1"[^>]*>{re.escape(text)}</a> there.', shown)


def test_each_result_is_named_once_at_the_end_with_machine_and_date(context: Context, project: Path) -> None:
    (project / "other.json").write_text((project / "result.json").read_text().replace('"a CPU"', '"B < C"'))
    one, other = "{{#number result.json:seed}}", "{{#number other.json:seed}}"
    shown = render(f"{one} {other} {one}", context)
    assert 'title="Measured on 2026-01-01: a CPU, 2 cores, Linux, torch 2.13">0</a>' in shown
    note = shown[shown.index('<div class="measured-note">') :]
    assert re.findall('<li id="([^"]+)"><code>([^<]+)</code>, 2026-01-01: ([^,]+),', note) == [
        ("one-measured-1", "result.json", "a CPU"),
        ("one-measured-2", "other.json", "B &lt; C"),
    ]
    assert "measured" not in render("No number.", replace(context, measured={}))


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("{{#number result.json:waste.block_17}}", "no 'block_17'"),
        ("{{#number result.json:waste.sizes.2}}", "no '2'"),
        ("{{#number result.json:waste}}", "not a number"),
        ("{{#number result.json}}", "names no key"),
        ("{{#number result.json:date | .1f}}", "does not fit"),
        ("{{#number gone.json:waste}}", "no file gone.json"),
        ("{{#number bad.json:waste}}", "lacks machine, versions, seed, date"),
        ("{{#number sample.py:waste}}", "not valid JSON"),
    ],
)
def test_a_number_that_is_not_there_is_a_fault(directive: str, message: str, context: Context) -> None:
    fault = only_fault(f"One\n{directive}", context)
    assert fault.startswith("one.md:2: ")
    assert message in fault


# ---------------------------------------------------------------- figures


def test_figures_follow_the_theme_and_have_ids_of_their_own(context: Context) -> None:
    text = render("{{#figure boxes | Two boxes | A `caption`}}\n\n{{#figure boxes | The same | Again}}", context)
    assert "var(--fig-1)" in text
    assert "#1f77b4" not in text
    assert 'role="img" aria-label="Two boxes"' in text
    assert "<figcaption>A <code>caption</code></figcaption>" in text
    assert 'id="one-fig-1-a"' in text
    assert 'href="#one-fig-1-a"' in text
    assert 'id="one-fig-2-a"' in text


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("{{#figure circles | Circles | Caption}}", "no figure 'circles'; book/figures/ draws: boxes, pink"),
        ("{{#figure boxes}}", "has no alternative text"),
        ("{{#figure boxes | | Caption}}", "has no alternative text"),
        ("{{#figure boxes | Two boxes}}", "has no caption"),
        ("{{#figure pink | A box | Caption}}", "colors that no theme can change: #ff00ff"),
        ("![](boxes.svg)", "no alternative text"),
        ("{{#interactive boxes}}", "no interactive picture 'boxes'; there are: allocator"),
        ("{{#interactive merge}}", "no figure 'interactive_merge'"),
        ("> [!HINT]", "unknown box [!HINT]; there are: NOTE, TIP"),
    ],
)
def test_a_figure_that_cannot_be_shown_is_a_fault(directive: str, message: str, context: Context) -> None:
    fault = only_fault(f"One\n\n{directive}\n", context)
    assert fault.startswith("one.md:3: ")
    assert message in fault


# ---------------------------------------------------------------- quizzes

GOOD = """\
[[question]]
ask = "Why?"
right = "So"
why = "Because of `x`."
[question.wrong]
"Not so" = "It is not."
"""
NUMBER = """\
[[question]]
ask = "How many?"
number = 38
unit = "slots"
why = "9 * 4 + 2."
[question.hints]
"9" = "Multiply."
"""


def test_quiz_shows_reasons_without_a_script(context: Context, project: Path) -> None:
    (project / "book" / "quizzes" / "one.toml").write_text(GOOD + GOOD.replace("Why", "Who") + NUMBER)
    text = render("{{#quiz one}}", context)
    assert text.count("<form") == 3
    assert text.count("<details>") == 3
    assert "<strong>Right.</strong> <span>Because of <code>x</code>.</span>" in text
    assert "<strong>No.</strong> <span>It is not.</span>" in text
    assert 'data-number="38"' in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (GOOD, "1 questions"),
        (GOOD * 6, "6 questions"),
        (GOOD * 2 + GOOD.replace('"It is not."', '""'), "question 3: every wrong answer needs a reason"),
        (GOOD * 2 + GOOD.replace("why =", "because ="), "missing or unknown: because, why"),
        (GOOD * 2 + NUMBER.replace('unit = "slots"\n', ""), "missing or unknown: unit"),
        ("[[question", "not valid TOML"),
    ],
)
def test_a_quiz_with_a_gap_is_a_fault(toml: str, message: str, context: Context, project: Path) -> None:
    (project / "book" / "quizzes" / "one.toml").write_text(toml)
    assert message in only_fault("{{#quiz one}}", context)


def test_a_missing_quiz_is_a_fault(context: Context) -> None:
    assert "no file book/quizzes/two.toml" in only_fault("{{#quiz two}}", context)


# ---------------------------------------------------------------- front matter

FRONT = """\
---
minutes: 30
needs: `make lab`, once
prerequisites: [Other](other.md), [its end](other.md#end)
verified: 2026-11-26
---

# One
"""


def test_front_matter_is_shown_below_the_heading(context: Context) -> None:
    shown = render(f"{FRONT}\nText.\n", context)
    assert shown.startswith('# One\n\n<dl class="facts"><div><dt>Reading</dt><dd>30 minutes</dd></div>')
    assert "<dd><code>make lab</code>, once</dd>" in shown
    assert '<a href="other.html">Other</a>, <a href="other.html#end">its end</a>' in shown
    assert '<time datetime="2026-11-26">26 November 2026</time>' in shown
    assert shown.endswith("</dl>\n\nText.\n")


def test_faults_after_front_matter_have_the_line_of_the_file(context: Context) -> None:
    assert only_fault(f"{FRONT}\n[gone](gone.md)\n", context) == "one.md:10: dead link: gone.md"


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("minutes: 30", "minutes: half an hour", 2, "minutes is 'half an hour'"),
        ("minutes: 30", "minutes: 0", 2, "1 to 240"),
        ("minutes: 30", "minutes 30", 2, "as key: value"),
        ("needs:", "wants:", 3, "as key: value"),
        ("needs: `make lab`, once", "needs:", 3, "needs is empty"),
        ("[Other](other.md)", "[Other](gone.md)", 4, "dead link: gone.md"),
        ("[Other](other.md)", "Other", 4, "write [title](chapter.md)"),
        ("verified: 2026-11-26", "verified: yesterday", 5, "write a date"),
        ("verified: 2026-11-26", "verified: 9999-01-01", 5, "has not come yet"),
        ("verified: 2026-11-26\n", "", 1, "front matter lacks verified"),
        ("minutes: 30\n", "minutes: 30\nminutes: 31\n", 3, "once"),
        ("# One", "One", 8, "no # heading"),
    ],
)
def test_front_matter_with_a_gap_is_a_fault(old: str, new: str, place: int, message: str, context: Context) -> None:
    _, faults = render_chapter(FRONT.replace(old, new), context)
    assert str(faults[0]).startswith(f"one.md:{place}: ")
    assert message in str(faults[0])


def test_a_chapter_without_front_matter_is_a_fault_where_the_book_asks_for_it(context: Context) -> None:
    assert "one.md:1: no front matter" in only_fault("# One\n", replace(context, needs_front_matter=True))
    assert render("# One\n", context) == "# One\n"


# ---------------------------------------------------------------- terms

GLOSSARY = """\
# Glossary

{{#define block table | block tables}}

The blocks of one sequence.

{{#define KV cache}}

Keys and values. See {{#term block table}}.

## Other
"""


def with_glossary(context: Context, **chapters: str) -> dict[str, Context]:
    """A context for each chapter, by its name, all with the glossary of these chapters."""
    texts = {f"{name}.md": (name.title(), text) for name, text in chapters.items()}
    glossary = read_glossary(texts)
    return {
        name: replace(context, chapter=f"{name}.md", glossary=glossary, used={}, defined=set()) for name in chapters
    }


def test_terms_link_to_their_definition_and_back(context: Context) -> None:
    chapter = "A {{#term Block table}}, {{#term block tables}} and {{#term kv cache | its cache}}. `{{#term x}}`"
    places = with_glossary(context, glossary=GLOSSARY, one=chapter, two="{{#term KV\ncache}}")
    shown = render(chapter, places["one"])
    first = '<a class="term" id="one-term-block-table" href="glossary.html#term-block-table">Block table</a>'
    again = '<a class="term" href="glossary.html#term-block-table">block tables</a>'
    named = '<a class="term" id="one-term-kv-cache" href="glossary.html#term-kv-cache">its cache</a>'
    assert shown == f"A {first}, {again} and {named}. `{{{{#term x}}}}`"

    page = render(GLOSSARY, places["glossary"])
    table, cache = page.split("### ")[1:]
    assert table.startswith("block table {#term-block-table}\n")
    assert table.endswith(
        'sequence.\n\n<p class="users">Used in: <a href="one.html#one-term-block-table">One</a></p>\n\n'
    )
    assert '<a href="one.html#one-term-kv-cache">One</a>, <a href="two.html#two-term-kv-cache">Two</a></p>' in cache
    assert cache.endswith("\n\n## Other\n")
    assert "<!--" not in page


@pytest.mark.parametrize(
    ("chapter", "message"),
    [
        ("{{#term page table}}", "no definition of 'page table'; the glossary defines: block table, KV cache"),
        ("{{#define KV cache}}", "'KV cache' is defined twice"),
        ("{{#define cache | block tables}}", "'block tables' is defined twice"),
        ("{{#define}}", "without a term"),
        ("so {{#define x}}", "a line of its own"),
    ],
)
def test_a_term_without_one_definition_is_a_fault(chapter: str, message: str, context: Context) -> None:
    places = with_glossary(context, glossary=GLOSSARY, one=f"\n{chapter}")
    fault = only_fault(f"\n{chapter}", places["one"])
    assert fault.startswith("one.md:2: ")
    assert message in fault


# ---------------------------------------------------------------- links, notebooks, code


def test_links_to_files_are_checked(context: Context) -> None:
    assert render("[a](other.md#x) [b](https://example.org/x) [c](#here)", context)
    assert only_fault("\n[a](another.md)", context) == "one.md:2: dead link: another.md"
    assert "server's root" in only_fault("[a](/other.html)", context)


def test_captions_and_quizzes_may_hold_links(context: Context) -> None:
    shown = render(
        "{{#figure boxes | Boxes | See [the `other` one](other.md#a) & [more](https://example.org/a.md). }}", context
    )
    assert 'See <a href="other.html#a">the <code>other</code> one</a> &amp; ' in shown
    assert '<a href="https://example.org/a.md">more</a>.</figcaption>' in shown
    assert "dead link: gone.md" in only_fault("{{#figure boxes | Boxes | See [it](gone.md) }}", context)


def test_notebook_links_need_the_notebook(context: Context, project: Path) -> None:
    assert "no file notebooks/day9.ipynb" in only_fault("{{#notebook day9}}", context)
    (project / "notebooks" / "day9.ipynb").write_text("{}")
    assert '<a href="notebooks/day9.ipynb" download>' in render("{{#notebook day9}}", context)


def test_solution_links_need_the_lesson(context: Context, project: Path) -> None:
    assert "no file solutions/day9/lesson.py" in only_fault("{{#solution day9}}", context)
    (project / "solutions" / "day9").mkdir(parents=True)
    (project / "solutions" / "day9" / "lesson.py").write_text("")
    assert '<a href="solutions/day9.html">' in render("{{#solution day9}}", context)


@pytest.mark.parametrize(
    "text",
    [
        "```text\n{{#object gone.py:Box}} $x$ [a](gone.md)\n```",
        "~~~\n$$x$$\n~~~",
        "Say `{{#number gone}}` or ``$`x`$``.",
        "<!-- {{#figure gone}} -->",
        "It costs \\$5 or \\$6.",
        "It costs $5.",
    ],
)
def test_code_comments_and_prices_are_left_alone(text: str, context: Context) -> None:
    assert render(text, context) == text


@pytest.mark.needs("node")
def test_formulas_become_mathml_that_markdown_leaves_alone(context: Context) -> None:
    install_npm_parts()
    with context.maths:
        text = render("so $a_i * b_i$ and\n\n$$\\frac{1}{2}$$", context)
        assert "so <math" in text
        assert "<mfrac>" in text
        assert "*" not in text
        assert "_" not in text
        fault = only_fault("One\n\n$\\frac{1$", context)
    assert fault.startswith("one.md:3: formula '\\\\frac{1'")
