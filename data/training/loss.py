"""What a shard of a batch costs, plainly and against a teacher; and its gradient, shards side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.training.attention import blocked_attend, piecewise
from data.training.batches import Shard
from tinyllm.model.attention import causal_attend
from tinyllm.model.moe import SparseMLP, load_balancing_loss
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM

Loss = Callable[[Qwen3ForCausalLM, Shard], Tensor]  # the weighted sum over a shard's predictions


def logits_of(model: Qwen3ForCausalLM, shard: Shard) -> Tensor:
    """[n, V]: the model's scores at the shard's predictions."""
    on_cpu = shard.input_ids.device.type == "cpu"
    attend = blocked_attend if on_cpu and torch.is_autocast_enabled("cpu") else causal_attend
    hidden = model(shard.input_ids, shard.positions, LayerOps(piecewise(shard.shapes, attend)))
    return model.compute_logits(hidden[shard.at])


def next_token_loss(model: Qwen3ForCausalLM, shard: Shard) -> Tensor:
    """Weighted sum of the cross entropies, in nats."""
    losses = F.cross_entropy(logits_of(model, shard), shard.labels, reduction="none")
    return (losses * shard.weights).sum()


def distillation_loss(teacher: Qwen3ForCausalLM) -> Loss:
    """Cross entropy against the teacher's distribution instead of the one right token (arXiv 1503.02531)."""

    def loss(model: Qwen3ForCausalLM, shard: Shard) -> Tensor:
        with torch.no_grad():
            wanted = logits_of(teacher, shard).softmax(dim=-1)
        losses = F.cross_entropy(logits_of(model, shard), wanted, reduction="none")
        return (losses * shard.weights).sum()

    return loss


def balanced_loss(mixture: Qwen3ForCausalLM, coefficient: float) -> Loss:
    """The next-token loss plus a price on uneven routing, for this one model (arXiv 2101.03961, section 2.2)."""
    layers = [module for module in mixture.modules() if isinstance(module, SparseMLP)]
    seen = threading.local()  # shards run side by side; each has its own routing

    def note(gate: nn.Module, inputs: tuple[Tensor], router_logits: Tensor) -> None:
        if torch.is_grad_enabled():  # not while the model is measured
            seen.router_logits.append(router_logits)

    for layer in layers:
        layer.gate.register_forward_hook(note)

    def loss(model: Qwen3ForCausalLM, shard: Shard) -> Tensor:
        seen.router_logits = []
        of_tokens = next_token_loss(model, shard)
        k = model.config.num_experts_per_tok
        uneven = torch.stack([load_balancing_loss(logits, k) for logits in seen.router_logits]).mean()
        return of_tokens + coefficient * uneven * shard.weights.sum()

    return loss


def add_gradients(
    model: Qwen3ForCausalLM, shards: Sequence[Shard], loss: Loss, pool: ThreadPoolExecutor, autocast: bool
) -> Tensor:
    """Set the gradient of the mean loss over all shards; returns that mean, on the model's device.

    Each shard has its own thread: on a CPU two threads that meet once a step do more than two that meet at every
    operation, and the sum, taken in the order of the shards, is the same each time.
    """
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    total = sum(shard.weights.sum() for shard in shards)

    def work(shard: Shard) -> tuple[Tensor, tuple[Tensor, ...]]:
        with torch.autocast(shard.input_ids.device.type, dtype=torch.bfloat16, enabled=autocast):
            mean = loss(model, shard) / total
        return mean.detach(), torch.autograd.grad(mean, parameters)

    results = list(pool.map(work, shards))
    for weight, *pieces in zip(parameters, *(gradients for _, gradients in results), strict=True):
        weight.grad = torch.stack(pieces).sum(dim=0) if len(pieces) > 1 else pieces[0]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    return torch.stack([mean for mean, _ in results]).sum()
