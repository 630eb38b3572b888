# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Day 2: attention over pages, and continuous batching
#
# Yesterday the keys and values of a sequence went into blocks all over the pool. Today attention reads them there, and
# a scheduler decides in every step which requests compute how many tokens. Together they are the core of a serving
# engine: no request waits for the end of another one.
#
# **When you are through, you can**
#
# - compute attention over a paged cache, for prompts, chunks of prompts and single tokens in one batch;
# - merge partial attention results, which is what flash attention, split-KV decoding and ring attention are made of;
# - write the Triton kernels that store K and V into pages and attend over them;
# - tell from bytes and operations whether memory or arithmetic limits a computation;
# - write a scheduler with a token budget, chunked prefill, admission and preemption, and measure what continuous
#   batching gains in throughput and latency.
#
# **Read the chapter first:** [Day 2 of the book](http://localhost:3000/day2.html), about an hour. It explains paged
# attention, kernels and the scheduler with pictures. `make book-serve` in a terminal serves the book at that address; its
# source is `book/src/day2.md`.
#
# **Time:** about five and a half hours for this notebook: four for its seven exercises (20 points), one and a half for all
# that is between them. After exercise 4 there is a good place to stop for the day. Each exercise can be done on its own:
# the checks bring the other parts with them. Cells that take more than ten seconds say so; the times are those of a
# laptop. A check that finds a mistake in a kernel may take up to half a minute without a GPU.
#
# Exercises 3 to 6 need Triton, which has packages for Linux only. On other systems their checks
# say "not checked here", and the rest of the day runs as it is.
#
# **The letters** are the same all through the course: B sequences, T tokens in a step, L layers, Hq and Hkv query
# and key/value heads, D head_dim, N blocks, P block_size.

# %% [markdown]
# ## How an exercise goes
#
# Read, write, check, use: as on Day 1. `hint(paged_attention)` nudges, `hint(paged_attention, 2)` says more, and
# `solution(paged_attention)` shows one way to do it. If you want to go on without finishing an exercise, import the
# course's version in a cell of your own **below** its check, for example
# `from tinyllm.attention.paged_attention import paged_attention`.

# %% setup=true
import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read once, when Triton is imported

from grader import check, hint, solution, spot
from tinyllm.parts import use

# %%
from tinyllm import plots

# %% [markdown]
# ## The example: ten tokens, again
#
# Yesterday's text `Ten tokens` lies where we left it: P = 4, N = 16, and the block table [12, 5, 3]. Its keys and values
# are in the pool, among those of other requests:

# %%
P, N = 4, 16
block_tables = torch.tensor([[12, 5, 3]], dtype=torch.int32)
noise = torch.Generator().manual_seed(2)
k_cache, v_cache = torch.randn(2, N * P, 1, 8, generator=noise)

# %% [markdown]
# One KV head (Hkv = 1) with D = 8, read by two query heads (Hq = 2). Each new token brings one query for each of them:

# %%
q = torch.randn(10, 2, 8, generator=noise)
{"q [T, Hq, D]": q.shape, "k_cache [N * P, Hkv, D]": k_cache.shape}

# %% [markdown]
# ## 1. Attention over pages
#
# Attention itself does not care where keys lie. Given the keys and values of a sequence in the order of its positions,
# a query is compared with every key that it may see, the scores become weights by a softmax, and the values are summed
# with these weights. The paged cache only adds a step before: **gather** the rows through the block table.
#
# Two things need care. A step computes the **last** t tokens of a sequence: the whole prompt (t = context), a chunk of
# a prompt, or a single token (t = 1, decoding). The tokens before them are in the cache already, and the new tokens'
# own K and V have just been stored there too. So the first of the t new tokens stands at position `context_len - t`.
# Here are the last four of our ten:

# %%
plots.causal_mask("Ten tokens", num_new=4)

# %% [markdown]
# And with grouped-query attention, Hq / Hkv neighboring query heads read the same KV head.
#
# **Before you write:** Hq = 6 and Hkv = 2, as in the course's model. Which KV head does query head 3 read? And which
# tokens does the query at position 6 of our example see, if it is computed in a chunk of positions 4 to 7?
#
# <details><summary>Answer</summary>
#
# Head 3 // (6 / 2) = **1**. Query heads 0, 1, 2 read KV head 0, and 3, 4, 5 read KV head 1. The query at position 6 sees
# positions 0 to 6: seven tokens, in the blocks 12 and 5. That position 7 is in the same chunk changes nothing.
#
# </details>
#
# In a step, the new tokens of all sequences lie one after another in one tensor, without padding. `query_start_loc`
# says where each sequence begins and ends in it: with 4 new tokens of one sequence and 1 of another it is [0, 4, 5].

# %% [markdown]
# <!-- head: paged_attention -->
#
# For each of the B sequences: find the slots of its `context_lens[i]` positions through row i of `block_tables`, gather
# its keys and values, and attend from its new tokens, causally. Row i may have more entries than the sequence has
# blocks. These are padding and must not be read: they may name any block, or none that exists. Nor may the slots behind
# a sequence's last token be read. What lies there may be NaN, and 0 times NaN is NaN.
#
# The tensors have one dtype, float32, bfloat16 or float16, and any strides. A product q · k may be larger than float16
# can hold (65504) even where the scaled score is not: a softmax of your own computes its scores in float32.
#
# `torch.nn.functional.scaled_dot_product_attention` is welcome: it takes [..., heads, tokens, D], a boolean mask that is
# True where a query may look, and `enable_gqa=True`. So is a softmax of your own.

# %% exercise="paged_attention" stub="paged_attention" minutes="30" difficulty="3"
from tinyllm.attention.paged_attention import paged_attention

# %% check="paged_attention"
check(paged_attention)

# %%
use(paged_attention)

# %% [markdown]
# All ten tokens at once, as a prompt:

# %%
context_lens = torch.tensor([10])
prompt = paged_attention(q, k_cache, v_cache, block_tables, context_lens, torch.tensor([0, 10]), P)
{"output [T, Hq, D]": prompt.shape}

# %% [markdown]
# The same ten in a chunk of six and one of four, as a scheduler with a small budget would have them computed:

# %%
first = paged_attention(q[:6], k_cache, v_cache, block_tables, torch.tensor([6]), torch.tensor([0, 6]), P)
second = paged_attention(q[6:], k_cache, v_cache, block_tables, torch.tensor([10]), torch.tensor([0, 4]), P)
print("largest difference:", float((torch.cat([first, second]) - prompt).abs().max()))

# %% [markdown]
# In chunks the sums may be taken in another order, so a difference in the last bits would be no mistake; often there is
# none at all. This is why a prompt can be computed piece by piece, beside other requests.
#
# Now what a decoding step costs. One query looks at the whole context, once for each layer, and every key and value
# that it looks at must come from memory.
#
# **Before you run it:** a sequence has 1,000 tokens in a cache with Hkv = 2, D = 32 and float32. How many bytes of K and
# V does one new token read in one layer? What if there are 1,000 tokens to compute instead of one?
#
# <details><summary>Answer</summary>
#
# 1,000 positions x 2 (K and V) x 2 heads x 32 numbers x 4 bytes = **512,000 bytes** for one token. A chunk of 1,000
# tokens reads the same 512,000 bytes, once for all of them, and does 1,000 times the arithmetic. Decoding is short of
# bytes, prefill of arithmetic. The roofline further below shows both.
#
# </details>

# %%
import time


