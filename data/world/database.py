"""The facts of a world as an SQLite database: a table a kind, a column a relation."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.world.facts import World
from data.world.schema import KINDS, RELATIONS, Relation


def as_sql(world: World, kinds: Sequence[str] = KINDS) -> str:
    """The SQL script that makes the tables of those kinds and fills them; the same world gives the same bytes."""
    return "\n".join(["BEGIN;", *(line for kind in kinds for line in _table(world, kind)), "COMMIT;", ""])


def _table(world: World, kind: str) -> Iterator[str]:
    columns = ["name TEXT PRIMARY KEY", *map(_column, RELATIONS[kind].values())]
    yield f"CREATE TABLE {kind} ({', '.join(columns)});"
    for entity in world.by_kind(kind):
        values = [entity.name, *(entity.facts[name] for name in RELATIONS[kind])]
        yield f"INSERT INTO {kind} VALUES ({', '.join(map(_literal, values))});"


def _column(relation: Relation) -> str:
    return f"{relation.name} {'INTEGER' if relation.is_number else 'TEXT'} NOT NULL"


def _literal(value: int | str) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def open_database(script: Path | str) -> sqlite3.Connection:
    """A database in memory that can only be read, from a script as `as_sql` writes it."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(Path(script).read_text(encoding="utf-8"))
    connection.execute("PRAGMA query_only = ON")
    return connection
