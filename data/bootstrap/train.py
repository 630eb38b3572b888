"""Makes the bootstrap model: its text, its tokenizer, its weights, and the card that says what it can do.

Everything follows from the seed. Under twenty minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from bpe import train_tokenizer
from card import write_card
from corpus import Sample, rows, samples, texts_of, unseen
from evaluate import evaluate, token_losses
from torch import Tensor, nn
from tqdm import tqdm

from tinyllm.config import ModelConfig
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer

CONFIG = ModelConfig(
    vocab_size=1536,
    hidden_size=128,
    intermediate_size=384,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    rope_theta=10_000.0,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
    eos_token_ids=(2, 0),  # <|im_end|> and <|endoftext|>, by their order in bpe.SPECIAL_TOKENS
    dtype="bfloat16",
)
TOKENS_PER_STEP = 2048
SHORT_ROWS, LONG_ROWS = 256, 2048  # tokens; the long ones teach what far positions are like
SHARE_OF_LONG_ROWS = 0.25  # of the steps, at the end
SAMPLES_FOR_BPE = 20_000
PEAK_RATE, EMBEDDING_RATE, WARM_UP_STEPS = 0.01, 0.005, 50
LOG_EVERY = 20


def new_model(seed: int) -> Qwen3ForCausalLM:
    """A model with small random weights; the two matrices that add to the residual stream start smaller."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(CONFIG)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(weight, std=0.02 / math.sqrt(2 * CONFIG.num_layers) if into_residual else 0.02)
    return model


def optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices (it needs about half the tokens here), AdamW for the embedding and the norms."""
    parameters = list(model.named_parameters())
    matrices = [weight for name, weight in parameters if weight.dim() == 2 and "embed" not in name]
    others = [weight for name, weight in parameters if weight.dim() != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=PEAK_RATE, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=EMBEDDING_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(step: int, num_steps: int) -> float:
    """The share of the peak learning rate: up over the first steps, then down along a cosine to 2 %."""
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / num_steps)))


def batches(stream: Iterator[Sample], tokenizer: Tokenizer, num_steps: int) -> Iterator[Tensor]:
    """One batch [B, T + 1] a step: many short rows first, one long row at the end; B * T is always the same."""
    first_long = round(num_steps * (1 - SHARE_OF_LONG_ROWS))
    for length, steps in ((SHORT_ROWS, first_long), (LONG_ROWS, num_steps - first_long)):
        per_step = rows(stream, tokenizer, length + 1)
        for _ in range(steps):
            yield torch.stack(list(itertools.islice(per_step, TOKENS_PER_STEP // length)))


def train(
    model: Qwen3ForCausalLM, tokenizer: Tokenizer, stream: Iterator[Sample], num_steps: int
) -> list[dict[str, float]]:
    """Train in place; returns the log: step, tokens seen, mean training loss since the last entry (nats a token)."""
    steppers = optimizers(model)
    log: list[dict[str, float]] = []
    recent: list[float] = []
    peaks = [[group["lr"] for group in stepper.param_groups] for stepper in steppers]
    progress = tqdm(batches(stream, tokenizer, num_steps), total=num_steps, desc="training", unit="step")
    for step, batch in enumerate(progress):
        for stepper, peak in zip(steppers, peaks, strict=True):
            for group, highest in zip(stepper.param_groups, peak, strict=True):
                group["lr"] = highest * rate(step, num_steps)
        loss = token_losses(model, batch).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad()
        recent.append(loss.item())
        if len(recent) == LOG_EVERY or step == num_steps - 1:
            mean = sum(recent) / len(recent)
            log.append({"step": step + 1, "tokens": (step + 1) * TOKENS_PER_STEP, "loss": round(mean, 4)})
            progress.set_postfix(loss=f"{mean:.3f}")
            recent.clear()
    return log


def main() -> None:
    """Make the checkpoint folder."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python data/bootstrap/train.py --out data/bootstrap/checkpoint\n"
        "  python data/bootstrap/train.py --out /tmp/try --steps 100   # a bad model, in a few minutes",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint, made if missing")
    parser.add_argument("--steps", type=int, default=1500, help="training steps of 2,048 tokens (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the text and the weights (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads for torch (default %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)

    texts = itertools.chain.from_iterable(map(texts_of, itertools.islice(samples(args.seed), SAMPLES_FOR_BPE)))
    train_tokenizer(texts, CONFIG.vocab_size, args.out, CONFIG.max_position_embeddings)
    generation = {"eos_token_id": list(CONFIG.eos_token_ids), "do_sample": False}
    (args.out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    tokenizer = Tokenizer(args.out)

    model, seen = new_model(args.seed), set[str]()
    log = train(model, tokenizer, samples(args.seed, seen), args.steps)
    save_model(model, args.out)
    record = {
        "seed": args.seed,
        "steps": args.steps,
        "samples": len(seen),
        "cpu_minutes": round(time.process_time() / 60, 1),  # of one core; the clock on the wall depends on the machine
        "threads": args.threads,
        "torch": torch.__version__,
        "log": log,
        # What is judged is what is shipped, rounded to bfloat16.
        "results": evaluate(load_model(args.out), tokenizer, unseen(args.seed + 1, seen)),
    }
    (args.out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_card(args.out)
    print(f"wrote {args.out}; read {args.out / 'card.md'}")


if __name__ == "__main__":
    main()
