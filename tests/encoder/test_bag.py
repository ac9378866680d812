"""The encoder without layers: what it computes, its folder, its training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder import Encoder, EncoderError, Reranker, files
from encoder.bag import Bag, BagConfig
from encoder.model import PRESETS, EncoderModel
from tests.encoder.training import accuracy, refused, run, run_three_steps, write_pairs

TOKENIZER = Path("weights/tokenizer.json")
TEXTS = ["Geralt of Rivia", "", "Scoia'tael <|mask|> <|end|> in Flotsam. " * 60, "Éibhear Hattori", "a"]


@pytest.fixture
def folder(tmp_path) -> Path:
    torch.manual_seed(0)
    files.save(Bag(BagConfig(d_model=48)), TOKENIZER, tmp_path / "bag")
    return tmp_path / "bag"


def test_a_vector_is_the_mean_of_the_rows_of_its_tokens(folder):
    encoder = Encoder.load(folder)
    table = encoder.model.get_parameter("embedding.weight").detach()
    vectors = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = encoder.tokenizer.encode(text).ids
        assert len(ids) <= 512 and (len(ids) == 512) == (text.count("Flotsam") == 60)
        if ids:
            mean = table[ids].mean(0)
            assert np.allclose(vector, (mean / mean.norm()).numpy(), atol=1e-6)
        else:
            assert not vector.any(), "nothing to read, no direction"
    assert not min(encoder.tokenizer.encode("<|bos|><|mask|> x").ids) < 16, "a text cannot name a special token"


def test_company_and_order_change_nothing(folder):
    encoder = Encoder.load(folder)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert np.abs(encoder.encode(TEXTS) - alone).max() < 1e-6
    assert np.abs(encoder.encode(TEXTS[::-1])[::-1] - alone).max() < 1e-6


def agree(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the vectors are the same, but for float16, in which theirs are computed; nothing to read is NaN there."""
    read = ours.any(1)
    return bool(read.sum() > 2 and np.abs(ours[read] - theirs[read]).max() < 1e-3)


def test_sentence_transformers_gives_the_same_vectors(folder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert agree(Encoder.load(folder).encode(TEXTS), theirs)


def test_sentence_transformers_gives_the_vectors_of_the_encoder_that_ships():
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.SentenceTransformer("weights/encoder", device="cpu").encode(TEXTS)
    assert agree(Encoder.load("weights/encoder").encode(TEXTS), theirs)


def test_saved_and_loaded_is_identical(folder, tmp_path):
    first = Encoder.load(folder)
    files.save(first.model, TOKENIZER, tmp_path / "again")
    again = Encoder.load(tmp_path / "again")
    assert first.model_hash == again.model_hash and again.model.config == first.model.config
    assert np.array_equal(first.encode(TEXTS), again.encode(TEXTS))


@pytest.mark.parametrize(
    "values",
    [{"model_type": "bag", "depth": 3}, {"model_type": "bag", "d_model": 47}, {"model_type": "modernbert"}, {}],
)
def test_a_configuration_that_does_not_fit_names_the_remedy(folder, values):
    (folder / files.CONFIG).write_text(json.dumps(values))
    with pytest.raises(EncoderError, match="Restore"):
        Encoder.load(folder)


def test_a_bag_is_no_second_stage(folder):
    with pytest.raises(EncoderError, match="no layers"):
        Reranker.load(folder)


def test_it_learns_from_nothing_and_goes_on_from_what_it_learnt(tmp_path, monkeypatch):
    contrastive = pytest.importorskip("encoder.contrastive")
    common = ["--bag", "--pairs", write_pairs(tmp_path), "--batch", 16]
    run(contrastive, monkeypatch, *common, "--width", 48, "--steps", 2, "--lr", 1e-3, "--out", tmp_path / "first")
    assert accuracy(tmp_path / "first/model") < 0.7
    start = ["--start", tmp_path / "first/model"]
    run(contrastive, monkeypatch, *common, *start, "--steps", 40, "--lr", 0.02, "--out", tmp_path / "second")
    assert accuracy(tmp_path / "second/model") > 0.9
    run(contrastive, monkeypatch, *common, *start, "--steps", 1, "--lr", 0, "--out", tmp_path / "same")
    before, after = (files.load(tmp_path / name)[0].state_dict() for name in ("first/model", "same/model"))
    assert torch.equal(before["embedding.weight"], after["embedding.weight"])


def test_a_stopped_run_goes_on_exactly(tmp_path, monkeypatch):
    contrastive = pytest.importorskip("encoder.contrastive")
    common = ["--bag", "--pairs", write_pairs(tmp_path), "--width", 48, "--batch", 16, "--steps", 6, "--lr", 0.02]
    run(contrastive, monkeypatch, *common, "--out", tmp_path / "whole")

    run_three_steps(contrastive, monkeypatch, *common, "--out", tmp_path / "cut")
    whole, cut = (files.load(tmp_path / name / "model")[0].state_dict() for name in ("whole", "cut"))
    assert not torch.allclose(whole["embedding.weight"], cut["embedding.weight"], atol=1e-4)
    run(contrastive, monkeypatch, *common, "--out", tmp_path / "cut")
    cut = files.load(tmp_path / "cut/model")[0].state_dict()
    assert torch.allclose(whole["embedding.weight"], cut["embedding.weight"], atol=1e-6)


def test_bags_and_layers_are_not_taken_for_one_another(folder, tmp_path, monkeypatch, capsys):
    contrastive = pytest.importorskip("encoder.contrastive")
    files.save(EncoderModel(PRESETS["encoder-tiny"]), TOKENIZER, tmp_path / "layers")
    wrong: list[tuple[list, str]] = [
        (["--start", folder], "no layers"),
        (["--bag", "--start", tmp_path / "layers"], "no bag"),
        ([], "--start is"),
        (["--start", tmp_path / "layers"], "--max-length 160"),
        (["--bag", "--pairs", tmp_path / "absent"], "absent cannot be read"),
    ]
    path = write_pairs(tmp_path)
    for args, message in wrong:
        given = ["--pairs", path, "--out", tmp_path / "out", *args]
        assert message in refused(contrastive, monkeypatch, capsys, *given)
