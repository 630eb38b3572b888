"""How a checkpoint calls the weights of a model, and in what pieces and shapes it holds them.

Experts go by Qwen3-MoE's names here; `expert_layouts.py` knows the others that files have for them.
"""

from __future__ import annotations

from tinyllm.config import ModelConfig

# One matrix here, several in the file: their rows stand one below the other, in this order.
FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
# One stack of matrices here, one matrix an expert or two in the file, expert after expert.
STACKED = {
    "mlp.experts.gate_up_proj": ("mlp.experts.{}.gate_proj.weight", "mlp.experts.{}.up_proj.weight"),
    "mlp.experts.down_proj": ("mlp.experts.{}.down_proj.weight",),
}


def checkpoint_names(name: str, config: ModelConfig) -> list[str]:
    """The file's names of the tensors that make up the parameter `name`, top rows first."""
    prefix = "" if name.startswith("lm_head.") else "model."
    for fused, parts in FUSED.items():
        if fused in name:
            return [prefix + name.replace(fused, part) for part in parts]
    for stacked, parts in STACKED.items():
        if stacked in name:
            return [prefix + name.replace(stacked, part.format(e)) for e in range(config.num_experts) for part in parts]
    return [prefix + name]


def checkpoint_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of this model holds. Matrices are [out, in]."""
    hidden, head_dim = config.hidden_size, config.head_dim
    q_size, kv_size = config.num_heads * head_dim, config.num_kv_heads * head_dim
    layer_shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (q_size, hidden),
        "self_attn.k_proj": (kv_size, hidden),
        "self_attn.v_proj": (kv_size, hidden),
        "self_attn.o_proj": (hidden, q_size),
        "post_attention_layernorm": (hidden,),
    }
    if config.qk_norm:
        layer_shapes |= {"self_attn.q_norm": (head_dim,), "self_attn.k_norm": (head_dim,)}
    dense_shapes = mlp_shapes("mlp", hidden, config.intermediate_size)
    sparse_shapes: dict[str, tuple[int, ...]] = {"mlp.gate": (config.num_experts, hidden)}
    for e in range(config.num_experts):
        sparse_shapes |= mlp_shapes(f"mlp.experts.{e}", hidden, config.moe_intermediate_size)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for layer in range(config.num_layers):
        names = layer_shapes | (sparse_shapes if layer in config.sparse_layers else dense_shapes)
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in names.items()}
    return shapes


def mlp_shapes(name: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    """The matrices of one SwiGLU MLP, dense or an expert."""
    return {
        f"{name}.gate_proj": (inner, hidden),
        f"{name}.up_proj": (inner, hidden),
        f"{name}.down_proj": (hidden, inner),
    }
