"""Mutations: each operator makes what it should, and what a check misses is found, whoever runs it and however."""

from __future__ import annotations

import io
import os
import textwrap
from datetime import date
from pathlib import Path

import pytest
from rich.console import Console
from small_exercises import PURSE, PURSE_CELL

from grader.checks import exercises, find_exercise
from grader.mutation.equivalents import Key, read
from grader.mutation.gate import MUTATION_SEEDS
from grader.mutation.mutate import REFERENCE, Mutation, Target, marked_lines, mutations, targets
from grader.mutation.pool import tried_by_workers
from grader.mutation.run import MutationReport, Sample, Subject, report_on, run_mutation
from grader.mutation.trial import Job, Trial, tried
from grader.usage import UsageError

EVERYTHING = Sample()


@pytest.fixture(autouse=True)
def importable_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import the small exercises by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def target(text: str, name: str = REFERENCE) -> Target:
    """An answer that may be changed everywhere."""
    return Target(name, text, frozenset(range(1, len(text.splitlines()) + 1)))


def made(body: str, arguments: str = "x, y, n, k, v") -> list[Mutation]:
    """The mutations of a function with this body."""
    return mutations(target(f"def f({arguments}):\n" + textwrap.indent(body, "    ") + "\n"))


def purse(changed: str = PURSE_CELL, listed: dict[Key, str] | None = None) -> Subject:
    """The made-up exercise, with this cell as its reference."""
    return Subject.made(PURSE, [target(changed)], listed or {}, EVERYTHING)


def reported(subject: Subject, jobs: int = 1) -> MutationReport:
    return report_on([subject], (1, 2), jobs)


# ---------------------------------------------------------------- what is made


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("return x < y", "x <= y; x > y; x >= y; x == y; x != y"),
        ("return x == y", "x != y; x < y; x >= y"),
        ("return x in y", "x not in y"),
        ("return x is None", "x is not None"),
        ("return x[n] > 1", "x[n] >= 1; x[n] > 2"),
        ("return x - y", "x + y; y - x; x; y"),
        ("return x // y", "x / y; x * y; x % y; y // x; x; y"),
        ("return x * (y + n)", "x + (y + n); x / (y + n); x * (y - n); x * y; y + n; x"),
        ("return x - y % n", "y % n - x; x - y // n; x - n % y"),
        ("return x & y", "x | y; x; y"),
        ("return -(-x // y)", "-x // y; -(x // y)"),
        ("return not x", "x"),
        ("return x and y and n", "x or y or n; y and n; x and n; x and y"),
        ("return (x or y) and n", "(x and y) and n; (x or y) or n; x and n; y and n; x or y"),
        ("return x if n else y", "x; y; x if not n else y"),
        ("return [i for i in x if i]", "[i for i in x if True]; [i for i in x if not i]"),
        ("return 2", "3; 1"),
        ("return -1", "0; -2"),
        ("return 0.5", "1.5; -0.5"),
        ("return True", "False"),
        ('return float("-inf")', '0.0; -1e4; float("inf")'),
        ("return x[n:]", "x[n + 1:]; x[n - 1:]; x[:]; x"),
        ("return x[:-1]", "x[:-2]; x[:0]; x[:]; x"),
        ("return x[:]", "x"),
        ("return x[:, None]", "x[None, :]"),
        ("return range(x, y)", "range(x + 1, y); range(x - 1, y); range(x, y + 1); range(x, y - 1); range(y, x)"),
        ("return g(x, y, n)", "g(y, x, n); g(x, n, y)"),
        ("return g(x, mask=y, other=0)", "g(x, other=0); g(x, mask=y); g(x, mask=y, other=1)"),
        ("return g(mask=x)", "g()"),
        ("return g(mask=x, other=y)", "g(other=y); g(mask=x)"),
        ("return zip(x, y, strict=False)", "zip(y, x, strict=False); zip(x, y, strict=True)"),
        ("return x.sum(dim=-1)", "x.sum(dim=0); x.sum(dim=-2); x.sum(); x.max(dim=-1)"),
        ("return tl.max(x, 1)", "tl.max(x, 0); tl.max(x, 2); tl.min(x, 1); x"),
        ("return x.clone().contiguous()", "x.clone(); x.contiguous()"),
        ("return x.to(y.dtype)", "x"),
        ("return x.clamp(min=0)", "x; x.clamp(); x.clamp(min=1)"),
        ("return torch.float32", "torch.float16; torch.bfloat16"),
        ("return x.to(tl.int64)", "x.to(tl.int32); x"),
        ("return x.to(torch.float16)", "x.to(torch.float32); x.to(torch.bfloat16)"),
        ("return list(x)", "x"),
        ("return x.copy()", "x"),
        ("return reversed(x)", "x"),
        ("return min(x, y)", "max(x, y); x; y"),
        ("return tl.maximum(x, y)", "tl.minimum(x, y); x; y"),
        ("return tl.where(x, y, n)", "tl.where(y, x, n); tl.where(x, n, y); y; n"),
        ("return tl.exp2(x)", "tl.exp(x); x"),
        ("return torch.log(x)", "torch.log2(x); x"),
        ("return x.popleft()", "x.pop()"),
        ("return k + n", "v + n"),
        ("return k, v", "v, k; v, v; k, k"),
        ("return f'{x + 1}'", ""),
    ],
)
def test_operators_of_expressions(body: str, wanted: str) -> None:
    found = {item.after.removeprefix("return ") for item in made(body) if item.after}
    assert set(wanted.split("; ")) - {""} <= found
    if not wanted:
        assert found == {"pass"}


