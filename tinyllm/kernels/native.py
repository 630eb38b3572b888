"""Decode attention on the CPU in C; and how C is compiled for this very processor on first use, kept, and loaded."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch  # its OpenMP is in the process before ours asks for one: both then share one pool of threads
from torch import Tensor

from tinyllm.errors import TinyLLMError
from tinyllm.files import replacing
from tinyllm.kernels.launch import check, check_pool

SOURCE = Path(__file__).with_name("paged_decode.c")
#: Of all C kernels; NaN and infinity stay what they are.
COMMON_FLAGS = (
    *("-std=c11", "-O3", "-march=native", "-fopenmp", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
)
#: Sums may be taken in another order, so that loops become vector instructions.
FLAGS = (*COMMON_FLAGS, "-fassociative-math")
INT, LONG, ADDRESS = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p


class NativeUnavailable(TinyLLMError, RuntimeError):
    """The C kernel cannot be had here. The message says what to do."""


def paged_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    rows: Tensor,
    sequences: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    block_size: int,
    out: Tensor,
) -> None:
    """Attention of n single query tokens, whose keys and values are in the pool already.

    A token of a longer chunk is one too: its context ends with itself.

    Args:
        q: [T, Hq, D] float32, the heads of a token side by side.
        k_cache, v_cache: [N * P, Hkv, D] float32, contiguous.
        rows: [n] int64, rows of q and out.
        sequences: [n] int64, the row of `block_tables` through which each looks.
        context_lens: [n] int32, how many positions each sees; one that sees none gets 0.
        block_tables: [B, max_blocks] int32, contiguous.
        block_size: P.
        out: [T, Hq, D] float32, contiguous; the given rows are written.

    Raises:
        ValueError: a dtype, device or layout is another one.
        NativeUnavailable: the kernel cannot be compiled.
    """
    floats, indices = (q, k_cache, v_cache, out), (rows, sequences, context_lens, block_tables)
    check(all(x.dtype == torch.float32 and x.device.type == "cpu" for x in floats), "the C kernel takes float32 on CPU")
    check(all(x.is_contiguous() for x in (k_cache, v_cache, out, *indices)), "all but q must be contiguous")
    check(q.stride()[1:] == (q.shape[2], 1), "the heads of a token must lie side by side in q")
    check_pool(k_cache, v_cache)
    library().paged_decode(
        *(x.data_ptr() for x in (q, k_cache, v_cache, rows, sequences, context_lens, block_tables, out)),
        *(len(rows), block_tables.shape[1], block_size, q.shape[1], k_cache.shape[1], q.shape[2], q.stride(0)),
    )


@cache
def library() -> ctypes.CDLL:
    """The compiled kernel; see `compiled`.

    Raises:
        NativeUnavailable: there is no C compiler, or it fails.
    """
    loaded = compiled(SOURCE, FLAGS)
    loaded.paged_decode.argtypes = [*[ADDRESS] * 8, *[INT] * 6, LONG]
    loaded.paged_decode.restype = None
    return loaded


def compiled(source: Path, flags: tuple[str, ...]) -> ctypes.CDLL:
    """A source in C, loaded; compiled where it is not there yet for this source, compiler and processor.

    Raises:
        NativeUnavailable: there is no C compiler, or it fails.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NativeUnavailable(
            "the C kernels need a C compiler (Debian, Ubuntu: `sudo apt install gcc`; or set CC); "
            "the torch backends run without"
        )
    # Preprocessed: with what it includes, and with the macros that say what the processor can do.
    text = run([compiler, "-march=native", "-E", "-dD", str(source)])
    key = hashlib.sha256("\n".join((text, *flags)).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyllm"
    path = folder / f"{source.stem}-{key}.so"
    try:
        if not path.exists():
            with replacing(path) as built:  # whole or not at all, whoever else compiles it now
                run([compiler, *flags, "-shared", "-o", str(built), str(source), "-lm"])
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailable(f"the C kernel cannot be kept in {folder} ({error}); set XDG_CACHE_HOME") from None


def run(command: list[str]) -> str:
    """What the compiler prints.

    Raises:
        NativeUnavailable: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NativeUnavailable(f"the C compiler failed: {' '.join(command)}\n{done.stderr.strip()[-1000:]}")
    return done.stdout
