"""Int8: a quarter of the memory and twice the speed, for a model that runs on two CPU cores.

    python -m lm.quantize --from runs/cirilla/model --out runs/cirilla-int8          # a folder half as large as in bf16
    python -m lm.quantize --from runs/cirilla-int8 --out runs/cirilla-floats --floats  # … for transformers and others

Both folders answer alike where int8 is multiplied; what the rounding took does not come back.

**Weights.**  Every row of a matrix is divided by its largest magnitude and rounded to -127 … 127; the row keeps that
magnitude as a float32 scale.  The embedding, a seventh of the release, is one of those matrices.  This is what is on
disk (:func:`save_int8`), and what is read back is int8 or floats, as the computer likes it.

**Arithmetic.**  Where the CPU has the instructions, int8 is also what is multiplied: each token's vector is quantised
in the same way on the fly (LLM.int8(), Dettmers et al. 2022, without its outliers: a test holds the error down).
Every token has a scale of its own and sums of integers are exact, so what a matrix makes of a token does not depend on
the tokens beside it: verifying a draft in one pass (:mod:`lm.speculate`) multiplies to the same numbers as decoding it
token by token.  One scale for all tokens, as in ``torch``'s dynamic quantisation, would not have that property.

**Alternatives measured** on one Zen 4 core, 800 rows by a matrix of 3584 × 640, and one row by one of 16384 × 640::

    float32                       39.0 ms   3.57 ms
    bf16                          19.2 ms   2.42 ms    or 0.85 ms with weights packed in advance
    torch._weight_int8pack_mm     50.0 ms   0.61 ms    int8 weights, bf16 activations
    this                          10.8 ms   0.19 ms    the 800 rows in pieces of 128, which stay in the CPU's cache

Shapes in comments: B sequences, T new tokens, S tokens to look at, D model width, H query heads, G key-value heads,
hd head width, N rows and K columns of any matrix.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lm import native
from lm.attention import View, attend
from lm.cache import KVCache
from lm.errors import LMError
from lm.experts import Experts
from lm.model import Cirilla, Config, rotate

WEIGHTS = "model.int8.safetensors"  # in a released folder
LEVELS = 127
SCALE = ".scale"  # the scales of "norm.weight" would be "norm.weight.scale"


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """``(…, N, K)`` floats → int8 of the same shape, and float32 scales ``(…, N)``; a row of zeros has scale 0."""
    weight = weight.detach().float()
    scale = weight.abs().amax(-1) / LEVELS  # (…, N)
    steps = weight / scale.clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    return steps.round().to(torch.int8), scale


def dequantize_rows(weight: Tensor, scale: Tensor) -> Tensor:
    """The inverse of :func:`quantize_rows` but for the rounding, in float32."""
    return weight.float() * scale[..., None]


def supported() -> bool:
    """Whether this CPU and this build of torch multiply int8; without, int8 weights are computed with as floats."""
    return torch.backends.quantized.engine in ("x86", "fbgemm") and "AVX" in torch.backends.cpu.get_cpu_capability()


def activation_levels() -> int:
    """Largest magnitude that a quantised activation may have.

    Without VNNI instructions the kernel adds pairs of products in 16 bits, which 7-bit activations cannot overflow.
    """
    return LEVELS if torch.cpu._is_vnni_supported() else 63


def inverse_rms(x: Tensor, eps: Tensor) -> Tensor:
    """What RMSNorm multiplies with, ``(…, K)`` → ``(…, 1)``, in as few steps as there can be."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(eps, length, length, value=1 / x.shape[-1]).rsqrt_()


