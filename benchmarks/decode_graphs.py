"""Decode with CUDA graphs against decode launched from Python, and the engine beside transformers.

Two questions. How long is a decode step of the shipped target, at several batch sizes, replayed and eager? And how
many tokens a second does the engine give at the shape of Qwen3-0.6B in bfloat16, with random weights, beside
`generate` of transformers in the same process, with the same weights and prompts? That both compute the same is
checked before anything is timed.

    python -m benchmarks.decode_graphs              writes benchmarks/results/decode_graphs.json; needs an NVIDIA GPU
    python -m benchmarks.decode_graphs --seed 1     other prompts and random weights
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.record import write_result
from benchmarks.shapes import QWEN3_0_6B
from tinyllm.config import CacheConfig, EngineConfig, ModelConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import ModelRunner, Runner
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.model.loader import checkpoint_tensors, load_model
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.parts import resolve
from tinyllm.paths import shipped_checkpoint
from tinyllm.sampling_params import SamplingParams

BLOCK_SIZE = 16
#: Decode steps at the beginning of a run that are not counted: kernels are compiled and graphs recorded in them.
WARM_UP_STEPS = 8
#: Logits of two implementations agree when they differ by less than this share of the largest, in bfloat16.
TOLERANCE = 5e-2
MODES = {"graphs": False, "eager": True}  # enforce_eager


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured.

    Attributes:
        batches: sequences that decode together, for the times of steps.
        prompt_len: tokens of every prompt.
        steps: tokens that every sequence gets where steps are timed.
        large: the shape of the random model for the tokens a second.
        large_batch: its sequences.
        large_new_tokens: tokens that each of them gets.
        rounds: runs of which the median is taken, after one that is not counted.
    """

    batches: tuple[int, ...] = (1, 8, 64, 256)
    prompt_len: int = 128
    steps: int = 64
    large: ModelConfig = QWEN3_0_6B
    large_batch: int = 256
    large_new_tokens: int = 64
    rounds: int = 2


class NoText:
    """Stands in for a tokenizer: prompts come as ids, and no text is read."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Nothing."""
        return ""


class TimedRunner(Runner):
    """Times what the model itself takes of each step, in seconds; waits for the GPU before and after."""

    def __init__(self, runner: Runner, wait: Callable[[], None]) -> None:
        self.runner, self.wait = runner, wait
        self.seconds: list[float] = []

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """See `Runner.execute`."""
        self.wait()
        start = time.perf_counter()
        logits = self.runner.execute(scheduled)
        self.wait()
        self.seconds.append(time.perf_counter() - start)
        return logits


