"""Decoding in C: the same numbers as in PyTorch, whatever is decoded together, and nothing lost without a compiler."""

import subprocess
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lm import native, quantize
from lm.generate import stream
from lm.model import Cirilla, KVCache
from tests.lm.test_generate import CONFIGS, ids_of, make, prompt_of


def can_compile() -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIRILLA_NATIVE", "1")
        native.library.cache_clear()
        found = native.library() is not None
    native.library.cache_clear()
    return found


compiled = pytest.mark.skipif(
    not quantize.supported() or not can_compile(), reason="no C compiler here, or no int8 instructions"
)


@pytest.fixture(autouse=True)
def wanted(monkeypatch):
    monkeypatch.setenv("CIRILLA_NATIVE", "1")
    native.library.cache_clear()
    yield
    native.library.cache_clear()


# Long enough for several pieces of the text, a group of three heads, widths that no vector of the processor divides.
LONG = replace(CONFIGS["dense"], d_model=40, n_heads=6, head_dim=12, d_ff=52, max_length=700)


def passes(model: Cirilla, ids: torch.Tensor, *sizes: int) -> torch.Tensor:
    """Logits of a text that is read in passes of so many tokens."""
    cache = KVCache(model.config)
    with torch.inference_mode():
        return torch.cat([model(part, cache) for part in ids.split(sizes, dim=1)], dim=1)


@compiled
@pytest.mark.parametrize("qk_norm", [True, False])
def test_one_pass_is_what_pytorch_computes(qk_norm, monkeypatch):
    # Weights of ordinary size: amplified ones would amplify rounding too, and there is no other difference.
    torch.manual_seed(0)
    model = quantize.to_int8(Cirilla(replace(LONG, qk_norm=qk_norm)).eval())
    ids = torch.tensor([prompt_of(0, 600)])
    here = passes(model, ids, 580, 1, 16, 3)
    monkeypatch.setattr(model, "decoder", None)
    there = passes(model, ids, 580, 1, 16, 3)
    assert torch.equal(here[:, :580], there[:, :580])
    assert (here - there).norm() < 0.02 * there.norm()
    assert torch.allclose(here[:, 580], there[:, 580], atol=1e-4)  # the first one: no rounding step has spread yet


@compiled
def test_a_token_s_numbers_do_not_depend_on_the_tokens_beside_it_nor_on_threads():
    model = quantize.to_int8(make(LONG))
    ids = torch.tensor([prompt_of(1, 540)])
    once = passes(model, ids, 500, *[1] * 40)
    assert torch.equal(passes(model, ids, 500, 16, 11, 1, 12), once)  # over the edge of a piece, at 512
    threads = torch.get_num_threads()
    try:
        for others in (1, 3):
            torch.set_num_threads(others)
            assert torch.equal(passes(model, ids, 500, 13, 13, 14)[:, 500:], once[:, 500:])
    finally:
        torch.set_num_threads(threads)


@compiled
def test_a_matrix_product_is_close():
    torch.manual_seed(0)
    model = quantize.to_int8(Cirilla(CONFIGS["dense"]).eval())
    assert isinstance(model, quantize.Int8Cirilla) and model.decoder is not None
    x = torch.randn(2, 3, 32)
    x[1, 2] = 0
    table: Any = model.embed_tokens
    exact = F.linear(x, quantize.dequantize_rows(table.weight, table.scale))
    assert (model.decoder.logits(x) - exact).norm() < 0.02 * exact.norm()
    assert not model.decoder.logits(x)[1, 2].any()


@pytest.mark.parametrize("name", ["windows", "experts"])
def test_what_c_does_not_know_pytorch_does(name):
    model = quantize.to_int8(make(CONFIGS[name]))
    assert getattr(model, "decoder", None) is None
    with pytest.raises(ValueError, match="no compiled code"):
        native.Decoder(CONFIGS[name], [], torch.ones(1), (torch.ones(1), torch.ones(1)), torch.ones(1), torch.ones(1))


@pytest.mark.parametrize("trouble", ["unwanted", "no compiler", "broken compiler"])
def test_without_compiled_code_answers_are_found_all_the_same(trouble, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if trouble == "unwanted":
        monkeypatch.setenv("CIRILLA_NATIVE", "0")
    elif trouble == "no compiler":
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("CC", "false")
    native.library.cache_clear()
    try:
        model = quantize.to_int8(make(CONFIGS["dense"]))
        assert native.library() is None and getattr(model, "decoder", None) is None
        plain = ids_of(stream(model, prompt_of(0), max_new_tokens=20))
        assert ids_of(stream(model, prompt_of(0), max_new_tokens=20, lookup=8)) == plain and len(plain) == 20
    finally:
        native.library.cache_clear()


@compiled
def test_it_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        native.library.cache_clear()
        assert native.library() is not None
        assert [path.suffix for path in (tmp_path / "cirilla").iterdir()] == [".so"]
        native.library.cache_clear()
        monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("compiled again"))
        assert native.library() is not None
    finally:
        native.library.cache_clear()
