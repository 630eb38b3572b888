"""Other right ways to `kv_bytes_per_token`."""

import torch

from grader.mutants import alternate
from tinyllm.config import ModelConfig


@alternate
def measures_a_tensor(config: ModelConfig, bytes_per_element: int) -> int:
    """Lets torch count: the K and V of one token as a tensor without memory."""
    shape = (config.num_layers, 2, config.num_kv_heads, config.head_dim, bytes_per_element)
    return torch.empty(shape, dtype=torch.uint8, device="meta").nbytes


@alternate
def adds_up_head_by_head(config: ModelConfig, bytes_per_element: int) -> int:
    """Adds one vector after another."""
    total = 0
    for _layer in range(config.num_layers):
        for _head in range(config.num_kv_heads):
            key_bytes = value_bytes = config.head_dim * bytes_per_element
            total += key_bytes + value_bytes
    return total
