"""A step of a model whose parts lie on several ranks: this rank's part of the work, and what the ranks exchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tinyllm.attention.base import AttentionBackend
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.experts.base import RunExperts
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.parallel.ranks import Ranks


class RankRunner(ModelRunner):
    """Runs this rank's part of a model; every rank runs the same schedule beside it.

    Tensor parallelism takes two all-reduces a layer, one behind attention and one behind the MLP (Megatron-LM, arXiv
    1909.08053, section 3): between them a rank needs nothing of the others, as its heads and its columns are its own.
    """

    supports_cuda_graphs = False

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        cache: Any,
        block_size: int,
        backend: AttentionBackend,
        experts: RunExperts,
        ranks: Ranks,
        tensor_parallel: bool,
    ) -> None:
        """Put together what computes.

        Args:
            model: this rank's part, of `load_model(..., sharding=...)`.
            experts: runs experts that lie on several ranks.
            tensor_parallel: whether the matrices of the layers are in parts, and not whole on every rank.
        """
        super().__init__(model, cache, block_size, backend, experts)
        self.ranks = ranks
        if tensor_parallel:
            self.reduce = ranks.all_reduce

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """See `Runner.execute`; the logits are rank 0's.

        They may differ in their last bits from rank to rank, and so could the tokens of a near tie. From then on the
        ranks would compute different requests.
        """
        return self.ranks.broadcast(super().execute(scheduled))
