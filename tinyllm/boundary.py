"""What the engine gets from a learner's part is looked at where it comes out: a part is blamed for its own nonsense.

Only parts that are not the reference's are watched. What is looked at is the kind, the number and the range of what a
method returns; whether it is right is the business of the checks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from tinyllm.errors import PartError

Rule = Callable[..., str | None]  # (the object, what the method returned, its arguments) -> what is wrong, or None


def watched(name: str, part: Any) -> Any:
    """A part whose methods raise PartError in the place of handing nonsense to the engine.

    Args:
        name: the part's name in the course.
        part: the learner's class or function.
    """
    rules = RULES.get(name, {})
    if not isinstance(part, type):
        return _with_rule(name, name, part, rules[name], bound=False) if name in rules else part
    methods = {method: _with_rule(name, method, getattr(part, method, None), rule) for method, rule in rules.items()}
    methods = {method: function for method, function in methods.items() if function is not None}
    if not methods:
        return part

    def keep_arguments(self: Any, *args: Any, **kwargs: Any) -> None:
        self._made_with, self._num_steps = args, 0
        part.__init__(self, *args, **kwargs)  # type: ignore[misc]

    attributes = {"__init__": keep_arguments, "__qualname__": part.__qualname__, "__module__": part.__module__}
    return type(part)(part.__name__, (part,), {**attributes, **methods})


def _with_rule(name: str, method: str, function: Any, rule: Rule, bound: bool = True) -> Any:
    """A method or function whose result is held against a rule; None if it cannot be wrapped."""
    if not callable(function):
        return None

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        given = (*args[1:], *kwargs.values()) if bound else (*args, *kwargs.values())
        try:
            problem = rule(args[0] if bound else None, result, *given)
        except (TypeError, AttributeError, ValueError) as error:  # of a result that is of another kind altogether
            problem = f"returned {_short(result)}, which cannot be used ({error})"
        if problem:
            at = "" if method == name or problem.startswith("step ") else f"{method} "
            raise PartError(f"your {name}: {at}{problem}")
        return result

    return wrapper


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())  # a tensor's has several lines
    return text if len(text) <= 60 else text[:56] + " ..."


def _ints(result: Any, count: int, what: str) -> str | None:
    """What is wrong with a result that must be so many integers from 0 on."""
    good = len(result) == count and all(hasattr(x, "__index__") and x >= 0 for x in result)
    return None if good else f"must return {count} {what}, returned {_short(result)}"


def _allocated(allocator: Any, result: Any, num_blocks: int) -> str | None:
    size = allocator._made_with[0]
    problem = _ints(result, num_blocks, "block ids")
    if not problem and (len(set(result)) < num_blocks or any(block_id >= size for block_id in result)):
        problem = f"must return different block ids from 0 to {size - 1}, returned {_short(result)}"
    return problem


def _slots(_: Any, result: Any, *arguments: Any) -> str | None:
    return _ints(result, arguments[-1], "slots")


def _slots_between(_: Any, result: Any, start: int, stop: int) -> str | None:
    return _ints(result, stop - start, "slots")


def _count(_: Any, result: Any, *arguments: Any) -> str | None:
    return (
        None if isinstance(result, int | float) and result >= 0 else f"must return a number, returned {_short(result)}"
    )


def _yes_or_no(_: Any, result: Any, *arguments: Any) -> str | None:
    return None if isinstance(result, int) else f"must return True or False, returned {_short(result)}"


def _table(_: Any, result: Any, table: Any) -> str | None:
    alike = all(hasattr(result, name) for name in ("block_ids", "num_tokens"))
    return None if alike else f"must return a block table, returned {_short(result)}"


def _hit(cache: Any, result: Any, token_ids: Sequence[int]) -> str | None:
    longest = (len(token_ids) - 1) // cache._made_with[1]
    if len(result) > longest:
        return f"returned {len(result)} blocks for {len(token_ids)} tokens: one token must be left to compute"
    return _ints(result, len(result), "block ids")


def _pair(_: Any, result: Any, layer: int, slots: Any) -> str | None:
    k, v = result
    wanted = list(slots.shape)
    shapes = [list(x.shape)[: len(wanted)] for x in (k, v)]
    return None if shapes == [wanted, wanted] else f"must return K and V of shape [*{wanted}, Hkv, D]"


def _like_q(_: Any, result: Any, q: Any, *arguments: Any) -> str | None:
    shape = getattr(result, "shape", None)
    return None if shape == q.shape else f"must return a tensor of shape {list(q.shape)}, returned {_short(shape)}"


def _schedule(scheduler: Any, result: Any) -> str | None:
    """The whole plan of a step, drafts included."""
    scheduler._num_steps += 1
    return _plan_problem(scheduler, (result.scheduled, result.preempted), scheduler._num_steps)


def _known_tokens(scheduler: Any, result: Any) -> str | None:
    """The plan before drafts are added to it: they get what it leaves of the budget."""
    return _plan_problem(scheduler, result, scheduler._num_steps + 1)


def _plan_problem(scheduler: Any, result: Any, step: int) -> str | None:
    """A plan is within the budget, and has nobody twice and everybody with at least a token."""
    scheduled, preempted = result
    config, where = scheduler._made_with[0], f"step {step}"
    total = sum(item.num_tokens for item in scheduled)
    if total > config.max_num_batched_tokens:
        return f"{where}: {total} tokens scheduled, the budget is {config.max_num_batched_tokens}"
    names = [item.request.request_id for item in scheduled]
    for item in scheduled:
        most = item.request.num_uncomputed_tokens + len(item.request.draft_token_ids)
        if not 1 <= item.num_tokens <= most:
            return f"{where}: {item.num_tokens} tokens scheduled for {item.request.request_id!r}, which has {most} left"
    if len(set(names)) < len(names):
        return f"{where}: {max(names, key=names.count)!r} is scheduled twice"
    both = set(names) & {request.request_id for request in preempted}
    return f"{where}: {min(both)!r} is scheduled and preempted" if both else None


def _unlike(what: str, x: Any, shape: Sequence[int], like: Any, span: tuple[int, int] | None = None) -> str | None:
    """What is wrong with a tensor of this shape, on the device of `like` and in its dtype, or integers of a span."""
    kind = like.dtype if span is None else "integers"
    right_kind = x.dtype == like.dtype if span is None else "int" in str(x.dtype)
    if list(x.shape) != list(shape) or not right_kind or x.device != like.device:
        wanted, found = f"{list(shape)}, {kind}", f"{list(x.shape)}, {x.dtype}"
        return f"{what} must be {wanted} on {like.device}; it is {found} on {x.device}"
    if span is None or not x.numel():
        return None
    low, high = int(x.min()), int(x.max())
    inside = span[0] <= low and high <= span[1]
    return None if inside else f"{what} must be from {span[0]} to {span[1]}; they go from {low} to {high}"


def _routed(_: Any, result: Any, router_logits: Any, top_k: int, *arguments: Any) -> str | None:
    """Shapes, dtypes and ids in range; a weight may be NaN, as a broken request's are."""
    topk_weights, topk_ids = result
    shape, last = (len(router_logits), top_k), router_logits.shape[1] - 1
    return _unlike("topk_weights", topk_weights, shape, router_logits) or _unlike(
        "topk_ids", topk_ids, shape, router_logits, (0, last)
    )


