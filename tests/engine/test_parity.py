"""The shipped target says what transformers says, and the same whatever the batch, the budget, the pool and the cache.

Prompts are drawn from the tasks of the world: questions over passages, tool calls, talk, copying, free text. Every day
24 of them, 200 in the slow lane. Rounding depends on how a step's tokens are batched; so where the two best logits come
closer than `NEAR_TIE`, either may be taken, and the comparison of that prompt ends there. Such near-ties are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import pytest
import torch
from support.models import assert_no_block_lost
from support.oracle import NEAR_TIE, choices, theirs

from data.tasks.copying import copying
from data.tasks.reading import reading
from data.tasks.sample import Conversation, Document
from data.tasks.talk import free_text, talk
from data.tasks.tools import tool_conversation
from tinyllm import LLM, SamplingParams
from tinyllm.config import EngineConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.parts import resolve
from tinyllm.paths import shipped_checkpoint

pytestmark = pytest.mark.needs("checkpoint")

SIXTEEN = SamplingParams(max_tokens=16, ignore_eos=True)
KINDS = (
    reading,
    lambda rng: tool_conversation(rng, level=1.0),
    talk,
    lambda rng: reading(rng, num_passages=8),
    lambda rng: copying(rng, level=3),
    free_text,
)


def draw_prompt(tokenizer: Tokenizer, number: int) -> list[int]:
    """A conversation up to one of the assistant's turns, or the beginning of a text."""
    rng = Random(number)
    sample: Conversation | Document = KINDS[number % len(KINDS)](rng)
    if isinstance(sample, Document):
        ids = tokenizer.encode(sample.text)
        return ids[: rng.randint(1, len(ids))]
    turns = [i for i, message in enumerate(sample.messages) if message["role"] == "assistant"]
    return tokenizer.apply_chat_template(sample.messages[: rng.choice(turns)], sample.tools or None)


class Parity:
    """Prompts, and for each what both transformers and any engine must say: up to a near-tie, if there is one."""

    def __init__(self, count: int) -> None:
        self.llm = LLM(num_blocks=1)
        self.prompts = [draw_prompt(self.llm.tokenizer, number) for number in range(count)]
        self.by_length = sorted(range(count), key=lambda i: len(self.prompts[i]))
        self.expected: list[list[int]] = []
        reference = theirs(shipped_checkpoint())
        for prompt, output in zip(self.prompts, self.outputs(self.prompts), strict=True):
            agreed: list[int] = []
            for ours, (their_choice, gap) in zip(output, choices(reference, prompt, output), strict=True):
                if gap < NEAR_TIE:
                    break
                assert ours == their_choice, f"{self.llm.tokenizer.decode(prompt)!r}: the gap is {gap:.1e}"
                agreed.append(ours)
            self.expected.append(agreed)
        self.num_near_ties = sum(len(agreed) < SIXTEEN.max_tokens for agreed in self.expected)

    def outputs(self, prompts: list[list[int]], times: int = 1, **options: int) -> list[tuple[int, ...]]:
        """What an engine with these options says to the prompts, the last time if it is asked several times."""
        config = EngineConfig.from_options(**{"num_blocks": 8192, **options})
        self.llm.engine = LLMEngine(self.llm.model, self.llm.tokenizer, config, resolve())
        for _ in range(times):
            results = self.llm.generate(prompts, SIXTEEN)
        assert_no_block_lost(self.llm.engine)
        return [result.outputs[0].token_ids for result in results]

    def check(self, only: Sequence[int] | None = None, times: int = 1, **options: int) -> None:
        """Hold an engine with these options to what is expected of the prompts, or of some of them."""
        chosen = range(len(self.prompts)) if only is None else only
        outputs = self.outputs([self.prompts[i] for i in chosen], times, **options)
        for i, output in zip(chosen, outputs, strict=True):
            agreed = self.expected[i]
            assert list(output[: len(agreed)]) == agreed, f"{self.llm.tokenizer.decode(self.prompts[i])!r}: {options}"

    def count(self, what: str) -> int:
        """A number of the last engine's step records, summed up."""
        return sum(getattr(record, what) for record in self.llm.engine.step_records)


@pytest.fixture(
    scope="module", params=[24, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])], ids=str
)
def parity(request: pytest.FixtureRequest) -> Iterator[Parity]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield Parity(request.param)
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
