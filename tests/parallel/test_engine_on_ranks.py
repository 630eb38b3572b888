"""The engine on two and four ranks against one process: tensor parallel, expert parallel, and both."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experts.ranks import on_ranks
from support.checkpoints import random_model, small_config, small_sparse_config
from support.models import NumberTokenizer, assert_no_block_lost, drain

from tinyllm.config import EngineConfig, ParallelConfig
from tinyllm.engine.async_engine import AsyncEngine
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.llm import sharding_of
from tinyllm.engine.rank_runner import RankRunner
from tinyllm.errors import OptionError, RankLostError
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.shard import Shard, Sharding
from tinyllm.parallel.join import join_ranks
from tinyllm.parallel.ranks import Ranks
from tinyllm.parts import resolve
from tinyllm.sampling_params import SamplingParams

#: Sparse layers around a dense one; every size that is divided is a multiple of 4.
HEADS = {"num_heads": 8, "num_kv_heads": 4}
SPARSE = small_sparse_config(**HEADS, num_experts=8, mlp_only_layers=(1,))
DENSE = small_config(**HEADS)
#: A step has room for parts of prompts only, and the pool for fewer requests than there are.
TIGHT = {"block_size": 4, "num_blocks": 18, "max_num_batched_tokens": 11}

LENGTHS = (1, 9, 17, 30)

Run = tuple[dict[str, Any], list[np.ndarray], int]


def make_engine(folder: Path, sizes: Mapping[str, int], ranks: Ranks | None) -> LLMEngine:
    config = EngineConfig.from_options(**TIGHT, **sizes)
    model = load_model(folder, sharding=sharding_of(config.parallel, ranks))
    return LLMEngine(model, NumberTokenizer(), config, resolve(), ranks=ranks)  # type: ignore[arg-type]


def run_engine(folder: Path, sizes: Mapping[str, int], ranks: Ranks | None = None, seed: int | None = 4) -> Run:
    """The tokens of some requests, the logits of every step, and how often one was preempted."""
    torch.set_num_threads(1)
    engine = make_engine(folder, sizes, ranks)
    assert isinstance(engine.runner, RankRunner) is (ranks is not None)
    steps: list[np.ndarray] = []
    execute = engine.runner.execute

    def recorded(scheduled: Any) -> torch.Tensor:
        logits = execute(scheduled)
        steps.append(logits.numpy().copy())
        return logits

    engine.runner.execute = recorded  # type: ignore[method-assign]
    for length in LENGTHS:
        engine.add_request(list(range(length)), SamplingParams(max_tokens=12, ignore_eos=True), str(length))
    engine.add_request([1, 2], SamplingParams(max_tokens=6, n=2, temperature=1.0, seed=seed, ignore_eos=True), "drawn")
    tokens = drain(engine)
    assert_no_block_lost(engine)
    return tokens, steps, engine.stats().num_preempted


def on_rank(ranks: Ranks, folders: Mapping[str, Path], cases: Sequence[str], seed: int | None = 4) -> dict[str, Run]:
    """A case is a model and what is spread over the ranks."""
    runs = {}
    for case in cases:
        kind, *names = case.split()
        sizes = {f"{name}_parallel_size": ranks.world_size for name in names}
        runs[case] = run_engine(folders[kind], sizes, ranks, seed)
    return runs


#: By number of ranks. They take time, and on four a dense model shows nothing that a sparse one does not.
CASES = {
    2: ("dense tensor", "sparse tensor", "sparse expert", "sparse tensor expert"),
    4: ("sparse tensor", "sparse expert", "sparse tensor expert"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made: dict[str, Path] = {}
    for name, config in (("dense", DENSE), ("sparse", SPARSE)):
        made[name] = tmp_path_factory.mktemp(name)
        save_model(random_model(config), made[name])
    return made


@pytest.fixture(scope="module")
def alone(folders: dict[str, Path]) -> dict[str, Run]:
    return {kind: run_engine(folder, {}) for kind, folder in folders.items()}


@pytest.mark.parametrize("world_size", list(CASES))
def test_ranks_give_what_one_process_gives(
    world_size: int, folders: dict[str, Path], alone: dict[str, Run], tmp_path: Path
) -> None:
    """With chunks, preemption and continuations that share a prompt."""
    results = on_ranks(world_size, on_rank, tmp_path, folders, CASES[world_size])
    assert sorted(results) == list(range(world_size))
    for rank, runs in results.items():
        assert isinstance(runs, dict), runs
        for case in CASES[world_size]:
            tokens, steps, num_preempted = runs[case]
            expected_tokens, expected_steps, expected_preempted = alone[case.split()[0]]
            assert num_preempted == expected_preempted > 0
            assert tokens == expected_tokens, (rank, case)
            for got, expected in zip(steps, expected_steps, strict=True):
                assert np.abs(got - expected).max(initial=0) <= 1e-5 * np.abs(expected).max(initial=1), (rank, case)


def test_ranks_draw_the_same_without_a_seed(folders: dict[str, Path], tmp_path: Path) -> None:
    results = on_ranks(2, on_rank, tmp_path, folders, ("dense tensor",), None)
    (tokens, steps, _), (other_tokens, other_steps, _) = (results[rank]["dense tensor"] for rank in (0, 1))
    assert tokens == other_tokens
    assert all(map(np.array_equal, steps, other_steps)), "to the last bit"


def second_is_killed(ranks: Ranks, folder: Path) -> list[str]:
    """What a step says whose other rank is gone, and the step after it."""
    engine = make_engine(folder, {"expert_parallel_size": ranks.world_size}, ranks)
    engine.add_request(list(range(9)), SamplingParams(max_tokens=50, ignore_eos=True))
    for _ in range(3):
        engine.step()
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    said = []
    for _ in range(2):
        with pytest.raises(RankLostError) as caught:
            engine.step()
        said.append(str(caught.value))
    return said


def test_a_step_whose_other_rank_is_killed_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    results = on_ranks(2, second_is_killed, tmp_path, folders["sparse"])
    assert list(results) == [0]
    first, second = results[0]
    assert first == second
    assert first.startswith("rank 0 lost rank 1 of 2: killed, failed, or stalled")


# ------------------------------------------------------------ what is refused


def refusal(config: ParallelConfig) -> str:
    with pytest.raises(OptionError) as caught:
        join_ranks(config, "cpu")
    return str(caught.value)


def test_a_process_alone_is_told_how_to_start_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_ranks(ParallelConfig(), "cpu") is None
    assert refusal(ParallelConfig(expert_parallel_size=2)) == (
        "expert_parallel_size is 2, but this process is alone; start 2 of them: "
        "torchrun --nproc-per-node 2 -m tinyllm generate --expert-parallel 2 ..."
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "torchrun has started 2 processes; start 4: torchrun --nproc-per-node 4" in refusal(
        ParallelConfig(tensor_parallel_size=4, expert_parallel_size=4)
    )


def test_two_sizes_must_be_of_one_group() -> None:
    assert ParallelConfig(4, 4).world_size == ParallelConfig(1, 4).world_size == ParallelConfig(4).world_size == 4
    with pytest.raises(OptionError, match="tensor_parallel_size is 2 and expert_parallel_size is 4; give the same"):
        ParallelConfig(2, 4)
    with pytest.raises(OptionError, match="tensor_parallel_size is 0; it must be at least 1"):
        EngineConfig.from_options(tensor_parallel_size=0)


def test_a_dense_model_has_no_experts_to_share(folders: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="the model has no experts that several processes could share"):
        load_model(folders["dense"], sharding=Sharding(experts=Shard(0, 2)))


def test_every_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(OptionError, match="torch sees 1 GPUs, and each process needs its own"):
        join_ranks(ParallelConfig(2), "cuda")
    with pytest.raises(OptionError, match='the device is cuda:0, and each process needs its own; give "cuda"'):
        join_ranks(ParallelConfig(2), "cuda:0")


def test_requests_that_come_at_any_time_need_one_process(folders: dict[str, Path]) -> None:
    engine = make_engine(folders["dense"], {"tensor_parallel_size": 2}, None)
    with pytest.raises(OptionError, match="the other processes that share the model would not hear of them"):
        AsyncEngine(engine)
