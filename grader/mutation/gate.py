"""The tests of the tests: right answers pass, every known mistake fails and is named, the stub is "not attempted"."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import torch

from grader.build.sources import ExerciseSources, exercise_sources
from grader.checks import exercises, find_exercise
from grader.framework import Case, CheckResult, Exercise, Outcome, PropertyResult
from grader.mutants import Specimen, Specimens, as_cell, cell_source, specimens
from grader.mutants.diagnosis import diagnosed
from grader.mutation.gate_report import GateReport, Row
from grader.running import PUBLIC_SEED, Driver, LocalDriver
from grader.running.copies import copied, same
from grader.running.judge import run_fixed, run_random
from grader.running.remembering import Remembering
from grader.running.wire import decode, encode
from tinyllm.parts import all_parts

SEEDS = (PUBLIC_SEED, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233)
MUTATION_SEEDS = SEEDS[:5]  # on each of which a mutation is caught
FEW = 3  # of the seeds: what is right on them, and the diagnoses, are not looked at on all
MAX_BODY_LINES = 25
NUM_MUTANTS = range(3, 17)


def run_gate(
    names: Sequence[str] | None = None,
    seeds: Sequence[int] = SEEDS,
    progress: Callable[[str], None] = lambda name: None,
    jobs: int = 1,
) -> GateReport:
    """Prove the checks of the exercises called `names` (None: of all), on the cases of every seed.

    Args:
        progress: called with each exercise's name when it has been proved.
        jobs: processes to share the exercises; with 1 the work is done in this one.

    Raises:
        UsageError: an unknown name.
    """
    chosen = [find_exercise(name) for name in names] if names is not None else list(exercises().values())
    rows: dict[str, Row] = {}
    for row in proved(sorted(chosen, key=lambda exercise: not exercise.in_triton), seeds, jobs):
        rows[row.exercise] = row
        progress(row.exercise)
    return GateReport(tuple(rows[exercise.name] for exercise in chosen))


def proved(chosen: Sequence[Exercise], seeds: Sequence[int], jobs: int) -> Iterator[Row]:
    """The rows of exercises as they get ready; those that take longest should come first."""
    if min(jobs, len(chosen)) <= 1:
        yield from (Prover(exercise, seeds).prove() for exercise in chosen)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for future in as_completed([pool.submit(prove_by_name, exercise.name, seeds) for exercise in chosen]):
            yield future.result()


def prove_by_name(name: str, seeds: Sequence[int]) -> Row:
    """The row of one exercise, in a worker."""
    return Prover(find_exercise(name), seeds).prove()


class Prover:
    """Everything that must hold of one exercise's check."""

    def __init__(
        self,
        exercise: Exercise,
        seeds: Sequence[int],
        sources: ExerciseSources | None = None,
        known: Specimens | None = None,
        reference: Any = None,
    ) -> None:
        """What is not given is looked up: the sources in the lessons, the specimens in their files."""
        self.exercise = exercise
        self.seeds = seeds
        self.sources = sources or exercise_sources(exercise.name)
        self.known = known or specimens(exercise)
        self.reference = reference or all_parts()[exercise.name].reference
        self.row = Row(exercise.name)
        self._driver: tuple[Any, Driver] | None = None
        self._decided: dict[tuple[Any, int], PropertyResult | None] = {}
        self._results: dict[tuple[Any, int], CheckResult] = {}

    def prove(self) -> Row:
        """Try everything and count it."""
        self.prove_form()
        solution = as_cell(self.exercise, self.sources.solution, "solution cell")
        stub = as_cell(self.exercise, self.sources.stub, "stub cell")
        alike = {item.name: {item.name, *item.alike} for item in self.known.mutants}
        for seed in self.seeds[:FEW]:
            self.row.count("right", self.not_right(self.reference, seed, "the reference"))
            self.row.count("right", self.not_right(solution, seed, "the solution as a cell"))
            self.row.count("stub", self.attempted(stub, seed))
        for item in self.known.mutants:
            for seed in self.seeds[:FEW]:
                self.row.count("mutants", self.misdiagnosed(item, seed, alike[item.name]))
        for item in self.known.variants:
            for seed in self.seeds[:FEW]:
                self.row.count("variants", self.misdiagnosed(item, seed, alike.get(item.mistake, {item.mistake})))
        for item in self.known.unknown_bugs:
            for seed in self.seeds[:FEW]:
                self.row.count("unknown", self.misdiagnosed(item, seed, set()))
        for item in self.known.alternates:
            for seed in self.seeds:
                self.row.count("alternates", self.not_right(item.obj, seed, f"alternate {item.name}"))
        for item in (*self.known.mutants, *self.known.variants, *self.known.unknown_bugs):
            self.row.count("seeds", self.seed_dependent(item))
        for item in (*self.known.mutants, *self.known.variants, *self.known.unknown_bugs, *self.known.alternates):
            if not item.source:  # an edit is a cell
                self.row.count("form", self.differs_as_cell(item))
        return self.row

    # ------------------------------------------------------------ right, wrong, not attempted

    def marked(self, obj: Any, seed: int) -> CheckResult:
        """The result without diagnosis. What the fixed cases decide is run once, whatever the seed."""
        if (obj, seed) not in self._results:
            driver = self.driver(obj)
            for index in range(len(self.exercise.properties)):
                if (obj, index) not in self._decided:
                    self._decided[obj, index] = run_fixed(self.exercise, index, driver)
            properties = [
                self._decided[obj, index] or run_random(self.exercise, index, seed, driver)
                for index in range(len(self.exercise.properties))
            ]
            self._results[obj, seed] = CheckResult(self.exercise.name, seed, tuple(properties))
        return self._results[obj, seed]

    def checked(self, obj: Any, seed: int) -> CheckResult:
        """The result that a learner with this object would get."""
        return diagnosed(self.exercise, self.marked(obj, seed), self.driver(obj), self.known)

    def driver(self, obj: Any) -> Driver:
        """A driver of an object, which drives each case once; one object is proved after the other."""
        if self._driver is None or self._driver[0] is not obj:
            self._driver = obj, Remembering(LocalDriver(self.exercise, obj))
        return self._driver[1]

    def not_right(self, obj: Any, seed: int, label: str) -> str:
        """Why an object that is right is not found right."""
        result = self.marked(obj, seed)
        right = result.outcome is Outcome.RIGHT and result.points == result.max_points
        return "" if right else f"{label} is {result.outcome} with seed {seed}: {first_problem(result)}"

    def attempted(self, stub: Any, seed: int) -> str:
        """Why an untouched stub is not found so."""
        result = self.marked(stub, seed)
        others = [
            p.sentence for p in result.properties if p.outcome not in (Outcome.NOT_ATTEMPTED, Outcome.NOT_CHECKED)
        ]
        if others:
            return f'the untouched stub is not "not attempted" in: {"; ".join(others)} (seed {seed})'
        return "" if result.points == 0 else f"the untouched stub earns {result.points:g} points (seed {seed})"

    def misdiagnosed(self, item: Specimen, seed: int, names: Collection[str]) -> str:
        """Why a wrong solution is not found wrong with just these diagnoses."""
        result = self.checked(item.obj, seed)
        if result.outcome in (Outcome.RIGHT, Outcome.NOT_ATTEMPTED, Outcome.NOT_CHECKED):
            return f"{item.kind} {item.name} is {result.outcome} with seed {seed}"
        got = [diagnosis.name for diagnosis in result.diagnoses]
        if set(got) == set(names):
            return ""
        wanted = ", ".join(names) or "nothing"
        return (
            f"{item.kind} {item.name} is diagnosed as {', '.join(got) or 'nothing'} and not as {wanted} "
            f"(seed {seed}: {first_problem(result)})"
        )

    def seed_dependent(self, item: Specimen) -> str:
        """Why the marks of a wrong solution depend on the seed: one passes by luck, or fails without it."""
        marks = {seed: [one.outcome for one in self.marked(item.obj, seed).properties] for seed in self.seeds}
        first = marks[self.seeds[0]]
        for seed in self.seeds:
            for sentence, here, there in zip(self.sentences, first, marks[seed], strict=True):
                if here is not there:
                    return (
                        f'{item.kind} {item.name}: "{sentence}" is {here} with seed {self.seeds[0]} and {there} with '
                        f"seed {seed}; a fixed case must decide it"
                    )
        return ""

    @property
    def sentences(self) -> list[str]:
        """The sentences of the properties."""
        return [item.sentence for item in self.exercise.properties]

    def differs_as_cell(self, item: Specimen) -> str:
        """Why a specimen, pasted into the exercise's cell, does not come out as it does in its file."""
        try:
            obj = as_cell(
                self.exercise, cell_source(self.exercise, item, self.sources.solution), f"{item.name} as a cell"
            )
        except Exception as error:
            return f"{item.kind} {item.name} does not run as a cell: {type(error).__name__}: {error}"
        cell, file = (signature(self.checked(obj, PUBLIC_SEED)) for obj in (obj, item.obj))
        return "" if cell == file else f"{item.kind} {item.name} comes out differently as a cell: {cell}, not {file}"

    # ------------------------------------------------------------ form

    def prove_form(self) -> None:
        """What needs no running: sizes, points, docstrings, and cases that are data and repeat themselves."""
        known, count = self.known, lambda problem: self.row.count("form", problem)
        for name, lines in self.sources.body_lines.items():
            count(f"{name} asks for {lines} lines, more than {MAX_BODY_LINES}" if lines > MAX_BODY_LINES else "")
        few = len(known.mutants) not in NUM_MUTANTS
        count(f"{len(known.mutants)} mutants; there should be {NUM_MUTANTS[0]} to {NUM_MUTANTS[-1]}" if few else "")
        count("" if known.unknown_bugs else "no unknown bug")
        count("" if known.alternates else "no alternate")
        mistakes = {item.mistake for item in known.variants}
        for item in known.mutants:
            count("" if item.text else f"mutant {item.name} has no docstring to be its diagnosis")
            count("" if item.name in mistakes else f"mutant {item.name} has no variant")
        count("; ".join(self.odd_cases()))

    def odd_cases(self) -> Iterator[str]:
        """Properties whose cases are not the same data for the same seed, here and at the other end of a socket."""
        for item in self.exercise.properties:
            for seed in self.seeds:
                first, second = (list(item.cases(random.Random(seed))) for _ in range(2))
                if not first:
                    yield f"{item.sentence!r} has no case with seed {seed}"
                elif not same(copied(first), copied(second)):
                    yield f"{item.sentence!r} draws other cases for the same seed {seed}"
                elif not same(copied(first), over_the_wire(first)):
                    yield f"{item.sentence!r} has cases that do not survive the wire (seed {seed})"


def over_the_wire(cases: list[Case]) -> Any:
    """Cases as they come out at the other end of a socket; None if they cannot be sent."""
    try:
        return decode(json.loads(json.dumps(encode(cases))))
    except (TypeError, ValueError):
        return None


def signature(result: CheckResult) -> tuple[object, ...]:
    """What two results have in common when the code under them behaves alike."""
    outcomes = tuple(str(item.outcome) for item in result.properties)
    return (*outcomes, *(diagnosis.name for diagnosis in result.diagnoses))


def first_problem(result: CheckResult) -> str:
    """The first property that is not right, in words."""
    for item in result.properties:
        if item.outcome is not Outcome.RIGHT:
            return f'"{item.sentence}" is {item.outcome}: {item.message} [{item.case_text[:200]}]'
    return "everything is right"
