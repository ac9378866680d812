"""A released encoder on disk: a folder that this project, ``transformers`` and ``sentence-transformers`` all open.

``model.safetensors`` holds ``ModernBertModel``'s parameters in float16, ``config.json`` its configuration; the rest
are the small files from which ``SentenceTransformer(path)`` learns to add ``<|bos|>``, pool by mean and normalise.
A bag of words (``encoder/bag.py``) is a ``StaticEmbedding`` to it, which computes in float16 then: its vectors differ
from ours, added in float32, by a ten-thousandth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from encoder.bag import Bag, BagConfig
from encoder.errors import EncoderError
from encoder.model import EncoderConfig, EncoderModel

BOS, PAD, MASK = "<|bos|>", "<|pad|>", "<|mask|>"
BAG = "bag"  # in config.json, where others have "modernbert"
# Git keeps no empty folder, and sentence-transformers looks for this one.
NORMALIZE = "{}_Normalize/config.json"
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"


def to_modernbert(config: EncoderConfig) -> dict:
    """``config.json`` as ``transformers.ModernBertConfig`` reads it."""
    kinds = ["full_attention" if config.is_global(i) else "sliding_attention" for i in range(config.n_layers)]
    theta = {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "architectures": ["ModernBertModel"],
        "model_type": "modernbert",
        "dtype": "float32",  # computed in float32 whatever the file holds
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "max_position_embeddings": config.max_length,
        "layer_types": kinds,
        "local_attention": config.window,
        "rope_parameters": {"full_attention": theta, "sliding_attention": theta},
        "norm_eps": 1e-5,
        "pad_token_id": config.pad_id,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    }


def from_modernbert(values: dict) -> EncoderConfig:
    """The inverse of :func:`to_modernbert`."""
    kinds = values["layer_types"]
    later = [i for i, kind in enumerate(kinds) if kind == "full_attention" and i > 0]
    return EncoderConfig(
        vocab_size=values["vocab_size"],
        d_model=values["hidden_size"],
        n_layers=values["num_hidden_layers"],
        n_heads=values["num_attention_heads"],
        d_ff=values["intermediate_size"],
        max_length=values["max_position_embeddings"],
        global_every=later[0] if later else max(1, len(kinds)),
        window=values["local_attention"],
        rope_theta=values["rope_parameters"]["full_attention"]["rope_theta"],
        pad_id=values["pad_token_id"],
    )


def save(model: EncoderModel | Bag, tokenizer_json: Path, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the whole folder, model card aside; ``dtype`` is that of an encoder with layers."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Bag):
        return save_bag(model, tokenizer_json, folder)
    tensors = {name: value.detach().to(dtype).contiguous().cpu() for name, value in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    inner = tokenizers.Tokenizer.from_file(str(tokenizer_json))
    inner.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, inner.token_to_id(BOS))])
    inner.save(str(folder / TOKENIZER))
    length = model.config.max_length
    small_files = {
        CONFIG: to_modernbert(model.config),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": length,
            "bos_token": BOS,
            "pad_token": PAD,
            "mask_token": MASK,
            "split_special_tokens": True,  # a text that spells "<|mask|>" is text
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "sentence_bert_config.json": {"max_seq_length": length, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": model.config.d_model, "pooling_mode_mean_tokens": True},
    }
    write(small_files | {NORMALIZE.format(2): {}}, folder)


def save_bag(bag: Bag, tokenizer_json: Path, folder: Path) -> None:
    """Write the folder of a bag, in float16, model card aside."""
    save_file({"embedding.weight": bag.embedding.weight.detach().half().contiguous().cpu()}, folder / WEIGHTS)
    # Without special tokens: a text that spells "<|mask|>" is text.
    plain = json.loads(tokenizer_json.read_text(encoding="utf-8")) | {"added_tokens": [], "post_processor": None}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(plain))
    tokenizer.enable_truncation(bag.config.max_length)
    tokenizer.save(str(folder / TOKENIZER))
    modules = "sentence_transformers.models."
    small_files = {
        CONFIG: {"model_type": BAG, **asdict(bag.config)},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{modules}StaticEmbedding"},
            {"idx": 1, "name": "1", "path": "1_Normalize", "type": f"{modules}Normalize"},
        ],
        NORMALIZE.format(1): {},
    }
    write(small_files, folder)


def write(small_files: dict[str, Any], folder: Path) -> None:
    """Write the small files of one kind of folder, and the one that both kinds have."""
    both = {"config_sentence_transformers.json": {"similarity_fn_name": "cosine", "prompts": {}}}
    for name, content in (small_files | both).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def load(folder: Path) -> tuple[EncoderModel | Bag, tokenizers.Tokenizer, str]:
    """Model in evaluation mode and float32, tokenizer, and a hash that names these weights.

    Raises:
        EncoderError: a file is missing, damaged or does not fit the others.
    """
    remedy = "Restore the folder from the repository (git checkout) or train it anew."
    for name in (WEIGHTS, CONFIG, TOKENIZER):
        if not (folder / name).is_file():
            raise EncoderError(f"The encoder's {folder / name} is missing. {remedy}")
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        is_bag = values.pop("model_type") == BAG
        model = Bag(BagConfig(**values)) if is_bag else EncoderModel(from_modernbert(values))
        model.load_state_dict({k: v.float() for k, v in load_file(folder / WEIGHTS).items()})
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        line = str(error).splitlines()[0]
        raise EncoderError(f"The encoder in {folder} cannot be read ({line}). {remedy}") from error
    except Exception as error:  # tokenizers raises a bare Exception
        raise EncoderError(f"The tokenizer in {folder} cannot be read ({error}). {remedy}") from error
    tokenizer.encode_special_tokens = True
    tokenizer.enable_truncation(model.config.max_length)
    name = hash_of([folder / WEIGHTS, folder / CONFIG, folder / TOKENIZER])
    return model.eval(), tokenizer, name


def load_layers(folder: Path) -> tuple[EncoderModel, tokenizers.Tokenizer]:
    """As :func:`load`, for those to whom a bag is no use.

    Raises:
        EncoderError: also where the folder holds a bag.
    """
    model, tokenizer, _ = load(folder)
    if isinstance(model, Bag):
        raise EncoderError(f"The encoder in {folder} is a bag of words and has no layers.")
    return model, tokenizer


def hash_of(files: Iterable[Path]) -> str:
    """A name for a model by what its files hold: the same again only where all of them are."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
