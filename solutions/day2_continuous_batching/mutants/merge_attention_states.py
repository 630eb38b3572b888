"""Mistakes that people make in `merge_attention_states`."""

import torch
from torch import Tensor

from grader.mutants import mutant, unknown_bug, variant


@mutant
def weighs_by_the_logarithms(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """You weigh the two outputs by their log-sum-exps. These are logarithms: what a softmax adds up, and shares out,
    are their exponentials."""
    share_a = lse_a / (lse_a + lse_b)
    out = share_a[..., None] * out_a + (1 - share_a)[..., None] * out_b
    return out, torch.logaddexp(lse_a, lse_b)


@variant(weighs_by_the_logarithms)
def shares_out_logarithms(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The same, summed up first and divided at the end."""
    total = lse_a + lse_b
    out = (out_a * lse_a.unsqueeze(-1) + out_b * lse_b.unsqueeze(-1)) / total.unsqueeze(-1)
    highest = torch.maximum(lse_a, lse_b)
    shift = torch.where(highest == -torch.inf, torch.zeros_like(highest), highest)
    return out, shift + ((lse_a - shift).exp() + (lse_b - shift).exp()).log()


@mutant
def takes_exp_as_it_is(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """You take exp of a log-sum-exp as it is. In float32 that is infinite from about 89 on, and 0 far below zero.
    Take the larger of the two out of both first: only their difference matters."""
    sum_a, sum_b = lse_a.exp(), lse_b.exp()
    total = sum_a + sum_b
    part_a = torch.where(lse_a[..., None] == -torch.inf, 0.0, out_a * sum_a[..., None])
    part_b = torch.where(lse_b[..., None] == -torch.inf, 0.0, out_b * sum_b[..., None])
    nothing = torch.maximum(lse_a, lse_b) == -torch.inf
    return (part_a + part_b) / torch.where(nothing, 1.0, total)[..., None], total.log()


@variant(takes_exp_as_it_is)
def adds_the_sums_up(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The same, with the parts stacked."""
    lses, outs = torch.stack([lse_a, lse_b]), torch.stack([out_a, out_b])
    sums = torch.exp(lses)
    weights = sums / sums.sum(0)
    weights = weights.masked_fill((lses == -torch.inf).all(0), 0.0)
    outs = outs.masked_fill((lses == -torch.inf)[..., None], 0.0)
    return (weights[..., None] * outs).sum(0), sums.sum(0).log()


@mutant
def does_not_divide(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """You add up the weighted outputs, but the weights do not add up to 1. Each output was divided by its own set's
    sum; the merged one must be divided by the sum over both."""
    highest = torch.maximum(lse_a, lse_b)
    shift = highest.masked_fill(highest.isneginf(), 0.0)
    share_a, share_b = (lse_a - shift).exp(), (lse_b - shift).exp()
    part_a = out_a.masked_fill((share_a == 0)[..., None], 0.0) * share_a[..., None]
    part_b = out_b.masked_fill((share_b == 0)[..., None], 0.0) * share_b[..., None]
    return part_a + part_b, shift + (share_a + share_b).log()


@variant(does_not_divide)
def rescales_and_adds(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The same: the larger set counts in full, the other by its ratio to it."""
    ratio = (-(lse_a - lse_b).abs()).exp().nan_to_num(0.0)
    a_is_larger = lse_a >= lse_b
    larger = torch.where(a_is_larger[..., None], out_a, out_b)
    smaller = torch.where(a_is_larger[..., None], out_b, out_a)
    smaller = torch.where(ratio[..., None] == 0, 0.0, smaller)
    nothing = torch.maximum(lse_a, lse_b) == -torch.inf
    larger = torch.where(nothing[..., None], 0.0, larger)
    return larger + ratio[..., None] * smaller, torch.logaddexp(lse_a, lse_b)


@mutant
def forgets_the_shift(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The merged log-sum-exp lacks what you took out of both. The shift cancels in the output, but in the
    log-sum-exp it must be added again, or the next merge weighs this state wrongly."""
    highest = torch.maximum(lse_a, lse_b)
    shift = highest.masked_fill(highest.isneginf(), 0.0)
    share_a, share_b = (lse_a - shift).exp(), (lse_b - shift).exp()
    total = share_a + share_b
    part_a = out_a.masked_fill((share_a == 0)[..., None], 0.0) * share_a[..., None]
    part_b = out_b.masked_fill((share_b == 0)[..., None], 0.0) * share_b[..., None]
    return (part_a + part_b) / total.masked_fill(total == 0, 1.0)[..., None], total.log()


@variant(forgets_the_shift)
def returns_the_shifted_sum(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The same, in the weights of a softmax over the two sets."""
    lses = torch.stack([lse_a, lse_b], -1)
    weights = torch.softmax(lses, -1).nan_to_num(0.0)
    outs = torch.stack([out_a, out_b], -1).masked_fill(lses.isneginf().unsqueeze(-2), 0.0)
    shifted = lses - lses.amax(-1, keepdim=True).clamp(min=-1e38)
    return (outs * weights.unsqueeze(-2)).sum(-1), shifted.logsumexp(-1)


@mutant
def keeps_the_larger(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The merged log-sum-exp is only the larger of the two. The positions of the other set count as well: the sums
    behind both are added."""
    lse = torch.logaddexp(lse_a, lse_b)
    safe = lse.masked_fill(lse.isneginf(), 0.0)
    part_a = out_a.masked_fill(lse_a.isneginf()[..., None], 0.0) * (lse_a - safe).exp()[..., None]
    part_b = out_b.masked_fill(lse_b.isneginf()[..., None], 0.0) * (lse_b - safe).exp()[..., None]
    return part_a + part_b, torch.maximum(lse_a, lse_b)


@variant(keeps_the_larger)
def stacks_and_takes_the_maximum(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The same, with a softmax over the two sets."""
    lses = torch.stack([lse_a, lse_b])
    weights = torch.softmax(lses, 0).nan_to_num(0.0)
    outs = torch.stack([out_a, out_b]).masked_fill(lses.isneginf()[..., None], 0.0)
    return (weights[..., None] * outs).sum(0), lses.amax(0)


@mutant
def fails_on_two_empty_sets(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Two empty sets give NaN: -inf minus -inf, or 0 divided by 0. Where the larger of the two is -inf there is
    nothing to take out, and nothing to divide by."""
    highest = torch.maximum(lse_a, lse_b)
    share_a, share_b = (lse_a - highest).exp(), (lse_b - highest).exp()
    total = share_a + share_b
    part_a = out_a.masked_fill((share_a == 0)[..., None], 0.0) * share_a[..., None]
    part_b = out_b.masked_fill((share_b == 0)[..., None], 0.0) * share_b[..., None]
    return (part_a + part_b) / total[..., None], highest + total.log()


@variant(fails_on_two_empty_sets)
def subtracts_the_merged_one(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The same, with the merged log-sum-exp taken out of both."""
    lse = torch.logaddexp(lse_a, lse_b)
    out = torch.zeros_like(out_a)
    for part, part_lse in ((out_a, lse_a), (out_b, lse_b)):
        weight = torch.exp(part_lse - lse).unsqueeze(-1)
        out = out + torch.where(weight > 0, part * weight, weight)
    return out, lse


@mutant
def reads_an_empty_set(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """You multiply the output of an empty set by 0 and hope that it is gone. Nobody has written that output: it may
    hold NaN, and 0 times NaN is NaN. Leave it out instead, for example with `torch.where` or `masked_fill`."""
    highest = torch.maximum(lse_a, lse_b)
    shift = highest.masked_fill(highest.isneginf(), 0.0)
    share_a, share_b = (lse_a - shift).exp(), (lse_b - shift).exp()
    total = share_a + share_b
    out = (out_a * share_a[..., None] + out_b * share_b[..., None]) / total.masked_fill(total == 0, 1.0)[..., None]
    return out, shift + total.log()


@variant(reads_an_empty_set)
def multiplies_by_a_softmax(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The same, with a softmax over the two sets."""
    lses = torch.stack([lse_a, lse_b])
    weights = torch.softmax(lses, 0).nan_to_num(0.0)
    return (weights[..., None] * torch.stack([out_a, out_b])).sum(0), torch.logaddexp(lse_a, lse_b)


@unknown_bug
def merges_with_powers_of_two(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Takes the natural logarithms for binary ones."""
    highest = torch.maximum(lse_a, lse_b)
    shift = highest.masked_fill(highest.isneginf(), 0.0)
    share_a, share_b = (lse_a - shift).exp2(), (lse_b - shift).exp2()
    total = share_a + share_b
    part_a = out_a.masked_fill((share_a == 0)[..., None], 0.0) * share_a[..., None]
    part_b = out_b.masked_fill((share_b == 0)[..., None], 0.0) * share_b[..., None]
    return (part_a + part_b) / total.masked_fill(total == 0, 1.0)[..., None], shift + total.log2()
