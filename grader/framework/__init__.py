"""What a file of checks is written with, and what a check finds. A check file imports from here alone.

exercise.py says what a property and an exercise are; observe.py turns what the learner's code did into plain data, and
words.py puts values into sentences. outcome.py and results.py are what comes out, rendering.py shows it.
"""

from grader.framework.exercise import (
    MAX_CASE_TEXT,
    Case,
    Exercise,
    Observations,
    Prop,
    Property,
    describe_case,
    exercise_in,
    generator,
    properties_in,
)
from grader.framework.observe import outcome_of, plain, tensor_problem
from grader.framework.outcome import Diagnosis, Outcome, PropertyResult
from grader.framework.results import CheckResult
from grader.framework.words import expected_got, short, two_numbers, two_texts
from grader.usage import UsageError

__all__ = [
    "MAX_CASE_TEXT",
    "Case",
    "CheckResult",
    "Diagnosis",
    "Exercise",
    "Observations",
    "Outcome",
    "Prop",
    "Property",
    "PropertyResult",
    "UsageError",
    "describe_case",
    "exercise_in",
    "expected_got",
    "generator",
    "outcome_of",
    "plain",
    "properties_in",
    "short",
    "tensor_problem",
    "two_numbers",
    "two_texts",
]
