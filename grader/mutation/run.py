"""`grader gate --mutate`: every mutation of every exercise is caught, or stands among the equivalents."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.table import Table

from grader.checks import exercises, find_exercise
from grader.framework import Exercise
from grader.mutation.equivalents import Key, path_of, read, words
from grader.mutation.mutate import Mutation, Target, mutations, targets
from grader.mutation.pool import tried_by_workers
from grader.mutation.trial import Job, Trial
from grader.running import PUBLIC_SEED, missing_requirement
from grader.usage import UsageError

COLUMNS = ("mutations", "caught", "equivalent", "escaped")


@dataclass(frozen=True, slots=True)
class Sample:
    """A part of all mutations: those in part `number` of `count` parts, numbered from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Sample:
        """From "3/40".

        Raises:
            UsageError: it is not two numbers of which the first is the smaller.
        """
        number, _, count = text.partition("/")
        if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
            raise UsageError(f"a sample is written as 3/40, the third of 40 parts, and not {text}")
        return cls(int(number), int(count))

    def __contains__(self, mutation: Mutation) -> bool:
        return mutation.part(self.count) == self.number - 1


@dataclass(slots=True)
class Subject:
    """An exercise with its right answers, the mutations to try, and those known as equivalent, with reasons."""

    exercise: Exercise
    targets: list[Target]
    mutations: list[Mutation]
    reasons: dict[Key, str]
    problems: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, exercise: Exercise, sample: Sample) -> Subject:
        """Of an exercise of the course."""
        return cls.made(exercise, targets(exercise), read(path_of(exercise)), sample)

    @classmethod
    def made(cls, exercise: Exercise, found: list[Target], listed: dict[Key, str], sample: Sample) -> Subject:
        """Of these answers; an entry that fits no mutation is a problem."""
        every = [mutation for target in found for mutation in mutations(target)]
        by_key = {mutation.key: mutation for mutation in every}
        reasons = {(by_key[key].same_as or by_key[key]).key: text for key, text in listed.items() if key in by_key}
        problems = [
            f"an equivalent that fits no mutation any more: {words(key)}" for key in listed if key not in by_key
        ]
        chosen = [mutation for mutation in every if mutation.same_as is None and mutation in sample]
        return cls(exercise, found, chosen, reasons, problems)


@dataclass(frozen=True, slots=True)
class Escape:
    """A mutation that no property catches, and how that was seen."""

    mutation: Mutation
    trial: Trial

    @property
    def words(self) -> str:
        """How it escaped."""
        seeds = "seed " + ", ".join(map(str, self.trial.missed))
        return f"nothing fails on {seeds}" + (f"; elsewhere: {self.trial.how}" if self.trial.how else "")


@dataclass(slots=True)
class Row:
    """What came of one exercise."""

    exercise: str
    counts: dict[str, int]
    escapes: list[Escape]
    problems: list[str]
    not_checked: str = ""


@dataclass(frozen=True, slots=True)
class MutationReport:
    """The rows of all. True when something was tried, nothing escaped and no entry is stale."""

    rows: tuple[Row, ...]

    def __bool__(self) -> bool:
        tried = sum(row.counts["mutations"] for row in self.rows)
        return tried > 0 and not any(row.escapes or row.problems for row in self.rows)

    def table(self) -> Table:
        """How many mutations there are and what came of them, by exercise."""
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("exercise", no_wrap=True)
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for row in self.rows:
            cells = [str(row.counts[column]) for column in COLUMNS]
            if row.escapes:
                cells[-1] = f"[bold red]{cells[-1]}[/]"
            table.add_row(row.exercise, *cells)
        totals = [str(sum(row.counts[column] for row in self.rows)) for column in COLUMNS]
        table.add_section()
        table.add_row("all", *totals)
        return table

    def lines(self) -> list[str]:
        """Everything that is not as it should be, in words."""
        found = []
        for row in self.rows:
            found += [f"{row.exercise}: {problem}" for problem in row.problems]
            found += [f"{row.exercise}: {words(item.mutation)}\n    {item.words}" for item in row.escapes]
            found += [f"{row.exercise}: not tried: {row.not_checked}"] if row.not_checked else []
        return found

    def as_json(self) -> list[dict[str, Any]]:
        """The same for a program."""
        names = ("target", "function", "before", "after", "nth", "line")
        return [
            {
                "exercise": row.exercise,
                **row.counts,
                "problems": row.problems,
                "not_checked": row.not_checked,
                "escapes": [
                    {
                        **{name: getattr(item.mutation, name) for name in names},
                        "missed": list(item.trial.missed),
                        "how": item.trial.how,
                    }
                    for item in row.escapes
                ],
            }
            for row in self.rows
        ]