def waiter(device: str) -> Callable[[], None]:
    """A function that waits until the device has done all it was told."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def make_engine(model: Qwen3ForCausalLM, batch: int, length: int, enforce_eager: bool) -> LLMEngine:
    """An engine for `batch` sequences of at most `length` tokens that are all there from the start.

    Prefixes are not cached: a later round with the same prompts would skip their prefill.
    """
    config = EngineConfig(
        CacheConfig(BLOCK_SIZE, num_blocks=batch * -(-length // BLOCK_SIZE), enable_prefix_caching=False),
        max_num_batched_tokens=8192,
        max_num_seqs=batch,
        max_model_len=length,
        enforce_eager=enforce_eager,
    )
    return LLMEngine(model, NoText(), config, resolve())  # type: ignore[arg-type]


def recorded_sizes(engine: LLMEngine) -> list[int]:
    """The batch sizes of which the engine has CUDA graphs."""
    runner = engine.runner
    return runner.graphs.recorded_sizes if isinstance(runner, ModelRunner) and runner.graphs else []


def random_prompts(vocab_size: int, batch: int, length: int, seed: int) -> Tensor:
    """[batch, length] random token ids, on the CPU."""
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def serve(engine: LLMEngine, prompts: Tensor, new_tokens: int) -> None:
    """Give every prompt exactly `new_tokens` greedy tokens."""
    params = SamplingParams(max_tokens=new_tokens, ignore_eos=True)
    for prompt in prompts.tolist():
        engine.add_request(prompt, params)
    while engine.has_unfinished:
        engine.step()


def step_times(model: Qwen3ForCausalLM, batch: int, sizes: Sizes, mode: str, device: str, seed: int) -> dict[str, Any]:
    """The median decode step of a full batch: the whole step, and the model's part of it."""
    engine = make_engine(model, batch, sizes.prompt_len + sizes.steps, MODES[mode])
    inner = engine.runner
    engine.runner = timed = TimedRunner(inner, waiter(device))
    with engine.step_log.keep_all() as steps:
        serve(engine, random_prompts(model.config.vocab_size, batch, sizes.prompt_len, seed), sizes.steps)
    engine.runner = inner
    decodes = [i for i, step in enumerate(steps) if step.num_decode_tokens == batch]
    counted = decodes[WARM_UP_STEPS:]
    if not counted:
        raise ValueError(f"{sizes.steps} steps leave none to count after {WARM_UP_STEPS} of warm-up")
    records = [steps[i] for i in counted]
    return {
        "step_milliseconds": 1e3 * median(record.end - record.start for record in records),
        "model_milliseconds": 1e3 * median(timed.seconds[i] for i in counted),
        "steps_counted": len(counted),
        "recorded_sizes": recorded_sizes(engine),
    }


def measure_steps(model: Qwen3ForCausalLM, sizes: Sizes, device: str, seed: int) -> dict[str, Any]:
    """Each batch size in both modes, and how many times longer the eager step is."""
    results: dict[str, Any] = {}
    for batch in sizes.batches:
        row: dict[str, Any] = {mode: step_times(model, batch, sizes, mode, device, seed) for mode in MODES}
        if device == "cuda" and not row["graphs"]["recorded_sizes"]:
            raise SystemExit("no CUDA graph was recorded; nothing was written")
        for part in ("step", "model"):
            name = f"{part}_milliseconds"
            row[f"{part}_eager_over_graphs"] = row["eager"][name] / row["graphs"][name]
        results[str(batch)] = row
        print(f"batch {batch}: {row['eager']['step_milliseconds']:.2f} ms eager", end=", ")
        print(f"{row['graphs']['step_milliseconds']:.2f} ms with graphs")
    return results


def random_model(config: ModelConfig, device: str, seed: int) -> Qwen3ForCausalLM:
    """Random weights in the config's dtype, made where they are used."""
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    model = model.to(getattr(torch, config.dtype)).to_empty(device=device)
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        weight.data.fill_(1.0) if "norm" in name else weight.data.normal_(std=0.02)
    return model.requires_grad_(False).eval()


def transformers_model(model: Qwen3ForCausalLM, device: str) -> Any:
    """The same weights in transformers' own Qwen3, or why there is none."""
    if find_spec("transformers") is None:
        return "transformers is not installed (pip install 'transformers>=5,<6')"
    from transformers import Qwen3Config
    from transformers import Qwen3ForCausalLM as TheirQwen3

    raw = {k: v for k, v in model.config.to_hf().items() if k not in ("architectures", "model_type", "dtype")}
    config = Qwen3Config(**raw, dtype=model.config.dtype)
    with torch.device(device):
        theirs: Any = TheirQwen3(config)
    theirs.to(model.head_weight.dtype).eval()
    missing, unknown = theirs.load_state_dict(checkpoint_tensors(model), strict=False)
    if unknown or set(missing) - {"lm_head.weight"}:  # tied: the embedding's matrix
        raise SystemExit(f"the weights do not fit: missing {missing}, unknown {unknown}")
    return theirs