def milliseconds(function, *args, repeats=20, **options):
    """The fastest of some calls, each to its end: a GPU goes on working when the call has returned."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*args, **options)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


# %%
torch.set_num_threads(1)  # as on Days 0 and 1


def decoding_batch(num_sequences, context_len, num_new=1, Hq=6, Hkv=2, D=32, P=16):
    """Arguments of `paged_attention` for sequences of equal length, their blocks in random order."""
    blocks = context_len // P
    q = torch.randn(num_sequences * num_new, Hq, D)
    k_cache, v_cache = torch.randn(2, num_sequences * context_len, Hkv, D)
    tables = torch.randperm(num_sequences * blocks).view(num_sequences, blocks)
    starts = torch.arange(0, num_sequences * num_new + 1, num_new)
    return q, k_cache, v_cache, tables, torch.full((num_sequences,), context_len), starts, P


# %%
batch_sizes = [1, 4, 16, 64]
costs = [milliseconds(paged_attention, *decoding_batch(size, 256)) for size in batch_sizes]
{size: f"{cost:.2f} ms" for size, cost in zip(batch_sizes, costs, strict=True)}

# %% [markdown]
# Your function goes through the sequences one by one, so 64 sequences take about 64 times as long. On a CPU that is
# mostly the overhead of calling torch. The engine therefore uses your function for prompts and chunks, where there is
# enough to compute in each call, and puts decodes of similar length into one padded call. A GPU has thousands of
# arithmetic units to keep busy: there one kernel must serve all sequences at once. You write it in exercise 4.

# %% [markdown]
# ## 2. Merging what was computed apart
#
# A long context can be cut into pieces, each piece attended to by itself (by another part of the GPU, or by another GPU),
# and the results merged. Averages cannot be merged without their counts, and so it is here: a softmax weight is
# exp(score) divided by a sum over **all** positions, which no piece knows.
#
# It is enough to keep one more number for each query and head: the logarithm of the piece's own sum,
#
# `lse = log(sum over the piece of exp(score))`
#
# the **log-sum-exp**. The output and the lse together are the *state* of a piece. From two states (out_a, lse_a) and
# (out_b, lse_b) the whole follows: each output counts by its share of the sum over both.
#
# `out = (exp(lse_a) * out_a + exp(lse_b) * out_b) / (exp(lse_a) + exp(lse_b))`
#
# As a picture: the query of our last token, its first six positions as one set, the last four as another. `attend`
# gives the output and the lse of any set of positions.

# %%
from tinyllm.kernels.reference import attend

slots = (block_tables[0, :, None] * P + torch.arange(P)).flatten()[:10].long()
k, v = k_cache[slots], v_cache[slots]
all_visible = torch.ones(1, 10, dtype=torch.bool)

# %%
out_a, lse_a = attend(q[9:], k[:6], v[:6], all_visible[:, :6])
out_b, lse_b = attend(q[9:], k[6:], v[6:], all_visible[:, 6:])
{"output [T, Hq, D]": out_a.shape, "lse [T, Hq]": lse_a.shape}

# %%
scores = (q[9] @ k[:, 0].T) / 8**0.5
head = scores[0]
weights = {"positions 0 to 5": head[:6].softmax(0).tolist(), "positions 6 to 9": head[6:].softmax(0).tolist()}
share = float(torch.sigmoid(lse_a[0, 0] - lse_b[0, 0]))
plots.merged_softmax(weights, dict(zip(weights, (share, 1 - share), strict=True)))

# %% [markdown]
# **Before you write:** scores of trained models reach some hundreds. What is `exp(100.0)` in float32, and what would become
# of the formula above? What can be taken out of both lse without changing the result?
#
# <details><summary>Answer</summary>
#
# Infinity: float32 ends at about 3.4e38, which is exp(88.7). Infinity divided by infinity is NaN. Any number may be taken
# out of both, since it cancels: exp(lse_a - m) / (exp(lse_a - m) + exp(lse_b - m)). With m the larger of the two, one of
# the exponentials is 1 and the other at most 1. The merged lse is then m + log(of their sum).
#
# </details>
#
# One special case: a set can be **empty**, for example when a window hides a whole piece. Its lse is minus infinity, and its
# output was never written: it may be anything, NaN included. An empty set changes nothing. Two empty sets make an empty
# one, with output 0.

# %% [markdown]
# <!-- head: merge_attention_states -->
#
# Merge two states into one. Outputs are [..., D], log-sum-exps are [...], with the same leading dimensions. Nothing may
# overflow, and where an lse is -inf its output may not be read: 0 times NaN is NaN.

# %% exercise="merge_attention_states" stub="merge_attention_states" minutes="20" difficulty="2"
from tinyllm.kernels.reference import merge_attention_states

# %% check="merge_attention_states"
check(merge_attention_states)

# %%
use(merge_attention_states)

# %% [markdown]
# Six positions and four, merged, against all ten in one go:

# %%
merged, lse = merge_attention_states(out_a, lse_a, out_b, lse_b)
whole, lse_whole = attend(q[9:], k, v, all_visible)
differences = {"output": merged - whole, "lse": lse - lse_whole}
{name: float(difference.abs().max()) for name, difference in differences.items()}

# %% [markdown]
# And block by block, as a kernel walks a block table, with an empty state to begin with:

# %%
state = torch.zeros(1, 2, 8), torch.full((1, 2), -torch.inf)
for start in range(0, 10, P):
    piece = slice(start, start + P)
    state = merge_attention_states(*state, *attend(q[9:], k[piece], v[piece], all_visible[:, piece]))
print("largest difference:", float((state[0] - whole).abs().max()))

# %% [markdown]
# That loop never holds more than one block of scores. It is the **online softmax**, and all of the following use it:
# flash attention (pieces one after another), split-KV decoding (pieces side by side, exercise 5), ring
# attention (pieces on several GPUs, Day 7).

# %% [markdown]
# If you like: **spot the bug**. Once yours is right, this shows a solution with one mistake. Write the smallest use of it
# that goes wrong, a function `attempt(merge_attention_states)` that returns what you see, and give it to
# `spot(merge_attention_states, attempt)`. It earns no points.

# %%
spot("merge_attention_states")

# %% [markdown]
# ## Triton in ten minutes
#
# The next four exercises are **kernels**: functions that a GPU runs thousands of times at once. You write them in
# Triton, a small language inside Python. If you know PyTorch there is little to learn:
#
# - A function with `@triton.jit` is a kernel. One run of it is called a **program**, and it does one small piece of the
#   work. `kernel[grid](arguments)` starts (*launches*) a program for each point of a grid: `kernel[(3,)](...)` starts three.
#   `tl.program_id(0)` tells a program which of them it is. A grid may have two dimensions: of `kernel[(10, 4)]` a program
#   learns its row from `tl.program_id(0)` and its column from `tl.program_id(1)`.
# - A tensor argument arrives as a **pointer** to its first number. Adding a number moves along in memory, so that row r
#   of a matrix begins at `ptr + r * stride`, where `stride` is `tensor.stride(0)`.
# - A program works on small blocks of numbers at once. `tl.arange(0, 16)` is the block 0, 1, ..., 15; its size is a
#   power of two, known when the kernel is compiled (`tl.constexpr`).
# - `tl.load(ptr + offsets)` reads a block, `tl.store(ptr + offsets, values)` writes one. There is no bounds check: with
#   `mask=` you say which places are yours. The others are neither read nor written. With one address, `tl.load(ptr + t)`,
#   it is a single number; a pointer has no `ptr[t]`.
#
# A kernel that doubles a vector of ten numbers, four numbers to a program. Three programs are needed, and the last one
# has two numbers that are not there:

# %%
from tinyllm.kernels.runtime import AVAILABLE, tl, triton


@triton.jit
def double_kernel(x_ptr, out_ptr, num_numbers, BLOCK: tl.constexpr):
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mine = places < num_numbers
    x = tl.load(x_ptr + places, mask=mine)
    tl.store(out_ptr + places, 2 * x, mask=mine)


# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
x = torch.arange(10.0, device=device)
doubled = torch.zeros(10, device=device)
if AVAILABLE:
    double_kernel[(3,)](x, doubled, 10, BLOCK=4)
doubled

# %% [markdown]
# **Before you go on:** `x` has strides of 1. How would you load row 2 of a matrix `m` with 5 columns, of which only the first
# 3 matter? What does the mask hide?
#
# <details><summary>Answer</summary>
#
# With `columns = tl.arange(0, 4)`: `tl.load(m_ptr + 2 * m_stride_row + columns, mask=columns < 3)`, where `m_stride_row`
# is `m.stride(0)` = 5. A block's size is a power of two, so there are four columns and the mask hides the fourth. Without
# it the program would read the matrix's own column 3, a number that does not matter. At the end of a tensor it would
# read somebody else's memory.
#
# </details>
#
# **With a GPU** kernels are compiled for it. **Without one**, Triton's *interpreter* runs the same kernels on the CPU,
# one program after another, with NumPy: thousands of times slower, and good enough to see whether they are right. You may
# even `print` in it. The first cell of this notebook has switched it on (`TRITON_INTERPRET=1`) unless there is a GPU.
# Where there is no Triton at all, the checks say "not checked here", and the cells below leave the kernels out.
#
# Shift+Tab on a name shows what a kernel takes, also on those of the course and of your own.
#
# A check runs your cell in a process of its own, with NaN and canaries around every tensor. A kernel that reads or writes
# outside of what it was given is found out, and one that ends Python does not take your notebook with it. Only the
# exercise's cell goes there: what it uses must be written or imported in it.

# %% [markdown]
# ## 3. Store: K and V into their slots
#
# Yesterday `write` did this with one `index_copy_`. In a kernel it is the simplest thing there is: a copy, in which each
# token has an address of its own.
#
# A program copies one token, of K and of V. The token's Hkv heads of D numbers are one block of Hkv * D numbers, rounded up
# to a power of two and cut into several programs if there are more than 1,024. The picture you know: token t goes to
# `slot_mapping[t]`.

# %%
plots.block_table(plots.TableView([12, 5, 3], 10), list("Ten tokens"), N, P)

# %% [markdown]
# Two things are new. K and V are **slices of one projection**, which holds a token's queries, keys and values side by side.
# From token to token it is therefore not Hkv * D numbers but the whole row: the kernel is told the strides. And steps are
# padded (a GPU likes to run the same shapes again): a token whose slot is **-1** is none, and nothing is stored.
#
# **Before you write:** Hkv = 2, D = 48. Which numbers of its block are a token's own, and in which head and dim is number 50?
# A token's slot is 22 and the pool is [64, 2, 48]. Where, counted in numbers from the pool's first, does it go?
#
# <details><summary>Answer</summary>
#
# 2 x 48 = 96 numbers are the token's own, of a block of 128. Number 50 is in head 50 // 48 = 1, dim 50 % 48 = 2. The slot
# begins at 22 x 96 = 2,112, head 1 is 48 numbers further: 2,112 + 48 + 2 = **2,162**.
#
# </details>

# %% [markdown]
# <!-- head: store_kv -->
#
# Write the body of the kernel; the launch below it is given. Program ids, then the slot, then which of the block's numbers
# are the token's own, then two loads and two stores.
#
# A pool may have more than 2**31 numbers: make the slot int64 (`.to(tl.int64)`) before you multiply. Nothing outside of
# the tensors may be read, even where its value would do no harm.

# %% exercise="store_kv" stub="store_kv_kernel" minutes="25" difficulty="2"
from tinyllm.kernels.store_kv import store_kv

# %% check="store_kv"
check(store_kv)

# %%
use(store_kv)

# %% [markdown]
# Twelve tokens of a padded step: ours, and two that are none. To see it, K of token t is a stripe that moves to the right:

# %%
slot_mapping = torch.tensor([48, 49, 50, 51, 20, 21, 22, 23, 12, 13, -1, -1], device=device)
new_k = torch.eye(12, 12, device=device)[:, None, :]
pool_k, pool_v = torch.zeros(2, N * P, 1, 12, device=device)
if AVAILABLE:
    store_kv(new_k, new_k, pool_k, pool_v, slot_mapping)

# %%
plots.kv_rows({"pool: K, by slot": pool_k[:, 0].cpu(), "the new tokens": new_k[:, 0].cpu()}, P)

# %% [markdown]
# What is the best that any kernel could do? It must read K and V once and write them once. Everything else is free, as
# long as the memory never waits. So the **floor** of its time is bytes over bandwidth. For a chunk of 2,048 tokens of
# Qwen3-0.6B (Hkv = 8, D = 128, bfloat16) on a GPU that moves 3.35 TB/s (an H100, by its data sheet):

# %%
moved = 4 * 2048 * 8 * 128 * 2  # read and write, K and V
f"{moved / 1e6:.1f} MB, {moved / 3.35e12 * 1e6:.1f} microseconds a layer"

# %% [markdown]
# ## 4. Decode: attention inside the pages
#
# `paged_attention` copied each sequence's keys and values together and then attended. The copy reads everything once and
# writes it once, only for attention to read it again: three times the bytes. The kernel leaves it out. It reads each key
# and value where it lies, once.
#
# A program has one sequence and one K/V head. Its Hq / Hkv query heads are the **rows** of a little matrix q, so that a
# key, once loaded, serves all of them. Then it walks over the context, a **tile** of positions at a time:
#
# 1. look up the slot of each position in the block table (`page_slots`);
# 2. load the keys and values of these slots (`load_tile` is given);
# 3. multiply: `scores = q @ k.T` for all rows and positions at once (`tl.dot`);
# 4. fold the tile into a running softmax (`softmax_step`), as you merged states in exercise 2.
#
# What is kept of all tiles so far are three things for each row: the `highest` score, the `total` of
# `2 ** (score - highest)`, and `acc`, the same sum with each term times its value. When a tile brings a higher score,
# the old total and acc are too large by `2 ** (new highest - old highest)` and are corrected. In the end the output is
# `acc / total`. (Powers of 2 and not of e, because a GPU has an instruction for them: the scale holds log2(e).)
#
# ### A warm-up in two dimensions
#
# Steps 3 and 4 for one tile, first by hand and against torch. Until now `tl.arange` made a row of addresses. For a matrix,
# a column of row starts and a row of columns are added: `rows[:, None] * DIM + dims[None, :]` has a place for each pair.
# Then `tl.dot` multiplies two such tiles. (On a GPU it wants at least 16 in each dimension.)


# %%
@triton.jit
def tile_scores(q_ptr, k_ptr, out_ptr, ROWS: tl.constexpr, TILE: tl.constexpr, DIM: tl.constexpr):
    rows, columns, dims = tl.arange(0, ROWS), tl.arange(0, TILE), tl.arange(0, DIM)
    q = tl.load(q_ptr + rows[:, None] * DIM + dims[None, :])  # [ROWS, DIM]
    k = tl.load(k_ptr + columns[:, None] * DIM + dims[None, :])  # [TILE, DIM]
    product = tl.dot(q, tl.trans(k), input_precision="ieee")  # [ROWS, TILE]
    tl.store(out_ptr + rows[:, None] * TILE + columns[None, :], product)


# %%
q_tile, k_tile = torch.randn(2, 16, 32, generator=noise).to(device)
tile = torch.zeros(16, 16, device=device)
if AVAILABLE:
    tile_scores[(1,)](q_tile, k_tile, tile, ROWS=16, TILE=16, DIM=32)
    print("largest difference:", float((tile - q_tile @ k_tile.T).abs().max()))

# %% [markdown]
# A softmax of each row: `tl.max(x, 1)` and `tl.sum(x, 1)` go along the columns and leave one number for each row,
# [ROWS]. `[:, None]` lines it up with the tile again.


# %%
@triton.jit
def row_softmax(x_ptr, out_ptr, ROWS: tl.constexpr, TILE: tl.constexpr):
    places = tl.arange(0, ROWS)[:, None] * TILE + tl.arange(0, TILE)[None, :]
    x = tl.load(x_ptr + places)
    powers = tl.exp(x - tl.max(x, 1)[:, None])
    tl.store(out_ptr + places, powers / tl.sum(powers, 1)[:, None])


# %%
softmax = torch.zeros(16, 16, device=device)
if AVAILABLE:
    row_softmax[(1,)](tile, softmax, ROWS=16, TILE=16)
    print("largest difference:", float((softmax - tile.softmax(1)).abs().max()))

# %% [markdown]
# **Before you go on:** `tl.sum(x, 0)` in place of `tl.sum(x, 1)`: what would the kernel divide by, and would anybody
# notice?
#
# <details><summary>Answer</summary>
#
# By the sums of the columns, lined up as if they were those of the rows. ROWS and TILE are both 16 here, so nothing would
# fail; only the numbers would be wrong. With other sizes the shapes would not fit.
#
# </details>

# %% [markdown]
# ### A loop, and the words that you will need
#
# A row that is longer than a tile is walked over in a loop. The loop's bounds are numbers that the kernel is given when it
# runs, and an **accumulator** is carried from one round to the next. Here each program adds up one row of a matrix, TILE
# numbers at a time. Each of the TILE places of the accumulator has a sum of its own, and they are added at the end.
#
# The accumulator begins as `tl.zeros([TILE], tl.float32)`. A plain 0.0 cannot start it: what a compiled loop carries must
# keep its shape and its dtype, and 0.0 is a single number that would become a block of TILE. (The interpreter lets it
# pass, a GPU does not.)


# %%
@triton.jit
def row_sums(x_ptr, out_ptr, num_columns, TILE: tl.constexpr):
    row = tl.program_id(0)
    sums = tl.zeros([TILE], tl.float32)
    for start in range(0, num_columns, TILE):
        columns = start + tl.arange(0, TILE)
        sums += tl.load(x_ptr + row * num_columns + columns, mask=columns < num_columns, other=0.0)
    tl.store(out_ptr + row, tl.sum(sums, 0))


# %% [markdown]
# **Before you run it:** three rows of 10 numbers, in tiles of 4. How many rounds does the loop make, and what is
# `other=0.0` good for? What would have to change for the **largest** number of each row?
#
# <details><summary>Answer</summary>
#
# Three rounds, with 4, 4 and 2 numbers. In the third the mask hides two places, and `other` says what they hold: 0, which
# changes no sum. Without `other` they may hold anything. For the largest, a 0 would win in a row of negative numbers:
# begin with minus infinity in all places, give minus infinity as `other`, keep the larger of the two in each place
# (`tl.maximum`), and end with `tl.max`.
#
# </details>

# %%
three_rows, sums = torch.randn(3, 10, generator=noise).to(device), torch.zeros(3, device=device)
if AVAILABLE:
    row_sums[(3,)](three_rows, sums, 10, TILE=4)
    print("largest difference:", float((sums - three_rows.sum(1)).abs().max()))

# %% [markdown]
# The functions that the next exercises are written with, shown on x = 0, 1, 2, 3 in float32:
#
# | | what it does | for example |
# |---|---|---|
# | `tl.zeros(shape, dtype)` | a new block of zeros | `tl.zeros([2, 4], tl.float32)` |
# | `tl.full(shape, value, dtype)` | a new block of one value | `tl.full([4], 7.0, tl.float32)` is 7, 7, 7, 7 |
# | `x.to(dtype)` | x in another dtype: `tl.float32`, `tl.int64` and so on | `x.to(tl.int64)` |
# | `tl.load(..., mask=, other=)` | `other` is what the places hold that the mask hides | `other=0.0`, as above |
# | `tl.where(condition, a, b)` | a where the condition holds, else b | `tl.where(x < 3, x, 9.0)` is 0, 1, 2, 9 |
# | `tl.maximum(a, b)`, `tl.minimum(a, b)` | the larger or smaller of two, place by place | `tl.minimum(x, 2.0)` is 0, 1, 2, 2 |
# | `tl.max(x, axis)`, `tl.min(x, axis)`, `tl.sum(x, axis)` | one number of all along an axis | `tl.max(x, 0)` is 3 |
# | `tl.exp2(x)` | 2 ** x | 1, 2, 4, 8 |
# | `tl.log2(x)` | the logarithm to base 2 | of 1, 2, 4, 8: 0, 1, 2, 3 |
#
# Single numbers may stand where blocks do. Conditions are joined by `&` and not by `and`, each in parentheses.

# %% [markdown]
# ### Two products and their precision
#
# `attend_pages` has two products in each tile, `q @ k.T` and weights times values:
#
# | | first | second |
# |---|---|---|
# | what | scores = q @ k.T, [ROWS, TILE] | weights @ v, [ROWS, PADDED_DIM] |
# | dtype of the two factors | both the pool's | weights are float32, v has the pool's: `weights.to(v.dtype)` |
# | `input_precision="ieee"` | without it a GPU rounds float32 numbers to 10 bits first (TF32) | the same |
# | result | float32 | float32, on top of what is there already |
#
# The factors of a dot must have one dtype. In a float16 pool the weights are rounded to float16, which is good enough for
# numbers of at most 1; in a float32 pool `.to` changes nothing. The sum over all tiles stays in float32 always:
# `tl.dot(a, b, c)` gives c + a @ b, and c is float32. (v in float32 in place of weights in v's dtype is right too, and
# slower.)

# %% [markdown]
# ### The last tile
#
# A tile has a fixed size and a context has not. The last tile sticks out: **its other positions must not be loaded, and
# must not count**.
#
# **Before you write:** a tile of 16 positions, a context of 10. The six positions that stick out are loaded as 0. What score do
# they get, and what weight? Which score gives them none?
#
# <details><summary>Answer</summary>
#
# A key of zeros has score 0 with any query, and 2 ** (0 - highest) is a weight like any other. It takes minus infinity:
# 2 ** (-inf) is 0. This is the mistake that tests with whole tiles never find.
#
# </details>
#
# **And:** in `softmax_step` a row may have seen nothing at all so far, and see nothing in this tile either (in exercise 6, and
# with sliding windows). What is `-inf - (-inf)`?
#
# <details><summary>Answer</summary>
#
# NaN. Where the new highest is still minus infinity, subtract 0 in its place: all weights are then 2 ** (-inf) = 0, as they
# should be.
#
# </details>

# %% [markdown]
# <!-- head: paged_decode -->
#
# Three small functions, each of which the next one uses. The kernel around them (which sequence, which head, load q, divide,
# store) is the course's; it calls your `attend_pages` in every program.
#
# - `page_slots`: two lines. Where a position is not `inside`, the table must not be read: what is behind its end may be
#   anything, or somebody else's.
# - `softmax_step`: new highest, weights, correction, total, acc. A row that has seen nothing and sees nothing here stays
#   at -inf, 0 and 0. No NaN may come of it.
# - `attend_pages`: begin with -inf, 0 and 0, then the loop. `scores` are `tl.dot(q, tl.trans(k), input_precision="ieee") * scale`.
#
# `load_tile(ptr, offsets, inside, HEAD_DIM, PADDED_DIM)` is given. It returns [TILE, PADDED_DIM] in the pool's dtype
# (but for bfloat16 in the interpreter, which cannot multiply it: there it returns float32):
#
# | argument | |
# |---|---|
# | `ptr` | where the pool begins: `k_ptr` or `v_ptr` |
# | `offsets` | [TILE] int64: for each position, how many numbers behind `ptr` its vector begins |
# | `inside` | [TILE] bool: rows where it is False are not read, and are 0. None: all are read |
# | `HEAD_DIM` | D, how many numbers a vector has |
# | `PADDED_DIM` | D rounded up to a power of two; what is behind D is 0 |
#
# Slot s of K/V head h begins `s * kv_stride_slot + h * kv_stride_head` numbers behind `ptr`.

# %% exercise="paged_decode" stub="page_slots,softmax_step,attend_pages" minutes="40" difficulty="4"
from tinyllm.kernels.paged_decode import paged_decode

# %% check="paged_decode"
check(paged_decode)

# %%
use(paged_decode)

# %% [markdown]
# The slots that your `page_slots` finds for the ten tokens. They should be those of yesterday's table:

# %%
page_slots, softmax_step = (paged_decode.__globals__[name] for name in ("page_slots", "softmax_step"))


@triton.jit
def show_slots(table_ptr, out_ptr, num_tokens, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr):
    positions = tl.arange(0, TILE)
    inside = positions < num_tokens
    tl.store(out_ptr + positions, page_slots(table_ptr, positions, inside, BLOCK_SIZE), mask=inside)


found = torch.zeros(10, dtype=torch.int64, device=device)
if AVAILABLE:
    show_slots[(1,)](block_tables.to(device), found, 10, BLOCK_SIZE=P, TILE=16)
print("slots:", found.tolist())

# %% [markdown]
# And your running softmax at work, on 64 scores in tiles of 16. Watch the total where a tile brings a new highest score:


# %%
@triton.jit
def watch_softmax(scores_ptr, highest_ptr, total_ptr, TILE: tl.constexpr):
    columns = tl.arange(0, TILE)
    v = tl.zeros([TILE, 16], tl.float32)
    top = tl.full([16], float("-inf"), tl.float32)
    total = tl.zeros([16], tl.float32)
    acc = tl.zeros([16, 16], tl.float32)
    for tile in range(4):
        scores = tl.load(scores_ptr + tile * TILE + columns)[None, :] + tl.zeros([16, TILE], tl.float32)
        top, total, acc = softmax_step(scores, v, top, total, acc)
        tl.store(highest_ptr + tile * 16 + tl.arange(0, 16), top)
        tl.store(total_ptr + tile * 16 + tl.arange(0, 16), total)


# %%
scores_64 = 2 * torch.randn(64, generator=torch.Generator().manual_seed(4)) + torch.arange(64) / 16
highest, total = torch.zeros(2, 4, 16, device=device)
if AVAILABLE:
    watch_softmax[(1,)](scores_64.to(device), highest, total, TILE=16)
plots.running_softmax(scores_64.tolist(), 16, highest[:, 0].tolist(), total[:, 0].tolist())

# %% [markdown]
# Now the last of our ten tokens, decoded by your kernel, against exercise 1:

# %%
on_device = [x.to(device) for x in (q[9:].contiguous(), k_cache, v_cache, block_tables)]
one = torch.tensor([10], device=device), torch.tensor([0, 1], device=device), P
if AVAILABLE:
    print("difference:", float((paged_decode(*on_device, *one).cpu() - prompt[9:]).abs().max()))

# %% [markdown]
# The floor of a decode step is reading K and V once. For 64 sequences of 4,096 tokens in one layer of Qwen3-0.6B:

# %%
read = 2 * 64 * 4096 * 8 * 128 * 2
f"{read / 1e9:.2f} GB, {read / 3.35e12 * 1e6:.0f} microseconds a layer at 3.35 TB/s"

# %% [markdown]
# **What would a gather before it have cost?** Reading, writing and reading again: three times that.
#
# **A good place to stop for the day.** You have the heart of paged attention. The next two exercises build on it, and the
# scheduler comes after them. When you come back, run the cells above once more (Run, Run All Above Selected Cell).

# %% [markdown]
# ## 5. Decode in splits
#
# A launch of `paged_decode` has one program for each sequence and K/V head. A GPU has over a hundred multiprocessors
# (132 in an H100), and each wants a program or more. What if there are few sequences?

# %%
plots.programs({"1 sequence": 8, "4 sequences": 32, "64 sequences": 512}, num_processors=132)

# %% [markdown]
# One sequence of 100,000 tokens keeps 8 of 132 processors busy, and the time is that of a program that walks through
# 100,000 positions alone. So the context is cut into **splits**, a program for each (*flash-decoding*). Each split
# attends to its own positions, and leaves its output and its log-sum-exp. A second kernel merges them: exercise 2 again,
# for many states at once.
#
# **Before you write:** two sequences, of 60 and of 5 tokens, in splits of 32. The tensors of outputs and log-sum-exps have room
# for two splits each. Which of the four states are written? What is in the others?
#
# <details><summary>Answer</summary>
#
# Three: both splits of the first sequence (positions 0 to 31, and 32 to 59) and the first of the second. The fourth holds
# whatever was in memory before, since `torch.empty` clears nothing: old numbers, or NaN. The merge must not read it.
#
# </details>

# %% [markdown]
# <!-- head: paged_decode_split -->
#
# - `attend_split`: which positions are this split's? Attend to them with `attend_pages` (the course's, as you wrote it) and
#   return the average `normalized(acc, total)` and the log-sum-exp in base 2.
# - `reduce_splits`: load the log-sum-exps of the written splits, turn them into shares (take the highest out first), and
#   add up the outputs by their shares. No split at all gives 0. `load_tile` loads the outputs: its `offsets` say for each
#   split how many numbers behind `partial_ptr` its output begins (int64 as in exercise 4; int32 is wide enough here).

# %% exercise="paged_decode_split" stub="attend_split,reduce_splits" minutes="30" difficulty="3"
from tinyllm.kernels.paged_decode_split import paged_decode_split

# %% check="paged_decode_split"
check(paged_decode_split)

# %%
use(paged_decode_split)

# %% [markdown]
# One long sequence, whole and in four splits. The sums are taken in another order, so the last bits may differ:

# %%
batch = decoding_batch(1, 128, Hq=2, Hkv=1, D=128)
batch = [x.to(device) if torch.is_tensor(x) else x for x in batch]
if AVAILABLE:
    parts = paged_decode_split(*batch, split_size=32)
    print("difference:", float((parts - paged_decode(*batch)).abs().max()))

# %% [markdown]
# How finely would the engine cut? It wants four programs for each processor, but no split under 256 positions:

# %%
from tinyllm.kernels.paged_decode_split import choose_split_size

split_size = choose_split_size(num_programs=8, max_context=100_000, num_processors=132)
num_splits = -(-100_000 // split_size)
plots.programs({"1 sequence, whole": 8, f"in {num_splits} splits": 8 * num_splits}, num_processors=132)

# %% [markdown]
# **What does it cost?** Each split writes and reads an output and a log-sum-exp in float32, for each query head. Qwen3-0.6B has
# two query heads for each K/V head. In bytes, beside the keys and values of a split:

# %%
kv_bytes = 2 * split_size * 8 * 128 * 2
state_bytes = 2 * 16 * (128 + 1) * 4
f"{state_bytes / kv_bytes:.1%} more bytes, and {min(1, 8 * num_splits / 132) / (8 / 132):.0f} times as many processors"

# %% [markdown]
# ## 6. Prefill: chunks of prompts
#
# The last kernel attends for many new tokens at once: whole prompts, or chunks of them behind what is in the cache already. Rows
# are now pairs of (new token, query head of the group), tokens first: with Hq / Hkv = 3, rows 0, 1, 2 are the three heads
# of the first new token. A program has up to 32 rows in float32, more in 16 bits. Each key that it loads serves all of
# them; this is why prefill is limited by arithmetic and decode by bytes.
#
# What is new is the **causal mask**. Each row has a position of its own: that of its token, counted from the beginning of
# the *sequence*. It sees keys at its own position and before. Here are the rows of a chunk of 8 tokens behind 40 others,
# with three heads a token:

# %%
own = [40 + row // 3 for row in range(24)]
plots.score_tiles(own, tile=16)

# %% [markdown]
# The first tiles are seen by all rows, and only the last one needs a mask. With a sliding window of 16 the first tile need
# not even be loaded:

# %%
plots.score_tiles(own, tile=16, window=16)

# %% [markdown]
# **Before you write:** a chunk of 4 tokens ends a context of 10, with GQA_RATIO = 2. What is the position of row 5? Up to which
# position must the program walk that has all eight rows?
#
# <details><summary>Answer</summary>
#
# Row 5 is token 5 // 2 = 2 of the chunk, at position 10 - 4 + 2 = **8**. The last row's token has position 9: the program
# walks over positions 0 to 9, and each row hides what lies behind its own.
#
# </details>

# %% [markdown]
# <!-- head: paged_prefill -->
#
# Write `attend_chunk`: the position of each row, the range to walk over, and the loop of exercise 4 with the mask of each row.
# `page_slots`, `softmax_step` and `load_tile` are there, as in exercise 4.
#
# Every program has the same number of rows, so the one at the end of a chunk may have more than it needs. Those whose
# token would be `query_len` or later are **padding**: the kernel gives them the number of the chunk's last row, which
# `rows` may therefore hold more than once, and throws their result away. Nothing past `context_len` is read for them.
#
# A row sees the positions at a distance of 0 to `window` - 1. (`window` is a very large number where there is none.) One
# masked loop over everything is right. If you like: the tiles that all rows see need no mask, and the tiles that none sees
# need not be loaded. For the first kind `attend_whole_tiles` is given, which is `attend_pages` without its masks:
#
# | argument | |
# |---|---|
# | `q` | [ROWS, PADDED_DIM] |
# | `kv_head` | which K/V head the rows read |
# | `first`, `last` | it walks over positions `first` to `last - 1`; their number must be a multiple of TILE, 0 included |
# | `k_ptr`, `v_ptr`, `table_ptr` | where the pool of K, that of V, and this sequence's block table begin |
# | `scale` | what `q @ k.T` is multiplied by |
# | `kv_stride_slot`, `kv_stride_head` | numbers from slot to slot and from K/V head to K/V head |
# | `ROWS`, `HEAD_DIM`, `PADDED_DIM`, `BLOCK_SIZE`, `TILE` | the sizes, in this order |
#
# It returns `highest` [ROWS], `total` [ROWS] and `acc` [ROWS, PADDED_DIM], with which your own loop can go on.

# %% exercise="paged_prefill" stub="attend_chunk" minutes="35" difficulty="4"
from tinyllm.kernels.paged_prefill import paged_prefill

# %% check="paged_prefill"
check(paged_prefill)

# %%
use(paged_prefill)

# %% [markdown]
# Our ten tokens once more, as a chunk of six and a chunk of four, against the whole prompt of exercise 1:

# %%
pool = [x.to(device) for x in (k_cache, v_cache, block_tables)]
for first_token, last_token in ((0, 6), (6, 10)):
    chunk = q[first_token:last_token].to(device)
    ends = torch.tensor([last_token], device=device), torch.tensor([0, len(chunk)], device=device)
    if AVAILABLE:
        out = paged_prefill(chunk, *pool, *ends, P, max_query_len=len(chunk)).cpu()
        print("difference:", float((out - prompt[first_token:last_token]).abs().max()))

# %% [markdown]
# The floor of prefill is arithmetic: 4 * Hq * D operations for each pair of a token and a position that it sees. A prompt of
# 4,096 tokens in one layer of Qwen3-0.6B (Hq = 16, D = 128), beside the bytes of its K and V:

# %%
operations = 4 * 16 * 128 * 4096 * 4097 // 2
kv_bytes = 2 * 4096 * 8 * 128 * 2
f"{operations / 1e9:.0f} billion operations, {operations / kv_bytes:,.0f} for each byte of K and V"

# %% [markdown]
# A decode step does 4 * D operations for each of the two query heads that read a position's 4 * D bytes: **2** for each byte.
# That gap decides how the two kernels are written. The roofline comes next.

# %% [markdown]
# ### The engine on your kernels
#
# `attention_backend="triton"` makes the engine store and attend with your kernels, where a check has found them right. In the
# interpreter that is far too slow to serve with, but a few tokens show that they are those of the torch backend. About
# ten to twenty seconds:

# %%
from tinyllm import LLM, SamplingParams

few = SamplingParams(max_tokens=4)
answers_by_backend = {}
for backend in ["torch", "triton"] if AVAILABLE else ["torch"]:
    llm = LLM(parts="mine", num_blocks=16, attention_backend=backend, device=device, dtype="float32")
    answers_by_backend[backend] = llm.generate("The cache", few, progress=True)[0].outputs[0].token_ids
answers_by_backend

# %% [markdown]
# ## What limits a computation: the roofline
#
# A processor has two speeds: how many operations it does in a second, and how many bytes it moves from memory. A
# computation that does few operations for each byte waits for the memory, one that does many waits for the arithmetic.
# Where the two meet is a property of the machine. First both speeds of this one: of its GPU, or of one thread.

# %%
big, other = torch.randn(2, 2**25, device=device)
matrix = torch.randn(1024 if device == "cpu" else 8192, 1024, device=device)
copied = 2 * big.nbytes / (milliseconds(other.copy_, big, repeats=5) / 1000)
read = big.nbytes / (milliseconds(torch.sum, big, repeats=5) / 1000)
read_twice = big.nbytes / (milliseconds(torch.dot, big, big, repeats=5) / 1000)  # from memory only once
bytes_per_s = max(copied, read, read_twice)
flops_per_s = 2 * matrix.shape[0] ** 2 * 1024 / (milliseconds(torch.mm, matrix, matrix.T, repeats=5) / 1000)
f"{bytes_per_s / 1e9:.1f} GB/s, {flops_per_s / 1e9:.0f} billion operations/s"

# %% [markdown]
# **Before you run on:** for every key a query head does D multiplications and additions with it, and as many with its value.
# How many operations is that for each byte of K and V, in float32, when one new token looks at a context with
# Hq / Hkv = 3? And when a chunk of 256 new tokens does?
#
# <details><summary>Answer</summary>
#
# A position's K and V of one KV head are 2 x D x 4 = 8 D bytes. Each of the 3 query heads that read it does 2 D
# operations with the key and 2 D with the value: 12 D in all. That is **1.5** operations a byte, whatever the context
# and the batch: more sequences bring their own keys. 256 tokens do 256 times as many on the same bytes: **384**. (The
# picture says somewhat less, since queries and outputs are moved as well.)
#
# </details>
#
# Now four dots: attention of both kinds, by your kernels if there is a GPU and else by exercise 1, and a linear layer.


# %%
def attention_dot(num_sequences, context_len, num_new):
    """Operations, bytes and seconds of attention; each new token is counted with the whole context."""
    args = decoding_batch(num_sequences, context_len, num_new)
    args = [x.to(device) if torch.is_tensor(x) else x for x in args]
    flops = 4 * args[0].numel() * context_len
    moved = args[1].nbytes + args[2].nbytes + 2 * args[0].nbytes
    kernel, options = (paged_decode, {}) if num_new == 1 else (paged_prefill, {"max_query_len": num_new})
    if device == "cpu":
        kernel, options = paged_attention, {}
    return flops, moved, milliseconds(kernel, *args, repeats=5, **options) / 1000


def linear_dot(num_tokens, width=4096):
    """The same of a linear layer, whose weights are read once for all tokens of the step."""
    x, weight = (torch.randn(size, width, device=device) for size in (num_tokens, width))
    moved = weight.nbytes + 2 * x.nbytes
    return 2 * num_tokens * weight.numel(), moved, milliseconds(torch.mm, x, weight, repeats=5) / 1000


# %%
dots = {
    "attention, decode": attention_dot(128, 1024, 1),
    "attention, chunk of 256": attention_dot(1, 1024, 256),
    "linear layer, 1 token": linear_dot(1),
    "linear layer, 64 tokens": linear_dot(64),
}
plots.roofline(dots, flops_per_s, bytes_per_s)

# %% [markdown]
# (The layer's weights and the decoding batch are larger than the processor's caches, else they would not have to come
# from memory. A dot above the roof means that the machine was busier while the roof was measured: measure both again.)
#
# Look at the two dots of the linear layer. One token moves all weights for little arithmetic; 64 tokens
# move the same weights, and take much less than 64 times as long. On a GPU, whose arithmetic is hundreds of times faster
# than its memory, the step hardly gets longer at all. **This is why batching pays.**
#
# Attention gains nothing from a larger batch, since each sequence has keys of its own. Measured on a CPU, your
# `paged_attention` is also far below its limit in decoding: it copies K and V before it reads them, and calls torch for
# every sequence. Your kernels do neither.
#
# So a serving engine wants as many tokens in each step as it can find. The scheduler finds them.

# %% [markdown]
# ## 7. The scheduler
#
# The oldest way to batch is **static**: take sixteen requests, compute until the last of them has ended, take the next
# sixteen. Outputs differ in length, so most seats are empty most of the time, and whoever comes late waits for the
# longest of those before him. **Continuous batching** (Orca, OSDI 2022) decides anew in every step: who has ended makes
# room at once, who has come joins at once.
#
# Older engines told two phases apart, prefill and decode. The scheduler that you write does not. Each request has
# **tokens still to compute**: all of its prompt at first, later the one token that was sampled last. A step has a
# **token budget**, and the scheduler hands it out:
#
# 1. Running requests first, in order of arrival. Each gets its tokens, or what is left of the budget: a long prompt is
#    computed in **chunks**, beside the decodes of others.
# 2. If the pool has no block for a running request, the latest arrival is **preempted**: it gives all its blocks back,
#    goes to the head of the waiting line, and will be computed again. Then try again.
# 3. Waiting requests are **admitted** with what is left, in order, while there are budget, seats, and enough blocks
#    for all the tokens that they have. The first that does not fit ends it, and in a step that preempted, nobody starts.
#
# Three requests with a budget of 8 tokens make these steps:

# %%
plots.schedule_grid(
    [{"a": 8}, {"a": 2, "b": 6}, {"a": 1, "b": 1, "c": 6}, {"a": 1, "b": 1, "c": 5}, {"b": 1, "c": 1}],
    title="a has 10 prompt tokens, b 6, c 11; budget 8",
)

# %% [markdown]
# **Before you write:** a and b run, each with 8 tokens in two blocks of 4, and the pool has four blocks. c waits, with a prompt
# of 3 tokens. Now a needs a block for its ninth token. Who is preempted? What happens in this step to b, and to c?
#
# <details><summary>Answer</summary>
#
# b, the later arrival, loses both its blocks; a takes one of them. b now heads the line, before c, with nothing computed:
# 9 tokens to compute, for which it needs three blocks. One is free. Nobody else starts in this step, and in the next ones
# c may not overtake b, although its single block would fit. When a has ended, b computes its 9 tokens in one go. The work
# on them is done twice; nothing that b has said is lost.
#
# </details>

# %% [markdown]
# <!-- head: Scheduler -->
#
# Four methods of the engine's scheduler are yours. `self.running` is a list and `self.waiting` a deque; together they
# hold all requests in order of arrival. What a request offers you:
#
# | a request's | |
# |---|---|
# | `request_id` | its name, by which the pool knows its table |
# | `token_ids` | all tokens that are known: the prompt, then the output so far |
# | `num_computed_tokens` | how many of them have their K and V in the cache; yours to set when it starts or is preempted; after a step it is raised for you |
# | `num_uncomputed_tokens` | the others, always `len(token_ids) - num_computed_tokens`: what it has still to compute. A running request has at least one when you are asked |
# | `num_seqs` | the seats that it takes among the running: 1, or n for a request with n continuations |
# | `draft_token_ids` | guesses at its next tokens (Day 4). `schedule`, which is given, adds them after your part |
#
# What the pool, `self.kv`, offers you:
#
# | `self.kv` | |
# |---|---|
# | `start(request_id, token_ids)` | opens the table of a waiting request, with room checked for all its tokens. Returns how many are in the prefix cache (these count as computed), or None, with nothing changed, while there is no room |
# | `append(request_id, num_tokens)` | room for the next tokens of a request whose table is open. Returns their slots, or None, with nothing changed, when the pool is full |
# | `free(request_id)` | closes a table and gives its blocks back |
#
# `start` gives no slots: a request that has just started gets them from `append`, like one that runs. A
# `ScheduledRequest(request, slots)` is a request's share of the step.
#
# The budget of a step is `self.config.max_num_batched_tokens`. `num_free_seqs()` and `budget_after(scheduled)` are
# given. A good order to write in: `preempt_last`, `schedule_running`, `admit_waiting`, `schedule_known_tokens`.

# %% exercise="Scheduler" stub="schedule_known_tokens,schedule_running,preempt_last,admit_waiting" minutes="50" difficulty="4"
from tinyllm.engine.scheduler import Scheduler

# %% check="Scheduler"
check(Scheduler)

# %%
use(Scheduler)

# %% [markdown]
# Watch your scheduler at work. It needs no model for that: an engine whose logits are all 0 schedules like any other.

# %%
from tinyllm import EngineConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import DryRunner
from tinyllm.parts import resolve

course = LLM(num_blocks=1024)


# %%
class Watcher(DryRunner):
    """Writes down who computes how many tokens in each step."""

    steps = ()

    def execute(self, scheduled):
        """See `Runner.execute`."""
        self.steps = [*self.steps, {item.request.group_id: item.num_tokens for item in scheduled}]
        return super().execute(scheduled)


def watch(requests, **options):
    """Run requests, given as prompt and output lengths by name, and return the steps and who was preempted in each."""
    config = EngineConfig.from_options(**{"block_size": P, "num_blocks": N, "enable_prefix_caching": False, **options})
    watcher = Watcher(2048)
    engine = LLMEngine(course.model, course.tokenizer, config, resolve({"Scheduler": Scheduler}), runner=watcher)
    for name, (prompt_len, output_len) in requests.items():
        engine.add_request(range(prompt_len), SamplingParams(max_tokens=output_len, ignore_eos=True), name)
    preempted = []
    while engine.has_unfinished:
        before = [request.group_id for request in engine.scheduler.running]
        engine.step()
        waiting = [request.group_id for request in engine.scheduler.waiting]
        preempted.append([name for name in before if name in waiting])
    return watcher.steps, preempted


# %% [markdown]
# The three requests of the picture above, now to the end of four output tokens each (above, the steps end earlier):

# %%
steps, _ = watch({"a": (10, 4), "b": (6, 4), "c": (11, 4)}, max_num_batched_tokens=8)
plots.schedule_grid(steps, title="Budget 8")

# %% [markdown]
# Now the situation of the question: a pool of four blocks. A cross is a preemption.

# %%
steps, preempted = watch({"a": (7, 7), "b": (7, 5), "c": (3, 3)}, num_blocks=4)
plots.schedule_grid(steps, preempted, title="Four blocks of 4")

# %% [markdown]
# b gives up its blocks in the third step, as told above. Later c is preempted too: it needs a second block while b holds
# three, and it is itself the latest arrival.

# %% [markdown]
# ### Why a budget
#
# Four users are reading their answers as a prompt of 1,500 tokens arrives. Without a small budget it is computed in one
# step, and for as long as that takes nobody gets a token.
#
# **Before you run it:** with a budget of 64, how many steps does the prompt take? Who pays for the smoother reading?
#
# <details><summary>Answer</summary>
#
# The four decodes take 4 of the 64 tokens, so that 60 are left in each step: 1,500 / 60 = **25** steps. Each step has its
# fixed costs and computes the others' tokens too. On a GPU, which needs large chunks to be busy, the long prompt's own
# first token therefore comes later: its user pays. On a CPU it may even come sooner. Attention in plain torch compares
# every token of a chunk with the chunk's whole context and then masks what comes later, which small chunks have less of.
#
# </details>
#
# Three budgets, ten to thirty seconds:


# %%
def longest_gap(budget):
    """The longest ITL of four readers while a long prompt is computed, and that prompt's TTFT, in ms."""
    llm = LLM(parts={"Scheduler": Scheduler, "paged_attention": paged_attention}, max_num_batched_tokens=budget)
    readers = SamplingParams(max_tokens=60, ignore_eos=True)
    for number in range(4):
        llm.engine.add_request([number] * 8, readers, str(number))
    outputs = [output for _ in range(20) for output in llm.engine.step()]
    llm.engine.add_request([5] * 1500, SamplingParams(max_tokens=1), "long")
    while llm.engine.has_unfinished:
        outputs += llm.engine.step()
    times = {output.request_id: output.outputs[0].metrics for output in outputs}
    return max(max(times[str(number)].itl) for number in range(4)) * 1000, times["long"].ttft * 1000


