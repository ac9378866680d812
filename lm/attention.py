"""Who may look at whom: one rule for every kind of attention here, and two ways to compute with it.

A token at index ``query`` sees the token at index ``key`` when

    key <= query                    it is not in the future             (causal)
    key >= first                    it belongs to the query's own text  (documents of a packed row, left padding)
    query - key < window            it is near enough                   (sliding window, Mistral: Jiang et al. 2023)

``first`` is the index of the first token of the query's own text.  Texts in a row lie one behind the other, so nothing
else is needed to keep them apart, and a token's position within its text is ``index - first``.

Without documents, padding, window or cache this is plain causal attention and no mask is made at all.  Otherwise a CPU
gets a boolean mask, and a GPU FlexAttention (Dong et al. 2024), which compiles the rule into its kernel and skips the
blocks in which nobody sees anybody.

Shapes in comments: B sequences, T new tokens, S tokens that they may look at, H query heads, G key-value heads, hd head
width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class View:
    """What the new tokens of one forward pass may look at: nothing set, they look at everything."""

    causal: bool = False  # new token t sees new tokens 0..t, and there are no older ones
    mask: Tensor | None = None  # (T, S) or (B, 1, T, S), True where the query sees the key
    blocks: Any = None  # the rule as FlexAttention takes it, a BlockMask


def sees(query: Tensor, key: Tensor, first: Tensor, window: int) -> Tensor:
    """The rule above; the arguments broadcast."""
    return (key <= query) & (key >= first) & (query - key < window)


def starts(documents: Tensor) -> Tensor:
    """Index at which each token's document begins: ``(B, T)`` document numbers → ``(B, T)``."""
    index = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return torch.where(begins, index, 0).cummax(1).values  # (B, T)


def masked_view(query: Tensor, key: Tensor, first: Tensor | None, window: int) -> View:
    """For ``F.scaled_dot_product_attention``: ``(T,)`` and ``(S,)`` indices, ``first`` ``(B, T)`` or None."""
    query = query[:, None]  # (T, 1)
    if first is None:
        return View(mask=sees(query, key, torch.zeros_like(query), window))  # (T, S)
    # Padding sees itself: a row of the softmax over nothing would be NaN.
    mask = sees(query, key, first[..., None], window) | (key == query)  # (B, T, S)
    return View(mask=mask[:, None])


def flex_view(length: int, first: Tensor | None, window: int, device: torch.device) -> View:
    """For FlexAttention: the same rule over a row of ``length`` tokens, without a cache."""
    from torch.nn.attention.flex_attention import create_block_mask

    zero = torch.zeros((), dtype=torch.long, device=device)

    def rule(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(query, key, zero if first is None else first[b, query], window)

    rows = None if first is None else first.shape[0]
    return View(blocks=create_block_mask(rule, rows, None, length, length, device=str(device)))


@cache
def compiled_flex() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def attend(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
    """Attention of ``(B, H, T, hd)`` queries over ``(B, G, S, hd)`` keys and values → ``(B, H, T, hd)``."""
    if view.blocks is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=view.mask, is_causal=view.causal, enable_gqa=True)
    from torch.nn.attention.flex_attention import flex_attention

    # Inside a compiled model it is compiled with it; on a CPU the tests take the slow, uncompiled one.
    inside = torch.compiler.is_compiling() or q.device.type == "cpu"
    flex: Any = flex_attention if inside else compiled_flex()
    return flex(q, k, v, block_mask=view.blocks, enable_gqa=True)
