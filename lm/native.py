"""Decoding in C: ``lm/native.c``, compiled for this computer the first time that it is wanted.

A token is 76 million multiplications, and in PyTorch about a thousand small calls around them.  Here all layers are one
call, and the weights are one stream on large pages.  Prompts, which are many tokens, stay in PyTorch.  One token of the
release size after 800 others, one thread on a busy Zen 4 core, medians of turns taken one after the other::

    llama.cpp, SmolLM2-135M Q4_1      17.3 ms
    lm/quantize.py                    16.0 ms
    this                               6.2 ms

Nothing depends on this, and it is off until ``CIRILLA_NATIVE=1`` asks for it, since it runs a compiler and keeps what
that makes in the user's cache folder.  Without it, without a C compiler, or for a model with experts or sliding
windows, :mod:`lm.quantize` does the same by itself.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from ctypes import POINTER, Structure, c_float, c_int32, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lm.cache import KVCache
    from lm.model import Config

SOURCE = Path(__file__).with_name("native.c")
TOKENS = 16  # in one pass at most: a token and a draft
PIECE = 256  # as in native.c
# -ffast-math without what would change the arithmetic of the whole process (denormal numbers).
FLAGS = (
    *("-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-ffinite-math-only"),
)
SECONDS = 60  # for the compiler at most


class Matrix(Structure):
    """``Matrix`` of native.c: addresses of int8 rows ``(n, k)``, their scales ``(n,)`` float32 and sums int32."""

    _fields_ = [("rows", c_void_p), ("scale", c_void_p), ("sums", c_void_p), ("n", c_int32), ("k", c_int32)]


class Layer(Structure):
    """``Layer`` of native.c: addresses of three norms' weights (``heads`` may be null), and four matrices."""

    _fields_ = [
        *((name, c_void_p) for name in ("before", "between", "heads")),
        *((name, Matrix) for name in ("qkv", "o", "gate_up", "down")),
    ]


class Model(Structure):
    """``Model`` of native.c: sizes, addresses of the angles and of the last norm, and the layers."""

    _fields_ = [
        *((name, c_int32) for name in ("layers", "width", "heads", "groups", "head", "inner")),
        ("eps", c_float),
        *((name, c_void_p) for name in ("cos", "sin", "norm")),
        ("layer", POINTER(Layer)),
    ]


def processor() -> str:
    """What ``-march=native`` depends on: a folder of caches may be shared by unlike computers."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return platform.processor()


@functools.cache
def library() -> ctypes.CDLL | None:
    """``native.c``, compiled; None where it cannot be or is not wanted."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if os.environ.get("CIRILLA_NATIVE") != "1" or not compiler or not SOURCE.exists():
        return None
    recipe = "\n".join((SOURCE.read_text(), compiler, *FLAGS, platform.platform(), processor()))
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cirilla"
        made = folder / f"native-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.so"
        if not made.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as part:
                fresh = Path(part) / made.name
                command = [compiler, *FLAGS, str(SOURCE), "-o", str(fresh), "-lm"]
                subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
                fresh.replace(made)  # whole, or not at all
        found = ctypes.CDLL(str(made))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # no home, no room, no luck
        return None
    number, address = ctypes.c_int, c_void_p
    found.decode.argtypes = [POINTER(Model), address, number, number, address, address, number, address, number]
    found.linear.argtypes = [POINTER(Matrix), address, address, number, number]
    found.wish_large_pages.argtypes = [address, ctypes.c_size_t]
    for function in (found.decode, found.linear, found.wish_large_pages):
        function.restype = None
    return found


def suits(config: Config) -> bool:
    """Whether ``native.c`` knows all that such a model is made of."""
    return not config.n_experts and not config.window and config.head_dim % 2 == 0


