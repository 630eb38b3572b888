"""What the gate found: proofs held and tried, by exercise."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich import box
from rich.table import Table

#: What is counted, in the order in which it is shown.
COLUMNS = ("right", "stub", "mutants", "variants", "unknown", "alternates", "seeds", "form")


@dataclass(slots=True)
class Row:
    """What the gate found of one exercise: passed and tried by column, and each failure in words."""

    exercise: str
    passed: dict[str, int] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def count(self, column: str, problem: str) -> None:
        """Count one proof; an empty problem is a pass."""
        self.tried[column] = self.tried.get(column, 0) + 1
        self.passed[column] = self.passed.get(column, 0) + (not problem)
        if problem:
            self.problems.append(f"{self.exercise}: {problem}")


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's findings, one row an exercise. True when there was something to check and all of it passed."""

    rows: tuple[Row, ...]

    @property
    def problems(self) -> list[str]:
        """Every failure in words; that there was nothing to check is one."""
        if not self.rows:
            return ["the gate found no exercise to check"]
        return [problem for row in self.rows for problem in row.problems]

    @property
    def num_checked(self) -> int:
        """Proofs tried."""
        return sum(sum(row.tried.values()) for row in self.rows)

    def __bool__(self) -> bool:
        return self.num_checked > 0 and not self.problems

    def table(self) -> Table:
        """How many proofs held, by exercise and column; "held/tried" where some did not. Fits 80 columns."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
        table.add_column("exercise", no_wrap=True)
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for row in self.rows:
            cells = []
            for column in COLUMNS:
                passed, tried = row.passed.get(column, 0), row.tried.get(column, 0)
                cells.append(str(passed) if passed == tried > 0 else f"[bold red]{passed}/{tried}[/]")
            table.add_row(row.exercise, *cells)
        return table
