"""The tools are real: they answer what is asked, and refuse what harms or makes no sense, in words."""

import math
import random
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tasks.tool_arithmetic import PAIRS, UNITS, ToolError, calculate, convert, number
from data.tasks.tool_pool import MEANINGS, Tool, draw_tools
from data.tasks.toolbox import BUSY, MAX_TEXT, NO_RESULTS, NO_ROWS, Passage, Toolbox, search, write_passages
from data.world.facts import draw_world

KINDS = ("town", "person")


@pytest.fixture
def box() -> Toolbox:
    rng = random.Random(3)
    world = draw_world(rng, {"town": 3, "person": 3}, held_out=False)
    tools = draw_tools(rng, MEANINGS, 1, KINDS)
    return Toolbox(world, tools, write_passages(rng, world, (), (), held_out=False), KINDS)


def named(box: Toolbox, meaning: str) -> Tool:
    return next(tool for tool in box.tools.values() if tool.meaning == meaning)


def call(box: Toolbox, meaning: str, **values: object) -> str:
    tool = named(box, meaning)
    return box.call(tool.name, tool.bind(**values))


@given(st.integers(-9999, 9999), st.integers(-9999, 9999), st.integers(1, 99))
def test_the_calculator_agrees_with_python(a: int, b: int, c: int) -> None:
    assert calculate(f"{a} + {b} * {c}") == str(a + b * c)
    assert calculate(f"({a} - {b}) * {c}") == str((a - b) * c)
    assert float(calculate(f"{a} / {c}")) == pytest.approx(a / c, abs=0.051)


@pytest.mark.parametrize(
    "formula",
    [
        "", "2 +", "1 / 0", "1 / (3 - 3)", "2 ** 9", "9 % 4", "a + 1", "__import__('os')", "(1).real", "True + 1",
        "1, 2", "'a' * 9", "1 if 1 else 2", "1e999", "1e308 * 10", "1e999 - 1e999", "9" * 5000, "(" * 300, "1j",
        "lambda: 1", "\x00",
    ],
)  # fmt: skip
def test_the_calculator_refuses_all_else(formula: str) -> None:
    with pytest.raises(ToolError):
        calculate(formula)


def test_numbers_are_whole_or_have_one_decimal() -> None:
    assert [number(value) for value in (3.0, 3.04, 3.06, -0.01, 1e5)] == ["3", "3", "3.1", "0", "100000"]


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (10, "km", "miles", "6.2"),
        (100, "metres", "feet", "328.1"),
        (70, "kg", "pounds", "154.3"),
        (100, "grams", "ounces", "3.5"),
        (90, "minutes", "hours", "1.5"),
        (100, "Celsius", "Fahrenheit", "212"),
        (-40, "Fahrenheit", "Celsius", "-40"),
        (3, "km", "metres", "3000"),
    ],
)
def test_conversions(value: float, source: str, target: str, expected: str) -> None:
    assert convert(value, source, target) == expected


@given(st.sampled_from(sorted(PAIRS)), st.integers(100, 9999))
def test_conversions_come_back(unit: str, value: int) -> None:
    there = float(convert(value, unit, PAIRS[unit]))
    # One decimal of the larger unit is that many of the smaller.
    slack = 0.05 * UNITS[PAIRS[unit]][1] / UNITS[unit][1] + 0.06
    assert float(convert(there, PAIRS[unit], unit)) == pytest.approx(value, abs=slack)


def test_conversions_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ToolError, match="cannot convert metres to hours"):
        convert(3, "metres", "hours")
    with pytest.raises(ToolError, match="did you mean metres"):
        convert(3, "meters", "feet")
    with pytest.raises(ToolError, match=r"no unit parsecs$"):
        convert(3, "parsecs", "feet")
    for value in (math.inf, math.nan, 10**400):
        with pytest.raises(ToolError, match="too large"):
            convert(value, "km", "miles")


