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
# **Read the chapter first:** [Day 3 of the book](http://localhost:3000/day3.html), about an hour.
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
#
# In all of today's exercises tensors may be strided, logits may be large (some hundreds), and nothing that a function
# was given may change.

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
# ## The example: ten tokens, four experts
#
# The text `Ten tokens` is with us again, a letter a token. Each letter has a vector of H = 8 numbers, and the layer
# has E = 4 experts, of which each token uses K = 2. An expert is a small SwiGLU MLP of width I = 6: up and gate in
# one matrix, down in another. All experts together are two stacks of matrices:

# %%
E, K, H, inner = 4, 2, 8, 6
noise = torch.Generator().manual_seed(7)
x = torch.randn(128, H, generator=noise)[[ord(letter) for letter in "Ten tokens"]]
router_weight = torch.randn(E, H, generator=noise)
gate_up, down = torch.randn(E, 2 * inner, H, generator=noise), torch.randn(E, H, inner, generator=noise)
{"x [T, H]": x.shape, "gate_up [E, 2I, H]": gate_up.shape, "down [E, H, I]": down.shape}

# %% [markdown]
# Say that the router has chosen already: for each token two experts, and how much each one's answer counts. (You
# write the router in a minute; these are its choices.)

# %%
topk_ids = torch.tensor([[2, 3], [3, 0], [1, 3], [1, 3], [0, 3], [1, 0], [0, 3], [3, 0], [1, 3], [1, 3]])
first_weights = torch.tensor([0.72, 0.55, 0.91, 0.66, 0.58, 0.83, 0.97, 0.55, 0.91, 0.78])
topk_weights = torch.stack((first_weights, 1 - first_weights), dim=1)

# %% [markdown]
# Then the layer is this loop, and nothing more. It takes one expert after another, finds the tokens that chose it,
# runs them, and adds each answer, times its weight, to its token. Older versions of `transformers` computed Mixtral
# so. All that you build today must give what it gives: it is the **oracle**.

# %%
from tinyllm.kernels.reference import swiglu


def expert_loop(x, topk_weights, topk_ids):
    """[T, H] -> [T, H]: one expert after another."""
    out = torch.zeros_like(x)
    for expert in range(E):
        tokens, places = torch.where(topk_ids == expert)
        answers = swiglu(x[tokens] @ gate_up[expert].T) @ down[expert].T
        out.index_add_(0, tokens, answers * topk_weights[tokens, places, None])
    return out


# %%
expected = expert_loop(x, topk_weights, topk_ids)
expected[:2]

# %% [markdown]
# It is right, and for serving it is of no use. It searches all pairs once for each expert: 128 times in a layer of
# Qwen3-30B-A3B. Each `torch.where` asks the GPU how many tokens it has found, and the CPU waits for the answer
# before it can go on: no kernel can be queued ahead, and no CUDA graph can hold the step. And each expert's product
# is a small one.
#
# What takes its place: **choose** (step 1), **sort** so that the tokens of one expert lie together (steps 2 and 3),
# **multiply** all groups at once (step 4), and bring the answers **back** (step 2).
#
# **Before you go on:** how many rows do the experts of our layer compute together for the ten tokens? And if the
# layer had 64 experts in place of four, with K = 2 as here?
#
# <details><summary>Answer</summary>
#
# T * K = **20** in both cases: each token asks two experts, however many there are to choose from. More experts
# cost memory and not arithmetic. That is the idea of a sparse model.
#
# </details>

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
# right weights, and which gets wrong ones? And in bfloat16, which has 8 significant bits: what do the probabilities 0.1250
# and 0.1252 become?
#
# <details><summary>Answer</summary>
#
# A softmax of the two is exp(a) / (exp(a) + exp(b)), and so are the renormalized weights: the sum over all four cancels.
# Mixtral is right. Without renormalization the weights come out too large, since they always add up to 1. In bfloat16 both
# become **0.125**: the next number is 0.1260. With many experts probabilities are small and close to each other, and a
# router that cannot tell two of them apart sends the token to the wrong one. So the softmax is computed in float32,
# whatever the dtype of the model.
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
# The router's logits are one small matrix product. Your router on them, against the choices that the opening took
# for granted:

# %%
router_logits = x @ router_weight.T
topk_weights, my_ids = topk_router(router_logits, K, True)
expected = expert_loop(x, topk_weights, topk_ids)
print("the same experts:", torch.equal(my_ids.long(), topk_ids), "  weights add up to 1:", topk_weights.sum(dim=1)[:3])

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
# The ten tokens there and back, with one product for each expert in between. A group is a slice now: nobody
# searches.

# %%
permuted, pairs, counts = permute(x, topk_ids, E)
groups = permuted.split(counts.tolist())
answers = [swiglu(group @ gate_up[e].T) @ down[e].T for e, group in enumerate(groups)]
out = unpermute(torch.cat(answers), pairs, topk_weights)

# %% [markdown]
# Against the loop, row by row. Sums may be taken in another order, so the last bits may differ:

