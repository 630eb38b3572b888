"""`{{#number benchmarks/results/x.json:key.of.value | .1f}}`: a measured value, read from the committed result.

Each value links to a note at the end of the page that says where and when it was measured.
"""

from __future__ import annotations

import html
import json
from typing import Any

from book.preprocessor.context import Context
from book.preprocessor.faults import FaultError

#: A result without these cannot be judged by a reader, so it is not quoted.
REQUIRED = ("machine", "versions", "seed", "date")


def number(args: str, context: Context) -> str:
    """The value under a dotted key, formatted by an optional format specification."""
    target, _, spec = (piece.strip() for piece in args.partition("|"))
    path, colon, key = target.partition(":")
    if not colon or not key:
        raise FaultError(f"number {args!r} names no key; write path.json:key, or path.json:key.of.value | .1f")
    result = load(path, context)
    value = look_up(result, key, path)
    if isinstance(value, (dict, list)) or value is None:
        raise FaultError(f"{key} in {path} is not a number or a text but {type(value).__name__}")
    try:
        shown = format(value, spec)
    except (ValueError, TypeError) as error:
        raise FaultError(f"format {spec!r} does not fit {value!r} ({error})") from None
    words = context.measured.setdefault(path, origin(result))
    place = f"{context.slug}-measured-{list(context.measured).index(path) + 1}"
    title = html.escape(f"Measured on {words}", quote=True)
    return f'<a class="measured" href="#{place}" title="{title}">{html.escape(shown)}</a>'


def origin(result: dict[str, Any]) -> str:
    """Date and machine of a result, in words."""
    machine = result["machine"]
    cores = machine.get("cpu_cores")
    pieces = [
        f"{machine['cpu']}, {cores} cores" if cores else machine["cpu"],
        machine.get("gpu"),
        machine.get("system"),
        *(f"{name} {version}" for name, version in result["versions"].items()),
    ]
    return f"{result['date']}: {', '.join(piece for piece in pieces if piece)}"


def measured_note(context: Context) -> str:
    """The list of the results that a chapter quotes; empty where it quotes none."""
    if not context.measured:
        return ""
    rows = "".join(
        f'<li id="{context.slug}-measured-{place}"><code>{html.escape(path)}</code>, {html.escape(words)}</li>'
        for place, (path, words) in enumerate(context.measured.items(), start=1)
    )
    return f'\n\n<div class="measured-note"><p>Where the numbers of this page were measured:</p><ol>{rows}</ol></div>\n'


def load(path: str, context: Context) -> dict[str, Any]:
    """A result file.

    Raises:
        FaultError: it is missing, is no JSON object, or does not say on what machine and when it was measured.
    """
    try:
        result = json.loads(context.file(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise FaultError(f"{path} is not valid JSON: {error}") from None
    missing = [key for key in REQUIRED if not isinstance(result, dict) or key not in result]
    if missing:
        raise FaultError(f"{path} lacks {', '.join(missing)}; run its benchmark again to write it whole")
    return dict(result)


def look_up(result: dict[str, Any], dotted_key: str, path: str) -> Any:
    """The value at a path of keys (and list positions).

    Raises:
        FaultError: a key is not there; the message lists those that are.
    """
    value: Any = result
    for key in dotted_key.split("."):
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            known = ", ".join(value) if isinstance(value, dict) else f"a {type(value).__name__}"
            raise FaultError(f"no {key!r} (of {dotted_key}) in {path}; there is: {known}")
    return value
