"""Where a file has the matrices of experts: one tensor each, under either of two sets of names, or two stacks a layer.

The rest of this package calls them as Qwen3-MoE does: `mlp.gate`, `mlp.experts.3.gate_proj`, `up_proj`, `down_proj`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from tinyllm.config import ModelConfig
from tinyllm.model.weight_names import checkpoint_shapes

#: Mixtral's names, by Qwen3-MoE's.
MIXTRAL_NAMES = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
EXPERT = re.compile(r"(.*)\.mlp\.experts\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")


class Layout(Enum):
    """How a file holds experts."""

    QWEN = "mlp.experts.3.gate_proj.weight, up_proj, down_proj: a tensor for each matrix of each expert"
    MIXTRAL = "block_sparse_moe.experts.3.w1.weight, w3, w2: the same under Mixtral's names"
    PACKED = "mlp.experts.gate_up_proj [E, 2I, H] and down_proj [E, H, I], as transformers 5 has them in memory"


class Place(NamedTuple):
    """Where a matrix stands in a file.

    Attributes:
        tensor: the name of the tensor that holds it.
        expert: which matrix of a stack it is a part of; None where the tensor is the matrix.
        half: 0 for the upper and 1 for the lower half of that matrix; None for all of it.
    """

    tensor: str
    expert: int | None = None
    half: int | None = None


def layout_of(names: Iterable[str]) -> Layout:
    """The layout of a file that has tensors of these names."""
    for name in names:
        if ".block_sparse_moe." in name:
            return Layout.MIXTRAL
        if name.endswith((".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")):
            return Layout.PACKED
    return Layout.QWEN


def place_of(name: str, layout: Layout) -> Place:
    """Where a file has the tensor that Qwen3-MoE calls `name`."""
    if layout is Layout.MIXTRAL and name.endswith(".mlp.gate.weight"):
        return Place(name.replace(".mlp.", ".block_sparse_moe."))
    found = EXPERT.fullmatch(name)
    if found is None or layout is Layout.QWEN:
        return Place(name)
    layer, expert, matrix = found.groups()
    if layout is Layout.MIXTRAL:
        return Place(f"{layer}.block_sparse_moe.experts.{expert}.{MIXTRAL_NAMES[matrix]}.weight")
    if matrix == "down_proj":
        return Place(f"{layer}.mlp.experts.down_proj", int(expert))
    return Place(f"{layer}.mlp.experts.gate_up_proj", int(expert), half=int(matrix == "up_proj"))


def file_shapes(config: ModelConfig, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a file of this model has in this layout."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in checkpoint_shapes(config).items():
        place = place_of(name, layout)
        if place.expert is None:
            shapes[place.tensor] = shape
        else:
            rows, columns = shape
            shapes[place.tensor] = (config.num_experts, rows if place.half is None else 2 * rows, columns)
    return shapes