def _permuted(_: Any, result: Any, x: Any, topk_ids: Any, num_experts: int) -> str | None:
    """A row for each pair that has an expert, and counts that add up to so many."""
    permuted, pairs, counts = result
    rows = int(((topk_ids >= 0) & (topk_ids < num_experts)).sum())
    problem = (
        _unlike("permuted", permuted, (rows, x.shape[1]), x)
        or _unlike("pairs", pairs, (rows,), x, (0, topk_ids.numel() - 1))
        or _unlike("counts", counts, (num_experts,), x, (0, rows))
    )
    if not problem and int(counts.sum()) != rows:
        problem = f"counts add up to {int(counts.sum())}, and there are {rows} rows"
    return problem


def _unpermuted(_: Any, result: Any, expert_out: Any, pairs: Any, topk_weights: Any) -> str | None:
    return _unlike("the result", result, (len(topk_weights), expert_out.shape[1]), expert_out)


def _aligned(_: Any, result: Any, topk_ids: Any, block_size: int, num_experts: int) -> str | None:
    """What a kernel follows without a look: pairs and experts that exist, and whole blocks in use."""
    sorted_token_ids, expert_ids, num_tokens = result
    pairs = topk_ids.numel()
    blocks = -(-(pairs + min(num_experts, pairs) * (block_size - 1)) // block_size)
    problem = (
        _unlike("sorted_token_ids", sorted_token_ids, (blocks * block_size,), topk_ids, (0, pairs))
        or _unlike("expert_ids", expert_ids, (blocks,), topk_ids, (-1, num_experts - 1))
        or _unlike("num_tokens_post_padded", num_tokens, (1,), topk_ids, (0, blocks * block_size))
    )
    if not problem and int(num_tokens) % block_size:
        problem = f"num_tokens_post_padded is {int(num_tokens)}, which is no multiple of {block_size}"
    return problem


def _dispatched(_: Any, result: Any, permuted: Any, counts: Any, *arguments: Any) -> str | None:
    """Rows and the three ways of counting them agree."""
    received, received_counts, sent, got = result
    problem = _ints(sent, len(sent), "numbers of rows sent") or _ints(got, len(sent), "numbers of rows got")
    if not problem and sum(sent) != len(permuted):
        problem = f"sent {list(sent)} does not add up to the {len(permuted)} rows of permuted"
    shape = len(sent), len(counts) // len(sent)
    problem = problem or _unlike("received", received, (sum(got), permuted.shape[1]), permuted)
    problem = problem or _unlike("received_counts", received_counts, shape, permuted, (0, sum(got)))
    if not problem and received_counts.sum(1).tolist() != list(got):
        problem = f"got is {list(got)}, but received_counts has {received_counts.sum(1).tolist()} rows of each rank"
    return problem


def _combined(_: Any, result: Any, expert_out: Any, sent: Any, *arguments: Any) -> str | None:
    return _unlike("the result", result, (sum(sent), expert_out.shape[1]), expert_out)


#: By part, the methods that are watched.
RULES: dict[str, dict[str, Rule]] = {
    "BlockAllocator": {"allocate": _allocated, "ref_count": _count},
    "BlockTable": {"num_new_blocks": _count, "append": _slots, "slots": _slots_between},
    "CopyOnWrite": {"fork": _table, "needs_copy": _yes_or_no, "append": _slots},
    "PagedKVCache": {"gather": _pair},
    "PrefixCache": {"match": _hit, "evict": _count},
    "Scheduler": {"schedule": _schedule, "schedule_known_tokens": _known_tokens},
    "paged_attention": {"paged_attention": _like_q},
    "topk_router": {"topk_router": _routed},
    "permute": {"permute": _permuted},
    "unpermute": {"unpermute": _unpermuted},
    "moe_align_block_size": {"moe_align_block_size": _aligned},
    "dispatch_all_to_all": {"dispatch_all_to_all": _dispatched},
    "combine_all_to_all": {"combine_all_to_all": _combined},
}
