"""Mistakes that people make in `kv_bytes_per_token`."""

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.config import ModelConfig


@mutant
def counts_keys_only(config: ModelConfig, bytes_per_element: int) -> int:
    """Your number is half of what it should be: a token leaves more than one vector per head in the cache."""
    return config.num_layers * config.num_kv_heads * config.head_dim * bytes_per_element


@variant(counts_keys_only)
def counts_one_vector_per_head(config: ModelConfig, bytes_per_element: int) -> int:
    """The same, head by head."""
    total = 0
    for _ in range(config.num_layers * config.num_kv_heads):
        total += config.head_dim * bytes_per_element
    return total


@mutant
def counts_one_layer(config: ModelConfig, bytes_per_element: int) -> int:
    """You count a single layer. Attention happens in every layer, on that layer's own keys and values."""
    return 2 * config.num_kv_heads * config.head_dim * bytes_per_element


@variant(counts_one_layer)
def counts_one_key_and_one_value(config: ModelConfig, bytes_per_element: int) -> int:
    """The same, from the two tensors."""
    key_bytes = value_bytes = config.num_kv_heads * config.head_dim * bytes_per_element
    return key_bytes + value_bytes


@mutant
def counts_query_heads(config: ModelConfig, bytes_per_element: int) -> int:
    """You count the query heads. Queries are used once and forgotten; which heads are the cached ones?"""
    return 2 * config.num_layers * config.num_heads * config.head_dim * bytes_per_element


@variant(counts_query_heads)
def repeats_kv_heads(config: ModelConfig, bytes_per_element: int) -> int:
    """The same, as if K and V were stored after being repeated for each query head."""
    repeated = config.num_kv_heads * config.gqa_ratio
    return config.num_layers * (repeated + repeated) * config.head_dim * bytes_per_element


@mutant
def takes_hidden_size(config: ModelConfig, bytes_per_element: int) -> int:
    """You take a key to be as wide as the hidden state. The config says how many KV heads there are and how wide
    each is; their product need not be the hidden size."""
    return 2 * config.num_layers * config.hidden_size * bytes_per_element


@variant(takes_hidden_size)
def derives_heads_from_hidden_size(config: ModelConfig, bytes_per_element: int) -> int:
    """The same, cut into heads first."""
    per_head = config.hidden_size / config.num_heads
    return round(config.num_layers * config.num_heads * per_head * 2 * bytes_per_element)


@mutant
def guesses_head_dim(config: ModelConfig, bytes_per_element: int) -> int:
    """You work out the size of a head from the hidden size. Newer models, Qwen3 among them, choose it freely."""
    head_dim = config.hidden_size // config.num_heads
    return 2 * config.num_layers * config.num_kv_heads * head_dim * bytes_per_element


@variant(guesses_head_dim)
def divides_hidden_size_by_the_ratio(config: ModelConfig, bytes_per_element: int) -> int:
    """The same, as the part of the hidden size that GQA leaves."""
    kv_width = config.hidden_size * config.num_kv_heads // config.num_heads
    return config.num_layers * (kv_width + kv_width) * bytes_per_element


@mutant
def assumes_two_bytes(config: ModelConfig, bytes_per_element: int) -> int:
    """Your number fits bfloat16 only: it does not change with the bytes of an element."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * 2


@variant(assumes_two_bytes)
def reads_no_dtype(config: ModelConfig, bytes_per_element: int) -> int:
    """The same, with the two bytes mistaken for the two tensors."""
    elements = sum(2 * config.num_kv_heads for _ in range(config.num_layers)) * config.head_dim
    return elements + elements


@unknown_bug
def drops_the_last_layer(config: ModelConfig, bytes_per_element: int) -> int:
    """Counts borders between layers in place of layers."""
    return 2 * (config.num_layers - 1) * config.num_kv_heads * config.head_dim * bytes_per_element
