"""A BERT-style encoder with today's parts, in one file.

What differs from BERT (Devlin et al. 2019), each choice as in ModernBERT (Warner et al. 2024):
- no position table: rotary embeddings (RoPE, Su et al. 2021) turn queries and keys
- pre-norm: the residual stream is only added to; LayerNorm without bias
- GeGLU instead of a plain MLP (Shazeer 2020); no biases in linear layers
- layers may look at a local window only, every n-th at everything
- no token types, no next-sentence task, no [CLS]: a text's vector is the mean of its tokens' vectors

Parameter names and shapes are those of ``ModernBertModel``, so a folder of this model opens with plain
``SentenceTransformer(path)`` and no custom code, and the tests can compare this file with an independent
implementation, value by value.

Shapes in comments: B texts, T tokens, D model width, H heads, hd head width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class EncoderConfig:
    vocab_size: int = 16_384
    d_model: int = 256
    n_layers: int = 4
    n_heads: int = 4
    d_ff: int = 640
    max_length: int = 512
    global_every: int = 1  # every n-th layer attends to all tokens, the others to a window; 1: all of them do
    window: int = 128  # tokens that a local layer sees, half to each side
    rope_theta: float = 10_000.0
    pad_id: int = 0

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    def is_global(self, layer: int) -> bool:
        return layer % self.global_every == 0

    def to_dict(self) -> dict:
        return asdict(self)


PRESETS = {
    "encoder-tiny": EncoderConfig(d_model=64, n_layers=2, n_heads=2, d_ff=128, max_length=128),  # for tests
    "encoder-mini": EncoderConfig(),  # 7.2 M parameters, 3.0 M of them outside the embedding: what two cores can train
    "encoder": EncoderConfig(d_model=384, n_layers=6, n_heads=6, d_ff=1024, global_every=3),  # release size
}


class Embeddings(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, bias=False)

    def forward(self, ids: Tensor, marks: Tensor | None = None) -> Tensor:
        """``(B, T)`` int64, and ``marks`` to add ``(B, T, D)`` → ``(B, T, D)``."""
        x = self.tok_embeddings(ids)  # (B, T, D)
        return self.norm(x if marks is None else x + marks)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + hd/2]) by its position's angle: scores then depend on distance alone."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.n_heads, self.head_dim = config.n_heads, config.head_dim
        self.Wqkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.Wo = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """``(B, T, D)``, angles ``(T, hd/2)`` each, mask as :meth:`EncoderModel.attention_mask` → ``(B, T, D)``."""
        B, T, D = x.shape
        q, k, v = self.Wqkv(x).view(B, T, 3, self.n_heads, self.head_dim).permute(2, 0, 3, 1, 4)  # each (B, H, T, hd)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, attn_mask=mask)  # (B, H, T, hd)
        return self.Wo(y.transpose(1, 2).reshape(B, T, D))


class GeGLU(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.Wi = nn.Linear(config.d_model, 2 * config.d_ff, bias=False)
        self.Wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, D)`` → ``(B, T, D)``."""
        value, gate = self.Wi(x).chunk(2, dim=-1)  # (B, T, F) each
        return self.Wo(F.gelu(value) * gate)


