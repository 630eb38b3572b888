"""What attention must know about a step, in one explicit object."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """Where the T tokens of a step belong, and what each may look at. B sequences, block size P.

    Attributes:
        query_start_loc: [B + 1] int32; tokens `query_start_loc[i]` to `query_start_loc[i + 1] - 1` are sequence i's.
        context_lens: [B] int32; tokens of sequence i in the cache once this step's are stored.
        block_tables: [B, max_blocks] int32; blocks of sequence i in order, padded with 0.
        slot_mapping: [T] int64; the slot where each token's K and V go.
        block_size: P.
        min_query_len, max_query_len: the fewest and the most tokens that a sequence has in the step, as Python numbers:
            a backend that chooses its kernels by them need not wait for the GPU.
    """

    query_start_loc: Tensor
    context_lens: Tensor
    block_tables: Tensor
    slot_mapping: Tensor
    block_size: int
    min_query_len: int
    max_query_len: int
