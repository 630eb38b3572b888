"""Conversations: what a user may ask an assistant, and a fitting short answer."""

from __future__ import annotations

from collections.abc import Sequence

from data.tasks.talk import documents
from data.tasks.talk.pen import FACTS, TABLES, WORDS, Pen, Row, join, numbered, read
from data.tasks.talk.split import redraw
from data.tasks.talk.stated import Turn, stated
from data.world.names import is_held_out, new_name

PHRASES = read("conversations.toml")
TASKS = PHRASES["tasks"]

Message = dict[str, str]

SHARE_WITH_SYSTEM_PROMPT = 0.3
SHARE_STATED = 0.2  # questions whose answer stands in what the user wrote


class NothingHeldOut(LookupError):
    """All the phrases for this subject are trained; draw another subject."""


def ask(pen: Pen, phrases: Sequence[str], facts: Row | None = None) -> str:
    """A question or request about `facts`, from the pen's side of the split, as people type it.

    Raises:
        NothingHeldOut: every way to ask this is trained, and the pen writes what is held out.
    """
    ours = phrases
    if facts is not None:
        ours = [phrase for phrase in phrases if is_trained(phrase, phrases, facts) != pen.held_out]
        if not ours:
            raise NothingHeldOut
    return typed(pen, pen.write(ours, facts))


def is_trained(phrase: str, phrases: Sequence[str], facts: Row) -> bool:
    """Whether training may ask this: the first of the phrases always, the others unless the pair is held out."""
    return phrase == phrases[0] or not is_held_out(phrase.format_map(facts))


def typed(pen: Pen, text: str) -> str:
    """A question or request as people type it: its mark may be missing, its letters may be small."""
    if text.endswith("?"):
        text = text[:-1] + pen.rng.choice(["?", "?", "?", ""])
    else:
        text += pen.rng.choice([".", ".", "", "!"])
    return text.lower() if pen.rng.random() < 0.1 else text


def small_talk(pen: Pen) -> Turn:
    """Greetings, moods, thanks, and who it is."""
    phrases = pen.rng.choice(PHRASES["small_talk"])
    return ask(pen, phrases["ask"]), pen.write(phrases["answer"])


def unknown(pen: Pen) -> Turn:
    """A question that it cannot answer, and says so."""
    return ask(pen, PHRASES["unknown"]["ask"]), pen.write(PHRASES["unknown"]["answer"])


def about(pen: Pen) -> Turn:
    """A question about a fact that is always the same."""
    phrases = pen.pick([(phrases, phrases["weight"]) for phrases in PHRASES["about"]])
    row = pen.row(phrases["table"])
    return ask(pen, phrases["ask"], row), pen.write(phrases["answer"], row)


def two_words(pen: Pen) -> Turn:
    """Two words of the course at once."""
    first, second = pen.rng.sample(TABLES["glossary"], 2)
    asked = ask(pen, TASKS["two_words"]["ask"], {"term": first["term"], "other": second["term"]})
    return asked, f"{first['meaning']} {second['meaning']}"


def describe(pen: Pen) -> Turn:
    """A town or an animal, in several sentences."""
    if pen.rng.random() < 0.5:
        town = pen.row("towns")
        return ask(pen, TASKS["town"]["ask"], town), documents.town(pen, town)
    animal = pen.row("animals")
    return ask(pen, TASKS["animal"]["ask"], animal), documents.animal(pen, animal)


def story(pen: Pen) -> Turn:
    """A story, mostly about the animal that was asked for."""
    if pen.rng.random() < 0.3:
        return ask(pen, TASKS["story"]["ask"]), redraw(lambda: documents.story(pen), pen.held_out)
    animal = pen.row("animals")
    asked = ask(pen, TASKS["animal_story"]["ask"], animal)
    return asked, redraw(lambda: documents.story(pen, animal["animal"]), pen.held_out)


def recipe(pen: Pen) -> Turn:
    """A recipe for the dish that was asked for."""
    dish = documents.dish(pen)
    return ask(pen, TASKS["recipe"]["ask"], dish), documents.recipe(pen, dish)


def how_to(pen: Pen) -> Turn:
    """The steps of a task."""
    task = pen.rng.choice(list(FACTS["how_to"]))
    return ask(pen, TASKS["how_to"]["ask"], {"task": task}), documents.how_to(pen, task)


def packing(pen: Pen) -> Turn:
    """What to take along, in a sentence."""
    trip, items = pen.rng.choice(list(FACTS["packing"].items()))
    return ask(pen, TASKS["packing"]["ask"], {"trip": trip}), f"For {trip} you need {join(items)}."


def name_some(pen: Pen) -> Turn:
    """As many things of a kind as were asked for, in a sentence or as a list."""
    kind, all_items = pen.rng.choice(list(FACTS["kinds"].items()))
    number, count = pen.rng.choice([("two", 2), ("three", 3), ("three", 3), ("four", 4), ("five", 5)])
    items = pen.some(all_items, count, count)
    facts = {"number": number, "kind": kind}
    if pen.rng.random() < 0.3:
        return ask(pen, TASKS["list_some"]["ask"], facts), "\n".join(numbered(items))
    sentence = join(items) + "."
    return ask(pen, TASKS["name_some"]["ask"], facts), sentence[0].upper() + sentence[1:]


def greeting(pen: Pen, person: Row) -> Turn:
    """A user who gives a name."""
    return typed(pen, pen.write(TASKS["greeting"]["ask"], person)), pen.write(TASKS["greeting"]["answer"], person)


def own_name(pen: Pen, person: Row) -> Turn:
    """The name that was given earlier."""
    return typed(pen, pen.write(TASKS["own_name"]["ask"])), pen.write(TASKS["own_name"]["answer"], person)


# Kinds of turns that can be asked about many things, so that part of the questions can be held out.
OPEN = (
    (about, 14), (two_words, 1), (describe, 2), (story, 5), (recipe, 2), (how_to, 1), (packing, 1), (name_some, 3),
)  # fmt: skip
# Fixed questions, all of them trained.
FIXED = ((small_talk, 4), (unknown, 2))


def turn(pen: Pen) -> Turn:
    """A turn of a random kind, from the pen's side of the split."""
    while True:
        try:
            drawn: Turn = pen.pick(OPEN if pen.held_out else OPEN + FIXED)(pen)
        except NothingHeldOut:
            continue
        return drawn


def conversation(pen: Pen) -> list[Message]:
    """One to three subjects, some under a system prompt, some framed by the user's name."""
    turns: list[Turn] = []
    for _ in range(pen.rng.choice([1, 1, 1, 2, 3])):
        turns += stated(pen) if pen.rng.random() < SHARE_STATED else [turn(pen)]
    if pen.rng.random() < 0.1:
        name = new_name(pen.rng, "person", pen.held_out) if pen.rng.random() < 0.5 else pen.rng.choice(WORDS["first"])
        person = {"first": name}
        turns.insert(0, greeting(pen, person))
        if pen.rng.random() < 0.6:
            turns.append(own_name(pen, person))
    messages: list[Message] = []
    if pen.rng.random() < SHARE_WITH_SYSTEM_PROMPT:
        messages.append({"role": "system", "content": pen.rng.choice(PHRASES["system_prompts"])})
    for asked, answer in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return messages
