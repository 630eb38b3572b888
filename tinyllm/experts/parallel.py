"""Run experts that lie on several ranks: whole experts here and there, or a part of every expert on each."""

from __future__ import annotations

from torch import Tensor

from tinyllm.experts.base import ExpertsFunction, RunExperts, SparseLayer
from tinyllm.experts.exchange import local_expert_ids
from tinyllm.parallel.ranks import Ranks, split_rows
from tinyllm.parts import Parts, resolve


class ExpertParallel:
    """Whole experts, E / W on each rank: rows travel to the experts and back (GShard, arXiv 2006.16668).

    All ranks have the same T tokens, since attention is on all or was just summed. Each routes a W-th of them, sends
    their rows to the ranks of their experts, gets the answers back and adds them up; then all gather all tokens, as
    vLLM does where it has attention in tensor parallel.

    The other way is that every rank routes all tokens and runs its own experts, and one all-reduce adds up. It computes
    as many rows and sends fewer bytes up to W = 2K. Rows that travel are what scales: with data-parallel attention, as
    the largest models are served, each rank has tokens of its own, an all-reduce has nothing to add, and only the
    gather goes from here.

    Every rank takes part in each of the exchanges, also where it has no token or nobody chose its experts.
    """

    supports_cuda_graphs = False  # the exchanges' sizes are Python numbers

    def __init__(self, run: ExpertsFunction, ranks: Ranks, parts: Parts | None = None) -> None:
        """Take what computes this rank's experts, any way of layer.py, and all else from `parts`."""
        parts = parts or resolve()
        self.run = run
        self.ranks = ranks
        self._router, self._permute, self._unpermute = (parts[name] for name in ("topk_router", "permute", "unpermute"))
        self._dispatch, self._combine = parts["dispatch_all_to_all"], parts["combine_all_to_all"]

    def __call__(self, mlp: SparseLayer, x: Tensor, router_logits: Tensor) -> Tensor:
        """See `RunExperts`."""
        (num_tokens, _), num_experts = x.shape, router_logits.shape[1]
        mine, share = split_rows(num_tokens, self.ranks.rank, self.ranks.world_size)
        topk_weights, topk_ids = self._router(router_logits[mine], mlp.num_experts_per_tok, mlp.norm_topk_prob)
        permuted, pairs, counts = self._permute(x[mine], topk_ids, num_experts)
        with self.ranks.collective():
            received, received_counts, sent, got = self._dispatch(permuted, counts)
        answers = self._run_local(mlp, received, received_counts)
        with self.ranks.collective():
            back = self._combine(answers, sent, got)
        out = x.new_zeros(share, x.shape[1])  # shares of one size, so that they can be gathered
        out[: len(topk_ids)] = self._unpermute(back, pairs, topk_weights)
        return self.ranks.all_gather(out)[:num_tokens]

    def _run_local(self, mlp: SparseLayer, received: Tensor, received_counts: Tensor) -> Tensor:
        """The answers to received rows [m, H], of which each is for one of this rank's experts; counts [W, E / W]."""
        if not len(received):
            return received
        topk_ids = local_expert_ids(received_counts)[:, None]
        once = received.new_ones(len(received), 1)  # the weights are the sender's affair
        return self.run(received, once, topk_ids, mlp.experts.gate_up_proj, mlp.experts.down_proj)


class SummedExperts:
    """A part of every expert on each rank, as tensor parallelism cuts any MLP: run the parts, add up the answers."""

    supports_cuda_graphs = False

    def __init__(self, run: RunExperts, ranks: Ranks) -> None:
        self.run = run
        self.ranks = ranks

    def __call__(self, mlp: SparseLayer, x: Tensor, router_logits: Tensor) -> Tensor:
        """See `RunExperts`."""
        return self.ranks.all_reduce(self.run(mlp, x, router_logits))
