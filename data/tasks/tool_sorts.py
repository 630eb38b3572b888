"""The sorts of request: how each is drawn, what its tools must do, and how often it occurs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data.tasks.tool_arithmetic import PAIRS
from data.tasks.tool_requests import Asker, Request
from data.world.schema import KINDS, RELATIONS

FACTS, SUM, UNITS = ("facts",), ("calculate",), ("convert",)


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of request.

    Attributes:
        ask: draws a request; may raise `Impossible`.
        needs: what its tools must do: look up "facts", "calculate", "convert".
        calls: how many calls it takes when nothing goes wrong, or None where something always does.
        weight: how often it is drawn at the end of the curriculum.
    """

    ask: Callable[[Asker], Request]
    needs: tuple[str, ...]
    calls: int | None
    weight: int


#: What users ask, by name.
SORTS = {
    "fact": Sort(lambda asker: asker.fact(0), FACTS, 1, 10),
    "arithmetic": Sort(Asker.arithmetic, SUM, 1, 4),
    "conversion": Sort(Asker.conversion, UNITS, 1, 4),
    "hop": Sort(lambda asker: asker.fact(1), FACTS, 2, 12),
    "fact_in_unit": Sort(Asker.fact_in_unit, FACTS + UNITS, 2, 8),
    "two_hops": Sort(lambda asker: asker.fact(2), FACTS, 3, 9),
    "two_facts": Sort(lambda asker: asker.two_facts(0), FACTS + SUM, 3, 10),
    "hop_and_fact": Sort(lambda asker: asker.two_facts(1), FACTS + SUM, 4, 8),
    "total_in_unit": Sort(Asker.total_in_unit, FACTS + SUM + UNITS, 4, 6),
    "misspelt": Sort(Asker.misspelt, FACTS, None, 4),
    "misspelt_unit": Sort(lambda asker: asker.conversion(misspelt=True), UNITS, None, 2),
    "stated": Sort(Asker.stated, (), 0, 4),
    "small_talk": Sort(Asker.small_talk, (), 0, 2),
    "impossible": Sort(Asker.impossible, (), 0, 2),
    "no_subject": Sort(Asker.no_subject, FACTS, None, 3),
    "no_unit": Sort(Asker.no_unit, UNITS, None, 2),
    "no_sum": Sort(Asker.no_sum, SUM, None, 1),
}
#: The kinds that have something measured in a unit.
MEASURED = tuple(kind for kind in KINDS if any(relation.unit in PAIRS for relation in RELATIONS[kind].values()))


def taking(num_calls: int) -> list[str]:
    """The sorts that take so many calls.

    Raises:
        ValueError: there is none.
    """
    names = [name for name, sort in SORTS.items() if sort.calls == num_calls]
    if not names:
        raise ValueError(f"no request takes {num_calls} calls")
    return names
