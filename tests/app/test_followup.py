"""Turns that lean on the turns before them."""

from __future__ import annotations

import pytest

from app.followup import standalone

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