class Layer(nn.Module):
    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        # The embedding is normalised already, so the first layer needs no norm of its own.
        self.attn_norm = nn.Identity() if index == 0 else nn.LayerNorm(config.d_model, bias=False)
        self.attn = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.d_model, bias=False)
        self.mlp = GeGLU(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """The residual stream, ``(B, T, D)`` → ``(B, T, D)``; the rest as in :class:`Attention`."""
        x = x + self.attn(self.attn_norm(x), cos, sin, mask)
        return x + self.mlp(self.mlp_norm(x))


class EncoderModel(nn.Module):
    """Token ids to contextual token vectors."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.n_layers))
        self.final_norm = nn.LayerNorm(config.d_model, bias=False)
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
        """Truncated normal, 0.02; what writes into the residual stream is smaller, since 2 × layers of it add up."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = 0.02 / math.sqrt(2 * self.config.n_layers) if name.endswith("Wo.weight") else 0.02
                nn.init.trunc_normal_(parameter, std=std, a=-3 * std, b=3 * std)
            else:
                nn.init.ones_(parameter)

    def attention_mask(self, T: int, keep: Tensor | None, is_global: bool) -> Tensor | None:
        """Which key each query may see, ``(B or 1, 1, 1 or T, T)`` bool; ``None``: every token sees every token."""
        mask = None if keep is None else keep[:, None, None, :]
        if not is_global and self.config.window // 2 < T - 1:
            place = torch.arange(T, device=self.cos.device)
            distance = (place[:, None] - place[None, :]).abs()  # (T, T)
            near = distance <= self.config.window // 2
            # A query far outside a short text would see no key at all and turn into NaN: padding sees itself.
            mask = near[None, None] if mask is None else mask & near | (distance == 0)
        return mask

    def forward(self, ids: Tensor, keep: Tensor | None = None, marks: Tensor | None = None) -> Tensor:
        """Contextual vectors.

        Args:
            ids: token ids, ``(B, T)``, T at most ``config.max_length``.
            keep: ``(B, T)`` bool, False on padding; ``None`` where the caller knows that there is none, which saves
                the mask.  To look for padding here would make a GPU wait and break a compiled graph.
            marks: ``(B, T, D)``, added to the token embeddings; the second stage marks tokens in this way.

        Returns:
            ``(B, T, D)``; what stands at padded places is meaningless.

        Raises:
            ValueError: T is beyond ``config.max_length``.
        """
        T = ids.shape[1]
        if self.config.max_length < T:
            raise ValueError(f"{T} tokens, but this encoder reads {self.config.max_length} at most")
        x = self.embeddings(ids, marks)
        if torch.is_autocast_enabled(ids.device.type):
            # The residual stream takes the matrices' type: left in float32 it costs a cast at every linear layer.
            x = x.to(torch.get_autocast_dtype(ids.device.type))
        cos, sin = (t[:T].to(x.dtype) for t in (self.cos, self.sin))
        masks = {
            kind: self.attention_mask(T, keep, kind)
            for kind in {self.config.is_global(i) for i in range(len(self.layers))}
        }
        for i, layer in enumerate(self.layers):
            x = layer(x, cos, sin, masks[self.config.is_global(i)])
        return self.final_norm(x)


def token_mean(vectors: Tensor, keep: Tensor) -> Tensor:
    """Mean of the real tokens' vectors: ``(B, T, D)``, ``(B, T)`` → ``(B, D)`` float32."""
    weight = keep.unsqueeze(-1).float()
    return (vectors.float() * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


def mean_pool(vectors: Tensor, keep: Tensor) -> Tensor:
    """The mean at unit length, which is a text's vector: ``(B, T, D)``, ``(B, T)`` → ``(B, D)`` float32."""
    return F.normalize(token_mean(vectors, keep), dim=-1)


class MaskedLM(nn.Module):
    """The encoder with a vocabulary head, for pretraining; the output matrix is the embedding itself."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.model = EncoderModel(config)
        self.dense = nn.Linear(config.d_model, config.d_model, bias=False)
        self.norm = nn.LayerNorm(config.d_model, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        nn.init.normal_(self.dense.weight, std=0.02)

    def forward(self, ids: Tensor, places: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy at the K hidden places.

        Args:
            ids: masked token ids without padding, ``(B, T)``.
            places, targets: ``(K,)`` each, as :func:`mask_tokens` gives them.
        """
        # Only hidden places reach the vocabulary: V × D is most of a small model's arithmetic.
        hidden = self.model(ids).flatten(0, 1).index_select(0, places)  # (K, D)
        hidden = self.norm(F.gelu(self.dense(hidden)))
        logits = F.linear(hidden, self.model.embeddings.tok_embeddings.weight) + self.bias  # (K, V)
        return F.cross_entropy(logits.float(), targets)


class Classifier(nn.Module):
    """The encoder with a head that sorts texts into classes; names as in ``ModernBertForSequenceClassification``.

    Nothing in the app sorts texts: it is here for whoever builds on this encoder.
    """

    def __init__(self, model: EncoderModel, n_classes: int) -> None:
        super().__init__()
        width = model.config.d_model
        self.model = model
        self.head = nn.ModuleDict(
            {"dense": nn.Linear(width, width, bias=False), "norm": nn.LayerNorm(width, bias=False)}
        )
        self.classifier = nn.Linear(width, n_classes)
        for matrix in (self.head.get_parameter("dense.weight"), self.classifier.weight):
            nn.init.normal_(matrix, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        """Logits of the classes, ``(B, n_classes)`` float32; ``ids`` and ``keep`` as in :class:`EncoderModel`."""
        x = token_mean(self.model(ids, keep), keep)  # (B, D)
        return self.classifier(self.head["norm"](F.gelu(self.head["dense"](x))))


def mask_tokens(
    ids: Tensor,
    mask_id: int,
    vocab_size: int,
    n_special: int,
    share: float = 0.3,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Hide ``share`` of the tokens: 80 % become the mask, 10 % a random token, 10 % stay (Devlin et al. 2019).

    30 % rather than BERT's 15 % trains small models better (Wettig et al. 2023).  Special tokens are never chosen.  All
    batches of one shape hide equally many tokens (unless there are too few to choose from): a compiled model wants
    tensors of one size.

    Returns:
        masked ids ``(B, T)``; the hidden places as indices into the flattened batch, ``(K,)`` in random order; the
        tokens that stood there, ``(K,)``.
    """
    masked = ids.flatten().clone()
    choice = (masked >= n_special).nonzero()[:, 0]
    places = choice[torch.randperm(len(choice), generator=generator)[: round(share * len(masked))]]
    targets = masked[places]
    first, second = round(0.8 * len(places)), round(0.9 * len(places))
    masked[places[:first]] = mask_id
    masked[places[first:second]] = torch.randint(n_special, vocab_size, (second - first,), generator=generator)
    return masked.view_as(ids), places, targets
