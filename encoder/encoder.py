"""Texts to unit vectors: what the rest of the house sees of the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
import torch

from encoder import files
from encoder.bag import Bag
from encoder.model import EncoderModel, mean_pool

TOKENS_PER_BATCH = 8_192
"""Padded tokens that go through the model at once: large enough to keep two cores busy, small enough for the cache."""


def best_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware (three times faster there), else float32."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


class Encoder:
    """A loaded encoder.  ``model_hash`` names its weights: vectors of different hashes never meet in one index."""

    def __init__(self, model: EncoderModel | Bag, tokenizer: tokenizers.Tokenizer, model_hash: str) -> None:
        self.model, self.tokenizer, self.model_hash = model, tokenizer, model_hash

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype | None = None) -> Encoder:
        """Open a released folder; ``dtype`` is :func:`best_dtype` unless given, and float32 for a bag, which adds only.

        Raises:
            EncoderError: see :func:`encoder.files.load`.
        """
        model, tokenizer, name = files.load(Path(folder))
        if dtype is None:
            dtype = torch.float32 if isinstance(model, Bag) else best_dtype()
        return cls(model.to(dtype), tokenizer, name)

    @property
    def dimension(self) -> int:
        return self.model.config.d_model

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray:
        """Unit vectors of questions, ``(n, dimension)`` float32."""
        return self.encode(queries)

    def encode_passages(self, passages: Sequence[tuple[str, str]]) -> np.ndarray:
        """Unit vectors of (heading, text) pairs, ``(n, dimension)`` float32."""
        return self.encode([f"{heading}\n{text}" for heading, text in passages])

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors in the order given; a text beyond the maximum length is cut there."""
        out = np.zeros((len(texts), self.dimension), dtype=np.float32)
        device = next(self.model.parameters()).device
        ids = [e.ids for e in self.tokenizer.encode_batch_fast(list(texts))]
        # By length, so that texts in a batch are alike and little is spent on padding.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(ids[order[end]]) <= TOKENS_PER_BATCH:
                end += 1
            rows = order[start:end]
            batch = torch.full((len(rows), len(ids[rows[-1]])), self.model.config.pad_id)
            keep = torch.zeros(batch.shape, dtype=torch.bool)
            for row, i in enumerate(rows):
                batch[row, : len(ids[i])] = torch.tensor(ids[i])
                keep[row, : len(ids[i])] = True
            padded = not keep.all()  # asked on the CPU, where nothing waits
            batch, keep = batch.to(device), keep.to(device)
            out[rows] = mean_pool(self.model(batch, keep if padded else None), keep).cpu().numpy()
            start = end
        return out
