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

# %% [markdown]
# <!-- head: topk_router -->
#
# Choose the `top_k` likeliest experts of every token. `router_logits` are [T, E], in float32, bfloat16 or float16. The
# softmax goes over **all** E experts and is computed in float32. `norm_topk_prob` says whether a token's weights are then
# divided by their sum.
#
# Return two tensors [T, K]: the weights in the dtype of the logits, largest first, and the experts' ids. Where two experts are
# equally likely either may come first. A row of NaN (a broken request) gets K **different** experts of the E, whatever
# they are, and weights of NaN; no other row may notice. T may be 0.

# %% exercise="topk_router" stub="topk_router" minutes="15" difficulty="1"
from tinyllm.experts.routing import topk_router

# %% check="topk_router"
check(topk_router)

# %%
use(topk_router)

# %% [markdown]
# ## 2. There and back: permute and unpermute

# %% [markdown]
# <!-- head: permute -->
#
# Pair i is token i // K with its expert number i % K. Copy each token once for every pair it has, so that the rows of
# expert 0 come first, then those of expert 1, and so on. The rows of one expert may stand in any order.
#
# Return `permuted` [n, H]; `pairs` [n], which pair each row is; and `counts` [E], how many rows each expert has (integers,
# 0 for an expert that nobody chose). A pair whose id is not one of 0 to E - 1 is left out: it was dropped, or its
# expert is elsewhere. T may be 0, and all pairs may be left out.

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
# The sum of a token may not hang on where its rows stood among the others: add its answers in the order of its K experts.
# `expert_out` and `topk_weights` have one dtype, which the result has too. Nothing that you were given may change.

# %% exercise="unpermute" stub="unpermute" minutes="20" difficulty="2"
from tinyllm.experts.dispatch import unpermute

# %% check="unpermute"
check(unpermute)

# %%
use(unpermute)

# %% [markdown]
# ## 3. Blocks of one expert

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

# %% [markdown]
# <!-- head: grouped_gemm_tile -->
#
# Write the tile: one block of pairs, all of one expert, times BLOCK_N rows of that expert's matrix. The kernel around it is
# the course's. It finds the block's expert, moves `w_ptr` to that expert's matrix, loads the block's `pairs` and calls your
# tile.

# %% exercise="grouped_gemm_tile" stub="grouped_gemm_tile" minutes="40" difficulty="4"
from tinyllm.kernels.grouped_gemm import grouped_gemm_tile

# %% check="grouped_gemm_tile"
check(grouped_gemm_tile)

# %%
use(grouped_gemm_tile)

# %% [markdown]
# ## 5. Capacity, and what is dropped

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
#
# Capacity cures a symptom. Where do uneven loads come from? Router and experts are trained together, and nothing asks the
# router to be fair. An expert that is a little ahead is chosen, so it gets gradients and becomes better, so it is chosen more.
# One that nobody chooses learns nothing. Nor does the router learn anything about it, since its answer is in no output. This
# is **routing collapse**: the weights of E experts in memory, the knowledge of a few. And in serving, a step on several
# devices takes as long as the device with the busiest expert.
#
# The measure is **MaxVio** (maximal violation): the load of the busiest expert divided by the mean load, minus 1. It is 0 at
# balance.
#
# `train_sparse_layer` trains a small layer of 8 experts, 2 a token, for 300 steps of 256 tokens. Its tokens are of 16 kinds,
# each of which wants something else done to it, so there is work for all experts.
#
# **Before you run it:** what is the largest MaxVio that such a layer can have? Where do you expect it to end?
#
# <details><summary>Answer</summary>
#
# A token chooses K **different** experts, so nobody can have more than T pairs. The mean is T * K / E: at worst the busiest
# has E / K = 4 times as much, a MaxVio of **3**. It ends just there.
#
# </details>
#
# A few seconds:

# %%
from tinyllm.experts.training import train_sparse_layer

runs = {"without balancing": train_sparse_layer()}
plots.expert_load(runs)

