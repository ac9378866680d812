"""Yes, no, and premises that the evidence contradicts: learnt from the train questions, judged on the dev questions."""

from __future__ import annotations

import pytest

from app import learn, verdict


@pytest.mark.parametrize(
    ("question", "evidence", "said"),
    [
        ("Did Ciri take the Trial of the Grasses?", "Ciri never went through the Trial of the Grasses.", "No"),
        ("Did Ciri take the Trial of the Grasses?", "Ciri took the Trial of the Grasses.", "Yes"),
        ("Is Geralt a dwarf?", "The weather on Skellige was mild, although it might have been worse.", ""),
    ],
)
def test_yes_no_or_nothing(question, evidence, said):
    assert verdict.word(question, "Ciri", evidence) == said


def test_a_false_premise_is_noticed():
    asked = "why did ciri take the trial of the grasses"
    assert verdict.contradicts(asked, "Ciri", "Ciri never took the Trial of the Grasses.")
    assert not verdict.contradicts(asked, "Ciri", "Ciri took the Trial of the Grasses to become a witcher.")


def test_what_is_learnt_holds_on_questions_not_seen():
    yes, premise = (learn.fit(rows) for rows in learn.told(learn.QUESTIONS / "train.jsonl"))
    judged = learn.judge(*learn.told(learn.QUESTIONS / "dev.jsonl"), yes, premise)
    assert judged["verdicts_given"] > 0.4 and judged["verdicts_right"] > 0.75
    assert judged["false_premises_noticed"] > 0.2 and judged["others_doubted"] < 0.04
    assert verdict.YES.keys() == yes.keys() and verdict.PREMISE.keys() == premise.keys()
