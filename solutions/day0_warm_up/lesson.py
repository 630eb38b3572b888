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
# # Day 0: one model, one dense cache
#
# A warm-up, ungraded. You meet the model that goes with you through the course, look inside one of its layers, and
# measure what serving it costs while it is still done in the simplest way: one request at a time, with a row of memory
# reserved for each.
#
# **When you are through, you can**
#
# - name the shape of every tensor in a decoder layer;
# - say what RoPE, grouped-query attention and QK-norm do, with a picture of each;
# - explain why a KV cache is kept, and show it with a measurement;
# - tell prefill from decode, and measure TTFT, ITL and throughput;
# - compute how much memory a request reserves, and how little of it is used.
#
# **Read the chapter first:** [Day 0 of the book](http://localhost:3000/day0.html). It tells the story that this notebook
# lets you try out. `make book-serve` in a terminal serves the book at that address; its source is `book/src/day0.md`.
#
# **Time:** about two hours. Run the cells one by one with Shift+Enter, and answer the questions before you run the cell
# below them. Cells that take more than ten seconds say so; the times are those of a laptop.
#
# **The letters** are the same all through the course: B sequences, T tokens in a step, L layers, Hq and Hkv query and
# key/value heads, D head_dim, V vocabulary. A shape like `[T, Hq, D]` is read with them.

# %% [markdown]
# ## What this machine can do
#
# Everything in the course runs on a CPU. If something is missing, the report says how to get it.

# %% setup=true
import torch

torch.set_num_threads(1)  # the model is so small that a second thread mostly waits; with one, times can be compared

# %%
from tinyllm.doctor import doctor

doctor()

# %% [markdown]
# ## The model speaks
#
# The course ships a very small decoder, of the same family as Qwen3, trained on generated text: small talk, stories,
# the words of this course, and page after page about people and towns that do not exist. It knows next to nothing else,
# and that is fine: what it costs to serve is what interests us.

# %%
from tinyllm import LLM, SamplingParams

llm = LLM()
print(llm.chat([{"role": "user", "content": "What is a KV cache?"}])[0].text)

# %% [markdown]
# `chat` writes the talk in the checkpoint's own template. `generate` continues plain text. With a temperature the model
# draws among the likely tokens, and a seed makes the draw repeatable:

# %%
params = SamplingParams(max_tokens=40, temperature=0.8, seed=1)
print(llm.generate("Once upon a time", params)[0].text)

# %% [markdown]
# **Try it:** ask for another word (`What is a token?`), or for something that it cannot know (`Who won the game
# yesterday?`). Ask anything else, and it makes something up, in fluent English. Change the seed and the temperature.

# %%
print(llm.chat([{"role": "user", "content": "Where is Brinmouth?"}])[0].text)

# %% [markdown]
# What it has learned best is to **read**: to answer from passages, naming the one that it used, and to say so when none
# of them has the answer. It has never met these two. Change a number, and the answer follows. (Day 5 finds such passages
# in 2,000 articles; on Day 6 the model calls tools.)

# %%
passages = """Zetrivas lies near the coast. 4210 people live there. [1]
Pigurn Plibot works as a baker, and she was born in 1911. [2]"""

for question in ("How many people live in Zetrivas?", "Who is the mayor of Zetrivas?"):
    print(llm.chat([{"role": "user", "content": f"{passages}\n\n{question}"}])[0].text)

# %% [markdown]
# A model reads and writes token ids. Its tokenizer cuts text into pieces that are common in its training text:

# %%
tokenizer = llm.tokenizer
token_ids = tokenizer.encode("The cache keeps keys and values.")
[f"{token}: {tokenizer.decode([token])!r}" for token in token_ids]

# %% [markdown]
# ## Shapes through one layer
#
# The config holds every size. We write them with our letters and follow these tokens through the first layer, by hand.

# %%
model = llm.model
config = model.config
L, Hq, Hkv, D, V = config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim, config.vocab_size
f"{L = }, {Hq = }, {Hkv = }, {D = }, {V = }, hidden_size = {config.hidden_size}"

# %%
ids = torch.tensor(token_ids)
positions = torch.arange(len(ids))
x = model.embed_tokens(ids)
x.shape  # [T, hidden_size]: one vector a token

# %% [markdown]
# Attention reads a normalized copy of the vectors. One matrix makes queries, keys and values for all heads:

# %%
layer = model.layers[0]
attention = layer.self_attn
heads = attention.qkv_proj(layer.input_layernorm(x)).view(len(ids), -1, D)
q, k, v = heads.split([Hq, Hkv, Hkv], dim=1)
{"q [T, Hq, D]": q.shape, "k [T, Hkv, D]": k.shape, "v [T, Hkv, D]": v.shape}

