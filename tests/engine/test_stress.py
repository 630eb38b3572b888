"""Eight threads and three event loops at one engine: every output is right, or the call was refused in words.

The streams' engine comes and goes, so that each side meets the other at work. Callers also abort and leave at random.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from support.models import assert_no_block_lost, drain, make_engine, make_llm, tiny_model

from tinyllm import LLM
from tinyllm.engine.async_engine import AsyncEngine
from tinyllm.errors import EngineBusyError, EngineStoppedError
from tinyllm.sampling_params import SamplingParams

MODEL = tiny_model()
PARAMS = [
    SamplingParams(max_tokens=1 + 3 * i, temperature=0.9 * (i % 2), n=1 + i % 3, seed=i, stop="7 1" if i % 4 else ())
    for i in range(8)
]
PROMPTS = [[i, *range(i % 11)] for i in range(20)]
NUM_THREADS, NUM_LOOPS = 8, 3

AT_LEAST_ONCE = ("generate: right", "stream: right", "by hand: right", "thread: refused", "AsyncEngine: refused")

Answer = tuple[tuple[int, ...], ...]


def all_answers() -> dict[tuple[int, int], Answer]:
    """What a plain run gives for each prompt with each of the parameters, one at a time."""
    answers = {}
    for p, prompt in enumerate(PROMPTS):
        for k, params in enumerate(PARAMS):
            engine = make_engine(MODEL)
            engine.add_request(prompt, params, "a")
            answers[p, k] = drain(engine)["a"]
    return answers


class Stress:
    """The callers, what they saw, and when to stop."""

    def __init__(self, seconds: float) -> None:
        self.llm: LLM = make_llm(MODEL, num_blocks=64)  # a small pool: requests are preempted
        self.answers = all_answers()
        self.end = time.monotonic() + seconds
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.engine: AsyncEngine | None = None
        self.wanted = threading.Event()  # by an AsyncEngine, which never waits: callers hold back for it

    @property
    def over(self) -> bool:
        """A slow machine gets the time that it needs to see each kind of caller at work."""
        return bool(self.wrong) or (time.monotonic() > self.end and all(self.seen[what] for what in AT_LEAST_ONCE))

    def check(self, what: str, key: tuple[int, int], outputs: Sequence[tuple[tuple[int, ...], str]]) -> None:
        """Compare an answer, of which aborted continuations may lack the end."""
        for i, (token_ids, reason) in enumerate(outputs):
            expected = self.answers[key][i]
            whole = reason != "abort"
            if token_ids != (expected if whole else expected[: len(token_ids)]) or len(outputs) != PARAMS[key[1]].n:
                self.wrong.append(f"{what} {key}: {token_ids} ({reason}) is not {expected}")
            self.seen[f"{what}: {'right' if whole else 'aborted, right so far'}"] += 1

    def thread(self, number: int) -> None:
        """Call `generate`, step by hand, and abort what others run."""
        rng = random.Random(number)
        while not self.over:
            if self.wanted.is_set():
                time.sleep(0.002)
                continue
            try:
                self.call(rng, f"by hand {number}")
            except EngineBusyError:
                self.seen["thread: refused"] += 1
                time.sleep(0.002)
            except Exception as error:
                self.wrong.append(f"thread {number}: {error!r}")

    def call(self, rng: random.Random, name: str) -> None:
        if rng.random() < 0.1:
            names = [request.group_id for request in list(self.llm.engine.scheduler.running)]
            if ours := [name for name in names if not name.startswith("by hand")]:
                self.llm.engine.abort(rng.choice(ours))
        if rng.random() < 0.1:  # a request whose output nobody may lose: whoever steps by hand finds it
            p, k = random_key(rng)
            self.llm.engine.add_request(PROMPTS[p], PARAMS[k], f"{name} {rng.randrange(10**9)} {p} {k}")
            self.seen["by hand: added"] += 1
        if rng.random() < 0.2:
            for output in self.llm.engine.step():
                self.by_hand(output.request_id, [(o.token_ids, o.finish_reason) for o in output.outputs])
            return
        keys = [random_key(rng) for _ in range(rng.randint(1, 4))]
        outputs = self.llm.generate([PROMPTS[p] for p, _ in keys], [PARAMS[k] for _, k in keys])
        for key, output in zip(keys, outputs, strict=True):
            self.check("generate", key, [(o.token_ids, o.finish_reason) for o in output.outputs])

    def by_hand(self, name: str, outputs: Sequence[tuple[tuple[int, ...], str]]) -> None:
        p, k = name.split()[-2:]
        self.check("by hand", (int(p), int(k)), outputs)
        self.seen["by hand: handed out"] += 1

    def loop(self, number: int) -> None:
        asyncio.run(self.streams(random.Random(100 + number)))

    async def streams(self, rng: random.Random) -> None:
        while not self.over:
            await asyncio.gather(*(self.stream(rng) for _ in range(4)))
            await asyncio.sleep(0.001)

    async def stream(self, rng: random.Random) -> None:
        engine = self.engine
        if engine is None:
            return
        key = random_key(rng)
        tokens: list[list[int]] = [[] for _ in range(PARAMS[key[1]].n)]
        reasons = [""] * len(tokens)
        leave_after = rng.choice([10**9] * 9 + [2])
        try:
            async for delta in engine.generate(PROMPTS[key[0]], PARAMS[key[1]]):
                tokens[delta.index] += delta.token_ids
                reasons[delta.index] = delta.finish_reason or ""
                leave_after -= 1
                if not leave_after:
                    self.seen["stream: left"] += 1
                    return
        except EngineStoppedError:
            self.seen["stream: told of the shutdown"] += 1
            return
        except Exception as error:
            self.wrong.append(f"stream: {error!r}")
            return
        self.check("stream", key, [(tuple(ids), reason) for ids, reason in zip(tokens, reasons, strict=True)])

    def come_and_go(self) -> None:
        """Now and then an AsyncEngine takes the engine, and gives it back."""
        rng = random.Random(7)
        while not self.over:
            try:
                self.engine = AsyncEngine(self.llm.engine)
                self.wanted.clear()
            except EngineBusyError:
                self.seen["AsyncEngine: refused"] += 1
                self.wanted.set()
                time.sleep(0.002)
                continue
            self.seen["AsyncEngine: started"] += 1
            time.sleep(rng.uniform(0.05, 0.3))
            engine, self.engine = self.engine, None
            asyncio.run(engine.shutdown())
            time.sleep(rng.uniform(0.05, 0.3))
        self.wanted.clear()

    def run(self) -> None:
        threads = [threading.Thread(target=self.thread, args=(i,)) for i in range(NUM_THREADS)]
        threads += [threading.Thread(target=self.loop, args=(i,)) for i in range(NUM_LOOPS)]
        threads += [threading.Thread(target=self.come_and_go)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while self.llm.engine.has_unfinished:
            for output in self.llm.engine.step():
                self.by_hand(output.request_id, [(o.token_ids, o.finish_reason) for o in output.outputs])


def random_key(rng: random.Random) -> tuple[int, int]:
    return rng.randrange(len(PROMPTS)), rng.randrange(len(PARAMS))


@pytest.mark.parametrize(
    "seconds", [3.0, pytest.param(120.0, marks=[pytest.mark.slow, pytest.mark.timeout(600)])], ids=["short", "long"]
)
def test_many_callers_at_once_get_right_outputs_or_a_refusal(seconds: float) -> None:
    stress = Stress(seconds)
    stress.run()
    for what, count in sorted(stress.seen.items()):
        print(f"{count:8,} {what}")
    assert not stress.wrong, "\n".join(stress.wrong[:20])
    assert stress.seen["by hand: handed out"] == stress.seen["by hand: added"]
    assert not stress.llm.engine._groups
    assert_no_block_lost(stress.llm.engine)
