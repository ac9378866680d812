"""Cirilla: a decoder-only transformer that one person reads in an afternoon.

Every choice in one list:
- pre-norm with RMSNorm (Zhang & Sennrich 2019), weights learnt, no biases anywhere
- rotary positions (RoPE, Su et al. 2021), no position table
- grouped-query attention (Ainslie et al. 2023): several query heads share one key-value head, so the cache is small
- QK-norm (Henry et al. 2020): queries and keys are normalised per head, which keeps attention logits bounded
- SwiGLU feed-forward (Shazeer 2020)
- the output matrix is the embedding matrix (Press & Wolf 2017)

These are exactly the parts of Qwen3, and parameters carry Qwen3's names: a released folder opens with
``transformers.AutoModelForCausalLM`` and everything built on it, and the tests compare logits with that independent
implementation.

Shapes in comments: B sequences, T new tokens, S tokens seen so far, D model width, H query heads, G key-value heads,
hd head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    vocab_size: int = 16_384
    d_model: int = 640
    n_layers: int = 14
    n_heads: int = 10
    n_kv_heads: int = 5
    head_dim: int = 64
    d_ff: int = 1_792
    max_length: int = 2_048  # tokens in prompt and answer together
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key-value heads evenly")

    def to_dict(self) -> dict:
        return asdict(self)


PRESETS = {
    "cirilla-tiny": Config(
        d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=128, max_length=256
    ),  # tests
    # 8.7 M parameters: what two cores can train in an hour.
    "cirilla-mini": Config(d_model=256, n_layers=6, n_heads=4, n_kv_heads=2, head_dim=64, d_ff=704, max_length=1_024),
    "cirilla": Config(),  # 74 M parameters, release size: what two cores can serve
}


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Written out: F.rms_norm is several times slower on a CPU. In float32, since bf16 squares lose too much.
        y = x.float()
        return self.weight.to(x.dtype) * (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class KVCache:
    """Keys and values of the tokens seen so far, one pair of buffers a layer, filled in place."""

    def __init__(self, config: Config, batch: int = 1, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        shape = (batch, config.n_kv_heads, config.max_length, config.head_dim)  # (B, G, max, hd)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write T new tokens behind the old ones; all S tokens so far come back, ``(B, G, S, hd)`` each."""
        end = self.length + k.shape[2]
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def rewind(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens (nothing is erased: it will be written over)."""
        self.length = min(self.length, length)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + hd/2]) by its position's angle: scores then depend on distance alone."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        self.q_proj = nn.Linear(config.d_model, config.n_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.d_model, config.n_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.d_model, config.n_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.n_heads * config.head_dim, config.d_model, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None) -> Tensor:
        B, T, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.config.head_dim)).transpose(1, 2)  # (B, H, T, hd)
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.config.head_dim)).transpose(1, 2)  # (B, G, T, hd)
        v = self.v_proj(x).view(B, T, -1, self.config.head_dim).transpose(1, 2)  # (B, G, T, hd)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, G, S, hd)
        S = k.shape[2]
        # New token t stands at S - T + t and sees all up to itself.  A single one sees everything: no mask needed.
        mask = None
        if 1 < T < S:
            mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=T == S and T > 1, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))  # (B, H, T, hd) -> (B, T, D)


class SwiGLU(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Cirilla(nn.Module):
    """Token ids to next-token logits."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        # Angles in float32 whatever the weights' type: bf16 cannot tell position 300 from 301.
        frequency = config.rope_theta ** (-torch.arange(0, config.head_dim, 2).float() / config.head_dim)
        angles = torch.outer(torch.arange(config.max_length).float(), frequency)  # (max_length, hd/2)
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Normal, 0.02; what writes into the residual stream is smaller, since 2 × layers of it add up (GPT-2)."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                writes = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layers) if writes else 0.02)
            else:
                nn.init.ones_(parameter)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Final vectors of the new tokens, ``(B, T)`` → ``(B, T, D)``; the cache moves on by T.

        Raises:
            ValueError: more tokens than ``max_length`` allows.
        """
        start = cache.length if cache is not None else 0
        end = start + ids.shape[1]
        if end > self.config.max_length:
            raise ValueError(f"{end} tokens are more than the {self.config.max_length} this model was made for")
        x = self.embed_tokens(ids)
        cos, sin = self.cos[start:end].to(x.dtype), self.sin[start:end].to(x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, cache)
        if cache is not None:
            cache.length = end
        return self.norm(x)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits ``(B, T, V)``."""
        return F.linear(self.hidden(ids, cache), self.embed_tokens.weight)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy where ``targets`` is not -100; both ``(B, T)``."""
        wanted = targets != -100
        # In tuning most tokens are prompt; only those with a target reach the vocabulary.
        logits = F.linear(self.hidden(ids)[wanted], self.embed_tokens.weight)
        return F.cross_entropy(logits.float(), targets[wanted])
