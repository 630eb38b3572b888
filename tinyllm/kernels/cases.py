"""The shapes that the kernels are tried on: odd ones on purpose. Needs no Triton."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

KERNELS = ("store_kv", "paged_decode", "paged_decode_split", "paged_prefill")


@dataclass(frozen=True, slots=True)
class Case:
    """One call of one kernel on B sequences.

    Attributes:
        kernel: one of `KERNELS`.
        query_lens: new tokens of each sequence.
        context_lens: tokens of each sequence in the cache, the new ones included.
        sharpness: factor of the queries; above 1 it makes scores large and attention peaked.
        split_size: for paged_decode_split.
        dtype: "float32", "float16" or "bfloat16".
    """

    kernel: str
    query_lens: tuple[int, ...]
    context_lens: tuple[int, ...]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int
    sliding_window: int | None = None
    sharpness: float = 1.0
    split_size: int = 32
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """What the case is called in reports: unique in a grid."""
        shape = f"q{list(self.query_lens)} ctx{list(self.context_lens)} h{self.num_heads}/{self.num_kv_heads}"
        rest = f"d{self.head_dim} block{self.block_size} window{self.sliding_window} x{self.sharpness:g}"
        split = f" split{self.split_size}" if self.kernel == "paged_decode_split" else ""
        return f"{self.kernel} {self.dtype} {shape} {rest}{split}".replace(", ", ",")


@dataclass(frozen=True, slots=True)
class GroupedCase:
    """One call of the grouped product.

    Attributes:
        counts: pairs of each expert, in any order among all pairs.
        pairs_per_row: pairs that share a row of a.
        depth, columns: K and N of the experts' matrices.
        block_size: pairs of a block, at least 16.
        absent: pairs that no expert has.
        weighted: the dtype of the pairs' weights; "" where they have none.
        room: numbers between the rows of a and of w that are nobody's.
        large: sums that float16 cannot hold, which the weights make smaller.
        dtype: "float32", "float16" or "bfloat16".
    """

    counts: tuple[int, ...]
    pairs_per_row: int
    depth: int
    columns: int
    block_size: int
    absent: int = 0
    weighted: str = ""
    room: int = 0
    large: bool = False
    dtype: str = "float32"

    @property
    def kernel(self) -> str:
        """The kernel that it is for."""
        return "grouped_gemm"

    @property
    def name(self) -> str:
        """What the case is called in reports: unique in a grid."""
        pairs = f"pairs{list(self.counts)}+{self.absent} in{self.pairs_per_row}s {self.depth}x{self.columns}"
        rest = f"block{self.block_size} room{self.room} {self.weighted or 'no'} weights{' large' * self.large}"
        return f"{self.kernel} {self.dtype} {pairs} {rest}".replace(", ", ",")


def decode(context_lens: tuple[int, ...], *shape: int, query_lens: tuple[int, ...] = (), **rest: object) -> Case:
    """A decode case: one new token a sequence unless said otherwise."""
    return Case("paged_decode", query_lens or (1,) * len(context_lens), context_lens, *shape, **rest)  # type: ignore[arg-type]


def prefill(query_lens: tuple[int, ...], context_lens: tuple[int, ...], *shape: int, **rest: object) -> Case:
    """A prefill case."""
    return Case("paged_prefill", query_lens, context_lens, *shape, **rest)  # type: ignore[arg-type]


#: Heads, K/V heads, head dimension and block size stand after the lengths. Small: the interpreter takes some 5 ms for
#: a tile.
DECODES = (
    decode((1,), 1, 1, 32, 1),
    decode((130,), 2, 1, 64, 16),
    decode((17, 1, 64), 4, 2, 64, 16),
    decode((5, 64, 65), 6, 2, 32, 3),
    decode((33, 8), 8, 1, 128, 16, sharpness=8.0),
    decode((20, 7), 5, 1, 48, 3, sliding_window=6),
    decode((40, 0), 2, 2, 16, 4),
    decode((40,), 2, 1, 256, 16),
    decode((70,), 80, 1, 32, 16),
    decode((9, 150), 3, 3, 80, 5, sliding_window=100),
    decode((12, 10, 30), 4, 2, 32, 16, query_lens=(1, 3, 1)),
    decode((31, 6), 2, 2, 64, 7, sliding_window=1),
    decode((300, 1, 129), 6, 2, 64, 16),
    decode((200, 40), 2, 1, 128, 24, sliding_window=130),
)
PREFILLS = (
    prefill((1,), (1,), 1, 1, 32, 1),
    prefill((5,), (5,), 2, 2, 64, 16),
    prefill((1, 7, 33), (1, 20, 90), 4, 2, 32, 3),
    prefill((40,), (140,), 3, 1, 64, 16),
    prefill((18, 2), (150, 2), 2, 1, 128, 16, sharpness=8.0),
    prefill((9, 0, 16), (30, 4, 16), 5, 1, 48, 1),
    prefill((20,), (90,), 2, 2, 64, 16, sliding_window=7),
    prefill((6, 30), (6, 130), 6, 2, 80, 7, sliding_window=64),
    prefill((6,), (40,), 4, 2, 256, 16),
    prefill((3,), (25,), 40, 1, 16, 5),
)
#: Pairs of the experts, pairs a row, K, N and block size. One pair, experts without any, sizes that fill no tile.
GROUPED = (
    GroupedCase((1,), 1, 16, 16, 16),
    GroupedCase((1, 0, 2, 0), 1, 7, 5, 16, room=3),
    GroupedCase((9, 3, 0, 6), 2, 40, 70, 16, absent=2, room=5),
    GroupedCase((40, 0, 25, 1, 16, 15, 1), 3, 65, 33, 16, absent=1, weighted="float32"),
    GroupedCase((0, 16), 1, 48, 128, 16, weighted="float32", room=1),
    GroupedCase((75, 0, 65), 2, 32, 64, 64),
    GroupedCase((7, 11), 2, 130, 16, 32, weighted="float32"),
)
#: One shape of each in the other dtypes too, by place in the tuples above.
IN_ALL_DTYPES = (2, 3, 4, 6, 12)


def interpreter_grid() -> tuple[Case | GroupedCase, ...]:
    """Shapes for the interpreter: every oddity once, in about a minute."""
    return (*spread(DECODES, PREFILLS, IN_ALL_DTYPES), *grouped_spread(GROUPED, IN_ALL_DTYPES))


def device_grid() -> tuple[Case | GroupedCase, ...]:
    """Shapes for a GPU: all small ones and larger ones, in every dtype."""
    decodes, prefills = list(DECODES), list(PREFILLS)
    groups = cycle(((8, 8), (8, 2), (14, 2), (16, 1)))  # four beside three below: all pairs come up
    for head_dim in (32, 64, 96, 128, 192, 256):
        for block_size, window in ((1, None), (16, None), (48, 1000)):
            shape = (*next(groups), head_dim, block_size)
            decodes.append(decode((1, 1023, 4096, 777), *shape, sliding_window=window, split_size=512))
            prefills.append(prefill((300, 1, 129, 64), (300, 900, 1500, 64), *shape, sliding_window=window))
    grouped = list(GROUPED)
    for block_size in (16, 64):
        counts = (300, 0, 1, 129, 64, 17, 1)
        grouped.append(GroupedCase(counts, 8, 2048, 1536, block_size, room=16))  # of Qwen3-30B-A3B
        grouped.append(GroupedCase(counts, 1, 768, 2048, block_size, weighted="float32"))
        grouped.append(GroupedCase(counts, 4, 777, 333, block_size, absent=4, weighted="float32"))
    every = range(max(len(decodes), len(prefills), len(grouped)))
    return (*spread(decodes, prefills, every), *grouped_spread(grouped, every))


def spread(decodes: Sequence[Case], prefills: Sequence[Case], in_all_dtypes: Collection[int]) -> Iterator[Case]:
    """The cases of all kernels: decodes with and without splits, and storing the new tokens of each prefill."""
    for kernel, cases in zip(KERNELS, (prefills, decodes, decodes, prefills), strict=True):
        for i, case in enumerate(cases):
            for dtype in ("float32", "float16", "bfloat16") if i in in_all_dtypes else ("float32",):
                yield replace(case, kernel=kernel, dtype=dtype)


def grouped_spread(cases: Sequence[GroupedCase], in_all_dtypes: Collection[int]) -> Iterator[GroupedCase]:
    """The cases of the grouped product, and one that is for float16 alone; weights have the dtype of a, or float32."""
    for i, case in enumerate(cases):
        yield case
        if i in in_all_dtypes:
            yield replace(case, dtype="float16")
            yield replace(case, dtype="bfloat16", weighted=case.weighted and "bfloat16")
    yield GroupedCase((16, 3), 1, 96, 16, 16, weighted="float16", large=True, dtype="float16")
