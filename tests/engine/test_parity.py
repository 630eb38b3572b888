"""Models say what transformers says, and the same whatever the batch, the budget, the pool and the cache.

Those that ship get prompts from the tasks of the world: questions over passages, tool calls, talk, copying, free text.
Every day one or two dozen of them, 200 in the slow lane. Random Qwen3-MoE and Mixtral checkpoints that transformers
wrote get random prompts. Rounding depends on how a step's tokens are batched; so where the two best logits come closer
than `NEAR_TIE`, either may be taken, and the comparison of that prompt ends there. Such near-ties are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
import torch
from support.checkpoints import random_model, small_mixtral_config, small_sparse_config
from support.models import assert_no_block_lost, drain, make_engine
from support.oracle import NEAR_TIE, choices, theirs

from data.tasks.copying import copying
from data.tasks.reading import reading
from data.tasks.sample import Conversation, Document
from data.tasks.talk import free_text, talk
from data.tasks.tools import tool_conversation
from tinyllm import SamplingParams
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.paths import shipped_checkpoint

SIXTEEN = SamplingParams(max_tokens=16, ignore_eos=True)
KINDS = (
    reading,
    lambda rng: tool_conversation(rng, level=1.0),
    talk,
    lambda rng: reading(rng, num_passages=8),
    lambda rng: copying(rng, level=3),
    free_text,
)
RANDOM = {"qwen3_moe": small_sparse_config, "mixtral": small_mixtral_config}


def draw_prompt(tokenizer: Tokenizer, number: int) -> list[int]:
    """A conversation up to one of the assistant's turns, or the beginning of a text."""
    rng = Random(number)
    sample: Conversation | Document = KINDS[number % len(KINDS)](rng)
    if isinstance(sample, Document):
        ids = tokenizer.encode(sample.text)
        return ids[: rng.randint(1, len(ids))]
    turns = [i for i, message in enumerate(sample.messages) if message["role"] == "assistant"]
    return tokenizer.apply_chat_template(sample.messages[: rng.choice(turns)], sample.tools or None)


def random_prompts(vocab_size: int, count: int) -> list[list[int]]:
    """Some of a few tokens and some of many; a half of them begin alike."""
    rng = Random(count)
    shared = [rng.randrange(vocab_size) for _ in range(20)]
    return [
        shared[: (number % 2) * rng.randint(1, 20)] + [rng.randrange(vocab_size) for _ in range(rng.randint(1, 60))]
        for number in range(count)
    ]


class Parity:
    """Prompts, and for each what both transformers and any engine must say: up to a near-tie, if there is one."""

    def __init__(self, folder: Path, prompts: Sequence[list[int]]) -> None:
        self.model, self.prompts = load_model(folder), prompts
        self.by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        self.expected: list[list[int]] = []
        reference = theirs(folder)
        for prompt, output in zip(prompts, self.outputs(prompts), strict=True):
            agreed: list[int] = []
            for ours, (their_choice, gap) in zip(output, choices(reference, prompt, output), strict=True):
                if gap < NEAR_TIE:
                    break
                assert ours == their_choice, f"{prompt}: the gap is {gap:.1e}"
                agreed.append(ours)
            self.expected.append(agreed)
        self.num_near_ties = sum(len(agreed) < SIXTEEN.max_tokens for agreed in self.expected)

    def outputs(self, prompts: Sequence[list[int]], times: int = 1, **options: int) -> list[tuple[int, ...]]:
        """What an engine with these options says to the prompts, the last time if it is asked several times."""
        self.engine = make_engine(self.model, **{"block_size": 16, "num_blocks": 8192, **options})
        results: dict[str, tuple[tuple[int, ...], ...]] = {}
        for _ in range(times):
            names = [self.engine.add_request(prompt, SIXTEEN) for prompt in prompts]
            results |= drain(self.engine)
        assert_no_block_lost(self.engine)
        return [results[name][0] for name in names]

    def check(self, only: Sequence[int] | None = None, times: int = 1, **options: int) -> None:
        """Hold an engine with these options to what is expected of the prompts, or of some of them."""
        chosen = range(len(self.prompts)) if only is None else only
        outputs = self.outputs([self.prompts[i] for i in chosen], times, **options)
        for i, output in zip(chosen, outputs, strict=True):
            agreed = self.expected[i]
            assert list(output[: len(agreed)]) == agreed, f"{self.prompts[i]}: {options}"

    def count(self, what: str) -> int:
        """A number of the last engine's step records, summed up."""
        return sum(getattr(record, what) for record in self.engine.step_records)


