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
        ("Did Ciri take the Trial of the Grasses?", "Ciri didnt take the Trial of the Grasses.", "No"),
        ("Is the old griffin alive when they find it?", "The griffin is found dead in its cave.", "No"),
        ("Is the gear light, medium or heavy?", "The gear is a light armour set.", ""),  # leaves a choice
        ("Didn't Ciri take the Trial of the Grasses?", "Ciri took the Trial of the Grasses.", "Yes"),
        ("Did Cahir kill Bonhart?", "Bonhart, in his fury, killed Cahir at the stairs.", "No"),
        ("Did Geralt kill Renfri?", "Geralt killed Renfri by stabbing her at the market.", "Yes"),
        ("Did Ciri take the Trial of the Grasses or something?", "Ciri took the Trial of the Grasses.", "Yes"),
    ],
)
def test_yes_no_or_nothing(question, evidence, said):
    assert verdict.word(question, "Ciri", evidence) == said


def test_a_false_premise_is_noticed():
    asked = "why did ciri take the trial of the grasses"
    assert verdict.contradicts(asked, "Ciri", "Ciri never took the Trial of the Grasses.")
    assert not verdict.contradicts(asked, "Ciri", "Ciri took the Trial of the Grasses to become a witcher.")


@pytest.mark.parametrize(
    ("question", "title", "evidence"),
    [
        ("why do dopplers cast illusions", "Doppler", "A doppler does not cast an illusion."),
        ("why is cat school armour so heavy", "Feline School Gear", "Feline School Gear — class: light armour set."),
        ("When did Cahir kill Leo Bonhart?", "Cahir", "At Stygga Castle Bonhart, in his fury, killed Cahir."),
        ("When did Cahir kill Leo Bonhart?", "Cahir", "Cahir — died: killed by Leo Bonhart at Stygga Castle."),
    ],
)
def test_a_premise_is_contradicted_by_a_denial_an_opposite_or_exchanged_roles(question, title, evidence):
    assert verdict.contradicts(question, title, evidence)


@pytest.mark.parametrize(
    ("question", "title", "evidence"),
    [
        ("How do boars differ from wolves?", "Wild Boar", "They do not pause after a charge as wolves do."),
        ("why did Salma kill the guards", "Salma", "She does not deny the killings, for she defended herself."),
        ("why did the defenders kill their families", "Cintra", "They killed their families rather than surrender."),
        ("When did Leo Bonhart kill Cahir?", "Cahir", "Cahir — died: killed by Leo Bonhart at Stygga Castle."),
        ("When did Bonhart kill Cahir?", "Cahir", "At Stygga Castle Bonhart killed Cahir."),
        ("When will the new game come out?", "The Game", "It will not come out before 2027."),
        ("What are they called?", "Half-elves", "Most are called half-elves without knowing it."),
    ],
)
def test_without_grounds_nothing_is_contradicted(question, title, evidence):
    assert not verdict.contradicts(question, title, evidence)


def test_what_is_learnt_holds_on_questions_not_seen():
    yes, premise = (learn.fit(rows) for rows in learn.told(learn.QUESTIONS / "train.jsonl"))
    judged = learn.judge(*learn.told(learn.QUESTIONS / "dev.jsonl"), yes, premise)
    assert judged["verdicts_given"] > 0.6 and judged["verdicts_right"] > 0.85
    assert judged["false_premises_noticed"] > 0.2 and judged["others_doubted"] < 0.01
    assert verdict.YES.keys() == yes.keys() and verdict.PREMISE.keys() == premise.keys()
