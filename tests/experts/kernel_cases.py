"""Hold `grouped_gemm` and the layer on it against float64, interpreted: run by test_layer.py in its own process."""

from __future__ import annotations

import tempfile

import torch
from support.models import drain, make_engine, tiny_model
from torch import Tensor

from tinyllm import SamplingParams
from tinyllm.experts.align import align_single_pairs, moe_align_block_size
from tinyllm.experts.layer import experts_loop, experts_triton
from tinyllm.experts.routing import topk_router
from tinyllm.kernels import reference
from tinyllm.kernels.grouped_gemm import grouped_gemm

#: T, K, E, depth, N, block size; 0 is a block a pair.
CASES = [
    (1, 1, 1, 16, 16, 16),
    (3, 1, 4, 7, 5, 16),
    (10, 2, 4, 40, 70, 16),
    (33, 3, 7, 65, 33, 16),
    (5, 2, 8, 48, 20, 0),
    (70, 2, 3, 32, 64, 64),
    (9, 2, 2, 130, 16, 32),
]
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def in_zone(tensor: Tensor, room: int = 3) -> Tensor:
    """The same numbers with NaN before, behind and between the rows."""
    padded = torch.full((*tensor.shape[:-1], tensor.shape[-1] + room), float("nan"), dtype=tensor.dtype)
    whole = torch.cat((torch.full((64,), float("nan"), dtype=tensor.dtype), padded.flatten()))
    view = whole[64:].view(padded.shape)[..., : tensor.shape[-1]]
    return view.copy_(tensor)


def run(case: tuple[int, ...], dtype: torch.dtype) -> None:
    num_tokens, top_k, num_experts, depth, columns, block = case
    generator = torch.Generator().manual_seed(sum(case))
    weights, ids = topk_router(torch.randn(num_tokens, num_experts, generator=generator), top_k, True)
    if num_tokens > 2:
        ids[1, 0] = -1
    a = torch.randn(num_tokens, depth, generator=generator).to(dtype)
    w = (torch.randn(num_experts, columns, depth, generator=generator) / depth**0.5).to(dtype)
    chosen = set(ids.flatten().tolist())
    for expert in set(range(num_experts)) - chosen:
        w[expert] = float("nan")
    blocks = moe_align_block_size(ids, block, num_experts) if block else align_single_pairs(ids, 16, num_experts)
    for rows in (a, a.repeat_interleave(top_k, dim=0)):
        for scale in (None, weights.to(dtype)):
            got = grouped_gemm(in_zone(rows), in_zone(w), *blocks, ids.numel(), scale)
            wanted = reference.grouped_gemm(rows, w, ids, scale)
            assert (got - wanted).abs().max() <= BOUNDS[dtype] * (1 + wanted.abs().max()), case


def experts_far_apart() -> None:
    """The last one begins 2**31 numbers behind the first: an int32 offset would wrap. A sparse file takes no room."""
    stride = 2**30
    ids = torch.tensor([[0], [2], [1], [2]])
    a = torch.randn(4, 16, generator=torch.Generator().manual_seed(3)).half()
    with tempfile.NamedTemporaryFile() as file:
        numbers = torch.from_file(file.name, shared=True, size=2 * stride + 256, dtype=torch.float16)
        w = numbers.as_strided((3, 16, 16), (stride, 16, 1))
        w.copy_(torch.randn(w.shape, generator=torch.Generator().manual_seed(4)))
        got = grouped_gemm(a, w, *moe_align_block_size(ids, 16, 3), 4)
        wanted = reference.grouped_gemm(a, w.contiguous(), ids)
    assert (got - wanted).abs().max() <= BOUNDS[torch.float16] * (1 + wanted.abs().max())


def the_engine_serves_with_it() -> None:
    """The same tokens as with the experts in torch, prompts in chunks beside decodes."""
    tokens = {}
    for name in ("torch", "triton"):
        model = tiny_model(num_experts=6)
        engine = make_engine(model, num_blocks=32, max_num_batched_tokens=8, experts_backend=name)
        for request_id, prompt in enumerate(([1, 2, 3], [4] * 11, [5, 6])):
            engine.add_request(prompt, SamplingParams(max_tokens=4, ignore_eos=True), str(request_id))
        tokens[name] = drain(engine)
    assert tokens["torch"] == tokens["triton"], tokens


def main() -> None:
    for case in CASES:
        run(case, torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        run(CASES[2], dtype)
    for shape in ((1, 2, 8), (10, 2, 4), (40, 3, 5)):
        generator = torch.Generator().manual_seed(5)
        num_tokens, top_k, num_experts = shape
        x, router = (torch.randn(num_tokens, n, generator=generator) for n in (24, num_experts))
        gate_up = torch.randn(num_experts, 2 * 20, 24, generator=generator) / 5
        down = torch.randn(num_experts, 24, 20, generator=generator) / 5
        weights, ids = topk_router(router, top_k, True)
        wanted = experts_loop(x, weights, ids, gate_up, down)
        assert (experts_triton(x, weights, ids, gate_up, down) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    experts_far_apart()
    the_engine_serves_with_it()
    print(f"{len(CASES) + 2 + 3} cases")


if __name__ == "__main__":
    main()
