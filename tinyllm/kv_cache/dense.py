"""The dense KV cache: one contiguous row of `max_len` tokens a sequence. Day 0's cache, and the oracle for paging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.config import ModelConfig
from tinyllm.errors import RequestError


class DenseKVCache:
    """Keys and values of B sequences, each with room for `max_len` tokens whether it uses them or not.

    Attributes:
        keys, values: [L, B, Hkv, max_len, D].
        lengths: tokens cached for each of the B sequences. Lower one to forget its last tokens.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int = 1,
        max_len: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        """Reserve the memory; `max_len` None takes the model's `max_position_embeddings`."""
        self.max_len = config.max_position_embeddings if max_len is None else max_len
        shape = (config.num_layers, batch_size, config.num_kv_heads, self.max_len, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * batch_size

    @property
    def num_bytes(self) -> int:
        """Bytes reserved for keys and values, used or not."""
        return self.keys.nbytes + self.values.nbytes

    def step(self, query_lens: Sequence[int]) -> DenseStep:
        """Make room for each sequence's next tokens and return the step that will fill it.

        Args:
            query_lens: new tokens of each of the B sequences: a whole prompt, one decode token, or 0.

        Raises:
            ValueError: `query_lens` does not name each sequence once.
            RequestError: a sequence would grow past `max_len`; no sequence is changed.
        """
        if len(query_lens) != len(self.lengths):
            raise ValueError(f"{len(query_lens)} query lengths for a cache of {len(self.lengths)} sequences")
        ends = [length + n for length, n in zip(self.lengths, query_lens, strict=True)]
        for sequence, end in enumerate(ends):
            if end > self.max_len:
                raise RequestError(
                    f"sequence {sequence} would hold {end} tokens, but the cache reserves {self.max_len} for each; "
                    "make the cache with a larger max_len or the request shorter"
                )
        starts, self.lengths = self.lengths, ends
        spans = [torch.arange(start, end, device=self.keys.device) for start, end in zip(starts, ends, strict=True)]
        return DenseStep(self, torch.cat(spans), tuple(zip(starts, ends, strict=True)))


@dataclass(frozen=True, slots=True)
class DenseStep:
    """One step over a `DenseKVCache`; an `Attend`, to be handed to the model with its `positions`.

    Attributes:
        positions: [T] each new token's place in its own sequence.
        spans: for each sequence, the positions [start, end) that this step fills.
    """

    cache: DenseKVCache
    positions: Tensor
    spans: tuple[tuple[int, int], ...]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v at the spans, then attend, one sequence after another (see `Attend`)."""
        query_lens = [end - start for start, end in self.spans]
        outputs = []
        for sequence, (q_new, k_new, v_new) in enumerate(
            zip(q.split(query_lens), k.split(query_lens), v.split(query_lens), strict=True)
        ):
            start, end = self.spans[sequence]
            keys, values = (
                self.cache.keys[layer, sequence],
                self.cache.values[layer, sequence],
            )  # [Hkv, max_len, D]
            keys[:, start:end] = k_new.transpose(0, 1)
            values[:, start:end] = v_new.transpose(0, 1)
            outputs.append(attend_from(start, q_new, keys[:, :end], values[:, :end]))
        return torch.cat(outputs)


def attend_from(start: int, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of one sequence's newest tokens over all that is cached of it.

    Args:
        start: position of the first query; query i sees the positions up to start + i.
        q: [n, Hq, D].
        keys, values: [Hkv, start + n, D].

    Returns:
        [n, Hq, D].
    """
    query_positions = torch.arange(start, start + q.shape[0], device=q.device)
    visible = torch.arange(keys.shape[1], device=q.device) <= query_positions[:, None]  # [n, start + n]
    group = q.shape[1] // keys.shape[0]
    keys, values = keys.repeat_interleave(group, dim=0), values.repeat_interleave(group, dim=0)
    out = F.scaled_dot_product_attention(q.transpose(0, 1), keys, values, attn_mask=visible)
    return out.transpose(0, 1)
