"""The grammar of tool calls accepts what the schemas allow, and nothing that a JSON parser or validator refuses."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.agent.automaton import Automaton, choice, one_of, optional, repeated, sequence, text
from tinyllm.agent.grammar import tool_calls, value
from tinyllm.errors import RequestError

NAMES = st.text(min_size=1, max_size=4)
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=6),
    "integer": st.integers(),
    "number": st.integers() | st.decimals(-1000, 1000, places=3).map(float),
    "boolean": st.booleans(),
    "null": st.none(),
}


def leaf(kind: str) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    return {"type": kind}, LEAVES[kind]


def array(inner: tuple[dict[str, Any], st.SearchStrategy[Any]]) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    schema, values = inner
    return {"type": "array", "items": schema}, st.lists(values, max_size=3)


@st.composite
def objects(draw: st.DrawFn, inner: Any) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    members = draw(st.dictionaries(NAMES, inner, max_size=3))
    required = [name for name in members if draw(st.booleans())]
    schema = {"type": "object", "properties": {name: part for name, (part, _) in members.items()}, "required": required}
    parts = {name: values if name in required else values | st.just(...) for name, (_, values) in members.items()}
    whole = st.fixed_dictionaries(parts).map(lambda found: {k: found[k] for k in parts if found[k] is not ...})
    return schema, whole


ENUMS = st.lists(st.text(max_size=3) | st.integers(), min_size=1, max_size=3).map(
    lambda listed: ({"enum": listed}, st.sampled_from(listed))
)
SCHEMAS = st.recursive(
    st.sampled_from(sorted(LEAVES)).map(leaf) | ENUMS, lambda inner: inner.map(array) | objects(inner), max_leaves=5
)


def written(found: Any) -> bytes:
    return json.dumps(found, ensure_ascii=False).encode("utf-8")


@given(st.data())
def test_a_value_of_the_schema_is_accepted(data: st.DataObject) -> None:
    schema, values = data.draw(SCHEMAS)
    grammar, found = Automaton(value(schema)), data.draw(values)
    jsonschema.validate(found, schema)
    whole = written(found)
    assert grammar.accepts(whole)
    if whole[:1] in (b'"', b"[", b"{"):  # a part of a number is a number
        assert not any(grammar.accepts(whole[:end]) for end in range(len(whole)))


@given(st.data())
def test_what_is_accepted_is_a_value_of_the_schema(data: st.DataObject) -> None:
    """Valid texts with a byte put in, left out or changed: some are still valid, and then the validator agrees."""
    schema, values = data.draw(SCHEMAS)
    grammar, whole = Automaton(value(schema)), bytearray(written(data.draw(values)))
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, max(0, len(whole) - 1)))
        whole[place : place + data.draw(st.integers(0, 1))] = data.draw(
            st.binary(max_size=1) | st.sampled_from([b'"', b"\\", b"0", b",", b" "])
        )
    if grammar.accepts(bytes(whole)):
        jsonschema.validate(json.loads(bytes(whole).decode("utf-8")), schema)


@given(st.data(), st.integers())
def test_wherever_one_goes_it_can_be_ended(data: st.DataObject, seed: int) -> None:
    """A walk at random, whose every step is allowed, comes to a valid text; no state is a dead end."""
    schema, _ = data.draw(SCHEMAS)
    grammar, rng, read = Automaton(value(schema)), Random(seed), bytearray()
    states = grammar.start
    while not grammar.complete(states):
        allowed = [byte for byte in range(256) if grammar.step(states, byte)]
        assert allowed
        ending = [byte for byte in allowed if byte in b'"]}' and len(read) > 40]
        read.append(rng.choice(ending or allowed))
        states = grammar.step(states, read[-1])
        if len(read) > 4000:
            return
    jsonschema.validate(json.loads(read.decode("utf-8")), schema)


def tool(name: str, **arguments: str) -> dict[str, Any]:
    properties = {argument: {"type": kind} for argument, kind in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [tool("search", query="string"), tool("search_old", text="string", top="integer"), tool("now")]


@pytest.mark.parametrize(
    ("call", "valid"),
    [
        ('{"name": "search", "arguments": {"query": "a \\"b\\" \\u00e9 é"}}', True),
        ('{"name": "search_old", "arguments": {"text": "", "top": -3}}', True),
        ('{"name": "now", "arguments": {}}', True),
        ('{"name": "search", "arguments": {}}', False),
        ('{"name": "search", "arguments": {"text": "x"}}', False),
        ('{"name": "search", "arguments": {"query": 3}}', False),
        ('{"name": "search_old", "arguments": {"text": "x", "top": 1.5}}', False),
        ('{"name": "search_old", "arguments": {"text": "x", "top": 01}}', False),
        ('{"name": "search_ol", "arguments": {"text": "x", "top": 1}}', False),
        ('{"name": "search", "arguments": {"query": "x", "top": 1}}', False),
        ('{"name": "search", "arguments": {"query": "x"}', False),
        ('{"name": "search", "arguments": {"query": "a\nb"}}', False),
        ('{"name": "now", "arguments": {}} ', False),
        ("", False),
    ],
)
def test_calls_are_those_of_the_listed_tools(call: str, valid: bool) -> None:
    assert tool_calls(TOOLS).accepts(f"\n{call}\n".encode()) == valid


@pytest.mark.parametrize(
    "broken", [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\x1f"]
)
def test_bytes_that_are_no_text_are_refused(broken: bytes) -> None:
    assert not tool_calls(TOOLS).accepts(b'\n{"name": "search", "arguments": {"query": "' + broken + b'"}}\n')


def test_what_cannot_be_held_to_is_named() -> None:
    with pytest.raises(RequestError, match="no tool is listed"):
        tool_calls([])
    with pytest.raises(RequestError, match="anyOf"):
        value({"anyOf": [{"type": "string"}]})
    with pytest.raises(RequestError, match="enum or a type"):
        tool_calls([tool("f", x="date")])


def test_parts_that_lead_back_do_not_lead_into_their_neighbors() -> None:
    """(a* | b)c? : the loop of the first part must not be entered from the second."""
    grammar = Automaton(sequence(choice(repeated(text("a")), one_of(b"b")), optional(text("c"))))
    accepted = {
        word
        for word in ("", "a", "aa", "b", "ab", "ba", "bb", "c", "aac", "bc", "cc")
        if grammar.accepts(word.encode())
    }
    assert accepted == {"", "a", "aa", "b", "c", "aac", "bc"}


def test_two_ways_may_begin_with_the_same_byte() -> None:
    grammar = Automaton(sequence(repeated(text("a")), choice(text("ab"), text("ac"))))
    accepted = {word for word in ("ab", "ac", "aab", "aaac", "b", "a", "aa", "abac") if grammar.accepts(word.encode())}
    assert accepted == {"ab", "ac", "aab", "aaac"}
    assert Automaton(sequence(repeated(text("a")), text("ab"))).accepts(b"aab")
