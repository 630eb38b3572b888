"""Which control tokens of a rendered conversation the template wrote, and which come from a caller's text.

A *control token* is one that `tokenizer.json` lists under `added_tokens`, whether flagged as special or not: Qwen3's
`<|im_end|>` ends a turn, and its `</tool_response>` ends what a tool said, though it is not flagged. (Runs of white
space that are no special tokens are text.) The rule:

- A control token in the prompt stands where the template wrote it, from its own text or from a named token.
- Where a content, a tool's definition, a call or a result spells one, wholly or in part, the letters stay letters.
- `role` is no text of the caller: it is one of a few known words, and templates build tokens of it. A template that
  writes both ends of a token around some other word of the caller's made that token itself.
- What cannot be decided is refused.

`transformers` has a rule much like it for `apply_chat_template(..., sanitize_control_tokens=True)`, where marks in the
contents can change what a template renders. Without that option it makes a token of whatever is spelled.

The rendered text does not tell the two apart. So the conversation is rendered once more in disguise: the characters
with which control tokens begin and end are exchanged, in the caller's strings only, for others of which nobody makes
use. Where such a character of the first text is another in the second, the caller wrote it. The prompt is always made
of the first rendering, in which every string was as the caller gave it.

A template may look into a content (`'</think>' in content`) and then do something else with the disguised one. In a
second try, therefore, what it looks for is disguised as well. If it still does something else, the control tokens of
the renderings are compared: none was forged if they are the same, one after the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from string import ascii_uppercase
from typing import Any

from jinja2 import nodes

from tinyllm.errors import RequestError
from tinyllm.model.chat_template import ChatTemplate

Span = tuple[int, int]
#: Methods and filters that look for their arguments in a string; the second argument of `replace` is written instead.
LOOKING = {"count", "removeprefix", "removesuffix", "strip", "lstrip", "rstrip", "replace", "trim"}
LOOKING |= {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "find", "rfind", "index", "rindex"}


def forged_spans(
    template: ChatTemplate, given: Mapping[str, Any], rendered: str, control_tokens: Sequence[str]
) -> list[Span]:
    """Where `rendered` spells control tokens that are, wholly or in part, the caller's text.

    Args:
        template: what rendered it.
        given: what it was rendered from, as `template_data` gives it.
        rendered: the text.
        control_tokens: the text of each.

    Returns:
        The places from left to right, apart from each other.

    Raises:
        RequestError: it cannot be told who wrote a control token.
    """
    found = occurrences(rendered, control_tokens)
    ends = {token[0] for token in control_tokens} | {token[-1] for token in control_tokens}
    texts = json.dumps(without_roles(given), ensure_ascii=False, default=str)
    if not found or ends.isdisjoint(texts):
        return []
    stand_ins = unused_characters("".join([texts, template.source, rendered, *control_tokens]))
    table = {ord(character): next(stand_ins) for character in sorted(ends)}
    disguised = disguise(given, table)
    renderings = []
    for looks_for_disguised in (False, True):
        try:
            other = template.render(disguised, disguise_lookups(template, table) if looks_for_disguised else None)
        except RequestError:
            continue
        if len(other) == len(rendered) and rendered.translate(table) == other.translate(table):
            forged = [span for span in found if rendered[slice(*span)] != other[slice(*span)]]
            return merge(forged)
        renderings.append(other)
    spelled = spelling(rendered, control_tokens)
    if any(spelling(other, control_tokens) == spelled for other in renderings):
        return []
    raise RequestError(
        "a message, or a tool, spells a control token of this model, and the chat template does something else with it "
        f"than with other text, so that nobody can tell which of {', '.join(dict.fromkeys(spelled))} in the prompt it "
        "wrote itself; take these out of the messages"
    )


def occurrences(text: str, tokens: Sequence[str]) -> list[Span]:
    """Every place where `text` spells a token, overlapping ones too; the longest that begins there."""
    pattern = one_of(tuple(tokens))
    places, start = [], 0
    while match := pattern.search(text, start):
        places.append(match.span())
        start = match.start() + 1
    return places


def spelling(text: str, tokens: Sequence[str]) -> list[str]:
    """The tokens that `text` spells, one after the other."""
    return one_of(tuple(tokens)).findall(text)


@lru_cache(maxsize=8)
def one_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """A regular expression for any of the tokens; a longer one comes before those that it begins with."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")


def merge(spans: Sequence[Span]) -> list[Span]:
    """The same places, with those that overlap made one; `spans` are in order."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def without_roles(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` without the roles of the messages: what a caller is free to write."""
    return {**given, "messages": [{k: v for k, v in message.items() if k != "role"} for message in given["messages"]]}


def disguise(given: Mapping[str, Any], table: Mapping[int, str]) -> dict[str, Any]:
    """`given` with the characters of `table` exchanged in each string that a caller is free to write."""
    changed: dict[str, Any] = map_strings(without_roles(given), lambda text: text.translate(table))
    for message, original in zip(changed["messages"], given["messages"], strict=True):
        message["role"] = original["role"]
    return changed


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of nested lists and mappings in which every string, keys too, went through `change`."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_strings(item, change) for item in value]
    return value


def unused_characters(text: str) -> Iterator[str]:
    """Characters that `text` does not hold; first signs and letters, which JSON and `repr` leave as they are."""
    return (c for c in [*"~^`@$%&*;#?!+=", *ascii_uppercase, *map(chr, range(0xE000, 0xF900))] if c not in text)


def disguise_lookups(template: ChatTemplate, table: Mapping[int, str]) -> nodes.Template:
    """The template with the strings disguised that it looks for: compared with, searched, cut off or replaced."""
    tree = template.environment.parse(template.source)
    names = constant_names(tree) | template.variables

    def change(node: nodes.Expr) -> nodes.Expr:
        if isinstance(node, nodes.Name) and node.name in names:
            return nodes.Const(names[node.name].translate(table))
        if isinstance(node, nodes.Const) and isinstance(node.value, str):
            return nodes.Const(node.value.translate(table))
        if isinstance(node, (nodes.List, nodes.Tuple)):
            node.items = [change(item) for item in node.items]
        if isinstance(node, nodes.Add):
            node.left, node.right = change(node.left), change(node.right)
        return node

    for comparison in tree.find_all(nodes.Compare):
        comparison.expr = change(comparison.expr)
        for operand in comparison.ops:
            operand.expr = change(operand.expr)
    for test in tree.find_all(nodes.Test):
        test.args = [change(argument) for argument in test.args]
    calls: list[nodes.Call | nodes.Filter] = [*tree.find_all(nodes.Call), *tree.find_all(nodes.Filter)]
    for call in calls:
        looks = call.name if isinstance(call, nodes.Filter) else getattr(call.node, "attr", None)
        if looks in LOOKING and call.args:
            last = 1 if looks == "replace" else len(call.args)
            call.args = [*map(change, call.args[:last]), *call.args[last:]]
    return tree


def constant_names(tree: nodes.Template) -> dict[str, str]:
    """The variables that a template sets once, to a string that is written out."""
    targets = [node.target for node in tree.find_all(nodes.Assign)]
    names = [target.name for target in targets if isinstance(target, nodes.Name)]
    return {
        node.target.name: node.node.value
        for node in tree.find_all(nodes.Assign)
        if isinstance(node.target, nodes.Name)
        and names.count(node.target.name) == 1
        and isinstance(node.node, nodes.Const)
        and isinstance(node.node.value, str)
    }