# %%
from tqdm.auto import tqdm

for budget in tqdm((2048, 256, 64), desc="budgets"):
    gap, ttft = longest_gap(budget)
    print(f"budget {budget:5}: longest gap between two tokens {gap:4.0f} ms, TTFT of the long prompt {ttft:4.0f} ms")

# %% [markdown]
# ## Finale: static against continuous batching
#
# The serving engine now runs on your scheduler and your attention, and on everything you built on Day 1.

# %%
mine = LLM(parts="mine", num_blocks=1024)

# %% [markdown]
# ### The same words
#
# Whatever is batched with what, a request must get the same tokens: alone, among seven others, and in chunks of 8 tokens
# in a pool so small that requests are preempted. The second cell takes about ten seconds.

# %%
words = ["a KV cache", "a block table", "a token", "attention", "a block", "preemption", "a scheduler", "sampling"]
questions = [[{"role": "user", "content": f"What is {word}?"}] for word in words]
answers = mine.chat(questions)
answers[6].text

# %%
squeezed = LLM(parts="mine", num_blocks=16, max_num_batched_tokens=8)
alone = [course.chat(question)[0].outputs[0].token_ids for question in questions]
together = [answer.outputs[0].token_ids for answer in answers]
tight = [answer.outputs[0].token_ids for answer in squeezed.chat(questions, progress=True)]
num_preempted = squeezed.engine.stats().num_preempted
print("among others the same tokens:", together == alone)
print("in a small pool the same tokens:", tight == alone, "preemptions:", num_preempted)

