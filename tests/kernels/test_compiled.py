"""Every kernel compiles for NVIDIA GPUs, without one, and fits the shared memory of the smaller of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.needs("triton")

#: What one block may use on the GPUs with the least of it that have bfloat16 (compute capability 8.6, 8.9, 12.0).
SHARED_MEMORY = 99 * 1024
#: What each of two programs on one multiprocessor may use on Hopper: half of its 228 KiB, and 1 KiB each is reserved.
HALF_OF_HOPPER = 113 * 1024
POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
KERNELS = (
    ("store_kv", "store_kv_kernel"),
    ("paged_decode", "paged_decode_kernel"),
    ("paged_decode_split", "split_kernel"),
    ("paged_decode_split", "reduce_kernel"),
    ("paged_prefill", "paged_prefill_kernel"),
)


class Launches:
    """Stands in for a kernel and writes down what it would be launched with."""

    def __init__(self) -> None:
        self.arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(size >= 1 for size in grid)
        return lambda *args, **kwargs: self.arguments.append((args, kwargs))


def compiled(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any], capability: int) -> Any:
    """Compile a kernel as a launch with these arguments would."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: value for name, value in kwargs.items() if name in ("num_warps", "num_stages", "maxnreg")}
    given = {**dict(zip(kernel.arg_names, args, strict=False)), **kwargs}
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            tensor = isinstance(value, torch.Tensor)
            signature[parameter.name] = POINTERS[value.dtype] if tensor else "i32"
            if tensor or value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "gqa_ratio"),
    [
        (80, torch.bfloat16, 128, 4),
        (80, torch.float32, 256, 5),
        (90, torch.bfloat16, 128, 2),
        (90, torch.bfloat16, 256, 1),
        (90, torch.float16, 96, 7),
    ],
)
def test_kernels_compile_and_fit(
    capability: int, dtype: torch.dtype, head_dim: int, gqa_ratio: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import import_module

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    modules = {name: import_module(f"tinyllm.kernels.{name}") for name in ("launch", *dict(KERNELS))}
    real = {name: getattr(modules[module], name) for module, name in KERNELS}
    launches = {name: Launches() for name in real}
    for module, name in KERNELS:
        monkeypatch.setattr(modules[module], name, launches[name])
    for module in ("launch", "store_kv"):
        monkeypatch.setattr(modules[module], "check_device", lambda device: None)
    monkeypatch.setattr(modules["paged_prefill"], "is_hopper", lambda device: capability == 90)

    kv = torch.zeros(4096, 2, head_dim, dtype=dtype)
    q = torch.zeros(512, 2 * gqa_ratio, head_dim, dtype=dtype)
    tables, lens = torch.zeros(1, 256, dtype=torch.int32), torch.tensor([4096], dtype=torch.int32)
    where = (q, kv, kv, tables, lens, torch.tensor([0, 512], dtype=torch.int32), 16)
    modules["store_kv"].store_kv(kv[:512], kv[:512], kv, kv, torch.zeros(512, dtype=torch.int64))
    modules["paged_decode"].paged_decode(*where)
    modules["paged_decode_split"].paged_decode_split(*where, split_size=512)
    modules["paged_prefill"].paged_prefill(*where, max_query_len=512)

    for name, kernel in real.items():
        ((args, kwargs),) = launches[name].arguments
        result = compiled(kernel, args, kwargs, capability)
        room = HALF_OF_HOPPER if kwargs.get("maxnreg") else SHARED_MEMORY
        assert result.metadata.shared <= room, f"{name} needs {result.metadata.shared} bytes of shared memory"
        if dtype == torch.bfloat16 and name not in ("store_kv_kernel", "reduce_kernel"):
            assert "mma" in result.asm["ptx"], f"{name} does not use the tensor cores"


@pytest.mark.parametrize(
    ("capability", "dtype", "block_size"),
    [(80, torch.bfloat16, 64), (80, torch.float32, 64), (90, torch.bfloat16, 16), (90, torch.float16, 64)],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_grouped_product_compiles_and_fits(
    capability: int,
    dtype: torch.dtype,
    block_size: int,
    weighted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tinyllm.kernels import grouped_gemm as module

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    args, kwargs = grouped_launch(module.grouped_gemm_tile, dtype, block_size, weighted, monkeypatch)
    result = compiled(module.grouped_gemm_kernel, args, kwargs, capability)
    assert result.metadata.shared <= SHARED_MEMORY
    if dtype == torch.bfloat16:
        assert "mma" in result.asm["ptx"], "the tensor cores are not used"


def grouped_launch(
    tile: Any, dtype: torch.dtype, block_size: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the kernel of the grouped product would be launched with, at sizes of Qwen3-30B-A3B."""
    from tinyllm.kernels import grouped_gemm as module

    launches = Launches()
    with monkeypatch.context() as patch:
        patch.setattr(module, "grouped_gemm_kernel", launches)
        patch.setattr(module, "check_device", lambda device: None)
        blocks = (torch.zeros(4 * block_size, dtype=torch.int32), torch.zeros(4, dtype=torch.int32))
        a, w = torch.zeros(32, 2048, dtype=dtype), torch.zeros(2, 1536, 2048, dtype=dtype)
        weights = torch.zeros(64, dtype=dtype) if weighted else None
        module.grouped_gemm(a, w, *blocks, torch.zeros(1, dtype=torch.int32), 64, weights, tile=tile)
    ((args, kwargs),) = launches.arguments
    return args, kwargs
