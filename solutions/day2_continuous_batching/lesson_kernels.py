# %% setup=true
# ruff: noqa: F821
import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read once, when Triton is imported

# %% [markdown]
# ## Triton in ten minutes
#
# The next four exercises are **kernels**: programs that run on a GPU, thousands of copies at a time. You write them in
# Triton, a small language inside Python. If you know PyTorch there is little to learn:
#
# - A function with `@triton.jit` is a kernel. `kernel[grid](arguments)` launches one **program** for each point of the
#   grid, and `tl.program_id(0)` tells a program which point is its own.
# - A tensor argument arrives as a **pointer** to its first number. Adding a number moves along in memory, so that row r
#   of a matrix begins at `ptr + r * stride`, where `stride` is `tensor.stride(0)`.
# - A program works on small blocks of numbers at once. `tl.arange(0, 16)` is the block 0, 1, ..., 15; its size is a
#   power of two, known when the kernel is compiled (`tl.constexpr`).
# - `tl.load(ptr + offsets)` reads a block, `tl.store(ptr + offsets, values)` writes one. There is no bounds check: with
#   `mask=` you say which places are yours. The others are neither read nor written.
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
# A pool may have more than 2**31 numbers: make the slot an int64 (`.to(tl.int64)`) before you multiply.

# %% exercise="store_kv" stub="store_kv_kernel" minutes="25" difficulty="2" points="2"
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
moved = 4 * 2048 * 8 * 128 * 2
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
# - `page_slots`: two lines. Where a position is not `inside`, do not read the table.
# - `softmax_step`: new highest, weights, correction, total, acc.
# - `attend_pages`: begin with -inf, 0 and 0, then the loop. `scores` are `tl.dot(q, tl.trans(k), input_precision="ieee") * scale`;
#   without "ieee" a GPU would round float32 numbers to 10 bits first.

# %% exercise="paged_decode" stub="page_slots,softmax_step,attend_pages" minutes="40" difficulty="4" points="3"
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
found.tolist()

# %% [markdown]
# And your running softmax at work, on 64 scores in tiles of 16. Watch the total where a tile brings a new highest score:


# %%
@triton.jit
def watch_softmax(scores_ptr, highest_ptr, total_ptr, TILE: tl.constexpr):
    columns = tl.arange(0, TILE)
    v = tl.zeros([TILE, 16], tl.float32)
    highest = tl.full([16], float("-inf"), tl.float32)
    total = tl.zeros([16], tl.float32)
    acc = tl.zeros([16, 16], tl.float32)
    for tile in range(4):
        scores = tl.load(scores_ptr + tile * TILE + columns)[None, :] + tl.zeros([16, TILE], tl.float32)
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
        tl.store(highest_ptr + tile * 16 + tl.arange(0, 16), highest)
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
#   return the average `normalised(acc, total)` and the log-sum-exp in base 2.
# - `reduce_splits`: load the log-sum-exps of the written splits, turn them into shares (take the highest out first), and
#   add up the outputs by their shares. No split at all gives 0.

# %% exercise="paged_decode_split" stub="attend_split,reduce_splits" minutes="30" difficulty="3" points="2"
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
# `page_slots`, `softmax_step`, `attend_pages` and `load_tile` are there.
#
# A row sees the positions at a distance of 0 to `window` - 1. (`window` is a very large number where there is none.) One
# masked loop over everything is right. If you like: the tiles that all rows see need no mask, and the tiles that none sees
# need not be loaded.

# %% exercise="paged_prefill" stub="attend_chunk" minutes="35" difficulty="4" points="3"
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
# interpreter that is far too slow to serve with, but a few tokens show that they are those of the torch backend:

# %%
from tinyllm import LLM, SamplingParams

few = SamplingParams(max_tokens=4)
answers = {}
for backend in ["torch", "triton"] if AVAILABLE else ["torch"]:
    llm = LLM(parts="mine", num_blocks=16, attention_backend=backend, device=device, dtype="float32")
    answers[backend] = llm.generate("The cache", few)[0].outputs[0].token_ids
answers