# %% [markdown]
# ### Two schedulers
#
# Static batching is your scheduler with one change: nobody is admitted while anybody runs. (Real static batching
# is worse still: it pads all sequences to the longest, and returns them together.)


# %%
class StaticScheduler(Scheduler):
    """Starts a new batch only when the last one has ended."""

    def admit_waiting(self, budget):
        """See `Scheduler.admit_waiting`."""
        return [] if self.running else super().admit_waiting(budget)


# %% [markdown]
# 80 requests with the lengths of Alpaca's instructions, at most 16 at once: most outputs are short, and a few are very
# long. To serve them is to add each when its time has come, and to step. `replay` does so with both schedulers in turns, a
# step of one and a step of the other, and gives each a clock that runs only while it computes. So whatever else your
# machine does meanwhile slows both alike.

# %%
from tinyllm.engine.report import summarize
from tinyllm.replay import TimedRequest, replay
from tinyllm.traces import make_trace, poisson_arrivals

my_parts = resolve("mine")
trace = make_trace("alpaca", 80, vocab_size=2048, seed=2)


def serve(load, seats):
    """Serve a load on your parts, statically and continuously."""
    config = EngineConfig(max_num_seqs=seats)
    engines = {}
    for name, scheduler in (("static", StaticScheduler), ("continuous", Scheduler)):
        parts = resolve({**my_parts.chosen, "Scheduler": scheduler})
        engines[name] = LLMEngine(mine.model, mine.tokenizer, config, parts)
    return replay(engines, load)


