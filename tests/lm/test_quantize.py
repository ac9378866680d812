"""Int8: small errors, the same model on disk and in memory, tokens that do not disturb each other."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lm import LMError, Reader, files, quantize
from lm.generate import stream
from lm.model import Cirilla, Config, KVCache
from lm.tokenizer import Tokenizer
from tests.lm.damage import DAMAGE, done
from tests.lm.test_generate import CONFIGS, ids_of, make, prompt_of

needs_int8 = pytest.mark.skipif(not quantize.supported(), reason="this computer does not multiply int8")


@settings(deadline=None)  # the first call of a busy computer takes its time
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
    floats = quantize.load_int8(tmp_path / "w", model.config, floats=torch.float32)
    monkeypatch.setattr(quantize, "supported", lambda: False)
    loaded = quantize.load_int8(tmp_path / "w", model.config)
    assert type(loaded) is type(floats) is Cirilla
    ids = torch.tensor([prompt_of(0)])
    with torch.inference_mode():
        assert (loaded(ids) - model(ids)).norm() <= 0.2 * model(ids).norm()


@DAMAGE
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


# -- whole folders -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(Path("weights/tokenizer.json"))


def whole(name):
    """A model with the vocabulary of the release, so that its folder is one that opens."""
    torch.manual_seed(0)
    return Cirilla(replace(CONFIGS[name], vocab_size=16_384)).eval()


def logits(model):
    with torch.inference_mode():
        return model(torch.tensor([prompt_of(0)]))


@pytest.mark.parametrize("name", CONFIGS)
def test_an_int8_folder_is_the_model_quantised_in_memory(name, tokenizer, tmp_path):
    model = whole(name)
    files.save(model, tokenizer, tmp_path, dtype=torch.int8)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == [quantize.WEIGHTS]
    reader = Reader.load(tmp_path)
    assert isinstance(reader.model, quantize.Int8Cirilla) is quantize.supported()
    assert reader.model.config == model.config
    assert torch.equal(logits(reader.model), logits(quantize.to_int8(model)))


def test_an_int8_folder_in_floats_has_the_rounded_weights(tokenizer, tmp_path):
    model = whole("experts")
    files.save(model, tokenizer, tmp_path, dtype=torch.int8)
    floats, _ = files.load(tmp_path)  # as training opens it
    rounded = quantize.expand(dict(quantize.compress(model.state_dict())))
    assert type(floats) is Cirilla and all(p.requires_grad for p in floats.parameters())
    assert all(torch.equal(tensor, rounded[name]) for name, tensor in floats.state_dict().items())
    assert type(Reader.load(tmp_path, int8=False).model) is Cirilla
    half, _ = files.load(tmp_path, torch.bfloat16)
    assert half.embed_tokens.weight.dtype == torch.bfloat16 and half.cos.dtype == torch.float32


@needs_int8
def test_an_int8_model_is_not_saved_as_if_it_were_whole(tokenizer, tmp_path):
    files.save(whole("dense"), tokenizer, tmp_path / "old")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    model = whole("dense")
    small = quantize.Int8Cirilla(model.config, dict(quantize.compress(model.state_dict())))
    with pytest.raises(LMError, match="floats"):
        files.save(small, tokenizer, tmp_path / "old")
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


def test_one_kind_of_weights_replaces_the_other(tokenizer, tmp_path):
    model = whole("dense")
    for dtype, name in ((torch.float32, files.WEIGHTS), (torch.int8, quantize.WEIGHTS), (torch.float32, files.WEIGHTS)):
        files.save(model, tokenizer, tmp_path, dtype=dtype)
        assert [path.name for path in files.weight_files(tmp_path)] == [name]
        assert [path.name for path in tmp_path.glob("*.safetensors*")] == [name]


@pytest.mark.parametrize("name", [quantize.WEIGHTS, files.CONFIG, files.TOKENIZER])
@DAMAGE
def test_damaged_int8_folders_name_the_remedy(name, damage, tokenizer, tmp_path):
    files.save(whole("dense"), tokenizer, tmp_path, dtype=torch.int8)
    path = tmp_path / name
    if not done(path, damage):  # as many tensors of the same names, in another shape
        wider = Cirilla(replace(whole("dense").config, d_ff=whole("dense").config.d_ff * 2))
        files.save(wider, tokenizer, tmp_path / "other", dtype=torch.int8)
        (tmp_path / "other" / name).replace(path)
    with pytest.raises(LMError, match="Restore") as caught:
        Reader.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_command_makes_an_int8_folder_and_floats_of_it(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "lm.quantize", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    small, back = tmp_path / "int8", tmp_path / "floats"
    for arguments in (("--from", "weights/cirilla", "--out", small), ("--from", small, "--out", back, "--floats")):
        done = run(*arguments)
        assert done.returncode == 0 and not done.stderr, done.stderr
    in_memory = quantize.to_int8(files.load(Path("weights/cirilla"))[0])
    for folder in (small, back):
        assert torch.equal(logits(Reader.load(folder).model), logits(in_memory))
    done = run("--from", small, "--out", small)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "another folder" in done.stderr
    assert run("--from", tmp_path / "nowhere", "--out", back).returncode == 1
    transformers = pytest.importorskip("transformers")
    other = transformers.AutoModelForCausalLM.from_pretrained(back).eval()
    ids = torch.tensor([prompt_of(0)])
    with torch.inference_mode():
        assert torch.allclose(files.load(small)[0](ids), other(ids).logits, atol=1e-4)
    with pytest.raises(OSError, match=r"model\.safetensors"):  # int8 is nothing that others read
        transformers.AutoModelForCausalLM.from_pretrained(small)
