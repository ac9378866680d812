"""Cirilla: a decoder-only transformer that one person reads in an afternoon.

Every choice in one list:
- pre-norm with RMSNorm (Zhang & Sennrich 2019), weights learnt, no biases anywhere
- rotary positions (RoPE, Su et al. 2021), no position table
- grouped-query attention (Ainslie et al. 2023): several query heads share one key-value head, so the cache is small
- QK-norm (Henry et al. 2020): queries and keys are normalised per head, which keeps attention logits bounded
- SwiGLU feed-forward (Shazeer 2020), or a sparse mixture of small ones (lm/experts.py)
- the output matrix is the embedding matrix (Press & Wolf 2017)
- on request: layers that see a sliding window alone, with a rolling cache (Mistral, Jiang et al. 2023), and a soft cap
  on the logits (Gemma 2, 2024)

All but the soft cap are parts of Qwen3 and Qwen3-MoE, and parameters carry Qwen3's names: a released folder opens with
``transformers.AutoModelForCausalLM`` and everything built on it, and the tests compare logits with that independent
implementation.  Without QK-norm and with an output matrix of its own it is a Llama 2, with a window besides a Mistral.

The neighbours: lm/attention.py says who may look at whom, lm/cache.py remembers keys and values, lm/experts.py routes.
docs/cirilla.md walks through all of it.

Shapes in comments: B sequences, T new tokens, S tokens to look at, D model width, H query heads, G key-value heads,
hd head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.attention import View, attend, flex_view, masked_view, starts
from lm.cache import KVCache
from lm.experts import Experts, Routing

__all__ = ["PRESETS", "Cirilla", "Config", "KVCache"]


@dataclass(frozen=True)
class Config:
    """The shape of a model and the choices in it; as it stands, the release.  Lengths and windows are in tokens.

    Raises:
        ValueError: the query heads cannot share the key-value heads evenly, ``global_every`` has no window or more than
            the layers, or there are fewer experts than a token is to visit.
    """

    vocab_size: int = 16_384
    d_model: int = 640
    n_layers: int = 14
    n_heads: int = 10  # of queries
    n_kv_heads: int = 5  # of keys and values, each for n_heads / n_kv_heads of queries
    head_dim: int = 64
    d_ff: int = 1_792
    max_length: int = 2_048  # tokens in prompt and answer together
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    qk_norm: bool = True
    tied: bool = True  # one matrix for embedding and output
    window: int = 0  # a local layer sees so many tokens, itself included; 0: all layers are global
    global_every: int = 0  # with a window: every n-th layer is global all the same; 0: none
    n_experts: int = 0  # 0: one dense feed-forward network of width d_ff
    n_active: int = 2  # experts that a token visits
    d_expert: int = 0  # width of one expert
    balance: float = 0.01  # weight of the loss that keeps experts evenly used
    soft_cap: float = 0.0  # logits stay within ± this; 0: no cap

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key-value heads evenly")
        if self.global_every and not (self.window and 2 <= self.global_every <= self.n_layers):
            raise ValueError(f"global_every {self.global_every} needs a window and 2 to {self.n_layers} layers")
        if self.n_experts and not (0 < self.n_active <= self.n_experts and self.d_expert > 0):
            raise ValueError(f"{self.n_active} of {self.n_experts} experts of width {self.d_expert} cannot be active")

    def to_dict(self) -> dict:
        return asdict(self)

    @property
    def windows(self) -> tuple[int, ...]:
        """How far each layer looks back; a global layer as far as there can be tokens."""
        local = min(self.window or self.max_length, self.max_length)
        return tuple(
            self.max_length if self.global_every and (layer + 1) % self.global_every == 0 else local
            for layer in range(self.n_layers)
        )


PRESETS = {
    "cirilla-tiny": Config(
        d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=128, max_length=256
    ),  # tests
    # 8.6 M parameters: what two cores can train in an hour and a half.
    "cirilla-mini": Config(d_model=256, n_layers=6, n_heads=4, n_kv_heads=2, head_dim=64, d_ff=704, max_length=1_024),
    "cirilla": Config(),  # 76 M parameters, release size: what two cores can serve
    # 193 M parameters, of which a token meets 69 M: about the latency of "cirilla", with 2.5 times its memory.
    "cirilla-moe": Config(n_experts=8, n_active=2, d_expert=768),
    # The two models that a reader of today's papers meets first, small enough to run and to test ...
    "llama2-tiny": Config(
        d_model=64, n_layers=2, n_heads=4, n_kv_heads=4, head_dim=16, d_ff=172, max_length=256,
        norm_eps=1e-5, qk_norm=False, tied=False,
    ),
    "mistral-tiny": Config(
        d_model=64, n_layers=2, n_heads=4, n_kv_heads=1, head_dim=16, d_ff=224, max_length=256,
        norm_eps=1e-5, qk_norm=False, tied=False, window=32,
    ),
    # ... and in their true shapes (Touvron et al. 2023; Jiang et al. 2023), for comparing numbers: 6.7 and 7.2 billion.
    "llama2-7b": Config(
        vocab_size=32_000, d_model=4_096, n_layers=32, n_heads=32, n_kv_heads=32, head_dim=128, d_ff=11_008,
        max_length=4_096, norm_eps=1e-5, qk_norm=False, tied=False,
    ),
    "mistral-7b": Config(
        vocab_size=32_000, d_model=4_096, n_layers=32, n_heads=32, n_kv_heads=8, head_dim=128, d_ff=14_336,
        max_length=32_768, norm_eps=1e-5, qk_norm=False, tied=False, window=4_096,
    ),
}  # fmt: skip


class RMSNorm(nn.Module):
    """``weight · x / √(mean(x²) + eps)``, ``(..., width)`` → ``(..., width)`` (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Written out: F.rms_norm is several times slower on a CPU. In float32, since bf16 squares lose too much.
        y = x.float()
        return self.weight.to(x.dtype) * (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + hd/2]) by its position's angle: scores then depend on distance alone (RoPE).

    Args:
        x: ``(B, H, T, hd)`` queries or keys; the result has its shape and type.
        cos, sin: ``(T, hd)``, or ``(B, 1, T, hd)`` where rows have positions of their own, float32.

    ``sin`` carries the minus sign of its left half (``Cirilla.init_rotation``), which saves a negation at every layer.
    """
    left, right = x.chunk(2, dim=-1)
    # cos and sin are float32, and under autocast x is not: back to what x was.
    return (x * cos + torch.cat((right, left), dim=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions, and normalised queries and keys where ``config.qk_norm`` says so.

    Args:
        layer: from 0, the layer's place in the cache.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        self.q_proj = nn.Linear(config.d_model, config.n_heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.d_model, config.n_kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.d_model, config.n_kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.n_heads * config.head_dim, config.d_model, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, view: View, cache: KVCache | None) -> Tensor:
        """``(B, T, D)`` → ``(B, T, D)``; ``cos`` and ``sin`` as for :func:`rotate`.

        With a cache the T tokens look at those in it too, and their keys and values are added to it.
        """
        B, T, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, T, -1, self.config.head_dim)).transpose(1, 2)  # (B, H, T, hd)
        k = self.k_norm(self.k_proj(x).view(B, T, -1, self.config.head_dim)).transpose(1, 2)  # (B, G, T, hd)
        v = self.v_proj(x).view(B, T, -1, self.config.head_dim).transpose(1, 2)  # (B, G, T, hd)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, G, S, hd)
        y = attend(q, k, v, view)  # (B, H, T, hd)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))  # (B, T, D)


class SwiGLU(nn.Module):
    """The feed-forward network ``down(silu(gate(x)) · up(x))``, width ``config.d_ff`` inside (Shazeer 2020)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` → ``(..., D)``."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """A layer: attention, then SwiGLU or experts, each on the normalised stream and added to it (pre-norm)."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = Experts(config) if config.n_experts else SwiGLU(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, view: View, cache: KVCache | None, routing: list[Routing] | None
    ) -> Tensor:
        """``(B, T, D)`` → ``(B, T, D)``; arguments as for :meth:`Attention.forward` and :meth:`Experts.forward`."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, view, cache)
        y = self.post_attention_layernorm(x)
        return x + (self.mlp(y, routing) if isinstance(self.mlp, Experts) else self.mlp(y))


class Cirilla(nn.Module):
    """Token ids to next-token logits."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        if not config.tied:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.cos: Tensor
        self.sin: Tensor
        self.init_rotation()
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Normal, 0.02; what writes into the residual stream is smaller, since 2 × layers of it add up (GPT-2)."""
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                writes = name.endswith(("o_proj.weight", "down_proj.weight", "mlp.down"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layers) if writes else 0.02)
            else:
                nn.init.ones_(parameter)

    def init_rotation(self) -> None:
        """RoPE's angles, in float32 whatever the weights' type: bf16 cannot tell position 300 from 301."""
        c = self.config
        frequency = c.rope_theta ** (-torch.arange(0, c.head_dim, 2).float() / c.head_dim)
        angles = torch.outer(torch.arange(c.max_length).float(), frequency)  # (max_length, hd/2)
        cos, sin = angles.cos(), angles.sin()
        self.register_buffer("cos", torch.cat((cos, cos), dim=-1), persistent=False)  # (max_length, hd)
        self.register_buffer("sin", torch.cat((-sin, sin), dim=-1), persistent=False)  # (max_length, hd)

    def hidden(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        pad: Tensor | None = None,
        *,
        documents: Tensor | None = None,
        routing: list[Routing] | None = None,
        flex: bool | None = None,
    ) -> Tensor:
        """Final vectors of the new tokens, ``(B, T)`` → ``(B, T, D)``; the cache moves on by T.

        Args:
            pad: ``(B,)``, how many tokens at the left of each row are padding.  Nothing sees them and positions count
                from the first real token.  With a cache, give it with the first tokens: the cache remembers it.
            documents: ``(B, T)``, the number of the document that each token of a packed row belongs to.  Tokens see
                their own document alone and positions begin anew with each.
            routing: gets one :class:`lm.experts.Routing` for each layer with experts.
            flex: compute masked attention with FlexAttention; by default on a GPU, where there is no cache.

        Raises:
            ValueError: more tokens than ``max_length`` allows; padding or documents where they cannot be.
        """
        B, T = ids.shape
        start = cache.length if cache is not None else 0
        end = start + T
        if end > self.config.max_length:
            raise ValueError(f"{end} tokens are more than the {self.config.max_length} this model was made for")
        if documents is not None and (cache is not None or pad is not None):
            raise ValueError("packed documents are for training: they go without cache and padding")
        if cache is not None:
            if pad is not None and start:
                raise ValueError("padding is given with the first tokens: the cache remembers it")
            pad = cache.pad = pad if pad is not None else cache.pad
        # The index of the first token of each token's own text; None where all of them begin at 0.
        first = starts(documents) if documents is not None else pad[:, None].expand(B, T) if pad is not None else None

        x = self.embed_tokens(ids)
        if first is None:
            cos, sin = self.cos[start:end], self.sin[start:end]  # (T, hd)
        else:
            position = (torch.arange(start, end, device=ids.device) - first).clamp(min=0)  # (B, T)
            cos, sin = self.cos[position][:, None], self.sin[position][:, None]  # (B, 1, T, hd)
        flex = (ids.device.type == "cuda" if flex is None else flex) and cache is None
        views = {w: self.view(start, end, w, first, cache, ids.device, flex) for w in set(self.config.windows)}
        for layer, window in zip(self.layers, self.config.windows, strict=True):
            x = layer(x, cos, sin, views[window], cache, routing)
        if cache is not None:
            cache.advance(T)
        return self.norm(x)

    @staticmethod
    def view(
        start: int, end: int, window: int, first: Tensor | None, cache: KVCache | None, device: torch.device, flex: bool
    ) -> View:
        """What tokens ``start`` to ``end`` may look at in the layers with this window: as little mask as will do."""
        if first is None and end <= window:
            if end == start + 1:
                return View()  # a single token sees everything before it
            if start == 0:
                return View(causal=True)
        if flex:
            return flex_view(end, first, window, device)
        key = cache.positions(window, end - start) if cache is not None else torch.arange(end, device=device)
        return masked_view(torch.arange(start, end, device=device), key, first, window)

    def logits(self, hidden: Tensor) -> Tensor:
        """Final vectors ``(..., D)`` to logits ``(..., V)``."""
        logits = F.linear(hidden, self.embed_tokens.weight) if self.config.tied else self.lm_head(hidden)
        cap = self.config.soft_cap
        return cap * torch.tanh(logits / cap) if cap else logits

    def forward(self, ids: Tensor, cache: KVCache | None = None, pad: Tensor | None = None) -> Tensor:
        """Logits ``(B, T, V)``; arguments as for :meth:`hidden`."""
        return self.logits(self.hidden(ids, cache, pad))

    def prefill(self, ids: Tensor, cache: KVCache, pad: Tensor | None = None, chunk: int = 512) -> Tensor:
        """Read a prompt ``(B, T)`` into the cache ``chunk`` tokens at a time: the last token's vectors, ``(B, D)``.

        The same as :meth:`hidden` in one go, but the memory it takes besides the cache is that of one chunk.
        """
        hidden = self.hidden(ids[:, :chunk], cache, pad)
        for start in range(chunk, ids.shape[1], chunk):
            hidden = self.hidden(ids[:, start : start + chunk], cache)
        return hidden[:, -1]

    def loss(
        self, ids: Tensor, targets: Tensor, documents: Tensor | None = None, *, flex: bool | None = None
    ) -> Tensor:
        """Mean cross-entropy where ``targets`` is not -100; all ``(B, T)``, ``documents`` as for :meth:`hidden`.

        In training mode a model with experts adds their balance loss, ``config.balance`` times its mean over layers.
        It counts every position, padding too, which nothing here tells from a prompt; packed rows have little of it.
        """
        routing: list[Routing] | None = [] if self.config.n_experts and self.training else None
        hidden = self.hidden(ids, documents=documents, routing=routing, flex=flex)
        if not torch.compiler.is_compiling():
            # In tuning most tokens are prompt; only those with a target reach the vocabulary.  Compiled code wants
            # shapes that do not depend on data, so there all tokens do, and cross_entropy leaves out the others.
            wanted = targets != -100
            hidden, targets = hidden[wanted], targets[wanted]
        loss = F.cross_entropy(self.logits(hidden).float().flatten(0, -2), targets.flatten())
        if routing:
            loss = loss + self.config.balance * torch.stack([r.balance_loss() for r in routing]).mean()
        return loss

    def matmul_parameters(self) -> int:
        """Weights that one token is multiplied with: what it costs, where experts and embeddings would mislead."""
        c, total = self.config, 0
        for name, parameter in self.named_parameters():
            if parameter.ndim == 3:  # the matrices of all experts, of which a token visits a few
                total += parameter.numel() * c.n_active // c.n_experts
            elif parameter.ndim == 2 and (c.tied or "embed_tokens" not in name):
                total += parameter.numel()
        return total