# %% [markdown]
# First with all requests there from the start. This measures **throughput**, since neither ever has to wait for work.
#
# **Before you run it:** by how much will continuous batching win? What would have to be different for a draw?
#
# <details><summary>Answer</summary>
#
# A static batch takes as many steps as its longest output, several times the mean here, with ever fewer sequences in it.
# A step with few sequences is cheaper than a full one, but not by much (the linear layers' weights are read all the
# same). Expect something between 1.5 and 2.5 times. If all outputs had the same length there would be a draw.
#
# </details>
#
# Half a minute; on a slow or busy machine two minutes:

# %%
at_once = serve([TimedRequest(0.0, request) for request in trace], seats=16)
throughput = {name: summarize(run.metrics, run.records, 1024) for name, run in at_once.items()}
{name: f"{report.tokens_per_s:.0f} tokens/s in {report.num_steps} steps" for name, report in throughput.items()}

# %%
plots.step_timeline({name: run.records for name, run in at_once.items()})

# %% [markdown]
# Each block of static batching falls off to the right as its requests end. Continuous batching fills every seat as soon
# as it is free, until nobody is left to come.
#
# Now requests that come at random, as users do: a Poisson process at 80 % of what your scheduler can serve.

# %%
rate = 0.8 * throughput["continuous"].outputs_per_s
arrivals = poisson_arrivals(len(trace), rate)
f"{rate:.1f} requests/s for {arrivals[-1]:.1f} s"