def run_mutation(
    names: Sequence[str] | None,
    seeds: Sequence[int],
    jobs: int | None = None,
    sample: Sample = Sample(),
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> MutationReport:
    """Try the mutations of the exercises called `names` (None: of all), on the cases of every seed.

    Args:
        jobs: worker processes; None takes one for each core.
        progress: called with how many answers are done, how many there are, and the exercise of the latest.

    Raises:
        UsageError: an unknown name, or a file of equivalents that cannot be read.
    """
    chosen = [find_exercise(name) for name in names] if names is not None else list(exercises().values())
    return report_on([Subject.of(exercise, sample) for exercise in chosen], seeds, jobs, progress)


def report_on(
    subjects: Sequence[Subject],
    seeds: Sequence[int],
    jobs: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> MutationReport:
    """Try the mutations of these; see `run_mutation`."""
    todo: list[tuple[Subject, Mutation | Target, Job]] = []
    for subject in subjects:
        if cannot_be_checked(subject.exercise):
            continue
        mutated = {item.target for item in subject.mutations}
        unchanged = [item for item in subject.targets if item.name in mutated]  # they must be right themselves
        todo += [(subject, item, Job(subject.exercise, item.text, (PUBLIC_SEED,), time_share=1)) for item in unchanged]
        todo += [(subject, item, job_of(subject, item, tuple(seeds))) for item in subject.mutations]
    trials: dict[int, Trial] = {}
    work = [job for _, _, job in todo]
    for number, trial in tried_by_workers(work, jobs or os.cpu_count() or 1):
        trials[number] = trial
        progress(len(trials), len(todo), todo[number][0].exercise.name)
    found = [(subject, what, trials[number]) for number, (subject, what, _) in enumerate(todo)]
    return MutationReport(tuple(row_of(s, [(what, t) for other, what, t in found if other is s]) for s in subjects))


def job_of(subject: Subject, mutation: Mutation, seeds: tuple[int, ...]) -> Job:
    """A job for a mutation; one seed will do for what is known as equivalent."""
    known = mutation.key in subject.reasons
    return Job(subject.exercise, mutation.text, (PUBLIC_SEED,) if known else seeds)


def cannot_be_checked(exercise: Exercise) -> str:
    """What this machine lacks for every property of an exercise; empty where one can be checked."""
    missing = [missing_requirement(item.requires) for item in exercise.properties]
    return missing[0] if all(missing) else ""


def row_of(subject: Subject, trials: list[tuple[Mutation | Target, Trial]]) -> Row:
    """What the trials of one exercise say."""
    counts = dict.fromkeys(COLUMNS, 0)
    row = Row(subject.exercise.name, counts, [], list(subject.problems), cannot_be_checked(subject.exercise))
    for item, trial in trials:
        if isinstance(item, Target):
            if trial.caught:
                row.problems.append(f"{item.name} is not right itself: {trial.how}")
            continue
        counts["mutations"] += 1
        reason = subject.reasons.get(item.key)
        if reason is None and not trial.caught:
            row.escapes.append(Escape(item, trial))
        elif reason is not None and trial.caught and not trial.timed_out:
            row.problems.append(f"an equivalent that is caught ({trial.how}): {words(item)}")
        counts["equivalent" if reason is not None else "caught" if trial.caught else "escaped"] += 1
    return row