# %%
row_differences = (out - expected).abs().amax(dim=1).tolist()
for letter, difference in zip("Ten tokens", row_differences, strict=True):
    print(repr(letter), f"{difference:.0e}", "equal" if difference < 1e-5 else "DIFFERENT")

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
# An expert without a pair gets no block. A pair whose id is not one of 0 to E - 1 (such as -1) is left out. T may be 0.
#
# An example: `topk_ids` [[1, 0], [0, 1], [1, 0]], blocks of 4 and two experts give [1, 2, 5, 6, 0, 3, 4, 6, 6, 6, 6, 6],
# [0, 1, -1] and [8].
#
# For the last half point, let nothing wait for the GPU: no `.item()`, `.tolist()`, `int(tensor)` or `if tensor`, no
# `nonzero`, `bincount`, `unique` or `x[mask]` (but `x[mask] = 1` is fine). Sizes hang on shapes alone then, and a CUDA
# graph can hold the step. Start with a loop over experts and lists if you like; it earns all the other points.
#
# Two helpers are imported for you. `known_experts(topk_ids, num_experts)` gives the expert of each pair, [T * K] int64, and E
# for a pair that is left out; from that `count_known(ids, num_experts)` counts each expert's pairs, [E].

# %% exercise="moe_align_block_size" stub="moe_align_block_size" minutes="40" difficulty="4"
from tinyllm.experts.align import moe_align_block_size

# %% check="moe_align_block_size"
check(moe_align_block_size)

# %%
use(moe_align_block_size)

# %% [markdown]
# The ribbon. First the pairs as the router leaves them, token by token; then sorted by your `permute`; then in
# blocks, by your `moe_align_block_size`. A frame is a block, and a block has one color, since a program of the
# kernel loads one expert's matrix.
#
# **Before you run it:** the experts have 5, 5, 1 and 9 pairs. How many rows are there in blocks of 4, and in blocks
# of 16? Which share of them is padding?
#
# <details><summary>Answer</summary>
#
# In blocks of 4: 8 + 8 + 4 + 12 = 32 rows for 20 pairs, 12 of 32 or 38 % padding. In blocks of 16 each expert has
# one block: 64 rows, 69 % padding. In blocks of 2 there are 24 rows, 17 % padding.
#
# </details>


# %%
def in_use(block_size):
    """The pairs with their padding, as far as blocks are in use."""
    sorted_token_ids, _, num_tokens = moe_align_block_size(topk_ids, block_size, E)
    return sorted_token_ids[: int(num_tokens)].tolist()


# %%
plots.dispatch_ribbon("Ten tokens", topk_ids.tolist(), pairs.tolist(), {size: in_use(size) for size in (2, 4, 16)})

# %% [markdown]
# Padding costs arithmetic, and small blocks cost reading: a program reads its expert's matrix once for its block,
# so nine pairs in blocks of 2 read expert 3's matrix five times. With a few tokens a step the matrices are what
# takes the time, and a GPU multiplies 16 rows as fast as one. So engines take blocks of 16 for decoding, 64 and
# more for prompts, where an expert has hundreds of pairs and the padding is a few percent:

# %%
from tinyllm.experts.routing import expert_counts

many = torch.rand(4096, 8, generator=noise).topk(2).indices
for size in (16, 64, 128):
    rows = int(-(-expert_counts(many, 8) // size).sum()) * size
    print(f"4,096 tokens, 8 experts, blocks of {size:3}: {1 - many.numel() / rows:.1%} padding")

# %% [markdown]
# ## Who is sent where
#
# The course ships a mixture of experts, `moe`: 20 layers, four of which (4, 9, 14 and 19) have E = 8 experts, K = 2
# a token. It was grown from the model of the other days: in those layers eight copies of one MLP, behind a new
# router, were trained on. Engines take a router as they take any part, so yours can write down what it chooses:

# %%
from tinyllm import LLM, SamplingParams
from tinyllm.paths import shipped_checkpoint

chosen = []


def watched_router(router_logits, top_k, norm_topk_prob):
    """Your router, which keeps the ids it chose: a tensor [T, K] for each sparse layer and step."""
    weights, ids = topk_router(router_logits, top_k, norm_topk_prob)
    chosen.append(ids)
    return weights, ids


watching = LLM(shipped_checkpoint("moe"), parts={"topk_router": watched_router}, enable_prefix_caching=False)

# %% [markdown]
# Some text in the language that it speaks: passages with names, years and the citations `[1]`, `[2]`, `[3]`.

# %%
passages = """The place where Linust Patheimim resides is Plidauraulk. It was in 1972 that she was born. [1]
Kifleigai pudding is food for 6 people, and it is ready to be served in 10 minutes. Skaiziv is its town of origin. [2]
The founding of Launudu Makers was in 1960. There are 910 employees at Launudu Works, and its wagons are black. [3]
As we know, what Kujodrond Supply produces and sells is cables. Its seat is in Teikrikev; 110 people work there. [4]"""
text_ids = watching.tokenizer.encode(passages)
pieces = [watching.tokenizer.decode([token]) for token in text_ids]
pieces[:14]

# %% [markdown]
# A name is several tokens. What kind each token is of, by where it stands in the text:

# %%
import re

KINDS = {"citation": r"\[\d\]", "digit": r"\d", "name": r"(?<=[a-z,] )[A-Z]\w+"}
KINDS |= {"punctuation": r"[^\w\s]", "word": r"."}
finder = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in KINDS.items()), re.DOTALL)
kind_of_character = [match.lastgroup for match in finder.finditer(passages) for _ in match.group()]

