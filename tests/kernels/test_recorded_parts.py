"""A learner's kernels, recorded from a notebook's cell, run in the interpreter and compile for a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from interpreted import run_interpreted
from support.cells import record_solution
from test_compiled import Launches, compiled, grouped_launch

from tinyllm.kernels.cases import KERNELS
from tinyllm.parts import resolve

pytestmark = pytest.mark.needs("triton")


def test_the_engine_says_the_same_on_recorded_kernels() -> None:
    done = run_interpreted("-m", "kernels.recorded_parts")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["files"] == {name: f"<your {name}>" for name in KERNELS}
    assert answer["tokens"]["mine"] == answer["tokens"]["reference"]
    assert answer["tokens"]["mine in splits"] == answer["tokens"]["reference"]


def test_recorded_kernels_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyllm.kernels import launch, paged_decode, paged_decode_split, paged_prefill
    from tinyllm.kernels import store_kv as store_module

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for module in (launch, store_module):
        monkeypatch.setattr(module, "check_device", lambda device: None)
    for name in KERNELS:
        record_solution(name)
    mine = resolve("mine")
    assert mine.mine == KERNELS

    own_store: Any = mine["store_kv"].__globals__
    places: list[tuple[Any, str]] = [
        (paged_decode, "paged_decode_kernel"),
        (paged_decode_split, "split_kernel"),
        (paged_decode_split, "reduce_kernel"),
        (paged_prefill, "paged_prefill_kernel"),
    ]
    kernels = {name: getattr(module, name) for module, name in places} | {"store": own_store["store_kv_kernel"]}
    launches = {name: Launches() for name in kernels}
    for module, name in places:
        monkeypatch.setattr(module, name, launches[name])
    monkeypatch.setitem(own_store, "store_kv_kernel", launches["store"])

    kv, q = torch.zeros(512, 2, 64, dtype=torch.bfloat16), torch.zeros(32, 4, 64, dtype=torch.bfloat16)
    tables, lens = torch.zeros(1, 32, dtype=torch.int32), torch.tensor([512], dtype=torch.int32)
    where = (q, kv, kv, tables, lens, torch.tensor([0, 32], dtype=torch.int32), 16)
    mine["store_kv"](kv[:32], kv[:32], kv, kv, torch.zeros(32, dtype=torch.int64))
    mine["paged_decode"](*where)
    mine["paged_decode_split"](*where, split_size=256)
    mine["paged_prefill"](*where, max_query_len=32)
    for name, kernel in kernels.items():
        ((args, kwargs),) = launches[name].arguments
        assert "ld.global" in compiled(kernel, args, kwargs, 80).asm["ptx"], name


def test_a_recorded_tile_compiles_in_the_kernel_of_the_course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyllm.kernels.grouped_gemm import grouped_gemm_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    record_solution("grouped_gemm_tile")
    mine = resolve("mine")
    assert mine.mine == ("grouped_gemm_tile",)
    args, kwargs = grouped_launch(mine["grouped_gemm_tile"], torch.bfloat16, 64, True, monkeypatch)
    assert "ld.global" in compiled(grouped_gemm_kernel, args, kwargs, 80).asm["ptx"]
