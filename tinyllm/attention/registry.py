"""The attention backends by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.native import NativeAttention
from tinyllm.attention.torch import TorchAttention
from tinyllm.attention.triton import TritonAttention
from tinyllm.config import ATTENTION_BACKENDS, check_backend
from tinyllm.errors import OptionError
from tinyllm.kernels.runtime import check_device, kernels_compile
from tinyllm.parts import Parts, resolve


def attention_backend(
    name: str, device: str | torch.device, parts: Parts | None = None, dtype: torch.dtype = torch.float32
) -> AttentionBackend:
    """A backend by name.

    "torch" runs everywhere; "triton" where its kernels do; "native" is the C kernel for float32 on the CPU, which needs
    a C compiler; "auto" is Triton where it compiles for CUDA and torch elsewhere.

    Args:
        parts: what the backend is made of; the reference by default.
        dtype: of the pool.

    Raises:
        OptionError: an unknown name, or "native" for another device or dtype.
        KernelsUnavailable: "triton" where there is no Triton, or where it can run nothing on this device.
        NativeUnavailable: "native" where the C kernel cannot be compiled.
    """
    check_backend("attention", name, ATTENTION_BACKENDS)
    return BACKENDS[name](torch.device(device), dtype, parts or resolve())


def _torch(device: torch.device, dtype: torch.dtype, parts: Parts) -> AttentionBackend:
    return TorchAttention(parts["paged_attention"])


def _triton(device: torch.device, dtype: torch.dtype, parts: Parts) -> AttentionBackend:
    check_device(device)
    return TritonAttention(parts=parts)


def _native(device: torch.device, dtype: torch.dtype, parts: Parts) -> AttentionBackend:
    if (device.type, dtype) != ("cpu", torch.float32):
        raise OptionError(f"the native attention backend is for float32 on the CPU, not {dtype} on {device}")
    return NativeAttention(parts["paged_attention"])


def _auto(device: torch.device, dtype: torch.dtype, parts: Parts) -> AttentionBackend:
    if device.type == "cuda" and kernels_compile():
        return TritonAttention(parts=parts)
    return _torch(device, dtype, parts)


#: What makes each backend, from the pool's device and dtype and the parts; the names are those of the config.
BACKENDS: dict[str, Callable[[torch.device, torch.dtype, Parts], AttentionBackend]] = {
    "auto": _auto,
    "torch": _torch,
    "triton": _triton,
    "native": _native,
}
