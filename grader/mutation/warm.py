"""Imported once by the process that workers are forked from: with it comes everything that trying an answer needs."""

from grader.checks import exercises
from grader.mutation import pool
from grader.running import reference_parts

__all__ = ["pool"]

exercises()
reference_parts()
