"""What single sentences and infobox rows are taken for; how all are weighed together is for test_calibrate.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app import evidence as ev
from app.question import Question, Vocabulary, analyse
from corpus.types import FACTS_PATH
from retrieval.names import Names
from retrieval.search import Hit
from tests.app.conftest import CountingEncoder
from tests.app.test_compose import passage

NAMES = Names([("Marn", 1), ("Ysk", 2)], lambda word: True)
ROWS = (
    "Marn — died (books): murdered by Letta at Ysk, 1240.\n"
    "Marn — hair: red.\n"
    "Marn — husband: Tarn of Ysk (first), Belo (second).\n"
    "Marn — voice actor: Ada Low (English, seasons 2 and 3); Ewa Low (English, season 4); Ola Bis (Polish)."
)
PROSE = "Marn killed a wyvern in her youth. A fever turned the hair of Marn red."


def asked(text: str) -> Question:
    return analyse(text, NAMES, Vocabulary(lambda word: 3, 100))


def found(text: str) -> list[ev.Evidence]:
    hits = [Hit(passage(1, PROSE), 1.0), Hit(passage(2, ROWS, FACTS_PATH), 0.9)]
    return ev.find(asked(text), hits, CountingEncoder())


@pytest.mark.parametrize(
    ("text", "is_row"),
    [
        ("Who killed Marn?", True),
        ("Who was the murderer of Marn?", True),
        ("How did Marn die?", True),
        ("Who assassinated Marn?", True),
        ("What happened to Marn in the end?", True),
        ("what became of Marn", True),
        ("What happened to Marn at the fair?", False),
        ("Who did Marn kill?", False),  # no question about her own end
        ("How did Marn die of old age?", False),  # the row does not say so
        ("How did Marn die at Ysk with her nurse?", False),
    ],
)
def test_whoever_asks_for_a_death_gets_its_row(text, is_row):
    row = next(e for e in found(text) if "died" in e.text)
    assert (row.second == ev.OWN_ROW) == is_row
    if is_row:
        assert row.type == 1.0
        assert found(text)[0].text == row.text


def test_a_row_that_only_says_so_is_no_reason():
    assert not any("hair:" in e.text for e in found("Why is Marn's hair red?"))
    assert any("hair:" in e.text for e in found("What colour is Marn's hair?"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Who was Marn's first husband?", "Tarn of Ysk (first)"),
        ("Who was Marn's husband?", "Tarn of Ysk (first), Belo (second)"),
        ("Who is the voice actor of Marn in Polish?", "Ola Bis (Polish)"),
        ("Who is the voice actor of Marn in season 4?", "Ewa Low (English, season 4)"),
        ("Who are the voice actors of Marn in English?",
         "Ada Low (English, seasons 2 and 3); Ewa Low (English, season 4)"),
    ],
)  # fmt: skip
def test_of_several_values_the_one_asked_for_is_given(text, value):
    question = asked(text)
    label = "husband:" if "husband" in text else "voice actor:"
    row = next(e for e in found(text) if label in e.text)
    assert ev.short_answer(question, row) == value


def test_a_relation_in_somebody_elses_article_is_seen_from_the_other_end():
    rows = "Letta — mother: Marn.\nTarn — parents: Marn (adoptive), Belo."
    hits = [Hit(passage(1, rows, FACTS_PATH, page=9), 1.0)]

    def fit(text: str, row: str) -> float:
        return next(e.type for e in ev.find(asked(text), hits, CountingEncoder()) if row in e.text)

    assert fit("Who is Marn's mother?", "mother:") == 0.0  # Letta's mother is Marn
    assert fit("Who are Marn's parents?", "parents:") == 0.0
    assert fit("Who is Marn's daughter?", "mother:") > 0.5
    assert fit("Who is Marn's son?", "parents:") > 0.5
    assert fit("Whose mother is Marn?", "mother:") > 0.5


def test_who_plays_a_part_is_not_told_by_who_plays_another():
    belo = replace(passage(1, "Ada Low plays Belo in the series.", page=9), title="Belo")
    other, right = [Hit(belo, 1.0)], [Hit(replace(belo, text="Ada Low plays Marn in the series."), 1.0)]

    def sure(text: str, hits: list[Hit]) -> float:
        question = asked(text)
        return ev.confidence(question, ev.find(question, hits, CountingEncoder()))

    assert sure("Who plays Marn in the series?", right) > 2 * sure("Who plays Marn in the series?", other)


def test_who_plays_somebody_else_is_no_evidence_even_where_the_part_is_named():
    text = "Ada Low plays Belo in the series, where Marn sees her in dreams. Ola Bis played Marn until season 3."
    kept = ev.find(asked("Who plays Marn in the series?"), [Hit(passage(1, text, page=9), 1.0)], CountingEncoder())
    assert [e.text for e in kept] == ["Ola Bis played Marn until season 3."]
    both = "Ada Low plays Belo and Ola Bis plays Marn."
    assert ev.find(asked("Who plays Marn?"), [Hit(passage(1, both), 1.0)], CountingEncoder())


def test_a_sentence_that_only_says_so_is_no_reason_either():
    hits = [Hit(passage(1, "Marn wears two rings. One ring is for mourning."), 1.0)]
    assert [e.text for e in ev.find(asked("Why does Marn wear two rings?"), hits, CountingEncoder())] == [
        "One ring is for mourning."
    ]
    assert len(ev.find(asked("Does Marn wear two rings?"), hits, CountingEncoder())) == 2


def test_a_year_is_nobody():
    rows = "Marn — founder: 1240, after the fall of Ysk.\nMarn — leader: elected by the Council of Ysk."
    hits = [Hit(passage(1, rows, FACTS_PATH), 1.0)]

    def fit(text: str, row: str) -> float:
        return next(e.type for e in ev.find(asked(text), hits, CountingEncoder()) if row in e.text)

    assert fit("Who was the founder of Marn?", "founder:") < 0.5
    assert fit("Who is the leader of Marn?", "leader:") == 1.0


@pytest.mark.parametrize(
    ("text", "heading", "is_headed"),
    [
        ("How do you brew Marn?", "How to brew Marn", True),
        ("How do you brew Marn with salt?", "How to brew Marn", False),  # that is another matter
        ("Who brewed Marn?", "How to brew Marn", False),
        ("How do I fight a Marn?", "How to kill a Marn", True),
        ("how to beat Marn", "Combat", True),
        ("How does Marn fight?", "How to kill a Marn", False),  # Marn's own way
        ("How do I beat Marn at cards?", "How to kill a Marn", False),
        ("How do I fight Ysk?", "How to kill a Marn", False),
        ("How do you find Marn?", "How to kill a Marn", False),
    ],
)
def test_a_section_says_by_its_heading_that_it_tells_how(text, heading, is_headed):
    section = passage(1, "It is done with salt. Then one waits.", (heading,))
    question = asked(text)
    kept = ev.find(question, [Hit(section, 1.0)], CountingEncoder())
    assert {e.headed for e in kept} == {is_headed}
    assert (ev.confidence(question, kept) >= ev.HEADED) == is_headed


def test_what_was_told_before_is_hardly_asked_for_now():
    hits = [Hit(passage(1, PROSE), 1.0)]
    question = asked("Who killed a wyvern?")
    fresh = ev.find(question, hits, CountingEncoder())
    again = ev.find(question, hits, CountingEncoder(), told=f"Yes: “{fresh[0].text}” [1]")
    told = next(e for e in again if e.text == fresh[0].text)
    assert told.told == 1.0 and told.score == pytest.approx(fresh[0].score + ev.TOLD)
    assert told.share < fresh[0].share
    assert not any(e.told for e in again if e.text != fresh[0].text)
