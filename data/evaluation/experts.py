"""How evenly a mixture of experts spreads the evaluation's tokens over its experts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from data.evaluation.candidate import Reply
from tinyllm.model.attention import causal_attend
from tinyllm.model.moe import SparseMLP, expert_counts, top_k_route
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM


class Counter:
    """Counts, while it is open, how many tokens each layer sends to each expert: `counts` [sparse layers, E]."""

    def __init__(self, model: Qwen3ForCausalLM) -> None:
        self.config = model.config
        self.layers = {layer: model.layers[layer].mlp for layer in model.config.sparse_layers}
        self.counts = torch.zeros(len(self.layers), model.config.num_experts, dtype=torch.long)

    def __enter__(self) -> Counter:
        self._handles = []
        for row, mlp in enumerate(self.layers.values()):
            assert isinstance(mlp, SparseMLP)
            self._handles.append(mlp.gate.register_forward_hook(self._counting(row)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _counting(self, row: int) -> Any:
        def count(_module: object, _inputs: object, router_logits: Tensor) -> None:
            _, experts = top_k_route(router_logits, self.config.num_experts_per_tok, self.config.norm_topk_prob)
            self.counts[row] += expert_counts(experts, self.config.num_experts).cpu()

        return count


@torch.inference_mode()
def count_experts(model: Qwen3ForCausalLM, replies: Iterable[Reply]) -> Tensor:
    """[sparse layers, E]: the tokens of prompts and replies that each expert served."""
    with Counter(model) as counter:
        for reply in replies:
            ids = torch.tensor([*reply.prompt, *reply.output], device=model.head_weight.device)
            model(ids, torch.arange(len(ids), device=ids.device), LayerOps(causal_attend()))
    return counter.counts


def balance(counts: Tensor, layers: Sequence[int]) -> dict[str, Any]:
    """The busiest expert of each layer against the mean, 1 where all are equally busy; and the most uneven layer."""
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    busiest = shares.amax(dim=1) / shares.mean(dim=1)
    return {
        "tokens": int(counts[0].sum()),
        "busiest over mean": {
            str(layer): round(ratio, 3) for layer, ratio in zip(layers, busiest.tolist(), strict=True)
        },
        "most uneven": round(float(busiest.max()), 3),
    }
