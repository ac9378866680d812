"""Saved folders: what an independent implementation computes from them, and what comes back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lm import LMError, files
from lm.model import PRESETS, Cirilla, Config
from lm.tokenizer import Tokenizer
from tests.lm.damage import DAMAGE, done
from tests.lm.test_model import CONFIGS, make

TINY = replace(PRESETS["cirilla-tiny"], max_length=128)
STOCK = {
    "tiny": ("qwen3", CONFIGS["tiny"]),
    "odd-shapes": ("qwen3", CONFIGS["odd-shapes"]),
    "untied": ("qwen3", replace(TINY, tied=False)),
    "windows": ("qwen3", CONFIGS["windows"]),
    "every-third-global": ("qwen3", CONFIGS["every-third-global"]),
    "experts": ("qwen3_moe", CONFIGS["experts"]),
    "experts-and-windows": ("qwen3_moe", replace(TINY, n_experts=5, n_active=3, d_expert=24, window=16, tied=False)),
    "llama2": ("llama", CONFIGS["llama2"]),
    "mistral": ("mistral", CONFIGS["mistral"]),
}
OURS_ALONE = {
    "soft-cap": replace(TINY, soft_cap=5.0),
    "experts-and-some-global": replace(TINY, n_experts=4, d_expert=8, window=16, global_every=2),
    "no-qk-norm-and-some-global": replace(TINY, qk_norm=False, window=16, global_every=2),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(Path("weights/tokenizer.json"))


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(16, 16_384, (2, 90), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "config"), STOCK.values(), ids=STOCK.keys())
def test_equals_an_independent_implementation(kind, config, tokenizer, ids, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = make(config)
    files.save(model, tokenizer, tmp_path / "ours", dtype=torch.float32)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert other.config.model_type == kind and type(other).__name__ == files.ARCHITECTURES[kind]
    with torch.no_grad():
        assert torch.allclose(model(ids), other(ids).logits, atol=1e-4)
        # ... and back: what transformers writes opens here, and computes the same
        other.save_pretrained(tmp_path / "theirs")
        tokenizer.inner.save(str(tmp_path / "theirs" / files.TOKENIZER))
        back, _ = files.load(tmp_path / "theirs")
        assert torch.equal(back(ids), model(ids))
    assert back.config == config


def test_left_padding_equals_an_independent_implementation(tokenizer, ids, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, pad = make(CONFIGS["mistral"]), torch.tensor([0, 40])
    files.save(model, tokenizer, tmp_path, dtype=torch.float32)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    seen = torch.arange(90) >= pad[:, None]
    with torch.no_grad():
        theirs = other(ids, attention_mask=seen.long(), position_ids=(seen.cumsum(1) - 1).clamp(min=0)).logits
        assert torch.allclose(model(ids, pad=pad)[seen], theirs[seen], atol=1e-4)


def test_balance_is_measured_as_transformers_measures_it(tokenizer, ids, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = make(CONFIGS["experts"])
    files.save(model, tokenizer, tmp_path, dtype=torch.float32)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    routing: list = []
    with torch.no_grad():
        model.hidden(ids, routing=routing)
        theirs = other(ids, output_router_logits=True)
    for ours, logits in zip(routing, theirs.router_logits, strict=True):
        assert torch.allclose(ours.probabilities.flatten(0, 1), logits.view(-1, 4).softmax(-1), atol=1e-5)
    # Theirs pools the layers before it multiplies shares with probabilities, and its shares sum to k: redo that.
    load = torch.stack([r.load() for r in routing]).mean(0)
    mean = torch.stack([r.probabilities.flatten(0, 1).mean(0) for r in routing]).mean(0)
    assert theirs.aux_loss.item() == pytest.approx(2 * 4 * (load * mean).sum().item(), abs=1e-4)


@pytest.mark.parametrize("config", OURS_ALONE.values(), ids=OURS_ALONE.keys())
def test_what_no_stock_architecture_computes_is_not_passed_off_as_one(config, tokenizer, ids, tmp_path):
    model = make(config)
    files.save(model, tokenizer, tmp_path, dtype=torch.float32)
    back, _ = files.load(tmp_path)
    assert back.config == config
    with torch.no_grad():
        assert torch.equal(back(ids), model(ids))
    transformers = pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="cirilla"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_stock_architecture(name):
    values = files.to_transformers(PRESETS[name])
    assert values["model_type"] != "cirilla"
    assert files.from_transformers(json.loads(json.dumps(values))) == PRESETS[name]


def test_old_and_foreign_configurations():
    values = files.to_transformers(PRESETS["llama2-tiny"])
    old = {k: v for k, v in values.items() if k not in ("rope_parameters", "head_dim")} | {"rope_theta": 10_000.0}
    assert files.from_transformers(old) == PRESETS["llama2-tiny"]
    for wrong in (
        {"model_type": "gpt2"},
        {"attention_bias": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "yarn"}},
    ):
        with pytest.raises(ValueError, match=r"config\.json"):
            files.from_transformers(values | wrong)
    with pytest.raises(ValueError, match="scaled positions"):
        files.from_transformers(old | {"rope_scaling": {"type": "linear", "factor": 2.0}})
    with pytest.raises(ValueError, match="irregular"):
        files.global_every(["full_attention", "sliding_attention"])


def test_large_weights_are_split_and_come_back(tokenizer, ids, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = make(CONFIGS["experts"])
    files.save(model, tokenizer, tmp_path, dtype=torch.float32, shard_bytes=100_000)
    parts = sorted(tmp_path.glob("*.safetensors"))
    assert len(parts) > 2 and not (tmp_path / files.WEIGHTS).exists()
    # the embedding alone is larger than a part may be; every other part keeps to it
    assert sum(p.stat().st_size > 110_000 for p in parts) == 1
    with torch.no_grad():
        assert torch.equal(files.load(tmp_path)[0](ids), model(ids))
        other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        assert torch.allclose(model(ids), other(ids).logits, atol=1e-4)
    files.save(model, tokenizer, tmp_path, dtype=torch.float32)  # over the old one: nothing of it stays
    assert [p.name for p in tmp_path.glob("model*")] == [files.WEIGHTS]


def test_a_missing_part_names_the_remedy(tokenizer, tmp_path):
    files.save(make(TINY), tokenizer, tmp_path, shard_bytes=100_000)
    next(iter(tmp_path.glob("model-00002-*"))).unlink()
    with pytest.raises(LMError, match="Restore"):
        files.load(tmp_path)


def test_nothing_is_pickled_and_experts_lie_one_by_one(tokenizer, tmp_path):
    files.save(make(CONFIGS["experts"]), tokenizer, tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}
    names = load_file(tmp_path / files.WEIGHTS)
    assert names["model.layers.1.mlp.experts.3.down_proj.weight"].shape == (64, 32)
    assert "lm_head.weight" not in names and all(t.dtype == torch.bfloat16 for t in names.values())
    assert json.loads((tmp_path / files.CONFIG).read_text())["dtype"] == "bfloat16"


def test_a_foreign_tokenizer_is_noticed(tokenizer, tmp_path):
    files.save(Cirilla(replace(TINY, vocab_size=1_000)), tokenizer, tmp_path)
    with pytest.raises(LMError, match="1000 tokens"):
        files.load(tmp_path)


def test_half_precision_keeps_exact_positions(tokenizer, tmp_path):
    files.save(make(TINY), tokenizer, tmp_path)
    model, _ = files.load(tmp_path, torch.bfloat16)
    assert model.embed_tokens.weight.dtype == torch.bfloat16
    assert model.cos.dtype == torch.float32 and not torch.equal(model.cos[100], model.cos[101])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_saved_and_loaded_is_identical(config: Config, tokenizer, ids, tmp_path):
    model = make(config)
    files.save(model, tokenizer, tmp_path, dtype=torch.float32)
    loaded, _ = files.load(tmp_path)
    assert loaded.config == config and not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())
    with torch.no_grad():
        assert torch.equal(loaded(ids), model(ids))


@pytest.mark.parametrize("name", [files.WEIGHTS, files.CONFIG, files.TOKENIZER])
@DAMAGE
def test_damaged_folders_name_the_remedy(tokenizer, tmp_path, name, damage):
    files.save(make(CONFIGS["experts"]), tokenizer, tmp_path, dtype=torch.float32)
    path = tmp_path / name
    if not done(path, damage):
        files.save(make(CONFIGS["odd-shapes"]), tokenizer, tmp_path / "other", dtype=torch.float32)
        (tmp_path / "other" / name).replace(path)
    with pytest.raises(LMError, match="Restore") as caught:
        files.load(tmp_path)
    assert "\n" not in str(caught.value)
