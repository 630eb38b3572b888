"""Day 3: ten tokens on their way to the experts, how many experts a batch touches, and what that costs at the least."""

from __future__ import annotations

from functools import cache
from statistics import mean

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from book.figures.paging import TOKENS
from book.figures.roofline import H100_BYTES, H100_FLOPS
from book.figures.style import (
    C1,
    C2,
    C3,
    C4,
    C5,
    figure,
    frame,
    label,
    new_diagram,
    new_figure,
    slot,
)
from tinyllm.config import ModelConfig, SamplingParams
from tinyllm.engine.llm import LLM
from tinyllm.experts.align import moe_align_block_size
from tinyllm.experts.cost import touched_experts
from tinyllm.experts.dispatch import permute
from tinyllm.experts.plan import SparseShape
from tinyllm.paths import shipped_checkpoint

#: The two experts of each of the ten tokens, the likelier one first. Nobody asks expert 2.
ROUTES = ((0, 1), (0, 3), (1, 0), (0, 3), (0, 1), (3, 0), (1, 3), (0, 3), (0, 1), (3, 0))
NUM_EXPERTS, TOP_K, BLOCK_SIZE = 4, 2, 4
#: Of each expert.
COLORS = (C1, C2, C3, C5)
LETTERS = TOKENS.replace(" ", "\u2423")


def example_ids() -> torch.Tensor:
    """[10, 2], the example's chosen experts."""
    return torch.tensor(ROUTES)


def draw_pair(ax: Axes, x: float, y: float, pair: int) -> None:
    """One pair: its token's letter in its expert's color."""
    token, place = divmod(pair, TOP_K)
    slot(ax, x, y, LETTERS[token], COLORS[ROUTES[token][place]])


@figure
def dispatch_ribbon() -> Figure:
    """The pairs of ten tokens as they come, sorted by expert, and padded to blocks of one expert each."""
    drawing, ax = new_diagram(30, 15.6)
    ids, left = example_ids(), 1
    label(ax, left, 14.8, f"{len(ROUTES)} tokens, each with {TOP_K} of {NUM_EXPERTS} experts: 20 pairs", ha="left")
    for pair in range(ids.numel()):
        draw_pair(ax, left + pair, 12.8, pair)
        label(ax, left + pair + 0.5, 12.3, f"{ids.flatten()[pair]}", size=8)
    for token in range(len(ROUTES)):
        frame(ax, left + TOP_K * token, 12.8, TOP_K, line=1)
    _, pairs, counts = permute(torch.zeros(len(ROUTES), 1), ids, NUM_EXPERTS)
    label(ax, left, 10.9, "permuted: sorted by expert", ha="left")
    for place, pair in enumerate(pairs.tolist()):
        draw_pair(ax, left + place, 9, pair)
    start = left
    for expert, count in enumerate(counts.tolist()):
        if count:
            frame(ax, start, 9, count, line=1)
            label(ax, start + count / 2, 8.4, f"expert {expert}: {count}", size=8.5)
        start += count
    rows, expert_ids, in_use = moe_align_block_size(ids, BLOCK_SIZE, NUM_EXPERTS)
    label(ax, left, 6.7, f"padded: blocks of {BLOCK_SIZE} rows, one expert a block", ha="left")
    for place, pair in enumerate(rows[: in_use.item()].tolist()):
        if pair < ids.numel():
            draw_pair(ax, left + place, 4.8, pair)
        else:
            slot(ax, left + place, 4.8, "", C4, "xx")
    for block, expert in enumerate(expert_ids.tolist()):
        if expert >= 0:
            frame(ax, left + BLOCK_SIZE * block, 4.8, BLOCK_SIZE, line=1.8)
            label(ax, left + BLOCK_SIZE * (block + 0.5), 4.2, f"expert {expert}", size=8.5)
    slot(ax, left, 1.6, LETTERS[0], COLORS[0])
    label(ax, left + 1.4, 2.1, "a pair, in its expert's color", ha="left", size=9)
    slot(ax, left + 14, 1.6, "", C4, "xx")
    label(ax, left + 15.4, 2.1, "padding: computed for nobody", ha="left", size=9)
    return drawing


