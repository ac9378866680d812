"""The second stage: what it is told, what padding and order must not change, what training teaches it."""

from __future__ import annotations

import json
import random
import time

import numpy as np
import pytest
import tokenizers
import torch

from encoder import EncoderError, files, rerank
from encoder.model import PRESETS, EncoderModel
from encoder.rerank import choose, group_loss
from encoder.reranker import ALIKE, PLAIN, SAME, SIDES, Candidate, Reranker, RerankerModel, collate, examples, save
from tests.encoder.test_model import TOKENIZER
from tests.encoder.training import refused, run

CANDIDATES = [
    Candidate("Ciri", "Pavetta was the mother of Ciri. She drowned at sea.", [(0, 31), (32, 51)]),
    Candidate("Roach", "Roach is a horse.", [(0, 17)]),
    Candidate(
        "Vesemir", "Vesemir trained witchers. He was old. He died at Kaer Morhen.", [(0, 25), (26, 37), (38, 61)]
    ),
]
QUESTION = "Who was Ciri's mother?"


@pytest.fixture
def tokenizer():
    inner = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{files.BOS} $A", special_tokens=[(files.BOS, inner.token_to_id(files.BOS))]
    )
    return inner


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = RerankerModel(EncoderModel(PRESETS["encoder-tiny"])).eval()
    torch.nn.init.normal_(made.score.weight)  # a new head says the same of everything
    return made


def test_marks_say_which_words_both_sides_have(tokenizer):
    made = examples(tokenizer, "Who trained the witchers of Kaer Morhen?", [CANDIDATES[2]], 128)[0]
    text: dict[str, int] = {}
    for token, mark, sentence in zip(made.ids, made.marks, made.sentences, strict=True):
        if sentence >= 0:
            text.setdefault(tokenizer.decode([token]).strip(), mark - 2 * SIDES)
    assert text["trained"] == SAME and text["witchers"] == SAME and text["old"] == PLAIN
    made = examples(tokenizer, "Where were they training?", [CANDIDATES[2]], 128)[0]
    marks = {tokenizer.decode([t]).strip(): m - 2 * SIDES for t, m in zip(made.ids, made.marks, strict=True)}
    assert marks["trained"] == ALIKE


def test_every_sentence_keeps_its_own_tokens(tokenizer):
    made = examples(tokenizer, QUESTION, CANDIDATES, 128)
    for candidate, example in zip(CANDIDATES, made, strict=True):
        for number, (start, end) in enumerate(candidate.spans):
            ids = [t for t, s in zip(example.ids, example.sentences, strict=True) if s == number]
            assert tokenizer.decode(ids).strip() == candidate.text[start:end]


def test_scores_do_not_depend_on_company_or_order(model, tokenizer):
    reranker = Reranker(model, tokenizer)
    together = reranker.score(QUESTION, CANDIDATES)
    assert [len(scores) for scores in together] == [2, 1, 3]
    backwards = reranker.score(QUESTION, CANDIDATES[::-1], batch=2)[::-1]
    alone = [reranker.score(QUESTION, [candidate])[0] for candidate in CANDIDATES]
    for a, b, c in zip(together, backwards, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a, c, atol=1e-5)
    assert not np.allclose(together[0], reranker.score("Who is Roach?", CANDIDATES)[0], atol=1e-5)


def test_nothing_to_read_and_too_long_to_read(model, tokenizer):
    reranker = Reranker(model, tokenizer, length=24)
    assert reranker.score(QUESTION, []) == []
    assert reranker.score(QUESTION, [Candidate("Empty", "", [])])[0].shape == (0,)
    text = "Geralt rode to Rivia. " * 20
    spans = [(22 * i, 22 * i + 21) for i in range(20)]
    scores = reranker.score(QUESTION, [Candidate("Geralt", text, spans)])[0]
    assert np.isfinite(scores[0]) and scores[-1] == -np.inf


