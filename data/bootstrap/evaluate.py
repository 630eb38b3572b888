"""Measures the trained model: loss on samples it never saw, answers that can be right or wrong, and some output."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import conversations
import torch
import torch.nn.functional as F
from corpus import Sample, rows
from torch import Tensor
from tqdm import tqdm
from world import TABLES, Pen

from tinyllm.kv_cache.dense import DenseKVCache
from tinyllm.model.attention import causal_attend
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer

HELD_OUT_TOKENS = 65_536
PLAIN_PROMPTS = [
    "Once upon a time",
    "The town of Alder",
    "Anna Baker is a",
    "Today is Monday",
    "The KV cache",
    "How to make tea:",
]
QUESTIONS = [
    "Hello!", "Who are you?", "What is the capital of France?", "What is a KV cache?", "Tell me a story about a fox.",
    "Name three fruits.", "Give me a recipe for apple pie.", "Where is Brinmouth?", "I am tired.",
    "Tom has a red hat. Jane has a small boat. Who has the boat?", "Who won the game yesterday?",
]  # fmt: skip


def token_losses(model: Qwen3ForCausalLM, batch: Tensor) -> Tensor:
    """Cross entropy of each next token in nats: ids [B, T + 1] -> [B, T]."""
    num_rows, length = batch.shape[0], batch.shape[1] - 1
    positions = torch.arange(length).repeat(num_rows)
    hidden = model(batch[:, :-1].flatten(), positions, causal_attend(num_rows))
    losses = F.cross_entropy(model.compute_logits(hidden), batch[:, 1:].flatten(), reduction="none")
    return losses.view(num_rows, length)


def generate(model: Qwen3ForCausalLM, prompt: list[int], max_tokens: int) -> list[int]:
    """Greedy continuation of `prompt` up to an end token, which is left out."""
    cache = DenseKVCache(model.config, max_len=len(prompt) + max_tokens)
    output: list[int] = []
    new = prompt
    while len(output) < max_tokens:
        step = cache.step([len(new)])
        hidden = model(torch.tensor(new), step.positions, step)
        token = int(model.compute_logits(hidden[-1:]).argmax())
        if token in model.config.eos_token_ids:
            break
        output.append(token)
        new = [token]
    return output


def reply(model: Qwen3ForCausalLM, tokenizer: Tokenizer, question: str, max_tokens: int = 128) -> str:
    """The model's greedy answer in a fresh conversation."""
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}])
    return tokenizer.decode(generate(model, prompt, max_tokens))


def quiz() -> dict[str, list[tuple[str, str]]]:
    """Questions and their one right answer, by what they ask for; those of the last kind are drawn anew."""
    pen = Pen(seed=12345)
    facts = [phrases for phrases in conversations.PHRASES["about"] if phrases["table"] != "animals"]
    known = {
        table: [
            (phrases["ask"][0].format_map(row), pen.write(phrases["answer"][:1], row))
            for phrases in facts
            if phrases["table"] == table
            for row in TABLES[table]
        ]
        for table in ("capitals", "glossary", "towns")
    }
    return known | {"stated in the question": [conversations.stated(pen) for _ in range(100)]}


def mean_loss(model: Qwen3ForCausalLM, stream: Iterator[Sample], tokenizer: Tokenizer, length: int) -> Tensor:
    """Mean loss at each of `length` positions over the held-out tokens, [length]."""
    per_step = rows(stream, tokenizer, length + 1)
    losses = [token_losses(model, row[None])[0] for row in itertools.islice(per_step, HELD_OUT_TOKENS // length)]
    return torch.stack(losses).mean(dim=0)


@torch.inference_mode()
def evaluate(model: Qwen3ForCausalLM, tokenizer: Tokenizer, held_out: Iterator[Sample]) -> dict[str, Any]:
    """What the card reports.

    Args:
        held_out: endless samples, none of which the model was trained on.
    """
    loss: dict[str, float] = {}
    for name, kind in (("documents", str), ("conversations", list)):
        stream = (sample for sample in held_out if isinstance(sample, kind))
        loss[name] = mean_loss(model, stream, tokenizer, 256).mean().item()
    by_position = mean_loss(model, held_out, tokenizer, 2048).unflatten(0, (8, 256)).mean(dim=1).tolist()

    answers = {}
    for name, pairs in quiz().items():
        asked = tqdm(pairs, desc=name, unit="question")
        answers[name] = {"right": sum(reply(model, tokenizer, q) == a for q, a in asked), "asked": len(pairs)}
    return {
        "held_out_tokens": HELD_OUT_TOKENS,
        "loss": {name: round(value, 4) for name, value in loss.items()},
        "perplexity": {name: round(math.exp(value), 3) for name, value in loss.items()},
        "loss_by_position": [round(value, 4) for value in by_position],
        "answers": answers,
        "continuations": [
            {"prompt": p, "output": tokenizer.decode(generate(model, tokenizer.encode(p), 60))} for p in PLAIN_PROMPTS
        ],
        "conversations": [{"prompt": q, "output": reply(model, tokenizer, q)} for q in QUESTIONS],
    }