@pytest.mark.parametrize(
    ("body", "before", "after"),
    [
        ("x.go()\ny.go()", "x.go()", ""),
        ("x = x + 1\nreturn x", "x = x + 1", ""),
        ("for i in x:\n    y.go(i)\nreturn y", "    y.go(i)", "    pass"),
        ("if x:\n    raise ValueError\nreturn y", "if x:\n    raise ValueError", ""),
        ("if x:\n    y.go()\nreturn y", "if x:", "if True:"),
        ("if x:\n    return n\nelse:\n    y.go()\nreturn y", "if x:", "if False:"),
        ("if x:\n    y.go()\nreturn y", "if x:", "if not x:"),
        ("if x:\n    y = 1\nelif n:\n    y = 2\nreturn y", "elif n:\n    y = 2", ""),
        ("while x or y:\n    x.go()\nreturn x", "while x or y:", "while not (x or y):"),
        ("if x:\n    return n\ny.go()\nreturn y", "if x:\n    return n\ny.go()", "y.go()\nif x:\n    return n"),
        ("for i in x:\n    if i:\n        break\n    y.go()\nreturn y", "break", "continue"),
        ("for i in x:\n    if i:\n        continue\n    y.go()\nreturn y", "continue", "break"),
        ("n += x\nreturn n", "n += x", "n -= x"),
        ("n += x\nreturn n", "n += x", "n = x"),
        ("x.go()\ny.go()", "y.go()", ""),
        ("x.go()\nif n:\n    y.go()\nx.go()", "if n:", "return\nif n:"),
        ("x, y = g(n)\nreturn x - y", "x, y = g(n)", "y, x = g(n)"),
        ("raise_it = x\nassert raise_it, 'words'\nreturn n", "assert raise_it, 'words'", ""),
    ],
)
def test_operators_of_statements(body: str, before: str, after: str) -> None:
    found = {(item.before, item.after) for item in made(body)}
    assert (textwrap.dedent(before), textwrap.dedent(after)) in found


def test_a_name_is_never_left_unbound() -> None:
    assert not any(item.after == "" and item.before.startswith("z") for item in made("z = x\nreturn z"))
    assert any(item.before == "z = y" and item.after == "" for item in made("z = x\nz = y\nreturn z"))


def test_docstrings_annotations_and_the_words_of_errors_stay() -> None:
    body = '"""Words, 1 and 2."""\nz: list[1] = x\nif y:\n    raise ValueError(f"{x} of {1 + 2}")\nreturn z'
    changed = "".join(item.after for item in made(body))
    assert '"""' not in changed
    assert "list[2]" not in changed
    assert "1 - 2" not in changed


def test_each_mutation_is_other_code_and_other_text() -> None:
    found = made("if x == 0:\n    return 1\nreturn [n for n in y[1:]]")
    assert len({item.text for item in found}) == len(found)
    assert len({item.key for item in found}) == len(found)
    for item in found:
        compile(item.text, "mutation", "exec")


def test_mutations_of_the_same_code_are_run_once() -> None:
    first, second = (item for item in made("x.go()\ny.go()") if item.before == "y.go()")
    assert first.same_as is None or second.same_as is None
    assert {first.same_as, second.same_as} - {None} <= {first, second}


