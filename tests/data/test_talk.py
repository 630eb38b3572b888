"""The talk: what is held out is never trained, answers fit their questions, and texts read well."""

from __future__ import annotations

import re
from random import Random

import pytest

from data.tasks.copying import LEVELS, NOT_GIVEN, copying
from data.tasks.passkey import passkey
from data.tasks.talk import free_text, talk
from data.tasks.talk.conversations import OPEN, PHRASES, about, turn
from data.tasks.talk.documents import FREE
from data.tasks.talk.pen import TABLES, Pen, numbered
from data.tasks.talk.split import opening, redraw
from data.tasks.talk.stated import SITUATIONS, stated
from data.world.names import is_held_out

# Asked in the first notebooks, so they have to be trained.
ASKED_IN_THE_COURSE = [
    "Hello", "Who are you?", "What is the capital of France?", "What is a KV cache?", "Tell me a story about a fox",
    "Name three fruits", "Give me a recipe for apple pie", "Where is Brinmouth?", "I am tired",
    "Who won the game yesterday?",
]  # fmt: skip


def plain(question: str) -> str:
    """A question without what `typed` varies."""
    return question.lower().rstrip("?.!")


def draw_turns(held_out: bool, count: int) -> list[tuple[str, str]]:
    pen = Pen(Random(int(held_out)), held_out)
    return [turn(pen) for _ in range(count)]


def test_one_seed_gives_one_text() -> None:
    for held_out in (False, True):
        assert talk(Random(5), held_out) == talk(Random(5), held_out)
        assert free_text(Random(5), held_out) == free_text(Random(5), held_out)


def test_held_out_questions_are_never_trained() -> None:
    trained = {plain(question) for question, _ in draw_turns(False, 8_000)}
    held_out = {plain(question) for question, answer in draw_turns(True, 1_000) if "story" not in plain(question)}
    assert len(held_out) > 100
    assert not trained & held_out


def test_held_out_texts_begin_as_no_trained_text_does() -> None:
    trained = {opening(free_text(Random(seed)).text) for seed in range(3_000)}
    trained |= {opening(answer) for question, answer in draw_turns(False, 3_000) if "story" in question}
    held_out = [opening(free_text(Random(seed), held_out=True).text) for seed in range(1_000)]
    assert len(set(held_out)) > 300
    assert not trained & set(held_out)


def test_stories_on_request_are_held_out_too() -> None:
    trained = {opening(free_text(Random(seed)).text) for seed in range(3_000)}
    told = {opening(answer) for question, answer in draw_turns(True, 1_000) if "story" in plain(question)}
    assert len(told) > 20
    assert not trained & told


def test_held_out_names_and_statements_are_never_trained() -> None:
    def words(held_out: bool) -> set[str]:
        pen = Pen(Random(0), held_out)
        return {word for _ in range(1_000) for word in re.findall(r"[A-Z]\w+ [A-Z]\w+", stated(pen)[0][0])}

    assert len(words(True)) > 500
    assert not words(False) & words(True)
    for situation in SITUATIONS:
        assert not set(situation["say"]) & set(situation["say_held_out"])
        for question in situation["question"]:
            assert not set(question["ask"]) & set(question["ask_held_out"])


def test_what_the_course_asks_is_trained() -> None:
    trained = {plain(question) for question, _ in draw_turns(False, 12_000)}
    assert {plain(question) for question in ASKED_IN_THE_COURSE} <= trained


def test_every_fact_is_asked_for_in_training() -> None:
    pen = Pen(Random(0))
    answers = {about(pen)[1] for _ in range(20_000)}
    for phrases in PHRASES["about"]:
        for row in TABLES[phrases["table"]]:
            expected = {Pen(Random(0)).write([answer], row) for answer in phrases["answer"]}
            assert expected & answers, f"nothing asks for {expected}"


