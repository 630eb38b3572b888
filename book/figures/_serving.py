"""The real engine on small loads, with every step written down; no model runs, the schedule is what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from tinyllm.config import EngineConfig, SamplingParams
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.metrics import StepRecord
from tinyllm.engine.model_runner import DryRunner
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.model.loader import load_model
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.parts import resolve
from tinyllm.paths import shipped_checkpoint


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request: its name, the step before which it comes, and its prompt's and output's lengths in tokens."""

    name: str
    step: int
    prompt_len: int
    output_len: int


#: The tokens that each request computes in a step, by name.
Step = dict[str, int]


class RecordingRunner(DryRunner):
    """Runs no model and keeps what each step was asked to compute."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size)
        self.steps: list[Step] = []

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """See `Runner.execute`."""
        self.steps.append({item.request.group_id: item.num_tokens for item in scheduled})
        return super().execute(scheduled)


@cache
def shipped_model() -> Qwen3ForCausalLM:
    """The target, loaded once."""
    return load_model(shipped_checkpoint())


def serve(arrivals: Sequence[Arrival], *, static: bool = False, **options: Any) -> list[Step]:
    """What each step computes; see `serve_and_record`."""
    return serve_and_record(arrivals, static=static, **options)[0]


def serve_and_record(
    arrivals: Sequence[Arrival], *, static: bool = False, **options: Any
) -> tuple[list[Step], list[StepRecord]]:
    """Serve all requests, and return what each step computes and the engine's records.

    Args:
        static: hand the engine a new batch of `max_num_seqs` requests only when it has finished the last one.
        options: of EngineConfig.
    """
    model = shipped_model()
    runner = RecordingRunner(model.config.vocab_size)
    config = EngineConfig.from_options(**{"block_size": 4, "enable_prefix_caching": False, **options})
    engine = LLMEngine(model, Tokenizer(shipped_checkpoint()), config, resolve(), runner=runner)
    to_come = list(arrivals)
    step = 0
    with engine.step_log.keep_all() as records:
        while to_come or engine.has_unfinished:
            here = [arrival for arrival in to_come if arrival.step <= step]
            if static:
                here = [] if engine.has_unfinished else here[: config.max_num_seqs]
            for arrival in here:
                to_come.remove(arrival)
                params = SamplingParams(max_tokens=arrival.output_len, ignore_eos=True)
                engine.add_request(list(range(1, arrival.prompt_len + 1)), params, arrival.name)
            engine.step()
            step += 1
    return runner.steps, records
