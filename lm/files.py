"""A released Cirilla on disk: a folder that this project and ``transformers`` both open.

``model.safetensors`` holds the parameters under the names of a stock architecture, ``config.json`` its configuration,
``tokenizer.json`` the shared vocabulary.  Nothing is pickled.  Which architecture it is follows from the configuration:

| Cirilla has | and is on disk |
| --- | --- |
| QK-norm | Qwen3, with or without sliding windows |
| QK-norm and experts | Qwen3-MoE; windows in all layers or in none |
| neither | Llama |
| neither, and a window in every layer | Mistral |
| anything else, a soft cap for instance | ``cirilla``: opens here alone, and ``transformers`` refuses it |

Weights beyond 95 MB are split into several files with an index, as ``transformers`` does it.

Or the weights are int8 (``python -m lm.quantize``): then one file, :data:`lm.quantize.WEIGHTS`, stands in the place of
``model.safetensors``, and the folder opens here alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm import quantize
from lm.errors import LMError
from lm.model import Cirilla, Config
from lm.tokenizer import BOS, END, PAD, Tokenizer

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 95_000_000

ARCHITECTURES = {
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "cirilla": "Cirilla",
}


def model_type(config: Config) -> str:
    """The stock architecture that computes exactly what ``config`` does, or "cirilla" where there is none."""
    mixed = bool(config.global_every)
    if config.soft_cap:
        return "cirilla"
    if config.n_experts:
        return "qwen3_moe" if config.qk_norm and not mixed else "cirilla"
    if config.qk_norm:
        return "qwen3"
    if config.window:
        return "cirilla" if mixed else "mistral"
    return "llama" if config.d_model % config.n_heads == 0 else "cirilla"  # transformers insists on the latter


def to_transformers(config: Config) -> dict:
    """``config.json`` as ``transformers`` reads it; :func:`from_transformers` is the inverse."""
    kind = model_type(config)
    values = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": False,
        "tie_word_embeddings": config.tied,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 8,
    }
    if kind in ("qwen3", "qwen3_moe"):
        values["use_sliding_window"] = bool(config.window)
    if config.window or kind == "mistral":
        values["sliding_window"] = config.window
    if kind == "qwen3" and config.window:
        values["max_window_layers"] = 0
        values["layer_types"] = [
            "full_attention" if is_global(config, layer) else "sliding_attention" for layer in range(config.n_layers)
        ]
    if kind == "qwen3_moe":
        values |= {
            "num_experts": config.n_experts,
            "num_experts_per_tok": config.n_active,
            "moe_intermediate_size": config.d_expert,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "router_aux_loss_coef": config.balance,
        }
    if kind == "cirilla":
        values["cirilla"] = config.to_dict()
    return values


def is_global(config: Config, layer: int) -> bool:
    """Whether a layer, counted from 0, sees all tokens before it: there is no window, or it is every n-th."""
    return not config.window or bool(config.global_every and (layer + 1) % config.global_every == 0)


def from_transformers(values: dict) -> Config:
    """Our configuration from ``config.json``, ours or one that ``transformers`` wrote.

    Raises:
        ValueError: it asks for something that Cirilla does not do.
        KeyError: a value is missing.
    """
    kind = values["model_type"]
    if kind not in ARCHITECTURES:
        raise ValueError(f"{CONFIG} describes a {kind!r}, not one of {', '.join(ARCHITECTURES)}")
    if kind == "cirilla":
        return Config(**values["cirilla"])
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    # Before rope_type the key was called type.
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"{CONFIG} asks for scaled positions, which Cirilla does not have")
    if values.get("attention_bias") or values.get("mlp_bias") or values.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{CONFIG} asks for biases or another activation than SiLU, which Cirilla does not have")
    windowed = kind == "mistral" or (kind != "llama" and values.get("use_sliding_window"))
    window = (values.get("sliding_window") or 0) if windowed else 0
    config = Config(
        vocab_size=values["vocab_size"],
        d_model=values["hidden_size"],
        n_layers=values["num_hidden_layers"],
        n_heads=values["num_attention_heads"],
        n_kv_heads=values["num_key_value_heads"],
        head_dim=values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"],
        d_ff=values["intermediate_size"],
        max_length=values["max_position_embeddings"],
        rope_theta=rope["rope_theta"] if "rope_theta" in rope else values["rope_theta"],
        norm_eps=values["rms_norm_eps"],
        qk_norm=kind in ("qwen3", "qwen3_moe"),
        tied=values.get("tie_word_embeddings", False),
        window=window,
        global_every=global_every(values["layer_types"]) if window and values.get("layer_types") else 0,
    )
    if kind == "qwen3_moe":
        dense = values.get("mlp_only_layers") or values.get("decoder_sparse_step", 1) != 1
        if dense or not values.get("norm_topk_prob"):
            raise ValueError(f"{CONFIG} mixes dense layers with experts or does not normalise their weights")
        config = replace(
            config,
            n_experts=values["num_experts"] if "num_experts" in values else values["num_local_experts"],
            n_active=values["num_experts_per_tok"],
            d_expert=values["moe_intermediate_size"],
            balance=values.get("router_aux_loss_coef", Config.balance),
        )
    return config


def global_every(layer_types: list[str]) -> int:
    """The ``n`` of "every n-th layer is global", 0 where none is.

    Raises:
        ValueError: the global layers stand at irregular distances.
    """
    if "full_attention" not in layer_types:
        return 0
    n = layer_types.index("full_attention") + 1
    if any((kind == "full_attention") != ((layer + 1) % n == 0) for layer, kind in enumerate(layer_types)):
        raise ValueError(f"{CONFIG} has global layers at irregular distances")
    return n


def to_disk(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our parameters under the stock names; stacked experts one by one, as released Qwen3-MoE checkpoints have them."""
    for name, tensor in state.items():
        block, _, part = name.rpartition(".mlp.")
        if part == "router":
            yield f"model.{block}.mlp.gate.weight", tensor
        elif part == "gate_up":
            for e, both in enumerate(tensor):
                gate, up = both.chunk(2)  # (F, D) each
                yield f"model.{block}.mlp.experts.{e}.gate_proj.weight", gate
                yield f"model.{block}.mlp.experts.{e}.up_proj.weight", up
        elif part == "down":
            for e, matrix in enumerate(tensor):
                yield f"model.{block}.mlp.experts.{e}.down_proj.weight", matrix
        else:
            yield name if name.startswith("lm_head.") else f"model.{name}", tensor


