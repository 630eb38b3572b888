"""Which part of every weight lies on which process: tensor parallelism and expert parallelism.

Tensor parallelism (Megatron-LM, arXiv 1909.08053, section 3) cuts every matrix of a layer. The first of a pair is cut
by its outputs and the second by its inputs, so that a process needs nothing of the others in between, and the sum of
all processes' answers is the layer's. Expert parallelism (GShard, arXiv 2006.16668) cuts none: an expert is on one
process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinyllm.config import ModelConfig
from tinyllm.errors import OptionError

#: Matrices, [out, in], that are cut by their outputs ("column parallel", as x @ W.T has them in columns).
BY_OUTPUTS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
#: Matrices that are cut by their inputs ("row parallel"); what they give is a part of a sum.
BY_INPUTS = ("o_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal parts.

    Attributes:
        rank: which one, from 0.
        world_size: how many there are.

    Raises:
        OptionError: there is no such part.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise OptionError(f"there is no rank {self.rank} among {self.world_size}; they are counted from 0")

    def span(self, size: int, what: str) -> slice:
        """This part of `size` things.

        Raises:
            OptionError: they cannot be divided evenly.
        """
        if size % self.world_size:
            raise OptionError(
                f"{self.world_size} processes cannot share {size} {what} evenly; give a number that divides {size}"
            )
        share = size // self.world_size
        return slice(self.rank * share, (self.rank + 1) * share)

    def share(self, size: int, what: str) -> int:
        """How many of `size` things are in this part; raises as `span` does."""
        span = self.span(size, what)
        return int(span.stop - span.start)


@dataclass(frozen=True, slots=True)
class Sharding:
    """How a model is split over processes, seen from one of them. Embedding, head, norms and routers are on all.

    Attributes:
        tensor: the part of every matrix of a layer; heads stay whole, and so do those that share a KV head.
        experts: which experts are here, each of them whole; None cuts them all, as `tensor` cuts the other matrices.
    """

    tensor: Shard = Shard()
    experts: Shard | None = None

    def part(self, name: str, shape: Sequence[int], config: ModelConfig) -> tuple[slice, ...] | None:
        """The part of a checkpoint's tensor that lies here.

        Args:
            name: as the checkpoint has it.
            shape: of the whole tensor.
            config: the whole model's.

        Returns:
            A slice for each dimension, or None where nothing of the tensor is here.

        Raises:
            OptionError: the tensor cannot be divided evenly.
        """
        whole = tuple(slice(0, size) for size in shape)
        expert = re.search(r"\.experts\.(\d+)\.", name)
        if expert and self.experts:
            here = self.experts.span(config.num_experts, "experts")
            return whole if here.start <= int(expert[1]) < here.stop else None
        matrix = name.removesuffix(".weight").rpartition(".")[2]
        if matrix in BY_OUTPUTS:
            return (self.tensor.span(shape[0], f"outputs of {name}"), *whole[1:])
        if matrix in BY_INPUTS:
            return (*whole[:-1], self.tensor.span(shape[-1], f"inputs of {name}"))
        return whole

    def local_config(self, config: ModelConfig) -> ModelConfig:
        """The model that this process runs: fewer heads, so that its KV pool is smaller too, and narrower MLPs.

        `num_experts` stays what the router knows; `num_local_experts` says how many are here.

        Raises:
            OptionError: heads or widths cannot be divided evenly, or experts are to be shared and there are none.
        """
        if self.experts and not config.num_experts:
            raise OptionError(
                "the model has no experts that several processes could share; what divides a dense model is tensor "
                "parallelism (tensor_parallel_size, --tensor-parallel)"
            )
        share = self.tensor.share
        expert_width = config.moe_intermediate_size
        return replace(
            config,
            num_heads=share(config.num_heads, "query heads"),
            num_kv_heads=share(config.num_kv_heads, "key/value heads"),
            intermediate_size=share(config.intermediate_size, "rows of an MLP (intermediate_size)"),
            moe_intermediate_size=expert_width
            if self.experts
            else share(expert_width, "rows of an expert (moe_intermediate_size)"),
        )

    def num_local_experts(self, config: ModelConfig) -> int:
        """How many of the experts of a layer lie here, whole or in part; raises as `Shard.span` does."""
        return self.experts.share(config.num_experts, "experts") if self.experts else config.num_experts
