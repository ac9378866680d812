"""The release size from blank weights to the Hub and back, a few steps of everything."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from encoder import Encoder, EncoderError, pretrain
from lm import hub
from tests.lm.test_hub import server  # noqa: F401  (a fixture)

contrastive = pytest.importorskip("encoder.contrastive")
sentence_transformers = pytest.importorskip("sentence_transformers")

TEXTS = ["Geralt of Rivia", "", "Scoia'tael <|mask|> in Flotsam. " * 40, "Éibhear Hattori", "who raised ciri?"]
ROWS = [
    {
        "query": f"who is {name}?",
        "passage": f"{name}\n{name} is a smith.",
        "negatives": [f"{other}\n{other} is a smith."],
    }
    for name, other in zip("ABCDEFGHIJKLMN", "BCDEFGHIJKLMNA", strict=True)
]


def run(module, *args) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", *map(str, args)])
        assert module.main() == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[list[str]]]:
    """Folder of the encoder after both stages, and the texts that the second stage was given, column by column."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "tokens").mkdir()
    for kind in ("bin", "heldout.bin"):
        ids = np.random.default_rng(0).integers(16, 16_384, 3_000)
        (folder / "tokens" / f"one.{kind}").write_bytes(ids.astype(np.uint16).tobytes())
    (folder / "tokens" / "mix.json").write_text(json.dumps({"one": 1.0}))
    common = ["--preset", "encoder", "--steps", 3, "--batch", 2, "--length", 24, "--out", folder / "mlm"]
    run(pretrain, "--tokens", folder / "tokens", *common)

    (folder / "mined.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    columns: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        preprocess = contrastive.EncoderModule.preprocess

        def listening(self, inputs, *args, **kwargs):
            columns.append(list(inputs))
            return preprocess(self, inputs, *args, **kwargs)

        patch.setattr(contrastive.EncoderModule, "preprocess", listening)
        start = ["--start", folder / "mlm" / "model", "--out", folder / "out"]
        run(contrastive, "--pairs", folder / "mined.jsonl", *start, "--steps", 2, "--batch", 4, "--mini-batch", 2)
    return folder / "out" / "model", columns


def test_a_batch_holds_negatives_and_no_text_twice(trained):
    columns = [column for column in trained[1] if len(column) == 4]  # the trainer also looks at all rows, for its card
    assert len(columns) >= 2 * 3 and len(columns) % 3 == 0, "question, passage and negative of two steps at least"
    beside = {row["query"]: (row["passage"], *row["negatives"]) for row in ROWS}
    for at in range(0, len(columns), 3):
        batch = columns[at : at + 3]
        assert len({text for column in batch for text in column}) == 12
        assert all(beside[query] == tuple(rest) for query, *rest in zip(*batch, strict=True))


def test_loads_with_sentence_transformers_and_alone(trained):
    ours = Encoder.load(trained[0], contrastive.torch.float32)
    assert ours.dimension == 384 and 15e6 < sum(p.numel() for p in ours.model.parameters()) < 30e6
    vectors = ours.encode(TEXTS)
    theirs = sentence_transformers.SentenceTransformer(str(trained[0]), device="cpu")
    assert np.abs(vectors - theirs.encode(TEXTS)).max() < 1e-5
    for width in contrastive.WIDTHS:
        short = sentence_transformers.SentenceTransformer(str(trained[0]), device="cpu", truncate_dim=width)
        assert np.abs(vectors[:, :width] - short.encode(TEXTS)).max() < 1e-5


def test_what_the_hub_gives_back_encodes_the_same(trained, server, tmp_path):  # noqa: F811
    hub.push(trained[0], "somebody/encoder")
    assert "1_Pooling/config.json" in server.repos["somebody/encoder"].commits[-1][1]
    before = Encoder.load(trained[0])
    after = Encoder.load(hub.pull("somebody/encoder", to=tmp_path / "pulled"))
    assert after.model_hash == before.model_hash
    assert np.array_equal(after.encode(TEXTS), before.encode(TEXTS))
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "pulled"), device="cpu").encode(TEXTS)
    assert np.abs(theirs - Encoder.load(trained[0], contrastive.torch.float32).encode(TEXTS)).max() < 1e-5


def test_too_few_negatives_are_named(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({"query": "q", "passage": "p"}) + "\n")
    assert contrastive.dataset([path], None).column_names == ["anchor", "positive"]
    with pytest.raises(EncoderError, match=r"0 negatives, not 1.*retrieval\.mine"):
        contrastive.dataset([path], 1)
    path.write_text("")
    with pytest.raises(EncoderError, match="no rows"):
        contrastive.dataset([path], None)
    path.write_text(json.dumps({"query": "q", "passages": []}) + "\n")
    with pytest.raises(EncoderError, match="No group"):
        contrastive.dataset([path], None)


def test_a_group_is_a_question_its_evidence_and_passages_that_only_look_right(tmp_path):
    path = tmp_path / "groups.jsonl"
    labels = [[0, 0], [-1, 0], [0, 1], [0], [0], [0]] + [[0]] * 10
    passages = [{"heading": f"H{n}", "text": f"t{n}", "labels": found} for n, found in enumerate(labels)]
    without = {"query": "no evidence", "passages": [p for p in passages if 1 not in p["labels"]]}
    short = {"query": "little to choose from", "passages": passages[:4]}
    path.write_text("".join(json.dumps(row) + "\n" for row in ({"query": "q", "passages": passages}, without, short)))
    data = contrastive.dataset([path], 3)
    assert data["anchor"] == ["q"] and data["positive"] == ["H2\nt2"]
    wrong = {data[f"negative_{n}"][0] for n in (1, 2, 3)}
    assert len(wrong) == 3
    assert wrong <= {f"H{n}\nt{n}" for n in (0, *range(3, 12))}, "an answer and what is far down are left out"
    assert len(contrastive.dataset([path], None).column_names) == 12, "ten of them, where all are asked for"
