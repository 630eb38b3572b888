"""RoPE, RMSNorm and the MLP against their definitions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tinyllm.model.layers import MLP, RMSNorm
from tinyllm.model.rope import apply_rotary, rotary_cos_sin


def test_rope_turns_each_pair_of_channels_as_a_complex_number() -> None:
    head_dim, theta = 8, 100.0
    positions = torch.tensor([0, 1, 5, 77])
    x = torch.randn(4, 3, head_dim)
    angles = positions[:, None] * theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    expected = torch.cat((turned.real, turned.imag), dim=-1)
    cos, sin = rotary_cos_sin(positions, head_dim, theta)
    assert torch.allclose(apply_rotary(x, cos, sin), expected, atol=1e-5)


def test_after_rope_scores_depend_on_the_distance_only() -> None:
    q, k = torch.randn(1, 1, 16, dtype=torch.float64), torch.randn(1, 1, 16, dtype=torch.float64)

    def score(query_position: int, key_position: int) -> float:
        turned = [
            apply_rotary(x, *rotary_cos_sin(torch.tensor([position]), 16, 10_000.0))
            for x, position in ((q, query_position), (k, key_position))
        ]
        return float((turned[0] * turned[1]).sum())

    assert abs(score(3, 1) - score(502, 500)) < 1e-4
    assert abs(score(3, 1) - score(3, 2)) > 1e-3


def test_rope_keeps_the_dtype() -> None:
    cos, sin = rotary_cos_sin(torch.arange(4), 8, 10_000.0)
    assert apply_rotary(torch.randn(4, 2, 8, dtype=torch.bfloat16), cos, sin).dtype == torch.bfloat16


def test_rms_norm_is_its_definition() -> None:
    norm = RMSNorm(10, eps=1e-3)
    torch.nn.init.normal_(norm.weight)
    x = 1e-2 * torch.randn(7, 3, 10)  # so small that eps matters
    root_mean_square = (x.double().pow(2).mean(dim=-1, keepdim=True) + 1e-3).sqrt()
    assert torch.allclose(norm(x).double(), norm.weight.double() * x.double() / root_mean_square, atol=1e-6)
    assert norm.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


def test_the_fused_mlp_is_gate_times_up() -> None:
    mlp = MLP(6, 10)
    x = torch.randn(5, 6)
    gate, up = mlp.gate_up_proj.weight.split(10)
    expected = (F.silu(x @ gate.T) * (x @ up.T)) @ mlp.down_proj.weight.T
    assert torch.allclose(mlp(x), expected, atol=1e-6)
