"""Folders of the kinds that ship, small ones, to the Hub and back: a bag of word vectors, and a second stage."""

from pathlib import Path

import numpy as np
import torch

from encoder import Encoder, Reranker, files, reranker
from encoder.bag import Bag, BagConfig
from encoder.model import PRESETS, EncoderModel
from lm import hub
from tests.encoder.test_reranker import CANDIDATES, QUESTION
from tests.lm.test_hub import server  # noqa: F401  (a fixture)

TOKENIZER = Path("weights/tokenizer.json")


def pushed_and_pulled(folder: Path) -> Path:
    """Where the folder lies after its way to the Hub and back; the same files in it, of the same content."""
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    hub.push(folder, "somebody/model")
    back = hub.pull("somebody/model", to=folder.parent / "pulled")
    for path in folder.rglob("*"):
        assert path.is_dir() or (back / path.relative_to(folder)).read_bytes() == path.read_bytes(), path
    return back


def test_a_bag_comes_back_the_same(server, tmp_path):  # noqa: F811
    files.save(Bag(BagConfig(d_model=48)), TOKENIZER, tmp_path / "bag")
    before, after = Encoder.load(tmp_path / "bag"), Encoder.load(pushed_and_pulled(tmp_path / "bag"))
    assert after.model_hash == before.model_hash
    assert np.array_equal(after.encode([QUESTION]), before.encode([QUESTION]))


def test_a_second_stage_comes_back_the_same(server, tmp_path):  # noqa: F811
    model = reranker.RerankerModel(EncoderModel(PRESETS["encoder-tiny"]))
    torch.nn.init.normal_(model.score.weight)  # a blank head says the same of everything
    reranker.save(model, TOKENIZER, tmp_path / "second")
    back = pushed_and_pulled(tmp_path / "second")
    assert reranker.WEIGHTS in server.repos["somebody/model"].commits[-1][1]
    before, after = (Reranker.load(folder).score(QUESTION, CANDIDATES) for folder in (tmp_path / "second", back))
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(a, b)
