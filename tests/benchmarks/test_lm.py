"""The decoder's table: what is put before the models, how their answers are judged, and one whole run."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace

import pytest

from benchmarks import lm
from corpus.types import Passage
from lm import files
from lm.model import PRESETS, Cirilla
from lm.tokenizer import Tokenizer


def passage(title: str, text: str) -> Passage:
    return Passage(title, (), text, 0, len(text))


GOLD = passage("Orsolya", "Orsolya was raised by the hermit Maruk.")
OTHERS = [passage(f"Hermit {n}", f"Hermit number {n} raised Orsolya's goats in the hills.") for n in range(8)]
LIBRARY = lm.Library([GOLD, passage("Maruk", "Maruk raised goats."), *OTHERS])
ROW = {"id": "1", "question": "Who raised Orsolya?", "answers": ["Maruk", "the hermit Maruk"]}


def drawn(seed: int = 0) -> lm.Question:
    question = lm.put(ROW, GOLD, LIBRARY, random.Random(seed))
    assert question is not None
    return question


class Says:
    """A model that answers the same whatever it reads."""

    def __init__(self, text):
        self.name, self.text = "says", text

    def stream(self, question, passages, *, max_new_tokens=0):
        yield from self.text.format(gold=1 + next((n for n, (_, t) in enumerate(passages) if "Maruk" in t), 0))


def test_one_passage_holds_the_answer_and_the_others_do_not():
    places = set()
    for seed in range(20):
        question = drawn(seed)
        assert question.passages[question.gold] is GOLD
        places.add(question.gold)
        others = [p for p in question.passages if p is not GOLD]
        assert len(others) == lm.PASSAGES - 1 and len(question.silent) == lm.PASSAGES
        assert not any(lm.holds(p, question.answers) for p in (*others, *question.silent))
    assert len(places) == lm.PASSAGES
    assert lm.put(ROW, GOLD, lm.Library([GOLD, *OTHERS[:3]]), random.Random(0)) is None


def test_the_evidence_is_shown_once_and_really_removed_where_it_spells_no_alias():
    row = {"id": "2", "question": "Was Orsolya raised by the hermit Maruk?", "answers": ["yes"]}
    for library in (LIBRARY, lm.Library([GOLD, *OTHERS[:5]])):
        question = lm.put(row, GOLD, library, random.Random(0))
        assert question is not None and question.passages.count(GOLD) == 1 and GOLD not in question.silent
    # Where the search finds too little, others are drawn.
    question = lm.put({**row, "question": "Who?"}, GOLD, lm.Library([GOLD, *OTHERS[:5]]), random.Random(0))
    assert question is not None and question.passages.count(GOLD) == 1 and GOLD not in question.silent


@pytest.mark.parametrize(
    ("said", "right", "declined", "supported", "borne"),
    [
        ("Orsolya was raised by the hermit Maruk [{gold}].", True, False, 1, 1),
        ("Orsolya was raised by the hermit Maruk [9].", True, False, 0, 1),
        ("Orsolya was raised by a dragon [{gold}].", False, False, 0, 0),
        ("The archives do not say.", False, True, 0, 0),
        ("The passages do not mention Maruk.", False, True, 0, 0),
        ("There is no information about that in the text.", False, True, 0, 0),
        ("I don't know.", False, True, 0, 0),
        ("It is not known who raised Orsolya beside Maruk [{gold}].", True, False, 0, 0),
        ("Orsolya does not tell Maruk [{gold}].", True, False, 0, 0),
        ("", False, True, 0, 0),
    ],
)
def test_an_answer_is_judged(said, right, declined, supported, borne):
    question = drawn()
    outcome = lm.ask(Says(said), question, evidence=True)
    assert (outcome.right, outcome.declined, outcome.supported, outcome.borne) == (right, declined, supported, borne)


def test_ours_declines_in_one_sentence_only():
    class Ours(Says, lm.Ours):
        """Cirilla without weights."""

    said = [lm.DECLINE, "The text does not say Maruk.", ""]
    assert [lm.ask(Ours(text), drawn(), evidence=True).declined for text in said] == [True, False, True]


def test_parameters_are_counted_without_memory_for_them():
    tiny = PRESETS["cirilla-tiny"]
    assert lm.parameters(tiny) == sum(p.numel() for p in Cirilla(tiny).parameters())
    assert lm.parameters(replace(tiny, vocab_size=10**12)) > 10**13  # as numbers, they would fit into no machine


def test_shares_are_of_what_they_name():
    question = drawn()
    right, silent = Says("Maruk raised her [{gold}]."), Says("The archives do not say.")
    there = [lm.ask(right, question, True), lm.ask(silent, question, True)]
    gone = [lm.ask(silent, question, False) for _ in range(3)] + [lm.ask(right, question, False)]
    got = lm.figures(there + gone)
    assert got["questions"] == 2 and got["accuracy"] == 0.5
    assert got["declines, evidence removed"] == 0.75 and got["declines, evidence there"] == 0.5
    assert lm.figures([])["accuracy"] is None


def test_samples_are_shown_whole_and_unedited():
    question = drawn()
    text = lm.samples([lm.ask(Says("Maruk [{gold}]."), question, True), lm.ask(Says("A goat [1]."), question, False)])
    assert f"**Maruk [{question.gold + 1}].**" in text and "right; expected: Maruk" in text
    assert "**A goat [1].**" in text and "wrong; expected: to decline" in text
    assert text.count("(holds the answer)") == 1 and text.count("> [") == 2 * lm.PASSAGES


def test_a_whole_run(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "weights"
    files.save(Cirilla(PRESETS["cirilla-tiny"]), Tokenizer.load("weights/tokenizer.json"), folder)
    to = tmp_path / "samples.md"
    argv = ["x", "--weights", folder, "--peers", "", "--limit", 3, "--repeats", 1, "--prompt-tokens", 40]
    argv += ["--threads", 1, "--skip", "memory", "--samples", 3, "--to", to, "--json", tmp_path / "out.json"]
    monkeypatch.setattr(sys, "argv", [str(part) for part in argv])
    monkeypatch.setattr(lm, "NEW_TOKENS", 8)
    # The run settles the number of threads for the process; the tests after this one have their own.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    lm.main()
    report = json.loads((tmp_path / "out.json").read_text())
    ((name, row),) = report["answers"]["codex dev"].items()
    assert name.startswith("Cirilla") and row["questions"] == 3 and report["speed"][name]["tokens/s"] > 0
    assert "**codex dev**" in capsys.readouterr().out
    assert to.read_text().count("###") == 3