@pytest.mark.parametrize("held_out", [False, True])
def test_what_is_asked_about_a_statement_stands_in_it(held_out: bool) -> None:
    pen = Pen(Random(0), held_out)
    for _ in range(800):
        turns = stated(pen)
        said = turns[0][0]
        for question, answer in turns:
            names_and_numbers = re.findall(r"[A-Z]\w+|\d+", answer.partition(" ")[2])
            assert all(word in said for word in names_and_numbers), (said, question, answer)


@pytest.mark.parametrize("held_out", [False, True])
def test_texts_are_whole(held_out: bool) -> None:
    """No brace is left unfilled, nothing is empty, and all of it is ASCII."""
    for seed in range(800):
        rng = Random(seed)
        texts = [free_text(rng, held_out).text, *(message["content"] for message in talk(rng, held_out).messages)]
        for text in texts:
            assert text
            assert text.isascii()
            assert not re.search(r"[{}]|  | [.,?!]|\ba [aeio]", text), text


def test_conversations_take_turns() -> None:
    for seed in range(500):
        roles = [message["role"] for message in talk(Random(seed)).messages]
        if roles[0] == "system":
            roles = roles[1:]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_redraw_gives_the_asked_side() -> None:
    texts = iter(f"Text {number}. Second. Third." for number in range(1_000))
    held_out = [redraw(lambda: next(texts), True) for _ in range(20)]
    texts = iter(f"Text {number}. Second. Third." for number in range(1_000))
    trained = [redraw(lambda: next(texts), False) for _ in range(200)]
    assert len(set(held_out)) == 20
    assert not set(held_out) & set(trained)


def test_kinds_are_told_apart() -> None:
    assert len({kind for kind, _ in FREE}) == len(FREE)
    assert len({kind for kind, _ in OPEN}) == len(OPEN)
    assert list(numbered(["fox", "owl"])) == ["1. Fox", "2. Owl"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_copy_stands_in_what_the_user_wrote(level: int) -> None:
    missing = 0
    for seed in range(1_000):
        messages = copying(Random(seed), level).messages
        shown = messages[0]["content"]
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            if NOT_GIVEN in answer["content"]:
                missing += 1
                key = re.split(r" is not|: not", answer["content"])[0].removeprefix("The number of ")
                key = key.removeprefix("The code of ")
                lines = shown.split("\n\n")[0].splitlines()
                assert not any(re.search(rf"(^|of ){key}(:| is)", line) for line in lines), (shown, answer)
            elif shown.startswith("1. "):
                assert all(part.rstrip(".") in shown for part in answer["content"].split(", then "))
            else:
                copied = re.sub(r"( \[\d+\])\.$", r".\1", answer["content"])
                assert copied in shown + question["content"]
    assert missing > 100


def test_a_level_bounds_the_lists() -> None:
    longest = [
        max(len(copying(Random(seed), level).messages[0]["content"].splitlines()) for seed in range(500))
        for level in LEVELS
    ]
    assert longest[0] <= 8 < longest[1] <= 14 < longest[2] <= 26  # the list, an empty line and the question


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("num_tokens", [0, 50, 400, 5_000])
def test_a_pass_key_stands_once_in_its_text(num_tokens: int, held_out: bool) -> None:
    for seed in range(10):
        asked, answer = passkey(Random(seed), num_tokens, held_out).messages
        text, question = asked["content"].split("\n\n")
        (key,) = re.findall(r"\d+", answer["content"])
        assert answer["content"] == f"The pass key is {key}."
        assert text.count(key) == 1
        assert text.count("pass key") == 1
        assert "pass key" in question


def test_pass_keys_lie_at_any_depth_and_are_split() -> None:
    depths, phrases = [], {False: set[str](), True: set[str]()}
    for seed in range(200):
        held_out = seed % 2 == 0
        asked, answer = passkey(Random(seed), 500, held_out).messages
        text, question = asked["content"].split("\n\n")
        depths.append(text.index("pass key") / len(text))
        (key,) = re.findall(r"\d+", answer["content"])
        assert is_held_out(key) == held_out
        phrases[held_out].add(question)
    assert min(depths) < 0.05
    assert max(depths) > 0.85
    assert not phrases[False] & phrases[True]