# %% [markdown]
# ### QK-norm
#
# Qwen3 brings every query and every key to the same root mean square before they meet, then scales each channel by a
# learned weight. So no score explodes because one vector happens to be long. Below, the weight is divided out again, to
# see what the norm alone does: every vector gets the length of the square root of D.

# %%
from tinyllm import plots

q_normed, k_normed = attention.q_norm(q), attention.k_norm(k)
plots.query_norms(q, q_normed / attention.q_norm.weight)

# %% [markdown]
# ### RoPE
#
# Attention by itself does not know where a token stands. Rotary embedding **turns** the channels of queries and keys, pair
# by pair, by an angle that grows with the position: the first pairs turn fast, the last ones slowly.

# %%
from tinyllm.model.rope import apply_rotary, rotary_cos_sin

cos, sin = rotary_cos_sin(torch.arange(12), D, config.rope_theta)
plots.rope_angles(cos, sin, pairs=[0, 2, 4, 8])

# %% [markdown]
# **Before you run it:** take one query and one key, put the query at position 60 and the key d tokens before it, and look
# at their score for every d. Now put the query at position 600. How do the two curves differ?
#
# <details><summary>Answer</summary>
#
# They do not. Both vectors are turned by their own position, and the dot product sees only the difference of the two
# angles: the distance.
#
# </details>


# %%
def score_by_distance(query_position, max_distance=60):
    """q . k for one query and one key that stands 0, 1, 2... tokens before it."""
    places = torch.arange(query_position, query_position - max_distance, -1)
    keys = apply_rotary(k_normed[:1, :1].expand(max_distance, 1, D), *rotary_cos_sin(places, D, config.rope_theta))
    query = apply_rotary(q_normed[:1, :1], *rotary_cos_sin(places[:1], D, config.rope_theta))
    return (keys[:, 0] * query[0, 0]).sum(dim=1)


plots.rope_scores({f"query at {p}": score_by_distance(p) for p in (60, 600)})

# %% [markdown]
# ### Grouped-query attention
#
# There are Hq query heads but only Hkv key/value heads: a group of query heads shares one. Of what would have to be
# kept of each token, that leaves a third here, and an eighth in larger models.

# %%
plots.gqa_heads(Hq, Hkv)

# %% [markdown]
# Now the attention itself. Each query may see the tokens up to its own (the causal mask):

