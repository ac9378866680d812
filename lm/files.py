"""A released Cirilla on disk: a folder that this project and ``transformers`` both open.

``model.safetensors`` holds ``Qwen3ForCausalLM``'s parameters, ``config.json`` its configuration, ``tokenizer.json`` the
shared vocabulary.  Nothing is pickled.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lm.errors import LMError
from lm.model import Cirilla, Config
from lm.tokenizer import BOS, END, PAD, Tokenizer

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


def to_qwen3(config: Config) -> dict:
    """``config.json`` as ``transformers.Qwen3Config`` reads it."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
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
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 8,
    }


def from_qwen3(values: dict) -> Config:
    """The inverse of :func:`to_qwen3`."""
    return Config(
        vocab_size=values["vocab_size"],
        d_model=values["hidden_size"],
        n_layers=values["num_hidden_layers"],
        n_heads=values["num_attention_heads"],
        n_kv_heads=values["num_key_value_heads"],
        head_dim=values["head_dim"],
        d_ff=values["intermediate_size"],
        max_length=values["max_position_embeddings"],
        rope_theta=values["rope_parameters"]["rope_theta"],
        norm_eps=values["rms_norm_eps"],
    )


def save(model: Cirilla, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the whole folder, model card aside."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.detach().to(dtype).contiguous().cpu() for k, v in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(to_qwen3(model.config), indent=2) + "\n")
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


def load(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Cirilla, Tokenizer]:
    """Model in evaluation mode, and its tokenizer.

    Raises:
        LMError: a file is missing, damaged or does not fit the others.
    """
    remedy = "Restore the folder from the repository (git checkout) or train it anew."
    for name in (WEIGHTS, CONFIG, TOKENIZER):
        if not (folder / name).is_file():
            raise LMError(f"Cirilla's {folder / name} is missing. {remedy}")
    try:
        model = Cirilla(from_qwen3(json.loads((folder / CONFIG).read_text(encoding="utf-8"))))
        tensors = load_file(folder / WEIGHTS)
        model.load_state_dict({k.removeprefix("model."): v.float() for k, v in tensors.items()})
    except (SafetensorError, ValueError, KeyError, RuntimeError, OSError) as error:
        raise LMError(f"Cirilla in {folder} cannot be read ({str(error).splitlines()[0]}). {remedy}") from error
    return model.to(dtype).eval(), Tokenizer.load(folder / TOKENIZER)