# %% [markdown]
# As long again:

# %%
poisson = serve([TimedRequest(*item) for item in zip(arrivals, trace, strict=True)], seats=16)
reports = {name: summarize(run.metrics, run.records, 1024) for name, run in poisson.items()}
for name, report in reports.items():
    print(f"{name}\n{report}\n")

# %%
plots.request_spans({name: run.metrics for name, run in poisson.items()})

# %%
plots.latency_bars(
    {name: {"TTFT": r.ttft, "TPOT": r.tpot, "latency": r.latency} for name, r in reports.items()},
    title="The same requests at the same times",
)

# %% [markdown]
# Most of the gain is in the TTFT: the time that users look at an empty screen. A token of a request takes about as long as
# before, or a little longer, since more requests share each step.

# %% [markdown]
# ### The pool over time
#
# At last a pool that is too small for all, on your scheduler: 64 blocks, the first 30 requests. Each color is a request.

# %%
config = EngineConfig.from_options(num_blocks=64, enable_prefix_caching=False)
small = LLMEngine(mine.model, mine.tokenizer, config, my_parts, runner=DryRunner(2048))
for request in trace[:30]:
    small.add_request(request.prompt_token_ids, request.params)
owners = []
while small.has_unfinished:
    small.step()
    owners.append(small.kv.owners())

