"""The attention kernels against the device's own limits, and against the kernels of others.

Decode reads each K and V once, so it is held against the bandwidth of a plain copy on the same device; it is replayed
from a CUDA graph, as the engine does, since launching it from Python takes longer than a short context. Prefill is
arithmetic, so it is held against `scaled_dot_product_attention` on K and V that lie in one piece, against
FlexAttention, and against FlashInfer over the same pages where it is installed. All are checked to compute the same
before they are timed.

    python -m benchmarks.kernels              writes benchmarks/results/kernels.json; needs an NVIDIA GPU
    python -m benchmarks.kernels --seed 1     another draw of lengths and numbers
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import PREFILL_PEERS, flashinfer_decode
from benchmarks.record import write_result
from tinyllm.kernels import reference

BLOCK_SIZE = 16
SPLIT_SIZES = (256, 512, 1024, 2048, 4096)
#: Two answers in bfloat16 agree when they differ by less.
TOLERANCE = 2e-2

#: The milliseconds that a call takes; the median of many, with the L2 cache emptied before each.
Timer = Callable[[Callable[[], object]], float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured.

    Attributes:
        num_heads, num_kv_heads, head_dim: of the attention; Qwen3-0.6B's by default.
        batch: sequences and the range of their lengths for the full batch.
        long_contexts: sequences and the length of each, for decode with few sequences.
        prefills: new tokens and context length of single sequences.
        stored_tokens: tokens that store_kv stores.
        copy_bytes: size of the copy that measures the bandwidth.
    """

    num_heads: int = 16
    num_kv_heads: int = 8
    head_dim: int = 128
    batch: tuple[int, int, int] = (64, 4096, 8192)
    long_contexts: tuple[tuple[int, int], ...] = ((1, 131_072), (2, 65_536), (4, 32_768), (1, 8_192))
    prefills: tuple[tuple[int, int], ...] = ((1024, 1024), (4096, 4096), (16_384, 16_384), (512, 8192))
    stored_tokens: int = 16_384
    copy_bytes: int = 2**32


@dataclass(frozen=True, slots=True)
class Pages:
    """Sequences in a pool, as all attention kernels take them.

    Attributes:
        arguments: q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size.
        query_lens, context_lens: the same as Python numbers.
    """

    arguments: tuple[Any, ...]
    query_lens: tuple[int, ...]
    context_lens: tuple[int, ...]


