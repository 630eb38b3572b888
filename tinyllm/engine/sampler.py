"""From logits to tokens: temperature, top-k, top-p, and draws that no other request can disturb."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from tinyllm.config import SamplingParams


def filtered_probs(logits: Tensor, params: Sequence[SamplingParams]) -> tuple[Tensor, Tensor]:
    """Probabilities after temperature, top-k and top-p, likeliest token first.

    Args:
        logits: [n, V] float32.
        params: one for each row; temperature must be above 0.

    Returns:
        probs [n, V], summing to 1 and zero where filtered out, and the token id of each, [n, V].
    """
    device, vocab_size = logits.device, logits.shape[1]
    temperature = torch.tensor([[p.temperature] for p in params], device=device)
    top_k = torch.tensor([[p.top_k or vocab_size] for p in params], device=device)
    top_p = torch.tensor([[p.top_p] for p in params], device=device)
    # float64, so that dividing by a tiny temperature overflows later than any real logit
    scaled, token_ids = (logits.double() / temperature).sort(dim=1, descending=True, stable=True)
    scaled[torch.arange(vocab_size, device=device) >= top_k] = -torch.inf
    probs = scaled.softmax(dim=1)
    mass_before = probs.cumsum(dim=1) - probs  # 0 for the likeliest token, which therefore always stays
    probs[mass_before >= top_p] = 0.0
    return probs / probs.sum(dim=1, keepdim=True), token_ids


def draw(seed: int, index: int, position: int) -> float:
    """A uniform number in [0, 1) that depends on the request's seed, the continuation and the output position alone.

    A hash has no state: nothing drifts when other requests come and go or when this one is preempted.
    """
    digest = hashlib.blake2b(f"{seed}:{index}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def sample(logits: Tensor, params: Sequence[SamplingParams], draws: Sequence[float]) -> list[int]:
    """One token for each row.

    Args:
        logits: [n, V] float32.
        params: one for each row; temperature 0 takes the likeliest token.
        draws: a uniform number in [0, 1) for each row, used when it is sampled.

    Raises:
        FloatingPointError: a row has a NaN, so that no token can be chosen from it.
    """
    if bool(logits.isnan().any()):
        raise FloatingPointError("the logits hold NaN: attention or the model computed nonsense in this step")
    tokens = logits.argmax(dim=1)
    sampled = [row for row, p in enumerate(params) if p.temperature > 0]
    if sampled:
        rows = torch.tensor(sampled, device=logits.device)
        probs, token_ids = filtered_probs(logits[rows], [params[row] for row in sampled])
        target = torch.tensor([[draws[row]] for row in sampled], dtype=probs.dtype, device=logits.device)
        last = (probs > 0).sum(dim=1, keepdim=True) - 1  # rounding may leave the total a hair below the draw
        choice = (probs.cumsum(dim=1) <= target).sum(dim=1, keepdim=True).minimum(last)
        tokens[rows] = token_ids.gather(1, choice)[:, 0]
    return tokens.tolist()