def check_agreement(model: Qwen3ForCausalLM, theirs: Any, prompt: Tensor, device: str) -> float:
    """Stop the benchmark unless the two models give the same logits after a prompt [1, T]; returns the difference."""
    engine = make_engine(model, 1, prompt.shape[1] + 1, enforce_eager=True)
    engine.add_request(prompt[0].tolist(), SamplingParams(max_tokens=1))
    scheduled = engine.scheduler.schedule().scheduled
    ours = engine.runner.execute(scheduled)[0]
    expected = theirs(prompt.to(device), logits_to_keep=1).logits[0, -1].float()
    error = float((ours - expected).abs().max() / expected.abs().max())
    if not error < TOLERANCE:
        raise SystemExit(f"the logits differ from transformers' by {error:.1e} of the largest; nothing was written")
    return error


def seconds_of(call: Callable[[], object], rounds: int, wait: Callable[[], None]) -> float:
    """The median time of a call, after one that is not counted."""
    times = []
    for _ in range(rounds + 1):
        wait()
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def measure_throughput(sizes: Sizes, device: str, seed: int) -> dict[str, Any]:
    """Tokens a second of the large random model, prefill included: the engine in both modes, and transformers."""
    model, wait = random_model(sizes.large, device, seed), waiter(device)
    batch, new = sizes.large_batch, sizes.large_new_tokens
    prompts = random_prompts(sizes.large.vocab_size, batch, sizes.prompt_len, seed)
    result: dict[str, Any] = {"not_measured": {}}
    theirs = transformers_model(model, device)
    seconds: dict[str, float] = {}
    if isinstance(theirs, str):
        result["not_measured"]["transformers"] = theirs
    else:
        result["logits_differ_by"] = check_agreement(model, theirs, prompts[:1], device)
        ids = prompts.to(device)
        options = {"do_sample": False, "min_new_tokens": new, "max_new_tokens": new, "pad_token_id": 0}
        mask = torch.ones_like(ids)
        seconds["transformers"] = seconds_of(
            lambda: theirs.generate(ids, attention_mask=mask, **options), sizes.rounds, wait
        )
        del theirs
    for mode, enforce_eager in MODES.items():
        engine = make_engine(model, batch, sizes.prompt_len + new, enforce_eager)
        seconds[mode] = seconds_of(lambda engine=engine: serve(engine, prompts, new), sizes.rounds, wait)  # type: ignore[misc]
    result["seconds"] = seconds
    result["tokens_per_second"] = {name: batch * new / time for name, time in seconds.items()}
    if "transformers" in seconds:
        result["speed_over_transformers"] = seconds["transformers"] / seconds["graphs"]
    print({name: round(rate) for name, rate in result["tokens_per_second"].items()}, "tokens per second")
    return result


@torch.inference_mode()
def measure(model: Qwen3ForCausalLM, sizes: Sizes, device: str, seed: int) -> dict[str, Any]:
    """The whole study; `model` is the one whose steps are timed."""
    return {
        "decode_steps": measure_steps(model, sizes, device, seed),
        "throughput": measure_throughput(sizes, device, seed),
    }


def main() -> None:
    """Run the study and write its result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode_graphs",
        description="Decode with CUDA graphs against eager decode, and the engine beside transformers.",
        epilog="example: python -m benchmarks.decode_graphs --seed 0",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of prompts and random weights (default 0)")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark records CUDA graphs and needs an NVIDIA GPU that torch can use")
    sizes, start = Sizes(), time.perf_counter()
    model = load_model(shipped_checkpoint(), "auto", "cuda")
    values = measure(model, sizes, "cuda", args.seed)
    values["total_seconds"] = time.perf_counter() - start
    settings = {
        "target": {"dtype": str(model.head_weight.dtype), **asdict(model.config)},
        "sizes": asdict(sizes),
        "block_size": BLOCK_SIZE,
        "warm_up_steps": WARM_UP_STEPS,
    }
    print(write_result("decode_graphs", args.seed, settings, values))


if __name__ == "__main__":
    main()
