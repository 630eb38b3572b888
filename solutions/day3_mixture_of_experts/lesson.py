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
# # Day 3: mixture of experts
#
# A dense model reads all of its weights for every token. A **sparse** one has many MLPs side by side in a layer, the
# *experts*, and a small *router* that sends each token to a few of them: eight of 128 in Qwen3-30B-A3B. Such a model knows
# as much as a large one and computes as little as a small one. What is hard about it is serving it: tokens must be sorted,
# experts must be multiplied in groups, some experts are asked far more often than others, and at last they do not fit on one
# device. Today you build all of that.
#
# **When you are through, you can**
#
# - write the router of Qwen3-MoE and Mixtral, and say where the two differ;
# - sort tokens by expert, pad them to blocks, and write the Triton tile that multiplies them in groups;
# - tell what a capacity drops, and keep experts evenly loaded by a loss or by a bias;
# - send tokens to experts on other ranks and bring the answers home with two all-to-alls;
# - predict how many experts a batch touches, and why a sparse model's step gets slower as the batch grows.
#
# **Read the chapter first:** [Day 3 of the book](http://localhost:3000/day3.html), about three quarters of an hour.
# `make book-serve` in a terminal serves the book at that address; its source is `book/src/day3.md`.
#
# **Time:** about five hours for this notebook: three and a half for its exercises (20 points in seven steps, four of which
# have two functions each), one and a half for all that is between them. After step 4 there is a good place to stop
# for the day. Each exercise can be done on its own: the checks bring the other parts with them. Cells that take more than
# ten seconds say so; the times are those of a laptop.
#
# Step 4 needs Triton, which has packages for Linux only. On other systems its check says "not checked here", and the
# rest of the day runs as it is.
#
# **The letters:** T tokens in a step, H hidden size, E experts in a layer, K experts a token, I the width of an expert, W
# ranks. A token and one of its experts are a **pair**, and there are T * K of them.

# %% [markdown]
# ## How an exercise goes
#
# Read, write, check, use: as on the days before. `hint(topk_router)` nudges, `hint(topk_router, 2)` says more, and
# `solution(topk_router)` shows one way to do it. If you want to go on without finishing an exercise, import the
# course's version in a cell of your own **below** its check, for example
# `from tinyllm.experts.routing import topk_router`.

# %% setup=true
import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read once, when Triton is imported

from grader import check, hint, solution, spot
from tinyllm.parts import use

# %%
from tinyllm import plots

torch.set_num_threads(1)  # as on the days before

# %% [markdown]
# ## 1. The router
#
# The router is one small matrix: it gives every token E numbers, its **logits**, one for each expert. The token goes to the K
# experts with the largest. How much each answer counts is a softmax's affair, and here the models differ in a detail that has
# broken more than one engine:
#
# - **Mixtral** takes the softmax over all E experts, keeps the K largest and divides them by their sum, always.
# - **Qwen3-MoE** does so where its config says `norm_topk_prob`. Where it does not, the K weights add up to less than 1, and
#   the layer's answer is smaller. The model was trained that way.
#
# One token, four experts, K = 2:

# %%
logits = torch.tensor([[2.0, 1.0, 0.5, -1.0]])
probs = logits.softmax(dim=-1)
kept = probs.topk(2).values
{"all four": probs[0].tolist(), "two kept": kept[0].tolist(), "renormalized": (kept / kept.sum())[0].tolist()}

# %% [markdown]
# **Before you write:** someone takes the top two logits first and the softmax of these two. Which of the two models gets the
# right weights, and which gets wrong ones? And how far apart are `exp(8.0)` and `exp(8.03)` in bfloat16, which has 8 bits?
#
# <details><summary>Answer</summary>
#
# A softmax of the two is exp(a) / (exp(a) + exp(b)), and so are the renormalized weights: the sum over all four cancels.
# Mixtral is right. Without renormalization the weights come out too large, since they always add up to 1. In bfloat16, 8.0
# and 8.03 are the same number already: the next one after 8 is 8.0625. Probabilities of many experts are small and close to
# each other, so the softmax is computed in float32 whatever the dtype of the model.
#
# </details>

