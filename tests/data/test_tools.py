"""Tool conversations: what the oracle shows the models is right, live, and free of what is held out."""

import json
import random
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from data.evaluation.by_hand import TOOLS
from data.tasks.phrasing import compose
from data.tasks.sample import Conversation
from data.tasks.tool_calls import ToolCall, parse_tool_calls
from data.tasks.tool_dialogue import MAX_CALLS, Dialogue
from data.tasks.tool_goals import (
    SAY,
    Answer,
    Combine,
    Compute,
    Convert,
    ConvertValue,
    Goal,
    Lookup,
    Say,
    source_of,
    value_of,
)
from data.tasks.tool_pool import DESCRIPTIONS, MEANINGS, OTHERS, POOL, REQUESTS, compose_other, draw_name
from data.tasks.tool_scene import HeldOut, Scene, draw_scene
from data.tasks.tool_sorts import SORTS, taking
from data.tasks.toolbox import BUSY, NO_RESULTS
from data.tasks.tools import ToolTask, draw_tool_task, make_task, play_oracle, run_task, tool_conversation
from data.tokenizer import train_tokenizer
from data.world.names import is_held_out

Messages = list[dict[str, Any]]
SEEN = HeldOut()
FACTORS = {"feet": 1 / 0.3048, "hours": 1 / 60}


def scene_for(sort: str, seed: int, split: HeldOut = SEEN) -> tuple[Scene, Any]:
    return draw_scene(random.Random(seed), sort, [], 3, 0.0, split)


class Replay:
    """A model that writes what the oracle wrote, as text."""

    def __init__(self, task: ToolTask) -> None:
        dialogue, _ = play_oracle(task.scene, task.rounds, task.busy)
        self.said = [message for message in dialogue.messages if message["role"] == "assistant"]

    def __call__(self, messages: Messages, tools: Messages) -> str:
        message = self.said[sum(earlier["role"] == "assistant" for earlier in messages)]
        calls = [ToolCall(**call["function"]) for call in message.get("tool_calls", ())]
        return "\n".join(call.text for call in calls) or message["content"]


def truth(scene: Scene, goal: Goal) -> float | str:
    """The value that a goal asks for, worked out without the tools."""
    if isinstance(goal, Lookup):
        return value_of(scene.world, goal)
    if isinstance(goal, Combine):
        return eval(goal.formula.format(truth(scene, goal.first), truth(scene, goal.second)))
    if isinstance(goal, Convert):
        return float(truth(scene, goal.of)) * FACTORS[goal.unit]
    if isinstance(goal, Compute):
        return eval(goal.expression)
    raise AssertionError(goal)


@pytest.mark.parametrize("held_out_tools", [False, True])
@pytest.mark.parametrize("num_calls", [0, 1, 2, 3, 4])
def test_the_oracle_solves_every_task_in_that_many_calls(num_calls: int, held_out_tools: bool) -> None:
    rng = random.Random(num_calls)
    for _ in range(60):
        task = draw_tool_task(rng, num_calls=num_calls, held_out_tools=held_out_tools)
        outcome = run_task(task, Replay(task))
        assert outcome.solved
        assert outcome.num_calls == outcome.num_valid == task.num_calls == num_calls
        assert outcome.transcript[0] == {"role": "user", "content": task.question}


@pytest.mark.parametrize("sort", [sort for number in (1, 2, 3, 4) for sort in taking(number) if sort != "conversion"])
def test_answers_are_true(sort: str) -> None:
    for seed in range(40):
        scene, rounds = scene_for(sort, seed)
        goal = rounds[-1].goal
        right = truth(scene, goal)
        dialogue, answers = play_oracle(scene, rounds)
        assert answers[-1].text == dialogue.messages[-1]["content"]
        assert answers[-1].value in answers[-1].text
        if isinstance(right, str):
            assert answers[-1].value == right
        else:
            assert float(answers[-1].value) == pytest.approx(right, abs=0.051)


@pytest.mark.parametrize("sort", ["fact", "hop", "two_hops", "two_facts", "hop_and_fact"])
def test_every_value_comes_from_a_result(sort: str) -> None:
    """What the oracle says or puts into the next call stands in an earlier message, so it can be copied."""
    for seed in range(40):
        scene, rounds = scene_for(sort, seed)
        dialogue, _ = play_oracle(scene, rounds)
        for position, message in enumerate(dialogue.messages):
            before = " ".join(json.dumps(earlier) for earlier in dialogue.messages[:position])
            for call in message.get("tool_calls", ()):
                written = json.dumps(call["function"]["arguments"])
                for part in re.findall(r"[A-Z][a-z]+ [A-Za-z]+|[A-Z][a-z]+|\d+", written):
                    assert part in before
    assert dialogue.num_calls


