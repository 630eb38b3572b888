"""`{{#quiz name}}`: the questions of book/quizzes/name.toml, with a reason for every wrong choice.

A question asks for one of several choices (`right`, and `wrong` with a reason each) or for a number (`number`, `unit`,
and `hints` for answers that people get wrong). Without a script the answers are there to unfold.
"""

from __future__ import annotations

import hashlib
import html
import json
import tomllib
from typing import Any

from book.preprocessor.context import Context
from book.preprocessor.faults import FaultError
from book.preprocessor.inline import inline_html

CHOICE_KEYS = {"ask", "why", "right", "wrong"}
NUMBER_KEYS = {"ask", "why", "number", "unit", "hints"}


def quiz(args: str, context: Context) -> str:
    """The section with all questions of a quiz file."""
    name = args.strip()
    path = f"book/quizzes/{name}.toml"
    try:
        questions = tomllib.loads(context.file(path).read_text(encoding="utf-8")).get("question", [])
    except tomllib.TOMLDecodeError as error:
        raise FaultError(f"{path} is not valid TOML: {error}") from None
    if not 3 <= len(questions) <= 5:
        raise FaultError(f"{path} has {len(questions)} questions; a chapter asks three to five")
    items = []
    for position, question in enumerate(questions, start=1):
        check_keys(question, f"{path}, question {position}")
        items.append(choice_form(question, context) if "right" in question else number_form(question, context))
    return f'<section class="quiz" aria-label="Quiz: {name}">{"".join(items)}</section>'


def check_keys(question: dict[str, Any], where: str) -> None:
    """Refuse a question with a key missing or unknown, or a wrong choice without a reason.

    Raises:
        FaultError: with the key's name.
    """
    expected = CHOICE_KEYS if "right" in question else NUMBER_KEYS
    if set(question) != expected:
        odd = ", ".join(sorted(set(question) ^ expected))
        raise FaultError(f"{where} must have {', '.join(sorted(expected))}; missing or unknown: {odd}")
    reasons = question.get("wrong", question.get("hints"))
    if not isinstance(reasons, dict) or not reasons or not all(str(reason).strip() for reason in reasons.values()):
        raise FaultError(f"{where}: every wrong answer needs a reason")


def choice_form(question: dict[str, Any], context: Context) -> str:
    """A question with radio buttons, in an order that depends on their texts alone."""
    name = context.new_id("quiz")
    choices = {question["right"]: question["why"], **question["wrong"]}
    order = sorted(choices, key=lambda text: hashlib.sha256((question["ask"] + text).encode()).hexdigest())
    rows, reasons = [], []
    for position, text in enumerate(order):
        shown, reason = inline_html(text, context), inline_html(choices[text], context)
        right = text == question["right"]
        rows.append(f'<label><input type="radio" name="{name}" value="{position}"> <span>{shown}</span></label>')
        verdict = "Right" if right else "No"
        reasons.append(
            f'<li data-choice="{position}" data-right="{str(right).lower()}"><em>{shown}</em> '
            f"<strong>{verdict}.</strong> <span>{reason}</span></li>"
        )
    return form(question, "".join(rows), f"<ul>{''.join(reasons)}</ul>", "", context)


def number_form(question: dict[str, Any], context: Context) -> str:
    """A question that asks for a number."""
    name = context.new_id("quiz")
    unit = html.escape(question["unit"])
    field = (
        f'<label for="{name}">Your answer ({unit})</label>'
        f' <input id="{name}" type="text" inputmode="decimal" autocomplete="off">'
    )
    hints = {answer: inline_html(hint, context) for answer, hint in question["hints"].items()}
    attributes = f' data-number="{question["number"]}" data-hints="{html.escape(json.dumps(hints), quote=True)}"'
    wrong = "".join(f"<li>{html.escape(answer)}: {hint}</li>" for answer, hint in hints.items())
    why = inline_html(question["why"], context)
    answer = f'<p><strong>{question["number"]} {unit}.</strong> <span class="why">{why}</span></p>'
    return form(question, field, f"{answer}<p>If you had another number:</p><ul>{wrong}</ul>", attributes, context)


def form(question: dict[str, Any], fields: str, answer: str, attributes: str, context: Context) -> str:
    """One question: legend, fields, the button, a place for the verdict, and the answer to unfold."""
    return (
        f"<form{attributes}><fieldset><legend>{inline_html(question['ask'], context)}</legend>{fields}"
        '<div class="quiz-bar"><button type="submit">Check</button> <span role="status"></span></div>'
        f"<details><summary>Show the answer</summary>{answer}</details></fieldset></form>"
    )
