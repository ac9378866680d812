"""Int8: small errors, the same model on disk and in memory, tokens that do not disturb each other."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lm import LMError, files, quantize
from lm.generate import stream
from lm.model import Cirilla, Config, KVCache
from tests.lm.test_generate import CONFIGS, ids_of, make, prompt_of

needs_int8 = pytest.mark.skipif(not quantize.supported(), reason="this computer does not multiply int8")


@given(st.integers(0, 10_000), st.floats(1e-6, 1e4))
def test_rounding_is_within_half_a_step_of_each_row(seed, size):
    weight = size * torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(seed))
    weight[1, 2] = 0
    rows, scale = quantize.quantize_rows(weight)
    assert rows.dtype == torch.int8 and scale.shape == (3, 5)
    error = (quantize.dequantize_rows(rows, scale) - weight).abs()
    assert (error <= scale[..., None] * 0.5001).all()
    assert (rows.abs().amax(-1) == 127)[scale > 0].all() and scale[1, 2] == 0


@needs_int8
def test_a_matrix_product_is_close_and_its_rows_are_independent():
    torch.manual_seed(0)
    weight, x = torch.randn(96, 64), torch.randn(2, 40, 64)
    x[0, 3] *= 1e4  # an outlier must not cost the other tokens their precision
    x[1, 5] = 0
    linear = quantize.Int8Linear(*quantize.quantize_rows(weight))
    y, exact = linear(x), F.linear(x, weight)
    assert ((y - exact).norm(dim=-1) <= 0.02 * exact.norm(dim=-1)).all()
    for cut in (1, 3, 17):
        assert torch.equal(torch.cat([linear(part) for part in x.split(cut, dim=1)], dim=1), y)


@needs_int8
def test_seven_bits_do_where_products_could_overflow(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    torch.manual_seed(0)
    weight, x = torch.randn(32, 64), torch.randn(5, 64)
    linear = quantize.Int8Linear(*quantize.quantize_rows(weight))
    assert linear.levels == 63
    assert (linear(x) - F.linear(x, weight)).norm() <= 0.02 * F.linear(x, weight).norm()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_stay_close(name):
    # Weights of ordinary size: amplified random ones would amplify every rounding error with them.
    torch.manual_seed(0)
    model = Cirilla(CONFIGS[name]).eval()
    small = quantize.to_int8(model)
    ids = torch.tensor([prompt_of(0, 50), prompt_of(1, 50)])
    with torch.inference_mode():
        exact, close = model(ids), small(ids)
        assert (close - exact).norm() <= 0.03 * exact.norm()
        divergence = F.kl_div(close.log_softmax(-1), exact.log_softmax(-1), log_target=True, reduction="none").sum(-1)
        assert divergence.mean() < 1e-4


def test_the_released_model_loses_next_to_nothing():
    model, tokenizer = files.load(Path("weights/cirilla"))
    small = quantize.to_int8(model)
    text = (
        "Geralt of Rivia is a witcher. Ciri, his ward, was born in Cintra as the granddaughter of Queen Calanthe. " * 3
    )
    ids = torch.tensor([tokenizer.encode(text)])
    with torch.inference_mode():
        exact, close = model(ids)[0].log_softmax(-1), small(ids)[0].log_softmax(-1)
    assert F.kl_div(close, exact, log_target=True, reduction="batchmean") < 3e-3
    assert (close.argmax(-1) == exact.argmax(-1)).float().mean() > 0.93
    loss = [-p[:-1].gather(-1, ids[0, 1:, None]).mean().item() for p in (exact, close)]
    assert loss[1] == pytest.approx(loss[0], rel=0.01)


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_and_speculated_equals_uncached_in_int8(name):
    small = quantize.to_int8(make(CONFIGS[name]))
    prompt = prompt_of(0)
    plain = ids_of(stream(small, prompt, max_new_tokens=40))
    assert ids_of(stream(small, prompt, max_new_tokens=40, lookup=8)) == plain
    with torch.inference_mode():
        cache = KVCache(small.config)
        ids = torch.tensor([prompt])
        parts = [small(part, cache) for part in ids.split((31, 1, 28), dim=1)]
        # Attention may round differently, and a rounding step of int8 makes that visible.
        assert torch.allclose(torch.cat(parts, 1), small(ids), atol=0.05 * float(small(ids).abs().max()))


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_and_loaded_is_identical(name, tmp_path):
    model = make(CONFIGS[name])
    path = tmp_path / "model.safetensors"
    quantize.save_int8(model, path)
    weights = sum(p.numel() for p in model.parameters())
    assert path.stat().st_size < 1.6 * weights + 10_000  # tiny rows: their scales and the header weigh something
    loaded, direct = quantize.load_int8(path, model.config), quantize.to_int8(model)
    ids = torch.tensor([prompt_of(0)])
    with torch.inference_mode():
        assert torch.equal(loaded(ids), direct(ids))


def test_without_int8_instructions_floats_do(monkeypatch, tmp_path):
    model = make(CONFIGS["experts"])
    quantize.save_int8(model, tmp_path / "w")
    floats = quantize.load_int8(tmp_path / "w", model.config, floats=True)
    monkeypatch.setattr(quantize, "supported", lambda: False)
    loaded = quantize.load_int8(tmp_path / "w", model.config)
    assert type(loaded) is type(floats) is Cirilla
    ids = torch.tensor([prompt_of(0)])
    with torch.inference_mode():
        assert (loaded(ids) - model(ids)).norm() <= 0.2 * model(ids).norm()


@pytest.mark.parametrize("damage", ["gone", "cut", "garbage", "another"])
def test_damage_is_one_clear_line(damage, tmp_path):
    model, path = make(CONFIGS["dense"]), tmp_path / "w"
    quantize.save_int8(model, path)
    config = model.config
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5_000])
    elif damage == "garbage":
        path.write_bytes(b"not what it should be")
    else:
        config = Config(**(config.to_dict() | {"n_layers": 5}))
    with pytest.raises(LMError, match="Restore") as caught:
        quantize.load_int8(path, config)
    assert "\n" not in str(caught.value)
