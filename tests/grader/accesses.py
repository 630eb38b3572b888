"""Prints, as JSON, how launches of small kernels end when their accesses are watched. Run with the interpreter on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from grader.running.interpreter import make_faster, rewrite_shared_functions
from grader.running.kernel_access import access_rules, watch_kernels
from tinyllm.kernels.runtime import tl, triton


@triton.jit
def copy(x_ptr, out_ptr, first, count, stride, BLOCK: tl.constexpr):
    numbers = first + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + numbers * stride, mask=numbers < count)
    tl.store(out_ptr + numbers, x, mask=numbers < 3)


@triton.jit
def two_masks(x_ptr, out_ptr, first, BLOCK: tl.constexpr):
    numbers = first + tl.arange(0, BLOCK)
    inside = (numbers >= 0) & (numbers < 3)
    tl.store(out_ptr + numbers, tl.load(x_ptr + numbers, mask=inside), mask=inside & (first > -3))


@triton.jit
def copy_rows(x_ptr, out_ptr, stride, dtype: tl.constexpr):
    row = tl.program_id(0).to(dtype)
    tl.store(out_ptr + row, tl.load(x_ptr + row * stride))


@triton.jit
def add(x_ptr, out_ptr):
    tl.atomic_add(out_ptr + 3, tl.load(x_ptr))


@triton.jit
def swap(x_ptr, out_ptr):
    tl.atomic_cas(out_ptr + 3, 0, tl.load(x_ptr).to(tl.int32))


@triton.jit
def through_a_block(x_ptr, out_ptr, CHECKED: tl.constexpr):
    block = tl.make_block_ptr(x_ptr, shape=(3,), strides=(1,), offsets=(0,), block_shape=(4,), order=(0,))
    x = tl.load(block, boundary_check=(0,)) if CHECKED else tl.load(block)
    tl.store(out_ptr + tl.arange(0, 4), x, mask=tl.arange(0, 4) < 3)


@triton.jit
def doubled_total(x):
    return tl.sum(x, 0) + tl.max(tl.cumsum(x, 0), 0)


@triton.jit
def total(x_ptr, out_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK), mask=tl.arange(0, BLOCK) < 3, other=0.0)
    tl.store(out_ptr + tl.program_id(0), doubled_total(x))


def told(launch: Callable[[], Any]) -> str:
    """What is wrong with a launch; empty if nothing is."""
    try:
        launch()
    except Exception as error:
        return f"{type(error.__cause__).__name__}: {error.__cause__}"
    return ""


def main() -> None:
    """Try everything."""
    before = tl.load, tl.sum
    make_faster()
    rewrite_shared_functions()
    watch_kernels()
    watch_kernels()  # twice is once
    x, out, counts, wide = torch.arange(9.0)[3:6], torch.zeros(3), torch.zeros(3, dtype=torch.int32), torch.zeros(6, 2)
    grid = (1,)
    told_of = {
        "within": told(lambda: copy[grid](x, out, 0, 3, 1, BLOCK=4)),
        "two masks": told(lambda: two_masks[grid](x, out, -1, BLOCK=4)),
        "all masked": told(lambda: two_masks[grid](x, out, -9, BLOCK=4)),
        "no mask": told(lambda: copy[grid](x, out, 0, 9, 1, BLOCK=4)),
        "before": told(lambda: copy[grid](x, out, -2, 3, 1, BLOCK=4)),
        "far": told(lambda: copy[grid](x, out, 0, 3, 2**40, BLOCK=4)),
        "written": told(lambda: copy[grid](x, out[:2], 0, 3, 1, BLOCK=4)),
        "between rows": told(lambda: copy[grid](wide[:, 0], out, 0, 3, 1, BLOCK=4)),
        "strided": told(lambda: copy[grid](wide[:, 0], out, 0, 3, 2, BLOCK=4)),
        "another tensor": told(lambda: copy[grid](wide[:, 0], wide[:, 1], 0, 3, 1, BLOCK=4)),
        "atomic": told(lambda: add[grid](x, out)),
        "compare and swap": told(lambda: swap[grid](x, counts)),
        "block": told(lambda: through_a_block[grid](x, out, CHECKED=True)),
        "block unchecked": told(lambda: through_a_block[grid](x, out, CHECKED=False)),
    }
    with access_rules() as rules:
        rules.only(x, [x[:1], x[2:]])
        told_of["not this entry"] = told(lambda: copy[grid](x, out, 0, 3, 1, BLOCK=4))
        far_x, far_out = rules.spread(x), torch.zeros(3)
        told_of["far rows"] = told(lambda: copy_rows[(3,)](far_x, far_out, far_x.stride(0), tl.int64))
        told_of["overflow"] = told(lambda: copy_rows[(3,)](far_x, far_out, far_x.stride(0), tl.int32))
        pool = torch.zeros(4, 2, 8)[:, :, :3]
        far_pool = rules.spread(pool)
        told_of["far pool"] = told(lambda: copy[grid](far_x, far_pool[3, 1], 0, 1, 1, BLOCK=4))
    told_of["rules are over"] = told(lambda: copy[grid](x, out, 0, 3, 1, BLOCK=4))
    totals = torch.zeros(2, 2)
    for row in totals:  # what a launch has replaced in the language it takes back, and the next replaces it again
        told_of["total"] = told(lambda row=row: total[(2,)](x, row, BLOCK=4))
        told_of["replaced"] = "" if (tl.load, tl.sum) == before else "the language is not as it was"
    print(
        json.dumps(
            {
                "totals": totals.tolist(),
                "told": told_of,
                "far_out": far_out.tolist(),
                "x": x.tolist(),
                "pool": pool.tolist(),
            }
        )
    )


if __name__ == "__main__":
    main()