# %% [markdown]
# <!-- head: topk_router -->
#
# Choose the `top_k` likeliest experts of every token. `router_logits` are [T, E], in float32, bfloat16 or float16. The
# softmax goes over **all** E experts. `norm_topk_prob` says whether a token's weights are then divided by their sum. Compute
# all of it in float32 and round to the dtype of the logits at the very end.
#
# Return two tensors [T, K]: the weights in the dtype of the logits, largest first, and the experts' ids (int64 or int32). Where
# two experts are equally likely either may come first. A row of NaN (a broken request) gets K **different** experts of the
# E, whatever they are, and weights of NaN; no other row may notice. T may be 0, and logits may be large or strided.

# %% exercise="topk_router" stub="topk_router" minutes="15" difficulty="1"
from tinyllm.experts.routing import topk_router

# %% check="topk_router"
check(topk_router)

# %%
use(topk_router)

# %% [markdown]
# Both ways of weighting, on four tokens. The ids are the same, the weights are not:

# %%
four = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
for norm_topk_prob in (True, False):
    weights, ids = topk_router(four, 2, norm_topk_prob)
    print(ids.tolist(), "weights add up to", [round(float(total), 3) for total in weights.sum(dim=1)])

# %% [markdown]
# ## 2. There and back: permute and unpermute
#
# The loop above asks, for each expert, which tokens want it. With 128 experts that is 128 searches through all tokens, and 128
# small products, of which many have no row at all. An engine **sorts** instead. Each token is copied once for each of its
# experts, the copies are put in the order of their experts, and every expert's rows lie side by side: one slice each.
#
# Afterwards the answers go home. Row j of the sorted rows was pair `pairs[j]`, so that is where its answer belongs.
#
# **Before you write:** three tokens with the experts [2, 0], [0, 1] and [2, 1]. What are `pairs` and `counts` for E = 4? Which
# token is pair 3?
#
# <details><summary>Answer</summary>
#
# The six pairs have the experts 2, 0, 0, 1, 2, 1. Sorted: expert 0 has pairs 1 and 2, expert 1 has 3 and 5, expert 2 has 0
# and 4. So `pairs` is [1, 2, 3, 5, 0, 4] and `counts` [2, 2, 2, 0]. Pair 3 is token 3 // 2 = 1.
#
# </details>
#
# And one trap, which has its own cell:

# %%
out = torch.zeros(3)
out[torch.tensor([0, 0, 2])] += torch.tensor([1.0, 10.0, 5.0])
out

# %% [markdown]
# Two answers were added to token 0 and one of them is gone: `out[index] += y` reads once and writes once for each place. Where
# two rows belong to one token, put each into a place of its own first.

# %% [markdown]
# <!-- head: permute -->
#
# Pair i is token i // K with its expert number i % K. Copy each token once for every pair it has, so that the rows of
# expert 0 come first, then those of expert 1, and so on. The rows of one expert may stand in any order.
#
# Return `permuted` [n, H], new memory in the dtype of `x`; `pairs` [n], which pair each row is; and `counts` [E], how many
# rows each expert has, 0 for an expert that nobody chose. `topk_ids` are int64 or int32, and so may `pairs` and `counts` be.
#
# A pair whose id is not one of 0 to E - 1 is left out: it was dropped, or its expert is elsewhere. T may be 0, and all pairs
# may be left out. `x` and `topk_ids` may be strided, and NaN in one token stays with that token.

# %% exercise="permute" stub="permute" minutes="20" difficulty="2"
from tinyllm.experts.dispatch import permute

# %% check="permute"
check(permute)

# %%
use(permute)

# %% [markdown]
# <!-- head: unpermute -->
#
# The way back: row j of `expert_out` is the expert's answer to pair `pairs[j]`. Give each token the sum of its answers,
# every one times its weight in `topk_weights` [T, K]. Each pair is weighted once, and a pair that was left out adds
# nothing, whatever its weight is. A token all of whose pairs were left out gets 0.
#
# The sum of a token may not hang on where its rows stood among the others, not in the last bit: add its answers in the order
# of its K experts. `pairs` are int64 or int32. `expert_out` and `topk_weights` have one dtype, which the result has too, and
# may be strided. NaN in one answer stays with its token, T may be 0, and nothing that you were given may change.