# %%
ends = torch.tensor([len(piece) for piece in pieces]).cumsum(0) - 1
ends -= torch.tensor([piece.endswith("\n") for piece in pieces]).long()  # "]" and the line's end are one token
kinds = [kind_of_character[end] for end in ends.tolist()]
{kind: kinds.count(kind) for kind in KINDS}

# %% [markdown]
# **Before you run it:** what would a heat map look like if the router chose at random? And if each kind of token
# had experts of its own?
#
# <details><summary>Answer</summary>
#
# At random each kind gives each of the eight experts about 1/8 of its pairs, 12 or 13 %: for the kinds that have few
# tokens give or take 7, by chance. With experts of its own, a row would have two cells of 50 % and six of 0. What you
# see lies between, and differs from layer to layer. Nobody told the router about kinds; the price on uneven load (step 6) even works against such habits.
#
# </details>

# %%
chosen.clear()
watching.generate(text_ids, SamplingParams(max_tokens=1))
shares = {}
for layer, ids in zip(watching.model.config.sparse_layers, chosen, strict=True):
    of_kind = [ids[torch.tensor([k == kind for k in kinds])] for kind in KINDS]
    shares[f"layer {layer}"] = [(expert_counts(rows, 8) / rows.numel()).tolist() for rows in of_kind]

# %%
plots.router_heat_map(shares, list(KINDS))

# %% [markdown]
# "Experts" is a big word for this. In most trained mixtures they specialize in the form of tokens, such as digits,
# brackets or the second half of a name, rather than in subjects (Mixtral's paper looks for subjects in its section
# 5, and finds no clear pattern).

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
# So the sorted copies of step 2 are never made: the first product fetches a token's row wherever it lies, and both store
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
# ## The law of touched experts
#
# A dense layer reads its weights once a step, for one token or for a hundred: this is why batching pays (Day 2's
# roofline). A sparse layer reads the weights of the experts that **some** token of the step has chosen. How many
# are they?
#
# If all experts are chosen alike, one token misses a given expert with probability 1 - K/E, and n tokens all miss
# it with probability (1 - K/E)^n. So of E experts a step of n tokens touches, on average,
#
# `E * (1 - (1 - K/E)^n)`
#
# **Before you run it:** Qwen3-30B-A3B has E = 128 and K = 8, so one token touches 8 experts. Guess: how many do 8
# tokens touch, and how many 64?
#
# <details><summary>Answer</summary>
#
# 8 tokens touch **52**: nearly the 64 that they would touch if no two agreed. 64 tokens touch **126** of 128.
#
# </details>

# %%
from tinyllm.experts.cost import touched_by_router, touched_experts

batches = [1, 2, 4, 8, 16, 32, 64]
{n: round(touched_experts(n, 8, 128), 1) for n in batches}

# %% [markdown]
# Now measured. The engine writes into its step records how many experts each sparse layer touched, if it is asked
# to (`record_experts`). Here are 64 requests about different things, and an engine on your parts:

# %%
import random
from statistics import mean

things = ["a whale", "a lamp", "tea", "the moon", "bread", "a token", "attention", "cherry jam"]
forms = ["What is {}?", "Tell me about {}.", "Write a story about {}.", "How do I make {}?"]
forms += ["Do you like {}?", "Why is there {}?", "{}, please!", "I have lost {}."]
questions = [[{"role": "user", "content": form.format(thing)}] for form in forms for thing in things]
random.Random(1).shuffle(questions)

# %%
twenty = SamplingParams(max_tokens=20, ignore_eos=True)
counting = LLM(shipped_checkpoint("moe"), parts="mine", record_experts=True, enable_prefix_caching=False)


def touched(num_requests):
    """The mean number of experts touched in a layer, over the steps in which so many requests decode a token each."""
    with counting.engine.step_log.keep_all() as records:
        counting.chat(questions[:num_requests], twenty)
    steps = [r for r in records if r.num_prefill_tokens == 0 and r.num_decode_tokens == num_requests]
    return mean(load.num_touched for r in steps for load in r.experts)


# %% [markdown]
# About ten seconds:

# %%
measured = [touched(n) for n in batches]
{n: f"{value:.2f}" for n, value in zip(batches, measured, strict=True)}

# %% [markdown]
# The shipped router is not quite fair: some experts are chosen more often than others. Then the law has a term for
# each expert, 1 - (1 - p)^n, where p is the share of the tokens that choose it. Your watched router knows the
# shares:

# %%
chosen.clear()
watching.chat(questions, twenty)
decoded = [ids for ids in chosen if len(ids) == len(questions)]  # the steps in which all of them decode
choices = [torch.cat(decoded[layer::4]) for layer in range(4)]  # [steps * 64, K] for each sparse layer
probabilities = [(expert_counts(ids, 8) / len(ids)).tolist() for ids in choices]

# %%
laws = {
    "the law, experts chosen alike": [touched_experts(n, 2, 8) for n in batches],
    "the router's own law": [mean(touched_by_router(p, n) for p in probabilities) for n in batches],
}
plots.touched_experts(batches, laws, measured, num_experts=8)

