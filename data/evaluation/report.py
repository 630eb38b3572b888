"""The table of what the shipped models must show, from the figures that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from data.evaluation.reading import MAIN, NO_ANSWER, NO_PASSAGES
from data.evaluation.score import wilson
from data.evaluation.tools import CONSTRAINED, calls_row
from tinyllm.paths import SHIPPED

MODELS = SHIPPED
#: Tasks on which the mixture of experts is held against the target, as (task, row, figure).
COMPARED = (
    ("reading", MAIN, "right"),
    ("reading", NO_ANSWER, "abstained"),
    *(("tools", calls_row(calls), "solved") for calls in (2, 3, 4)),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One measure.

    Attributes:
        measure: what is measured.
        values: model -> figure, for those that were measured.
        unit: "%", "points" or nothing.
        bar: what has to be reached, or not exceeded; None where the figure is only reported.
        aim: what is hoped for.
        of: the models that the bar is for.
        at_most: the bar is an upper one.
        spread: model -> 95 % interval of a share, in the same unit.
        note: what stands beside the figures.
    """

    measure: str
    values: dict[str, float]
    unit: str = "%"
    bar: float | None = None
    aim: float | None = None
    of: tuple[str, ...] = ("target",)
    at_most: bool = False
    spread: dict[str, tuple[float, float]] | None = None
    note: str = ""

    def met(self, model: str) -> bool | None:
        """Whether a model reaches the bar; None where it has none, or was not measured."""
        if self.bar is None or model not in self.of or model not in self.values:
            return None
        return self.values[model] <= self.bar if self.at_most else self.values[model] >= self.bar

    def written(self, value: float | None) -> str:
        """A figure with its unit."""
        if value is None:
            return ""
        return f"{value:g} {self.unit}".rstrip()

    def bar_written(self) -> str:
        """The bar in words."""
        return "" if self.bar is None else f"{'at most ' if self.at_most else ''}{self.written(self.bar)}"


def pooled(model: Mapping[str, Any], places: Sequence[tuple[str, str, str]]) -> tuple[int, int]:
    """Right and asked over several rates."""
    rates = [model[task][row][figure] for task, row, figure in places]
    return sum(rate["right"] for rate in rates), sum(rate["asked"] for rate in rates)


def share_line(models: Mapping[str, Any], measure: str, places: Sequence[tuple[str, str, str]], **options: Any) -> Line:
    """A line of shares in percent, pooled over some rates, with their intervals."""
    values, spread = {}, {}
    for name, model in models.items():
        right, asked = pooled(model, places)
        values[name] = round(100 * right / max(1, asked), 1)
        low, high = wilson(right, asked)
        spread[name] = (round(100 * low, 1), round(100 * high, 1))
    return Line(measure, values, spread=spread, **options)


def lines(figures: Mapping[str, Any], step_time: Mapping[str, Any] | None = None) -> list[Line]:
    """The table's lines for what `evaluation.json` holds, and the step times where they were taken."""
    models, floors = figures["models"], figures["floors"]
    rows_of_tools = {row for model in models.values() for row in model["tools"]}
    all_calls = [("tools", row, "valid calls") for row in sorted(rows_of_tools)]
    result = [
        share_line(models, "answer and citation right, 4 passages", [("reading", MAIN, "right")], bar=90, aim=98,
                   note=floor_note(floors, MAIN)),
        share_line(models, "the same questions without passages", [("reading", NO_PASSAGES, "value")], bar=5,
                   at_most=True),
        share_line(models, "abstains when no passage answers", [("reading", NO_ANSWER, "abstained")], bar=90, aim=98),
        share_line(models, "tool task solved, 2 calls", [("tools", calls_row(2), "solved")], bar=95, aim=99),
        share_line(models, "tool task solved, 3-4 calls", [("tools", calls_row(n), "solved") for n in (3, 4)],
                   bar=85, aim=95),
        share_line(models, "calls that are valid", all_calls, bar=98, aim=100),
        share_line(models, "calls held to the schemas: solved, 2 calls", [(CONSTRAINED, calls_row(2), "solved")]),
        share_line(models, "calls held to the schemas: solved, 3-4 calls",
                   [(CONSTRAINED, calls_row(n), "solved") for n in (3, 4)]),
    ]  # fmt: skip
    if "acceptance" in models.get("draft", {}):
        share = models["draft"]["acceptance"]["all"]["share"]
        result.append(Line("draft tokens accepted, 4 at a time", {"draft": share}, "", 0.75, 0.85, ("draft",)))
    if step_time is not None:
        result.append(
            Line("draft's step beside the target's", {"draft": step_time["ratio"]}, "", 0.15, 0.12, ("draft",), True)
        )
    if {"target", "moe"} <= set(models):
        result.append(
            Line("points behind the target, worst task", {"moe": behind(models)}, "points", 3, None, ("moe",), True)
        )
    if "experts" in models.get("moe", {}):
        busiest = models["moe"]["experts"]["most uneven"]
        result.append(Line("busiest expert over the mean", {"moe": busiest}, "", 1.5, None, ("moe",), True))
    by_hand = floors["regex extractor"]["by hand: reading"]["right"]["share"]
    by_chance = floors["random tool"]["by hand: tools"]["solved"]["share"]
    result += [
        share_line(models, "written by hand: reading", [("by hand", "reading", "right")],
                   note=f"regex extractor {100 * by_hand:.1f} %"),
        share_line(models, "written by hand: tools", [("by hand", "tools", "solved")],
                   note=f"random tool {100 * by_chance:.1f} %"),
        Line("perplexity a token, free text",
             {name: model["perplexity"]["free text"]["per token"] for name, model in models.items()}, ""),
    ]  # fmt: skip
    return result


def floor_note(floors: Mapping[str, Any], row: str) -> str:
    """What the rules reach on a row of reading."""
    return f"regex extractor {100 * floors['regex extractor'][row]['right']['share']:.1f} %"


def behind(models: Mapping[str, Any]) -> float:
    """By how many points the mixture of experts lies behind the target where it is worst."""
    target, moe = models["target"], models["moe"]
    gaps = [
        100 * (target[task][row][figure]["share"] - moe[task][row][figure]["share"]) for task, row, figure in COMPARED
    ]
    return round(max(0.0, *gaps), 1)


def as_json(table: Sequence[Line]) -> list[dict[str, Any]]:
    """The lines as they are saved, with what is met."""
    return [asdict(line) | {"met": {name: line.met(name) for name in line.values}} for line in table]


def as_rich(table: Sequence[Line]) -> Table:
    """The lines to print: green where the bar is met, red where it is not."""
    names = [name for name in MODELS if any(name in line.values for line in table)]
    shown = Table("measure", "at least", "aim", *names, "floor", title="Held-out names, phrases and tools; greedy")
    for line in table:
        cells = []
        for name in names:
            style = {True: "green", False: "red", None: ""}[line.met(name)]
            cells.append(Text(line.written(line.values.get(name)), style=style))
        shown.add_row(line.measure, line.bar_written(), line.written(line.aim), *cells, line.note)
    return shown
