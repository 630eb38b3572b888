"""How well the held-out free text is predicted."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import torch
import torch.nn.functional as F

from data.tasks.sample import Document
from data.tasks.talk import free_text
from data.training.mixture import world_article
from tinyllm.model.attention import causal_attend
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer

KINDS: dict[str, Callable[[Random, bool], Document]] = {"free text": free_text, "articles": world_article}


@torch.inference_mode()
def nats(model: Qwen3ForCausalLM, ids: list[int]) -> float:
    """Cross entropy of all tokens but the first, given those before them, summed, in nats."""
    tokens = torch.tensor(ids, device=model.head_weight.device)
    hidden = model(tokens[:-1], torch.arange(len(ids) - 1, device=tokens.device), LayerOps(causal_attend()))
    return float(F.cross_entropy(model.compute_logits(hidden), tokens[1:], reduction="sum"))


def perplexity(model: Qwen3ForCausalLM, tokenizer: Tokenizer, kind: str, count: int) -> dict[str, float]:
    """Perplexity per token and per byte over `count` held-out documents of a kind; first tokens are not predicted."""
    total = 0.0
    num_tokens = num_bytes = 0
    for place in range(count):
        ids = tokenizer.encode(KINDS[kind](Random(f"evaluate {kind} {place}"), True).text)
        total += nats(model, ids)
        num_tokens += len(ids) - 1
        num_bytes += len(tokenizer.decode(ids[1:]).encode())
    return {
        "documents": count,
        "tokens": num_tokens,
        "per token": round(math.exp(total / num_tokens), 3),
        "per byte": round(math.exp(total / num_bytes), 4),
    }