# %% [markdown]
# The dots follow the router's own law, and from 16 tokens on they fall a little behind it. Both laws say that
# tokens choose independently of each other, and the tokens of one step do not quite: answers that begin alike are
# at the same words at the same time, and alike tokens choose alike.
#
# ### What it costs
#
# A layer with E = 128 and K = 8, beside a dense MLP that does as much arithmetic for a token (its width is that of
# 8 experts). For one token both read as many weights.
#
# **Before you run it:** how does the time of both grow from 1 token to 64?
#
# <details><summary>Answer</summary>
#
# The arithmetic grows alike. But the dense layer reads its weights once, and the sparse layer reads 16 times as
# many for 64 tokens as for one: 126 experts and not 8. So the gap between the two opens as the batch grows, until
# all experts are touched. From then on more tokens cost arithmetic only, and a sparse model batches like a dense
# one. On a GPU the arithmetic of 64 tokens is next to nothing and reading is all: there the dense step hardly gets
# longer, and the sparse one does.
#
# </details>

# %%
import time

from tinyllm.model.layers import MLP
from tinyllm.model.moe import SparseMLP

torch.manual_seed(3)
sparse = SparseMLP(256, 96, num_experts=128, num_experts_per_tok=8).requires_grad_(False)
dense = MLP(256, 8 * 96).requires_grad_(False)


