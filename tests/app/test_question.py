"""What is read off a question's wording."""

from __future__ import annotations

import pytest

from app.question import core, kind_of, telling_of

NAMES = ("geralt", "griffin", "eternal flame", "letho", "duny")


def names_any(text: str) -> bool:
    return any(name in text.lower() for name in NAMES)


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("I've only seen the show and was wondering: who is Duny?", "who is Duny?"),
        ("Where should you hit a griffin? My cousin wants to know.", "Where should you hit a griffin?"),
        ("ok, new topic. who was Letho", "who was Letho"),
        ("anyway, different question: who is Letho?", "who is Letho?"),
        (
            "I only know the games so far, whose face was stolen in Eternal Flame?",
            "whose face was stolen in Eternal Flame?",
        ),
    ],
)
def test_what_a_speaker_says_of_himself_is_no_part_of_the_question(typed, asked):
    assert core(typed, names_any) == asked


@pytest.mark.parametrize(
    "typed",
    [
        "Who is Geralt?",
        "I met Letho in the village. Where does he go?",  # points back
        "I met Letho in the village. Where is Geralt then?",  # names something
        "I'm in the vault and the auctioneer makes me an offer. If I say yes, who dies?",  # would ask about nothing
        "New player here: how do I draw a sword in the games, do I have to switch to Geralt by hand?",  # asks twice
        "I like Geralt.",
        "????? ?? ",
    ],
)
def test_what_belongs_to_the_question_stays(typed):
    assert core(typed, names_any) == typed


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("in the show, do mages make chaos?", "yesno"),
        ("In the tv show is the dragon alive when they find her?", "yesno"),
        ("in the show, who saves Cahir?", "person"),
        ("When is the remake coming?", "time"),
        ("At what age did Calanthe win her battle?", "count"),
        ("Which witcher games came out in 2007?", "thing"),
        ("Which witcher trained Ciri?", "person"),
    ],
)
def test_kinds(text, kind):
    assert kind_of(text) == kind


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("who kills vesemir in witcher 3", "games"),
        ("Where does Geralt meet Jaskier in the show?", "tv"),
        ("Who is hidden in W3?", "games"),
        ("who is Geralt in the books", "books"),
        ("Who shows Geralt the way?", ""),
        ("Who is the third witcher of the school?", ""),
    ],
)
def test_tellings_are_named_loosely(text, telling):
    assert telling_of(text) == telling