def make_pages(sizes: Sizes, query_lens: Sequence[int], context_lens: Sequence[int], device: str, seed: int) -> Pages:
    """Random sequences in bfloat16, their blocks in random order over the pool."""
    torch.manual_seed(seed)
    blocks = [-(-length // BLOCK_SIZE) for length in context_lens]
    order = torch.randperm(sum(blocks), dtype=torch.int32)
    tables = torch.zeros(len(blocks), max(blocks), dtype=torch.int32)
    for i, first in enumerate(accumulate([0, *blocks[:-1]])):
        tables[i, : blocks[i]] = order[first : first + blocks[i]]
    in_bfloat16 = {"dtype": torch.bfloat16, "device": device}
    k_cache, v_cache = (
        torch.randn(len(order) * BLOCK_SIZE, sizes.num_kv_heads, sizes.head_dim, **in_bfloat16)  # type: ignore[call-overload]
        for _ in range(2)
    )
    q = torch.randn(sum(query_lens), sizes.num_heads, sizes.head_dim, **in_bfloat16)  # type: ignore[call-overload]
    lens = torch.tensor(context_lens, dtype=torch.int32, device=device)
    starts = torch.tensor([0, *accumulate(query_lens)], dtype=torch.int32, device=device)
    where = (tables.to(device), lens, starts, BLOCK_SIZE)
    return Pages((q, k_cache, v_cache, *where), tuple(query_lens), tuple(context_lens))


def agrees(name: str, got: Tensor, expected: Tensor) -> None:
    """Stop the benchmark when two kernels compute different things: their times would mean nothing."""
    error = float((got.float() - expected.float()).abs().max())
    if not error < TOLERANCE:
        raise SystemExit(f"{name} is off by {error:.2e}; nothing was written")


def copy_bandwidth(sizes: Sizes, device: str, timer: Timer) -> float:
    """Bytes a second that a copy within the device moves, read and written counted."""
    source = torch.zeros(sizes.copy_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * sizes.copy_bytes / timer(lambda: target.copy_(source)) * 1e3


def replayed(call: Callable[[], object], device: str) -> Callable[[], object]:
    """The same call as a replay of a CUDA graph; on a CPU the call itself."""
    if device == "cpu":
        return call
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def measure_decode(sizes: Sizes, context_lens: Sequence[int], copy: float, device: str, seed: int, timer: Timer) -> Any:
    """One decode step of these sequences, each way: time, and bytes of K and V a second as a share of the copy's."""
    from tinyllm.kernels.paged_decode import paged_decode
    from tinyllm.kernels.paged_decode_split import paged_decode_split

    pages = make_pages(sizes, [1] * len(context_lens), context_lens, device, seed)
    calls: dict[str, Callable[[], Tensor]] = {"paged_decode": lambda: paged_decode(*pages.arguments)}
    for size in SPLIT_SIZES:
        calls[f"paged_decode_split {size}"] = partial(paged_decode_split, *pages.arguments, split_size=size)
    peer = flashinfer_decode(pages.arguments, pages.context_lens)
    if isinstance(peer, str):
        absent = {"flashinfer": peer}
    else:
        absent, calls["flashinfer"] = {}, peer
    expected = reference.paged_attention_with_lse(*pages.arguments)[0]
    num_bytes = 2 * sum(context_lens) * sizes.num_kv_heads * sizes.head_dim * 2
    rows = {}
    for name, call in calls.items():
        agrees(name, call(), expected)
        milliseconds = timer(replayed(call, device))
        rate = num_bytes / milliseconds * 1e3
        rows[name] = {"milliseconds": milliseconds, "bytes_per_second": rate, "share_of_copy": rate / copy}
    return {
        "kv_bytes": num_bytes,
        "floor_milliseconds": num_bytes / copy * 1e3,
        "chosen": chosen_kernel(sizes, pages, device),
        "kernels": rows,
        "not_measured": absent,
    }


def chosen_kernel(sizes: Sizes, pages: Pages, device: str) -> str:
    """What the engine would take for this batch, and its split size."""
    from tinyllm.attention.triton import num_processors
    from tinyllm.kernels.paged_decode_split import choose_split_size

    max_context = pages.arguments[3].shape[1] * BLOCK_SIZE
    num_programs = len(pages.context_lens) * sizes.num_kv_heads
    split = choose_split_size(num_programs, max_context, num_processors(torch.device(device)))
    return "paged_decode" if split is None else f"paged_decode_split {split}"


def measure_prefill(sizes: Sizes, query_len: int, context_len: int, device: str, seed: int, timer: Timer) -> Any:
    """One chunk of one sequence: time and operations a second, ours and each peer's."""
    from tinyllm.kernels.paged_prefill import paged_prefill

    pages = make_pages(sizes, [query_len], [context_len], device, seed)
    calls: dict[str, Callable[[], Tensor]] = {
        "paged_prefill": lambda: paged_prefill(*pages.arguments, max_query_len=query_len)
    }
    absent = {}
    for name, make in PREFILL_PEERS.items():
        peer = make(pages.arguments, query_len, context_len)
        if isinstance(peer, str):
            absent[name] = peer
        else:
            calls[name] = peer
    expected = calls["paged_prefill"]()
    if query_len * context_len <= 2**22:  # the reference makes the whole matrix of scores
        agrees("paged_prefill", expected, reference.paged_attention_with_lse(*pages.arguments)[0])
    pairs = query_len * (2 * context_len - query_len + 1) // 2
    operations = 4 * pairs * sizes.num_heads * sizes.head_dim
    rows = {}
    for name, call in calls.items():
        agrees(name, call(), expected)
        milliseconds = timer(call)
        rows[name] = {"milliseconds": milliseconds, "operations_per_second": operations / milliseconds * 1e3}
    peers = [row["milliseconds"] for name, row in rows.items() if name != "paged_prefill"]
    ratio = min(peers) / rows["paged_prefill"]["milliseconds"] if peers else None
    return {"operations": operations, "kernels": rows, "speed_over_best_peer": ratio, "not_measured": absent}


def measure_store(sizes: Sizes, copy: float, device: str, timer: Timer) -> dict[str, float]:
    """Storing many tokens: bytes read and written a second as a share of the copy's."""
    from tinyllm.kernels.store_kv import store_kv

    shape = (sizes.stored_tokens, sizes.num_kv_heads, sizes.head_dim)
    k, v, k_cache, v_cache = (torch.zeros(shape, dtype=torch.bfloat16, device=device) for _ in range(4))
    slots = torch.randperm(sizes.stored_tokens).to(device)
    milliseconds = timer(lambda: store_kv(k, v, k_cache, v_cache, slots))
    rate = 4 * k.numel() * 2 / milliseconds * 1e3
    return {"milliseconds": milliseconds, "bytes_per_second": rate, "share_of_copy": rate / copy}


def measure(sizes: Sizes, device: str, seed: int, timer: Timer) -> dict[str, Any]:
    """The whole study."""
    copy = copy_bandwidth(sizes, device, timer)
    count, shortest, longest = sizes.batch
    lens = torch.randint(shortest, longest + 1, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    print(f"copy: {copy / 1e12:.2f} TB/s")
    return {
        "copy_bytes_per_second": copy,
        "store_kv": measure_store(sizes, copy, device, timer),
        "decode_batch": measure_decode(sizes, lens, copy, device, seed, timer),
        "decode_long_context": {
            f"{number} x {length}": measure_decode(sizes, [length] * number, copy, device, seed, timer)
            for number, length in sizes.long_contexts
        },
        "prefill": {
            f"{query_len} of {context_len}": measure_prefill(sizes, query_len, context_len, device, seed, timer)
            for query_len, context_len in sizes.prefills
        },
    }


def settings(sizes: Sizes) -> dict[str, Any]:
    """What is chosen before the run."""
    return {
        "num_heads": sizes.num_heads,
        "num_kv_heads": sizes.num_kv_heads,
        "head_dim": sizes.head_dim,
        "dtype": "bfloat16",
        "block_size": BLOCK_SIZE,
        "batch": sizes.batch,
        "triton": metadata.version("triton"),
    }


def main() -> None:
    """Run the study and write its result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels",
        description="The attention kernels against the device's copy bandwidth and the kernels of others.",
        epilog="example: python -m benchmarks.kernels --seed 0",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the lengths and numbers (default 0)")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark times compiled kernels and needs an NVIDIA GPU that torch can use")
    from triton.testing import do_bench

    def timer(call: Callable[[], object]) -> float:
        return float(do_bench(call, warmup=50, rep=300, return_mode="median"))

    sizes = Sizes()
    print(write_result("kernels", args.seed, settings(sizes), measure(sizes, "cuda", args.seed, timer)))


if __name__ == "__main__":
    main()
