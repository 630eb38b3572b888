"""Plain English documents: stories, portraits, towns, recipes, diaries, lists, explanations."""

from __future__ import annotations

from data.tasks.talk.pen import FACTS, WORDS, Pen, Row, bullets, join, numbered, read
from data.tasks.talk.split import redraw

PHRASES = read("documents.toml")


def story(pen: Pen, animal: str | None = None) -> str:
    """Someone finds, loses or wants a thing, meets someone, and it ends well. The hero is a person or an animal."""
    phrases = PHRASES["story"]
    if animal is None and pen.rng.random() < 0.7:
        facts, openings = pen.person(name="hero"), phrases["of_a_person"]
    else:
        animal = animal or pen.row("animals")["animal"]
        facts = {"animal": animal, "hero": f"the {animal}", **pen.pronouns(pen.rng.random() < 0.5)}
        openings = phrases["of_an_animal"]
    facts |= pen.friend_of(facts["hero"]) | {name: pen.rng.choice(WORDS[name]) for name in ("place", "thing")}
    middle = phrases[pen.rng.choice(["found", "found", "lost", "lost", "wish"])]
    return pen.lines([openings, *middle, phrases["ending"]], facts)


def portrait(pen: Pen) -> str:
    """A person whose name, town, job and habits stay the same through the text."""
    person, town = pen.person(), pen.row("towns")
    job, (workplace, does) = pen.rng.choice(list(FACTS["jobs"].items()))
    facts = person | town | pen.friend_of(person["first"]) | {"job": job, "workplace": workplace, "does": does}
    facts["last"] = pen.rng.choice(WORDS["last"])
    return pen.lines(PHRASES["portrait"]["lines"][: pen.rng.choice([2, 3, 4])], facts)


def town(pen: Pen, about: Row | None = None) -> str:
    """What is always true of one of the towns, in varying words."""
    phrases = PHRASES["town"]
    return pen.lines([phrases["opening"], *pen.some(phrases["facts"], 2, 4)], about or pen.row("towns"))


def animal(pen: Pen, about: Row | None = None) -> str:
    """What is true of an animal."""
    phrases = PHRASES["animal"]
    return pen.lines([phrases["opening"], *pen.some(phrases["facts"], 3, 3)], about or pen.row("animals"))


def capitals(pen: Pen) -> str:
    """Some true capitals, one sentence each."""
    return " ".join(pen.write(PHRASES["capital"]["lines"], pen.row("capitals")) for _ in range(pen.rng.randint(1, 4)))


def glossary(pen: Pen) -> str:
    """Some words of the course, one sentence each."""
    return " ".join(pen.some(list(FACTS["glossary"].values()), 1, 3))


def dish(pen: Pen) -> Row:
    """A dish of the recipe book: its name in full, and the forms of its filling."""
    kind = pen.rng.choice(FACTS["dishes"])
    one = pen.rng.choice(kind["fillings"])
    return {"dish": kind["name"].format(one=one), "one": one, "many": FACTS["plurals"].get(one, f"{one}s")}


def recipe(pen: Pen, of: Row | None = None) -> str:
    """A title, the ingredients as a list, numbered steps."""
    of = of or dish(pen)
    kind = next(kind for kind in FACTS["dishes"] if kind["name"].format(one=of["one"]) == of["dish"])
    ingredients = [item.format_map(of) for item in kind["ingredients"]]
    steps = [step.format_map(of) for step in kind["steps"]]
    return "\n".join([of["dish"].capitalize(), "", "You need:", *bullets(ingredients), "", *numbered(steps)])


def how_to(pen: Pen, task: str | None = None) -> str:
    """The steps of a task, numbered."""
    task = task or pen.rng.choice(list(FACTS["how_to"]))
    return "\n".join([pen.write(PHRASES["lists"]["steps"], {"task": task}), *numbered(FACTS["how_to"][task])])


def packing(pen: Pen) -> str:
    """What to take along."""
    trip, items = pen.rng.choice(list(FACTS["packing"].items()))
    return "\n".join([pen.write(PHRASES["lists"]["packing"], {"trip": trip}), *bullets(pen.some(items, 4, 5))])


def kinds(pen: Pen) -> str:
    """Some things of a kind, as a list or in a sentence."""
    kind, all_items = pen.rng.choice(list(FACTS["kinds"].items()))
    items = pen.some(all_items, 3, 5)
    if pen.rng.random() < 0.5:
        return pen.write(PHRASES["lists"]["sentence"], {"kind": kind, "items": join(items)})
    return "\n".join([pen.write(PHRASES["lists"]["kinds"], {"kind": kind}), *bullets(items)])


def diary(pen: Pen) -> str:
    """A day: the weather, what was done, a meeting, a plan for tomorrow."""
    phrases, days = PHRASES["diary"], WORDS["day"]
    today = pen.rng.randrange(7)
    friend = pen.person(name="friend")
    facts = friend | {"today": days[today], "tomorrow": days[(today + 1) % 7]}
    return pen.lines([*phrases[pen.rng.choice(["dry", "wet"])], *phrases["rest"]], facts)


def dialogue(pen: Pen) -> str:
    """Two people speak in turns, as in a play."""
    a, b = pen.some(WORDS["first"], 2, 2)
    facts = {"a": a, "b": b} | {name: pen.rng.choice(WORDS[name]) for name in ("place", "thing", "day")}
    scene = pen.rng.choice(PHRASES["dialogue"]["scenes"])
    return "\n".join(f"{(a, b)[turn % 2]}: {pen.write([line], facts)}" for turn, line in enumerate(scene))


def letter(pen: Pen) -> str:
    """A short letter from one of the towns."""
    phrases = PHRASES["letter"]
    reader = pen.person()["first"]
    writer = pen.friend_of(reader)
    body = pen.lines(phrases["lines"], pen.row("towns"))
    return "\n".join(
        [f"Dear {reader},", body, pen.write(phrases["closing"]), f"Your {writer['kin']} {writer['friend']}"]
    )


# Texts drawn from so many words that no two need be the same, so that part of them can be held out.
FREE = ((story, 8), (portrait, 3), (diary, 2), (dialogue, 2), (letter, 1))
# Texts of fixed facts, all of them trained.
FIXED = ((town, 3), (recipe, 2), (how_to, 1), (animal, 2), (capitals, 1), (glossary, 3), (kinds, 1), (packing, 1))


def document(pen: Pen) -> str:
    """One document of a random kind; stories are the most frequent. Held out are texts of the free kinds only."""
    kind = pen.pick(FREE if pen.held_out else FREE + FIXED)
    if kind in dict(FREE):
        return redraw(lambda: kind(pen), pen.held_out)
    return str(kind(pen))