# %% exercise="unpermute" stub="unpermute" minutes="20" difficulty="2"
from tinyllm.experts.dispatch import unpermute

# %% check="unpermute"
check(unpermute)

# %%
use(unpermute)

# %% [markdown]
# ## 3. Blocks of one expert
#
# On a GPU one kernel must run all experts at once: one launch, thousands of programs. As on Day 2 a program takes a **block** of
# rows, here 16 or 64, and multiplies it by one matrix. So all rows of a block must belong to the same expert. Rows of
# expert 0 that fill one block and a half are padded to two blocks, and expert 1 begins with the third.
#
# Nothing is copied for that. What is sorted and padded is a list of numbers, `sorted_token_ids`, and the kernel fetches the rows
# by it. Every engine shares this format: vLLM, SGLang and TensorRT-LLM.
#
# **Before you write:** the three tokens of above, [2, 0], [0, 1] and [2, 1], with blocks of 4. What are the three tensors? How
# much of the work is padding?
#
# <details><summary>Answer</summary>
#
# T * K = 6, so padding is 6. `sorted_token_ids` begins with [1, 2, 6, 6, 3, 5, 6, 6, 0, 4, 6, 6], `expert_ids` with [0, 1, 2] and
# `num_tokens_post_padded` is [12]. Half of it is padding. The length is 6 + min(4, 6) * 3 = 18, rounded up to 20: five blocks,
# so that two more entries of `expert_ids` are -1. Expert 3 has no pair and no block.
#
# </details>
#
# The length does not depend on what the router chose, and that is the point: a CUDA graph records a launch once and runs it again
# with other tokens. A shape that follows from values would have to be read back from the GPU first, in every layer of
# every step.

# %% [markdown]
# <!-- head: moe_align_block_size -->
#
# Sort the pairs by expert and pad each expert's pairs to a multiple of `block_size`, so that every block of rows belongs to
# one expert. Return three int32 tensors:
#
# - `sorted_token_ids`: the pairs, expert by expert. Padding is T * K, one past the last pair, between the experts and
#   behind the last one. The pairs of one expert may stand in any order, before its padding. Its length is
#   T * K + min(E, T * K) * (block_size - 1), rounded **up** to whole blocks: the most that can ever be needed.
# - `expert_ids`: the expert of each block of that length; -1 for the blocks behind the last one in use.
# - `num_tokens_post_padded` [1]: how many entries of `sorted_token_ids` are in use, a multiple of `block_size`.
#
# An expert without a pair gets no block. A pair whose id is not one of 0 to E - 1 (such as -1) is left out.
#
# For the last half point, let nothing wait for the GPU: no `.item()`, `.tolist()`, `int(tensor)`, `nonzero` or indexing with
# booleans, no loop over values. Shapes depend on shapes alone then, and a CUDA graph can hold the step. Start with a loop
# over experts if you like; it earns all the other points.

# %% exercise="moe_align_block_size" stub="moe_align_block_size" minutes="40" difficulty="4"
from tinyllm.experts.align import moe_align_block_size

# %% check="moe_align_block_size"
check(moe_align_block_size)

# %%
use(moe_align_block_size)