def test_equal_lines_of_a_function_are_told_apart() -> None:
    found = [item for item in made("x.go(1)\ny.go()\nx.go(1)\nreturn y") if item.after == "x.go(2)"]
    assert [(item.nth, item.line) for item in found] == [(1, 2), (2, 4)]


def test_kernels_are_mutated_from_their_text() -> None:
    text = "@triton.jit\ndef f(x_ptr, n: tl.constexpr):\n    tl.store(x_ptr, tl.load(x_ptr, mask=n < 4, other=0.0))\n"
    found = {item.after for item in mutations(target(text))}
    assert "tl.store(x_ptr, tl.load(x_ptr, other=0.0))" in found
    assert "tl.store(x_ptr, tl.load(x_ptr, mask=n < 4))" in found
    assert all(item.text.startswith("@triton.jit\ndef f(") for item in mutations(target(text)))


def test_columns_after_other_letters_are_right() -> None:
    found = {item.after for item in made('y = "äöü→"; return x < n')}
    assert 'y = "äöü→"; return x <= n' in found


def test_only_what_learners_write_of_the_reference_is_mutated() -> None:
    exercise = find_exercise("BlockAllocator")
    reference, *alternates = targets(exercise)
    assert {item.function for item in mutations(reference)} == {"allocate", "share", "free"}
    assert len(alternates) >= 2
    assert "num_free" in {item.function for item in mutations(alternates[0])}
    assert list(marked_lines("a\n### BEGIN SOLUTION\nb\nc\n### END SOLUTION\nd")) == [2, 3]


@pytest.mark.parametrize("name", ["store_kv", "paged_prefill"])
def test_helpers_with_kernels_are_mutated(name: str) -> None:
    for item in targets(find_exercise(name)):
        assert len(mutations(item)) > 50


# ---------------------------------------------------------------- what comes of it


def test_what_no_property_catches_escapes() -> None:
    report = reported(purse())
    assert not report
    (row,) = report.rows
    found = {(item.mutation.before, item.mutation.after) for item in row.escapes}
    assert ("self.left += count", "self.left = count") in found  # only an empty purse is ever given anything
    assert ("if count > self.left:", "if count >= self.left:") not in found
    assert row.counts["mutations"] == row.counts["caught"] + row.counts["escaped"] > 15
    assert all(item.trial.missed == (1, 2) for item in row.escapes)
    words = "\n".join(report.lines())
    assert "Purse: reference, in give, line 11 of the cell\n    - self.left += count\n    + self.left = count" in words


def test_a_listed_equivalent_is_accepted_and_the_rest_is_not() -> None:
    every = {item.mutation.key for item in reported(purse()).rows[0].escapes}
    assert reported(purse(listed=dict.fromkeys(every, "a reason")))
    one = sorted(every)[0]
    report = reported(purse(listed={one: "a reason"}))
    assert report.rows[0].counts["equivalent"] == 1
    assert report.rows[0].counts["escaped"] == len(every) - 1


def test_a_stale_equivalent_is_refused() -> None:
    gone: Key = (REFERENCE, "take", "self.left -= coins", "self.left += coins", 1)
    caught: Key = (REFERENCE, "take", "if count > self.left:", "if count >= self.left:", 1)
    problems = reported(purse(listed={gone: "a", caught: "b"})).rows[0].problems
    assert any("fits no mutation any more" in item and "- self.left -= coins" in item for item in problems)
    assert any("an equivalent that is caught" in item and "+ if count >= self.left:" in item for item in problems)
    assert len(problems) == 2


def test_an_equivalent_that_is_slow_is_not_stale() -> None:
    slow = PURSE_CELL.replace("self.left = size", "self.left = size\n        __import__('time').sleep(0 * 5)")
    before = "__import__('time').sleep(0 * 5)"
    key: Key = (REFERENCE, "__init__", before, before.replace("*", "+"), 1)
    subject = purse(slow, {key: "speed alone"})
    subject.mutations = [item for item in subject.mutations if item.key == key]
    assert reported(subject)
    subject.reasons.clear()
    assert reported(subject).rows[0].counts["caught"] == 1


def test_a_right_answer_that_is_not_right_is_told() -> None:
    report = reported(purse(PURSE_CELL.replace("+= count", "+= 0")))
    assert not report
    assert "reference is not right itself: what is given back" in report.rows[0].problems[0]