def test_saved_and_loaded_scores_are_the_same(model, tokenizer, tmp_path):
    save(model, TOKENIZER, tmp_path)
    loaded = Reranker.load(tmp_path, torch.float32)
    model.half().float()  # files hold float16
    for a, b in zip(
        Reranker(model, tokenizer).score(QUESTION, CANDIDATES), loaded.score(QUESTION, CANDIDATES), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_plain_encoder_is_no_second_stage(tmp_path):
    files.save(EncoderModel(PRESETS["encoder-tiny"]), TOKENIZER, tmp_path)
    with pytest.raises(EncoderError, match=r"reranker\.safetensors"):
        Reranker.load(tmp_path)


def test_loss_of_right_sentences_and_of_silence():
    scores, labels = torch.tensor([2.0, 0.0, 5.0, -1.0]), torch.tensor([1, 0, -1, 0])
    groups = torch.zeros(4, dtype=torch.long)
    loss, right = group_loss(scores, labels, groups, 1)
    kept = torch.tensor([2.0, 0.0, -1.0, 0.0])  # the sentence labelled -1 is out, the silent one is in
    assert loss.item() == pytest.approx((kept.logsumexp(0) - 2.0).item(), abs=1e-6) and right == 1
    silent, right = group_loss(scores, torch.tensor([0, 0, -1, 0]), groups, 1)
    assert silent.item() == pytest.approx(kept.logsumexp(0).item(), abs=1e-6) and right == 0


def test_evidence_is_among_the_chosen_unless_it_is_removed():
    group = {"passages": [{"labels": [0]} for _ in range(9)] + [{"labels": [0, 1]}]}
    rng = random.Random(0)
    for _ in range(20):
        assert sum(1 in p["labels"] for p in choose(group, 4, rng, 0.0)) == 1
        chosen = choose(group, 4, rng, 1.0)
        assert len(chosen) == 4 and not any(1 in p["labels"] for p in chosen)


@pytest.fixture
def files_for_training(tmp_path) -> list:
    """Arguments that name a blank encoder and groups of two passages."""
    torch.manual_seed(0)
    files.save(EncoderModel(PRESETS["encoder-tiny"]), TOKENIZER, tmp_path / "start", torch.float32)
    names = ["Ciri", "Geralt", "Triss", "Roach", "Regis", "Milva", "Cahir", "Eskel"]
    with (tmp_path / "groups.jsonl").open("w") as f:
        for one, two in zip(names, names[::-1], strict=True):
            passages = [
                {
                    "heading": n,
                    "text": f"{n} rode. {n} left.",
                    "spans": [[0, len(n) + 6], [len(n) + 7, 2 * len(n) + 13]],
                }
                for n in (one, two)
            ]
            group = [p | {"labels": [int(p["heading"] == one), 0]} for p in passages]
            f.write(json.dumps({"query": f"Did {one} ride?", "passages": group}) + "\n")
    return ["--groups", tmp_path / "groups.jsonl", "--start", tmp_path / "start"]


def test_training_resumes_exactly_and_counts_all_minutes(files_for_training, tmp_path, monkeypatch):
    common = [*files_for_training, "--dev", tmp_path / "groups.jsonl", "--steps", 30, "--save-every", 15]
    common += ["--batch", 2, "--size", 2, "--length", 64, "--lr", 3e-3, "--warmup", 3]
    run(rerank, monkeypatch, *common, "--out", tmp_path / "whole")
    with monkeypatch.context() as patch:
        clock = iter(range(10**6))
        patch.setattr(time, "monotonic", lambda: next(clock))  # one second a look
        run(rerank, monkeypatch, *common, "--out", tmp_path / "cut", "--minutes", 30 / 60)
    state = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=False)
    assert 20 < state["step"] < 30 and state["seconds"] >= state["step"], "steps after the last line take time too"
    run(rerank, monkeypatch, *common, "--out", tmp_path / "cut")
    whole, cut = (Reranker.load(tmp_path / name / "model").model.state_dict() for name in ("whole", "cut"))
    for name in whole:
        assert torch.equal(whole[name], cut[name]), name
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").open()]
    assert [row["step"] for row in rows] == [15, 20, 30] and rows[-1]["loss"] < rows[0]["loss"]
    assert ["dev_loss" in row for row in rows] == [True, False, True]


def test_what_stops_a_training_is_one_line(files_for_training, tmp_path, monkeypatch, capsys):
    (tmp_path / "nothing").touch()
    wrong = [
        (["--length", 129], "reads 128 tokens"),
        (["--length", 64, "--groups", tmp_path / "nothing"], "holds no rows"),
        (["--length", 64, "--dev", tmp_path / "absent"], "absent cannot be read"),
        (["--start", tmp_path], "missing"),
    ]
    for args, message in wrong:
        given = [*files_for_training, "--out", tmp_path / "out", *args]
        assert message in refused(rerank, monkeypatch, capsys, *given)


def test_it_learns_to_point_at_the_sentence_that_shares_the_question_s_words(tokenizer):
    torch.manual_seed(0)
    model = RerankerModel(EncoderModel(PRESETS["encoder-tiny"]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = random.Random(0)
    names = ["Ciri", "Geralt", "Triss", "Roach", "Regis", "Milva", "Cahir", "Eskel"]

    def group() -> tuple[str, list[Candidate], list[list[int]]]:
        chosen = rng.sample(names, 4)
        asked = rng.choice(chosen)
        candidates, labels = [], []
        for pair in (chosen[:2], chosen[2:]):
            parts = [f"{name} rode away." for name in pair]
            text = " ".join(parts)
            candidates.append(Candidate("", text, [(0, len(parts[0])), (len(parts[0]) + 1, len(text))]))
            labels.append([int(name == asked) for name in pair])
        return f"What did {asked} do?", candidates, labels

    def run() -> tuple[torch.Tensor, int]:
        loss, right = torch.zeros(()), 0
        for _ in range(4):
            question, candidates, labels = group()
            made = examples(tokenizer, question, candidates, 64)
            scores = model(*collate(made, [2, 2], 0))
            flat = torch.tensor(labels)
            one, good = group_loss(scores.flatten(), flat.flatten(), torch.zeros(4, dtype=torch.long), 1)
            loss, right = loss + one, right + int(good)
        return loss / 4, right

    first = run()[0].item()
    for _ in range(40):
        loss, _ = run()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    assert loss.item() < first / 2
    assert sum(run()[1] for _ in range(10)) > 30  # of 40; guessing gives 8
