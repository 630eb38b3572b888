"""What a check found, as facts: the outcome of each property, the points, the diagnoses. rendering.py shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from grader.framework.outcome import Diagnosis, Outcome, PropertyResult, without_numbers
from grader.framework.rendering import to_html, to_text


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the check of one exercise found. True when everything that could be checked is right.

    Attributes:
        exercise: its name.
        seed: what the cases were drawn from; None where a learner must not know it.
        properties: in the exercise's order.
        diagnoses: the known mistakes that fit; empty when right or when none fits.
    """

    exercise: str
    seed: int | None
    properties: tuple[PropertyResult, ...]
    diagnoses: tuple[Diagnosis, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The exercise's outcome: the first property's that is not right, and "not attempted" only if all are."""
        outcomes = [item.outcome for item in self.properties if item.outcome is not Outcome.NOT_CHECKED]
        if not outcomes:
            return Outcome.NOT_CHECKED
        bad = [outcome for outcome in outcomes if outcome is not Outcome.RIGHT]
        if not bad:
            return Outcome.RIGHT
        if len(bad) == len(outcomes) and set(bad) == {Outcome.NOT_ATTEMPTED}:
            return Outcome.NOT_ATTEMPTED
        return next((outcome for outcome in bad if outcome is not Outcome.NOT_ATTEMPTED), Outcome.WRONG)

    @property
    def points(self) -> float:
        """Points earned."""
        return sum(item.points for item in self.properties)

    @property
    def max_points(self) -> float:
        """Points of a right answer."""
        return float(sum(item.weight for item in self.properties))

    def __bool__(self) -> bool:
        return self.outcome is Outcome.RIGHT

    def without_inputs(self) -> CheckResult:
        """The same without the seed and the cases: what a student may see of a hidden check.

        The text of an error of the learner's own may hold its inputs, so the numbers in it are left out.
        """
        hidden = tuple(
            replace(item, message=without_numbers(item), case_text="", printed="") for item in self.properties
        )
        return replace(self, seed=None, properties=hidden)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CheckResult:
        """The result that `to_dict` wrote."""
        return cls(
            exercise=data["exercise"],
            seed=data["seed"],
            properties=tuple(
                PropertyResult(**{**item, "outcome": Outcome(item["outcome"])}) for item in data["properties"]
            ),
            diagnoses=tuple(Diagnosis(**item) for item in data["diagnoses"]),
        )

    def __str__(self) -> str:
        return to_text(self)

    def __repr__(self) -> str:
        return f"<check of {self.exercise}: {self.outcome}, {self.points:g} of {self.max_points:g} points>"

    def _repr_html_(self) -> str:
        return to_html(self)

    def _ipython_display_(self) -> None:
        from grader.framework.rendering import show

        show(self)
