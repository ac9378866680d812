"""Keys and values of the tokens seen so far, so that each new token costs one token's work.

A global layer keeps every token.  A layer with a sliding window of W needs the last W alone, so its buffer is a ring
(Mistral, Jiang et al. 2023): index i lies in slot ``i % size``, and a new token overwrites the one that fell out of the
window.  Memory is bounded by the window however long the text grows.

The ring has ``slack`` slots more than the window.  Speculative decoding writes tokens that it may have to take back,
and what they overwrote must not be needed any more: up to ``slack`` tokens can be taken back (:meth:`KVCache.rewind`).

Shapes in comments: B sequences, G key-value heads, T new tokens, S tokens to look at, hd head width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lm.native import large

if TYPE_CHECKING:
    from lm.model import Config


class KVCache:
    """One pair of buffers a layer, filled in place.

    Attributes:
        length: tokens seen so far, padding included; the next token gets this index.
        pad: ``(B,)`` left-padding tokens of each row, or None (see :meth:`lm.model.Cirilla.hidden`).
    """

    def __init__(
        self,
        config: Config,
        batch: int = 1,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        slack: int = 32,
    ) -> None:
        self.windows = config.windows
        self.slack, self.max_length = slack, config.max_length
        shapes = [(batch, config.n_kv_heads, self.size(w), config.head_dim) for w in self.windows]  # (B, G, size, hd)
        sizes = [math.prod(shape) for shape in shapes]
        # One piece of memory for all: that is what large pages want.
        on_cpu = torch.device(device).type == "cpu"
        whole = large(2 * sum(sizes), dtype) if on_cpu else torch.zeros(2 * sum(sizes), dtype=dtype, device=device)
        # Detached: autograd would not let views of one tensor be written to as they are here.
        keys, values = (half.split(sizes) for half in whole.chunk(2))
        self.keys = [part.view(shape).detach() for part, shape in zip(keys, shapes, strict=True)]
        self.values = [part.view(shape).detach() for part, shape in zip(values, shapes, strict=True)]
        self.length = 0
        self.written = 0  # the highest index ever written, plus one: what lies behind ``length`` is stale
        self.pad: Tensor | None = None

    def size(self, window: int) -> int:
        """Slots of a layer with this window."""
        return min(self.max_length, window + self.slack)

    def _in_place(self, window: int, new: int) -> bool:
        """Whether ``new`` tokens can be written before attention looks: they overwrite nothing that it needs."""
        return max(self.written, self.length + new) <= self.size(window) or new <= self.size(window) - window + 1

    def positions(self, window: int, new: int) -> Tensor:
        """Index of each key that :meth:`extend` will return for ``new`` tokens, ``(S,)``, in its order."""
        device, size, end = self.keys[0].device, self.size(window), self.length + new
        high = max(self.written, end)
        if not self._in_place(window, new):
            return torch.arange(max(0, self.length - window + 1), end, device=device)
        if high <= size:
            return torch.arange(end, device=device)
        # Slot s holds the highest index written to it; those from ``end`` on are stale and in every query's future.
        return high - 1 - (high - 1 - torch.arange(size, device=device)) % size

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write T new tokens, ``(B, G, T, hd)`` each; the keys and values to look at come back, ``(B, G, S, hd)``.

        Every layer extends by the same T tokens; then :meth:`advance` counts them.
        """
        window = self.windows[layer]
        return self._extend(self.keys[layer], k, window), self._extend(self.values[layer], v, window)

    def _extend(self, buffer: Tensor, x: Tensor, window: int) -> Tensor:
        size, new = buffer.shape[2], x.shape[2]
        end = self.length + new
        if self._in_place(window, new):
            put(buffer, x, self.length)
            return buffer[:, :, : end if max(self.written, end) <= size else size]
        # More new tokens than free slots: look at the old window and the new tokens side by side, then keep the last.
        old = torch.arange(max(0, self.length - window + 1), self.length, device=x.device) % size
        joined = torch.cat((buffer[:, :, old], x), dim=2)
        kept = min(new, size)
        put(buffer, x[:, :, new - kept :], end - kept)
        return joined

    def advance(self, new: int) -> None:
        """Count ``new`` tokens that every layer has written."""
        self.length += new
        self.written = max(self.written, self.length)

    def rewind(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens (nothing is erased: it will be written over).

        Going back to 0 always works.

        Raises:
            ValueError: a ring has already overwritten what the tokens before ``length`` would have to see.
        """
        if length <= 0:
            self.length, self.written, self.pad = 0, 0, None
        elif length < self.length:
            for window in set(self.windows):
                if self.written - self.size(window) > max(0, length - window + 1):
                    raise ValueError(
                        f"cannot go back from token {self.written} to {length}: a window of {window} keeps "
                        f"{self.slack} tokens more, no further; rewind to 0 and read the text again"
                    )
            self.length = length


def put(buffer: Tensor, x: Tensor, index: int) -> None:
    """Write ``(B, G, T, hd)`` tokens into the ring ``(B, G, size, hd)``, the first one at ``index``; T ≤ size."""
    size, new = buffer.shape[2], x.shape[2]
    slot = index % size
    before_the_edge = min(new, size - slot)
    buffer[:, :, slot : slot + before_the_edge] = x[:, :, :before_the_edge]
    if new > before_the_edge:
        buffer[:, :, : new - before_the_edge] = x[:, :, before_the_edge:]
