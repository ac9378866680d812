"""Word vectors: each token has a learned vector, and a text's vector is their mean, whatever their order.

Word vectors averaged (Wieting et al. 2016; ``StaticEmbedding`` in sentence-transformers).  A token costs an addition
here and millions of multiplications in a transformer, so two cores show such a table a million pairs in batches of
thousands within minutes, and that buys more than layers which have seen a thousandth of the text that they need:
docs/training-log.md has the figures.  The length of a token's vector acts as its weight: *Calanthe* long, *the* short.

It stands where :class:`encoder.model.EncoderModel` stands: token ids to token vectors, pooled by mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class BagConfig:
    vocab_size: int = 16_384
    d_model: int = 384
    max_length: int = 512  # tokens of a text that are looked at
    pad_id: int = 0


class Bag(nn.Module):
    """Token ids to token vectors that know nothing of one another."""

    def __init__(self, config: BagConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, ids: Tensor, keep: Tensor | None = None) -> Tensor:
        """``(B, T)`` → ``(B, T, D)``; ``keep``, which :class:`encoder.model.EncoderModel` needs, changes nothing."""
        return self.embedding(ids)
