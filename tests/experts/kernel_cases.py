"""Hold the layer on `grouped_gemm` against a loop, interpreted: run by test_layer.py in its own process."""

from __future__ import annotations

import tempfile

import torch
from support.models import drain, make_engine, tiny_model

from tinyllm import SamplingParams
from tinyllm.experts.align import moe_align_block_size
from tinyllm.experts.layer import experts_loop, experts_triton
from tinyllm.experts.routing import topk_router
from tinyllm.kernels import reference
from tinyllm.kernels.grouped_gemm import grouped_gemm


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
    assert (got - wanted).abs().max() <= 2e-3 * (1 + wanted.abs().max())


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


if __name__ == "__main__":
    main()
