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
# # Day 1: a paged KV cache
#
# On Day 0 every request kept a row of 2,048 slots for itself, although most need a few hundred. That row is the
# reason why so few requests fit on a machine. Today you cut the memory into small blocks and hand them out one by
# one, as an operating system does with pages. This is PagedAttention, the idea behind vLLM.
#
# **When you are through, you can**
#
# - work out what one token costs in bytes, for any decoder;
# - say where the memory of a reserved cache goes, and measure it;
# - build an allocator with reference counts, a block table, a paged store for keys and values,
#   copy-on-write, and a prefix cache;
# - run the serving engine on your own parts, and count how many more requests fit.
#
# **Read the chapter first:** [Day 1 of the book](http://localhost:3000/day1.html), about 45 minutes. It explains every
# part that you build here. `make book-serve` in a terminal serves the book at that address; its source is
# `book/src/day1.md`.
#
# **Time:** about four hours for this notebook: three for its seven exercises (20 points), one for all that is between
# them. After exercise 4 there is a good place for a pause. Each exercise can be done on its own: the checks bring the
# other parts with them. Cells that take more than ten seconds say so; the times are those of a laptop.
#
# **The letters** are the same all through the course: B sequences, T tokens in a step, L layers, Hq and Hkv query
# and key/value heads, D head_dim, N blocks, P block_size.

# %% [markdown]
# ## How an exercise goes
#
# 1. Read what is asked for. A picture shows what a right answer draws.
# 2. Replace each `raise NotImplementedError("your code here")` by your own code and run the cell.
# 3. Run the check below it. It says what is right, and for the rest on which input it is wrong and how.
# 4. `use(...)` records your part, so that the engine at the end of the day runs on it.
#
# Stuck? Make a cell and ask for as much help as you want: `hint(BlockAllocator)` nudges, `hint(BlockAllocator, 2)`
# says more, `solution(BlockAllocator)` shows one way to do it. If you want to go on without finishing an exercise,
# import the course's version in a cell of your own **below** its check, for example
# `from tinyllm.kv_cache.allocator import BlockAllocator`.

# %% setup=true
import torch

from grader import check, hint, solution, spot
from tinyllm.parts import use

# %%
from tinyllm import plots
from tinyllm.plots import TableView

# %% [markdown]
# ## The example: ten tokens
#
# One small example goes with us all day: the text `Ten tokens`, one letter a token, with a block size of P = 4 in a
# pool of N = 16 blocks. Ten tokens need three blocks, and the last one stays half empty.

# %%
P, N = 4, 16
tokens = list("Ten tokens")
print(len(tokens), "tokens:", tokens)

# %% [markdown]
# (The pictures draw the space as ␣, so that it can be seen.) Other requests hold most of the pool. Blocks 12, 5, 3, 8 and 14 are free, nowhere two side by side. A reserved row
# of 12 slots would not fit. Three blocks do:

# %%
others = TableView(block_ids=[0, 1, 2, 4, 6, 7, 9, 10, 11, 13, 15], num_tokens=44)
ten = TableView(block_ids=[12, 5, 3], num_tokens=10)
plots.pool({"others": others, "ten": ten}, N, P, {"ten": tokens})

# %% [markdown]
# That is the whole idea. The rest of the day makes it work: sizes first, then who owns a block, then where a token
# lies, then its keys and values, and last how two requests can hold the same block.

# %% [markdown]
# ## 1. What one token costs
#
# Decoding reads the keys and values of every earlier token. They are kept, because computing them again at each step
# would cost far more (you timed both on Day 0). How many tokens fit in memory is therefore decided by one number: the
# bytes that one token's keys and values take.
#
# In **each** of the L layers a token leaves one K vector and one V vector of D numbers for each of the Hkv key/value
# heads. Query heads leave nothing behind. This is what grouped-query attention (GQA) saves.
#
# **Before you run anything:** Qwen3-0.6B has L = 28 layers, Hq = 16 query heads, Hkv = 8 key/value heads and D = 128,
# in bfloat16. How many bytes does a token take? And a request of 2,048 tokens?
#
# <details><summary>Answer</summary>
#
# 28 layers x 2 (K and V) x 8 heads x 128 numbers x 2 bytes = **114,688 bytes** = 112 KiB.
# 2,048 tokens take 224 MiB. The weights of the whole model take about 1.1 GiB: five such requests weigh as much.
#
# </details>

# %% [markdown]
# <!-- head: kv_bytes_per_token -->
#
# Return the bytes of one token's keys and values over all layers. `config.num_layers`, `config.num_heads`,
# `config.num_kv_heads`, `config.head_dim` and `config.hidden_size` are there; not all of them matter.

# %% exercise="kv_bytes_per_token" stub="kv_bytes_per_token" minutes="10" difficulty="1"
from tinyllm.kv_cache.sizing import kv_bytes_per_token

# %% check="kv_bytes_per_token"
check(kv_bytes_per_token)

# %%
use(kv_bytes_per_token)

# %% [markdown]
# Now ask your function about models of different sizes. The last one is Qwen3-32B as it would be without GQA, each of
# its 64 query heads with a key/value head of its own.

# %%
from dataclasses import replace

from tinyllm.config import ModelConfig

qwen3_06b = ModelConfig(
    vocab_size=151_936,
    hidden_size=1024,
    intermediate_size=3072,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
)
qwen3_8b = replace(qwen3_06b, hidden_size=4096, intermediate_size=12_288, num_layers=36, num_heads=32)
qwen3_32b = replace(qwen3_06b, hidden_size=5120, intermediate_size=25_600, num_layers=64, num_heads=64)
models = {
    "Qwen3-0.6B": qwen3_06b,
    "Qwen3-8B": qwen3_8b,
    "Qwen3-32B": qwen3_32b,
    "Qwen3-32B without GQA": replace(qwen3_32b, num_kv_heads=64),
}

