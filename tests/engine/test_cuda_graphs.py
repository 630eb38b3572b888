"""Decode steps that are padded, recorded and replayed: on the CPU with a recording of torch's operations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import random_model, small_sparse_config
from support.models import VOCAB, drain, make_engine, tiny_model
from support.recording import CannotRecord, CapturableAttention, Recording, record

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.attention.torch import TorchAttention
from tinyllm.config import SamplingParams
from tinyllm.engine.cuda_graphs import CudaCapture, DecodeGraphs, graph_sizes, padded_size
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import ModelRunner, decode_graphs
from tinyllm.kv_cache.storage import PagedKVCache
from tinyllm.model.ops import LayerOps

Tokens = dict[str, tuple[tuple[int, ...], ...]]


def with_graphs(engine: LLMEngine, max_batch: int, max_blocks: int = 16, max_query_len: int = 1) -> DecodeGraphs:
    """Let an engine on the CPU record and replay its decode steps."""
    runner = engine.runner
    assert isinstance(runner, ModelRunner)
    runner.graphs = DecodeGraphs(
        ModelRunner(runner.model, runner.cache, runner.block_size, CapturableAttention()).forward,
        runner.model.embed_tokens.weight,
        runner.block_size,
        max_batch=max_batch,
        max_blocks=max_blocks,
        max_query_len=max_query_len,
        capture=record,
    )
    return runner.graphs


def serve(engine: LLMEngine, lengths: Sequence[int]) -> Tokens:
    """Greedy continuations of different lengths, so that sequences end while others go on; one is drawn, in threes."""
    for i, length in enumerate(lengths):
        engine.add_request([i, *range(3 * i + 1)], SamplingParams(max_tokens=length, ignore_eos=True), str(i))
    engine.add_request([5, 6], SamplingParams(max_tokens=4, n=3, temperature=0.9, seed=1), "drawn")
    return drain(engine)


def test_the_sizes_are_1_2_4_and_multiples_of_8_up_to_the_largest() -> None:
    assert graph_sizes(32) == [1, 2, 4, 8, 16, 24, 32]
    assert graph_sizes(13) == [1, 2, 4, 8, 13]
    assert graph_sizes(3) == [1, 2, 3]
    assert graph_sizes(1) == [1]
    assert len(graph_sizes(256)) == 35


@given(st.integers(1, 300).flatmap(lambda largest: st.tuples(st.integers(1, largest), st.just(largest))))
def test_a_batch_is_padded_to_the_next_size(batch_and_largest: tuple[int, int]) -> None:
    batch, largest = batch_and_largest
    sizes = graph_sizes(largest)
    size = padded_size(batch, sizes)
    assert batch <= size <= largest
    assert size < batch + 8
    assert not [other for other in sizes if batch <= other < size]


def test_replayed_steps_give_the_tokens_of_eager_ones() -> None:
    """The batch shrinks through the sizes, then other requests come and all sizes are replayed."""
    model = tiny_model()
    engine = make_engine(model, max_num_seqs=12)
    graphs = with_graphs(engine, 12)
    for lengths in ([3 + 4 * (i % 5) for i in range(9)], [5 + 3 * i for i in range(9)]):
        assert serve(engine, lengths) == serve(make_engine(model, max_num_seqs=12), lengths)
    assert graphs.recorded_sizes == [1, 2, 4, 8, 12]


def test_with_a_full_pool_preemption_and_prompts_in_chunks_too() -> None:
    options: dict[str, Any] = {"block_size": 3, "num_blocks": 20, "max_num_batched_tokens": 8}
    engine = make_engine(tiny_model(), **options)
    graphs = with_graphs(engine, 8)
    assert serve(engine, [9] * 6) == serve(make_engine(tiny_model(), **options), [9] * 6)
    assert graphs.recorded_sizes
    assert sum(step.num_preempted for step in engine.step_records) > 0


def decode_batch(num_sequences: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, AttentionMetadata]:
    """A decode step over a pool of 40 blocks of 4 slots, contexts of 1 to 13 tokens."""
    generator = torch.Generator().manual_seed(seed)
    lens = torch.randint(1, 14, (num_sequences,), generator=generator)
    tables = torch.randperm(40, generator=generator)[: num_sequences * 4].view(num_sequences, 4).int()
    last = lens - 1
    slots = tables.gather(1, (last // 4)[:, None])[:, 0].long() * 4 + last % 4
    ids = torch.randint(VOCAB, (num_sequences,), generator=generator)
    starts = torch.arange(num_sequences + 1, dtype=torch.int32)
    return ids, last, AttentionMetadata(starts, lens.int(), tables, slots, 4, 1, 1)


def filled_engine() -> LLMEngine:
    """An engine whose pool holds random numbers."""
    engine = make_engine(tiny_model(), num_blocks=40)
    torch.manual_seed(1)
    for pool in (engine.kv.storage.k, engine.kv.storage.v):
        pool.normal_()
    return engine


@pytest.mark.parametrize("num_sequences", [1, 2, 3, 5, 8, 9, 10])
def test_padding_changes_neither_the_answer_nor_the_pool(num_sequences: int) -> None:
    ids, positions, metadata = decode_batch(num_sequences)
    eager, padded = filled_engine(), filled_engine()
    graphs = with_graphs(padded, 10, max_blocks=6)
    graphs.run(*decode_batch(10, seed=7))  # what an earlier, larger step leaves in the buffers
    for pool in ("k", "v"):
        getattr(padded.kv.storage, pool).copy_(getattr(eager.kv.storage, pool))
    expected = eager.runner.forward(ids, positions, metadata)  # type: ignore[attr-defined]
    for _ in range(2):  # recorded, then replayed
        got = graphs.run(ids, positions, metadata)
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        for pool in ("k", "v"):
            ours, theirs = getattr(padded.kv.storage, pool), getattr(eager.kv.storage, pool)
            touched = torch.zeros(ours.shape[1], dtype=torch.bool)
            touched[metadata.slot_mapping] = True
            assert torch.equal(ours[:, ~touched], filled(pool)[:, ~touched])
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def filled(pool: str) -> torch.Tensor:
    """K or V of `filled_engine` before any step."""
    kept: torch.Tensor = getattr(filled_engine().kv.storage, pool)
    return kept


def test_what_takes_values_from_tensors_cannot_be_recorded() -> None:
    ids, positions, metadata = decode_batch(3)
    engine = filled_engine()
    with pytest.raises(CannotRecord), Recording():
        engine.runner.forward(ids, positions, metadata)  # type: ignore[attr-defined]
    with torch.inference_mode(False), torch.no_grad():  # in inference mode `item` of a CPU's tensor is not dispatched
        sparse = random_model(small_sparse_config())
        kv = PagedKVCache(3, 40, 4, 2, 12)
        with pytest.raises(CannotRecord, match="bincount"), Recording():
            sparse(ids, positions, LayerOps(CapturableAttention().plan(metadata, kv)))


class NoLaunch:
    """Stands in for a compiled kernel: there is no GPU here to launch it on."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@pytest.mark.needs("triton")
