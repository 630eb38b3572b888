# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Sampling: the k best tokens
#
# A sampler that may choose any token will sooner or later choose a bad one. Keep the k best.

# %% setup=true
import torch

from grader import check

# %% [markdown]
# <!-- head: keep_top_k -->


# %% exercise="keep_top_k" inline=true minutes="5" difficulty="1"
def keep_top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """The logits [V] with all but the k largest at minus infinity."""
    ### BEGIN SOLUTION
    best = torch.topk(logits, k).indices
    masked = torch.full_like(logits, float("-inf"))
    masked[best] = logits[best]
    return masked
    ### END SOLUTION


# %% check="keep_top_k"
check(keep_top_k)
