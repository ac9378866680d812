"""Turns that lean on the turns before them."""

from __future__ import annotations

import pytest

from app.followup import readings, standalone

GENDERS = {"Orsolya": "she", "Tobiah": "he", "Brennport": "it", "Maruk": "he", "Ilvane": "she"}


def ask(question, *history):
    return standalone(question, history, gender_of=lambda name: GENDERS.get(name, ""))


WHO_ORSOLYA = ("Who is Orsolya?", "Orsolya was a sorceress of Brennport and the adviser of King Haldemar [1].")
WHO_TOBIAH = ("Who is Tobiah?", "Tobiah was a knight [1].")
MOTHER = ("Who is Orsolya's mother?", "Ilvane [1].")
RAISED = ("Who raised Orsolya?", "Maruk [1].")


@pytest.mark.parametrize(
    ("question", "history", "expected"),
    [
        ("Where was she born?", [WHO_ORSOLYA], "Where was Orsolya born?"),
        ("Who is her mother?", [WHO_ORSOLYA], "Who is Orsolya's mother?"),
        ("Who trained her?", [WHO_ORSOLYA], "Who trained Orsolya?"),
        ("Who is his father?", [WHO_ORSOLYA, WHO_TOBIAH], "Who is Tobiah's father?"),
        ("How did she die?", [MOTHER], "How did Ilvane die?"),
        ("How did he die?", [RAISED], "How did Maruk die?"),
        ("And her father?", [MOTHER], "Who is Orsolya's father?"),
        ("And Tobiah?", [MOTHER], "Who is Tobiah's mother?"),
        ("What about Tobiah?", [("Who raised Orsolya?", "Maruk [1].")], "Who raised Tobiah?"),
        ("Why?", [RAISED], "Who raised Orsolya? Why?"),
        ("What about in the books?", [RAISED], "Who raised Orsolya in the books?"),
        ("Tell me more", [WHO_ORSOLYA], "Tell me about Orsolya."),
        ("Tell me more about her.", [WHO_ORSOLYA], "Tell me about Orsolya."),
        ("Ok and Tobiah?", [RAISED], "Who raised Tobiah?"),
        ("And Tobiah's?", [("What is Orsolya's crest?", "A heron [1].")], "What is Tobiah's crest?"),
        ("And in the books?", [("Who raised Orsolya in the games?", "Maruk [1].")], "Who raised Orsolya in the books?"),
        # One person is asked for in another's place, wherever the name stands.
        ("And Tobiah?", [("Who raised Orsolya in Brennport?", "Maruk [1].")], "Who raised Tobiah in Brennport?"),
        # What asks by itself is no name for another question.
        ("And Tobiah, what did he do?", [RAISED], "Tobiah, what did he do?"),
        ("And by 1240 who held Brennport?", [RAISED], "By 1240 who held Brennport?"),
        ("And at Brennport?", [RAISED], "What about at Brennport?"),
        # "her" owns a noun only.
        ("Does anything show her alive?", [WHO_ORSOLYA], "Does anything show Orsolya alive?"),
        ("Who let her go?", [WHO_ORSOLYA], "Who let Orsolya go?"),
        ("What was her own horse?", [WHO_ORSOLYA], "What was Orsolya's own horse?"),
        # A name is put in once.
        (
            "Why could he not kill Maruk when he turned into him?",
            [WHO_TOBIAH],
            "Why could Tobiah not kill Maruk when he turned into him?",
        ),
        # A woman is neither "they" nor "it".
        ("What race are they?", [("Who is Orsolya?", "Orsolya [1].")], "What race are they?"),
        ("Does it fly?", [("Who is Orsolya?", "Orsolya [1].")], "Does it fly?"),
        ("Where is it?", [("What is Brennport?", "Brennport is a harbour city [1].")], "Where is Brennport?"),
    ],
)
def test_what_is_left_out_is_carried_over(question, history, expected):
    assert ask(question, *history) == expected


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
    assert ask(question, WHO_ORSOLYA) == question


def test_without_history_nothing_changes():
    assert ask("Where was she born?") == "Where was she born?"
    assert ask("") == ""


def read(question, history, likely):
    def names_in(text):
        return [name for name in GENDERS if name.casefold() in text.casefold()]

    found = readings(question, history, names_in, lambda name: GENDERS.get(name, ""), likely)
    return [text for text, _ in found]


def test_a_name_that_the_turn_replaced_is_not_appended():
    likely = [("Orsolya", 0.6), ("", 0.4)]
    assert read("And Tobiah?", [("Who raised Orsolya?", "Maruk [1].")], likely) == ["Who raised Tobiah?"]


def test_a_pronoun_that_the_name_does_not_fit_stays_and_the_name_is_appended():
    assert read("What race are they?", [WHO_ORSOLYA], [("Orsolya", 0.9)]) == ["What race are they Orsolya?"]


def test_two_pronouns_are_two_persons():
    likely = [("Orsolya", 0.7), ("Tobiah", 0.2), ("", 0.1)]
    asked = read("How long did she outlive him?", [("Did Orsolya marry Tobiah?", "Yes [1].")], likely)
    assert asked == ["How long did Orsolya outlive Tobiah?", "How long did she outlive him?"]
