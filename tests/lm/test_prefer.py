"""Preference tuning: where it starts, what moves, what does not."""

import json
import math
import random

import pytest
import torch

from benchmarks import preferences
from lm import chat, files, prefer, sample
from lm.model import PRESETS, Cirilla
from tests.lm.test_training import ROW, TOKENIZER, log, run

PAIR = {**ROW, "chosen": "Ilvane [1].", "rejected": "The archives do not say."}


def pairs_of(n: int) -> list[prefer.Pair]:
    rows = [{**PAIR, "passages": [["Marn", f"King {i} ruled Marn."]], "chosen": f"King {i} [1]."} for i in range(n)]
    made = [prefer.pair(TOKENIZER, row, 100) for row in rows]
    return [p for p in made if p]


@pytest.fixture
def model() -> Cirilla:
    torch.manual_seed(0)
    return Cirilla(PRESETS["cirilla-tiny"]).eval()


def test_log_probabilities_are_those_of_the_answer(model):
    (ids, start), (other, _) = pairs_of(1)[0]
    inputs, targets = prefer.tensors(pairs_of(1), TOKENIZER.pad, "cpu")
    found, count = prefer.answer_log_probability(model, inputs, targets)
    logits = model(torch.tensor([ids])).log_softmax(-1)[0]
    by_hand = sum(logits[at - 1, ids[at]] for at in range(start, len(ids)))
    assert found[0].item() == pytest.approx(by_hand.item(), abs=1e-3)
    assert count.tolist() == [len(ids) - start, len(other) - start]


def test_it_begins_at_ln_2_and_the_margin_grows(model):
    pairs = pairs_of(6)
    reference = prefer.reference_of(model, pairs, TOKENIZER.pad, "cpu", batch=4)
    assert reference.shape == (6, 2) and not reference.requires_grad
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs, targets = prefer.tensors(pairs, TOKENIZER.pad, "cpu")
    losses, margins = [], []
    for _ in range(6):
        policy, _ = prefer.answer_log_probability(model, inputs, targets)
        loss, margin = prefer.preference_loss(policy, reference.T.flatten(), beta=0.1)
        losses.append(loss.item())
        margins.append(margin.mean().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] == pytest.approx(math.log(2), abs=2e-2) and abs(margins[0]) < 0.3  # the reference ran in bf16
    assert losses == sorted(losses, reverse=True) and margins == sorted(margins)
    assert margins[-1] > margins[0] + 1


def test_gradients_push_the_chosen_up_and_the_rejected_down():
    policy = torch.tensor([-3.0, -4.0, -2.0, -5.0], requires_grad=True)  # two chosen, two rejected
    reference = torch.tensor([-3.0, -4.0, -2.0, -5.0], requires_grad=True)
    loss, margin = prefer.preference_loss(policy, reference.detach(), beta=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2)) and margin.tolist() == [0, 0]
    assert policy.grad is not None and reference.grad is None
    assert policy.grad.tolist() == pytest.approx([-0.125, -0.125, 0.125, 0.125])
    # The wider the margin already is, the less it matters.
    far, _ = prefer.preference_loss(torch.tensor([10.0, -10.0]), torch.zeros(2), beta=0.5)
    assert far < 1e-4


def test_answers_that_do_not_fit_or_share_no_prompt_are_left_out():
    assert prefer.pair(TOKENIZER, {**PAIR, "rejected": "No. " * 200}, 100) is None
    long = ["Maruk", "Maruk kept bees on the hill. " * 30]
    # One answer cites what the other allows to shorten: their prompts would differ.
    row = {**PAIR, "passages": [long, ["Marn", "Ilvane ruled Marn. " * 8]], "chosen": "Ilvane [2].", "rejected": "No."}
    assert prefer.pair(TOKENIZER, row, 120) is None


