"""Triton, or an error that says what to do without it. Kernel files take `triton` and `tl` from here."""

from __future__ import annotations

import torch

from tinyllm.errors import TinyLLMError

__all__ = ["INTERPRETED", "KernelsUnavailable", "check_device", "tl", "triton"]


class KernelsUnavailable(TinyLLMError, RuntimeError):
    """Triton kernels cannot run here. The message says what to do."""


try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise KernelsUnavailable(
        "the kernels need Triton, which is not installed and has packages for Linux only: use Linux (or WSL on "
        "Windows), or stay with tinyllm.kernels.reference and the torch attention backend, which run everywhere"
    ) from error

#: Whether kernels run in Triton's interpreter. Triton decides that for its own functions when it is imported.
INTERPRETED = not isinstance(tl.sum, triton.JITFunction)

if triton.knobs.runtime.interpret != INTERPRETED:
    raise KernelsUnavailable(
        "TRITON_INTERPRET was changed after something had imported Triton: set it in the environment before Python "
        "starts (in a notebook: restart the kernel and set it in the first cell)"
    )


def check_device(device: torch.device) -> None:
    """Check that a kernel can be launched on a device.

    Raises:
        KernelsUnavailable: it is not a GPU and the kernels are compiled for CUDA.
    """
    if device.type != "cuda" and not INTERPRETED:
        raise KernelsUnavailable(
            f"the kernels are compiled for CUDA, but the tensors are on {device}: set TRITON_INTERPRET=1 in "
            "the environment before Python starts (slow, for checking), or use the torch attention backend"
        )
