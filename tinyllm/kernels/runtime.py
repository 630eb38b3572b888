"""Triton, or a stand-in that says what to do without it. Kernel files take `triton` and `tl` from here."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, NoReturn

import torch

from tinyllm.errors import TinyLLMError

__all__ = ["AVAILABLE", "INTERPRETED", "KernelsUnavailable", "check_device", "kernels_compile", "tl", "triton"]

NO_TRITON = (
    "the kernels need Triton, which is not installed and has packages for Linux only: use Linux (or WSL on Windows), "
    "or stay with tinyllm.kernels.reference and the torch attention backend, which run everywhere"
)


class KernelsUnavailable(TinyLLMError, RuntimeError):
    """Triton kernels cannot run here. The message says what to do."""


class NoTriton:
    """What `triton` and `tl` are without Triton: kernels can be written and read, but not launched."""

    def jit(self, function: Callable[..., Any]) -> KernelWithoutTriton:
        """Stand in for `triton.jit`."""
        return KernelWithoutTriton(function)


class KernelWithoutTriton:
    """A kernel on a machine without Triton."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.fn = function
        update_wrapper(self, function)

    def __getitem__(self, grid: Any) -> NoReturn:
        """Refuse to be launched.

        Raises:
            KernelsUnavailable: always.
        """
        raise KernelsUnavailable(NO_TRITON)

    def __call__(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refuse to be called, as kernels call each other.

        Raises:
            KernelsUnavailable: always.
        """
        raise KernelsUnavailable(NO_TRITON)


try:
    import triton
    import triton.language as tl

    #: Whether Triton is installed.
    AVAILABLE = True
    #: Whether kernels run in Triton's interpreter. Triton decides that for its own functions when it is imported.
    INTERPRETED = not isinstance(tl.sum, triton.JITFunction)
    # Let help(), Shift+Tab and ?? show a kernel's own arguments, docstring and source, which Triton's objects hide.
    kernel_class: Any = type(tl.sum)
    kernel_class.__wrapped__ = property(lambda kernel: kernel.fn)
    if INTERPRETED:
        kernel_class.__doc__ = property(lambda kernel: kernel.fn.__doc__)
except ImportError:
    AVAILABLE = INTERPRETED = False
    triton = tl = NoTriton()


def kernels_compile() -> bool:
    """Whether Triton is here and compiles; its interpreter is for checking, thousands of times too slow to serve."""
    return AVAILABLE and not INTERPRETED


def check_device(device: torch.device) -> None:
    """Check that a kernel can be launched on a device.

    Raises:
        KernelsUnavailable: there is no Triton, or the device is not a GPU and the kernels are compiled for CUDA.
    """
    if not AVAILABLE:
        raise KernelsUnavailable(NO_TRITON)
    if triton.knobs.runtime.interpret != INTERPRETED:
        raise KernelsUnavailable(
            "TRITON_INTERPRET was changed after something had imported Triton: set it in the environment before "
            "Python starts (in a notebook: restart the kernel and set it in the first cell)"
        )
    if device.type != "cuda" and not INTERPRETED:
        raise KernelsUnavailable(
            f"the kernels are compiled for CUDA, but the tensors are on {device}: set TRITON_INTERPRET=1 in "
            "the environment before Python starts (slow, for checking), or use the torch attention backend"
        )