# %%
cos, sin = rotary_cos_sin(positions, D, config.rope_theta)
queries = apply_rotary(q_normed, cos, sin)
keys = apply_rotary(k_normed, cos, sin).repeat_interleave(Hq // Hkv, dim=1)
values = v.repeat_interleave(Hq // Hkv, dim=1)

# %%
scores = torch.einsum("qhd,khd->hqk", queries, keys) / D**0.5
causal = positions[:, None] >= positions
weights = scores.masked_fill(~causal, -torch.inf).softmax(dim=-1)
{"weights [Hq, T, T]": weights.shape, "head 0, third token, sees three": weights[0, 2]}

# %%
attended = torch.einsum("hqk,khd->qhd", weights, values)  # [T, Hq, D]
after_attention = x + attention.o_proj(attended.flatten(1))
by_hand = after_attention + layer.mlp(layer.post_attention_layernorm(after_attention))

# %% [markdown]
# The model's own layer does the same, up to rounding. It is handed what looks across tokens, `attend`, since that depends
# on where keys and values are kept:

# %%
from tinyllm.model.attention import causal_attend
from tinyllm.model.ops import LayerOps

ops = LayerOps(causal_attend())
f"largest difference: {float((by_hand - layer(x, cos, sin, ops)).abs().max()):.1e}"

# %% [markdown]
# After L layers the last token's vector is compared with every row of the embedding: one logit for each of the V tokens.

# %%
hidden = model(ids, positions, ops)
logits = model.compute_logits(hidden[-1:])[0]
best = logits.topk(3).indices.tolist()
{tokenizer.decode([token], skip_special=False): round(float(logits[token]), 1) for token in best}

# %% [markdown]
# ## Why there is a KV cache
#
# To generate, we append the new token and ask again. Done naively, every step runs the whole sequence through the model.
# But the keys and values of the earlier tokens are what they were a step ago: a token looks only backwards, so nothing
# that comes later can change them. Keep them, and a step has to compute **one** token.
#
# `DenseKVCache` keeps them in a row of `max_len` places for each sequence, `[L, B, Hkv, max_len, D]`:

# %%
from tinyllm.kv_cache.dense import DenseKVCache

cache = DenseKVCache(config, batch_size=1, max_len=2048)
{"keys [L, B, Hkv, max_len, D]": cache.keys.shape, "keys and values": f"{cache.num_bytes:,} bytes"}


# %%
@torch.inference_mode()
def next_logits(token_ids, cache):
    """Run new tokens of one sequence over its cache; the logits after the last of them, [V]."""
    step = cache.step([len(token_ids)])
    return model.compute_logits(model(torch.tensor(token_ids), step.positions, LayerOps(step))[-1:])[0]


@torch.inference_mode()
def next_logits_uncached(token_ids):
    """Run a whole sequence; the logits after its last token, [V]."""
    everything = torch.tensor(token_ids)
    return model.compute_logits(model(everything, torch.arange(len(everything)), ops)[-1:])[0]


# %% [markdown]
# The two agree. First all tokens but the last go in, then the last one alone:

# %%
cache = DenseKVCache(config, batch_size=1, max_len=2048)
next_logits(token_ids[:-1], cache)
difference = next_logits(token_ids[-1:], cache) - next_logits_uncached(token_ids)
f"largest difference: {float(difference.abs().max()):.1e}"

# %% [markdown]
# **Before you run it:** how does the time for the next token grow with the tokens before it, without a cache and with one?
#
# <details><summary>Answer</summary>
#
# Without: every earlier token is computed again, so the time grows at least in proportion to their number (attention even
# with its square). With: one token's work, plus reading the cached keys and values, which grows slowly.
#
# </details>
#
# The measurement below takes five to ten seconds.

# %%
import time
from statistics import median


def seconds(function, repeats=3):
    """The median time of a few calls, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def decode_once(length):
    """One decode step over a cache that holds `length` tokens."""
    cache.lengths = [length]
    next_logits([1], cache)


# %%
context_lens = [16, 128, 256, 512, 1024, 1536]
times = {
    "without a cache": [seconds(lambda n=n: next_logits_uncached([1] * (n + 1))) for n in context_lens],
    "dense KV cache": [seconds(lambda n=n: decode_once(n)) for n in context_lens],
}
plots.cost_per_token(context_lens, times)

# %% [markdown]
# ## Prefill and decode
#
# A request has two kinds of work. **Prefill** runs the whole prompt in one step. **Decode** makes one token a step.
#
# **Before you run it:** 256 tokens as a prompt, and 256 tokens one by one. Both are 256 tokens of the same model. Which
# gets more tokens through per second, and why?
#
# <details><summary>Answer</summary>
#
# Prefill, by far. Each step has to read all weights from memory (and start every operation) once, whether for one token
# or for 256. Decode pays that for each single token: it is bound by memory, prefill by arithmetic. That is why engines
# decode many requests together in a step.
#
# </details>


# %%
def prefill(num_tokens):
    """A prompt in one step."""
    cache.lengths = [0]
    next_logits([1] * num_tokens, cache)


def decode(num_tokens):
    """The same number of tokens, one step each."""
    cache.lengths = [0]
    for _ in range(num_tokens):
        next_logits([1], cache)


rates = {
    "prefill, 256 in one step": 256 / seconds(lambda: prefill(256)),
    "decode, one a step": 256 / seconds(lambda: decode(256), repeats=1),
}
plots.phases(rates)

# %% [markdown]
# ## What users feel
#
# Three numbers describe a service, and they are defined exactly:
#
# - **TTFT**, time to first token: from the request's arrival to its first output token. It holds waiting and prefill.
# - **ITL**, inter-token latency: each gap between two neighboring tokens of a request.
# - **Throughput**: output tokens per second, over all requests.
#
# We serve one request ourselves, greedily, and look at the clock after each token. Its prompt is a talk of several
# hundred tokens:

# %%
from tinyllm.engine.metrics import RequestMetrics


def serve_one(prompt_ids, num_tokens, arrival=None, max_len=2048):
    """Greedy decoding of one request over a dense cache of its own. Returns its tokens and its times."""
    metrics = RequestMetrics(arrival=time.perf_counter() if arrival is None else arrival)
    cache = DenseKVCache(config, batch_size=1, max_len=max_len)
    output, new_tokens = [], list(prompt_ids)
    while len(output) < num_tokens:
        new_tokens = [int(next_logits(new_tokens, cache).argmax())]
        output += new_tokens
        metrics.token_times.append(time.perf_counter())
    return output, metrics


# %%
prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Tell me a story about a fox."}])
output, metrics = serve_one(prompt * 20, num_tokens=40)
plots.token_timeline(metrics.arrival, metrics.token_times)

# %%
throughput = len(output) / metrics.latency
print(f"TTFT {1000 * metrics.ttft:.1f} ms, mean ITL {1000 * metrics.tpot:.1f} ms, {throughput:.0f} tokens/s")

# %% [markdown]
# The engine can decode many requests in one step. **Before you run it:** eight requests together instead of one. What
# happens to throughput, and what to ITL?
#
# <details><summary>Answer</summary>
#
# Throughput rises, since the cost of a step is shared; ITL rises too, since a step with eight tokens takes a little
# longer. Serving is a trade between the two.
#
# </details>


# %%
def engine_rate(num_requests):
    """Throughput (tokens/s) and mean ITL (ms) of equal requests that come together."""
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    outputs = LLM(enable_prefix_caching=False).generate([prompt] * num_requests, params)
    times = [output.outputs[0].metrics for output in outputs]
    total = max(t.token_times[-1] for t in times) - min(t.arrival for t in times)
    return 40 * num_requests / total, 1000 * sum(t.tpot for t in times) / len(times)


for number in (1, 8):
    rate, itl = engine_rate(number)
    print(f"requests at once: {number}, throughput {rate:.0f} tokens/s, mean ITL {itl:.1f} ms")

# %% [markdown]
# ## What a request reserves
#
# Nobody knows how long an answer will be, so `serve_one` reserved a row for the longest: 2,048 tokens.
#
# **Before you run it:** our model keeps K and V of Hkv heads of D numbers in L layers, in float32. How many bytes is
# that for one token? (Day 1 begins with writing this as a function.)
#
# <details><summary>Answer</summary>
#
# 2 x L x Hkv x D x 4 bytes = 2 x 20 x 2 x 32 x 4 = 10,240 bytes.
#
# </details>

# %%
bytes_per_token = cache.num_bytes // 2048
used = len(prompt) + 40
print(f"{bytes_per_token:,} bytes a token, {cache.num_bytes:,} bytes a request")
print(f"a request of {used} tokens uses {used / 2048:.1%} of its row")

# %% [markdown]
# With these rows, how many requests at once fit in the memory of a GPU is decided by the longest request that *might*
# come. That is tomorrow's subject.

# %% [markdown]
# ## The scoreboard
#
# Every day ends with the same 24 requests and one row on a scoreboard. Most outputs are short and some are long, and the
# requests come at random, as those of users do. They come as fast as this machine could just serve them with eight in
# every step. So first a measurement: how long does a step with eight take here?

# %%
from tinyllm import scoreboard

step_seconds = scoreboard.full_step_seconds(LLM(enable_prefix_caching=False).engine)
load = scoreboard.load_for(step_seconds, V)
print(f"{1000 * step_seconds:.0f} ms a step; the 24 requests come within {load[-1].arrival:.1f} s")

# %% [markdown]
# Today's row is the baseline: one request after another, each with a dense row of 2,048 tokens. A request's TTFT contains
# its wait for those before it. This takes 10 to 30 seconds:

# %%
from tqdm.auto import tqdm

start, all_metrics = time.perf_counter(), []
for item in tqdm(load, desc="one at a time", unit="request"):
    time.sleep(max(0.0, start + item.arrival - time.perf_counter()))
    all_metrics.append(serve_one(item.request.prompt_token_ids, item.request.output_len, start + item.arrival)[1])
scoreboard.record(scoreboard.measure(0, "dense, one request at a time", all_metrics, cache.num_bytes))

# %% [markdown]
# ## Check yourself
#
# Answer in a sentence or two before you open the criteria.
#
# **1.** Why may the keys and values of earlier tokens be kept, although later tokens come?
#
# <details><summary>A good answer says</summary>
#
# attention is causal: a token's vectors depend on itself and on what is before it, so nothing that comes later can
# change them.
#
# </details>
#
# **2.** Why are queries not cached?
#
# <details><summary>A good answer says</summary>
#
# a query is used once, by its own token's step; later tokens ask with their own queries and need only the keys and
# values of the earlier ones.
#
# </details>
#
# **3.** A model has Hq = 32 and Hkv = 8. By what factor is its cache smaller than with as many key/value heads as query
# heads? What happens to the number of query heads?
#
# <details><summary>A good answer says</summary>
#
# by 4; the query heads stay 32, each group of four reads the same keys and values.
#
# </details>
#
# **4.** A user complains that the answer is long in coming, but then runs quickly. Which number is bad, and what are its
# two parts?
#
# <details><summary>A good answer says</summary>
#
# TTFT; it is made of waiting in the queue and of the prefill of the prompt. ITL is fine.
#
# </details>
#
# **5.** Which of prefill and decode gains more from batching requests, and why?
#
# <details><summary>A good answer says</summary>
#
# decode: its steps have one token per request and are bound by reading the weights, which a batch shares; a long
# prefill fills the arithmetic units by itself.
#
# </details>

# %% [markdown]
# ## Next
#
# Day 1 takes the reserved rows apart: `day1_paged_kv_cache.ipynb`. Its exercises are graded; your score so far is kept
# in the scoreboard.
