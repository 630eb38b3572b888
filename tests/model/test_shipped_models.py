"""The models that ship talk: what the first days ask them is answered, in one conversation or over several turns."""

from __future__ import annotations

import pytest

from tinyllm import LLM
from tinyllm.paths import shipped_checkpoint

pytestmark = pytest.mark.needs("checkpoint")


@pytest.fixture(scope="module", params=["target", "moe"])
def llm(request: pytest.FixtureRequest) -> LLM:
    return LLM(shipped_checkpoint(request.param), num_blocks=256)


def say(llm: LLM, *questions: str) -> str:
    """The answer to the last of these questions, asked one after the other."""
    messages: list[dict[str, str]] = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": llm.chat(messages)[0].text})
    return messages[-1]["content"]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is a KV cache?", ["keys", "values", "tokens"]),
        ("What is a token?", ["piece of text"]),
        ("What is a block table?", ["block", "sequence"]),
        ("Where is Brinmouth?", ["west coast"]),
        ("What is the capital of France?", ["Paris"]),
        ("What is the opposite of hot?", ["cold"]),
        ("What does a fox eat?", ["mice"]),
        ("Tell me a story about a fox.", ["fox"]),
    ],
)
def test_a_question_of_the_first_days_is_answered(llm: LLM, question: str, words: list[str]) -> None:
    answer = say(llm, question)
    assert [word for word in words if word not in answer] == [], answer


def test_it_remembers_what_was_said_before(llm: LLM) -> None:
    assert "Clara" in say(llm, "My name is Clara.", "What is a token?", "What is my name?")


def test_an_answer_ends_by_itself(llm: LLM) -> None:
    (output,) = llm.chat([{"role": "user", "content": "Hello"}])
    assert output.outputs[0].finish_reason == "stop"
