"""One spelling, American, in code, documents and lessons; what the models have read and say keeps its own."""

from __future__ import annotations

import re
import subprocess

import pytest

from tinyllm.paths import project_root

#: The made-up country spells as it likes: its texts are what the shipped models have learned.
OF_THE_MODELS = ("data/world", "data/tasks", "data/encyclopaedia", "data/evaluation", "data/checkpoints", "tests/data")
SUFFIXES = (".py", ".md", ".toml", ".js", ".mjs", ".css", ".yml", ".cff")
BRITISH = re.compile(
    r"(?:normal|initial|recogn|organ|optim|serial|quant|summar|general|token|special|util|minim|maxim|visual|synchron)"
    r"is(?:e|es|ed|er|ers|ing|ation)(?![a-z])"
    r"|(?:behavi|col|neighb|fav|hon|lab|flav|harb|rig)our"
    r"|(?:label|model|travel|signal|level|total)(?:led(?!by)|ling)"
    r"|centre|licence|artefact|catalogue|judgement|misspelt|learnt|whilst|amongst",
    re.IGNORECASE,
)


def british(text: str) -> list[str]:
    """The British spellings in a text, each with what stands around it."""
    return [text[max(0, found.start() - 20) : found.end() + 20] for found in BRITISH.finditer(text)]


def test_one_spelling() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=project_root(), capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name.endswith(SUFFIXES)]
    names = [name for name in names if not name.startswith(OF_THE_MODELS) and name != "tests/repo/test_spelling.py"]
    assert len(names) > 300
    texts = {
        name: (project_root() / name).read_text(encoding="utf-8") for name in names if (project_root() / name).is_file()
    }
    assert {name: found for name, text in texts.items() if (found := british(text))} == {}


@pytest.mark.parametrize("text", ["a colour", "Normalised", "neighbouring", "labelled", "the centre", "tokenisation"])
def test_british_is_found(text: str) -> None:
    assert british(text)


@pytest.mark.parametrize(
    "text", ["aria-labelledby", "a specialist", "minimal", "our own", "hour", "cancelled", "modeling"]
)
def test_american_is_not(text: str) -> None:
    assert not british(text)