def test_search_wants_all_the_words_and_puts_the_title_first() -> None:
    passages = [
        Passage("Mira Tolvan", (), "Mira Tolvan was born in Velmora. Velmora is where Mira lives."),
        Passage("Velmora", (), "Velmora has a mill."),
        Passage("Ena Tolvan", (), "Ena Tolvan makes rope."),
    ]
    assert [hit.title for hit in search(passages, "Velmora")] == ["Velmora", "Mira Tolvan"]
    assert [hit.title for hit in search(passages, "the mill of Velmora")] == ["Velmora"]
    assert [hit.title for hit in search(passages, "tolvan")] == ["Ena Tolvan", "Mira Tolvan"]
    assert [hit.title for hit in search(passages, "Velmora", top=1)] == ["Velmora"]
    assert search(passages, "Velmorra") == search(passages, "") == search(passages, "the") == []


def test_search_finds_what_the_passages_say(box: Toolbox) -> None:
    for passage in box.passages:
        assert passage.text in call(box, "search", query=passage.title)
    assert call(box, "search", query="Nobody Atall") == NO_RESULTS


def test_sql_reads_the_world(box: Toolbox) -> None:
    for town in box.world.by_kind("town"):
        statement = f"SELECT population, mayor FROM town WHERE name = '{town.name}'"
        expected = f"population: {town.facts['population']}, mayor: {town.facts['mayor']}"
        assert call(box, "sql", statement=statement) == expected
    assert call(box, "sql", statement="SELECT name FROM town WHERE population < 0") == NO_ROWS
    assert call(box, "sql", statement="SELECT count(*) AS n FROM person") == "n: 3"


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM town",
        "DROP TABLE town",
        "UPDATE town SET population = 1",
        "INSERT INTO town (name) VALUES ('x')",
        "CREATE TABLE other (a)",
        "ATTACH '/tmp/other.db' AS other",
        "VACUUM INTO '/tmp/other.db'",
        "PRAGMA writable_schema = 1",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('x')",
        "BEGIN",
        "SELECT 1; DELETE FROM town",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n",
        "SELECT * FROM person a, person b, person c, person d, person e, person f, person g, person h, person i, "
        "person j, person k, person l, person m WHERE a.birth_year + m.birth_year < 0",
        "SELECT randomblob(1000000000)",
        "SELECT height FROM town",
        "SELECT population FROM dish",
        "SELEC",
        "\x00",
        "SELECT '\ud800'",
    ],
)
def test_sql_refuses_in_words_and_goes_on(box: Toolbox, statement: str) -> None:
    assert call(box, "sql", statement=statement).startswith("Error: ")
    assert call(box, "sql", statement="SELECT count(*) AS n FROM town") == "n: 3"


def test_sql_says_which_column_is_missing(box: Toolbox) -> None:
    assert call(box, "sql", statement="SELECT height FROM town") == "Error: no such column: height"


def test_sql_results_are_short(box: Toolbox) -> None:
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i FROM n"
    assert call(box, "sql", statement=rows) == "i: 1\ni: 2\ni: 3\ni: 4\ni: 5"
    assert len(call(box, "sql", statement="SELECT hex(zeroblob(2000)) AS long")) == MAX_TEXT


def test_nothing_is_written_anywhere(box: Toolbox) -> None:
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        box.database.execute("ATTACH ':memory:' AS other")


def test_arguments_are_held_against_the_schema(box: Toolbox) -> None:
    tool = named(box, "convert")
    good = tool.bind(value=3, **{"from": "km", "to": "miles"})
    assert box.call(tool.name, good) == "1.9"
    value = tool.arguments["value"]
    assert box.call("no_such_tool", good) == "Error: no tool no_such_tool"
    assert box.call(tool.name, good | {value: "3"}) == f"Error: {value} must be a number"
    assert box.call(tool.name, good | {value: True}) == f"Error: {value} must be a number"
    assert box.call(tool.name, good | {"extra": 1}) == "Error: no argument extra"
    del good[value]
    assert box.call(tool.name, good) == f"Error: {value} is missing"


def test_a_tool_can_be_busy(box: Toolbox) -> None:
    box.busy = (0,)
    assert call(box, "calculate", expression="1 + 1") == BUSY
    assert call(box, "calculate", expression="1 + 1") == "2"


def test_a_tool_that_does_nothing_here_says_so(box: Toolbox) -> None:
    other = named(box, "other")
    values = {role: 1 if kind == "number" else "x" for role, kind in other.types.items()}
    assert box.call(other.name, other.bind(**values)) == "Error: this tool is out of order"