@pytest.mark.parametrize("sort", SORTS)
def test_every_sort_can_be_asked_and_answered(sort: str) -> None:
    for seed in range(20):
        for split in (HeldOut(), HeldOut(True, True, True)):
            scene, rounds = scene_for(sort, seed, split)
            task = make_task(scene, rounds)
            assert run_task(task, Replay(task)).solved
            assert all(answer.text for answer in task.answers)
            assert all(is_held_out(name) == split.names for name in scene.world.entities)


def test_no_request_takes_five_calls() -> None:
    with pytest.raises(ValueError, match="no request takes 5 calls"):
        draw_tool_task(random.Random(0), num_calls=5)


def replies(sort: str, count: int = 200) -> list[tuple[Messages, Scene]]:
    played = []
    for seed in range(count):
        scene, rounds = scene_for(sort, seed)
        played.append((play_oracle(scene, rounds)[0].messages, scene))
    return played


def test_a_misspelt_person_is_searched_for_again_by_the_last_name() -> None:
    found = missed = 0
    for messages, scene in replies("misspelt"):
        last = messages[-1]["content"]
        if messages[2]["content"] == NO_RESULTS:
            if last.startswith("I could not find"):
                missed += 1
            else:
                found += 1
                assert any(name in last for name in scene.world.entities)
    assert found > 5
    assert missed > 5


def test_a_misspelt_unit_is_corrected_once() -> None:
    for messages, _ in replies("misspelt_unit", 40):
        assert [message["role"] for message in messages] == ["user", *["assistant", "tool"] * 2, "assistant"]
        assert "did you mean" in messages[2]["content"]
        assert not messages[4]["content"].startswith("Error")


def test_a_busy_tool_is_called_again() -> None:
    scene, rounds = scene_for("hop", 1)
    messages = play_oracle(scene, rounds, [0])[0].messages
    assert messages[2]["content"] == BUSY
    assert messages[1] == messages[3]
    assert make_task(scene, rounds, [0]).num_calls == 3


def test_what_no_passage_states_is_not_made_up() -> None:
    missing = 0
    for seed in range(200):
        scene, rounds = draw_scene(random.Random(seed), "fact", [], 2, 0.5, SEEN)
        goal = rounds[0].goal
        assert isinstance(goal, Lookup)
        given = any(p.title == goal.subject and goal.relation.name in p.relations for p in scene.passages)
        if (
            source_of(goal.relation, {tool.meaning for tool in scene.tools}) == "search"
            and scene.passages
            and not given
        ):
            answer = play_oracle(scene, rounds)[1][0]
            missing += 1
            assert answer.text.endswith("is not given.")
            assert not answer.value
    assert missing > 10


def test_what_no_tool_can_do_is_said_without_a_call() -> None:
    unserved = 0
    for seed in range(400):
        conversation = tool_conversation(random.Random(seed), 1.0)
        for place, (before, after) in enumerate(pairwise(conversation.messages)):
            if after["content"] == SAY["impossible"]:
                assert before["role"] == "user" or place - 1 in conversation.unlearned
                unserved += before["content"] not in POOL["ask"]["impossible"]
    assert unserved > 5


@cache
def training(count: int = 600) -> list[Conversation]:
    return [tool_conversation(random.Random(seed), (seed % 3) / 2) for seed in range(count)]


def test_training_conversations_are_well_formed() -> None:
    for conversation in training():
        listed = {tool["function"]["name"]: tool["function"]["parameters"] for tool in conversation.tools}
        assert 2 <= len(listed) == len(conversation.tools) <= 5
        assert conversation.messages[0]["role"] == "user"
        assert conversation.messages[-1]["role"] == "assistant"
        for place, (message, following) in enumerate(pairwise(conversation.messages)):
            if message["role"] in ("user", "tool"):
                assert following["role"] == "assistant"
            for call in message.get("tool_calls", ()):
                assert following["role"] == "tool"
                if place in conversation.unlearned:
                    continue
                assert set(call["function"]["arguments"]) == set(listed[call["function"]["name"]]["required"])
        json.dumps([conversation.tools, conversation.messages])
        assert "".join(message["content"] for message in conversation.messages).isascii()


