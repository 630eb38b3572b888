"""Writes the card of a trained checkpoint, and its loss curve, from what training recorded (`training.json`).

python data/bootstrap/card.py data/bootstrap/checkpoint
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from world import TABLES

from tinyllm.config import ModelConfig
from tinyllm.model.qwen3 import Qwen3ForCausalLM

TEMPLATE = Path(__file__).parent / "card_template.md"


def draw_curve(log: list[dict[str, Any]], path: Path) -> None:
    """The training loss against the tokens seen, as SVG."""
    with plt.rc_context({"svg.hashsalt": "bootstrap", "svg.fonttype": "none"}):
        figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
        axes.plot([entry["tokens"] / 1e6 for entry in log], [entry["loss"] for entry in log])
        axes.set(xlabel="tokens seen, millions", ylabel="training loss, nats a token", ylim=(0, None))
        axes.grid(alpha=0.3)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def table(rows: list[tuple[Any, ...]]) -> str:
    """Markdown table rows."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def quote(prompt: str, output: str) -> str:
    """A prompt and what the model made of it, as a fenced block."""
    return f"```text\n[{prompt}] {output.strip()}\n```"


def write_card(folder: Path) -> None:
    """Write `card.md` and `curve.svg` beside `training.json`."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    config = ModelConfig.from_pretrained(folder)
    results = record["results"]
    draw_curve(record["log"], folder / "curve.svg")
    spans = [f"{start:,}-{start + 255:,}" for start in range(0, 2048, 256)]
    card = TEMPLATE.read_text(encoding="utf-8").format(
        c=config,
        parameters=sum(weight.numel() for weight in Qwen3ForCausalLM(config).parameters()),
        tokens=record["log"][-1]["tokens"],
        held_out=results["held_out_tokens"],
        losses=table(
            [(kind, f"{results['loss'][kind]:.3f}", f"{results['perplexity'][kind]:.2f}") for kind in results["loss"]]
        ),
        position_heads=" | ".join(spans),
        position_rule="---|" * 7 + "---",
        position_losses=" | ".join(f"{loss:.3f}" for loss in results["loss_by_position"]),
        answers=table([(name, f"{score['right']} of {score['asked']}") for name, score in results["answers"].items()]),
        outputs="\n\n".join(quote(**sample) for sample in results["conversations"] + results["continuations"]),
        capitals=len(TABLES["capitals"]),
        animals=len(TABLES["animals"]),
        towns=len(TABLES["towns"]),
        words=len(TABLES["glossary"]),
        **{key: record[key] for key in ("seed", "steps", "samples", "cpu_minutes", "threads", "torch")},
    )
    (folder / "card.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    write_card(Path(sys.argv[1]))
