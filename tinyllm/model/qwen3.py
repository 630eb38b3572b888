"""The Qwen3 decoder (arXiv 2505.09388, section 2), dense or with experts, over one flattened batch of T tokens.

Without QK-norm and with experts in every layer it is Mixtral's (arXiv 2401.04088).

The tokens of all sequences lie one after another, as in vLLM; `positions` says where each stands in its own
sequence. Only attention looks across tokens. It is handed in, and so is what runs the experts (`LayerOps`): this file
knows neither cache nor kernels.
Module names are those of the checkpoint, but for q, k, v and gate, up, which are one matrix each, and the experts,
which are stacked (see loader.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyllm.config import ModelConfig
from tinyllm.model.layers import MLP, RMSNorm
from tinyllm.model.moe import SparseMLP
from tinyllm.model.ops import Attend, LayerOps
from tinyllm.model.rope import apply_rotary, rotary_cos_sin


class Attention(nn.Module):
    """Grouped-query attention: Hq query heads share Hkv key/value heads; queries and keys are normalized (QK-norm).

    `q_norm` and `k_norm` are None in a model without QK-norm.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.head_counts = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        self.qkv_proj = nn.Linear(config.hidden_size, sum(self.head_counts) * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """[T, hidden_size] -> [T, hidden_size]; cos and sin are [T, 1, D]."""
        q, k, v = self.project(x, cos, sin)
        out = attend(self.layer, q, k, v)
        return self.o_proj(out.flatten(start_dim=1))

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, hidden_size] -> q [T, Hq, D], k and v [T, Hkv, D]; q and k normalized and rotated."""
        num_heads, num_kv_heads, _ = self.head_counts
        heads = self.qkv_proj(x).view(x.shape[0], -1, self.head_dim)  # [T, Hq + 2 Hkv, D]
        qk, v = heads.split((num_heads + num_kv_heads, num_kv_heads), dim=1)
        # Queries and keys go through the norm and the rotation together: at decode, calls cost more than numbers.
        if self.q_norm is not None and self.k_norm is not None:
            scale = torch.cat((self.q_norm.weight.expand(num_heads, -1), self.k_norm.weight.expand(num_kv_heads, -1)))
            qk = F.rms_norm(qk, (self.head_dim,), eps=self.q_norm.eps) * scale
        q, k = apply_rotary(qk, cos, sin).split((num_heads, num_kv_heads), dim=1)
        return q, k, v


class DecoderLayer(nn.Module):
    """Attention, then the MLP; each reads a normalized copy of the residual stream and adds its answer to it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp: MLP | SparseMLP
        if layer in config.sparse_layers:
            self.mlp = SparseMLP(
                config.hidden_size,
                config.moe_intermediate_size,
                num_experts=config.num_experts,
                num_experts_per_tok=config.num_experts_per_tok,
                norm_topk_prob=config.norm_topk_prob,
                layer=layer,
            )
        else:
            self.mlp = MLP(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, ops: LayerOps) -> Tensor:
        """[T, hidden_size] -> [T, hidden_size]."""
        x = x + ops.reduce(self.self_attn(self.input_layernorm(x), cos, sin, ops.attend))
        h = self.post_attention_layernorm(x)
        return x + (self.mlp(h, ops.experts) if isinstance(self.mlp, SparseMLP) else ops.reduce(self.mlp(h)))


class Qwen3ForCausalLM(nn.Module):
    """Token embedding, L decoder layers, a last norm, and the head that scores the next token.

    Where the config has experts, this is the model that `transformers` calls Qwen3MoeForCausalLM; where it has no
    QK-norm either, MixtralForCausalLM.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, input_ids: Tensor, positions: Tensor, ops: LayerOps) -> Tensor:
        """Run one step over the flattened batch.

        Args:
            input_ids: [T] token ids of all sequences, one sequence after another.
            positions: [T] each token's place in its own sequence, from 0.
            ops: attention over the caller's cache, and what runs the experts; each is called once a layer.

        Returns:
            [T, hidden_size], normalized: what `compute_logits` takes.
        """
        cos, sin = rotary_cos_sin(positions, self.config.head_dim, self.config.rope_theta)
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x, cos, sin, ops)
        return self.norm(x)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """Score every next token: [n, hidden_size] -> [n, V], float32.

        Apart from `forward`, because a prefill of T tokens needs the scores of its last one only.
        """
        return F.linear(hidden, self.head_weight).float()

    @property
    def head_weight(self) -> Tensor:
        """[V, hidden_size]: the head's matrix, which is the embedding's where the two are tied."""
        return self.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight
