"""Scatter the K and V of a step's tokens into their slots of the pool."""

from __future__ import annotations

from torch import Tensor

from tinyllm.kernels.launch import Kernel, check, check_pool, last_dim_contiguous
from tinyllm.kernels.runtime import check_device, tl, triton

#: Most numbers of one token that a program copies.
MAX_BLOCK = 1024


@triton.jit
def store_kv_kernel(
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    k_cache_ptr: tl.tensor,
    v_cache_ptr: tl.tensor,
    slot_mapping_ptr: tl.tensor,
    k_stride_token: tl.tensor,
    k_stride_head: tl.tensor,
    v_stride_token: tl.tensor,
    v_stride_head: tl.tensor,
    cache_stride_slot: tl.tensor,
    cache_stride_head: tl.tensor,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Copy BLOCK of one token's Hkv * D numbers, of K and of V: program (t, i) has token t and its i-th BLOCK.

    Number j of a token is dim j % D of head j // D. The numbers of a head lie side by side, everywhere; from head to
    head and from token to token it is as many numbers as the strides say. K and V of the pool have the same strides.
    A token whose slot is negative is not stored.
    """
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_mapping_ptr + token).to(tl.int64)  # int64: slot * stride passes 2**31 in a large pool
    if slot < 0:
        return
    numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mine = numbers < NUM_KV_HEADS * HEAD_DIM
    head, dim = numbers // HEAD_DIM, numbers % HEAD_DIM
    k = tl.load(k_ptr + token * k_stride_token + head * k_stride_head + dim, mask=mine)
    v = tl.load(v_ptr + token * v_stride_token + head * v_stride_head + dim, mask=mine)
    target = slot * cache_stride_slot + head * cache_stride_head + dim
    tl.store(k_cache_ptr + target, k, mask=mine)
    tl.store(v_cache_ptr + target, v, mask=mine)


def store_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Scatter the K and V of T tokens into the pool; `reference.store_kv` says the same in torch.

    The floor is reading K and V once and writing them once: `4 * T * Hkv * D` numbers over the memory's bandwidth.

    Args:
        k, v: [T, Hkv, D], any strides (they are views into one projection).
        k_cache, v_cache: [num_slots, Hkv, D], written in place, in the dtype of k and v.
        slot_mapping: [T] int32 or int64, the slot of each token; -1 skips it. No slot may appear twice.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
        KernelsUnavailable: no kernel can run on this device.
    """
    launch_store_kv(store_kv_kernel, k, v, k_cache, v_cache, slot_mapping)


def launch_store_kv(
    kernel: Kernel, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor
) -> None:
    """Check the arguments of `store_kv` and launch a kernel like `store_kv_kernel`: grid [T, cdiv(Hkv * D, BLOCK)].

    Raises: as `store_kv`.
    """
    check(k.ndim == 3 and k.shape == v.shape, f"k is {list(k.shape)} and v {list(v.shape)}; both must be [T, Hkv, D]")
    check(
        k_cache.ndim == 3 and k_cache.shape[1:] == k.shape[1:],
        f"k is {list(k.shape)} and the pool {list(k_cache.shape)}; they must be [T, Hkv, D] and [num_slots, Hkv, D]",
    )
    check_pool(k_cache, v_cache)
    check(k.dtype == v.dtype == k_cache.dtype, f"k is {k.dtype}, v {v.dtype} and the pool {k_cache.dtype}")
    check(slot_mapping.shape == k.shape[:1], f"slot_mapping is {list(slot_mapping.shape)}; it must be [{k.shape[0]}]")
    check(slot_mapping.is_contiguous() and not slot_mapping.is_floating_point(), "slot_mapping must be packed integers")
    check(
        len({t.device for t in (k, v, k_cache, slot_mapping)}) == 1,
        "k, v, the pool and slot_mapping are on different devices",
    )
    check_device(k.device)
    if k.shape[0] == 0:
        return
    k, v = last_dim_contiguous(k), last_dim_contiguous(v)
    num_kv_heads, head_dim = k.shape[1:]
    block = min(MAX_BLOCK, triton.next_power_of_2(num_kv_heads * head_dim))
    kernel[(k.shape[0], triton.cdiv(num_kv_heads * head_dim, block))](
        k,
        v,
        k_cache,
        v_cache,
        slot_mapping,
        *k.stride()[:2],
        *v.stride()[:2],
        *k_cache.stride()[:2],
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        BLOCK=block,
    )