class Int8Linear(nn.Module):
    """``x Wᵀ`` with int8 weights and activations, float32 outside.

    Args:
        weight: ``(N, K)`` int8.
        scale: ``(N,)`` float32.
        norm: ``(K,)`` float32, the weights of an RMSNorm that ``x`` goes through before.
        eps: of that norm.
    """

    def __init__(self, weight: Tensor, scale: Tensor, norm: Tensor | None = None, eps: float = 0.0) -> None:
        super().__init__()
        self.rows: tuple[Tensor, Tensor] | None = (weight, scale)  # until the model is whole, see Int8Cirilla
        self.norm, self.eps = norm, torch.tensor(eps)
        self.levels = activation_levels()
        zero = torch.zeros(len(scale), dtype=torch.long)
        with warnings.catch_warnings():  # torch will drop quantised tensors some day; its version is pinned here
            warnings.simplefilter("ignore", UserWarning)
            whole: Any = torch._make_per_channel_quantized_tensor(weight.contiguous(), scale.double(), zero, 0)
        # In the kernel's own layout.  Not a tensor, hence in no state_dict: what is saved are the rows, before packing.
        self.packed = torch.ops.quantized.linear_prepack(whole, None)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, K)`` → ``(…, N)``."""
        # RMSNorm divides a token by one number, and quantising it by another: the first can wait for the product.
        factor = None if self.norm is None else inverse_rms(x, self.eps)
        x = x if self.norm is None else x * self.norm
        size = x.abs().amax(-1, keepdim=True).clamp_(min=1e-30)  # (…, 1)
        # One kernel for the rest: steps of 1 / levels around a zero point, integer product, back to floats.
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / size, 1 / self.levels, self.levels + 1, self.packed
        )
        return y.mul_(size if factor is None else size.mul_(factor))


class Int8Embedding(nn.Module):
    """A look-up table ``(V, D)`` in int8."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.scale: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    def forward(self, ids: Tensor) -> Tensor:
        """``(…)`` → ``(…, D)`` float32."""
        return dequantize_rows(self.weight[ids], self.scale[ids])


class Int8Attention(nn.Module):
    """:class:`lm.model.Attention` and the norm before it, with one matrix for queries, keys and values."""

    def __init__(self, config: Config, layer: int, rows: Rows, norm: Tensor) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        joined = rows.joined("q_proj.weight", "k_proj.weight", "v_proj.weight")
        self.qkv_proj = Int8Linear(*joined, norm, config.norm_eps)
        self.o_proj = Int8Linear(*rows.pair("o_proj.weight"))
        self.heads: Tensor | None = None
        self.eps = torch.tensor(config.norm_eps)
        if config.qk_norm:  # queries and keys are normalised in one go: every head brings its own weights
            q, k = rows.floats("q_norm.weight"), rows.floats("k_norm.weight")  # (hd,)
            self.heads = torch.cat((q.expand(config.n_heads, -1), k.expand(config.n_kv_heads, -1)))  # (H + G, hd)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, view: View, cache: KVCache | None) -> Tensor:
        B, T, _ = x.shape
        H, G, hd = self.config.n_heads, self.config.n_kv_heads, self.config.head_dim
        qk, v = self.qkv_proj(x).view(B, T, -1, hd).split((H + G, G), dim=2)  # (B, T, H + G, hd), (B, T, G, hd)
        if self.heads is not None:
            qk = qk * inverse_rms(qk, self.eps) * self.heads
        q, k = rotate(qk.transpose(1, 2), cos, sin).split((H, G), dim=1)  # (B, H, T, hd), (B, G, T, hd)
        v = v.transpose(1, 2)  # (B, G, T, hd)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, G, S, hd)
        y = attend(q, k, v, view)  # (B, H, T, hd)
        return self.o_proj(y.transpose(1, 2).reshape(B, T, -1))  # (B, T, D)


class Int8SwiGLU(nn.Module):
    """:class:`lm.model.SwiGLU` with one matrix for gate and up, and the norm before it if there is one."""

    def __init__(
        self, gate_up: tuple[Tensor, Tensor], down: tuple[Tensor, Tensor], norm: Tensor | None = None, eps: float = 0.0
    ) -> None:
        super().__init__()
        self.gate_up_proj = Int8Linear(*gate_up, norm, eps)
        self.down_proj = Int8Linear(*down)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, D)`` → ``(…, D)``."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate).mul_(up))


