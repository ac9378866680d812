"""What is read off a question's wording."""

from __future__ import annotations

import pytest

from app.question import Vocabulary, analyse, bookish, changes_topic, core, kind_of, telling_of
from retrieval.names import Names

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
        ("Can you tell me who Letho's mother is?", "who Letho's mother is?"),
        ("please could you explain the Eternal Flame", "explain the Eternal Flame"),
        ("Do you know who killed Letho?", "who killed Letho?"),
        ("do you know anything about Letho", "know anything about Letho"),
        ("I'd like to know whys Letho here", "whys Letho here"),
        ("Hey Cirilla, who is Letho?", "who is Letho?"),
        ("who is Letho, Cirilla?", "who is Letho?"),
        ("real name of Letho plz lol", "real name of Letho"),
        ("how did Letho die?? i cant remember", "how did Letho die"),
        ("how big is Letho, exactly, i mean?", "how big is Letho?"),
        ("Also unrelated, what is a griffin", "what is a griffin"),
        ("New question: who is Letho?", "who is Letho?"),
        ("Something unrelated: who leads the Eternal Flame", "who leads the Eternal Flame"),
    ],
)
def test_what_a_speaker_says_of_himself_is_no_part_of_the_question(typed, asked):
    assert core(typed, names_any) == asked


@pytest.mark.parametrize(
    ("turn", "changes"),
    [
        ("Something unrelated: who leads the dryads?", True),
        ("unrelated, what did Geralt bring to Blaviken on his horse", True),
        ("Next question: where was she born?", False),
        ("and the other one, the mage?", False),
        ("who leads the dryads?", False),
    ],
)
def test_a_turn_that_says_it_is_about_something_else(turn, changes):
    assert changes_topic(turn, [name for name in ("Geralt", "dryads") if name in turn]) is changes


@pytest.mark.parametrize(
    "typed",
    [
        "Who is Geralt?",
        "I met Letho in the village. Where does he go?",  # points back
        "I met Letho in the village. Where is Geralt then?",  # names something
        "I'm in the vault and the auctioneer makes me an offer. If I say yes, who dies?",  # would ask about nothing
        "New player here: how do I draw a sword in the games, do I have to switch to Geralt by hand?",  # asks twice
        "I like Geralt.",
        "Can Geralt tell a griffin from a wyvern?",
        "Does Geralt trust anyone?",
        "Did Geralt ever meet Letho again?",
        "Is Cirilla the ward of Geralt?",
        "Do you know if Letho lives?",
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
        ("whos ciri", "person"),
        ("wheres kaer morhen", "place"),
        ("Isn't Ciri a witcher?", "yesno"),
        ("didnt foltest die", "yesno"),
        ("So is Ciri alive?", "yesno"),
        ("So what is gwent?", "thing"),
        ("year of birth of sapkowski", "time"),
        ("number of mages on the hill", "count"),
        ("killer of radovid", "person"),
        ("What did the elves raid on the day of the wedding?", "thing"),
        ("What became of the ship on the way to the giant?", "thing"),
        ("Which of them killed a number of guards?", "thing"),
        ("best way to clear toxicity", "manner"),
        ("what's the reason geralt has two swords", "reason"),
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


def test_words_that_people_type_become_those_of_the_archive():
    held = {"father": 9, "mother": 5, "largest": 9, "biggest": 1, "kid": 2, "child": 7}
    vocabulary = Vocabulary(lambda word: held.get(word, 0), 100)
    assert bookish("whos ciri's dad, and her mum's Kid?", vocabulary) == "whos ciri's father, and her mother's Kid?"
    assert bookish("Ma'am, o'pa", vocabulary) == "Ma'am, o'pa"
    assert bookish("biggest pub", vocabulary) == "largest pub"  # the archive knows no inn either


def test_part_of_a_known_name_is_no_unknown_word():
    names = Names([("Gaunter O'Dimm", 1)], lambda word: True)
    asked = analyse("who is gaunter o dimm's zork", names, Vocabulary(lambda word: 0, 10))
    assert asked.unknown == ("zork",)


OWNERS = Names([("Geralt", 1), ("Horse", 2), ("Obsidian star", 3), ("Yennefer's obsidian star", 3)], lambda word: True)


@pytest.mark.parametrize(
    ("text", "kind", "possession"),
    [
        ("Who is Geralt's horse?", "person", "hors"),
        ("what's the name of Geralt's horse", "thing", "hors"),
        ("What is Geralt's horse called?", "thing", "hors"),
        ("What is a horse?", "definition", ""),
        ("What is Yennefer's obsidian star?", "definition", "star"),
        ("What is Geralt's middle name?", "thing", "middl"),
        ("What is Geralt's name?", "definition", ""),
        ("What was Geralt's trade?", "thing", ""),  # "a witcher" says it
        ("What is Geralt's relation to the dryads?", "thing", ""),
        ("What does Geralt's horse eat?", "thing", ""),
    ],
)
def test_what_somebody_has_is_no_portrait_of_such_a_thing(text, kind, possession):
    asked = analyse(text, OWNERS, Vocabulary(lambda word: 3, 10))
    assert (asked.kind, asked.possession) == (kind, possession)