def test_a_run_learns_its_preference_and_resumes(model, tmp_path, monkeypatch, capsys):
    files.save(model, TOKENIZER, tmp_path / "start", torch.float32)
    rows = [{**PAIR, "passages": [["Marn", f"King {i} ruled Marn."]], "chosen": f"King {i} [1]."} for i in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--pairs", tmp_path / "pairs.jsonl", "--start", tmp_path / "start", "--epochs", 2, "--batch", 4,
              "--held-out", 6, "--window", 4, "--lr", 1e-3, "--length", 100]  # fmt: skip
    assert run(prefer, monkeypatch, *common, "--out", tmp_path / "whole") == 0
    lines = log(tmp_path / "whole")
    assert lines[0]["step"] == 4 and lines[-1]["step"] == 12
    assert lines[-1]["margin"] > lines[0]["margin"] and lines[-1]["held_out_accuracy"] == 1.0
    assert (tmp_path / "whole" / "model" / "model.safetensors").exists()
    ticks = iter(range(10**6))
    with monkeypatch.context() as slow:
        slow.setattr(prefer.time, "monotonic", lambda: next(ticks))
        run(prefer, monkeypatch, *common, "--out", tmp_path / "cut", "--minutes", 8 / 60)
    assert not (tmp_path / "cut" / "model").exists()
    assert run(prefer, monkeypatch, *common, "--out", tmp_path / "cut") == 0
    clocks = ("minutes", "eta_minutes")
    whole, cut = ([{k: v for k, v in row.items() if k not in clocks} for row in log(tmp_path / name)]
                  for name in ("whole", "cut"))  # fmt: skip
    assert whole == cut
    # The references are in the checkpoint; with other pairs they would be those of others.
    capsys.readouterr()
    (tmp_path / "fewer.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    with monkeypatch.context() as without:
        without.delattr(prefer, "reference_of")
        assert run(prefer, monkeypatch, *common, "--out", tmp_path / "cut") == 0
        assert run(prefer, monkeypatch, *common, "--pairs", tmp_path / "fewer.jsonl", "--out", tmp_path / "cut") == 1
    assert "other data" in capsys.readouterr().err


def test_too_few_pairs_are_an_error(model, tmp_path, monkeypatch, capsys):
    files.save(model, TOKENIZER, tmp_path / "start", torch.float32)
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    common = ["--pairs", tmp_path / "pairs.jsonl", "--start", tmp_path / "start", "--out", tmp_path / "out"]
    assert run(prefer, monkeypatch, *common) == 1
    assert "fewer than a batch of 8" in capsys.readouterr().err


SCORED = {**ROW, "passages": [["Brennport", "Maruk sold bees there."], ["Marn", "Ilvane ruled Marn."]],
          "answer": "Ilvane [2].", "answers": ["Ilvane"], "gold": [2], "kind": "k"}  # fmt: skip


def test_samples_are_scored_by_what_they_say_and_cite():
    best, wrong_place, wrong, silent = (
        preferences.score(said, SCORED).points
        for said in ("Ilvane ruled Marn [2].", "Ilvane ruled Marn [1].", "Maruk [2].", chat.DECLINE)
    )
    assert best == 4.0 > wrong_place > wrong > silent == 0.0
    assert preferences.score("Ilvane ruled Marn [2]. " * 3, SCORED).points < best
    assert not preferences.score("Ilvane ruled Marn [7].", SCORED).cited
    missing = {**SCORED, "answer": chat.DECLINE, "answers": [], "gold": []}
    assert preferences.score(chat.DECLINE, missing).right
    assert preferences.score("Ilvane [2].", missing).points == 0.0


def test_yes_and_no_count_where_an_answer_begins():
    asked = {**SCORED, "answer": "No: Ilvane ruled Marn [2].", "answers": ["No"]}
    assert preferences.score("No: Ilvane ruled Marn [2].", asked).right
    assert not preferences.score("Yes: no king ruled Marn [2].", asked).right
    parts = {**SCORED, "answers": ["Ilvane + Maruk"]}
    assert preferences.score("Maruk and Ilvane [2].", parts).right and not preferences.score("Ilvane [2].", parts).right


def test_a_pair_is_the_best_and_the_worst_that_are_far_apart():
    rng = random.Random(0)
    made = preferences.pair_of(SCORED, ["Maruk [2].", "Ilvane ruled Marn [2].", "Ilvane [1]."], rng)
    assert made and (made["chosen"], made["rejected"]) == ("Ilvane ruled Marn [2].", "Maruk [2].")
    assert preferences.pair_of(SCORED, ["Ilvane [2].", "Ilvane ruled Marn [2]."], rng) is None
    # Nothing right was sampled: the data's own answer is the better one.
    made = preferences.pair_of(SCORED, ["Maruk [2].", chat.DECLINE], rng)
    assert made and (made["chosen"], made["rejected"]) == ("Ilvane [2].", chat.DECLINE)


def test_pairs_are_sampled_from_a_model_and_learnt_from(model, tmp_path, monkeypatch, capsys):
    files.save(model, TOKENIZER, tmp_path / "start", torch.float32)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(SCORED) + "\n" for _ in range(3)))
    monkeypatch.setattr(sample, "NEW_TOKENS", 6)
    common = ["--model", tmp_path / "start", "--data", tmp_path / "rows.jsonl", "--samples", 2, "--together", 2]
    assert run(sample, monkeypatch, *common, "--out", tmp_path / "samples.jsonl") == 0
    # Killed while it wrote its second line, it goes on to the same file.
    whole = (tmp_path / "samples.jsonl").read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(whole[: whole.find(b"\n") + 20])
    (tmp_path / "cut.jsonl.made-from").write_bytes((tmp_path / "samples.jsonl.made-from").read_bytes())
    assert run(sample, monkeypatch, *common, "--out", tmp_path / "cut.jsonl", "--minutes", 0) == 0
    assert (tmp_path / "cut.jsonl").read_bytes().count(b"\n") == 2
    assert run(sample, monkeypatch, *common, "--out", tmp_path / "cut.jsonl") == 0
    assert (tmp_path / "cut.jsonl").read_bytes() == whole
    # From another model, other rows or another seed they are other samples, and those of unknown origin may be, too.
    files.save(Cirilla(PRESETS["cirilla-tiny"]), TOKENIZER, tmp_path / "other", torch.float32)
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(SCORED) + "\n" for _ in range(4)))
    capsys.readouterr()
    for given in (["--model", tmp_path / "other"], ["--data", tmp_path / "more.jsonl"], ["--seed", 1]):
        assert run(sample, monkeypatch, *common, *given, "--out", tmp_path / "cut.jsonl") == 1
        said = capsys.readouterr().err
        assert "another model, other data" in said and said.count("\n") == 1
    (tmp_path / "cut.jsonl.made-from").unlink()
    assert run(sample, monkeypatch, *common, "--out", tmp_path / "cut.jsonl") == 1
    assert (tmp_path / "cut.jsonl").read_bytes() == whole
    run(preferences, monkeypatch, "--samples", tmp_path / "samples.jsonl", "--out", tmp_path / "pairs.jsonl")
    found = [json.loads(line) for line in (tmp_path / "pairs.jsonl").open()]
    assert len(found) == 3 and {p["chosen"] for p in found} == {"Ilvane [2]."}  # an untrained model is never right
    learnt = ["--pairs", tmp_path / "pairs.jsonl", "--start", tmp_path / "start", "--out", tmp_path / "out"]
    assert run(prefer, monkeypatch, *learnt, "--batch", 2, "--held-out", 1, "--window", 1, "--length", 128) == 0
    assert (tmp_path / "out" / "model").is_dir()
