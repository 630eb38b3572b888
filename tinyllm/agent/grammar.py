"""What may stand in a `<tool_call>` block: JSON that names a listed tool and gives it arguments of the right types.

The JSON is written as `json.dumps` and the chat templates of Qwen write it: a blank behind colon and comma, properties
in the schema's order. One way to write a call is enough for a model that is held to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tinyllm.agent.automaton import Automaton, Part, choice, one_of, optional, repeated, sequence, text
from tinyllm.errors import RequestError

Schema = Mapping[str, Any]

DIGIT, HEX_DIGIT = one_of(b"0123456789"), one_of(b"0123456789abcdefABCDEF")
QUOTE, BACKSLASH = 0x22, 0x5C
#: UTF-8 of a character in pieces (RFC 3629, section 4): half a character, or one byte too many, is no text.
MORE = one_of(range(0x80, 0xC0))
CHARACTER = choice(
    one_of(byte for byte in range(0x20, 0x80) if byte not in (QUOTE, BACKSLASH)),
    sequence(one_of(range(0xC2, 0xE0)), MORE),
    sequence(one_of([0xE0]), one_of(range(0xA0, 0xC0)), MORE),
    sequence(one_of([*range(0xE1, 0xED), 0xEE, 0xEF]), MORE, MORE),
    sequence(one_of([0xED]), one_of(range(0x80, 0xA0)), MORE),
    sequence(one_of([0xF0]), one_of(range(0x90, 0xC0)), MORE, MORE),
    sequence(one_of(range(0xF1, 0xF4)), MORE, MORE, MORE),
    sequence(one_of([0xF4]), one_of(range(0x80, 0x90)), MORE, MORE),
)
ESCAPED = sequence(
    text("\\"), choice(one_of(b'"\\/bfnrt'), sequence(text("u"), HEX_DIGIT, HEX_DIGIT, HEX_DIGIT, HEX_DIGIT))
)
STRING = sequence(text('"'), repeated(choice(CHARACTER, ESCAPED)), text('"'))
INTEGER = sequence(optional(text("-")), choice(text("0"), sequence(one_of(b"123456789"), repeated(DIGIT))))
NUMBER = sequence(INTEGER, optional(sequence(text("."), DIGIT, repeated(DIGIT))))
BASIC = {
    "string": STRING,
    "integer": INTEGER,
    "number": NUMBER,
    "boolean": choice(text("true"), text("false")),
    "null": text("null"),
}


def tool_calls(tools: Sequence[Schema]) -> Automaton:
    """What may stand between `<tool_call>` and `</tool_call>`.

    Args:
        tools: the functions that may be called, as a chat template takes them.

    Raises:
        RequestError: there are none, or a schema asks for what is not supported here.
    """
    if not tools:
        raise RequestError("no tool is listed, so no call can be valid; list one or leave the grammar out")
    return Automaton(sequence(text("\n"), choice(*(tool_call(tool["function"]) for tool in tools)), text("\n")))


def tool_call(function: Schema) -> Part:
    """One call of one function."""
    name, parameters = literal(function["name"]), value(function.get("parameters", {"type": "object"}))
    return sequence(text('{"name": '), name, text(', "arguments": '), parameters, text("}"))


def literal(constant: Any) -> Part:
    """One JSON value and no other."""
    return text(json.dumps(constant, ensure_ascii=False))


def value(schema: Schema) -> Part:
    """Any value that a JSON schema allows.

    Raises:
        RequestError: the schema has a type that is not supported.
    """
    if "enum" in schema:
        return choice(*map(literal, schema["enum"]))
    kind = schema.get("type")
    if kind == "object":
        return json_object(schema.get("properties", {}), schema.get("required", ()))
    if kind == "array":
        item = value(schema.get("items", {}))
        items = sequence(item, repeated(sequence(text(", "), item)))
        return sequence(text("["), optional(items), text("]"))
    if kind not in BASIC:
        known = ", ".join([*BASIC, "object", "array"])
        raise RequestError(f"cannot hold a value to the schema {schema!r:.100}: give it an enum or a type of {known}")
    return BASIC[kind]


def json_object(properties: Mapping[str, Schema], required: Sequence[str]) -> Part:
    """An object with these properties in this order; those that are not required may be left out."""
    members = {name: sequence(literal(name), text(": "), value(schema)) for name, schema in properties.items()}

    def build(automaton: Automaton, start: int) -> int:
        # Behind each property, a comma is due where one was written, so the two cases are states of their own.
        none, some = text("{")(automaton, start), automaton.new_state()
        for name, member in members.items():
            bare, written = automaton.new_state(), automaton.new_state()
            automaton.link(member(automaton, none), written)
            automaton.link(member(automaton, text(", ")(automaton, some)), written)
            if name not in required:
                automaton.link(none, bare)
                automaton.link(some, written)
            none, some = bare, written
        end = automaton.new_state()
        automaton.link(none, end)
        automaton.link(some, end)
        return text("}")(automaton, end)

    return build
