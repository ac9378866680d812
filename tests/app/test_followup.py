"""Turns that lean on the turns before them."""

from __future__ import annotations

import pytest

from app.carry import Turn
from app.followup import readings
from app.question import kind_of

GENDERS = {"Orsolya": "she", "Tobiah": "he", "Brennport": "it", "Maruk": "he", "Ilvane": "she"}


def read(question, last, likely):
    def names_in(text):
        return sorted((name for name in GENDERS if name in text), key=text.find)

    found = readings(question, [last], names_in, lambda name: GENDERS.get(name, ""), likely)
    return [text for text, _ in found]


WHO_ORSOLYA = Turn("Who is Orsolya?", "Orsolya was a sorceress of Brennport and the adviser of King Haldemar [1].")
WHO_TOBIAH = Turn("Who is Tobiah?", "Tobiah was a knight [1].")
MOTHER = Turn("Who is Orsolya's mother?", "Ilvane [1].")
RAISED = Turn("Who raised Orsolya?", "Maruk [1].")


@pytest.mark.parametrize(
    ("question", "last", "name", "expected"),
    [
        ("Where was she born?", WHO_ORSOLYA, "Orsolya", "Where was Orsolya born?"),
        ("Who is her mother?", WHO_ORSOLYA, "Orsolya", "Who is Orsolya's mother?"),
        ("Who trained her?", WHO_ORSOLYA, "Orsolya", "Who trained Orsolya?"),
        ("Who is his father?", WHO_TOBIAH, "Tobiah", "Who is Tobiah's father?"),
        ("How did she die?", MOTHER, "Ilvane", "How did Ilvane die?"),
        ("How did he die?", RAISED, "Maruk", "How did Maruk die?"),
        ("And her father?", MOTHER, "Orsolya", "Who is Orsolya's father?"),
        ("And Tobiah?", MOTHER, "", "Who is Tobiah's mother?"),
        ("What about Tobiah?", RAISED, "", "Who raised Tobiah?"),
        ("and Tobiah?", Turn("Who is Orsolya's Maruk?", ""), "", "Who is Tobiah's Maruk?"),
        ("and Tobiah's?", Turn("Who in Brennport is Orsolya's Maruk?", ""), "", "Who in Brennport is Tobiah's Maruk?"),
        ("Tell me more", WHO_ORSOLYA, "Orsolya", "Tell me about Orsolya."),
        ("Tell me more about her.", WHO_ORSOLYA, "Orsolya", "Tell me about Orsolya."),
        ("Ok and Tobiah?", RAISED, "", "Who raised Tobiah?"),
        ("And Tobiah's?", Turn("What is Orsolya's crest?", "A heron [1]."), "", "What is Tobiah's crest?"),
        # One person is asked for in another's place, wherever the name stands.
        ("And Tobiah?", Turn("Who raised Orsolya in Brennport?", "Maruk [1]."), "", "Who raised Tobiah in Brennport?"),
        # What asks by itself is no name for another question.
        ("And Tobiah, what did he do?", RAISED, "", "Tobiah, what did he do?"),
        ("And by 1240 who held Brennport?", RAISED, "", "By 1240 who held Brennport?"),
        ("And at Brennport?", RAISED, "", "What about at Brennport?"),
        # "her" owns a noun only.
        ("Does anything show her alive?", WHO_ORSOLYA, "Orsolya", "Does anything show Orsolya alive?"),
        ("Who let her go?", WHO_ORSOLYA, "Orsolya", "Who let Orsolya go?"),
        ("What was her own horse?", WHO_ORSOLYA, "Orsolya", "What was Orsolya's own horse?"),
        # A name is put in once.
        (
            "Why could he not kill Maruk when he turned into him?",
            WHO_TOBIAH,
            "Tobiah",
            "Why could Tobiah not kill Maruk when he turned into him?",
        ),
        # A woman is neither "they" nor "it": the pronoun stays and the name is appended.
        ("What race are they?", WHO_ORSOLYA, "Orsolya", "What race are they Orsolya?"),
        ("Does it fly?", WHO_ORSOLYA, "Orsolya", "Does it fly Orsolya?"),
        ("Where is it?", Turn("What is Brennport?", "A harbour city [1]."), "Brennport", "Where is Brennport?"),
    ],
)
def test_what_is_left_out_is_carried_over(question, last, name, expected):
    assert read(question, last, [(name, 1.0)]) == [expected]


