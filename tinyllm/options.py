"""Options by name: from `num_blocks=64` to a config that nests others, and refusals that say what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from numbers import Integral
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from tinyllm.errors import OptionError, UnknownOptionError
from tinyllm.names import closest

T = TypeVar("T")


def check_fields(config: Any) -> None:
    """Hold a config's numbers and switches against their types. Numbers count something, and are at least 1.

    Raises:
        OptionError: a value is of another type or below 1.
    """
    for name, kinds in kinds_of(type(config)).items():
        value = getattr(config, name)
        if value is None and NoneType in kinds:
            continue
        if int in kinds:
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise OptionError(f"{name} is {value!r:.100}; it must be a whole number")
            if value < 1:
                raise OptionError(f"{name} is {value}; it must be at least 1")
        elif bool in kinds and not isinstance(value, bool):
            raise OptionError(f"{name} is {value!r:.100}; it must be True or False")
        elif is_dataclass(kinds[0]) and not isinstance(value, kinds):
            raise OptionError(f"{name} is {value!r:.100}; it must be a {kinds[0].__name__}")


def nested(config: type[T], options: Mapping[str, Any], beside: Iterable[str] = ()) -> T:
    """Make a config from the options of it and of the configs inside it; the others keep their defaults.

    Args:
        options: by name, `num_blocks`, or by path, `cache.num_blocks`.
        beside: names that the user may have meant and that belong elsewhere.

    Raises:
        UnknownOptionError: there is no such option; it is also a TypeError, as Python's own for an unknown argument.
        OptionError: a value is of the wrong type or out of range.
    """
    known = option_kinds(config)
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        section, _, field = path_of(name, known, beside).rpartition(".")
        (inner.setdefault(section, {}) if section else own)[field] = value
    hints = get_type_hints(config)
    return config(**own, **{section: hints[section](**chosen) for section, chosen in inner.items()})


def parse_options(config: type, texts: Iterable[str], beside: Iterable[str] = ()) -> dict[str, Any]:
    """Options as they are typed, `key=value`, by path; `nested` takes them. Of one that comes twice the last counts.

    Raises:
        UnknownOptionError: there is no such option.
        OptionError: a text has no `=`.
    """
    known = option_kinds(config)
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"the option {text!r:.100} has no value; give key=value, as in {next(iter(known))}=...")
        path = path_of(name.strip(), known, beside)
        options[path] = parsed(value.strip(), known[path])
    return options


def parsed(text: str, kinds: tuple[type, ...]) -> Any:
    """A value of one of the types; the text itself where it is none of them, for `check_fields` to refuse by name.

    Example:
        >>> parsed("64", (int,)), parsed("true", (bool,)), parsed("none", (int, NoneType)), parsed("64", (str,))
        (64, True, None, '64')
    """
    word = text.lower()
    if bool in kinds and word in ("true", "false"):
        return word == "true"
    if NoneType in kinds and word == "none":
        return None
    if int in kinds:
        try:
            return int(text)
        except ValueError:
            return text
    return text


def option_kinds(config: type) -> dict[str, tuple[type, ...]]:
    """Every option by path, with its types; those of the configs inside stand where their section does."""
    kinds: dict[str, tuple[type, ...]] = {}
    for name, own in kinds_of(config).items():
        if is_dataclass(own[0]):
            kinds |= {f"{name}.{inner}": types for inner, types in option_kinds(own[0]).items()}
        else:
            kinds[name] = own
    return kinds


def kinds_of(config: type) -> dict[str, tuple[type, ...]]:
    """The fields of a config and the types that each may have."""
    hints = get_type_hints(config)
    return {field.name: get_args(hints[field.name]) or (hints[field.name],) for field in fields(config)}


def path_of(name: str, known: Iterable[str], beside: Iterable[str] = ()) -> str:
    """The path of an option that is given by its path or by its last name.

    Raises:
        UnknownOptionError: there is none, or several sections have one of that name; the nearest is named.
    """
    by_name = {path: path.rpartition(".")[2] for path in known}
    found = [path for path, last in by_name.items() if name in (path, last)]
    if len(found) == 1:
        return found[0]
    candidates = by_name if "." in name else by_name.values()
    nearest = closest(name, [*candidates, *beside])
    hint = f"did you mean {nearest}?" if nearest else f"there are {', '.join(by_name.values())}"
    if found:
        hint = f"give one of {', '.join(found)}"
    raise UnknownOptionError(f"the engine has no option {name}; {hint}")