def test_nothing_tried_is_no_success() -> None:
    assert not MutationReport(())
    assert not report_on([Subject.made(PURSE, [], {}, EVERYTHING)], (1,), 1)


@pytest.mark.parametrize(
    "line",
    [
        "while True: pass",
        "sum(range(10**15))",  # hears no alarm
        "self.left = [0] * 10**11",
        "kept = []\n        while True: kept.append(bytes(10**7))",
        "import os; os._exit(0)",
        "import ctypes; ctypes.string_at(0)",
    ],
    ids=["endless", "endless in C", "memory", "memory in steps", "exit", "crash"],
)
def test_what_hangs_or_dies_or_eats_memory_is_caught_and_survived(line: str) -> None:
    wild = PURSE_CELL.replace("self.left -= count", line)
    jobs = [Job(PURSE, text, (1, 2)) for text in (wild, PURSE_CELL)]
    trials = dict(tried_by_workers(jobs, 1))
    assert trials[0].caught
    assert trials[1] == Trial((1, 2), "")


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    assert reported(purse(), jobs=1).as_json() == reported(purse(), jobs=3).as_json()


def test_equal_cases_are_driven_once_for_all_seeds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = PURSE_CELL.replace("self.left = size", f"self.left = size; open({str(log)!r}, 'a').write('x')")
    assert tried(Job(PURSE, text, (1, 2, 3))) == Trial((1, 2, 3), "")
    assert log.read_text() == "xxx"  # two cases and one


def test_the_table_and_the_words_show_what_escaped() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(reported(purse()).table())
    text = console.export_text()
    assert "mutations" in text
    assert "Purse" in text


def test_a_sample_is_a_part_and_all_parts_are_everything() -> None:
    found = made("return [n + 1 for n in x[1:] if n < 3]")
    parts = [[item for item in found if item in Sample(number, 4)] for number in range(1, 5)]
    assert sum(map(len, parts)) == len(found)
    assert Sample.parse("3/4") == Sample(3, 4)
    for wrong in ("0/4", "5/4", "3", "a/b"):
        with pytest.raises(UsageError, match="3/40"):
            Sample.parse(wrong)


# ---------------------------------------------------------------- the file of equivalents

ENTRY = 'target = "reference"\nfunction = "f"\nbefore = "a"\nafter = ["b", "c"]\n'


def test_equivalents_are_read(tmp_path: Path) -> None:
    path = tmp_path / "Purse.toml"
    assert read(path) == {}
    path.write_text(f'[[equivalent]]\n{ENTRY}nth = 2\nreason = "no difference"\n', encoding="utf-8")
    assert read(path) == {("reference", "f", "a", after, 2): "no difference" for after in ("b", "c")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[equivalent]\n", "should be a list"),
        ("[[other]]\n", "should be a list"),
        (f"[[equivalent]]\n{ENTRY}", "entry 1 needs"),
        (f'[[equivalent]]\n{ENTRY}reason = " "\n', "entry 1 needs"),
        (f'[[equivalent]]\n{ENTRY}reason = "r"\nline = 3\n', "line"),
        (f'[[equivalent]]\n{ENTRY}reason = "r"\n[[equivalent]]\n{ENTRY}reason = "r"\n', "twice"),
    ],
)
def test_a_file_of_equivalents_that_is_none_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "Purse.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        read(path)


# ---------------------------------------------------------------- the course's exercises

PARTS = 60
KERNELS = [name for name, item in exercises().items() if item.in_triton]


def rotating(count: int = PARTS) -> str:
    """The part of the day; in CI always the same."""
    day = 0 if os.environ.get("CI", "").lower() in ("1", "true") else date.today().toordinal()
    return f"{day % count + 1}/{count}"


def told(report: MutationReport, command: str) -> str:
    return "\n".join([*report.lines(), f"Again: {command}"])


def test_a_sample_of_the_mutations_is_caught() -> None:
    names = [name for name in exercises() if name not in KERNELS]
    report = run_mutation(names, MUTATION_SEEDS, sample=Sample.parse(rotating()))
    assert not any(row.escapes or row.problems for row in report.rows), told(
        report, f"grader gate --mutate --sample {rotating()} {' '.join(names)}"
    )


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.needs("triton")] if name in KERNELS else []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in exercises()])
def test_every_mutation_is_caught(name: str) -> None:
    report = run_mutation([name], MUTATION_SEEDS)
    assert report, told(report, f"grader gate --mutate {name}")
