"""Other right ways to `grouped_gemm_tile`."""

from grader.mutants import alternate
from tinyllm.kernels.grouped_gemm import load_part
from tinyllm.kernels.runtime import tl, triton


@alternate
@triton.jit
def LoadsOfItsOwn(
    a_ptr, w_ptr, out_ptr, topk_weights_ptr, pairs, num_pairs, columns, a_stride, w_stride, N: tl.constexpr,
    K: tl.constexpr, PAIRS_PER_ROW: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Masks by hand, multiplies in float32, reads w as [BLOCK_K, BLOCK_N], and moves the pointers on in each round."""
    k = tl.arange(0, BLOCK_K)
    mask = (pairs < num_pairs)[:, None] & (columns < N)[None, :]
    where_a = a_ptr + (pairs // PAIRS_PER_ROW)[:, None] * a_stride + k[None, :]
    where_w = w_ptr + k[:, None] + columns[None, :].to(tl.int64) * w_stride
    total = tl.zeros([pairs.shape[0], columns.shape[0]], tl.float32)
    for start in range(0, K, BLOCK_K):
        a = tl.load(where_a + start, mask=(pairs < num_pairs)[:, None] & (k < K - start)[None, :], other=0.0)
        w = tl.load(where_w + start, mask=(k < K - start)[:, None] & (columns < N)[None, :], other=0.0)
        total += tl.dot(a.to(tl.float32), w.to(tl.float32), input_precision="ieee")
    if WEIGHTED:
        weights = tl.load(topk_weights_ptr + pairs, mask=pairs < num_pairs, other=0.0)
        total = total * weights[:, None].to(tl.float32)
    tl.store(out_ptr + pairs[:, None] * N + columns[None, :], total.to(out_ptr.dtype.element_ty), mask=mask)


@alternate
@triton.jit
def MatrixFirst(
    a_ptr, w_ptr, out_ptr, topk_weights_ptr, pairs, num_pairs, columns, a_stride, w_stride, N: tl.constexpr,
    K: tl.constexpr, PAIRS_PER_ROW: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Computes w @ a.T, [BLOCK_N, BLOCK_M], and stores it as it lies."""
    real, wanted = pairs < num_pairs, columns < N
    a_rows = a_ptr + pairs // PAIRS_PER_ROW * a_stride
    w_rows = w_ptr + columns.to(tl.int64) * w_stride
    acc = tl.zeros([columns.shape[0], pairs.shape[0]], tl.float32)
    for part in range(tl.cdiv(K, BLOCK_K)):
        k = part * BLOCK_K + tl.arange(0, BLOCK_K)
        a, w = load_part(a_rows, k, real, K), load_part(w_rows, k, wanted, K)
        acc = tl.dot(w, tl.trans(a), acc, input_precision="ieee")
    if WEIGHTED:
        weights = tl.load(topk_weights_ptr + pairs, mask=real, other=0.0).to(tl.float32)
        acc = acc * weights[None, :]
    where = out_ptr + pairs[None, :] * N + columns[:, None]
    tl.store(where, acc.to(out_ptr.dtype.element_ty), mask=real[None, :] & wanted[:, None])


@alternate
@triton.jit
def SumsOfProducts(
    a_ptr, w_ptr, out_ptr, topk_weights_ptr, pairs, num_pairs, columns, a_stride, w_stride, N: tl.constexpr,
    K: tl.constexpr, PAIRS_PER_ROW: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Without `tl.dot`: one number of each row at a time, times a column of w."""
    real, wanted = pairs < num_pairs, columns < N
    a_rows = a_ptr + pairs // PAIRS_PER_ROW * a_stride
    w_rows = w_ptr + columns.to(tl.int64) * w_stride
    weights = tl.full([pairs.shape[0]], 1.0, tl.float32)
    if WEIGHTED:
        weights = tl.load(topk_weights_ptr + pairs, mask=real, other=0.0).to(tl.float32)
    acc = tl.zeros([pairs.shape[0], columns.shape[0]], tl.float32)
    for k in range(K):
        a = tl.load(a_rows + k, mask=real, other=0.0).to(tl.float32)
        w = tl.load(w_rows + k, mask=wanted, other=0.0).to(tl.float32)
        acc += a[:, None] * w[None, :]
    where = out_ptr + pairs[:, None] * N + columns[None, :]
    tl.store(where, (acc * weights[:, None]).to(out_ptr.dtype.element_ty), mask=real[:, None] & wanted[None, :])