@pytest.mark.parametrize("split_size", [None, 16], ids=["whole", "in splits"])
def test_a_decode_step_on_triton_takes_nothing_from_values(
    split_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyllm.attention.triton import TritonAttention
    from tinyllm.kernels import launch, paged_decode, paged_decode_split, store_kv

    for module, name in (
        (store_kv, "store_kv_kernel"),
        (paged_decode, "paged_decode_kernel"),
        (paged_decode_split, "split_kernel"),
        (paged_decode_split, "reduce_kernel"),
    ):
        monkeypatch.setattr(module, name, NoLaunch())
    for module in (launch, store_kv):
        monkeypatch.setattr(module, "check_device", lambda device: None)
    ids, positions, metadata = decode_batch(8)
    engine = filled_engine()
    backend: AttentionBackend = TritonAttention(split_size=split_size)
    with Recording() as recording:
        engine.runner.model(ids, positions, LayerOps(backend.plan(metadata, engine.kv.storage)))  # type: ignore[attr-defined]
    assert len(recording.calls) > 50


def test_steps_that_do_not_fit_run_eagerly() -> None:
    engine = make_engine(tiny_model(), max_num_seqs=2)
    graphs = with_graphs(engine, 2, max_blocks=2)
    engine.add_request([1, 2], SamplingParams(max_tokens=12), "long")  # more than two blocks of 4 at the end
    engine.add_request([3], SamplingParams(max_tokens=6, n=5, temperature=1.0, seed=1), "five at once")
    plain = make_engine(tiny_model(), max_num_seqs=2)
    plain.add_request([1, 2], SamplingParams(max_tokens=12), "long")
    plain.add_request([3], SamplingParams(max_tokens=6, n=5, temperature=1.0, seed=1), "five at once")
    assert drain(engine) == drain(plain)
    assert graphs.recorded_sizes == [1]


def test_graphs_are_for_cuda_for_backends_that_support_them_and_without_experts() -> None:
    engine = make_engine(tiny_model())
    runner = engine.runner
    assert isinstance(runner, ModelRunner)
    assert runner.graphs is None
    assert decode_graphs(ModelRunner(runner.model, runner.cache, 4, CapturableAttention()), 8, 8, 1) is None
    weight = SimpleNamespace(device=torch.device("cuda"))
    for config, backend in (
        (tiny_model().config, TorchAttention()),
        (small_sparse_config(), CapturableAttention()),
    ):
        on_cuda: Any = SimpleNamespace(embed_tokens=SimpleNamespace(weight=weight), config=config)
        assert decode_graphs(ModelRunner(on_cuda, runner.cache, 4, backend), 8, 8, 1) is None


def test_the_engine_asks_for_graphs_as_large_as_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr("tinyllm.engine.engine.decode_graphs", lambda runner, *sizes: asked.append(sizes))
    make_engine(tiny_model(), max_num_seqs=300, max_num_batched_tokens=20, max_model_len=33, block_size=4)
    make_engine(tiny_model(), max_num_seqs=5, num_blocks=7, block_size=3)
    make_engine(tiny_model(), enforce_eager=True)
    assert asked == [(20, 9, 1), (5, 7, 1)]


class FakeCuda:
    """Stands in for the parts of `torch.cuda` that record a graph, and writes down in which order they are used."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        signature = inspect.signature(torch.cuda.graph)

        def graph(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            assert given["pool"] == "memory pool"
            assert given["stream"].name == "side"
            assert given["capture_error_mode"] == "thread_local"
            return self.inside("record")

        fakes = {
            "graph_pool_handle": lambda: "memory pool",
            "Stream": lambda device: self.stream("side"),
            "current_stream": lambda device: self.stream("current"),
            "stream": lambda stream: self.inside(stream.name),
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: self.log.append("replay")),
            "graph": graph,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def stream(self, name: str) -> Any:
        """A stream that notes for whom it waits."""
        return SimpleNamespace(
            name=name, device="cuda:0", wait_stream=lambda other: self.log.append(f"{name} waits for {other.name}")
        )

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """A block that notes its begin and end."""
        self.log.append(f"begin {name}")
        yield
        self.log.append(f"end {name}")


def test_a_graph_is_recorded_after_a_real_run_on_the_same_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)
    replay = CudaCapture(torch.device("cuda"))(lambda: cuda.log.append("step"))
    replay()
    warm_up = ["side waits for current", "begin side", "step", "end side", "current waits for side"]
    assert cuda.log == [*warm_up, "begin record", "step", "end record", "replay"]