# %%
plots.pool_over_time(owners, title=f"{small.stats().num_preempted} preemptions")

# %% [markdown]
# ## The scoreboard
#
# The same 24 requests as on Days 0 and 1, at most eight at once. They come as fast as full steps of eight could just serve
# them on this machine, and the answers are of very different lengths. Day 1's row is measured once more, on the same
# arrivals: yesterday your machine may have been busier or less busy than now.
#
# **Before you run it:** Day 1's batches were static, Day 2's are continuous, and nothing else differs. Which of the three
# numbers will change, and which most?
#
# <details><summary>Answer</summary>
#
# Tokens/s rise, since no seat stays empty while somebody waits. The TTFT falls most: it held the wait for the longest
# answer of the batch before. The memory of a request is about what it was: the scheduler does not change what a request
# needs, only how many have it at the same time.
#
# </details>
#
# Twenty seconds to a minute:

# %%
from tinyllm import scoreboard
from tinyllm.kv_cache.sizing import kv_bytes_per_token

step_seconds = scoreboard.full_step_seconds(course.engine)
runs = serve(scoreboard.load_for(step_seconds, mine.model.config.vocab_size), scoreboard.NUM_SEATS)

# %%
token_bytes = kv_bytes_per_token(mine.model.config, bytes_per_element=4)
for day, name in ((1, "static"), (2, "continuous")):
    bytes_held = scoreboard.blocks_held(runs[name].records) * 16 * token_bytes
    title = {"static": "paged, static batches of 8", "continuous": "your scheduler, 8 at once"}[name]
    board = scoreboard.record(scoreboard.measure(day, title, runs[name].metrics, bytes_held))
