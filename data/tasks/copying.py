"""Copying, the warm-up: say something again, or find a line of a list by its key.

It starts the circuit (induction) that reading and tool use are built on, so its conversations have the shape of
theirs: keys restated, labels after the line. Nothing is to be known here: every name and number is drawn anew.
"""

from __future__ import annotations

from random import Random

from data.tasks.sample import Conversation
from data.tasks.tool_pool import open_part
from data.world.names import letters, new_name, similar_name, syllables
from data.world.schema import WORDS

LEVELS = (1, 2, 3)
NOT_GIVEN = "not given"

REPEAT = ("Say after me: {text}", "Repeat this: {text}", "Copy this: {text}", "Please write this again: {text}")
# Ways to write a line, which is also the answer, with the ways to ask for it.
LINES = (
    ("{key}: {value}", ("{key}?", "{key}", "What is {key}?")),
    ("{key} is {value}.", ("What is {key}?", "{key}?", "Tell me {key}.")),
    ("The number of {key} is {value}.", ("What is the number of {key}?", "Tell me the number of {key}.")),
    ("The code of {key} is {value}.", ("What is the code of {key}?", "{key}?")),
)


def copying(rng: Random, level: int) -> Conversation:
    """A conversation of 1 to 8 answers, each copied from what the user wrote.

    Args:
        level: 1 to 3; up to 6, 12 or 24 items a list, and from level 2 on some keys differ by a letter only.
    """
    kind = rng.choice((repeat, lookup, lookup, numbered))
    return Conversation(kind(rng, level))


def repeat(rng: Random, level: int) -> list[dict[str, str]]:
    """Random items said again, in one to four turns; the longer the fewer."""
    messages = []
    for _ in range(rng.randint(1, 5 - level)):
        text = " ".join(item(rng) for _ in range(rng.randint(3, most_items(level))))
        messages += turn(rng.choice(REPEAT).format(text=text), text)
    return messages


def lookup(rng: Random, level: int) -> list[dict[str, str]]:
    """A list of keys and values, then several of its keys, and in every other conversation one that it does not have.

    In half of the lists each line ends with its label, as a passage does, and the answer cites it.
    """
    line, questions = rng.choice(LINES)
    missing, *listed = keys(rng, rng.randint(2, most_items(level)), near=level > 1)
    values = {key: item(rng) for key in listed} | {missing: NOT_GIVEN}
    labels = {missing: ""}
    labelled = rng.random() < 0.5
    for number, key in enumerate(listed, 1):
        labels[key] = f" [{number}]" if labelled else ""
    text = "\n".join(line.format(key=key, value=values[key]) + labels[key] for key in listed)
    asked = rng.sample(listed, min(len(listed), rng.randint(3, 8)))
    if rng.random() < 0.5:
        asked[rng.randrange(len(asked))] = missing
    questions_asked = [rng.choice(questions).format(key=key) for key in asked]
    answers = [cited(line.format(key=key, value=values[key]), labels[key]) for key in asked]
    return about(text, questions_asked, answers)


def numbered(rng: Random, level: int) -> list[dict[str, str]]:
    """A numbered list, then some of its lines by their number, or the one that follows another."""
    lines = keys(rng, rng.randint(3, most_items(level)), near=False)
    text = "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))
    questions, answers = [], []
    for place in rng.sample(range(len(lines) - 1), min(len(lines) - 1, rng.randint(3, 8))):
        if rng.random() < 0.5:
            questions.append(f"Line {place + 1}?")
            answers.append(f"{place + 1}. {lines[place]}")
        else:
            questions.append(f"What follows {lines[place]}?")
            answers.append(f"{lines[place]}, then {lines[place + 1]}.")
    return about(text, questions, answers)


def cited(line: str, label: str) -> str:
    """A line with its label as an answer has it: before the full stop."""
    return f"{line[:-1]}{label}." if line.endswith(".") else line + label


def about(text: str, questions: list[str], answers: list[str]) -> list[dict[str, str]]:
    """A turn for each question; the first comes with the text."""
    first, *others = questions
    messages: list[dict[str, str]] = []
    for question, answer in zip([f"{text}\n\n{first}", *others], answers, strict=True):
        messages += turn(question, answer)
    return messages


def most_items(level: int) -> int:
    """The longest list of a level: 6, 12, 24."""
    return 6 * 2 ** (level - 1)


def item(rng: Random) -> str:
    """A word or a piece of one, a name of two words, letters in any order, or a number of up to five digits."""
    kind = rng.randrange(8)
    if kind == 0:
        return str(rng.randrange(10 ** rng.randint(1, 5)))
    if kind == 1:
        return new_name(rng, "person")
    if kind == 2:
        return letters(rng)
    if kind == 3:
        return rng.choice(WORDS)
    return open_part(rng) if kind < 6 else syllables(rng, 1, 3)


def keys(rng: Random, count: int, near: bool) -> list[str]:
    """Different names in any order; with `near`, about a third of them differ from another by a letter or a word."""
    kind = rng.choice(("town", "person", "company", "bridge"))
    names = [new_name(rng, kind)]
    while len(names) < count:
        name = similar_name(rng, kind, rng.choice(names)) if near and rng.random() < 0.3 else new_name(rng, kind)
        if name not in names:
            names.append(name)
    rng.shuffle(names)
    return names


def turn(asked: str, reply: str) -> list[dict[str, str]]:
    """A question and its answer, as messages."""
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]