# %% [markdown]
# A band is as wide as the expert's share of the pairs; eight equal bands would be balance. What all tokens have in common is
# enough for two experts to win within a few steps, and the other six are never heard of again.
#
# ### A price on crowds
#
# Switch Transformers add a second loss to the model's own. For each expert multiply the share of the tokens that it serves
# with its mean probability. The sum of the products is large where the crowd goes to experts that the router is sure of.
#
# **Before you write:** E = 4, K = 1. What is the loss if all tokens choose expert 0 with probability 1? If every expert has a
# quarter of the tokens, and each token is sure? And if the shares are uneven, but all probabilities are 1/4 (the largest by a
# hair)?
#
# <details><summary>Answer</summary>
#
# 4 * (1 * 1) = **4**, which is E. Evenly spread: 4 * (4 * 1/4 * 1/4) = **1**, which is K. In the last case the shares add up to
# K, and 4 * (K * 1/4) = **1** again: the loss does not see it. But its gradient does: it takes probability from those with
# the larger share.
#
# </details>

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
# The same layer, the same tokens, and 0.05 times your loss added to the error:

# %%
runs["with the loss"] = train_sparse_layer(load_balancing_loss)
plots.expert_load(runs)

# %% [markdown]
# The loss has its price: it pulls at the router's weights together with the model's own loss, and the two do not want the
# same. Its factor is a compromise. Too small and the layer collapses, too large and the router cares more for fairness than
# for the tokens. Transformers' default for Qwen3-MoE is 0.001.
#
# ### A bias, and no gradient
#
# DeepSeek takes the pull out of the gradient. Every expert has a **bias**, which is added to its probability where the K
# experts are **chosen**. It never counts in a weight: the output is mixed with the probabilities as they are. After each
# step, an expert that had too many pairs has its bias lowered a little, and one that had too few has it raised. That is a
# thermostat, and needs no derivative.
#
# **Before you write:** four experts with biases of 0 had 10, 2, 2 and 2 pairs, and the update rate is 0.5. What are the new
# biases, if their mean is to stay 0? Why may the mean stay, without a change in who is chosen?
#
# <details><summary>Answer</summary>
#
# The mean load is 4, so the steps are -1, 1, 1, 1, and their mean is 0.5. Without it they are -1.5, 0.5, 0.5, 0.5, and times 0.5
# the biases become **-0.75, 0.25, 0.25, 0.25**. A number that is added to all experts alike changes no order among them, so
# nobody would be chosen otherwise. Left in, it would grow from step to step.
#
# </details>

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
# **Before you run it:** of the three runs, which one's outputs will be nearest to what was wanted, and which one's farthest?
#
# <details><summary>Answer</summary>
#
# The collapsed one's are farthest: two experts must do what eight could share. The other two are close to each other,
# with an error about a third smaller. Fairness itself earns nothing here; that all experts learn something does.
#
# </details>

# %%
runs["with the bias"] = train_sparse_layer(update_bias=update_expert_bias)
plots.expert_load(runs)

# %%
{name: f"MaxVio {run.max_violation:.2f}, error {run.error:.3f}" for name, run in runs.items()}

# %% [markdown]
# In the first steps the bias overshoots: its step is as long near balance as it is far from it. It has to be long here (0.01),
# to do its work in 300 steps; the paper's 0.001 is for a training of many thousands. How the two differ:
#
# | | the loss (Switch) | the bias (DeepSeek) |
# |---|---|---|
# | acts through | gradients, on the router's weights | the choice of the K experts |
# | costs | some of what the model would learn | nothing in the gradient |
# | after training | is gone: the router has learned it | belongs to the model, and is loaded and used in serving |
# | counts | the tokens of one micro-batch | all tokens of a step, of all micro-batches and ranks |
#
# The third row is where engines go wrong: a bias that is added to the weights too, or left out, gives fluent and wrong text.
# DeepSeek-V3 still keeps a very small loss beside the bias, against single sequences that are uneven. And no training can
# promise balance in serving: your users may ask other things than the training data did.

# %% [markdown]
# ## 7. Experts elsewhere: two all-to-alls

# %% [markdown]
# <!-- head: dispatch_all_to_all -->
#
# Every rank runs this function at the same time, each with its own rows. Rank r of W holds the experts from r * E / W on, E / W
# of them. `permuted` [n, H] is sorted by expert, and `counts` [E] says how many rows each expert has.
#
# Tell every rank how many rows it will get for each of its experts, then send the rows. Return the rows received (those of
# rank 0 first, then those of rank 1, and so on); `received_counts` [W, E / W], what each rank sent for each expert here; and
# two lists of W numbers, how many rows went to each rank and how many came from it.
#
# A rank without a single row takes part in every exchange all the same, or the others wait for it. Pass `group` on to
# every call of `torch.distributed`. `n` may be 0, and rows have the dtype of `permuted`.

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
# two lists of the dispatch. Return the answers to this rank's own rows, [n, H], in the order of `permuted`.

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
