"""The text that the tokenizer is learned from: what the models read and write, as the chat template lays it out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from random import Random

from jinja2 import Environment

from data.tasks.sample import Document, Sample
from data.tokenizer import CHAT_TEMPLATE, CONTROL_TOKENS
from data.training.mixture import draw

SAMPLES = 8_000


def texts(seed: int) -> Iterator[str]:
    """Every stretch of ordinary text between two control tokens, of some thousand samples."""
    rng = Random(f"vocabulary {seed}")
    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(CHAT_TEMPLATE.read_text(encoding="utf-8"))
    control = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))

    def written(sample: Sample) -> str:
        if isinstance(sample, Document):
            return sample.text
        return template.render(messages=sample.messages, tools=sample.tools)

    for _ in range(SAMPLES):
        yield from filter(None, control.split(written(draw(rng, 1.0))))
