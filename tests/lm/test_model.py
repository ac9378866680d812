"""Cirilla's arithmetic: against an independent implementation, and cached against uncached."""

from pathlib import Path

import pytest
import torch

from lm import LMError, files, generate
from lm.model import PRESETS, Cirilla, Config, KVCache
from lm.tokenizer import Tokenizer

TOKENIZER = Path("weights/tokenizer.json")
CONFIGS = [
    PRESETS["cirilla-tiny"],
    Config(d_model=48, n_layers=3, n_heads=6, n_kv_heads=2, head_dim=8, d_ff=80, max_length=128, rope_theta=50_000.0),
]


@pytest.fixture(params=CONFIGS, ids=["tiny", "odd-shapes"])
def model(request) -> Cirilla:
    torch.manual_seed(0)
    model = Cirilla(request.param).eval()
    with torch.no_grad():  # norms that are not all ones, or a forgotten one would go unnoticed
        for p in model.parameters():
            if p.ndim == 1:
                p.copy_(1 + 0.3 * torch.randn_like(p))
            else:
                p.mul_(3)
    return model


@pytest.fixture
def ids(model) -> torch.Tensor:
    return torch.randint(16, 16_384, (2, 90), generator=torch.Generator().manual_seed(1))


def test_equals_an_independent_qwen3(model, ids, tmp_path):
    transformers = pytest.importorskip("transformers")
    files.save(model, Tokenizer.load(TOKENIZER), tmp_path, dtype=torch.float32)
    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(model(ids), other(ids).logits, atol=1e-4)


@pytest.mark.parametrize("cuts", [[90], [1] * 90, [40, 1, 1, 30, 18], [89, 1]])
def test_cached_equals_uncached(model, ids, cuts):
    cache, parts, start = KVCache(model.config, batch=2), [], 0
    with torch.no_grad():
        for cut in cuts:
            parts.append(model(ids[:, start : start + cut], cache))
            start += cut
        assert torch.allclose(torch.cat(parts, 1), model(ids), atol=1e-4)
    assert cache.length == 90


def test_a_rewound_cache_forgets(model, ids):
    cache = KVCache(model.config, batch=2)
    with torch.no_grad():
        model(ids, cache)
        cache.rewind(30)
        again = model(ids[:, 30:60], cache)
        assert torch.allclose(again, model(ids[:, :60])[:, 30:], atol=1e-4)


def test_the_future_is_invisible(model, ids):
    changed = ids.clone()
    changed[:, 50:] = 20
    with torch.no_grad():
        assert torch.equal(model(ids)[:, :50], model(changed)[:, :50])


def test_loss_counts_only_wanted_targets(model, ids):
    targets = torch.full_like(ids, -100)
    targets[0, 10:14] = torch.tensor([20, 21, 22, 23])
    with torch.no_grad():
        logits = model(ids)[0, 10:14]
        expected = torch.nn.functional.cross_entropy(logits, targets[0, 10:14])
        assert model.loss(ids, targets) == pytest.approx(expected.item(), abs=1e-5)


def test_greedy_stream_equals_the_slow_way(model):
    prompt = list(range(100, 130))
    slow = list(prompt)
    with torch.no_grad():
        for _ in range(25):
            slow.append(int(model(torch.tensor([slow]))[0, -1].argmax()))
    tokens = list(generate.stream(model, prompt, max_new_tokens=25))
    assert [t.id for t in tokens] == slow[30:]
    assert all(0 < t.probability <= 1 for t in tokens)
    stopped = list(generate.stream(model, prompt, max_new_tokens=25, stop=frozenset({slow[35]})))
    assert [t.id for t in stopped] == slow[30 : slow.index(slow[35], 30)]


def test_sampling_keeps_to_its_limits(model):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -20.0])
    generator = torch.Generator().manual_seed(0)
    assert generate.pick(logits, 0, 0, 1.0, None) == 0
    assert {generate.pick(logits, 1.0, 2, 1.0, generator) for _ in range(200)} == {0, 1}
    # 0.64 + 0.24 of the mass reach 0.8 with two tokens
    assert {generate.pick(logits, 1.0, 0, 0.8, generator) for _ in range(200)} == {0, 1}
    one, two = (
        [t.id for t in generate.stream(model, [20, 21], max_new_tokens=10, temperature=1.0, seed=5)] for _ in range(2)
    )
    assert one == two


def test_repetition_penalty_breaks_a_loop(model):
    plain = [t.id for t in generate.stream(model, [20, 21], max_new_tokens=40)]
    held = [t.id for t in generate.stream(model, [20, 21], max_new_tokens=40, repetition_penalty=1e6)]
    assert len(set(held)) == len(held) > len(set(plain)) or len(set(plain)) == len(plain)


def test_too_long_is_said(model):
    with pytest.raises(ValueError, match="tokens"):
        model(torch.zeros(1, model.config.max_length + 1, dtype=torch.long))
    with pytest.raises(ValueError, match="prompt"):
        list(generate.stream(model, [], max_new_tokens=1))
    full = [20] * (model.config.max_length - 3)
    assert len(list(generate.stream(model, full, max_new_tokens=50))) <= 3


def test_saved_and_loaded_is_identical(model, ids, tmp_path):
    tokenizer = Tokenizer.load(TOKENIZER)
    files.save(model, tokenizer, tmp_path, dtype=torch.float32)
    loaded, _ = files.load(tmp_path)
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(ids), model(ids))


@pytest.mark.parametrize("name", [files.WEIGHTS, files.CONFIG, files.TOKENIZER])
@pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
def test_damaged_folders_name_the_remedy(model, tmp_path, name, damage):
    files.save(model, Tokenizer.load(TOKENIZER), tmp_path, dtype=torch.float32)
    path = tmp_path / name
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"not what it should be")
    with pytest.raises(LMError, match="Restore") as caught:
        files.load(tmp_path)
    assert "\n" not in str(caught.value)
