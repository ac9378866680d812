"""Prompt in, tokens out, one at a time, with a key-value cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.model import Cirilla, KVCache


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    probability: float  # under the model's own distribution, before temperature and truncation


def pick(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None) -> int:
    """One token id from ``(V,)`` logits: the best at temperature 0, else sampled.

    Sampling keeps the ``top_k`` best and the nucleus that holds ``top_p`` of the mass (Holtzman et al. 2020).
    """
    if temperature <= 0:
        return int(logits.argmax())
    probabilities, ids = torch.softmax(logits / temperature, -1).sort(descending=True)
    # Keep the smallest set whose mass reaches top_p: a token stays if the mass before it is still short of that.
    probabilities[probabilities.cumsum(-1) - probabilities >= top_p] = 0.0
    if top_k:
        probabilities[top_k:] = 0.0
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])


@torch.inference_mode()
def stream(
    model: Cirilla,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    stop: frozenset[int] = frozenset(),
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    cache: KVCache | None = None,
) -> Iterator[Token]:
    """Continue ``prompt`` token by token until a ``stop`` token (not yielded), the limit, or the model's length.

    Args:
        repetition_penalty: divides the positive logits of tokens already generated, multiplies the negative ones
            (Keskar et al. 2019); 1 leaves them alone.  The prompt does not count: answers copy from it.
        cache: an empty cache to use, for callers that want to keep it.

    Raises:
        ValueError: the prompt is empty, or fills the model's length.
    """
    if not prompt or len(prompt) >= model.config.max_length:
        raise ValueError(f"a prompt has 1 to {model.config.max_length - 1} tokens, not {len(prompt)}")
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    cache = cache or KVCache(model.config, dtype=model.embed_tokens.weight.dtype)
    new = torch.tensor([list(prompt)])
    seen: list[int] = []
    for _ in range(min(max_new_tokens, model.config.max_length - len(prompt))):
        vectors = model.hidden(new, cache)[0, -1]  # only the last position meets the vocabulary
        logits = torch.mv(model.embed_tokens.weight, vectors).float()  # (V,)
        distribution = torch.softmax(logits, -1)
        if repetition_penalty != 1.0 and seen:
            again = logits[seen]
            logits[seen] = torch.where(again > 0, again / repetition_penalty, again * repetition_penalty)
        token = pick(logits, temperature, top_k, top_p, generator)
        if token in stop:
            return
        yield Token(token, float(distribution[token]))
        seen.append(token)
        new = torch.tensor([[token]])