# ---------------------------------------------------------------- the law of touched experts

BATCHES = (1, 2, 4, 8, 16, 32)
PROMPT_LEN, NEW_TOKENS = 12, 9


@cache
def touched_in_the_engine() -> dict[int, float]:
    """Batch size -> experts that a decode step of the shipped `moe` touches in a layer, by its step records."""
    llm = LLM(shipped_checkpoint("moe"), record_experts=True, num_blocks=128, enable_prefix_caching=False)
    vocab_size = ModelConfig.from_pretrained(shipped_checkpoint("moe")).vocab_size
    drawn = torch.Generator().manual_seed(0)
    # From 256 on: behind the single bytes and what controls the chat.
    prompts = torch.randint(256, vocab_size, (max(BATCHES), PROMPT_LEN), generator=drawn).tolist()
    touched = {}
    for batch in BATCHES:
        with llm.engine.step_log.keep_all() as records:
            llm.generate(prompts[:batch], SamplingParams(max_tokens=NEW_TOKENS, ignore_eos=True))
        decodes = [record for record in records if record.num_decode_tokens == batch]
        touched[batch] = mean(load.num_touched for record in decodes for load in record.experts)
    return touched


@figure
def touched_by_batch() -> Figure:
    """The share of experts that n tokens touch: by the law for two shapes, and measured in the engine."""
    drawing, ax = new_figure(3.4)
    moe = ModelConfig.from_pretrained(shipped_checkpoint("moe"))
    qwen = SparseShape()
    batches = [2 ** (step / 8) for step in range(65)]
    shapes = (
        ("the law, E = 8, K = 2", moe.num_experts_per_tok, moe.num_experts, C1, "-"),
        ("the law, E = 128, K = 8", qwen.top_k, qwen.num_experts, C2, "--"),
    )
    for name, top_k, num_experts, color, style in shapes:
        shares = [100 * touched_experts(n, top_k, num_experts) / num_experts for n in batches]  # type: ignore[arg-type]
        ax.plot(batches, shares, style, color=color, linewidth=1.8, label=name)
    measured = touched_in_the_engine()
    shares = [100 * touched / moe.num_experts for touched in measured.values()]
    ax.plot(list(measured), shares, "o", color=C1, markersize=6, label="measured: the shipped moe")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.set_xlabel("tokens in the step")
    ax.set_ylabel("experts touched, %")
    ax.set_ylim(0, 104)
    ax.grid(True, alpha=0.4)
    ax.legend(loc="lower right")
    return drawing


# ---------------------------------------------------------------- the floor of a layer


def floor_microseconds(num_tokens: float, experts_read: float, experts_a_token: int, shape: SparseShape) -> float:
    """The least time of a layer on an H100: its bytes at the published bandwidth or its operations at the peak."""
    moved = experts_read * shape.expert_bytes / H100_BYTES
    computed = num_tokens * experts_a_token * shape.expert_bytes / H100_FLOPS  # 2 operations for 2 bytes of a weight
    return 1e6 * max(moved, computed)


@figure
def sparse_floor() -> Figure:
    """The least time of a sparse layer over the tokens in a step, between those of two dense ones."""
    drawing, ax = new_figure(3.6)
    shape = SparseShape()
    tokens = [2 ** (step / 8) for step in range(0, 113)]
    lines = (
        ("dense, all 128 experts' weights", lambda n: shape.num_experts, shape.num_experts, C4, ":"),
        (
            "sparse, 8 of 128",
            lambda n: touched_experts(n, shape.top_k, shape.num_experts),
            shape.top_k,
            C1,
            "-",
        ),
        ("dense, 8 experts' weights", lambda n: shape.top_k, shape.top_k, C2, "--"),
    )
    for name, read, each, color, style in lines:
        times = [floor_microseconds(n, read(n), each, shape) for n in tokens]
        ax.plot(tokens, times, style, color=color, linewidth=1.8, label=name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.set_xlabel("tokens in the step")
    ax.set_ylabel("µs a layer, at least")
    ax.grid(True, alpha=0.4)
    ax.legend(loc="upper left", fontsize=9)
    return drawing
