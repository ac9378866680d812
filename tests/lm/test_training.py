"""Data, pretraining and tuning, run for real on a few invented documents."""

import json
import random
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lm import data, files, optim, pretrain, tune
from lm.model import PRESETS, Cirilla
from lm.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load(Path("weights/tokenizer.json"))


def documents(n: int, seed: int = 0, sentences: int = 40) -> list[str]:
    rng = random.Random(seed)
    people, places = ["Orsolya", "Tobiah", "Maruk", "Ilvane"], ["Marn", "Brennport", "the Hollow Hills"]
    return [
        " ".join(
            f"{rng.choice(people)} rode to {rng.choice(places)} in the year {rng.randint(900, 999)}."
            for _ in range(rng.randint(1, sentences))
        )
        for _ in range(n)
    ]


@pytest.fixture
def tokens(tmp_path, monkeypatch) -> Path:
    """A token folder with two sources."""
    monkeypatch.setattr(data, "PRETRAIN_MIX", {"one": 0.75, "two": 0.25})
    for seed, name in enumerate(("one", "two")):
        data.write_shard(iter(documents(120, seed)), TOKENIZER, tmp_path / "tokens" / name, holdout_every=20)
    return tmp_path / "tokens"


def test_shards_hold_every_document_once(tmp_path):
    texts = documents(50)
    counts = data.write_shard(iter(texts), TOKENIZER, tmp_path / "shard", holdout_every=10)
    train, held = (data.Shard.open(tmp_path / f"shard.{kind}", TOKENIZER.bos) for kind in ("bin", "heldout.bin"))
    read = [TOKENIZER.decode(s.document(i)[1:].tolist()) for s in (train, held) for i in range(len(s))]
    assert sorted(read) == sorted(texts)
    assert len(held) == 5 and counts["documents"] == 50
    assert counts["bytes"] + counts["heldout_bytes"] == sum(len(t.encode()) for t in texts)


def test_rows_start_with_documents_and_cut_few(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PRETRAIN_MIX", {"one": 1.0})
    data.write_shard(iter(documents(200, sentences=6)), TOKENIZER, tmp_path / "one")
    shards, weights = data.open_mix(tmp_path, TOKENIZER.bos)
    rows = data.PackedRows(shards, weights, length=255, seed=0)
    whole = {tuple(s.document(i)) for s in shards for i in range(len(s))}
    cut = pieces = 0
    for row in (rows.row() for _ in range(100)):
        assert len(row) == 256 and row[0] == TOKENIZER.bos
        starts = [*np.flatnonzero(row == TOKENIZER.bos), len(row)]
        for a, b in pairwise(starts):
            pieces += 1
            cut += tuple(row[a:b].astype(np.uint16)) not in whole
    # Filling rows in the order drawn would cut the last piece of almost every row: 100.  Best fit finds one that fits.
    assert cut < 75 and pieces > 400


def test_sources_get_their_share_of_tokens(tokens):
    shards, weights = data.open_mix(tokens, TOKENIZER.bos)
    rows = data.PackedRows(shards, weights, length=100, seed=0)
    drawn = np.array([rows._draw()[0] for _ in range(4_000)])
    size = [np.mean([min(len(s.document(i)), 100) for i in range(len(s))]) for s in shards]
    share = np.array([(drawn == i).sum() * size[i] for i in (0, 1)])
    assert share[0] / share.sum() == pytest.approx(0.75, abs=0.06)


def run(module, monkeypatch, *args) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *map(str, args)])
    module.main()


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").open()]


def test_pretraining_learns_and_resumes_exactly(tokens, tmp_path, monkeypatch):
    common = ["--tokens", tokens, "--preset", "cirilla-tiny", "--steps", 60, "--batch", 4, "--length", 64]
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "whole")
    # The same run, killed after 40 steps: minutes are over at once when the clock says so.
    clock = iter(range(10**6))
    real = pretrain.time.monotonic
    monkeypatch.setattr(pretrain.time, "monotonic", lambda: next(clock))  # one second a look
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "cut", "--minutes", 45 / 60)
    monkeypatch.setattr(pretrain.time, "monotonic", real)
    state = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=False)
    assert 0 < state["step"] < 60 and not (tmp_path / "cut" / "model").exists()
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "cut")
    whole, cut = files.load(tmp_path / "whole" / "model")[0], files.load(tmp_path / "cut" / "model")[0]
    for (name, a), (_, b) in zip(whole.state_dict().items(), cut.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    losses = log(tmp_path / "whole")
    assert losses[-1]["loss"] < losses[0]["loss"] - 1
    assert 0 < losses[-1]["bits_per_byte"] < 4


def test_every_parameter_has_one_optimiser():
    model = Cirilla(PRESETS["cirilla-tiny"])
    held = [id(p) for o in optim.optimizers(model, 1e-3) for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_the_schedule_rises_holds_and_falls():
    rates = [optim.schedule(step, 100, warmup=10, decay=0.2) for step in range(100)]
    assert rates[0] == 0.1 and rates[9:80] == [1.0] * 71
    assert rates[80:] == sorted(rates[80:], reverse=True) and rates[-1] == pytest.approx(0.05)


ROW = {"passages": [["Marn", "Ilvane ruled Marn."]], "turns": [["user", "Who ruled Marn?"]], "answer": "Ilvane [1]."}


def test_tuning_counts_the_answer_alone():
    ids, start = tune.example(TOKENIZER, ROW, length=100) or ([], 0)
    assert TOKENIZER.inner.decode(ids[start:], skip_special_tokens=False) == "Ilvane [1].<|end|>"
    inputs, targets = tune.collate([(ids, start), (ids[:-2], start)], TOKENIZER.pad, learn_prompt=False)
    assert inputs.shape == targets.shape == (2, len(ids) - 1)
    assert targets[0][targets[0] != -100].tolist() == ids[start:]
    # What stands before a target is what the model sees when it must say it.
    assert inputs[0, start - 1] == ids[start - 1] and targets[0, start - 1] == ids[start]
    assert (targets[1] != -100).sum() == len(ids) - start - 2
    assert (tune.collate([(ids, start)], TOKENIZER.pad, learn_prompt=True)[1] != -100).all()


def test_an_answer_that_does_not_fit_is_left_out():
    assert tune.example(TOKENIZER, {**ROW, "answer": "Ilvane. " * 100}, length=100) is None


def test_tuning_learns_to_answer(tmp_path, monkeypatch):
    torch.manual_seed(0)
    files.save(Cirilla(PRESETS["cirilla-tiny"]), TOKENIZER, tmp_path / "start", torch.float32)
    with (tmp_path / "rows.jsonl").open("w") as f:
        for i in range(60):
            name = ["Ilvane", "Tobiah"][i % 2]
            f.write(json.dumps({**ROW, "passages": [["Marn", f"{name} ruled Marn."]], "answer": f"{name} [1]."}) + "\n")
    common = ["--data", tmp_path / "rows.jsonl", "--start", tmp_path / "start", "--out", tmp_path / "out"]
    run(tune, monkeypatch, *common, "--steps", 60, "--batch", 8, "--length", 64, "--held-out", 10, "--lr", 3e-3)
    losses = log(tmp_path / "out")
    assert losses[-1]["held_out_answer_loss"] < 0.2 * losses[0]["answer_loss"]
    assert files.load(tmp_path / "out" / "model")[0].config == PRESETS["cirilla-tiny"]