FLED = "Did Orsolya flee?"


@pytest.mark.parametrize(
    ("question", "last", "name", "expected", "kind"),
    [
        ("Why?", FLED, "", "Why did Orsolya flee?", "reason"),
        ("How so?", FLED, "", "How did Orsolya flee?", "manner"),
        ("And when was that?", "How did Tobiah die?", "", "When did Tobiah die?", "time"),
        ("where", "When was Tobiah born?", "", "Where was Tobiah born?", "place"),
        ("Why though?", "What did Orsolya steal?", "Orsolya", "Why did Orsolya steal?", "reason"),
        ("why him?", "Whom did Orsolya curse?", "Tobiah", "Why did Orsolya curse Tobiah?", "reason"),
        # Without its "who" the last question would lack a subject, unless the answer named one.
        ("How come?", "Who raised Orsolya?", "", "Why: who raised Orsolya?", "reason"),
        ("How?", "Who raised Orsolya?", "Maruk", "How: Maruk raised Orsolya?", "manner"),
        ("How?", "Who raised Orsolya?", "Brennport", "How: who raised Orsolya Brennport?", "manner"),
        ("Why is that?", "Who is Maruk?", "Maruk", "Why: who is Maruk?", "reason"),
        ("Where did that happen?", "Why: who raised Orsolya?", "", "Where: who raised Orsolya?", "place"),
        ("Why did she do that?", "How did Orsolya flee?", "Orsolya", "Why did Orsolya flee?", "reason"),
        ("In which game?", "Where did Orsolya flee?", "", "In which game did Orsolya flee?", "thing"),
    ],
)
def test_a_bare_question_word_asks_the_last_question_anew(question, last, name, expected, kind):
    assert read(question, Turn(last, "Maruk [1]."), [(name, 1.0)]) == [expected]
    assert kind_of(expected) == kind


@pytest.mark.parametrize(
    ("question", "last", "expected"),
    [
        ("What about in the books?", "Who raised Orsolya?", "Who raised Orsolya in the books?"),
        ("And in the books?", "Who raised Orsolya in the games?", "Who raised Orsolya in the books?"),
        ("What about the show?", "Did Orsolya flee in the books?", "Did Orsolya flee in the show?"),
        ("and the Netflix series?", "Who raised Orsolya?", "Who raised Orsolya in the Netflix series?"),
        ("and on tv?", "In the games, who raised Orsolya?", "Who raised Orsolya on tv?"),
        ("And in the second game?", "Who raised Orsolya in Witcher 3?", "Who raised Orsolya in the second game?"),
        ("and in Sapkowski's own novels?", "Who raised Orsolya?", "Who raised Orsolya in Sapkowski's own novels?"),
        ("And the games?", "Who wrote the books?", "What about the games?"),
        ("In which episode does Ciri meet Geralt in the show?", "Who raised Orsolya?", None),
        ("In what order should I read the books?", "Who raised Orsolya?", None),
        ("In the end who wins the game?", "Who raised Orsolya?", None),
    ],
)
def test_another_telling_is_asked_for(question, last, expected):
    assert read(question, Turn(last, ""), [("", 1.0)]) == [expected or question]


@pytest.mark.parametrize(
    "question",
    [
        "Who killed Tobiah?",
        "Who is Maruk and what did he do?",
        "What is a wyvern?",
        "Is it true that Brennport burned?",
        "How many lighthouses guard Brennport?",
    ],
)
def test_a_question_with_its_own_subject_is_left_alone(question):
    assert read(question, WHO_ORSOLYA, [("", 0.9), ("Orsolya", 0.04)]) == [question]


def test_a_name_that_the_turn_replaced_is_not_appended():
    likely = [("Orsolya", 0.6), ("", 0.4)]
    assert read("And Tobiah?", RAISED, likely) == ["Who raised Tobiah?"]


def test_two_pronouns_are_two_persons():
    likely = [("Orsolya", 0.7), ("Tobiah", 0.2), ("", 0.1)]
    asked = read("How long did she outlive him?", Turn("Did Orsolya marry Tobiah?", "Yes [1]."), likely)
    assert asked == ["How long did Orsolya outlive Tobiah?", "How long did she outlive him?"]