board

# %% [markdown]
# ## Check yourself
#
# Answer in a sentence or two before you open the criteria.
#
# **1.** A chunk of 5 new tokens ends a context of 20. Which positions does its first token see?
#
# <details><summary>A good answer says</summary>
#
# 0 to 15: it stands at position 20 - 5 = 15 and sees itself and all before it.
#
# </details>
#
# **2.** Two pieces have lse 2.0 and 2.0. With what weights are their outputs merged, and what is the merged lse?
#
# <details><summary>A good answer says</summary>
#
# one half each; 2 + log(2), about 2.69.
#
# </details>
#
# **3.** Why does a larger batch make linear layers more efficient in decoding, but not attention?
#
# <details><summary>A good answer says</summary>
#
# weights are read once for all tokens of a step; keys and values belong to one sequence, so each sequence brings as many
# bytes as operations.
#
# </details>
#
# **4.** What does a smaller token budget improve, and what does it cost?
#
# <details><summary>A good answer says</summary>
#
# the gaps between tokens (ITL) of those who are decoding while a prompt is computed; on a GPU the long prompt's own TTFT
# and, with more steps for the same tokens, some throughput.
#
# </details>
#
# **5.** Why is the latest arrival preempted, and why does it go to the head of the line?
#
# <details><summary>A good answer says</summary>
#
# those who came first are served first and have the most computed work to lose; it still came before all who wait.
#
# </details>
#
# **6.** A request must have blocks for all its known tokens before it starts, though only a chunk is computed now. Why?
#
# <details><summary>A good answer says</summary>
#
# otherwise it would start, fill the pool with the beginning of its prompt, and be preempted in the middle: work for nothing.
#
# </details>

# %% [markdown]
# ## Where production systems differ
#
# - **vLLM's scheduler** (v1) is the model for yours: no phases, one token budget. It also knows priorities, several kinds of
#   memory, and requests that wait for a grammar or for an image's embeddings.
# - **A preempted request** is recomputed by default, as here; some engines can swap its blocks to the host's memory.
# - **Budgets** are larger on a GPU, from 2,048 tokens up: it needs that many to be busy in a chunk.
# - **Prefill and decode may run on different machines** (DistServe, Splitwise), so that neither disturbs the other; the KV
#   cache is sent from one to the other.
# - **Overlapped scheduling:** SGLang and vLLM plan the next step on the CPU while the GPU still computes this one.
# - **Attention libraries** such as FlashAttention and FlashInfer are tuned for each generation of GPUs, with tensor cores,
#   asynchronous copies and FP8. The algorithm, pages and merged states, is the one that you have written.
#
# **Reading:** Yu and others, *Orca: A Distributed Serving System for Transformer-Based Generative Models*, OSDI 2022.
# Agrawal and others, *Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve*, arXiv 2403.02310, on chunked
# prefill. Milakov and Gimelshein, *Online normalizer calculation for softmax*, arXiv 1805.02867.

# %% [markdown]
# ## Hand in
#
# In a terminal: `tinyllm status` shows whose code each part is, `tinyllm submit day2` makes the one file to hand in.
