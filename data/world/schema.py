"""What can be said about an entity: the kinds and their relations, read from `schema.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Relation:
    """One thing that can be said about the entities of a kind.

    Attributes:
        kind: whose relation it is: `town`.
        name: the relation, and its column in the database: `population`.
        type: `count`, `year`, `word`, `river`, or a kind: then the value is the name of such an entity.
        unit: what is written after the value (`metres`), or nothing.
        key: how an answer restates what was asked: `the population of {name}`.
        words: the values of a `word`.
        low, high: the least and the most of a `count` or a `year`.
        after: the relation whose person must be grown up in that year, or nothing.
    """

    kind: str
    name: str
    type: str
    unit: str
    key: str
    words: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    after: str = ""

    @property
    def is_number(self) -> bool:
        """Whether the value is a number."""
        return self.type in ("count", "year")

    @property
    def is_entity(self) -> bool:
        """Whether the value names another entity."""
        return self.type in RELATIONS

    def written(self, value: int | str) -> str:
        """The value with its unit: `420 metres`."""
        return f"{value} {self.unit}" if self.unit else str(value)


def _relations() -> dict[str, dict[str, Relation]]:
    kinds = tomllib.loads((Path(__file__).parent / "schema.toml").read_text(encoding="utf-8"))
    return {
        kind: {
            name: Relation(
                kind=kind,
                name=name,
                type=row["type"],
                unit=row.get("unit", ""),
                key=row["key"],
                words=tuple(row.get("words", ())),
                low=row.get("range", (0, 0))[0],
                high=row.get("range", (0, 0))[1],
                after=row.get("after", ""),
            )
            for name, row in relations.items()
        }
        for kind, relations in kinds.items()
    }


#: Kind -> relation's name -> relation.
RELATIONS: dict[str, dict[str, Relation]] = _relations()
#: person, town, company, bridge, dish, event.
KINDS: tuple[str, ...] = tuple(RELATIONS)
#: Every word that is a value of some relation.
WORDS: tuple[str, ...] = tuple(
    sorted({word for of_kind in RELATIONS.values() for relation in of_kind.values() for word in relation.words})
)
