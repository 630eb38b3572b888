"""Parts of a learner's for an engine over a sparse model, and what the engine answers on them.

As a program it does so with Triton and prints JSON. Run it with the interpreter on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from support.models import drain, make_engine, tiny_model

from tinyllm.config import SamplingParams
from tinyllm.errors import PartError
from tinyllm.kernels.runtime import tl, triton
from tinyllm.parts import Parts, all_parts, resolve, source_file, stamp

IN_TORCH = ("topk_router", "permute", "unpermute")
IN_TRITON = ("topk_router", "moe_align_block_size")
EXPERTS, LENGTHS = 6, (1, 9, 4)

#: It divides by nothing where it is called; the name of the part is put into it.
BROKEN = """
def {name}(*arguments):
    return 1 / 0
"""
BROKEN_TILE = """
from tinyllm.kernels.runtime import tl, triton

@triton.jit
def grouped_gemm_tile(
    a_ptr, w_ptr, out_ptr, topk_weights_ptr, pairs, num_pairs, columns, a_stride, w_stride,
    N: tl.constexpr, K: tl.constexpr, PAIRS_PER_ROW: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK_K: tl.constexpr,
):
    rows = a_ptr + pairs // PAIRS_PER_ROW * no_such_stride
"""


def answers(parts: Parts | None = None, **options: Any) -> dict[str, Any]:
    """The tokens of some requests, prompts in chunks beside decodes."""
    engine = make_engine(tiny_model(num_experts=EXPERTS), parts, max_num_batched_tokens=7, **options)
    for length in LENGTHS:
        engine.add_request(list(range(length)), SamplingParams(max_tokens=5, ignore_eos=True), str(length))
    return drain(engine)


def spies(names: tuple[str, ...], calls: Counter[str]) -> Parts:
    """The references, each in a function that counts its calls."""

    def counting(name: str) -> Callable[..., Any]:
        reference = all_parts()[name].reference

        def spy(*args: Any) -> Any:
            calls[name] += 1
            return reference(*args)

        return spy

    return resolve({name: counting(name) for name in names})


def record(name: str, source: str) -> None:
    """Keep a source as the learner's, checked and right."""
    source_file(name).parent.mkdir(parents=True, exist_ok=True)
    source_file(name).write_text(source, encoding="utf-8")
    stamp(name, source, right=True)


@triton.jit
def nothing_is_stored(
    a_ptr: tl.tensor,
    w_ptr: tl.tensor,
    out_ptr: tl.tensor,
    topk_weights_ptr: tl.tensor,
    pairs: tl.tensor,
    num_pairs: tl.tensor,
    columns: tl.tensor,
    a_stride: tl.tensor,
    w_stride: tl.tensor,
    N: tl.constexpr,
    K: tl.constexpr,
    PAIRS_PER_ROW: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """A tile that leaves every product 0."""
    tl.static_assert(BLOCK_K > 0)


def main() -> None:
    """Serve on spies, on a tile that stores nothing, and on one that fails."""
    torch.set_num_threads(1)
    calls: Counter[str] = Counter()
    spied = answers(spies(IN_TRITON, calls), experts_backend="triton")
    empty = answers(resolve({"grouped_gemm_tile": nothing_is_stored}), experts_backend="triton")
    record("grouped_gemm_tile", BROKEN_TILE)
    try:
        blamed = str(answers(resolve("mine"), experts_backend="triton"))
    except PartError as error:
        blamed = str(error)
    print(json.dumps({"calls": calls, "spied": spied, "empty": empty, "blamed": blamed}))


if __name__ == "__main__":
    main()
