"""Both training stages of the encoder, run for real on a few invented texts."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch

from encoder import files, pretrain
from encoder.model import PRESETS, EncoderModel, MaskedLM
from tests.encoder.training import accuracy, run, run_three_steps, write_pairs

TOKENIZER = Path("weights/tokenizer.json")


@pytest.fixture
def tokens(tmp_path) -> Path:
    folder = tmp_path / "tokens"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pattern = rng.integers(16, 300, 64)
    for kind, n in (("bin", 5_000), ("heldout.bin", 2_000)):
        (folder / f"one.{kind}").write_bytes(np.resize(pattern, n).astype(np.uint16).tobytes())
        (folder / f"empty.{kind}").touch()
    (folder / "mix.json").write_text(json.dumps({"one": 0.9, "empty": 0.1}))
    return folder


def test_pretraining_learns_and_resumes_exactly(tokens, tmp_path, monkeypatch):
    common = ["--tokens", tokens, "--preset", "encoder-tiny", "--steps", 60, "--batch", 8, "--length", 48]
    common += ["--warmup", 5, "--lr", 5e-3]
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "whole")
    real, clock = pretrain.time.monotonic, iter(range(10**6))
    monkeypatch.setattr(pretrain.time, "monotonic", lambda: next(clock))  # one second a look
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "cut", "--minutes", 30 / 60)
    monkeypatch.setattr(pretrain.time, "monotonic", real)
    assert not (tmp_path / "cut" / "model").exists()
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "cut")
    whole, cut = (files.load(tmp_path / name / "model")[0].state_dict() for name in ("whole", "cut"))
    for name in whole:
        assert torch.equal(whole[name], cut[name]), name
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").open()]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"] and "held_out_loss" in rows[-1]


def test_every_parameter_has_one_optimiser():
    model = MaskedLM(PRESETS["encoder-tiny"])
    held = [id(p) for o in pretrain.optimizers(model, 1e-3) for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_contrastive_training_brings_pairs_together(tmp_path, monkeypatch):
    contrastive = pytest.importorskip("encoder.contrastive")
    torch.manual_seed(0)
    files.save(EncoderModel(PRESETS["encoder-tiny"]), TOKENIZER, tmp_path / "start", torch.float32)
    args = ["--pairs", write_pairs(tmp_path), "--start", tmp_path / "start", "--out", tmp_path / "out"]
    run(contrastive, monkeypatch, *args, "--steps", 40, "--batch", 16, "--mini-batch", 8, "--lr", 3e-3)

    assert accuracy(tmp_path / "start") < 0.3
    assert accuracy(tmp_path / "out" / "model") > 0.9


def test_contrastive_training_resumes_exactly(tmp_path, monkeypatch):
    contrastive = pytest.importorskip("encoder.contrastive")
    torch.manual_seed(0)
    files.save(EncoderModel(PRESETS["encoder-tiny"]), TOKENIZER, tmp_path / "start", torch.float32)
    with (tmp_path / "pairs.jsonl").open("w") as f:
        f.writelines(json.dumps({"query": f"{n} horse", "passage": f"{n * n} river"}) + "\n" for n in range(64))
    common = ["--pairs", tmp_path / "pairs.jsonl", "--start", tmp_path / "start"]
    common += ["--steps", 6, "--batch", 8, "--lr", 3e-3]
    run(contrastive, monkeypatch, *common, "--out", tmp_path / "whole")

    run_three_steps(contrastive, monkeypatch, *common, "--out", tmp_path / "cut")
    start, cut = (files.load(tmp_path / name)[0].state_dict() for name in ("start", "cut/model"))
    assert not any(torch.equal(start[name], cut[name]) for name in cut if "mlp" in name and name.endswith("Wi.weight"))
    run(contrastive, monkeypatch, *common, "--out", tmp_path / "cut")
    whole, cut = (files.load(tmp_path / name / "model")[0].state_dict() for name in ("whole", "cut"))
    for name in whole:
        assert torch.allclose(whole[name], cut[name], atol=1e-5), name


def test_pairs_are_read_as_the_second_stage_reads_them(tokens, tmp_path):
    tokenizer = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    rows = [{"query": f"who is {n}?", "passage": f"{n}\n{n} is a smith."} for n in ("Ada", "Bo", "Cy")]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flat = pretrain.pair_tokens([path], tokenizer, at_once=2)
    texts = [tokenizer.decode(part.tolist()) for part in np.split(flat, np.flatnonzero(flat == 1))[1:]]
    assert sorted(zip(texts[::2], texts[1::2], strict=True)) == [(r["query"], r["passage"]) for r in rows]

    flat = np.resize(flat, 500)
    windows = pretrain.Windows(tokens, 16, 0, pairs=flat, share=0.25)
    inside = np.lib.stride_tricks.sliding_window_view(flat, 16)
    hits = sum((inside == row).all(1).any() for row in windows.batch(2_000).numpy())
    assert 0.2 < hits / 2_000 < 0.3