def test_a_slip_is_not_learned_and_is_put_right() -> None:
    misspelt = unfit = useless = repeated = 0
    for conversation in training():
        if not (wrong_calls := conversation.unlearned):
            continue
        first, last = wrong_calls[0], wrong_calls[-1]
        slips, right = conversation.messages[first : last + 2], conversation.messages[last + 2]
        assert slips == slips[:2] * len(wrong_calls)
        assert slips[1]["content"].startswith("Error: ")
        assert slips[1]["content"] != BUSY
        repeated += len(wrong_calls) > 1
        said = slips[0]["tool_calls"][0]["function"]
        listed = {tool["function"]["name"] for tool in conversation.tools}
        if not right.get("tool_calls"):
            assert right["content"] == SAY["impossible"]
            assert said["name"] in listed
            useless += 1
            continue
        meant = right["tool_calls"][0]["function"]
        values, meant_values = (list(function["arguments"].values()) for function in (said, meant))
        if said["name"] in listed - {meant["name"]}:
            assert values == meant_values[:1]
            unfit += 1
        else:
            assert said != meant
            assert values == meant_values
            assert re.fullmatch(r"Error: (no tool \S+|no argument \S+|\S+ is missing)", slips[1]["content"])
            misspelt += 1
    assert min(misspelt, unfit, repeated) > 10
    assert useless > 3