# %% [markdown]
# ## 4. The grouped product
#
# The blocks are there; now they are multiplied. An expert has two products with a SwiGLU between them: its gate and up
# matrices in one [2I, H], then down [H, I]. Both are `out = a @ w.T` for one block of rows and one expert's w [N, K], so that
# one kernel does for both. (In this section N and K are the sizes of w, as everybody calls them: w is [N, K] for each expert.
# The number of experts a token is `top_k` here.)
#
# Two things differ between the first product and the second:
#
# | | first product | second product |
# |---|---|---|
# | rows of a | one a **token**: its pairs share it | one a **pair**: what the first product has left |
# | `PAIRS_PER_ROW` | `top_k` | 1 |
# | row of pair p | `p // top_k` | p |
# | `WEIGHTED` | no | yes: each product times its pair's router weight |
#
# So the sorted copies of exercise 2 are never made: the first product fetches a token's row wherever it lies, and both store
# the product of pair p in row p of out. After the second one, a token's answers are `top_k` rows side by side, to be added up.
#
# A program has one block of pairs and BLOCK_N columns of out, that is BLOCK_N rows of w. The kernel around your part is
# the course's: it finds the block's expert, moves `w_ptr` to the beginning of that expert's matrix, loads the block's pairs
# and calls a **tile** with all of them. You write the tile: fetch, multiply, store.
#
# **Before you write:** the block [1, 2, 6, 6] of the six pairs above, two pairs a token. Which rows of a does the first
# product read for it, which the second, and which rows of out does it write?
#
# <details><summary>Answer</summary>
#
# The first reads rows 1 // 2 = 0 and 2 // 2 = 1, the second rows 1 and 2. Both write rows 1 and 2. The 6 is padding: there is
# no pair 6. Row 6 // 2 = 3 of a is not there, and neither is row 6 of out. On a GPU both are somebody else's memory.
#
# </details>
#
# ### A warm-up: rows that lie anywhere
#
# On Day 2 `tile_scores` multiplied two tiles whose rows lay side by side. Here each row has a pointer of its own. A pointer plus
# a block of offsets is a block of pointers, one for each row. Lined up with `[:, None]`, and with numbers of a row added, it is a
# tile of pointers. This kernel copies four rows, -1 for none, of a matrix with 5 columns:


# %%
from tinyllm.kernels.runtime import AVAILABLE, tl, triton

device = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def pick_rows(
    x_ptr, numbers_ptr, out_ptr, x_stride, NUM_COLUMNS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    numbers = tl.load(numbers_ptr + rows)
    row_ptrs = x_ptr + numbers * x_stride  # [ROWS]
    mine = (numbers >= 0)[:, None] & (columns < NUM_COLUMNS)[None, :]  # [ROWS, COLUMNS]
    x = tl.load(row_ptrs[:, None] + columns[None, :], mask=mine, other=0.0)
    tl.store(out_ptr + rows[:, None] * COLUMNS + columns[None, :], x)


# %%
matrix = torch.arange(30.0, device=device).view(6, 5)
picked = torch.zeros(4, 8, device=device)
if AVAILABLE:
    pick_rows[(1,)](matrix, torch.tensor([4, 0, -1, 4], device=device), picked, 5, NUM_COLUMNS=5, ROWS=4, COLUMNS=8)
picked

# %% [markdown]
# A long row is walked over BLOCK_K numbers at a time, as in `row_sums` of Day 2. There a sum was carried from round to round,
# here it is a tile, [rows of a, rows of w]: `acc = tl.dot(x, tl.trans(y), acc, input_precision="ieee")` adds a product to it.
#
# **Before you write:** rows of 40 numbers, BLOCK_K = 32. How many rounds are there? In the last one 24 places of a row are
# not there. The numbers of a at these places are 0. Is that enough, if those of w are whatever lies behind its rows?
#
# <details><summary>Answer</summary>
#
# Two rounds, of 32 and of 8 numbers. It is not enough: what lies behind may be NaN or infinite, and 0 times NaN is NaN. Behind
# the last row it may be no memory of yours at all. Both need the mask.
#
# </details>
#
# **And:** somebody multiplies by the router weight in both products. Is the answer then a token's answer times its weight squared?
#
# <details><summary>Answer</summary>
#
# Not even that. Between the two products is SwiGLU, `silu(gate) * up`, and silu(0.5 * x) is not 0.5 * silu(x). The weight belongs
# behind all of it. Multiplying every product of the loop over K, in place of their sum, goes wrong in the same silent way.
#
# </details>

# %% [markdown]
# <!-- head: grouped_gemm_tile -->
#
# Write the tile: a block of pairs, all of one expert, times BLOCK_N rows of that expert's matrix w. Its arguments:
#
# | argument | |
# |---|---|
# | `a_ptr`, `a_stride` | row r of a begins `r * a_stride` numbers behind `a_ptr`; it has K numbers, side by side |
# | `w_ptr`, `w_stride` | row c of this expert's w begins `c * w_stride` numbers behind `w_ptr`; it has K numbers as well |
# | `out_ptr` | row p of out begins `p * N` numbers behind it |
# | `topk_weights_ptr` | one weight a pair, in any dtype; not to be read unless WEIGHTED |
# | `pairs` | [BLOCK_M] int64: the block's pairs, in any order. Those that are `num_pairs` are padding |
# | `columns` | [BLOCK_N] int32: which columns of out, that is rows of w. Those from N on do not exist |
# | `N`, `K`, `PAIRS_PER_ROW`, `WEIGHTED`, `BLOCK_K` | numbers that are known when the kernel is compiled |
#
# - **Fetch.** Pair p has row `p // PAIRS_PER_ROW` of a. A stride may be as large as you like, and `c * w_stride` pass 2**31: make
#   the columns int64 (`.to(tl.int64)`) before you multiply.
# - **Multiply**, BLOCK_K numbers of K at a time, into a sum in float32.
# - **Weigh**, once, where `WEIGHTED` is true: the sum of pair p times weight p, still in float32.
# - **Store** in the dtype of out, `out_ptr.dtype.element_ty`.
#
# Nothing is read or written for padding, for columns from N on, or for numbers from K on, even where its value would do
# no harm. `pairs.shape[0]` is BLOCK_M, `columns.shape[0]` is BLOCK_N.
#
# `load_part(row_ptrs, k, inside, K)` is given. It returns [rows, BLOCK_K], in the dtype of the rows (but for bfloat16 in the
# interpreter, which cannot multiply it: there it returns float32):
#
# | argument | |
# |---|---|
# | `row_ptrs` | [rows]: a pointer to the first number of each row |
# | `k` | [BLOCK_K]: which numbers of each row. Those from K on are not read, and are 0 |
# | `inside` | [rows] bool: rows where it is False are not read, and are 0 |
# | `K` | how many numbers a row has |

# %% exercise="grouped_gemm_tile" stub="grouped_gemm_tile" minutes="40" difficulty="4"
from tinyllm.kernels.grouped_gemm import grouped_gemm_tile

# %% check="grouped_gemm_tile"
check(grouped_gemm_tile)

# %%
use(grouped_gemm_tile)

# %% [markdown]
# Your tile in the course's kernel, on the three tokens from above: six products of one expert each, beside the same in a loop.

# %%
from tinyllm.experts.align import moe_align_block_size as align
from tinyllm.kernels.grouped_gemm import grouped_gemm

ids = torch.tensor([[2, 0], [0, 1], [2, 1]], device=device)
rows, matrices = torch.rand(3, 40, device=device), torch.rand(4, 24, 40, device=device)
looped = torch.stack([matrices[expert] @ rows[pair // 2] for pair, expert in enumerate(ids.flatten().tolist())])
if AVAILABLE:
    products = grouped_gemm(rows, matrices, *align(ids, 16, 4), ids.numel(), tile=grouped_gemm_tile)
    print("largest difference:", float((products - looped).abs().max()))

# %% [markdown]
# ## 5. Capacity, and what is dropped
#
# What you built is **dropless**: whoever is chosen computes. Trainers often want a fixed shape instead. Each expert gets a fixed
# number of places, its **capacity**: the even share of all pairs, times a factor such as 1.25. A pair that comes when its
# expert is full is dropped. The token still goes on, by the residual connection around the layer; only this expert's answer is
# missing.
#
# **Before you write:** 8 tokens, K = 2, E = 4, factor 1.25. How many places has an expert? And in a decoding step with a single
# token, K = 2 and E = 128: what would `int(T * K / E * factor)` give, and what would be dropped?
#
# <details><summary>Answer</summary>
#
# 8 * 2 / 4 * 1.25 = **5**. In the decoding step it is int(0.0195) = 0: no expert has a place and every answer is dropped. So
# it is rounded up, and never less than one place.
#
# </details>

# %% [markdown]
# <!-- head: expert_capacity -->
#
# How many pairs each expert takes: its even share T * K / E times `capacity_factor`, rounded **up**, and at least 1.

# %% exercise="expert_capacity" stub="expert_capacity" minutes="5" difficulty="1"
from tinyllm.experts.capacity import expert_capacity

# %% check="expert_capacity"
check(expert_capacity)

# %%
use(expert_capacity)

# %% [markdown]
# <!-- head: drop_over_capacity -->
#
# Each expert has `capacity` places. Pairs ask for one in their order: the first token's K pairs, then the second's, and so
# on. A pair that finds its expert full is dropped. Return a copy of `topk_ids` [T, K] in which each dropped pair is -1, in
# the dtype of `topk_ids`. A pair that is -1 already takes no place. What you were given may not change.

# %% exercise="drop_over_capacity" stub="drop_over_capacity" minutes="20" difficulty="2"
from tinyllm.experts.capacity import drop_over_capacity

# %% check="drop_over_capacity"
check(drop_over_capacity)

# %%
use(drop_over_capacity)

# %% [markdown]
# ## 6. Balance

# %% [markdown]
# <!-- head: load_balancing_loss -->
#
# E times the sum over the experts of (share of the tokens that it serves) * (its mean probability). The share of expert e is
# the number of its pairs divided by T, and its probability is that of a float32 softmax over all E experts. The loss is K
# at perfect balance. `router_logits` are [T, E], T at least 1, in float32, bfloat16 or float16; return one number, a
# float32 tensor without dimensions.
#
# A count has no gradient, so the loss pulls through the probabilities alone: keep the gradient there.

# %% exercise="load_balancing_loss" stub="load_balancing_loss" minutes="20" difficulty="2"
from tinyllm.experts.balance import load_balancing_loss

# %% check="load_balancing_loss"
check(load_balancing_loss)

# %%
use(load_balancing_loss)

# %% [markdown]
# <!-- head: update_expert_bias -->
#
# Move the bias of every expert by a step of `update_rate`: up if it has fewer pairs than the mean of `counts`, down if it has
# more, not at all if it has just as many. Then take the mean of the steps out of all of them, so that the bias as a whole does
# not drift. `counts` are int64: compare them before anything is rounded. Return a new tensor in the dtype of `expert_bias`;
# nothing that you were given changes.

# %% exercise="update_expert_bias" stub="update_expert_bias" minutes="10" difficulty="1"
from tinyllm.experts.balance import update_expert_bias

# %% check="update_expert_bias"
check(update_expert_bias)

# %%
use(update_expert_bias)

# %% [markdown]
# ## 7. Experts elsewhere: two all-to-alls

# %% [markdown]
# <!-- head: dispatch_all_to_all -->
#
# Every rank runs this function at the same time, each with its own rows. Rank r of W holds the experts from r * E / W on, E / W
# of them. `permuted` [n, H] is sorted by expert, and `counts` [E] says how many rows each expert has.
#
# Tell every rank how many rows it will get for each of its experts, then send the rows. Return the rows received, as they
# come (those of rank 0 first, then those of rank 1, and so on); `received_counts` [W, E / W], what each rank sent for each
# expert here; and two lists of W Python numbers, how many rows went to each rank and how many came from it.
#
# A rank without a single row takes part in every exchange all the same, or the others wait for it. Pass `group` on to
# every call of `torch.distributed`. `n` may be 0, rows have the dtype of `permuted`, and `permuted` may be strided, which
# an exchange does not take. The check runs one to four ranks in this one process; gloo's rules hold for them.

# %% exercise="dispatch_all_to_all" stub="dispatch_all_to_all" minutes="25" difficulty="3"
from tinyllm.experts.exchange import dispatch_all_to_all

# %% check="dispatch_all_to_all"
check(dispatch_all_to_all)

# %%
use(dispatch_all_to_all)

# %% [markdown]
# <!-- head: combine_all_to_all -->
#
# The way home. `expert_out` [m, H] are the answers, in the order in which the rows were received; `sent` and `got` are the
# two lists of the dispatch. Return the answers to this rank's own rows, [n, H], in the order of `permuted` and in the dtype
# of `expert_out`, which may be strided. Here too every rank takes part, and `group` is passed on.

# %% exercise="combine_all_to_all" stub="combine_all_to_all" minutes="10" difficulty="2"
from tinyllm.experts.exchange import combine_all_to_all

# %% check="combine_all_to_all"
check(combine_all_to_all)

# %%
use(combine_all_to_all)

# %% [markdown]
# ## Hand in
#
# In a terminal: `tinyllm status` shows whose code each part is, `tinyllm submit day3` makes the one file to hand in.
