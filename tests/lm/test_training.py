"""Data, pretraining and tuning, run for real on a few invented documents."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lm import curves, data, files, optim, pretrain, tune
from lm.errors import LMError
from lm.model import PRESETS, Cirilla
from lm.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load(Path("weights/tokenizer.json"))
EXPERTS = replace(PRESETS["cirilla-tiny"], n_experts=4, n_active=2, d_expert=48)


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


@pytest.mark.parametrize("pattern", ["codex", "lore/*"])
def test_missing_text_is_one_line(tmp_path, monkeypatch, capsys, pattern):
    given = ["--data", tmp_path, "--codex", tmp_path / "nowhere", "--out", tmp_path / "tokens", "--only", pattern]
    assert run(data, monkeypatch, *given) == 1
    said = capsys.readouterr().err
    assert said.startswith("No ") and str(tmp_path) in said and said.count("\n") == 1


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
    assert cut < 50 and pieces > 250


def test_sources_get_their_share_of_tokens(tokens):
    shards, weights = data.open_mix(tokens, TOKENIZER.bos)
    rows = data.PackedRows(shards, weights, length=100, seed=0)
    drawn = np.array([rows._draw()[0] for _ in range(4_000)])
    size = [np.mean([min(len(s.document(i)), 100) for i in range(len(s))]) for s in shards]
    share = np.array([(drawn == i).sum() * size[i] for i in (0, 1)])
    assert share[0] / share.sum() == pytest.approx(0.75, abs=0.06)


def test_sharing_a_stream_changes_nothing_in_it(tokens):
    """Two processes' batches side by side are one process's of twice the size, and so are those after them."""
    made = data.open_mix(tokens, TOKENIZER.bos)
    whole, *parts = (data.PackedRows(*made, length=60, seed=3) for _ in range(3))
    for _ in range(3):
        ids, targets = whole.batch(4)
        halves = [part.batch(2, rank, 2) for rank, part in enumerate(parts)]
        assert torch.equal(ids, torch.cat([h[0] for h in halves]))
        assert torch.equal(targets, torch.cat([h[1] for h in halves]))


def test_every_piece_of_a_row_begins_with_its_mark(tmp_path, monkeypatch):
    """Pieces from the middle of a long document too: else they would belong to the document before."""
    monkeypatch.setattr(data, "PRETRAIN_MIX", {"one": 1.0})
    data.write_shard(iter(documents(60, sentences=60)), TOKENIZER, tmp_path / "one")
    rows = data.PackedRows(*data.open_mix(tmp_path, TOKENIZER.bos), length=90, seed=0)
    inside = 0
    for _ in range(200):
        plan = rows._plan()
        row = rows._read(plan)
        assert np.flatnonzero(row == TOKENIZER.bos).tolist() == [0, *np.cumsum([p[3] for p in plan])[:-1]]
        inside += sum(offset > 0 for _, _, offset, _ in plan)
    assert inside > 20
    ids = torch.from_numpy(row)[None]
    assert pretrain.documents_of(ids, TOKENIZER.bos)[0].max() == len(plan)


def test_batches_made_ahead_are_not_counted_as_used(tokens):
    rows, plain = (data.PackedRows(*data.open_mix(tokens, TOKENIZER.bos), length=40, seed=0) for _ in range(2))
    with data.Prefetch(lambda: rows.batch(2), rows.state_dict, ready=3) as loader:
        expected = [plain.batch(2) for _ in range(5)]
        for want in expected[:3]:
            assert all(torch.equal(a, b) for a, b in zip(loader.next(), want, strict=True))
        while loader._queue.qsize() < 3:
            time.sleep(0.001)
        state = loader.state_dict()
    assert not any(t.name == "batches" for t in threading.enumerate())
    again = data.PackedRows(*data.open_mix(tokens, TOKENIZER.bos), length=40, seed=9)
    again.load_state_dict(state)
    assert all(torch.equal(again.batch(2)[0], want[0]) for want in expected[3:])


def test_what_goes_wrong_in_the_thread_is_raised_in_the_loop():
    def make():
        raise LMError("the disk is gone")

    with data.Prefetch(make, dict) as loader, pytest.raises(LMError, match="the disk is gone"):
        loader.next()


def test_bytes_of_tokens_add_up_to_the_text():
    text = "Geralt of Rivia – “Wolf” – słyszał 12 łotrów.\n\n日本"
    bytes_of = data.token_bytes(TOKENIZER)
    assert bytes_of[TOKENIZER.encode(text)].sum() == len(text.encode())
    assert bytes_of[TOKENIZER.bos] == 0


def run(module, monkeypatch, *args) -> int:
    monkeypatch.setattr(sys, "argv", ["x", *map(str, args)])
    return module.main()


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").open()]


LEARNT = ("step", "loss", "bits_per_byte", "tokens", "answer_loss", "held_out_answer_loss")


def learnt(folder: Path) -> list[dict]:
    """The log without what depends on the clock."""
    return [{k: v for k, v in row.items() if k in LEARNT} for row in log(folder)]


def equal_weights(one: Path, two: Path) -> None:
    states = [files.load(folder / "model")[0].state_dict() for folder in (one, two)]
    for (name, a), (_, b) in zip(states[0].items(), states[1].items(), strict=True):
        assert torch.equal(a, b), name


def test_pretraining_learns_and_resumes_exactly(tokens, tmp_path, monkeypatch):
    common = ["--tokens", tokens, "--preset", "cirilla-tiny", "--steps", 24, "--batch", 4, "--length", 32,
              "--eval-rows", 10, "--window", 8, "--lr", 5e-3, "--warmup", 5]  # fmt: skip
    assert run(pretrain, monkeypatch, *common, "--out", tmp_path / "whole") == 0
    # The same run, stopped in the middle of a window: minutes are over at once when the clock says so.
    clock = iter(range(10**6))
    real = pretrain.time.monotonic
    monkeypatch.setattr(pretrain.time, "monotonic", lambda: next(clock))  # one second a look
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "cut", "--minutes", 24 / 60)
    monkeypatch.setattr(pretrain.time, "monotonic", real)
    state = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=False)
    assert 0 < state["step"] < 24 and state["step"] % 8 and not (tmp_path / "cut" / "model").exists()
    run(pretrain, monkeypatch, *common, "--out", tmp_path / "cut")
    equal_weights(tmp_path / "whole", tmp_path / "cut")
    assert learnt(tmp_path / "whole") == learnt(tmp_path / "cut")
    losses = log(tmp_path / "whole")
    assert [row["step"] for row in losses] == [8, 16, 24]
    assert losses[-1]["loss"] < losses[0]["loss"] - 1
    assert losses[-1]["bits_per_byte"] < losses[0]["bits_per_byte"] < 6
    assert {"tokens_per_second", "mfu", "minutes", "eta_minutes"} <= set(losses[0])
    assert (tmp_path / "whole" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_an_encoders_embeddings_may_come_first(tokens, tmp_path, monkeypatch, capsys):
    from safetensors.torch import save_file

    learnt_before = torch.randn(16_384, 64) * 0.1
    save_file({"embeddings.tok_embeddings.weight": learnt_before}, tmp_path / "encoder.safetensors")
    save_file({"embeddings.tok_embeddings.weight": learnt_before[:, :8].clone()}, tmp_path / "narrow.safetensors")
    model = Cirilla(PRESETS["cirilla-tiny"])
    spread = model.embed_tokens.weight.std()
    pretrain.begin_with(model, tmp_path / "encoder.safetensors")
    taken = model.embed_tokens.weight.detach()
    assert torch.allclose(taken.std(), spread, rtol=1e-3)
    assert torch.allclose(torch.corrcoef(torch.stack((taken.flatten(), learnt_before.flatten())))[0, 1], torch.ones(()))
    given = ["--tokens", tokens, "--preset", "cirilla-tiny", "--steps", 1, "--batch", 2, "--length", 32]
    for name in ("narrow.safetensors", "nothing.safetensors"):
        assert run(pretrain, monkeypatch, *given, "--out", tmp_path / "run", "--embeddings", tmp_path / name) == 1
        assert name in capsys.readouterr().err
    assert (
        run(pretrain, monkeypatch, *given, "--out", tmp_path / "o", "--embeddings", tmp_path / "encoder.safetensors")
        == 0
    )


def test_the_end_of_a_document_a_little_longer_than_a_row_is_read_too(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PRETRAIN_MIX", {"one": 1.0})
    data.write_shard(iter(["Orsolya rode to Marn in the year 950. " * 12]), TOKENIZER, tmp_path / "one")
    shards, weights = data.open_mix(tmp_path, TOKENIZER.bos)
    size = int(shards[0].sizes[0])
    rows = data.PackedRows(shards, weights, length=int(size * 0.7), seed=0, buffer=4)
    ends = {offset + taken for _, _, offset, taken in (rows._draw() for _ in range(200))}
    assert max(ends) == size


def test_a_log_with_half_a_line_is_mended(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"st')
    optim.Log(tmp_path, 4).add({"step": 6, "again": True})
    assert log(tmp_path) == [{"step": 2}, {"step": 4}, {"step": 6, "again": True}]


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA L4", 121e12), ("NVIDIA L40S", math.nan)],
)
def test_a_devices_peak_is_its_own(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert optim.peak_flops("cuda") == pytest.approx(peak, nan_ok=True)


def command(module: str, *args) -> list[str]:
    return [sys.executable, "-m", f"lm.{module}", *map(str, args)]


def test_a_killed_run_goes_on_with_the_same_curve(tokens, tmp_path, monkeypatch):
    mix = tmp_path / "mix.json"
    mix.write_text(json.dumps(data.PRETRAIN_MIX))
    common = ["--tokens", tokens, "--mix", mix, "--preset", "cirilla-tiny", "--steps", 16, "--batch", 2, "--length",
              32, "--window", 2, "--save-every", 5, "--eval-rows", 2, "--mask-documents"]  # fmt: skip
    assert run(pretrain, monkeypatch, *common, "--out", tmp_path / "whole") == 0
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command("pretrain", *common, "--out", tmp_path / "killed"), env=threads,
                             stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if '"step": 8' in line:  # saved at 5; the lines of steps 6 and 8, and perhaps more, are lost work
            os.kill(child.pid, signal.SIGKILL)
            break
    child.wait()
    child.stdout.close()
    assert child.returncode == -signal.SIGKILL and not (tmp_path / "killed" / "model").exists()
    threads_here = torch.get_num_threads()
    assert run(pretrain, monkeypatch, *common, "--out", tmp_path / "killed") == 0
    whole, killed = learnt(tmp_path / "whole"), learnt(tmp_path / "killed")
    assert [row["step"] for row in killed] == [row["step"] for row in whole]
    # Another number of threads may add in another order: equal to what a line shows, give or take its last digit.
    tolerance = 0 if threads_here == 1 else 5e-4
    for one, two in zip(whole, killed, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=tolerance)
        assert two["bits_per_byte"] == pytest.approx(one["bits_per_byte"], abs=tolerance)


def test_experts_train_and_their_load_is_logged(tokens, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "experts", EXPERTS)
    common = ["--tokens", tokens, "--preset", "experts", "--steps", 12, "--batch", 2, "--length", 32, "--window", 6]
    assert run(pretrain, monkeypatch, *common, "--out", tmp_path / "moe", "--eval-rows", 4, "--balance", 0.05) == 0
    rows = log(tmp_path / "moe")
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert all(0 <= row["idlest_expert"] <= 1 <= row["busiest_expert"] <= 4 for row in rows)


def test_the_baseline_is_one_command_and_runs_are_compared(tokens, tmp_path, monkeypatch):
    common = ["--tokens", tokens, "--preset", "cirilla-tiny", "--steps", 4, "--batch", 2, "--length", 32,
              "--window", 2, "--eval-rows", 2]  # fmt: skip
    assert run(pretrain, monkeypatch, *common, "--out", tmp_path / "muon") == 0
    baseline = ["--optimizer", "adamw", "--schedule", "cosine", "--out", tmp_path / "adamw"]
    assert run(pretrain, monkeypatch, *common, *baseline) == 0
    out = tmp_path / "both.png"
    assert run(curves, monkeypatch, tmp_path / "muon", tmp_path / "adamw", "--against", "tokens", "--out", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    # A checkpoint of the one does not go on as the other, and says so.
    assert run(pretrain, monkeypatch, *common, "--out", tmp_path / "adamw") == 1


def test_curves_say_what_they_cannot_draw(tmp_path, monkeypatch, capsys):
    assert run(curves, monkeypatch, tmp_path) == 1
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    assert run(curves, monkeypatch, tmp_path, "--against", "tokens", "--out", tmp_path / "x.png") == 1
    assert len(capsys.readouterr().err.splitlines()) == 2 and not (tmp_path / "x.png").exists()


def test_bits_per_byte_do_not_depend_on_the_packing(tokens):
    """A document is measured by itself, and its end is not text."""
    torch.manual_seed(0)
    model = Cirilla(PRESETS["cirilla-tiny"])
    a, b = (TOKENIZER.encode(text) for text in ("Ilvane rode to Marn.", "Tobiah stayed at home in Brennport."))
    bos, bytes_of = TOKENIZER.bos, data.token_bytes(TOKENIZER)

    def measured(*rows):
        return pretrain.bits_per_byte(
            model, [(torch.tensor([row[:-1]]), torch.tensor([row[1:]])) for row in rows], bytes_of, bos
        )

    assert measured([bos, *a, bos, *b]) == pytest.approx(measured([bos, *a], [bos, *b]), rel=2e-3)
    guess = math.log2(TOKENIZER.vocab_size) * len(a) / len("Ilvane rode to Marn.")  # an untrained model knows nothing
    assert measured([bos, *a]) == pytest.approx(guess, rel=0.05)


def test_what_a_token_sees_and_costs():
    ids = torch.tensor([[1, 5, 5, 1, 5, 5, 5, 5]])
    assert pretrain.mean_context(ids, 1, masked=False) == 4.5
    assert pretrain.mean_context(ids, 1, masked=True) == pytest.approx((1 + 2 + 3 + 1 + 2 + 3 + 4 + 5) / 8)
    model = Cirilla(PRESETS["cirilla-tiny"])
    dense = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert optim.flops_per_token(model, 0) == 6 * dense
    assert optim.flops_per_token(model, 10) == 6 * dense + 2 * 12 * 4 * 16 * 10
    moe = Cirilla(EXPERTS)  # a token visits two experts of four
    assert optim.flops_per_token(moe, 0) < 6 * sum(p.numel() for p in moe.parameters() if p.ndim >= 2)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("preset", ["cirilla-tiny", "llama2-tiny", "experts"])
def test_every_parameter_has_one_optimiser(preset, kind):
    model = Cirilla(EXPERTS if preset == "experts" else PRESETS[preset])
    groups = optim.optimizers(model, 1e-3, kind=kind)
    held = [id(p) for o in groups for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    if kind == "muon":
        names = {id(p): n for n, p in model.named_parameters()}
        muon = {names[id(p)].split(".", 2)[-1] for g in groups[0].param_groups for p in g["params"]}
        feed_forward = (
            {"mlp.gate_up", "mlp.down"}
            if preset == "experts"
            else {f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
        )
        assert muon == {f"self_attn.{part}_proj.weight" for part in "qkvo"} | feed_forward


def test_a_parameter_without_optimiser_is_noticed(monkeypatch):
    rng = random.Random(0)
    monkeypatch.setattr(optim, "is_hidden_matrix", lambda name, p: p.ndim == 2 and rng.random() < 0.5)
    with pytest.raises(AssertionError, match="no optimiser"):
        optim.optimizers(Cirilla(PRESETS["cirilla-tiny"]), 1e-3)
    with pytest.raises(ValueError, match="no optimiser 'sgd'"):
        optim.optimizers(Cirilla(PRESETS["cirilla-tiny"]), 1e-3, kind="sgd")


def test_muon_is_torchs_and_takes_a_stack_as_its_matrices():
    torch.manual_seed(0)
    start = torch.randn(3, 24, 40)
    gradients = [torch.randn(3, 24, 40) for _ in range(4)]

    def after(make, split):
        params = [torch.nn.Parameter(p.clone()) for p in (start if split else [start])]
        optimizer = make(params)
        for gradient in gradients:
            for p, g in zip(params, gradient if split else [gradient], strict=True):
                p.grad = g.clone()
            optimizer.step()
        return torch.stack([p.detach() for p in params]) if split else params[0].detach()

    stacked = after(lambda p: optim.Muon(p, 0.02, 0.1), split=False)
    singly = after(lambda p: optim.Muon(p, 0.02, 0.1), split=True)
    theirs = after(lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), split=True)
    moved = (theirs - start).norm()
    assert (stacked - singly).norm() < 0.02 * moved  # the iteration runs in bf16
    assert (singly - theirs).norm() < 0.02 * moved
    with pytest.raises(ValueError, match="matrices"):
        optim.Muon([torch.nn.Parameter(torch.ones(3))], 0.1)


def test_orthogonalised_matrices_have_even_singular_values():
    torch.manual_seed(0)
    for shape in ((2, 16, 48), (2, 48, 16)):
        made = optim.orthogonalised(torch.randn(shape)).float()
        values = torch.linalg.svdvals(made)
        assert made.shape == shape and values.min() > 0.5 and values.max() < 1.3


def test_the_schedule_rises_holds_and_falls():
    rates = [optim.schedule(step, 100, warmup=10, decay=0.2) for step in range(100)]
    assert rates[0] == 0.1 and rates[9:80] == [1.0] * 71
    assert rates[80:] == sorted(rates[80:], reverse=True) and rates[-1] == pytest.approx(0.05)
    cosine = [optim.schedule(step, 100, warmup=10, decay=0.2, shape="cosine") for step in range(101)]
    assert cosine[9] == 1.0 and cosine[10:] == sorted(cosine[10:], reverse=True)
    assert cosine[55] == pytest.approx(0.55) and cosine[100] == pytest.approx(0.1)


ROW = {"passages": [["Marn", "Ilvane ruled Marn."]], "turns": [["user", "Who ruled Marn?"]], "answer": "Ilvane [1]."}


def test_tuning_counts_the_answer_alone():
    ids, start = tune.example(TOKENIZER, ROW, length=100) or ([], 0)
    assert TOKENIZER.inner.decode(ids[start:], skip_special_tokens=False) == "Ilvane [1].<|end|>"
    inputs, targets = tune.collate([(ids, start), (ids[:-2], start)], TOKENIZER.pad)
    assert inputs.shape == targets.shape == (2, len(ids) - 1)
    assert targets[0][targets[0] != -100].tolist() == ids[start:]
    # What stands before a target is what the model sees when it must say it.
    assert inputs[0, start - 1] == ids[start - 1] and targets[0, start - 1] == ids[start]
    assert (targets[1] != -100).sum() == len(ids) - start - 2


def test_an_answer_that_does_not_fit_is_left_out():
    assert tune.example(TOKENIZER, {**ROW, "answer": "Ilvane. " * 100}, length=100) is None


def test_long_rows_are_shortened_where_nothing_is_cited():
    long = "Maruk kept bees on the hill behind the mill. " * 20
    passages = [["Maruk", long], ["Marn", "Ilvane ruled Marn."], ["Bees", long]]
    row = {**ROW, "passages": passages, "answer": "Ilvane [2]."}
    ids, start = tune.example(TOKENIZER, row, length=150) or ([], 0)
    text = TOKENIZER.inner.decode(ids, skip_special_tokens=False)
    assert 130 <= len(ids) <= 150 and "Ilvane ruled Marn." in text and text.count("Maruk kept bees") >= 2
    assert TOKENIZER.decode(ids[start:]) == "Ilvane [2]."
    # What the answer cites is never cut: rather no row at all.
    assert tune.example(TOKENIZER, {**row, "answer": "Ilvane [1]."}, length=150) is None


def rows_of(n: int, kind: str = "k") -> list[dict]:
    return [{**ROW, "passages": [["Marn", f"King {i} ruled Marn. " * (1 + i % 5)]], "answer": f"King {i} [1].",
             "kind": kind} for i in range(n)]  # fmt: skip


def test_packed_conversations_are_whole_and_learn_what_they_learn_apart():
    torch.manual_seed(0)
    model = Cirilla(PRESETS["cirilla-tiny"]).eval()
    source, same = (tune.Conversations(rows_of(90), TOKENIZER, 200, seed=0) for _ in range(2))
    inputs, targets, documents = source.packed(3)
    assert inputs.shape == targets.shape == documents.shape == (3, 200)
    assert (documents > 0).float().mean() > 0.8  # little padding, even of few to choose from
    alone = {}
    for _ in range(90):
        index, made = same._next()
        alone[index] = made
    seen, total, count = 0, 0.0, 0
    for row in range(3):
        for number in range(1, int(documents[row].max()) + 1):
            place = documents[row] == number
            answer = [t for t in targets[row][place].tolist() if t != -100]
            index = next(i for i, (ids, start) in alone.items() if ids[start:] == answer)
            assert inputs[row][place].tolist() == alone[index][0][:-1]
            one, want = tune.collate([alone[index]], TOKENIZER.pad)
            total += model.loss(one, want).item() * len(answer)
            count += len(answer)
            seen += 1
    assert seen > 6
    assert model.loss(inputs, targets, documents).item() == pytest.approx(total / count, abs=1e-4)


def test_every_row_comes_once_an_epoch_and_a_stream_resumes():
    source = tune.Conversations(rows_of(100), TOKENIZER, 200, seed=0)
    orders = [[source._next()[0] for _ in range(100)] for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(100)) and orders[0] != orders[1]
    source.packed(2)
    again = tune.Conversations(rows_of(100), TOKENIZER, 200, seed=0)
    again.load_state_dict(source.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(source.packed(4), again.packed(4), strict=True))
    with pytest.raises(LMError, match="No row fits into 12 tokens"):
        tune.Conversations(rows_of(3), TOKENIZER, 12, seed=0).padded(1)


def test_a_question_that_means_nothing_by_itself_is_kept_with_other_passages():
    def row(kind, *said, passage="One."):
        turns = [["user" if n % 2 == 0 else "assistant", text] for n, text in enumerate(said)]
        return {"kind": kind, "turns": turns, "passages": [["A", passage]], "answer": "x [1]."}

    rows = [
        row("copy", "What does passage 1 begin with?"),
        row("short", "Who is Ilvane?", "A queen [1].", "Where?"),
        row("short", "Who is Maruk?"),
        row("copy", "What does passage 1 begin with?", passage="Two."),
        row("short", "Who is Orsolya?", "A sorceress [1].", "Where?"),
        row("short", "who is maruk", passage="Two."),  # the same question, typed otherwise
        row("copy", "what does passage 1 begin with"),
        row("short", "Who is Ilvane?", "A queen [1].", "where", passage="Two."),  # among other distractors
    ]
    kept, rest = tune.split_rows(rows, 3)
    assert kept == rows[:3] and rest == [rows[3], rows[4]]


def test_what_is_measured_is_not_trained_on():
    rows = [{**ROW, "turns": [["user", f"Question {i // 2}?"]]} for i in range(20)]
    held_out, rest = tune.split_rows(rows, 5)
    assert len(held_out) == 5 and len(rest) == 14  # the sixth asks what the fifth asks


def test_a_run_goes_on_from_its_own_checkpoint_alone(tokens, tmp_path, monkeypatch, capsys):
    files.save(Cirilla(PRESETS["cirilla-tiny"]), TOKENIZER, tmp_path / "start", torch.float32)
    for n in (20, 12):
        (tmp_path / f"{n}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(n, "copy")))
    out = tmp_path / "out"
    tuning = ["--start", tmp_path / "start", "--out", out, "--steps", 2, "--batch", 2, "--held-out", 2, "--length", 120]
    steps = ["--preset", "cirilla-tiny", "--steps", 2, "--batch", 2, "--length", 32, "--eval-rows", 2]
    assert run(tune, monkeypatch, "--data", tmp_path / "20.jsonl", *tuning, "--lr", 1e-3) == 0
    checkpoint = (out / "checkpoint.pt").read_bytes()
    capsys.readouterr()

    def refused(module, *args) -> str:
        assert run(module, monkeypatch, *args) == 1
        said = capsys.readouterr().err
        assert "checkpoint.pt" in said and said.count("\n") == 1
        return said

    assert "other data" in refused(tune, "--data", tmp_path / "12.jsonl", *tuning)
    assert "no checkpoint of lm.pretrain" in refused(pretrain, "--tokens", tokens, "--out", out, *steps)
    for damaged in (checkpoint[: len(checkpoint) // 2], b"", b"not what it should be"):
        (out / "checkpoint.pt").write_bytes(damaged)
        assert "cannot be read" in refused(tune, "--data", tmp_path / "20.jsonl", *tuning)
    assert run(pretrain, monkeypatch, "--tokens", tokens, "--out", tmp_path / "text", *steps) == 0
    capsys.readouterr()
    data.write_shard(iter(documents(90)), TOKENIZER, tokens / "one", holdout_every=20)
    assert "other data" in refused(pretrain, "--tokens", tokens, "--out", tmp_path / "text", *steps)


@pytest.mark.parametrize("packed", [False, True])
def test_tuning_learns_to_answer_and_resumes_exactly(tmp_path, monkeypatch, packed):
    torch.manual_seed(0)
    files.save(Cirilla(PRESETS["cirilla-tiny"]), TOKENIZER, tmp_path / "start", torch.float32)
    with (tmp_path / "rows.jsonl").open("w") as f:
        for i in range(60):
            name = ["Ilvane", "Tobiah"][i % 2]
            row = {**ROW, "passages": [["Marn", f"{name} ruled Marn."]], "answer": f"{name} [1].", "kind": "copy"}
            f.write(json.dumps({**row, "turns": [["user", f"Who ruled Marn, {i}?"]]}) + "\n")
    common = ["--data", tmp_path / "rows.jsonl", "--start", tmp_path / "start", "--steps", 30, "--batch", 1 if packed
              else 4, "--length", 120, "--held-out", 10, "--lr", 4e-3, "--copy-steps", 5, "--window", 10,
              "--eval-every", 10, "--pack" if packed else "--no-pack"]  # fmt: skip
    assert run(tune, monkeypatch, *common, "--out", tmp_path / "whole") == 0
    losses = log(tmp_path / "whole")
    assert losses[-1]["held_out_answer_loss"] < 0.6 * losses[0]["answer_loss"]
    assert set(losses[-1]["by_kind"]) == {"copy"} and 0 <= losses[-1]["held_out_exact"] <= 1
    assert files.load(tmp_path / "whole" / "model")[0].config == PRESETS["cirilla-tiny"]
    ticks = iter(range(10**6))
    with monkeypatch.context() as slow:
        slow.setattr(tune.time, "monotonic", lambda: next(ticks))
        run(tune, monkeypatch, *common, "--out", tmp_path / "cut", "--minutes", 22 / 60)
    assert not (tmp_path / "cut" / "model").exists()
    run(tune, monkeypatch, *common, "--out", tmp_path / "cut")
    assert learnt(tmp_path / "cut") == learnt(tmp_path / "whole")
    equal_weights(tmp_path / "whole", tmp_path / "cut")


def test_copying_first_needs_rows_that_copy(tmp_path, monkeypatch, capsys):
    files.save(Cirilla(PRESETS["cirilla-tiny"]), TOKENIZER, tmp_path / "start", torch.float32)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(20)))
    common = ["--data", tmp_path / "rows.jsonl", "--start", tmp_path / "start", "--out", tmp_path / "out"]
    assert run(tune, monkeypatch, *common, "--copy-steps", 3, "--held-out", 2, "--length", 120) == 1
    assert run(tune, monkeypatch, *common, "--length", 1000) == 1
    assert [line[:20] for line in capsys.readouterr().err.splitlines()] == [
        "--copy-steps needs r",
        "The model was made f",
    ]