class Int8Experts(Experts):
    """:class:`lm.experts.Experts` whose experts are int8; the router stays as it is."""

    def __init__(self, config: Config, rows: Rows) -> None:
        nn.Module.__init__(self)  # without the float parameters of the original
        self.n_experts, self.n_active = config.n_experts, config.n_active
        self.router = nn.Parameter(rows.floats("router"), requires_grad=False)
        both, down = rows.pair("gate_up"), rows.pair("down")
        self.experts = nn.ModuleList(
            Int8SwiGLU((both[0][e], both[1][e]), (down[0][e], down[1][e])) for e in range(config.n_experts)
        )

    def loop(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """``(N, D)`` tokens, the experts that each visits and their shares ``(N, k)`` → ``(N, D)``."""
        y = torch.zeros_like(x)
        for e in experts.unique().tolist():
            token, rank = torch.where(experts == e)
            y.index_add_(0, token, self.experts[e](x[token]) * weights[token, rank, None])
        return y


class Rows:
    """The tensors of :func:`compress` under one prefix; each can be taken once, and is then forgotten.

    Raises:
        KeyError: a tensor that is asked for is missing.
    """

    def __init__(self, tensors: dict[str, Tensor], prefix: str = "") -> None:
        self.tensors, self.prefix = tensors, prefix

    def under(self, prefix: str) -> Rows:
        """Those whose names go on with ``prefix`` and a dot; taken from the same dictionary."""
        return Rows(self.tensors, f"{self.prefix}{prefix}.")

    def floats(self, name: str) -> Tensor:
        """A tensor that was not quantised, of any shape, in float32."""
        return self.tensors.pop(self.prefix + name).float()

    def pair(self, name: str) -> tuple[Tensor, Tensor]:
        """int8 rows ``(…, N, K)`` and their scales ``(…, N)``."""
        name = self.prefix + name
        return self.tensors.pop(name), self.tensors.pop(name + SCALE)

    def joined(self, *names: str) -> tuple[Tensor, Tensor]:
        """Several matrices, one above the other."""
        weights, scales = zip(*map(self.pair, names), strict=True)
        return torch.cat(weights), torch.cat(scales)


class Int8Cirilla(Cirilla):
    """A Cirilla for answering on a CPU: the same arithmetic, with int8 in the place of every matrix.

    Args:
        config: of the model.
        tensors: what :func:`compress` made of its parameters.  The dictionary is emptied, so that there are never two
            copies in memory.

    Raises:
        KeyError: a tensor is missing.
    """

    def __init__(self, config: Config, tensors: dict[str, Tensor]) -> None:
        with torch.device("meta"):  # the frame alone: no memory and no random numbers for what is replaced
            super().__init__(config)
        self.init_rotation()
        rows = Rows(tensors)
        table = rows.pair("embed_tokens.weight")
        self.embed_tokens = Int8Embedding(*table)  # type: ignore[assignment]
        self.lm_head = Int8Linear(*(table if config.tied else rows.pair("lm_head.weight")))  # type: ignore[assignment]
        self.norm.weight = nn.Parameter(rows.floats("norm.weight"), requires_grad=False)
        for i, layer in enumerate(self.layers):
            here = rows.under(f"layers.{i}")
            attention, mlp = here.under("self_attn"), here.under("mlp")
            before, between = here.floats("input_layernorm.weight"), here.floats("post_attention_layernorm.weight")
            layer.self_attn = Int8Attention(config, i, attention, before)
            layer.input_layernorm = nn.Identity()
            if config.n_experts:
                layer.mlp = Int8Experts(config, mlp)
                layer.post_attention_layernorm.weight = nn.Parameter(between, requires_grad=False)  # type: ignore[union-attr]
            else:
                both = mlp.joined("gate_proj.weight", "up_proj.weight")
                layer.mlp = Int8SwiGLU(both, mlp.pair("down_proj.weight"), between, config.norm_eps)
                layer.post_attention_layernorm = nn.Identity()
        self.decoder = self.compiled() if native.suits(config) and native.library() is not None else None
        for module in self.modules():
            if isinstance(module, Int8Linear):
                module.rows = None
        self.eval()

    def compiled(self) -> native.Decoder:
        """The same layers for ``native.c``."""
        layers = []
        for layer in self.layers:
            attention: Any = layer.self_attn
            mlp: Any = layer.mlp
            matrices = (attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj)
            norms = (attention.qkv_proj.norm, mlp.gate_up_proj.norm, attention.heads)
            layers.append((*norms, [matrix.rows for matrix in matrices]))
        head: Any = self.lm_head
        return native.Decoder(self.config, layers, self.norm.weight, head.rows, self.cos, self.sin)

    def hidden(self, ids: Tensor, cache: KVCache | None = None, pad: Tensor | None = None, **kwargs: Any) -> Tensor:
        """As :meth:`lm.model.Cirilla.hidden`; a few tokens of a single text go through ``native.c`` if they can."""
        if self.decoder is not None and cache is not None and pad is None and self.decoder.takes(cache, ids):
            return self.decoder.decode(self.embed_tokens(ids), cache)
        return super().hidden(ids, cache, pad, **kwargs)

    def logits(self, hidden: Tensor) -> Tensor:
        if self.decoder is not None and hidden.shape[:-1].numel() <= native.TOKENS:
            logits = self.decoder.logits(hidden)
        else:
            logits = self.lm_head(hidden)
        cap = self.config.soft_cap
        return cap * torch.tanh(logits / cap) if cap else logits


def is_matrix(name: str, tensor: Tensor) -> bool:
    """What is worth eight bits: matrices, stacked ones too.  A router is tiny, and a rounding error in it is not."""
    return tensor.ndim >= 2 and not name.endswith("router")


def compress(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Parameters as they are saved: int8 rows under their own name, scales under that name and ``.scale``."""
    for name, tensor in state.items():
        if is_matrix(name, tensor):
            weight, scale = quantize_rows(tensor)
            yield name, weight.cpu()
            yield name + SCALE, scale.cpu()
        else:
            yield name, tensor.detach().float().cpu()


def expand(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The inverse of :func:`compress` but for the rounding: a ``state_dict`` of floats.

    Raises:
        KeyError: the scales of a matrix are missing.
    """
    return {
        name: (dequantize_rows(t, tensors[name + SCALE]) if t.dtype == torch.int8 else t).to(dtype)
        for name, t in tensors.items()
        if not name.endswith(SCALE)
    }


def to_int8(model: Cirilla) -> Cirilla:
    """An int8 copy of a model; a copy with weights rounded as int8 where this computer cannot multiply int8."""
    return from_rows(model.config, dict(compress(model.state_dict())))


def from_rows(config: Config, tensors: dict[str, Tensor], floats: torch.dtype | None = None) -> Cirilla:
    """A model in evaluation mode from what :func:`compress` made, in int8 where this computer can, else in float32.

    Args:
        floats: in this type in any case, for training or export.

    Raises:
        KeyError, RuntimeError: tensors are missing, or do not fit the configuration.
    """
    with torch.device("meta"):
        model = Cirilla(config)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items() if not name.endswith(SCALE)} != wanted:
        raise RuntimeError("its tensors are not those of the configuration")
    if supported() and floats is None:
        return Int8Cirilla(config, tensors)
    model.load_state_dict(expand(tensors, floats or torch.float32), assign=True)
    model.init_rotation()
    return model.eval()


def save_int8(model: Cirilla, path: Path) -> None:
    """Write a model's parameters to a safetensors file, a byte for every weight."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in compress(model.state_dict())}
    save_file(tensors, path, metadata={"format": "pt", "quantization": "int8 rows"})


def load_int8(path: Path, config: Config, floats: torch.dtype | None = None) -> Cirilla:
    """The model that :func:`save_int8` wrote, in evaluation mode; arguments as for :func:`from_rows`.

    Raises:
        LMError: the file is missing, damaged or belongs to another configuration.
    """
    try:
        return from_rows(config, load_file(path), floats)
    except (SafetensorError, KeyError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LMError(f"Cirilla's {path} cannot be read ({reason}). Restore it from the repository.") from error


def main() -> int:
    from lm import files  # which itself needs this module

    parser = argparse.ArgumentParser(
        prog="python -m lm.quantize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", type=Path, required=True, dest="source", metavar="FOLDER", help="a trained model")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="gets the new one, model card aside")
    parser.add_argument("--floats", action="store_true", help="write float32 instead of int8")
    args = parser.parse_args()
    try:
        if args.out.resolve() == args.source.resolve():
            raise LMError("--out must be another folder than --from: what is rounded away does not come back.")
        model, tokenizer = files.load(args.source)
        files.save(model, tokenizer, args.out, dtype=torch.float32 if args.floats else torch.int8)
        size = sum(path.stat().st_size for path in files.weight_files(args.out))
    except (LMError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {args.out}, {size / 1e6:,.1f} MB of weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
