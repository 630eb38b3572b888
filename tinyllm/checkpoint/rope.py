"""The base of RoPE as a config gives it, in the places and the order in which `transformers` looks for it.

Older files have `rope_theta` and `rope_scaling` at the top, newer ones have both in `rope_parameters`. A file can hold
all three. Then `rope_scaling` counts and `rope_parameters` does not, and a `rope_theta` inside the one that counts wins
over that at the top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinyllm.errors import CheckpointError

#: What `transformers` takes where a Qwen3's file names no base. (Qwen3 itself was trained with 1,000,000.)
DEFAULT_THETA = 10_000.0
KNOWN = {"rope_theta", "rope_type", "type"}


def rope_theta(raw: Mapping[str, Any], default: float = DEFAULT_THETA) -> float:
    """The base of RoPE in a parsed `config.json`; `default` where the file names none.

    Raises:
        CheckpointError: the config asks for scaled RoPE (YaRN and others), for a RoPE by layer type, or for anything
            else that would be ignored; or the base is no number above 0.
    """
    name = "rope_scaling" if raw.get("rope_scaling") else "rope_parameters"
    settings = raw.get(name) or {}
    if not isinstance(settings, Mapping):
        raise CheckpointError(f"{name} is {settings!r}; expected an object, or null")
    check_settings(name, settings)
    factor = raw.get("partial_rotary_factor")
    if factor is not None and factor != 1:
        raise CheckpointError(f"partial_rotary_factor is {factor!r}: RoPE on a part of each head is not supported")
    place = f"{name}.rope_theta" if "rope_theta" in settings else "rope_theta"
    theta = settings.get("rope_theta", raw.get("rope_theta", default))
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not theta > 0:
        raise CheckpointError(
            f"{place} is {'null' if theta is None else repr(theta)}; expected a number above 0 "
            f"(left out, it is {default:g})"
        )
    return float(theta)


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless `settings` are those of plain RoPE: a base, and a type that is "default"."""
    by_layer = [key for key, value in settings.items() if isinstance(value, Mapping)]
    if by_layer:
        raise CheckpointError(
            f"{name} differs by layer type ({', '.join(by_layer)}), which is not supported: one RoPE serves all layers"
        )
    rope_type = settings.get("rope_type", settings.get("type", "default"))
    if rope_type != "default":
        raise CheckpointError(
            f"{name} asks for rope scaling {rope_type!r}, which is not supported. Where it only lengthens the context, "
            f"remove {name} from the config to run the model at its original length"
        )
    unknown = sorted(settings.keys() - KNOWN)
    if unknown:
        raise CheckpointError(f"{name} holds {', '.join(unknown)}, which would be ignored; it may hold rope_theta only")