def test_the_first_level_takes_one_call_an_answer() -> None:
    for seed in range(200):
        conversation = tool_conversation(random.Random(seed), 0.0)
        assert len(conversation.tools) == 2
        roles = [message["role"] for message in conversation.messages]
        assert roles == ["user", "assistant", "tool", "assistant"] * (len(roles) // 4)


def test_the_same_seed_draws_the_same_conversation() -> None:
    assert tool_conversation(random.Random(5), 1.0) == tool_conversation(random.Random(5), 1.0)


def held_out_pool() -> set[str]:
    names: set[str] = {entry["name"] for entry in POOL["other"] if entry.get("held_out")}
    for meaning in MEANINGS:
        entry = POOL["meaning"][meaning]["held_out"]
        names.update(entry["names"], *entry["arguments"].values())
    return names


def vocabulary(conversation: Conversation) -> set[str]:
    functions = [tool["function"] for tool in conversation.tools]
    return {name for function in functions for name in (function["name"], *function["parameters"]["properties"])}


def test_held_out_tools_never_occur_in_training() -> None:
    held_out = held_out_pool()
    for conversation in training():
        assert not vocabulary(conversation) & held_out
    for seed in range(100):
        tools = tool_conversation(random.Random(seed), 1.0, held_out=True).tools
        assert {tool["function"]["name"] for tool in tools} <= held_out


#: What stands where a phrase has a blank.
FILLED = {"first": "the .+", "second": "the .+", "value": r"\d+", "sum": r"[\d(].*[\d)]"}


def test_held_out_phrases_never_occur_in_training() -> None:
    phrases = [phrase for sort in POOL["ask"]["held_out"].values() for phrase in sort]
    patterns = [
        re.compile(re.sub(r"\\{(\w+)\\}", lambda blank: FILLED.get(blank[1], r"\w+"), re.escape(phrase)))
        for phrase in phrases
    ]
    assert any(pattern.fullmatch("Switch 43 feet over to metres.") for pattern in patterns)
    for conversation in training():
        for message in conversation.messages:
            if message["role"] == "user":
                assert not any(pattern.fullmatch(message["content"]) for pattern in patterns)


def can_be_composed(sentence: str, grammar: dict[str, Any]) -> bool:
    """Whether phrases of the grammar add up to it: each template as a pattern, its slots as alternatives.

    What is no slot stands for anything.
    """

    def blank(name: str) -> str:
        phrases = grammar["slots"].get(name.lower())
        if phrases is None:
            return ".+"
        return "|".join(
            re.escape(phrase[0].upper() + phrase[1:] if name[0].isupper() else phrase) for phrase in phrases
        )

    for template in grammar["templates"]:
        pieces = re.split(r"\{(\w+)\}", template)
        pattern = "".join(f"({blank(piece)})" if place % 2 else re.escape(piece) for place, piece in enumerate(pieces))
        if re.fullmatch(pattern, sentence):
            return True
    return False


def blanks(sentence: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", sentence)


def by_hand(*meanings: str) -> set[str]:
    return {tool.description for item in TOOLS for tool in item.scene.tools if tool.meaning in meanings}


@pytest.mark.parametrize("meaning", MEANINGS)
def test_descriptions_are_composed_and_never_to_one_that_is_kept_apart(meaning: str) -> None:
    grammar = DESCRIPTIONS[meaning]
    composed = [compose(random.Random(seed), grammar) for seed in range(300)]
    assert len(set(composed)) > 290
    assert all(can_be_composed(description, grammar) for description in composed)
    assert all(blanks(description) == ["tables"] * (meaning == "sql") for description in composed)
    kept = {*POOL["meaning"][meaning]["held_out"]["descriptions"], *by_hand(meaning)}
    assert kept
    assert not [description for description in kept if can_be_composed(description, grammar)]


@pytest.mark.parametrize("sort", REQUESTS)
def test_requests_are_composed(sort: str) -> None:
    composed = [compose(random.Random(seed), REQUESTS[sort]) for seed in range(300)]
    assert len(set(composed)) > 200
    assert all(can_be_composed(phrase, REQUESTS[sort]) for phrase in composed)
    assert {tuple(blanks(phrase)) for phrase in composed} <= {tuple(blanks(phrase)) for phrase in POOL["ask"][sort]}


def test_other_tools_are_composed() -> None:
    composed = [compose_other(random.Random(seed)) for seed in range(1000)]
    assert len({entry["description"] for entry in composed}) > 950
    assert not any(blanks(entry["description"]) for entry in composed)
    assert all(set(entry["arguments"].values()) <= {"string", "number"} for entry in composed)
    used = by_hand("other", *MEANINGS)
    assert not [text for text in used for grammar in OTHERS.values() if can_be_composed(text, grammar)]


def test_what_is_kept_apart_is_not_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grammars that give little but what is held out: training draws the rest of it."""
    held_out = POOL["ask"]["held_out"]["conversion"]
    monkeypatch.setitem(
        REQUESTS, "conversion", {"templates": [*held_out, "{Make} {value} {from} {to}!"], "slots": {"make": ["make"]}}
    )
    phrases = {scene_for("conversion", seed)[1][0].text for seed in range(60)}
    assert sum(phrase.startswith("Make ") and phrase.endswith("!") for phrase in phrases) > 30
    kept = [entry["description"] for entry in POOL["other"] if entry.get("held_out")]
    for name, grammar in OTHERS.items():
        monkeypatch.setitem(OTHERS, name, {**grammar, "templates": [*kept, "Sit still."]})
    assert {compose_other(random.Random(seed))["description"] for seed in range(60)} == {"Sit still."}


def test_a_pool_of_thirty_tools() -> None:
    assert sum(len(POOL["meaning"][meaning]["names"]) for meaning in MEANINGS) + len(POOL["other"]) >= 30
    names = [
        name
        for m in MEANINGS
        for entry in (POOL["meaning"][m], POOL["meaning"][m]["held_out"])
        for name in entry["names"]
    ]
    names += [entry["name"] for entry in POOL["other"]]
    assert len(names) == len(set(names))


# Models that go wrong.


@pytest.fixture
def task() -> ToolTask:
    return draw_tool_task(random.Random(7), num_calls=2)


def test_a_wrong_answer_is_not_solved(task: ToolTask) -> None:
    outcome = run_task(task, lambda messages, tools: "The population of Velmora is 1.")
    assert (outcome.solved, outcome.num_calls) == (False, 0)


def test_a_model_that_only_calls_is_stopped(task: ToolTask) -> None:
    name = task.scene.tools[0].name
    outcome = run_task(task, lambda messages, tools: ToolCall(name, {}).text)
    assert not outcome.solved
    assert outcome.num_calls == MAX_CALLS + 1
    assert outcome.num_valid == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('<tool_call>\n{"name": "search", "arg', "the call is not valid JSON"),
        ("<tool_call>\n[1, 2]\n</tool_call>", "the call has no name"),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "the call is not valid JSON"),
        ('<tool_call>{"name": "search", "arguments": "x"}</tool_call>', "arguments must be an object"),
        ('<tool_call>{"name": "no_such", "arguments": {}}</tool_call>', "no tool no_such"),
    ],
)
def test_a_broken_call_is_answered_with_its_error(task: ToolTask, text: str, error: str) -> None:
    dialogue = task.dialogue()
    dialogue.feed(text)
    assert dialogue.messages[-1] == {"role": "tool", "content": f"Error: {error}"}
    assert (dialogue.num_calls, dialogue.num_valid) == (1, 0)
    replay = Replay(task)
    for message in replay.said:
        calls = [ToolCall(**call["function"]).text for call in message.get("tool_calls", ())]
        dialogue.feed("".join(calls) or message["content"])
    outcome = task.outcome(dialogue)
    assert outcome.solved
    assert (outcome.num_calls, outcome.num_valid) == (3, 2)


def test_many_dialogues_can_be_played_side_by_side() -> None:
    tasks = [draw_tool_task(random.Random(seed), num_calls=1 + seed % 4) for seed in range(12)]
    models = [Replay(task) for task in tasks]
    dialogues = [task.dialogue() for task in tasks]
    steps = 0
    while waiting := [i for i, dialogue in enumerate(dialogues) if dialogue.next_prompt is not None]:
        steps += 1
        for i in waiting:
            prompt = dialogues[i].next_prompt
            assert prompt is not None
            dialogues[i].feed(models[i](prompt, dialogues[i].tools))
    assert steps == 5
    assert all(task.outcome(dialogue).solved for task, dialogue in zip(tasks, dialogues, strict=True))


def test_several_calls_in_one_message_are_all_run(task: ToolTask) -> None:
    call = ToolCall("no_such", {}).text
    dialogue = task.dialogue()
    dialogue.feed(f"I will look.\n{call}\n{call}")
    assert dialogue.messages[1]["content"] == "I will look."
    assert [message["role"] for message in dialogue.messages] == ["user", "assistant", "tool", "tool"]


def test_an_answer_counts_by_its_value() -> None:
    answer = Answer("The difference is -28.", "-28")
    assert answer.accepts("The difference is -28.")
    assert answer.accepts("It is -28 years.")
    assert not answer.accepts("The difference is 28.")
    assert not answer.accepts("The difference is -281.")
    assert not Answer("1 / 2 is 4.", "4").accepts("1 / 2 is 4.5.")
    assert not Answer(SAY["impossible"]).accepts("None of my tools can do that now.")


def test_stated_facts_and_small_talk_need_no_tool() -> None:
    for sort in taking(0):
        scene, rounds = scene_for(sort, 0)
        assert isinstance(rounds[0].goal, Say)
        assert play_oracle(scene, rounds)[0].num_calls == 0


def test_missing_parts_are_asked_for() -> None:
    for sort, goal in (("no_subject", Lookup), ("no_unit", ConvertValue), ("no_sum", Compute)):
        scene, rounds = scene_for(sort, 2)
        messages = play_oracle(scene, rounds)[0].messages
        assert messages[1]["content"].endswith("?")
        assert isinstance(rounds[1].goal, goal)
        assert messages[3].get("tool_calls")


def test_the_template_writes_what_the_parser_reads(tmp_path: Path) -> None:
    conversations = training(60)
    texts = [message["content"] for conversation in conversations for message in conversation.messages]
    train_tokenizer([*texts, *(json.dumps(c.tools) for c in conversations)], tmp_path, 2048)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for conversation in conversations:
        made = [call["function"] for m in conversation.messages for call in m.get("tool_calls", ())]
        rendered = tokenizer.apply_chat_template(
            list(conversation.messages), tools=list(conversation.tools), tokenize=False
        )
        # The system turn shows an example of a call; what follows the first user turn is the conversation.
        body = rendered[rendered.index("<|im_start|>user") :]
        assert [{"name": call.name, "arguments": call.arguments} for call in parse_tool_calls(body)] == made
        assert all(ToolCall(**call).text in body for call in made)
        ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == rendered


def test_a_dialogue_without_rounds_is_over() -> None:
    scene, _ = scene_for("fact", 0)
    assert Dialogue(scene, []).next_prompt is None


def test_a_made_up_name_never_takes_the_only_name_that_is_left() -> None:
    rng = random.Random(0)
    for _ in range(20):
        assert draw_name(rng, ["text"], {"text"}, held_out=False) != "text"
