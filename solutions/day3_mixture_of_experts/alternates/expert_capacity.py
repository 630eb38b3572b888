"""Other right ways to `expert_capacity`."""

import math
from fractions import Fraction

from grader.mutants import alternate


@alternate
def share_in_fractions(num_tokens: int, top_k: int, num_experts: int, capacity_factor: float) -> int:
    """No rounding but the last one."""
    share = Fraction(num_tokens * top_k, num_experts) * Fraction(capacity_factor)
    return max(math.ceil(share), 1)


@alternate
def factor_first(num_tokens: int, top_k: int, num_experts: int, capacity_factor: float) -> int:
    """Division at the end, rounded up by its negative."""
    return max(-int(-capacity_factor * num_tokens * top_k // num_experts), 1)
