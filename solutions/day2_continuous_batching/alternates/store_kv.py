"""Other right ways to `store_kv`."""

from torch import Tensor

from grader.mutants import alternate
from tinyllm.kernels.runtime import tl, triton


@triton.jit
def _grid_of_heads_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slot_mapping_ptr, k_stride_token, k_stride_head, v_stride_token,
    v_stride_head, cache_stride_slot, cache_stride_head, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(slot_mapping_ptr + token).to(tl.int64)
    dims = tl.arange(0, PADDED_DIM)
    mine = (dims < HEAD_DIM) & (slot >= 0)
    k = tl.load(k_ptr + token * k_stride_token + head * k_stride_head + dims, mask=mine)
    v = tl.load(v_ptr + token * v_stride_token + head * v_stride_head + dims, mask=mine)
    target = slot * cache_stride_slot + head * cache_stride_head
    tl.store(k_cache_ptr + target + dims, k, mask=mine)
    tl.store(v_cache_ptr + target + dims, v, mask=mine)


@alternate
def OneProgramForEachHead(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """A launch of its own: the grid is [T, Hkv], and a program copies one head."""
    strides = (*k.stride()[:2], *v.stride()[:2], *k_cache.stride()[:2])
    padded = triton.next_power_of_2(k.shape[2])
    _grid_of_heads_kernel[k.shape[:2]](k, v, k_cache, v_cache, slot_mapping, *strides, k.shape[2], padded)
