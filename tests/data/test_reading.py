"""Questions over passages: what is expected follows from the passages, and from nothing else."""

import re
from collections import Counter
from random import Random

import pytest

from data.tasks.ranking import rank
from data.tasks.reading import MAX_PASSAGES, ReadingTask, ask, draw_reading, draw_told, labelled, prompt, reading
from data.world.names import is_held_out
from data.world.schema import RELATIONS


def tasks(count: int, **options: object) -> list[ReadingTask]:
    rng = Random(0)
    return [draw_reading(rng, **options) for _ in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("from_retriever", [False, True])
def test_the_cited_passage_names_the_value(from_retriever: bool) -> None:
    found = [task for task in tasks(200, answerable=True, from_retriever=from_retriever) if task.value is not None]
    assert len(found) > 150
    for task in found:
        cited = task.passages[task.label - 1]
        assert task.name in cited
        assert task.relation.written(task.value or "").lower() in cited.lower()
        assert task.answer.startswith(task.relation.key.format(name=task.name).capitalize()[:5])
        assert task.answer.endswith(f" is {task.relation.written(task.value or '')} [{task.label}].")


def test_only_one_passage_answers() -> None:
    """Nothing about the same relation of the same entity stands in two passages."""
    rng = Random(1)
    for _ in range(200):
        told = draw_told(rng, 8)
        facts = Counter((passage.entity.name, name) for passage in told for name in passage.relations)
        assert max(facts.values()) == 1
        names = {}
        for passage in told:
            assert names.setdefault(passage.entity.name, passage.entity) is passage.entity


@pytest.mark.parametrize("num_passages", range(1, MAX_PASSAGES + 1))
def test_as_many_passages_as_asked_for(num_passages: int) -> None:
    for from_retriever in (False, True):
        task = draw_reading(Random(num_passages), num_passages=num_passages, from_retriever=from_retriever)
        lines = prompt(task).split("\n")
        assert lines[-2:] == ["", task.question]
        assert [line[-4:] for line in lines[:-2]] == [f" [{label}]" for label in range(1, num_passages + 1)]


def test_unanswerable_questions_ask_for_what_no_passage_tells() -> None:
    rng = Random(2)
    absent = 0
    for _ in range(300):
        told = draw_told(rng, 4)
        task = ask(rng, told, answerable=False)
        assert task.value is None
        assert task.label == 0
        assert task.answer.endswith(" is not given.")
        here = [passage for passage in told if passage.entity.name == task.name]
        assert not any(task.relation.name in passage.relations for passage in here)
        absent += not here
    assert 100 < absent < 200


def test_distractors_are_easy_to_mix_up() -> None:
    """Often the same entity with another attribute, and the same attribute of another entity."""
    rng = Random(3)
    same_entity = same_attribute = 0
    for _ in range(300):
        told = draw_told(rng, 4)
        task = ask(rng, told, answerable=True)
        others = [passage for index, passage in enumerate(told, 1) if index != task.label]
        same_entity += any(other.entity.name == task.name for other in others)
        kinds = [(other.entity.kind, other.relations) for other in others if other.entity.name != task.name]
        same_attribute += any(kind == task.relation.kind and task.relation.name in told for kind, told in kinds)
    assert same_entity > 60
    assert same_attribute > 150


def test_the_passages_alone_decide() -> None:
    """With the value swapped, the expected answer is the new value with the same citation."""
    rng = Random(4)
    for task in tasks(200, answerable=True):
        swapped = task.swapped(rng)
        assert swapped.question == task.question
        assert swapped.label == task.label
        assert swapped.value != task.value
        changed = [old != new for old, new in zip(task.passages, swapped.passages, strict=True)]
        assert changed == [index == task.label - 1 for index in range(4)]
        cited = swapped.passages[task.label - 1]
        assert task.relation.written(swapped.value or "").lower() in cited.lower()
        assert not re.search(r"\ba [aeiou]\w* by trade|\ban [^aeiou\W]\w* by trade", cited)


def test_nothing_can_be_swapped_where_nothing_is_told() -> None:
    with pytest.raises(ValueError, match="nothing to swap"):
        draw_reading(Random(5), answerable=False).swapped(Random(5))


def test_without_passages_the_question_is_alone() -> None:
    task = draw_reading(Random(6))
    assert prompt(task, with_passages=False) == task.question
    assert prompt(task) == labelled(task.passages) + "\n\n" + task.question


def test_splits_keep_apart() -> None:
    assert all(is_held_out(task.name) for task in tasks(100, held_out_names=True))
    assert not any(is_held_out(task.name) for task in tasks(100))


def test_a_training_conversation_alternates_and_repeats_no_question() -> None:
    rng = Random(7)
    counts, abstained, told = Counter[int](), 0, 0
    for _ in range(400):
        messages = reading(rng).messages
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        replies = [message["content"] for message in messages[1::2]]
        keys = [reply.split(" is ")[0] for reply in replies]
        assert len(set(keys)) == len(keys)
        first = messages[0]["content"].split("\n")
        counts[len(first) - 2] += 1
        for reply in replies:
            told += 1
            if reply.endswith("is not given."):
                abstained += 1
            else:
                label = int(re.search(r"\[(\d)\]\.$", reply)[1])  # type: ignore[index]
                value = reply.split(" is ")[1].rsplit(" [", 1)[0]
                assert value.lower() in first[label - 1].lower()
    assert set(counts) == set(range(1, MAX_PASSAGES + 1))
    assert 0.15 < abstained / told < 0.3


def test_the_level_bounds_passages_and_facts() -> None:
    rng = Random(8)
    for _ in range(50):
        lines = reading(rng, level=0.0).messages[0]["content"].split("\n")
        assert len(lines) == 3
    counts = {len(reading(rng, level=0.5).messages[0]["content"].split("\n")) - 2 for _ in range(100)}
    assert counts == {1, 2, 3, 4, 5}


def test_a_seed_gives_the_same_conversation() -> None:
    assert reading(Random(9)) == reading(Random(9))


def test_the_ranking_finds_the_words_of_the_query() -> None:
    passages = ["Tea is grown in Orun.", "Velmora is a town.", "The mayor of Velmora is Mira. Mira likes tea."]
    assert rank("Who is the mayor of Velmora?", passages) == [2, 1, 0]
    assert rank("nothing of the kind", passages)[0] == 2
    assert rank("tea", []) == []


def test_the_retriever_orders_by_itself_and_misses() -> None:
    rng = Random(10)
    found = [draw_reading(rng, num_passages=2, answerable=True, from_retriever=True) for _ in range(300)]
    assert {task.label for task in found} == {0, 1, 2}
    assert Counter(task.label for task in found).most_common(1)[0][0] == 1


def test_every_kind_and_relation_is_asked_about() -> None:
    rng = Random(11)
    asked = {(task.relation.kind, task.relation.name) for task in (draw_reading(rng) for _ in range(1500))}
    assert asked == {(kind, name) for kind, relations in RELATIONS.items() for name in relations}
