"""Everything that is measured of one model, in one order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from data.evaluation import by_hand, passkeys, reading, tools
from data.evaluation.candidate import Candidate
from data.evaluation.drafting import Speculation, acceptance
from data.evaluation.experts import balance, count_experts
from data.evaluation.floors import extract, first_passage, random_tool
from data.evaluation.samples import samples
from data.evaluation.score import Rate
from data.evaluation.text import KINDS, perplexity
from data.evaluation.transcripts import transcripts

Measure = Callable[[], Any]
Step = tuple[tuple[str, ...], Measure]  # where the result goes, and what measures it


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many items each row has, from the one number that the user chooses: the questions of a row of reading."""

    reading: int

    @property
    def tools(self) -> int:
        """Tasks of a row."""
        return max(1, self.reading // 2)

    @property
    def passkeys(self) -> int:
        """Texts of a length; a multiple of the four depths."""
        return max(4, self.reading // 20 * 4)

    @property
    def documents(self) -> int:
        """Texts of a kind."""
        return self.reading


def steps(candidate: Candidate, sizes: Sizes, target: Candidate | None = None) -> list[Step]:
    """What to measure of a model, task by task.

    Args:
        candidate: the model.
        sizes: how many items.
        target: the model that it drafts for, if it is a draft.
    """
    found: list[Step] = []
    for task, rows in (
        ("reading", reading.rows(candidate, sizes.reading)),
        ("tools", tools.rows(candidate, sizes.tools)),
        (tools.CONSTRAINED, tools.constrained_rows(candidate, sizes.tools)),
        ("passkey", passkeys.rows(candidate, sizes.passkeys)),
        ("by hand", by_hand.rows(candidate)),
    ):
        found += [((task, row), measure) for row, measure in rows]
    for kind in KINDS:
        found.append(
            (
                ("perplexity", kind),
                lambda kind=kind: perplexity(candidate.model, candidate.tokenizer, kind, sizes.documents),  # type: ignore[misc]
            )
        )
    if target is not None:
        found.append((("acceptance",), lambda: accepted(candidate, target, sizes.reading)))
    if candidate.model.config.num_experts:
        found.append((("experts",), lambda: spread(candidate, sizes.reading)))
    found.append((("samples",), lambda: samples(candidate)))
    return found


def accepted(draft: Candidate, target: Candidate, items: int) -> dict[str, Any]:
    """The share of the draft's tokens that the target accepts, task by task and in all."""
    by_task = {task: acceptance(draft.model, replies) for task, replies in transcripts(target, items).items()}
    by_task["all"] = sum(by_task.values(), Speculation())
    return {task: counts.as_json() for task, counts in by_task.items()}


def spread(candidate: Candidate, items: int) -> dict[str, Any]:
    """How evenly the experts are used on the model's own transcripts."""
    replies = [reply for of_task in transcripts(candidate, items).values() for reply in of_task]
    return balance(count_experts(candidate.model, replies), candidate.model.config.sparse_layers)


def floors(sizes: Sizes) -> dict[str, Any]:
    """What rules without a model reach on the same items."""
    asked, missing = reading.draw(sizes.reading), reading.draw(sizes.reading, answerable=False)
    rules = {"regex extractor": extract, "always the first passage": first_passage}
    result: dict[str, Any] = {}
    for name, rule in rules.items():
        result[name] = {
            row: reading.rates(tasks, [rule(task.question, task.passages) for task in tasks])
            for row, tasks in ((reading.MAIN, asked), (reading.NO_ANSWER, missing))
        }
        result[name]["by hand: reading"] = by_hand.judge_reading(
            [rule(item.question, item.passages) for item in by_hand.READING]
        )
    result["random tool"] = {}
    for num_calls in tools.CALLS:
        tasks = tools.draw(sizes.tools, num_calls)
        dialogues = [task.dialogue() for task in tasks]
        for place, dialogue in enumerate(dialogues):
            random_tool(dialogue, Random(f"evaluate random tool {place}"))
        result["random tool"][tools.calls_row(num_calls)] = tools.rates(tasks, dialogues)
    dialogues = [item.dialogue() for item in by_hand.TOOLS]
    for place, dialogue in enumerate(dialogues):
        random_tool(dialogue, Random(f"evaluate random tool {place}"))
    result["random tool"]["by hand: tools"] = by_hand.judge_tools(dialogues)
    return result


def fingerprint(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights: which ones the figures are of."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def plain(result: Any) -> Any:
    """The results with every rate as JSON has it."""
    if isinstance(result, Rate):
        return result.as_json()
    return {key: plain(value) for key, value in result.items()} if isinstance(result, dict) else result
