"""How a run is going: held-out answers that would come out right, task by task."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch

from data.tasks.sample import Conversation
from data.training.batches import Packed, Shard, grouped, shard_of
from data.training.encode import Encoder
from data.training.loss import logits_of
from data.training.mixture import sample_of
from tinyllm.model.qwen3 import Qwen3ForCausalLM

TASKS = ("reading", "tools", "talk", "passkey")
CONVERSATIONS = 40  # of each task
ROWS_BUDGET, MAX_LENGTH = 16_384, 2048  # tokens


@dataclass(frozen=True, slots=True)
class Probe:
    """A fixed set of held-out conversations.

    An answer is right when each of its tokens is the likeliest one after those before it, and so when greedy decoding
    would write it: no generation is needed to know.
    """

    shards: dict[str, list[Shard]]

    @classmethod
    def draw(cls, encoder: Encoder, device: torch.device | str = "cpu", seed: int = 1) -> Probe:
        """The same conversations for the same seed, on `device`."""
        shards = {}
        for task in TASKS:
            rng = Random(f"probe {task} {seed}")
            rows = []
            for _ in range(CONVERSATIONS):
                sample = sample_of(task, rng, held_out=True)
                assert isinstance(sample, Conversation)
                encoded = encoder.encode(sample, rng, MAX_LENGTH)
                encoded.weights[encoded.weights < 1] = 0
                rows.append(encoded)
            packed = Packed.of([shard_of(group) for group in grouped(rows, ROWS_BUDGET)])
            shards[task] = packed.shards(torch.device(device))
        return cls(shards)

    @torch.inference_mode()
    def answers_right(self, model: Qwen3ForCausalLM) -> dict[str, float]:
        """Share of the held-out answers that come out word for word, by task."""
        result = {}
        for task, shards in self.shards.items():
            right = asked = 0
            for shard in shards:
                with torch.compiler.set_stance("force_eager"):  # a few passes are no reason to compile
                    hit = logits_of(model, shard).argmax(dim=-1) == shard.labels
                first = torch.ones_like(hit)
                first[1:] = shard.at[1:] != shard.at[:-1] + 1  # an answer is a run of places without a gap
                answer = first.cumsum(0) - 1
                wrong = torch.zeros_like(answer, dtype=torch.float).index_add_(0, answer, (~hit).float())
                num_answers = int(answer[-1]) + 1
                right += int((wrong[:num_answers] == 0).sum())
                asked += num_answers
            result[task] = round(right / asked, 4)
        return result