def large(size: int, dtype: torch.dtype) -> Tensor:
    """Zeros, ``(size,)``, on large pages where the system has some to give."""
    made = torch.zeros(size, dtype=dtype)
    page = 1 << 21  # only whole ones can be wished for
    first = -(-made.data_ptr() // page) * page
    if (whole := (made.data_ptr() + made.nbytes - first) // page) > 0 and (lib := library()) is not None:
        lib.wish_large_pages(first, whole * page)
    return made


class Decoder:
    """The layers of an int8 model as ``native.c`` takes them.

    Args:
        config: of a model that it :func:`suits`.
        layers: for each layer the norms before attention and before the feed-forward network ``(D,)``, those of its
            heads ``(H + G, hd)`` or None, and four matrices (queries, keys and values; output; gate and up; down), each
            as int8 rows ``(N, K)`` and scales ``(N,)``.
        norm: ``(D,)``, the last one.
        head: the output matrix, as the others.
        cos, sin: ``(positions, hd)``.

    Raises:
        ValueError: there is no compiled code, or it does not suit the model.
    """

    def __init__(
        self,
        config: Config,
        layers: list[tuple[Tensor, Tensor, Tensor | None, list[tuple[Tensor, Tensor]]]],
        norm: Tensor,
        head: tuple[Tensor, Tensor],
        cos: Tensor,
        sin: Tensor,
    ) -> None:
        lib = library()
        if lib is None or not suits(config):
            raise ValueError("there is no compiled code for such a model here")
        self.lib, self.config = lib, config
        self.kept: list[Tensor] = []  # everything that C holds an address of
        # All matrices one behind the other, in the order in which they are read: memory is what decoding waits for.
        every = [rows for _, _, _, matrices in layers for rows, _ in matrices]
        self.weights = large(sum(rows.numel() for rows in every) + head[0].numel(), torch.int8)
        self.at = 0
        blocks = (Layer * len(layers))()
        for block, (before, between, heads, matrices) in zip(blocks, layers, strict=True):
            block.before, block.between = self.keep(before), self.keep(between)
            block.heads = None if heads is None else self.keep(heads)
            block.qkv, block.o, block.gate_up, block.down = (self.matrix(*pair) for pair in matrices)
        self.head = self.matrix(*head)
        c = config
        self.model = Model(
            *(c.n_layers, c.d_model, c.n_heads, c.n_kv_heads, c.head_dim, c.d_ff, c.norm_eps),
            *(self.keep(cos), self.keep(sin), self.keep(norm), blocks),
        )

    def keep(self, tensor: Tensor) -> int:
        """Its address, good as long as this object lives."""
        self.kept.append(tensor.detach().float().contiguous())
        return self.kept[-1].data_ptr()

    def matrix(self, rows: Tensor, scale: Tensor) -> Matrix:
        """int8 rows ``(N, K)``, copied behind those before them, with scales ``(N,)``."""
        place = self.weights[self.at : self.at + rows.numel()]
        place.copy_(rows.flatten())
        self.at += rows.numel()
        self.kept.append(rows.sum(1, dtype=torch.int32))
        return Matrix(place.data_ptr(), self.keep(scale), self.kept[-2].data_ptr(), *rows.shape)

    def takes(self, cache: KVCache, ids: Tensor) -> bool:
        """Whether tokens ``(B, T)`` can be decoded here after those in the cache."""
        rows, tokens = ids.shape
        fits = rows == 1 and tokens <= TOKENS and cache.length + tokens <= self.config.max_length
        return fits and cache.pad is None and cache.keys[0].dtype == torch.float32

    def decode(self, x: Tensor, cache: KVCache) -> Tensor:
        """Embedded tokens ``(1, T, D)`` → final vectors, ``(1, T, D)``; the cache gets their keys and values."""
        c, tokens, x = self.config, x.shape[1], x.clone(memory_format=torch.contiguous_format)
        pieces = -(-(cache.length + tokens) // PIECE)
        heads = (c.n_heads + 2 * c.n_kv_heads) * c.head_dim
        room = torch.empty(tokens * (heads + 2 * c.d_ff + c.n_heads * pieces * (c.head_dim + 2)))
        keys, values = (
            (c_void_p * c.n_layers)(*(buffer.data_ptr() for buffer in buffers))
            for buffers in (cache.keys, cache.values)
        )
        slots = cache.keys[0].shape[2]
        self.lib.decode(
            *(self.model, x.data_ptr(), tokens, cache.length, keys, values, slots, room.data_ptr()),
            torch.get_num_threads(),
        )
        cache.advance(tokens)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Final vectors ``(…, D)`` → ``(…, V)``."""
        x = x.contiguous()
        y = torch.empty(*x.shape[:-1], self.head.n)
        self.lib.linear(self.head, x.data_ptr(), y.data_ptr(), x.numel() // x.shape[-1], torch.get_num_threads())
        return y
