"""Ten outputs to read: the first ones drawn, not the best ones."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from data.evaluation import reading, tools
from data.evaluation.candidate import Candidate
from data.tasks.reading import prompt
from data.tasks.talk import free_text, talk

BEGINNING = 12  # words of a text that the model goes on from


def written(messages: Sequence[dict[str, Any]]) -> str:
    """A conversation as lines of speaker and text, calls as the model wrote them."""
    lines = []
    for message in messages:
        calls = "".join(
            f" {call['function']['name']}{call['function']['arguments']}" for call in message.get("tool_calls", ())
        )
        lines.append(f"{message['role']}: {message['content']}{calls}".replace("\n", "\n    "))
    return "\n".join(lines)


def samples(candidate: Candidate) -> list[dict[str, str]]:
    """Two answers and one abstention, four tool tasks, two turns of talk and a text: title and transcript of each."""
    asked = [*reading.draw(2), *reading.draw(1, answerable=False)]
    result = []
    for task, reply in zip(asked, reading.answers(candidate, asked), strict=True):
        messages = [{"role": "user", "content": prompt(task)}, {"role": "assistant", "content": reply.text}]
        result.append({"title": "Reading", "text": written(messages), "expected": task.answer})
    for num_calls in tools.CALLS:
        [tool_task] = tools.draw(1, num_calls)
        dialogue = tool_task.dialogue()
        tools.play(candidate, [dialogue])
        listed = ", ".join(tool["function"]["name"] for tool in dialogue.tools)
        title = f"Tools: {listed}"
        result.append({"title": title, "text": written(dialogue.messages), "expected": tool_task.answers[-1].text})
    for place in range(2):
        conversation = talk(Random(f"evaluate talk {place}"), True)
        until = next(i for i, message in enumerate(conversation.messages) if message["role"] == "assistant")
        messages = list(conversation.messages[:until])
        [reply] = candidate.replies([candidate.prompt(messages)])
        result.append({"title": "Talk", "text": written([*messages, {"role": "assistant", "content": reply.text}])})
    text = " ".join(free_text(Random("evaluate text"), True).text.split(" ")[:BEGINNING])
    [reply] = candidate.replies([candidate.tokenizer.encode(text)])
    result.append({"title": "Text, continued", "text": f"{text} [...]{reply.text}"})
    return result