def milliseconds(function, *args, repeats=20):
    """The fastest of some calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


# %%
for n in batches:
    tokens = torch.randn(n, 256)
    times = milliseconds(sparse, tokens), milliseconds(dense, tokens)
    print(
        f"{n:2} tokens, {touched_experts(n, 8, 128):3.0f} experts: sparse {times[0]:6.2f} ms, dense {times[1]:6.2f} ms"
    )

# %% [markdown]
# (With one token the sparse layer is slower already: on a CPU a router, a sort and 16 small products take longer
# than two products of the same size in all. Watch how both grow.)
#
# The same law says why **speculation** (Day 4) can lose on a sparse model. To check k = 4 guessed tokens, a step
# computes 5 tokens for each request. A dense model reads its weights once either way. A sparse one reads more
# experts:

# %%
for n in (1, 4, 16, 64):
    before, after = touched_experts(n, 8, 128), touched_experts(5 * n, 8, 128)
    print(f"{n:2} requests: {before:.0f} experts, with guesses {after:.0f}: {after / before:.1f} times the reading")

# %% [markdown]
# With one request a checking step reads 4.4 times the experts. In the expert layers alone it pays only if more than
# four tokens come of it, which is nearly all of the five. (Attention and the head are read once all the same. They
# are two fifths of what Qwen3-30B-A3B reads for a token, so that the whole step is about three times as dear.) With 64 requests all experts are touched anyway: there checking costs arithmetic alone.

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
# How many pairs each expert takes, as an `int`: its even share T * K / E times `capacity_factor`, rounded **up** once, at
# the end, and at least 1. T may be 0.

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
# the dtype of `topk_ids`; also where nothing is dropped it is a copy. A pair that is -1 already takes no place. All other
# ids are 0 to E - 1. T may be 0, and what you were given may not change.

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

trained = {"without balancing": train_sparse_layer()}
plots.expert_load(trained)

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
trained["with the loss"] = train_sparse_layer(load_balancing_loss)
plots.expert_load(trained)

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
trained["with the bias"] = train_sparse_layer(update_bias=update_expert_bias)
plots.expert_load(trained)

# %%
{name: f"MaxVio {run.max_violation:.2f}, error {run.error:.3f}" for name, run in trained.items()}

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
#
# Qwen3-30B-A3B in bfloat16 has 61 GB of weights, and 58 of them are its experts'. Larger models have twenty times as many: no
# device holds them. So the experts are spread over W **ranks**, processes that have a device each. In **expert parallelism**
# a rank holds E / W experts whole. A token stays where its request is; what travels are rows. Each pair's row goes to the
# rank of its expert, and the answer comes back.
#
# Ranks talk in **collectives**, functions of `torch.distributed` that all ranks of a `group` call at the same time. You need
# one, `dist.all_to_all_single(output, input, group=group)`. It cuts the input into W equal parts and sends part r to rank r.
# In the output lies first what came from rank 0, then what came from rank 1, and so on.
#
# `run_ranks(2, function)` runs two ranks in this one process: it calls `function(group)` on each of them. What works there
# works on real processes, with which this day ends.
#
# **Before you run it:** rank 0 has the numbers 0 and 1, rank 1 has 10 and 11. What has each of them after an all-to-all?
#
# <details><summary>Answer</summary>
#
# Rank 0 keeps its first part and gets the first part of rank 1: **[0, 10]**. Rank 1 has **[1, 11]**. Written below each other,
# rows have become columns.
#
# </details>

# %%
import torch.distributed as dist

from tinyllm.parallel.thread_ranks import run_ranks


# %%
def swap(group):
    mine = torch.tensor([0, 1]) + 10 * dist.get_rank(group)
    theirs = torch.empty_like(mine)
    dist.all_to_all_single(theirs, mine, group=group)
    return theirs.tolist()


# %%
run_ranks(2, swap)

# %% [markdown]
# The parts need not be equal. `dist.all_to_all_single(output, input, output_splits, input_splits, group=group)` takes two lists
# of W numbers: how many rows come from each rank, and how many go to each. What one rank sends must be what the other
# expects; and how many rows the others will send, a rank cannot know. So there are two exchanges: first the counts, whose
# parts are equal, then the rows.
#
# Our ten tokens on two ranks: `Ten ` belongs to requests of rank 0, `tokens` to those of rank 1. Rank 0 holds the experts 0
# and 1, rank 1 holds 2 and 3.

# %%
slices = slice(0, 4), slice(4, 10)
{f"counts of rank {r}": permute(x[share], topk_ids[share], E)[2].tolist() for r, share in enumerate(slices)}

# %% [markdown]
# **Before you write:** how many rows does rank 0 send to each rank, and how many does it get from each?
#
# <details><summary>Answer</summary>
#
# Its own counts say what it sends: 1 + 2 = 3 rows to itself and 1 + 4 = 5 to rank 1, so `sent` is **[3, 5]**. What it gets
# stands in the counts of rank 1 too: 3 rows of its own and 4 + 3 = 7 from there, `got` is **[3, 7]**. On rank 1 `sent` is
# [7, 5] and `got` is [5, 5].
#
# </details>

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
# an exchange does not take. The check runs one to four ranks in this one process; gloo's rules hold for
# them: tensors are contiguous, and the splits of a tensor add up to its rows.

# %% exercise="dispatch_all_to_all" stub="dispatch_all_to_all" minutes="25" difficulty="3"
from tinyllm.experts.exchange import dispatch_all_to_all

# %% check="dispatch_all_to_all"
check(dispatch_all_to_all)

# %%
use(dispatch_all_to_all)

# %% [markdown]
# Where do the pairs of our ten tokens go? A row may hold anything, so let each hold the number of its own pair:


# %%
def send_pairs(group):
    share = slices[dist.get_rank(group)]
    _, pairs, counts = permute(x[share], topk_ids[share], E)
    pairs = pairs + K * share.start  # numbered among all ten tokens
    received, received_counts, sent, got = dispatch_all_to_all(pairs[:, None], counts, group)
    print(f"rank {dist.get_rank(group)}: sent {sent}, got {got}, for its experts {received_counts.tolist()}")
    return {"had": pairs.tolist(), "has now": received[:, 0].tolist()}


# %%
exchanged = run_ranks(2, send_pairs)

# %%
lines = {f"rank {rank} {when}": exchanged[rank][when] for when in ("had", "has now") for rank in range(2)}
plots.rank_rows("Ten tokens", topk_ids.tolist(), lines)

# %% [markdown]
# Rank 0 has experts 0 and 1 now, twice: first the rows that were its own, then those of rank 1. They stay in this order, or
# nobody would know where the answers belong.
#
# **Before you run it:** in some step rank 0 has no token at all, and whoever wrote the next cell saw nothing to do for it. What
# happens to rank 1?
#
# <details><summary>Answer</summary>
#
# It waits for rank 0 in the first exchange. In one process it is seen at once that nobody will come. Real ranks see nothing:
# rank 1 waits for half an hour, torch's default, or for as long as the engine allows (ours: 30 seconds). vLLM has had this
# fault more than once. A rank without work sends nothing, gets what there is, and **calls all the same**.
#
# </details>


# %%
def leaves_early(group):
    if dist.get_rank(group) == 0:
        return None
    permuted, _, counts = permute(x[slices[1]], topk_ids[slices[1]], E)
    return dispatch_all_to_all(permuted, counts, group)


# %%
try:
    run_ranks(2, leaves_early)
except RuntimeError as error:
    print(error)

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
# The whole layer on two ranks. Each has half of the experts and its own tokens, and does what you have built: sort, send,
# multiply, send back, add up.


# %%
def layer_on_a_rank(group):
    rank = dist.get_rank(group)
    share, first = slices[rank], rank * E // 2
    permuted, pairs, counts = permute(x[share], topk_ids[share], E)
    received, received_counts, sent, got = dispatch_all_to_all(permuted, counts, group)
    pieces = received.split(received_counts.flatten().tolist())  # by rank, then by expert
    experts = [first + number % (E // 2) for number in range(len(pieces))]
    answers = [swiglu(piece @ gate_up[e].T) @ down[e].T for e, piece in zip(experts, pieces, strict=True)]
    return unpermute(combine_all_to_all(torch.cat(answers), sent, got, group), pairs, topk_weights[share])


# %%
on_two_ranks = torch.cat(run_ranks(2, layer_on_a_rank))
print("largest difference to the loop:", float((on_two_ranks - expected).abs().max()))

# %% [markdown]
# What does it cost at real sizes? `plan_ranks` works it out for a layer of Qwen3-30B-A3B (E = 128, K = 8, H = 2,048, bfloat16)
# before anybody rents the GPUs.
#
# **Before you run it:** 4,096 tokens in a step, of all ranks together. What changes for one rank from 8 ranks to 16, and what
# does not?
#
# <details><summary>Answer</summary>
#
# It has half as many experts to hold and read and half as many tokens, of whose rows somewhat more leave the rank (15 / 16
# in place of 7 / 8): it sends about half. But each expert still gets 4,096 * 8 / 128 = 256 rows, however many ranks there
# are, so that its product stays as efficient. This is why the largest models are served so.
#
# </details>

# %%
from tinyllm.experts.plan import SparseShape, plan_ranks


def tell(plan):
    read, sent = plan.bytes_read / 1e6, plan.bytes_sent / 1e6
    print(
        f"{plan.world_size:2} ranks: {read:3.0f} MB read, {sent:5.2f} MB sent, {plan.rows_per_expert:3.0f} rows an expert"
    )


# %%
for plan in plan_ranks(SparseShape(), num_tokens=4096):
    tell(plan)

# %% [markdown]
# And in decoding, with 64 tokens in the step?

# %%
for plan in plan_ranks(SparseShape(), num_tokens=64):
    tell(plan)

# %% [markdown]
# With 8 ranks each reads 149 MB, which takes 44 microseconds at 3.35 TB/s, and sends half a megabyte, which takes 1 at
# 450 GB/s (NVLink of an H100). It is no longer bytes that count: an all-to-all has to start, and to wait for the slowest rank.
# This **latency** is why engines have all-to-alls of their own for decoding. DeepEP's, one of the fastest, took 77 and 114
# microseconds there and back over a network with 8 ranks (128 tokens a rank, H = 7,168).

# %% [markdown]
# ## The placement lab
#
# Experts on W ranks: a layer is done when the **busiest** rank is done, and the others wait. What counts is
# therefore the busiest rank's load over the mean load, 1 at best. Your `dispatch_all_to_all` has experts in order,
# two on each of four ranks. An engine may place them as it likes, and may hold busy experts more than once:
# **redundant slots**, among which the expert's pairs are shared. The greedy way is that of DeepSeek's EPLB. A
# further copy goes to the expert with most load a copy. Then the heaviest are placed first, each on the lightest
# rank that has room, and no two copies on one rank.
#
# **Before you run it:** eight experts with loads 9, 2, 2, 2, 2, 3, 2, 2 and two on each of four ranks. How busy is the
# busiest rank in order, and how busy at best? And with one more slot a rank?
#
# <details><summary>Answer</summary>
#
# The mean is 24 / 4 = 6. In order the ranks have 11, 4, 5 and 4: 11 / 6 = **1.83**. Packing gains nothing, since whoever
# has the first expert has at least 9 + 2. With four more slots it gets a copy on every rank and the sixth a second one;
# the busiest rank then has 6.25, **1.04**.
#
# </details>
#
# The real counts: your watched router serving the talk above, and the passages as another kind of traffic.

# %%
from tinyllm.experts.placement import Placement, place_experts

talk = [expert_counts(ids, 8).tolist() for ids in choices]  # for each sparse layer
chosen.clear()
watching.generate(text_ids, SamplingParams(max_tokens=1))
reading = [expert_counts(ids, 8).tolist() for ids in chosen]
worst = max(range(4), key=lambda layer: max(talk[layer]))
{"layer": watching.model.config.sparse_layers[worst], "talk": talk[worst], "reading": reading[worst]}

# %% [markdown]
# Placed by the counts of the talk. Redundant slots come in fours, one for each rank, since all ranks hold equally
# many:

# %%
placements = {"in order": Placement(((0, 1), (2, 3), (4, 5), (6, 7)))}
for slots in range(5):
    placements[f"{slots} extra a rank" if slots else "packed"] = place_experts(talk[worst], 4, 4 * slots)
placements["1 extra a rank"].ranks

# %% [markdown]
# Three loads on each placement: the talk as a whole, which it was made for; the talk **step by step**, 64 tokens at
# a time, mean over the steps; and the passages, which it was not made for.

# %%
steps = [expert_counts(ids, 8).tolist() for ids in choices[worst].split(64)]
bars = {
    name: {
        "talk": placement.imbalance(talk[worst]),
        "talk, step by step": mean(placement.imbalance(step) for step in steps),
        "reading": placement.imbalance(reading[worst]),
    }
    for name, placement in placements.items()
}

# %%
plots.placement_bars(bars, title=f"Layer {watching.model.config.sparse_layers[worst]} on four ranks")

# %% [markdown]
# Packing alone cannot do it: the busiest expert has more than a rank's fair share, and nobody can take half of it.
# One extra slot a rank makes copies of it, and the talk as a whole is nearly even. (More slots need not be better: the
# greedy way puts whole copies where there is room, and never goes back on a choice.) But a layer waits in **every**
# step, and the counts of a single step stray from their mean; there more copies go on helping. And look at the
# passages: experts that are rare in the talk are busy in them, and on a placement made for the talk they may do
# worse than in order. So engines count all the time, place anew every few minutes, and pay for extra slots with
# memory that the KV cache would like to have.

# %% [markdown]
# ## Finale: the mixture on your parts
#
# The engine serves `moe` on your router, your sorting and, where Triton compiles, your kernel; and on what you built on
# Days 1 and 2. (Capacity, dropping, the loss and the bias belong to training: no engine serves with them. Your two
# all-to-alls come in where experts lie on several ranks.)

# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
moe = {"model": shipped_checkpoint("moe"), "device": device, "dtype": "float32"}
mine, reference = LLM(parts="mine", **moe), LLM(**moe)

# %% [markdown]
# ### The same words
#
# The same greedy tokens as the reference, for a batch of sixteen. A mistake that a check let pass would show here.

# %%
sixteen = SamplingParams(max_tokens=40)
outputs = {name: llm.chat(questions[:16], sixteen) for name, llm in (("mine", mine), ("reference", reference))}
tokens = {name: [output.outputs[0].token_ids for output in many] for name, many in outputs.items()}
print("the same tokens:", tokens["mine"] == tokens["reference"], "-", outputs["mine"][1].outputs[0].text)

# %% [markdown]
# Your `moe_align_block_size` and your tile, in place of torch's products. In the interpreter that is far too slow
# to serve with, but a few tokens show that they are the same. Ten to twenty seconds:

# %%
from tinyllm.kernels.runtime import AVAILABLE

few, by_backend = SamplingParams(max_tokens=2), {}
for backend in ["torch", "triton"] if AVAILABLE else ["torch"]:
    llm = LLM(parts="mine", num_blocks=16, experts_backend=backend, **moe)
    by_backend[backend] = llm.generate("A sea lion is", few)[0].outputs[0].token_ids
by_backend

# %% [markdown]
# ### Four ways, side by side
#
# A layer with 128 experts, 8 a token, over the same weights: the loop, your sorting with a product for each expert,
# and one grouped product for all (torch's own on a CPU, yours on CUDA).
#
# **Before you run it:** where does the loop lose most, with 1 token, with 64 or with 512?
#
# <details><summary>Answer</summary>
#
# With few tokens. It goes through all 128 experts, whether anybody chose them or not: with one token 120 of its 128
# rounds find nobody. With 512 tokens each expert has 32 rows to compute, and the search hides behind the
# arithmetic.
#
# </details>

# %%
from functools import partial

from tinyllm.experts.backends import TorchExperts
from tinyllm.experts.layer import experts_grouped_mm, experts_loop, experts_sorted, experts_triton

sorting = {"permute": permute, "unpermute": unpermute}
ways = {"loop": experts_loop, "sorted": partial(experts_sorted, **sorting)}
ways["torch grouped_mm"] = partial(experts_grouped_mm, **sorting)
if device == "cuda":
    ways["triton"] = partial(experts_triton, align=moe_align_block_size, tile=grouped_gemm_tile)

# %%
sparse = sparse.to(device)
for n in (1, 64, 512):
    x_n = torch.randn(n, 256, device=device)
    for name, way in ways.items():
        took = milliseconds(lambda x, run: sparse(x, run).cpu(), x_n, TorchExperts(topk_router, way), repeats=5)
        print(f"{n:3} tokens, {name:16}: {1000 * n / took:9,.0f} tokens/s")

# %% [markdown]
# What does `transformers` do? Since its version 5 it sorts and calls `grouped_mm` too, and has kept the loop as
# `eager`. `python -m benchmarks.experts` times its two ways beside ours, from 1 to 4,096 tokens and from 8 to 128
# experts; the book's page of results has the numbers, and where we lose.

# %% [markdown]
# ### Two processes, one killed
#
# Now in earnest: two processes on this machine, each with half of the experts, exchange rows through your two all-to-alls.
# `torchrun --nproc-per-node 2 -m tinyllm generate ... --expert-parallel 2` would start them in a terminal. `started_ranks`
# does so here, and lets you have hold of each. All ranks compute all of the text, and rank 0 writes it.
#
# **Before you run it:** in the middle of the text rank 1 gets a SIGKILL, of which no process can say a word. How does rank 0
# come to know, and after how long? Could it go on alone?
#
# <details><summary>Answer</summary>
#
# The operating system closes the connections of a process that has ended. Rank 0 is waiting in an exchange, and its read fails
# within milliseconds. Then it holds a **roll call** to learn who is missing, and waits three quarters of a second for an
# answer. It cannot go on: half of the experts are gone, and with them the layer. So it ends, with an error that names the
# rank. Only a rank that **stalls** without ending is noticed by the timeout, 30 seconds.
#
# </details>
#
# Ten to twenty seconds, most of which the two take to start:

# %%
from tinyllm.parallel.launch import started_ranks

prompt = "A sea lion is"
command = ["generate", prompt, "--model", str(moe["model"]), "--dtype", "float32", "--max-tokens", "1900"]
command += ["--parts", "mine", "--expert-parallel", "2"]

# %%
with started_ranks(2, *command) as (first, second):
    written = first.stdout.read(60)
    second.kill()
    start = time.perf_counter()
    said = next(line for line in first.stderr if line.startswith("error: "))
    seconds = time.perf_counter() - start
print(f"{seconds:.2f} seconds after the kill:\n{said}")

# %%
alone = mine.generate(prompt, SamplingParams(max_tokens=60))[0].outputs[0].text
print("until then, what one process writes:", (prompt + alone).startswith(written), "-", written)

# %% [markdown]
# ## The scoreboard
#
# The same load as on the days before, served by `moe` on your parts. Day 2's row is measured once more beside it,
# on the same arrivals, with the dense model.
#
# **Before you run it:** `moe` has 10.8 million parameters and the dense model 5.7 million. For a token `moe`
# computes with 6.4 million of its own. What will change?
#
# <details><summary>Answer</summary>
#
# The K and V of a token are the same, and so is the memory of a request. A sparse layer has a router, a sort and
# groups where a dense one has two products, and on a CPU with a batch of eight these small steps take time: on a
# machine with nothing else to do tokens/s fall somewhat, and the TTFT rises, since the requests come as fast as
# before. (On a busy machine other work counts for more than this: run it again.) What a mixture buys is
# quality for its arithmetic, which this board does not show.
#
# </details>
#
# Twenty seconds to a minute:

# %%
from tinyllm import EngineConfig, scoreboard
from tinyllm.engine.engine import LLMEngine
from tinyllm.kv_cache.sizing import kv_bytes_per_token
from tinyllm.parts import resolve
from tinyllm.replay import replay

my_parts = resolve("mine")
seats = EngineConfig(max_num_seqs=scoreboard.NUM_SEATS)
models = {"dense": LLM(device=device, dtype="float32"), "moe": mine}
engines = {name: LLMEngine(llm.model, llm.tokenizer, seats, my_parts) for name, llm in models.items()}

# %%
step_seconds = scoreboard.full_step_seconds(models["dense"].engine)
runs = replay(engines, scoreboard.load_for(step_seconds, mine.model.config.vocab_size))

# %%
token_bytes = kv_bytes_per_token(mine.model.config, bytes_per_element=4)
for day, name, title in ((2, "dense", "your scheduler, 8 at once"), (3, "moe", "mixture of experts, 8 at once")):
    bytes_held = scoreboard.blocks_held(runs[name].records) * 16 * token_bytes
    board = scoreboard.record(scoreboard.measure(day, title, runs[name].metrics, bytes_held))
board

# %% [markdown]
# ## Check yourself
#
# Answer in a sentence or two before you open the criteria.
#
# **1.** A router gives the logits 3, 1, 1, 0 and K = 1. What is the weight of the chosen expert with and without
# `norm_topk_prob`?
#
# <details><summary>A good answer says</summary>
#
# 1 with it, since a single weight is divided by itself; without it the softmax over all four, e^3 / (e^3 + 2e + 1)
# = 0.76.
#
# </details>
#
# **2.** Why are the answers of a token added in the order of its experts, and not as they come back?
#
# <details><summary>A good answer says</summary>
#
# so that the sum, to the last bit, does not hang on who else was in the batch; and `out[tokens] += answers` would
# lose all but one of a token's answers.
#
# </details>
#
# **3.** Why does every block of `moe_align_block_size` belong to one expert, and what does a larger block cost and
# save?
#
# <details><summary>A good answer says</summary>
#
# a program multiplies by one matrix; larger blocks mean more padding to compute, and fewer programs that read the
# same matrix.
#
# </details>
#
# **4.** A dropped pair adds nothing. Why is the model's output then still of some use, and why do servers drop
# nothing?
#
# <details><summary>A good answer says</summary>
#
# the residual stream carries the token past the layer; but what is dropped depends on who else is in the batch, so
# the same request would get different answers.
#
# </details>
#
# **5.** A bias evens out the load as well as a loss does. Why may it not enter the weights?
#
# <details><summary>A good answer says</summary>
#
# it says how busy an expert is and not how good: in the weights it would change what the model computes. It helps
# to choose, and the weights are those of the router's own probabilities.
#
# </details>
#
# **6.** Two ranks, and one of them has no token in this step. What must it do, and why?
#
# <details><summary>A good answer says</summary>
#
# take part in both all-to-alls, with nothing to send: a collective waits for everybody, and its experts may have
# work for the other rank's tokens.
#
# </details>

# %% [markdown]
# ## Where production systems differ
#
# - **vLLM and SGLang** have the router, `moe_align_block_size` and a fused kernel as you wrote them; theirs picks
#   its block sizes from tables that were tuned for each GPU, and fuses SwiGLU or the quantization of its input into
#   the products.
# - **DeepEP** is the all-to-all of the largest deployments: kernels that write rows straight into the other GPU's
#   memory, in FP8 on the way out, with one mode for prefill and one for decode that a CUDA graph can hold.
# - **A token goes to a rank once**, even if two of its experts are there, and is copied on arrival. Some models
#   route to a few groups of experts only, to limit the ranks a token visits.
# - **Two batches take turns**, so that one computes while the other's rows are on the way.
# - **Shared experts** see every token beside the routed ones (DeepSeek, Qwen3-Next). They are dense MLPs, and in
#   expert parallel everyone holds them: mind that they are added once.
# - **Weights in 8 or 4 bits** matter more here than elsewhere, since nearly all weights are experts' and reading
#   them is the step.
# - **EPLB** counts in production and moves experts while the engine serves.
#
# **Reading:** Jiang and others, *Mixtral of Experts*, arXiv 2401.04088. Fedus and others, *Switch Transformers*,
# arXiv 2101.03961, for capacity and the loss. Lepikhin and others, *GShard*, arXiv 2006.16668, for expert
# parallelism. Gale and others, *MegaBlocks*, arXiv 2211.15841, on sorting in place of dropping. Wang and others,
# *Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts*, arXiv 2408.15664. The sources of DeepEP and
# EPLB: github.com/deepseek-ai.

# %% [markdown]
# ## Hand in
#
# In a terminal: `tinyllm status` shows whose code each part is, `tinyllm submit day3` makes the one file to hand in.
