"""Train one small sparse layer and watch how its experts share the work: unbalanced, with a loss, with a bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyllm.experts.balance import max_violation
from tinyllm.experts.layer import experts_torch
from tinyllm.experts.routing import biased_topk_router, expert_counts

NUM_EXPERTS, TOP_K, HIDDEN_SIZE = 8, 2, 32
NUM_CLUSTERS = 16
NUM_TOKENS = 256  # a step
LEARNING_RATE = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRun:
    """What a training run leaves: `counts` [steps, E], every expert's pairs in each step, and `errors` [steps]."""

    counts: Tensor
    errors: Tensor

    @property
    def late(self) -> slice:
        """The last tenth of the steps: one step alone has too few tokens to judge a router by."""
        return slice(len(self.counts) - len(self.counts) // 10, None)

    @property
    def load(self) -> Tensor:
        """[E]: each expert's pairs in the last tenth of the steps, as a multiple of the mean."""
        counts = self.counts[self.late].sum(dim=0).double()
        return counts / counts.mean()

    @property
    def max_violation(self) -> float:
        """MaxVio of the last tenth of the steps."""
        return max_violation(self.counts[self.late].sum(dim=0))

    @property
    def error(self) -> float:
        """The mean squared error of the last tenth of the steps."""
        return float(self.errors[self.late].mean())


class ClusteredTask:
    """Tokens of 16 kinds, each of which wants another linear map of its input; all inputs have something in common.

    What they have in common lets one expert look good to all of them at once, as hidden states of a language model do.
    """

    def __init__(self, generator: torch.Generator) -> None:
        """Draw the kinds and their maps."""
        self.generator = generator
        self.common = torch.randn(HIDDEN_SIZE, generator=generator)
        self.centers = torch.randn(NUM_CLUSTERS, HIDDEN_SIZE, generator=generator)
        self.maps = torch.randn(NUM_CLUSTERS, HIDDEN_SIZE, HIDDEN_SIZE, generator=generator) / HIDDEN_SIZE**0.5

    def batch(self) -> tuple[Tensor, Tensor]:
        """The inputs and the wanted outputs of a step, both [T, H]."""
        kinds = torch.randint(NUM_CLUSTERS, (NUM_TOKENS,), generator=self.generator)
        own = self.centers[kinds] + 0.3 * torch.randn(NUM_TOKENS, HIDDEN_SIZE, generator=self.generator)
        return own + self.common, (self.maps[kinds] @ own[..., None]).squeeze(-1)


def train_sparse_layer(
    balancing_loss: Callable[[Tensor, int], Tensor] | None = None,
    update_bias: Callable[[Tensor, Tensor, float], Tensor] | None = None,
    *,
    coefficient: float = 0.05,
    update_rate: float = 0.01,
    num_steps: int = 300,
    seed: int = 0,
) -> TrainingRun:
    """Train a router and 8 experts, 2 a token, on a `ClusteredTask`.

    Runs of one seed begin with the same weights and see the same tokens, whatever balances them.

    Args:
        balancing_loss: as `load_balancing_loss`; `coefficient` times what it says is added to the error.
        update_bias: as `update_expert_bias`; called after every step with that step's counts and `update_rate`.
    """
    generator = torch.Generator().manual_seed(seed)
    task = ClusteredTask(generator)

    def weight(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator) * scale / HIDDEN_SIZE**0.5).requires_grad_()

    gate = weight(NUM_EXPERTS, HIDDEN_SIZE, scale=0.1)  # the router begins with hardly an opinion
    gate_up_proj = weight(NUM_EXPERTS, 2 * HIDDEN_SIZE, HIDDEN_SIZE)
    down_proj = weight(NUM_EXPERTS, HIDDEN_SIZE, HIDDEN_SIZE)
    optimizer = torch.optim.Adam([gate, gate_up_proj, down_proj], lr=LEARNING_RATE)
    expert_bias = torch.zeros(NUM_EXPERTS)
    counts, errors = [], []
    for _ in range(num_steps):
        x, wanted = task.batch()
        router_logits = x @ gate.T
        topk_weights, topk_ids = biased_topk_router(router_logits, TOP_K, True, expert_bias)
        error = (experts_torch(x, topk_weights, topk_ids, gate_up_proj, down_proj) - wanted).square().mean()
        loss = error if balancing_loss is None else error + coefficient * balancing_loss(router_logits, TOP_K)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        counts.append(expert_counts(topk_ids, NUM_EXPERTS))
        errors.append(error.detach())
        if update_bias is not None:
            expert_bias = update_bias(expert_bias, counts[-1], update_rate)
    return TrainingRun(torch.stack(counts), torch.stack(errors))
