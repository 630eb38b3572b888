"""The oracle of `load_balancing_loss` against itself: its gradient in closed form, and by small steps in the logits."""

from __future__ import annotations

import pytest
import torch

from grader.checks.day3.load_balancing_loss import by_definition, drawn


@pytest.mark.parametrize(("num_tokens", "num_experts", "top_k"), [(1, 2, 1), (5, 4, 2), (6, 5, 5)])
def test_the_gradient_in_closed_form_is_that_of_small_steps(num_tokens: int, num_experts: int, top_k: int) -> None:
    rows = drawn(num_tokens, num_experts, top_k, crowd=2)["router_logits"].tolist()
    _, grad = by_definition(rows, top_k)
    small = 1e-5  # far less than from one logit to the next, so nobody is chosen otherwise
    for token, row in enumerate(rows):
        for expert in range(num_experts):
            losses = []
            for change in (small, -small):
                moved = [*row[:expert], row[expert] + change, *row[expert + 1 :]]
                losses.append(by_definition([*rows[:token], moved, *rows[token + 1 :]], top_k)[0])
            slope = (losses[0] - losses[1]) / (2 * small)
            assert grad[token, expert].item() == pytest.approx(slope, abs=1e-8)
    assert torch.allclose(grad.sum(dim=1), torch.zeros(num_tokens).double(), atol=1e-12)