def from_disk(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`to_disk`; empties ``tensors``, so that never two copies are in memory.

    Raises:
        KeyError: an expert is missing.
    """
    state: dict[str, Tensor] = {}
    experts: dict[str, int] = {}  # blocks with experts, and how many
    for name in list(tensors):
        if match := re.fullmatch(r"model\.(.+)\.mlp\.experts\.(\d+)\.\w+\.weight", name):
            experts[match[1]] = max(experts.get(match[1], 0), int(match[2]) + 1)
        elif name.endswith(".mlp.gate.weight"):
            state[name.removeprefix("model.").replace("gate.weight", "router")] = tensors.pop(name)
        else:
            state[name.removeprefix("model.")] = tensors.pop(name)
    for block, count in experts.items():
        take = [
            {p: tensors.pop(f"model.{block}.mlp.experts.{e}.{p}_proj.weight") for p in ("gate", "up", "down")}
            for e in range(count)
        ]
        state[f"{block}.mlp.gate_up"] = torch.stack([torch.cat((t["gate"], t["up"])) for t in take])
        state[f"{block}.mlp.down"] = torch.stack([t["down"] for t in take])
    return state


def save(
    model: Cirilla,
    tokenizer: Tokenizer,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the whole folder, model card aside.

    Args:
        dtype: what the weights are rounded to; float32 is lossless, int8 as :mod:`lm.quantize` does it.
        shard_bytes: no file of weights is larger, unless a single tensor is, or they are int8.

    Raises:
        LMError: the model computes in int8, so that its float weights are gone.
    """
    if isinstance(model, quantize.Int8Cirilla):
        raise LMError("An int8 model cannot be saved: load its folder in floats (lm.files.load) and save that.")
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("model-*-of-*.safetensors"), *(folder / n for n in (WEIGHTS, INDEX, quantize.WEIGHTS))):
        old.unlink(missing_ok=True)
    if dtype == torch.int8:
        quantize.save_int8(model, folder / quantize.WEIGHTS)
    else:
        save_floats(model, folder, dtype, shard_bytes)
    values = to_transformers(model.config) | {"dtype": str(dtype).removeprefix("torch.")}
    (folder / CONFIG).write_text(json.dumps(values, indent=2) + "\n")
    tokenizer.inner.save(str(folder / TOKENIZER))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        "split_special_tokens": True,
        "model_max_length": model.config.max_length,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names, indent=2) + "\n")


def save_floats(model: Cirilla, folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    """The parameters under their stock names, in one file or several with an index."""
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in to_disk(model.state_dict()):
        tensor = tensor.detach().to("cpu", dtype).clone(memory_format=torch.contiguous_format)
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / WEIGHTS, metadata={"format": "pt"})
        return
    where: dict[str, str] = {}
    for n, shard in enumerate(shards, start=1):
        file = f"model-{n:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: int8 rows where there are some, else floats, in one part or several.

    Raises:
        ValueError, KeyError, AttributeError, OSError: the index of several parts makes no sense.
    """
    if (folder / quantize.WEIGHTS).is_file():
        return [folder / quantize.WEIGHTS]
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    where = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    return [folder / name for name in sorted(set(where.values()))]


def load(folder: Path, dtype: torch.dtype = torch.float32, int8: bool = False) -> tuple[Cirilla, Tokenizer]:
    """Model in evaluation mode, and its tokenizer.

    Args:
        dtype: of the parameters.  Those of an int8 folder are then what its rows stand for, not what they were made of.
        int8: leave an int8 folder's weights as they are where this computer can multiply them; ``dtype`` then counts
            for nothing.

    Raises:
        LMError: a file is missing, damaged or does not fit the others.
    """
    remedy = "Restore the folder from the repository (git checkout) or train it anew."
    try:
        weights = weight_files(folder)
        for path in (*weights, folder / CONFIG, folder / TOKENIZER):
            if not path.is_file():
                raise LMError(f"Cirilla's {path} is missing. {remedy}")
        config = from_transformers(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        if weights[0].name == quantize.WEIGHTS:
            model = quantize.load_int8(weights[0], config, None if int8 else dtype)
        else:
            tensors = {name: tensor.to(dtype) for path in weights for name, tensor in load_file(path).items()}
            with torch.device("meta"):  # shapes without memory: the weights on disk become the parameters themselves
                model = Cirilla(config)
            model.load_state_dict(from_disk(tensors), assign=True)
            model.init_rotation()
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise LMError(f"Cirilla in {folder} cannot be read ({reason}). {remedy}") from error
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    if tokenizer.vocab_size > config.vocab_size:
        raise LMError(
            f"Cirilla in {folder} knows {config.vocab_size} tokens, its tokenizer {tokenizer.vocab_size}. {remedy}"
        )
    return model.eval(), tokenizer
