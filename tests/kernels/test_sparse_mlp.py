"""The experts in C: right on every shape and within bounds, the same to the bit in any company, clear where refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from experts.ranks import on_ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import drain, make_engine, tiny_model
from torch import Tensor

from tinyllm.errors import OptionError
from tinyllm.experts.backends import experts_backend
from tinyllm.experts.layer import experts_loop, experts_native
from tinyllm.kernels import native, sparse_mlp
from tinyllm.parallel.ranks import Ranks
from tinyllm.sampling_params import SamplingParams

pytestmark = pytest.mark.needs("g++")  # the C compiler comes with it

#: Numbers before and after every tensor.
GUARD = 1024
#: T, K, E, H, I: no multiples of a vector, of the sums in registers, of a tile; and the shipped layer's.
SHAPES = [
    *((0, 2, 4, 16, 16), (1, 1, 1, 1, 1), (1, 2, 3, 7, 5), (3, 3, 3, 33, 13), (40, 2, 64, 20, 12)),
    *((131, 1, 1, 9, 50), (300, 2, 2, 24, 31), (64, 8, 16, 47, 49), (100, 2, 8, 160, 384)),
]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def inputs(shape: tuple[int, int, int, int, int], seed: int = 0) -> list[Tensor]:
    """x, topk_weights, topk_ids, gate_up_proj, down_proj. Some pairs are left out; their weight is NaN."""
    num_tokens, top_k, num_experts, hidden, inner = shape
    generator = torch.Generator().manual_seed(seed)
    x, weights = (
        torch.randn(num_tokens, hidden, generator=generator),
        torch.rand(num_tokens, top_k, generator=generator),
    )
    ids = torch.rand(num_tokens, num_experts, generator=generator).topk(top_k).indices
    left_out = torch.rand(ids.shape, generator=generator) < 0.1
    ids[left_out] = torch.tensor([-1, num_experts, -(2**40), 2**40])[torch.arange(int(left_out.sum())) % 4]
    gate_up = torch.randn(num_experts, 2 * inner, hidden, generator=generator) * 3 / hidden**0.5
    down = torch.randn(num_experts, hidden, inner, generator=generator) / inner**0.5
    return [x, weights.masked_fill(left_out, torch.nan), ids, gate_up, down]


def assert_right(out: Tensor, case: list[Tensor]) -> None:
    x, weights, ids, gate_up, down = case
    wanted = experts_loop(x.double(), weights.double(), ids, gate_up.double(), down.double())
    assert out.dtype == torch.float32
    assert out.shape == wanted.shape
    assert ((out - wanted).abs() <= 2e-6 * wanted.abs().max().clamp(min=1)).all() if len(out) else True


def guarded(tensor: Tensor, fill: float) -> tuple[Tensor, Tensor]:
    """A copy of the tensor between guard zones, and the whole buffer."""
    whole = torch.full((tensor.numel() + 2 * GUARD,), fill, dtype=tensor.dtype)
    inside = whole[GUARD : GUARD + tensor.numel()].view(tensor.shape)
    inside.copy_(tensor)
    return inside, whole


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_agrees_with_the_loop_and_touches_nothing_else(
    shape: tuple[int, int, int, int, int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = inputs(shape)
    inside = [guarded(t, 0 if t.dtype == torch.int64 else torch.nan)[0] for t in case]  # what is read outside is NaN
    written: list[Tensor] = []
    empty = torch.empty

    def watched(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        tensor, whole = guarded(empty(*size, dtype=dtype).fill_(77), 55)
        written.append(whole)
        return tensor

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", watched)
        out = experts_native(*inside)
    assert_right(out, case)
    assert len(written) == 5
    assert all((whole[:GUARD] == 55).all() and (whole[-GUARD:] == 55).all() for whole in written)
    for given_now, before in zip(inside, case, strict=True):
        assert torch.equal(given_now.nan_to_num(), before.nan_to_num())


@given(
    st.integers(0, 300),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_any_shape(num_tokens: int, top_k: int, more: int, hidden: int, inner: int, seed: int) -> None:
    case = inputs((num_tokens, top_k, top_k + more, hidden, inner), seed)
    assert_right(experts_native(*case), case)


@pytest.mark.parametrize("num_tokens", [1, 127, 128, 129, 257])
def test_one_expert_takes_all(num_tokens: int) -> None:
    x, weights, ids, gate_up, down = inputs((num_tokens, 1, 5, 21, 18))
    case = [x, weights.nan_to_num(1.0), torch.full_like(ids, 3), gate_up, down]
    assert_right(experts_native(*case), case)


def test_ids_may_be_int32_and_rows_may_lie_apart() -> None:
    x, weights, ids, gate_up, down = inputs((30, 2, 6, 20, 12))
    apart = torch.full((30, 50), torch.nan)
    apart[:, 7:27] = x
    ids = ids.clamp(-1, 6)
    out = experts_native(apart[:, 7:27], weights.t().contiguous().t(), ids.int(), gate_up, down)
    assert torch.equal(out, experts_native(x, weights, ids, gate_up, down))


@pytest.mark.parametrize("shape", [(150, 2, 4, 37, 29), (90, 3, 16, 32, 48)], ids=str)
def test_to_the_bit_the_same_alone_in_any_order_and_on_any_number_of_threads(
    shape: tuple[int, int, int, int, int],
) -> None:
    x, weights, ids, gate_up, down = inputs(shape)
    out, order = experts_native(x, weights, ids, gate_up, down), torch.randperm(len(x))
    moved = experts_native(x[order], weights[order], ids[order], gate_up, down)
    alone = [experts_native(x[i : i + 1], weights[i : i + 1], ids[i : i + 1], gate_up, down) for i in range(len(x))]
    assert torch.equal(moved[order.argsort()], out)
    assert torch.equal(torch.cat(alone), out)
    before = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(experts_native(x, weights, ids, gate_up, down), out)
    torch.set_num_threads(before)


def test_nan_in_a_token_and_in_experts_that_nobody_chose_stay_where_they_are() -> None:
    x, weights, ids, gate_up, down = inputs((30, 2, 4, 16, 16))
    weights, ids = weights.nan_to_num(0.5), torch.tensor([0, 2]).expand_as(ids)
    gate_up[1], down[3] = torch.nan, torch.nan
    clean = experts_native(x, weights, ids, gate_up, down)
    assert clean.isfinite().all()
    x[4, 3] = torch.nan
    sick = experts_native(x, weights, ids, gate_up, down)
    others = [i for i in range(30) if i != 4]
    assert torch.equal(sick[others], clean[others])
    assert sick[4].isnan().all()


def test_gates_far_from_zero() -> None:
    gates = torch.tensor([-3e38, -1e4, -104.0, -88.0, -87.0, -1e-30, 0.0, 1e-30, 50.0, 88.0, 104.0, 1e4, 1e18])
    x = gates[:, None]
    once, zeros = torch.ones(len(gates), 1), torch.zeros(len(gates), 1, dtype=torch.int64)
    gate_up = torch.tensor([[[1.0], [1e-30]]])  # their product must not overflow
    out = experts_native(x, once, zeros, gate_up, torch.ones(1, 1, 1))
    wanted = torch.nn.functional.silu(x.double()) * (x.double() * 1e-30)
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=1e-20)


def test_the_engine_answers_as_with_torch() -> None:
    tokens = []
    for name in ("torch", "native"):
        engine = make_engine(tiny_model(num_experts=6), num_blocks=32, max_num_batched_tokens=8, experts_backend=name)
        for request_id, prompt in enumerate(([1, 2, 3], [4] * 11, [5, 6])):
            engine.add_request(prompt, SamplingParams(max_tokens=6, ignore_eos=True), str(request_id))
        tokens.append(drain(engine))
    assert tokens[0] == tokens[1]


def on_two_ranks(ranks: Ranks) -> tuple[float, float]:
    """How far a layer of whole experts here and there, and one of a part of each, are from one that is all here."""
    mlp = tiny_model(num_experts=6).layers[0].mlp
    gate_up, down = mlp.experts.gate_up_proj.detach(), mlp.experts.down_proj.detach()
    x = torch.rand(9, 32, generator=torch.Generator().manual_seed(3))
    whole, cpu = mlp(x), torch.device("cpu")
    del mlp.experts  # a module, in whose place a plain object may stand only then
    mlp.experts = SimpleNamespace(gate_up_proj=gate_up.chunk(2)[ranks.rank], down_proj=down.chunk(2)[ranks.rank])
    here_and_there = mlp(x, experts_backend("native", cpu, ranks=ranks, expert_parallel=True))
    gate_and_up = [half.chunk(2, dim=1)[ranks.rank] for half in gate_up.chunk(2, dim=1)]
    part = down.chunk(2, dim=2)[ranks.rank].contiguous()
    mlp.experts = SimpleNamespace(gate_up_proj=torch.cat(gate_and_up, dim=1), down_proj=part)
    in_parts = mlp(x, experts_backend("native", cpu, ranks=ranks))
    return float((here_and_there - whole).abs().max()), float((in_parts - whole).abs().max())


def test_on_two_ranks(tmp_path: Path) -> None:
    for distances in on_ranks(2, on_two_ranks, tmp_path).values():
        assert max(distances) <= 1e-5


@pytest.mark.parametrize(("dtype", "device"), [(torch.bfloat16, "cpu"), (torch.float32, "cuda")])
def test_another_dtype_or_device_is_refused_when_the_engine_is_made(dtype: torch.dtype, device: str) -> None:
    with pytest.raises(OptionError, match="the native experts backend is for float32 on the CPU"):
        experts_backend("native", torch.device(device), dtype=dtype)


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    sparse_mlp.library.cache_clear()
    with pytest.raises(native.NativeUnavailable, match="apt install gcc"):
        make_engine(tiny_model(num_experts=4), experts_backend="native")


@pytest.mark.parametrize(
    ("place", "broken", "words"),
    [
        (0, torch.randn(5, 16).double(), "float32 on CPU"),
        (0, torch.randn(16, 5).t(), "side by side"),
        (0, torch.randn(5, 12), "E, 2I, H"),
        (1, torch.rand(5, 3), "must be"),
        (2, torch.zeros(5, 2), "int32 or int64"),
        (2, torch.zeros(4, 2, dtype=torch.int64), "must be"),
        (3, torch.randn(4, 16, 24).mT, "contiguous"),
        (3, torch.randn(3, 24, 16), "E, 2I, H"),
        (4, torch.randn(4, 16, 13), "E, 2I, H"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(place: int, broken: Tensor, words: str) -> None:
    case = inputs((5, 2, 4, 16, 12))
    case[place] = broken
    with pytest.raises(ValueError, match=words):
        experts_native(*case)
