"""Mistakes that people make in `store_kv`."""

from torch import Tensor

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.store_kv import launch_store_kv, store_kv_kernel


@triton.jit
def _padding_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = numbers < NUM_KV_HEADS * HEAD_DIM
    head, dim = numbers // HEAD_DIM, numbers % HEAD_DIM
    k = tl.load(k_ptr + token * k_stride_token + head * k_stride_head + dim, mask=mine)
    v = tl.load(v_ptr + token * v_stride_token + head * v_stride_head + dim, mask=mine)
    target = slot * cache_stride_slot + head * cache_stride_head + dim
    tl.store(k_cache_ptr + target, k, mask=mine)
    tl.store(v_cache_ptr + target, v, mask=mine)


@mutant
def StoresPadding(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """You store tokens whose slot is -1 too. That slot is one slot's length before the pool: somebody else's memory.
    A program whose slot is negative must store nothing."""
    launch_store_kv(_padding_kernel, k, v, k_cache, v_cache, slot_mapping)


@triton.jit
def _mask_of_reads_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = numbers < NUM_KV_HEADS * HEAD_DIM
    source = numbers // HEAD_DIM * k_stride_head + numbers % HEAD_DIM
    k = tl.load(k_ptr + token * k_stride_token + source, mask=inside & (slot >= 0), other=0.0)
    source = numbers // HEAD_DIM * v_stride_head + numbers % HEAD_DIM
    v = tl.load(v_ptr + token * v_stride_token + source, mask=inside & (slot >= 0), other=0.0)
    target = slot * cache_stride_slot + numbers // HEAD_DIM * cache_stride_head + numbers % HEAD_DIM
    tl.store(k_cache_ptr + target, k, mask=inside)
    tl.store(v_cache_ptr + target, v, mask=inside)


@variant(StoresPadding)
def MasksOnlyTheRead(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """The same: what is not read is stored as 0."""
    launch_store_kv(_mask_of_reads_kernel, k, v, k_cache, v_cache, slot_mapping)


@triton.jit
def _no_mask_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    if slot >= 0:
        numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        head, dim = numbers // HEAD_DIM, numbers % HEAD_DIM
        k = tl.load(k_ptr + token * k_stride_token + head * k_stride_head + dim)
        v = tl.load(v_ptr + token * v_stride_token + head * v_stride_head + dim)
        target = slot * cache_stride_slot + head * cache_stride_head + dim
        tl.store(k_cache_ptr + target, k)
        tl.store(v_cache_ptr + target, v)


@mutant
def WritesPastTheToken(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """You move all BLOCK numbers of a program. BLOCK is a power of two and a token may have fewer numbers: the rest
    lands in the slots behind. Mask loads and stores with `numbers < NUM_KV_HEADS * HEAD_DIM`."""
    launch_store_kv(_no_mask_kernel, k, v, k_cache, v_cache, slot_mapping)


@triton.jit
def _mask_of_block_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    part = tl.arange(0, BLOCK)
    mine = (part < BLOCK) & (slot >= 0)  # true for every number of the program
    numbers = tl.program_id(1) * BLOCK + part
    head, dim = numbers // HEAD_DIM, numbers % HEAD_DIM
    target = slot * cache_stride_slot + head * cache_stride_head + dim
    k = tl.load(k_ptr + token * k_stride_token + head * k_stride_head + dim, mask=mine)
    tl.store(k_cache_ptr + target, k, mask=mine)
    v = tl.load(v_ptr + token * v_stride_token + head * v_stride_head + dim, mask=mine)
    tl.store(v_cache_ptr + target, v, mask=mine)


@variant(WritesPastTheToken)
def MasksTheBlock(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """The same, with a mask that hides nothing."""
    launch_store_kv(_mask_of_block_kernel, k, v, k_cache, v_cache, slot_mapping)


@triton.jit
def _head_stride_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    if slot < 0:
        return
    numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = numbers < NUM_KV_HEADS * HEAD_DIM
    head, dim = numbers // HEAD_DIM, numbers % HEAD_DIM
    k = tl.load(k_ptr + token * k_stride_token + head * k_stride_head + dim, mask=mine)
    v = tl.load(v_ptr + token * v_stride_token + head * v_stride_head + dim, mask=mine)
    target = slot * cache_stride_head + head * cache_stride_head + dim
    tl.store(k_cache_ptr + target, k, mask=mine)
    tl.store(v_cache_ptr + target, v, mask=mine)


@mutant
def StepsOneHeadPerSlot(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """From slot to slot you go on by one head. A slot holds all of a token's K/V heads: slot s begins
    `s * cache_stride_slot` numbers behind the pool's first."""
    launch_store_kv(_head_stride_kernel, k, v, k_cache, v_cache, slot_mapping)


@triton.jit
def _rows_of_heads_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = (numbers < NUM_KV_HEADS * HEAD_DIM) & (slot >= 0)
    row, dim = slot + numbers // HEAD_DIM, numbers % HEAD_DIM
    k = tl.load(k_ptr + token * k_stride_token + numbers // HEAD_DIM * k_stride_head + dim, mask=mine)
    v = tl.load(v_ptr + token * v_stride_token + numbers // HEAD_DIM * v_stride_head + dim, mask=mine)
    tl.store(k_cache_ptr + row * cache_stride_head + dim, k, mask=mine)
    tl.store(v_cache_ptr + row * cache_stride_head + dim, v, mask=mine)


@variant(StepsOneHeadPerSlot)
def CountsRowsOfHeads(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """The same, with slot and head added before they are multiplied."""
    launch_store_kv(_rows_of_heads_kernel, k, v, k_cache, v_cache, slot_mapping)


@triton.jit
def _packed_input_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    if slot < 0:
        return
    numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = numbers < NUM_KV_HEADS * HEAD_DIM
    k = tl.load(k_ptr + token * NUM_KV_HEADS * HEAD_DIM + numbers, mask=mine)
    v = tl.load(v_ptr + token * NUM_KV_HEADS * HEAD_DIM + numbers, mask=mine)
    target = slot * cache_stride_slot + numbers // HEAD_DIM * cache_stride_head + numbers % HEAD_DIM
    tl.store(k_cache_ptr + target, k, mask=mine)
    tl.store(v_cache_ptr + target, v, mask=mine)


@mutant
def ExpectsPackedInput(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """You read K and V as if tokens lay side by side in memory. A model hands over slices of one projection, with
    queries between them: go from token to token by `k_stride_token` and `v_stride_token`."""
    launch_store_kv(_packed_input_kernel, k, v, k_cache, v_cache, slot_mapping)


@triton.jit
def _head_by_head_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = (numbers < NUM_KV_HEADS * HEAD_DIM) & (slot >= 0)
    head, dim = numbers // HEAD_DIM, numbers % HEAD_DIM
    row = token * NUM_KV_HEADS + head
    k = tl.load(k_ptr + row * HEAD_DIM + dim, mask=mine)
    v = tl.load(v_ptr + row * HEAD_DIM + dim, mask=mine)
    tl.store(k_cache_ptr + slot * cache_stride_slot + head * cache_stride_head + dim, k, mask=mine)
    tl.store(v_cache_ptr + slot * cache_stride_slot + head * cache_stride_head + dim, v, mask=mine)


@variant(ExpectsPackedInput)
def CountsRowsOfTheInput(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """The same, as rows of heads."""
    launch_store_kv(_head_by_head_kernel, k, v, k_cache, v_cache, slot_mapping)


@triton.jit
def _first_part_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    if slot < 0:
        return
    numbers = tl.arange(0, BLOCK)
    mine = numbers < NUM_KV_HEADS * HEAD_DIM
    head, dim = numbers // HEAD_DIM, numbers % HEAD_DIM
    k = tl.load(k_ptr + token * k_stride_token + head * k_stride_head + dim, mask=mine)
    v = tl.load(v_ptr + token * v_stride_token + head * v_stride_head + dim, mask=mine)
    target = slot * cache_stride_slot + head * cache_stride_head + dim
    tl.store(k_cache_ptr + target, k, mask=mine)
    tl.store(v_cache_ptr + target, v, mask=mine)


@mutant
def OnlyTheFirstBlock(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Every program of a token copies the same first BLOCK numbers. A large token has several programs:
    `tl.program_id(1)` says whose turn it is."""
    launch_store_kv(_first_part_kernel, k, v, k_cache, v_cache, slot_mapping)


@variant(OnlyTheFirstBlock)
def LaunchesOneProgram(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """The same: a launch of one program a token."""
    num_kv_heads, head_dim = k.shape[1:]
    block = min(1024, triton.next_power_of_2(num_kv_heads * head_dim))
    strides = (*k.stride()[:2], *v.stride()[:2], *k_cache.stride()[:2])
    store_kv_kernel[(len(k), 1)](k, v, k_cache, v_cache, slot_mapping, *strides, num_kv_heads, head_dim, block)


@mutant
def StoresKeysTwice(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """The pool of values holds the keys."""
    launch_store_kv(store_kv_kernel, k, k, k_cache, v_cache, slot_mapping)


@triton.jit
def _keys_only_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0)
    slot = tl.load(slot_mapping_ptr + token)
    numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = (numbers < NUM_KV_HEADS * HEAD_DIM) & (slot >= 0)
    head, dim = numbers // HEAD_DIM, numbers % HEAD_DIM
    new = tl.load(k_ptr + token * k_stride_token + head * k_stride_head + dim, mask=mine)
    target = slot * cache_stride_slot + head * cache_stride_head + dim
    tl.store(k_cache_ptr + target, new, mask=mine)
    tl.store(v_cache_ptr + target, new, mask=mine)


@variant(StoresKeysTwice)
def ReadsOnlyKeys(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """The same, inside the kernel."""
    launch_store_kv(_keys_only_kernel, k, v, k_cache, v_cache, slot_mapping)


@unknown_bug
def ForgetsTheLastToken(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Stores all tokens but the last."""
    launch_store_kv(store_kv_kernel, k[:-1], v[:-1], k_cache, v_cache, slot_mapping[:-1])