def shipped(name: str, count: int, *marks: pytest.MarkDecorator) -> object:
    """A model that ships, with so many prompts."""
    return pytest.param((name, count), id=f"{name}-{count}", marks=[pytest.mark.needs("checkpoint"), *marks])


@pytest.fixture(
    scope="module",
    params=[
        shipped("target", 24),
        shipped("target", 200, pytest.mark.slow, pytest.mark.timeout(1800)),
        shipped("moe", 12),
        shipped("moe", 200, pytest.mark.slow, pytest.mark.timeout(1800)),
        pytest.param(("qwen3_moe", 24), id="random qwen3_moe"),
        pytest.param(("mixtral", 24), id="random mixtral"),
    ],
)
def parity(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parity]:
    name, count = request.param
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        if name in RANDOM:
            config = RANDOM[name]()
            ours, folder = (tmp_path_factory.mktemp(name) for _ in range(2))
            save_model(random_model(config), ours)
            theirs(ours).save_pretrained(folder)
            yield Parity(folder, random_prompts(config.vocab_size, count))
        else:
            folder = shipped_checkpoint(name)
            tokenizer = Tokenizer(folder)
            yield Parity(folder, [draw_prompt(tokenizer, number) for number in range(count)])
    torch.set_num_threads(threads)


def test_greedy_tokens_equal_those_of_transformers_but_for_near_ties(parity: Parity) -> None:
    lengths = sorted(map(len, parity.prompts))
    print(f"{len(lengths)} prompts of {lengths[0]} to {lengths[-1]} tokens: {parity.num_near_ties} with a near-tie")
    assert len(set(lengths)) > len(lengths) // 3
    assert parity.num_near_ties <= 5


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"max_num_seqs": 1}, id="alone"),
        pytest.param({"max_num_seqs": 64}, id="in a batch of 64"),
        pytest.param({"enable_prefix_caching": False}, id="no prefix cache"),
        pytest.param({"max_num_batched_tokens": 23}, id="23 tokens a step"),
        pytest.param({"max_num_batched_tokens": 128}, id="128 tokens a step"),
    ],
)
def test_the_same_tokens_whatever_the_batch(parity: Parity, options: dict[str, int]) -> None:
    parity.check(**options)


def test_the_same_tokens_one_at_a_time(parity: Parity) -> None:
    """A step for every token of every prompt: some of the shortest must do."""
    parity.check(parity.by_length[: len(parity.prompts) // 6], max_num_batched_tokens=1)


@pytest.mark.parametrize("prefix_caching", [True, False], ids=["prefix cache", "no prefix cache"])
def test_the_same_tokens_under_preemption(parity: Parity, prefix_caching: bool) -> None:
    """Short prompts, each four times, in a pool for little more than one: their outputs outgrow what is free."""
    shortest = parity.by_length[: len(parity.prompts) // 4] * 4
    num_blocks = (len(parity.prompts[shortest[-1]]) + SIXTEEN.max_tokens) // 4 + 4
    parity.check(shortest, block_size=4, num_blocks=num_blocks, enable_prefix_caching=prefix_caching)
    num_preempted = parity.count("num_preempted")
    print(f"{num_preempted} preemptions of {len(shortest)} requests")
    assert num_preempted >= len(shortest) // 8


def test_the_same_tokens_when_a_prompt_comes_again(parity: Parity) -> None:
    """All of it but the end is in the prefix cache then."""
    parity.check(range(0, len(parity.prompts), 3), times=2)
    assert parity.count("num_prefix_tokens_hit") > parity.count("num_admitted_tokens") // 3
