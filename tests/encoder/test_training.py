"""Both training stages of the encoder, run for real on a few invented texts."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch

from encoder import files, pretrain, training
from encoder.bag import Bag, BagConfig
from encoder.model import PRESETS, EncoderModel, MaskedLM
from encoder.reranker import RerankerModel
from tests.encoder.training import accuracy, refused, run, run_three_steps, write_pairs

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


def test_pretraining_learns_and_resumes_exactly(tokens, tmp_path, monkeypatch, capsys):
    common = ["--tokens", tokens, "--preset", "encoder-tiny", "--steps", 60, "--batch", 8, "--length", 48]
    common += ["--warmup", 5, "--lr", 5e-3]
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "whole")
    assert "the rate" not in capsys.readouterr().out
    real, clock = pretrain.time.monotonic, iter(range(10**6))
    monkeypatch.setattr(pretrain.time, "monotonic", lambda: next(clock))  # one second a look
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "cut", "--minutes", 30 / 60)
    monkeypatch.setattr(pretrain.time, "monotonic", real)
    state = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=False)
    assert state["seconds"] >= state["step"] > 20, "the steps after the last line take time too"
    assert f"step {state['step']} of 60: the rate has not fallen" in capsys.readouterr().out
    held = files.load(tmp_path / "cut" / "model")[0].state_dict()
    assert all(torch.equal(held[name], state["model"][f"model.{name}"]) for name in held)
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "cut")
    whole, cut = (files.load(tmp_path / name / "model")[0].state_dict() for name in ("whole", "cut"))
    for name in whole:
        assert torch.equal(whole[name], cut[name]), name
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").open()]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"] and "held_out_loss" in rows[-1]


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile finds no C++ compiler here")
def test_a_compiled_step_gives_the_same_loss_in_one_graph(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, fullgraph=True))  # a break is an error
    common = ["--tokens", tokens, "--preset", "encoder-tiny", "--steps", 2, "--batch", 4, "--length", 24]
    losses = []
    for flag in ("--compile", "--no-compile"):
        run(pretrain, monkeypatch, *common, flag, "--out", tmp_path / flag)
        losses += [json.loads(line)["loss"] for line in (tmp_path / flag / "log.jsonl").open()]
    assert losses[0] == pytest.approx(losses[1], abs=5e-3)  # fused, sums are rounded to bf16 less often


@pytest.mark.parametrize(
    "model", [MaskedLM(PRESETS["encoder-tiny"]), RerankerModel(EncoderModel(PRESETS["encoder-tiny"]))]
)
def test_every_parameter_has_one_optimiser(model):
    head = [p for n, p in model.named_parameters() if n.startswith(("marks.", "score."))]
    optimizers = training.make_optimizers(model, 1e-3, 0.1, head)
    held = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H200", 989e12), ("Tesla T4", None)],
)
def test_a_devices_peak_is_its_own(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert training.peak_flops("cuda") == peak
    assert training.peak_flops("cpu") is None


def test_what_stops_a_pretraining_is_one_line(tokens, tmp_path, monkeypatch, capsys):
    common = ["--preset", "encoder-tiny", "--steps", 1, "--batch", 2]
    (tmp_path / "nothing").touch()
    (tmp_path / "pair").write_text(json.dumps({"query": "who?", "passage": "he"}) + "\n")
    (tmp_path / "torn").write_text('{"query": "who')
    wrong: list[tuple[list, str]] = [
        (["--tokens", tmp_path], "mix.json"),
        (["--length", 129], "reads 128 tokens"),
        (["--pairs", tmp_path / "absent"], "absent cannot be read"),
        (["--pairs", tmp_path / "torn"], "torn cannot be read"),
        (["--pairs", tmp_path / "nothing"], "holds no rows"),
        (["--pairs", tmp_path / "pair"], "no window of 128"),
    ]
    for args, message in wrong:
        given = ["--tokens", tokens, *common, "--out", tmp_path / "out", *args]
        assert message in refused(pretrain, monkeypatch, capsys, *given)
    given = ["--tokens", tokens, *common, "--length", 24, "--out", tmp_path / "out"]
    run(pretrain, monkeypatch, *given)
    capsys.readouterr()
    assert "does not fit" in refused(pretrain, monkeypatch, capsys, *given, "--preset", "encoder-mini")
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"damaged")
    assert "does not fit" in refused(pretrain, monkeypatch, capsys, *given)
    for kind, size in (("heldout.bin", 40), ("bin", 40)):
        (tokens / f"one.{kind}").write_bytes(bytes(size))
        assert f".{kind} file" in refused(pretrain, monkeypatch, capsys, *given)


def test_contrastive_training_brings_pairs_together(tmp_path, monkeypatch):
    contrastive = pytest.importorskip("encoder.contrastive")
    torch.manual_seed(0)
    files.save(EncoderModel(PRESETS["encoder-tiny"]), TOKENIZER, tmp_path / "start", torch.float32)
    args = ["--pairs", write_pairs(tmp_path), "--start", tmp_path / "start", "--out", tmp_path / "out"]
    run(
        contrastive,
        monkeypatch,
        *args,
        "--steps",
        40,
        "--batch",
        16,
        "--mini-batch",
        8,
        "--lr",
        3e-3,
        "--max-length",
        128,
    )

    assert accuracy(tmp_path / "start") < 0.3
    assert accuracy(tmp_path / "out" / "model") > 0.9


@pytest.mark.parametrize("bag", [False, True])
def test_contrastive_training_keeps_the_tokenizer_that_it_trained_with(bag, tmp_path, monkeypatch):
    contrastive = pytest.importorskip("encoder.contrastive")
    files.save(
        Bag(BagConfig(d_model=48)) if bag else EncoderModel(PRESETS["encoder-tiny"]), TOKENIZER, tmp_path / "start"
    )
    path = tmp_path / "start" / files.TOKENIZER
    own = json.loads(path.read_text())
    own["model"]["merges"].pop()
    path.write_text(json.dumps(own))
    args = ["--pairs", write_pairs(tmp_path), "--start", tmp_path / "start", "--out", tmp_path / "out"]
    run(contrastive, monkeypatch, *args, "--steps", 1, "--batch", 4, *["--bag"] * bag, "--max-length", 128)
    assert json.loads((tmp_path / "out" / "model" / files.TOKENIZER).read_text()) == own


def test_contrastive_training_resumes_exactly(tmp_path, monkeypatch):
    contrastive = pytest.importorskip("encoder.contrastive")
    torch.manual_seed(0)
    files.save(EncoderModel(PRESETS["encoder-tiny"]), TOKENIZER, tmp_path / "start", torch.float32)
    with (tmp_path / "pairs.jsonl").open("w") as f:
        f.writelines(json.dumps({"query": f"{n} horse", "passage": f"{n * n} river"}) + "\n" for n in range(64))
    common = ["--pairs", tmp_path / "pairs.jsonl", "--start", tmp_path / "start"]
    common += ["--steps", 6, "--batch", 8, "--lr", 3e-3, "--max-length", 128]
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