# %%
costs = {name: kv_bytes_per_token(config, bytes_per_element=2) for name, config in models.items()}
plots.bytes_per_token(costs)

# %% [markdown]
# The same as a question of capacity: how many requests of 2,048 tokens can 16 GiB hold?

# %%
# requests in 16 GiB
{name: 16 * 2**30 // (2048 * cost) for name, cost in costs.items()}

# %% [markdown]
# ## 2. Where a reserved cache goes
#
# A contiguous cache must keep one unbroken region for each request, as long as the request *may* become, because
# nobody knows how long it will. The paper (section 3.1) tells three kinds of waste apart:
#
# - **reserved**: slots that this request will fill later. Nobody else can use them until then;
# - **internal**: slots inside its region that it will never fill;
# - **external**: slots outside every region, too few to be given to anybody.
#
# Three requests come to a pool of 40 slots. Our ten tokens will end as 13. The second has 6 tokens now and 9 at its
# end, the third 3 and 11. A request may become 16 tokens long, so each region has 16 slots. Here is the same pool
# handed out both ways:

# %%
plots.reservation(num_slots=40, region=16, requests=[(10, 13), (6, 9), (3, 11)], block_size=4)

# %% [markdown]
# Reserved regions admit two of the three requests. Blocks of four admit all three, and four blocks are still free.
#
# **Before you go on:** which of the three kinds of waste can paging still have, and how much of it at most per request?
#
# <details><summary>Answer</summary>
#
# Only internal waste: the empty slots of a request's last block, at most P - 1 of them. Nothing is reserved, since a
# block is taken when its first token comes. External waste is at most one rest at the end of the pool that is
# smaller than a block, and pools are made as whole blocks.
#
# </details>

# %% [markdown]
# <!-- head: reservation_waste -->
#
# Place the requests in order and count. A `Snapshot` has `num_tokens` (now) and `final_num_tokens` (at its end).
#
# - `paged=False`: each request takes one region of `region` slots. Tokens it has are *used*, those still to come
#   *reserved*, the rest of its region *internal*.
# - `paged=True`: each takes as many regions as its tokens need now, none if it has no token yet. Tokens it has are
#   used, the rest of its last region is internal, nothing is reserved.
# - Stop at the first request that does not fit in what is left of the pool.
# - Cut the whole pool into regions: what is left behind the last whole one is *external*, whether the regions before
#   it are taken or free. Whole free regions are no waste: the next request will take them.
#
# For the picture above that is `Waste(used=16, reserved=6, internal=10, external=8)` for the reserved regions and
# `Waste(used=19, reserved=0, internal=5, external=0)` for the blocks.

# %% exercise="reservation_waste" stub="reservation_waste" minutes="20" difficulty="2"
from tinyllm.kv_cache.sizing import reservation_waste

# %% check="reservation_waste"
check(reservation_waste)

# %%
use(reservation_waste)

# %% [markdown]
# First the picture above, in numbers:

# %%
from tinyllm.kv_cache.sizing import Snapshot

requests = [Snapshot(10, 13), Snapshot(6, 9), Snapshot(3, 11)]
plots.waste_stack(
    {
        "contiguous, 16 slots": reservation_waste(requests, num_slots=40, region=16, paged=False),
        "paged, P = 4": reservation_waste(requests, num_slots=40, region=4, paged=True),
    }
)

# %% [markdown]
# Then lengths like those of real chats: 200 requests with the mean prompt (161 tokens) and output (338 tokens) of
# ShareGPT, each caught at some moment of its output. A request may become 2,048 tokens long.
#
# **Before you run it:** does a larger block waste more or less? By how much, roughly, if you double it?
#
# <details><summary>Answer</summary>
#
# More. On average half of the last block is empty, so a request wastes about (P - 1) / 2 slots: twice the block, twice
# the waste. Against a few hundred tokens that is 1 or 2 per cent at P = 16.
#
# </details>

# %%
import random

from tinyllm.traces import make_trace

rng = random.Random(1)
trace = make_trace("sharegpt")
in_flight = [Snapshot(len(r.prompt_token_ids) + rng.randint(1, r.output_len), r.total_len) for r in trace]
pool_slots = 200 * 2048

# %%
wastes = {"contiguous, 2,048 slots": reservation_waste(in_flight, pool_slots, 2048, paged=False)}
for size in (8, 16, 32, 128):
    wastes[f"paged, P = {size}"] = reservation_waste(in_flight, pool_slots, size, paged=True)
plots.waste_stack(wastes, title="200 requests with ShareGPT's mean lengths")

# %% [markdown]
# ## 3. Who owns a block
#
# Blocks need somebody who knows which are free. And soon two requests will hold the same block, so that one may not
# free it while the other still reads it: each block has a **reference count**, the number of its owners.
#
# The allocator keeps these promises at every moment. Write code that cannot break them:
#
# - a block is free with count 0, or in use with one count for each owner;
# - no block is handed out twice while it is in use, and none is lost: free blocks + blocks in use = N;
# - an operation that fails changes nothing.
#
# **Before you write:** two blocks are free, and somebody calls `allocate(3)`. What should `num_free` be afterwards?
# Why does it matter?
#
# <details><summary>Answer</summary>
#
# Still two. The engine answers a full pool by waiting, evicting or preempting and then asks again. If the failed call
# had kept two blocks, nobody would know that they are taken and nobody would ever free them. Such a leak shows up
# hours later, as a server that admits fewer and fewer requests.
#
# </details>

# %% [markdown]
# <!-- head: BlockAllocator -->
#
# `__init__` is given: `free_ids`, a queue of the free block ids, and `ref_counts`, a list with the count of each
# block. (You may keep your books in another way, as long as the methods do what they say.)
#
# - `allocate(num_blocks)` takes that many free blocks, each with count 1, and returns their ids. Any free blocks will
#   do. If fewer are free it raises `OutOfBlocksError` and changes nothing.
# - `share(block_id)` adds an owner. Sharing a free block is a `ValueError`.
# - `free(block_id)` drops an owner. With the last one the block is free again. Freeing a free block is a `ValueError`.

# %% exercise="BlockAllocator" stub="allocate,share,free" minutes="25" difficulty="2"
from tinyllm.kv_cache.allocator import BlockAllocator

# %% check="BlockAllocator"
check(BlockAllocator)

# %%
use(BlockAllocator)

# %% [markdown]
# Make the busy pool of the first picture with your allocator: everything is taken, then five blocks come back.


# %%
def busy_pool():
    """A pool of 16 blocks in which only 12, 5, 3, 8 and 14 are free."""
    allocator = BlockAllocator(N)
    allocator.allocate(N)
    for block_id in (12, 5, 3, 8, 14):
        allocator.free(block_id)
    return allocator


print("free blocks:", busy_pool().num_free)

# %% [markdown]
# Three blocks for our ten tokens. Which of the five you get is your allocator's choice; the course's hands out the
# block that has been free for longest, and gives 12, 5, 3.

# %%
allocator = busy_pool()
blocks = allocator.allocate(3)
print("allocated:", blocks, "still free:", allocator.num_free)

# %%
plots.pool({"others": others, "ten": TableView(blocks, 10)}, N, P, {"ten": tokens})

# %% [markdown]
# The pool is nearly full. Ask for more than there is:

# %%
try:
    allocator.allocate(3)
except MemoryError as error:
    print("refused:", error)
print("still free:", allocator.num_free)

# %% [markdown]
# And one block with two owners. It survives the first `free` and not the second:

# %%
allocator = busy_pool()
(shared,) = allocator.allocate(1)
allocator.share(shared)
print("owners:", allocator.ref_count(shared), "free blocks:", allocator.num_free)
for _ in range(2):
    allocator.free(shared)
    print("owners:", allocator.ref_count(shared), "free blocks:", allocator.num_free)

# %% [markdown]
# If you like: **spot the bug**. Once yours is right, this shows a solution with one mistake. Write the smallest use of it
# that goes wrong, a function `attempt(BlockAllocator)` that returns what you see, and give it to
# `spot(BlockAllocator, attempt)`. It earns no points.

# %%
spot("BlockAllocator")

# %% [markdown]
# ## 4. Where a token lies
#
# A sequence counts its tokens from position 0 and neither knows nor cares where they lie. The **block table** turns a
# position into a place: position p is in the (p // P)-th block of the table, at offset p % P. As one number over the
# whole pool that place is called a **slot**:
#
# `slot = block_ids[p // P] * P + p % P`
#
# This is the picture that your table will draw:

# %%
plots.block_table(ten, tokens, N, P)

# %% [markdown]
# **Before you write:** what is the slot of position 6, the letter `k`? And how many new blocks does the table need for
# three more tokens?
#
# <details><summary>Answer</summary>
#
# Position 6 is in block number 6 // 4 = 1 of the table, which is block 5, at offset 6 % 4 = 2: slot 5 x 4 + 2 = **22**.
# Three more tokens make 13. Thirteen tokens need four blocks, and there are three: **one** new block. For two more
# tokens none is needed, since the last block has room for two.
#
# </details>

# %% [markdown]
# <!-- head: BlockTable -->
#
# `__init__` and `release` are given. A table has `block_ids`, `num_tokens`, `block_size` and its `allocator`.
#
# - `num_new_blocks(num_tokens)`: how many blocks must be allocated before that many more tokens fit. Never less than 0: a
#   table may hold more blocks than its tokens fill, for example after the engine has taken tokens back.
# - `slots(start, stop)`: the slots of positions `start` to `stop - 1`, in order, in a new list. They are those of
#   `block_ids` as it is now: others may put another block in the place of one, as exercise 6 will. So remember no slots
#   from one call to the next.
# - `append(num_tokens)`: allocate what is needed, count the tokens, and return the slots of the new ones. When the
#   pool has too few blocks the `OutOfBlocksError` goes through to the caller, and the table is as it was.

# %% exercise="BlockTable" stub="num_new_blocks,append,slots" minutes="25" difficulty="2"
from tinyllm.kv_cache.block_table import BlockTable

# %% check="BlockTable"
check(BlockTable)

# %%
use(BlockTable)

# %% [markdown]
# Our ten tokens come as a prompt, in one go:

# %%
allocator = busy_pool()
table = BlockTable(allocator, block_size=P)
print("slots:", table.append(10))
print("blocks:", table.block_ids)

# %%
plots.block_table(table, tokens, N, P)

# %% [markdown]
# Now the sequence grows, one token a step. Watch when a block is taken:

# %%
allocator = busy_pool()
table = BlockTable(allocator, block_size=P)
table.append(10)
for _ in range(4):
    (slot,) = table.append(1)
    print(f"tokens {table.num_tokens}, slot of the new one {slot}, blocks {table.block_ids}, free {allocator.num_free}")

# %%
table.release()
print("blocks:", table.block_ids, "free:", allocator.num_free)

# %% [markdown]
# **A good place for a pause.** You can hand out memory and find every token in it. What follows fills it with keys and
# values, and shares it. When you come back, run the cells above once more (Run, Run All Above Selected Cell).

# %% [markdown]
# ## 5. Keys and values in slots
#
# A slot is a row number. The pool's memory is one tensor for K and one for V, `[L, N * P, Hkv, D]`, made once when
# the engine starts: nothing is allocated while it serves.
#
# In a step the engine computes K and V for T tokens of many sequences at once, and has one number for each, its
# `slot_mapping`. **Writing** puts row t of the new K at slot `slot_mapping[t]`. **Gathering** reads rows back in the
# order of the slots, so that attention sees a sequence in the order of its positions, wherever the blocks lie.
#
# **Before you write:** a colleague proposes to read a sequence as `k[layer, first_slot : first_slot + length]`. For which
# block tables is that right?
#
# <details><summary>Answer</summary>
#
# Only where the table's blocks happen to follow each other in memory, such as [3, 4, 5]. It is right in most small
# tests, since a fresh pool hands out neighbors, and wrong as soon as requests have come and gone. The check therefore
# shuffles the blocks.
#
# </details>

# %% [markdown]
# <!-- head: PagedKVCache -->
#
# `__init__` is given: `self.k` and `self.v`, each `[L, N * P, Hkv, D]`. Assign to them with an index, as in
# `self.k[...] = ...`, and never `self.k = ...`: others hold these two tensors, and would not see a new one.
#
# - `write(layer, k, v, slot_mapping)`: k and v are `[T, Hkv, D]` with any strides, `slot_mapping` is `[T]`. Row t goes to
#   its slot, in this layer only, in the pool's dtype: a float16 pool stays one, even if k and v come in float32.
# - `gather(layer, slots)`: `slots` may have any shape. K and V come back with two more dimensions, Hkv and D.
# - `copy_block(source, target)`: copy a whole block, K and V, in every layer. Exercise 6 needs it.

# %% exercise="PagedKVCache" stub="write,gather,copy_block" minutes="25" difficulty="2"
from tinyllm.kv_cache.storage import PagedKVCache

# %% check="PagedKVCache"
check(PagedKVCache)

# %%
use(PagedKVCache)

# %% [markdown]
# Ten tokens' keys and values, written through a block table and read back. To see it, K of token t is a stripe that
# moves to the right with t:

# %%
k = torch.zeros(10, 2, 10)
k[torch.arange(10), :, torch.arange(10)] = 1.0
v = torch.randn(10, 2, 10, generator=torch.Generator().manual_seed(0))

# %%
table = BlockTable(busy_pool(), P)
cache = PagedKVCache(num_layers=1, num_blocks=N, block_size=P, num_kv_heads=2, head_dim=10)
cache.write(0, k, v, torch.tensor(table.append(10)))

# %%
k_read, v_read = cache.gather(0, torch.tensor(table.slots(0, 10)))
k_pool, _ = cache.gather(0, torch.arange(N * P))
plots.kv_rows({"pool: K of head 0, by slot": k_pool[:, 0], "gathered, by position": k_read[:, 0]}, P)

# %% [markdown]
# In the pool the sequence is in pieces, at the right it is whole again. Attention over the gathered rows is attention
# over the sequence, to the last bit:

# %%
from torch.nn.functional import scaled_dot_product_attention

q = torch.randn(2, 1, 10, generator=torch.Generator().manual_seed(1))
dense = scaled_dot_product_attention(q, k.transpose(0, 1), v.transpose(0, 1))
paged_out = scaled_dot_product_attention(q, k_read.transpose(0, 1), v_read.transpose(0, 1))
print("largest difference:", float((dense - paged_out).abs().max()))

# %% [markdown]
# ## 6. Sharing until somebody writes
#
# Ask a model for four answers to one question (`n=4`), and all four begin with the same prompt. Forking a sequence
# copies its **table** and not its keys and values: each block gets one more owner.
#
# That works while everybody only reads. A new token is written into the last block if that is partly filled, and if
# others hold that block too, they would see a token that is not theirs. So the writer first takes a block of its own,
# copies the shared one, drops its reference to it, and then writes. Full blocks are never written again and stay
# shared for good.
#
# Fork our ten tokens into A and B. A says `!`, then B says `?`. This is what comes out:

# %%
a_view, b_view = TableView([12, 5, 8], 11), TableView([12, 5, 3], 11)
plots.pool(
    {"A": a_view, "B": b_view, "others": others},
    N, P, {"A": list("Ten tokens!"), "B": list("Ten tokens?")},
)  # fmt: skip

# %% [markdown]
# **Before you write:** how many blocks are copied when a sequence of 10 tokens is forked into four (the first goes on as
# one of them) and each appends one token? And how many if the prompt had 8 tokens?
#
# <details><summary>Answer</summary>
#
# Three. The first three writers each find the last block shared and copy it. By then the fourth is its only owner and
# writes in place. With 8 tokens none: both blocks are full, each sequence starts a new one.
#
# </details>

# %% [markdown]
# <!-- head: CopyOnWrite -->
#
# - `fork(table)`: a new table (`type(table)(allocator, block_size, block_ids, num_tokens)`) with the same blocks, each
#   with one more owner. The two tables must not share one Python list.
# - `needs_copy(table)`: whether the next token would be written into a block that somebody else owns too, be it a table
#   or the prefix cache. Tables may be empty; none here holds a surplus block, so the one written to is the last.
# - `append(table, num_tokens)`: as `table.append`, but first copying the last block if needed. If the pool cannot hold
#   the copy **and** the new blocks, `OutOfBlocksError`, and nothing has changed. Appending 0 tokens copies nothing.
#
# `self.copy_block(source, target)` copies K and V.

# %% exercise="CopyOnWrite" stub="fork,needs_copy,append" minutes="30" difficulty="3"
from tinyllm.kv_cache.copy_on_write import CopyOnWrite

# %% check="CopyOnWrite"
check(CopyOnWrite)

# %%
use(CopyOnWrite)

# %% [markdown]
# The fork of the picture above, step by step. First the fork alone: no block is taken.


# %%
def fork_of_ten():
    """Our ten tokens as A in the busy pool, B forked from it, and what they were made with."""
    allocator = busy_pool()
    cache = PagedKVCache(num_layers=1, num_blocks=N, block_size=P, num_kv_heads=2, head_dim=10)
    copy_on_write = CopyOnWrite(allocator, cache.copy_block)
    a = BlockTable(allocator, P)
    cache.write(0, k, v, torch.tensor(a.append(10)))
    return a, copy_on_write.fork(a), copy_on_write, cache


# %%
a, b, _, _ = fork_of_ten()
plots.sharing_graph({"A": a, "B": b}, title="After the fork")

# %% [markdown]
# A appends `!` and copies the last block. Then B appends `?`, by now alone in the old one.

# %%
a, b, copy_on_write, cache = fork_of_ten()
copy_on_write.append(a, 1)
needs_copy = copy_on_write.needs_copy(b)
copy_on_write.append(b, 1)
print("B had to copy:", needs_copy)
plots.sharing_graph({"A": a, "B": b}, title="After each has written one token")

# %%
plots.pool({"A": a, "B": b, "others": others}, N, P, {"A": list("Ten tokens!"), "B": list("Ten tokens?")})

# %% [markdown]
# The copy holds the keys of positions 8 and 9, as the original does:

# %%
k_of_a, _ = cache.gather(0, torch.tensor(a.slots(0, 10)))
print("the same keys:", torch.equal(k_of_a, k))

# %% [markdown]
# Now four continuations in an empty pool of their own, five tokens each. Compare with four separate requests:

# %%
allocator = BlockAllocator(N)
copy_on_write = CopyOnWrite(allocator, PagedKVCache(1, N, P, 2, 10).copy_block)
first = BlockTable(allocator, P)
first.append(10)
group = {"first": first} | {name: copy_on_write.fork(first) for name in ("second", "third", "fourth")}
for continuation in group.values():
    copy_on_write.append(continuation, 5)

# %%
plots.sharing_graph(group, title="Four continuations")

# %% [markdown]
# ## 7. Prompts that begin alike
#
# A fork knows its parent. But most shared beginnings come from strangers: a thousand users whose requests all start
# with the same system prompt, or one user whose every turn repeats the talk so far. If the blocks of a prompt are
# found by their **content**, their keys and values need not be computed again.
#
# **Before you read on:** two prompts, `Ten tokens` and `Six tokens`. Their second blocks hold the same four letters,
# `toke`. May they share that block?
#
# <details><summary>Answer</summary>
#
# No. The keys and values of a token depend on everything before it (from the second layer on, its input has looked at
# the earlier tokens). Equal tokens after different beginnings have different K and V.
#
# </details>
#
# So a block is named by the hash of its tokens **and of the hash of the block before it**: the name stands for the whole
# prefix. Two rules follow:
#
# - only full blocks are named and kept, since a partly filled one will still change;
# - a hit never covers the whole prompt. At least one token must go through the model, or there would be no logits to
#   draw the first output token from.

# %%
from tinyllm.kv_cache.prefix_cache import ROOT_HASH, hash_block

after_ten = hash_block(hash_block(ROOT_HASH, [*b"Ten "]), [*b"toke"])
after_six = hash_block(hash_block(ROOT_HASH, [*b"Six "]), [*b"toke"])
{"toke after Ten": after_ten.hex()[:8], "toke after Six": after_six.hex()[:8]}

# %% [markdown]
# The cache is an **owner** like any other: it holds a reference to each block that it knows, so that a block stays when
# the request that computed it ends. When the pool runs dry, the engine asks the cache to **evict**: blocks that nobody
# but the cache owns, least recently used first.
#
# One more thing about order. A block is only found through the ones before it: with its beginning gone, the rest of a
# chain is unreachable, and taking up room for nothing. So within one prompt the last block must count as the least
# recently used: a chain is eaten from its end.
#
# This is what your cache will draw after three prompts:

# %%
plots.sharing_graph(
    {
        "Ten tokens": TableView([0, 1, 2], 10),
        "Ten tokens!": TableView([0, 1, 3], 11),
        "Ten to one": TableView([0, 4, 5], 10),
    },
    title="Three prompts",
)

# %% [markdown]
# <!-- head: PrefixCache -->
#
# `__init__` and `block_hashes` are given. `self.blocks` is an `OrderedDict` from hash to block id, the least recently
# used first; `move_to_end(hash)` makes an entry the most recent.
#
# - `match(token_ids)`: the ids of the longest run of known blocks that the tokens begin with, always leaving at least
#   one token; none where there are no tokens. The caller becomes an owner of each. They now count as just used, and
#   whether a block that is left out to leave a token does so too is up to you.
# - `insert(token_ids, block_ids)`: remember the full blocks of a sequence, the cache becoming an owner of each. If the
#   content of a block is known already, keep the old block; either way it counts as just used.
# - `evict(num_blocks)`: free up to that many blocks that only the cache owns, least recently used first, and return how
#   many. Blocks that a request holds stay.

# %% exercise="PrefixCache" stub="match,insert,evict" minutes="40" difficulty="4"
from tinyllm.kv_cache.prefix_cache import PrefixCache

# %% check="PrefixCache"
check(PrefixCache)

# %%
use(PrefixCache)

# %% [markdown]
# The engine does the following for every new prompt: match, open a table on the blocks that were found, compute the
# rest, insert. Three prompts in a row:


# %%
def serve(*texts):
    """Admit prompts one after another to an empty pool, as the engine does, without the model."""
    allocator = BlockAllocator(N)
    prefix_cache, tables, num_hit = PrefixCache(allocator, P), {}, {}
    for text in texts:
        token_ids = list(text.encode())
        block_ids = prefix_cache.match(token_ids)
        num_hit[text] = len(block_ids) * P
        tables[text] = BlockTable(allocator, P, block_ids, num_tokens=num_hit[text])
        tables[text].append(len(token_ids) - num_hit[text])
        prefix_cache.insert(token_ids, tables[text].block_ids)
    return allocator, prefix_cache, tables, num_hit


# %%
allocator, prefix_cache, tables, num_hit = serve("Ten tokens", "Ten tokens!", "Ten to one")
print("tokens that need no computing:", num_hit)
plots.sharing_graph(tables, title="Three prompts")

# %% [markdown]
# The picture counts the requests that hold a block. The cache is one more owner of each full block, which it does not
# draw:

# %%
shared = tables["Ten tokens"].block_ids[0]
print("block", shared, "is held by 3 requests and the cache: owners", allocator.ref_count(shared))

# %% [markdown]
# **Before you run it:** `Ten toke` has exactly two full blocks, and both are known. How many of its 8 tokens are left to
# compute? What about `Six tokens`?
#
# <details><summary>Answer</summary>
#
# Four: the hit may not cover the whole prompt, and blocks are shared whole or not at all, so only the first is taken.
# `Six tokens` computes all ten of its tokens, although its second block reads the same.
#
# </details>

# %%
allocator, prefix_cache, tables, num_hit = serve("Ten tokens", "Ten tokens!", "Ten to one", "Ten toke", "Six tokens")
print("tokens that need no computing:", num_hit)

# %% [markdown]
# The requests end. Their full blocks stay in the cache, until somebody needs the room. It holds five: `Ten `, the `toke`
# and the `to o` behind it, `Six ` and the `toke` behind that. So 11 of the 16 are free. Two are evicted, the least recently
# used. First goes `to o`, which no prompt has used since `Ten to one`. The `toke` behind `Ten ` follows: `Ten toke` was the
# last to use this chain, and a chain is eaten from its end.

# %%
allocator, prefix_cache, tables, _ = serve(*tables)
for table in tables.values():
    table.release()
free_before = allocator.num_free
freed = prefix_cache.evict(2)
print("free:", free_before, "evicted:", freed, "free afterwards:", allocator.num_free)

# %% [markdown]
# ## Finale: the engine on your parts
#
# You have built every part of a KV cache manager. The serving engine is made of the same parts, and takes yours where
# a check has found them right. The line below says whose code runs.

# %%
from tinyllm import LLM, SamplingParams

torch.set_num_threads(1)  # as on Day 0
mine = LLM(parts="mine", num_blocks=256)

# %% [markdown]
# ### The same words
#
# Wherever the blocks lie, the model must say the same as with the course's own parts:

# %%
question = [{"role": "user", "content": "What is a KV cache?"}]
answer = mine.chat(question)[0]
answer.text

# %%
reference = LLM(num_blocks=256)
same = answer.outputs[0].token_ids == reference.chat(question)[0].outputs[0].token_ids
print("the same tokens:", same)

# %% [markdown]
# ### How many requests fit
#
# Now the 200 requests of the trace all come at once, to a pool of 16,384 slots. A block of 2,048 slots, as long as a
# request may become, **is** contiguous reservation: one block a request, and eight requests in the pool. The same
# engine with P = 16 pages it.

# %%
from tqdm.auto import tqdm

from tinyllm import EngineConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import DryRunner
from tinyllm.parts import resolve

my_parts = resolve("mine")


def serve_trace(trace, block_size, max_steps=None, with_model=True, look_every=20):
    """Serve a trace in a pool of 16,384 slots. Returns the engine's records, and every so often whose each block is."""
    config = EngineConfig.from_options(
        block_size=block_size, num_blocks=16_384 // block_size, max_model_len=2048, enable_prefix_caching=False
    )
    runner = None if with_model else DryRunner(mine.model.config.vocab_size)
    engine = LLMEngine(mine.model, mine.tokenizer, config, my_parts, runner=runner)
    for request in trace:
        engine.add_request(request.prompt_token_ids, request.params)
    owners = []
    with tqdm(total=len(trace), desc=f"P = {block_size}", unit="request") as bar, engine.step_log.keep_all() as records:
        while engine.has_unfinished and len(records) != max_steps:
            bar.update(len(engine.step()))
            if len(records) % look_every == 0:
                owners.append(engine.kv.owners())
    return records, owners


# %% [markdown]
# **Before you run it:** eight requests fit contiguously. Guess how many fit in blocks of 16, if a request is at about 400
# tokens when you look.
#
# <details><summary>Answer</summary>
#
# 16,384 / 400 is about 40. For a moment it is twice as many: when all have just come they are short. Then they grow
# together, the pool runs full, and the latest arrivals are preempted: they give their blocks back and are computed
# again later. Day 2 is about that scheduler.
#
# </details>
#
# Three numbers will tell how many times as many fit. The first two are of the first 100 steps, which flatter: most
# requests are still short. The last is of the whole trace: eight times this one is what to compare your guess with.
#
# The first 100 steps of both, about half a minute:

# %%
contiguous, _ = serve_trace(trace, block_size=2048, max_steps=100)
paged, _ = serve_trace(trace, block_size=16, max_steps=100)
plots.requests_at_once(
    {"contiguous": [r.num_running for r in contiguous], "paged, P = 16": [r.num_running for r in paged]}
)

# %% [markdown]
# In numbers: the most at once, and the mean while others were waiting, that is, while the pool was full.

# %%
from statistics import mean


def fitted(records):
    """Most requests in the pool at once, and the mean number while more were waiting."""
    return max(r.num_running for r in records), mean(r.num_running for r in records if r.num_waiting)


most = fitted(paged)[0] / fitted(contiguous)[0]
steady = fitted(paged)[1] / fitted(contiguous)[1]
print(f"most at once: {most:.1f} times more, while the pool is full: {steady:.1f} times more")

# %% [markdown]
# 100 steps are the beginning, with many short requests. The whole trace takes 9,000 steps when it is contiguous, minutes
# on a laptop. But it fixes how long each output is, so the schedule and the pool do not depend on what the model says:
# leave the model out, and the rest of the engine does everything as ever. The first 100 steps prove it (about ten
# seconds).

# %%
all_contiguous, _ = serve_trace(trace, block_size=2048, with_model=False)
all_paged, paged_owners = serve_trace(trace, block_size=16, with_model=False)
pool_with, pool_without = ([(r.num_running, r.num_free_blocks) for r in steps[:100]] for steps in (paged, all_paged))
print("the same pool with and without the model:", pool_with == pool_without)

# %%
steady_all = fitted(all_paged)[1] / fitted(all_contiguous)[1]
print(f"the whole trace: {len(all_contiguous):,} steps contiguous, {len(all_paged):,} paged")
print(f"while the pool is full: {steady_all:.1f} times more requests at once")
print(f"preempted and computed again: {sum(r.num_preempted for r in all_paged)} times")

# %% [markdown]
# Below are 96 of the 1,024 blocks over time. At first each request's blocks lie side by side. As requests come and go they
# scatter, and a block changes hands as soon as it is free:

# %%
plots.pool_over_time(
    paged_owners,
    steps=range(20, 20 * len(paged_owners) + 20, 20),
    blocks=range(400, 496),
    title="96 blocks of the pool",
)

# %% [markdown]
# ### What is wasted
#
# Waste is the share of the slots taken that hold no token, over all steps. Two traces: ShareGPT's long chats and
# Alpaca's short instructions (19 tokens in, 58 out on average).
#
# **Before you run it:** which trace wastes more per cent at the same block size? Why?
#
# <details><summary>Answer</summary>
#
# Alpaca. A request wastes half a block on average, however long it is, and Alpaca's requests are short: half of 16
# slots is much beside 60 tokens and little beside 400.
#
# </details>
#
# Eight runs, about half a minute:


# %%
def waste_of(records):
    """Share of the slots taken, over all steps, that hold no token."""
    wasted = sum(r.num_wasted_slots for r in records)
    return wasted / (wasted + sum(r.num_cached_tokens for r in records))


sizes = {"contiguous": 2048, "P = 32": 32, "P = 16": 16, "P = 8": 8}
measured = {}
for name, requests in {"ShareGPT": trace, "Alpaca": make_trace("alpaca")}.items():
    records = {label: serve_trace(requests, size, with_model=False)[0] for label, size in sizes.items()}
    measured[name] = {label: waste_of(steps) for label, steps in records.items()}

# %%
plots.waste_bars(measured, title="Waste, 200 requests in one pool, measured by the engine")

# %% [markdown]
# Why not P = 1, then, with no waste at all? Each block has its entry in a table and its count, the kernel of Day 2 looks
# up an address for each block, and memory is read fastest in long runs. 16 is where most engines stop.

# %% [markdown]
# ### Four answers, one prompt
#
# `n=4` draws four continuations. The engine computes the prompt once and forks its table three times, on your
# `CopyOnWrite`. We stop after 30 steps and look at the tables:

# %%
system = {
    "role": "system",
    "content": "You are a tutor in a course on serving language models. Explain each word in one or two sentences, "
    "stay friendly, and say so when you do not know the answer.",
}
prompt = mine.tokenizer.apply_chat_template([system, {"role": "user", "content": "Tell me a short story about a fox."}])
four = SamplingParams(n=4, temperature=0.8, seed=1, max_tokens=60, ignore_eos=True)
storyteller = LLM(parts="mine", num_blocks=256).engine
storyteller.add_request(prompt, four, request_id="story")
for _ in range(30):
    storyteller.step()
plots.sharing_graph(storyteller.kv.tables, title="n = 4")

# %%
record = storyteller.step_records[29]
saved = record.num_block_references - record.num_table_blocks
print(f"{len(prompt)} prompt tokens, computed once; {saved} of {record.num_block_references} blocks saved")

# %%
while storyteller.has_unfinished:
    finished = storyteller.step()
for output in finished[0].outputs:
    print(f"{output.index}: {output.text[:100]!r}")

# %% [markdown]
# ### A system prompt, computed once
#
# Eight users ask a tutor, each behind the same system prompt. The first one pays for it, the others find its blocks in
# your `PrefixCache`:

# %%
words = ["a KV cache", "a block table", "a token", "attention", "a block", "preemption", "a scheduler", "sampling"]
talks = [[system, {"role": "user", "content": f"What is {word}?"}] for word in words]

# %%
tutor = LLM(parts="mine", num_blocks=256)
first, *others_answers = [*tutor.chat(talks[:1]), *tutor.chat(talks[1:])]
hits = [output.outputs[0].metrics.num_prefix_tokens_hit for output in others_answers]
asked = [len(output.prompt_token_ids) for output in others_answers]
print(f"prompt tokens of users 2 to 8: {sum(asked)}, not computed again: {sum(hits)}")
print(f"user 2: {others_answers[0].text!r}")

# %% [markdown]
# The same again without the cache, to see what it spares: the prompt tokens computed, and the blocks held when all
# eight run together.

# %%
forgetful = LLM(parts="mine", num_blocks=256, enable_prefix_caching=False)
forgetful.chat(talks[:1]), forgetful.chat(talks[1:])
for name, llm in (("with prefix cache", tutor), ("without", forgetful)):
    records = llm.engine.step_records
    computed = sum(r.num_prefill_tokens for r in records)
    print(f"{name}: prompt tokens computed {computed}, most blocks held {max(r.num_table_blocks for r in records)}")

# %%
for word, talk in zip(words[1:5], talks[1:5], strict=True):
    tutor.engine.add_request(tutor.tokenizer.apply_chat_template(talk), request_id=word)
tutor.engine.step()
four_users = {name: TableView(list(t.block_ids), t.num_tokens) for name, t in tutor.engine.kv.tables.items()}
while tutor.engine.has_unfinished:
    tutor.engine.step()
plots.sharing_graph(four_users, title="Four users, one system prompt")

# %% [markdown]
# ## The scoreboard
#
# The same 24 requests as on Day 0, now through the paged engine, eight at once. Who joins a batch and when is the subject
# of Day 2. Until then we do it in the oldest way: eight requests start together, and the next eight when the longest of
# them has ended (**static batching**).

# %%
from tinyllm import scoreboard
from tinyllm.engine.scheduler import Scheduler
from tinyllm.replay import replay


class StaticScheduler(Scheduler):
    """Starts a new batch only when the last one has ended."""

    def admit_waiting(self, budget):
        """See `Scheduler.admit_waiting`."""
        return [] if self.running else super().admit_waiting(budget)


# %% [markdown]
# The requests come as fast as full steps of eight could serve them on this machine, so a step is measured first. Ten to thirty
# seconds:

# %%
step_seconds = scoreboard.full_step_seconds(reference.engine)
load = scoreboard.load_for(step_seconds, reference.model.config.vocab_size)
parts = {**my_parts.chosen, "Scheduler": StaticScheduler}
engine = LLM(parts=parts, num_blocks=1024, max_num_seqs=scoreboard.NUM_SEATS).engine
run = replay({"static batches": engine}, load)["static batches"]

# %%
bytes_held = scoreboard.blocks_held(run.records) * 16 * kv_bytes_per_token(engine.model_config, bytes_per_element=4)
scoreboard.record(scoreboard.measure(1, "paged, static batches of 8", run.metrics, bytes_held))

# %% [markdown]
# Memory for a request is down from a row of 2,048 slots to what it needs, and a batch shares its steps. The TTFT still
# holds a long wait: for the end of the longest answer of the batch before. That is tomorrow's subject.

# %% [markdown]
# ## Check yourself
#
# Answer in a sentence or two before you open the criteria.
#
# **1.** Why can a paged cache still waste memory, and what bounds the waste per request?
#
# <details><summary>A good answer says</summary>
#
# the last block of a request is partly empty (internal waste), at most P - 1 slots; nothing is reserved ahead.
#
# </details>
#
# **2.** A model has L = 32, Hq = 32, Hkv = 8, D = 128 in bfloat16. How many blocks of 16 tokens fit in 8 GiB?
#
# <details><summary>A good answer says</summary>
#
# 32 x 2 x 8 x 128 x 2 = 131,072 bytes a token, 2 MiB a block, so 4,096 blocks. (Hq does not matter.)
#
# </details>
#
# **3.** Why must `allocate` check before it takes anything?
#
# <details><summary>A good answer says</summary>
#
# a caller that meets the error retries later; blocks taken by a half-done call have no owner who could free them: a leak.
#
# </details>
#
# **4.** Three sequences share a partly filled last block, and each writes. How many copies, and why not three?
#
# <details><summary>A good answer says</summary>
#
# two; the last writer is the only owner by then (count 1) and nobody else can see its write.
#
# </details>
#
# **5.** Why does the hash of a block include the hash of the block before it? What would users see without it?
#
# <details><summary>A good answer says</summary>
#
# K and V depend on every token before; without it a request could be given the keys and values that belong to another
# beginning: answers that are wrong, or that leak what another user wrote, and only sometimes.
#
# </details>
#
# **6.** Why does a prefix hit never cover the whole prompt, and what does the cap cost when the prompt is a whole number
# of blocks?
#
# <details><summary>A good answer says</summary>
#
# the last token must go through the model to give logits; since blocks are shared whole, a whole block (P tokens) is
# computed again.
#
# </details>

# %% [markdown]
# ## Where production systems differ
#
# - **Kernels read the pages directly.** Our engine gathers a sequence's rows into one tensor and then attends. A paged
#   attention kernel follows the block table inside the kernel and never makes that copy. You write it on Day 2.
# - **vLLM's prefix cache owns nothing.** A block whose last owner leaves goes to the end of the free queue but keeps its
#   hash. Until somebody takes it, a hit can bring it back: eviction is simply being allocated anew. Its hash also covers
#   what else changes K and V, such as a LoRA adapter, an image, or a salt that keeps tenants apart.
# - **vLLM no longer copies on write.** Since its version 1, the n samples of a prompt are requests of their own that meet in the
#   prefix cache. Only full blocks are shared; the partly filled one is computed n times, which costs little.
# - **SGLang keeps a radix tree over tokens**, so that a hit can end anywhere and not only at the end of a block.
# - **Preempted requests** can be moved to the host's memory and back, instead of being computed again.
# - **vAttention** (2405.04437) lets the GPU's own virtual memory do the paging, and keeps one unbroken range of
#   addresses per request, so that ordinary kernels still work.
#
# **Reading:** Kwon and others, *Efficient Memory Management for Large Language Model Serving with PagedAttention*,
# arXiv 2309.06180, sections 3 and 4. You have now built its figures 6 to 8.

# %% [markdown]
# ## Hand in
#
# In a terminal: `tinyllm status` shows whose code each part is, `tinyllm submit day1` makes the one file to hand in.
