"""The mixture-of-experts MLP of Qwen3-MoE: E small MLPs a layer, of which each token uses K.

A router scores the experts for every token; the K likeliest work, and their answers are added, weighted by the
router's probabilities. The layer holds the weights of E experts and does the work of K.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyllm.model.layers import swiglu


class RunExperts(Protocol):
    """A way to run the experts of a sparse layer."""

    @property
    def supports_cuda_graphs(self) -> bool:
        """Whether it neither waits for the GPU nor takes a shape or a Python number from a tensor's values."""
        ...

    def __call__(self, mlp: SparseMLP, x: Tensor, router_logits: Tensor) -> Tensor:
        """Route every token to K of the E experts and add up what they answer.

        Args:
            mlp: the layer that asks: its number, K, and the experts' weights.
            x: [T, hidden_size].
            router_logits: [T, E], what the layer's `gate` gave.

        Returns:
            [T, hidden_size].
        """
        ...


class TorchExperts:
    """One expert after another, in torch: it runs everywhere, and is the oracle for others.

    It counts the experts' tokens on the CPU to split the batch, so its shapes change from step to step.
    """

    supports_cuda_graphs = False

    def __call__(self, mlp: SparseMLP, x: Tensor, router_logits: Tensor) -> Tensor:
        """See `RunExperts`."""
        weights, experts = top_k_route(router_logits, mlp.num_experts_per_tok, mlp.norm_topk_prob)
        return mlp.experts(x, weights, experts)


class SparseMLP(nn.Module):
    """The feed-forward half of a sparse layer: route every token to K of E experts, add up what they answer."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        *,
        num_experts: int,
        num_experts_per_tok: int,
        norm_topk_prob: bool = True,
        layer: int = 0,
    ) -> None:
        """Set the sizes.

        Args:
            hidden_size: the width of a token.
            intermediate_size: I, the width inside one expert (`moe_intermediate_size` of the config).
            num_experts: E.
            num_experts_per_tok: K.
            norm_topk_prob: let the K weights of a token add up to 1.
            layer: which layer of the model it is in.
        """
        super().__init__()
        self.layer = layer
        self.num_experts_per_tok = num_experts_per_tok
        self.norm_topk_prob = norm_topk_prob
        self.gate = nn.Linear(hidden_size, num_experts, bias=False)  # the router; not the gate of SwiGLU
        self.experts = Experts(hidden_size, intermediate_size, num_experts)

    def forward(self, x: Tensor, run: RunExperts = TorchExperts()) -> Tensor:  # noqa: B008, it has no state
        """[T, hidden_size] -> [T, hidden_size]."""
        return run(self, x, self.gate(x))


class Experts(nn.Module):
    """The weights of E SwiGLU MLPs, stacked: gate and up in one [E, 2I, hidden_size], down [E, hidden_size, I]."""

    def __init__(self, hidden_size: int, intermediate_size: int, num_experts: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size))
        for weight in (self.gate_up_proj, self.down_proj):
            bound = weight.shape[-1] ** -0.5  # as nn.Linear begins
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Run every token through its K experts, one expert after another; experts without a token are not read.

        Args:
            x: [T, hidden_size].
            weights: [T, K], how much each expert's answer counts.
            experts: [T, K], which experts; both from `top_k_route`.

        Returns:
            [T, hidden_size]: for each token, the weighted sum of its experts' answers.
        """
        num_tokens, k = experts.shape
        order = experts.flatten().argsort()  # [T * K]: the pairs of a token and an expert, expert by expert
        tokens = order // k  # [T * K]: the token of each pair
        counts = expert_counts(experts, len(self.gate_up_proj)).tolist()
        groups = x.index_select(0, tokens).split(counts)
        answers = [
            F.linear(swiglu(F.linear(group, gate_up)), down)
            for group, gate_up, down in zip(groups, self.gate_up_proj.unbind(), self.down_proj.unbind(), strict=True)
            if len(group)
        ]
        weighted = torch.cat(answers) * weights.flatten()[order, None]
        return weighted.new_zeros(num_tokens, x.shape[1]).index_add(0, tokens, weighted)


def top_k_route(router_logits: Tensor, k: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """Choose the K likeliest experts of every token.

    Args:
        router_logits: [T, E].
        k: K, experts a token.
        normalize: divide a token's K probabilities by their sum.

    Returns:
        weights [T, K], in the dtype of the logits, largest first; and the experts [T, K] they belong to.
    """
    probabilities = router_logits.softmax(dim=-1, dtype=torch.float32)
    weights, experts = probabilities.topk(k, dim=-1)
    if normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights.to(router_logits.dtype), experts


def expert_counts(experts: Tensor, num_experts: int) -> Tensor:
    """[T, K] chosen experts -> [E]: how many tokens chose each."""
    return torch.bincount(experts.flatten(), minlength=num_experts)


def expert_share(experts: Tensor, num_experts: int) -> Tensor:
    """[T, K] chosen experts -> [E]: the fraction of the T tokens that each serves, float32; K / E each is balance."""
    return expert_counts(experts, num_experts).float() / len(experts)


def load_balancing_loss(router_logits: Tensor, k: int) -> Tensor:
    """How unevenly one layer loads its experts: E * sum over them of share * mean probability.

    It is K at balance and E where all tokens choose alike with certainty. Only the probabilities carry a gradient:
    it takes probability from the experts that are chosen most (Switch Transformers, arXiv 2101.03961, equations 4-6).
    In training, compute it layer by layer; over the tokens of all layers together, two uneven layers can cancel out.

    Args:
        router_logits: [T, E], what the layer's `gate` gave.
        k: K, experts a token.
    """
    num_experts = router_logits.shape[-1]
    probabilities = router_logits.softmax(dim=-1, dtype=torch.float32)
    share = expert_share(probabilities.topk(k, dim=-1).indices, num_experts)
    return num_experts * (share * probabilities.mean(dim=0)).sum()
