"""Options by name: where they end up, what a typed text becomes, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from types import NoneType
from typing import Any

import pytest

from tinyllm.config import CacheConfig, EngineConfig
from tinyllm.errors import OptionError, UnknownOptionError
from tinyllm.options import check_fields, nested, option_kinds, parse_options, parsed


@dataclass(frozen=True)
class Inner:
    size: int = 1
    name: str = "a"


@dataclass(frozen=True)
class Other:
    size: int = 2
    on: bool = False


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    other: Other = Other()
    most: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def test_an_option_is_known_by_its_path_and_by_its_name_alone() -> None:
    assert nested(Outer, {"name": "b", "on": True, "most": 3}) == Outer(Inner(1, "b"), Other(2, True), 3)
    assert nested(Outer, {"other.size": 7, "inner.size": 5}) == Outer(Inner(5), Other(7))
    assert nested(Outer, {}) == Outer()


def test_a_name_that_two_sections_have_needs_its_path() -> None:
    with pytest.raises(UnknownOptionError, match=r"no option size; give one of inner\.size, other\.size"):
        nested(Outer, {"size": 1})


def test_the_engine_has_its_cache_in_a_section() -> None:
    config = EngineConfig.from_options(num_blocks=8, enable_prefix_caching=False, max_num_seqs=2)
    assert config == EngineConfig(CacheConfig(num_blocks=8, enable_prefix_caching=False), max_num_seqs=2)
    assert EngineConfig.from_options(**{"cache.num_blocks": 8}).cache.num_slots == 128


def test_every_option_of_the_engine_can_be_typed() -> None:
    """The text of each default is read back as that default, so that no option is of a kind that `-O` cannot give."""
    config = EngineConfig()
    defaults: dict[str, Any] = {}
    for path in option_kinds(EngineConfig):
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        defaults[path] = value
    assert parse_options(EngineConfig, [f"{path}={value}" for path, value in defaults.items()]) == defaults
    assert nested(EngineConfig, defaults) == config


@pytest.mark.parametrize(
    ("text", "kinds", "value"),
    [
        ("64", (int,), 64),
        ("-1", (int,), -1),
        ("6.5", (int,), "6.5"),
        ("", (int,), ""),
        ("64", (str,), "64"),
        ("True", (bool,), True),
        ("false", (bool,), False),
        ("1", (bool,), "1"),
        ("none", (int, NoneType), None),
        ("8", (int, NoneType), 8),
        ("none", (str,), "none"),
        ("true", (str,), "true"),
    ],
)
def test_a_text_becomes_a_value_of_the_options_kind(text: str, kinds: tuple[type, ...], value: object) -> None:
    got = parsed(text, kinds)
    assert (type(got), got) == (type(value), value)


def test_what_is_typed_last_counts_whichever_way_it_is_named() -> None:
    assert parse_options(Outer, ["on=true", "name=x", "other.on=false"]) == {"other.on": False, "inner.name": "x"}
    assert parse_options(Outer, ["name=a=b"]) == {"inner.name": "a=b"}


@pytest.mark.parametrize("text", ["", "=", "=3", "inner=3", "inner.=3", ".size=3", "on", "other.name=x"])
def test_what_names_no_option_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        parse_options(Outer, [text])


def test_a_section_must_be_its_config() -> None:
    with pytest.raises(OptionError, match="cache is 64; it must be a CacheConfig"):
        EngineConfig(64)  # type: ignore[arg-type]
