"""How an answer is put together from evidence: styles by question, tellings side by side, every quote in its place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app import evidence as ev
from app.answer import joined
from app.compose import YES, Composer
from app.question import Question, Term
from app.render import paragraphs
from corpus.chunk import sentences
from corpus.store import StoredPassage
from corpus.types import FACTS_PATH
from retrieval.search import Hit

LEAD = "Marn is a kingdom of the coast. It was founded by sailors. Its queens rule from Brennport. It trades in salt."


def passage(number: int, text: str, path: tuple[str, ...] = (), canon: str = "", page: int = 1) -> StoredPassage:
    return StoredPassage(
        id=number, page=page, source="", title="Marn", display_title="Marn", path=path, heading="Marn", text=text,
        start=0, end=len(text), section=number, canon=canon, url="", revid=0, rights="", rights_url="",
    )  # fmt: skip


def evidence(text: StoredPassage, *shares: float, rank: int = 0) -> list[ev.Evidence]:
    """The sentences of a passage with these shares."""
    hit = Hit(text, 1.0)
    spans = sentences(text.text)
    assert len(spans) == len(shares)
    return [
        ev.Evidence(hit, rank, a, b, 1.0, 1.0, 1.0, 1.0, 1.0, share=share)
        for (a, b), share in zip(spans, shares, strict=True)
    ]


def answer(question: Question, *groups: list[ev.Evidence], length="normal") -> Composer:
    best = sorted((e for group in groups for e in group), key=lambda e: -e.share)
    composer = Composer(question, best, length)
    if not composer.short_answer():
        composer.finish()
    for sentence in composer.sentences:
        assert f"[{sentence.n}]" in sentence.text
    for number, citation in enumerate(composer.citations, 1):
        assert citation.n == number
        assert citation.passage[citation.start : citation.end] == citation.quote
    return composer


def asked(text: str, kind="thing", **more) -> Question:
    return Question(text, kind, (), frozenset({1}), (), **more)


def test_a_name_is_one_sentence_unless_another_comes_near():
    text = "Queen Ilvane rules Marn. Her aunt is Dorte. It obeys Lady Pell too."
    found = evidence(passage(1, text), 0.8, 0.1, 0.05)
    assert joined(answer(asked("Who rules Marn?", "person"), found).sentences) == "“Queen Ilvane rules Marn.” [1]"
    near = evidence(passage(1, text), 0.45, 0.05, 0.4)
    said = answer(asked("Who rules Marn?", "person"), near)
    assert [c.quote for c in said.citations] == ["Queen Ilvane rules Marn.", "It obeys Lady Pell too."]
    assert joined(said.sentences) == "“Queen Ilvane rules Marn.” [1] Marn: “It obeys Lady Pell too.” [2]"
    assert len(answer(asked("Who rules Marn?", "person"), near, length="short").sentences) == 1


def test_what_tells_no_new_name_is_not_quoted_after_the_best():
    found = evidence(passage(1, "Queen Ilvane rules Marn. Salt is sold there. Ilvane is loved."), 0.45, 0.05, 0.4)
    assert len(answer(asked("Who rules Marn?", "person"), found).citations) == 1
    assert len(answer(asked("What is Ilvane to Marn?"), found).citations) == 2
    row = evidence(passage(2, "Marn — first appearance: The Salt Road.", FACTS_PATH), 0.4, rank=1)
    row = [replace(row[0], matter=0.4)]  # no short answer by itself
    best = evidence(passage(1, "Queen Ilvane rules Marn."), 0.45)
    assert len(answer(asked("What is Ilvane to Marn?"), best, row).citations) == 1  # a fragment, and not asked for
    assert len(answer(asked("What marks Ilvane's first appearance?"), best, row).citations) == 2


def test_the_title_stands_before_a_quote_that_does_not_say_of_whom_it_speaks():
    found = evidence(passage(1, "The captain was hanged at dawn."), 0.9)
    said = answer(asked("What happened to the captain?"), found).sentences
    assert joined(said) == "Marn: “The captain was hanged at dawn.” [1]"
    # Another name of the article, by which the question calls it, says it as well.
    named = asked("What happened to Peter?")
    named = replace(named, terms=(Term("peter", 1.0, True, frozenset(), frozenset({1})),))
    found = evidence(passage(1, "Peter was hanged at dawn."), 0.9)
    assert joined(answer(named, found).sentences) == "“Peter was hanged at dawn.” [1]"


def test_no_quote_runs_over_a_paragraphs_end():
    found = evidence(passage(1, "Marn broke its dyke.\n\nSo the people left Marn."), 0.4, 0.5)
    said = answer(asked("Why did the people leave Marn?", "reason"), found)
    assert [c.quote for c in said.citations] == ["Marn broke its dyke.", "So the people left Marn."]
    assert "\n" not in joined(said.sentences)


def test_a_portrait_draws_on_several_passages_and_begins_with_the_lead():
    lead = evidence(passage(1, LEAD), 0.2, 0.1, 0.1, 0.05)
    more = evidence(passage(2, "Marn fought two wars with Osk. The weather is mild.", ("History",)), 0.3, 0.001, rank=1)
    said = answer(asked("What is Marn?", "definition"), lead, more)
    quotes = [c.quote for c in said.citations]
    assert quotes == [LEAD.removesuffix(" It trades in salt."), "Marn fought two wars with Osk."]
    assert [c.quote for c in answer(asked("What is Marn?", "definition"), lead, more, length="short").citations] == [
        "Marn is a kingdom of the coast."
    ]
    whole = answer(asked("What is Marn?", "definition"), lead, more, length="long").citations
    assert sum(len(sentences(c.quote)) for c in whole) > 4


def test_parents_are_mother_and_father_and_whom_the_row_of_parents_names():
    rows = "Marn — parents: Belo (adoptive).\nMarn — hair: red.\nMarn — father: Tarn.\nMarn — mother: Ilvane."
    found = evidence(passage(1, rows, FACTS_PATH), 0.4, 0.1, 0.2, 0.2)
    said = answer(asked("Who are Marn's parents?", "person"), found)
    assert joined(said.sentences) == (
        "Marn, mother: Ilvane [1]. Marn, father: Tarn [2]. Marn, parents: Belo (adoptive) [3]."
    )
    assert "Ilvane" not in joined(answer(asked("Who killed Marn's parents?", "person"), found).sentences)


def test_neither_yes_nor_no_is_read_off_a_sentence_about_somebody_else():
    found = evidence(passage(1, "Ilvane can read a thought at once."), 0.9)
    question = asked("Can Ilvane read a thought at once?", "yesno")
    assert joined(answer(question, found).sentences).startswith("Yes: ")
    other = [replace(e, named=0.0) for e in found]
    assert "Yes" not in joined(answer(question, other).sentences)


def test_reasons_and_manners_get_the_steps_around_the_best_sentence():
    text = "The dyke broke. Salt killed the fields. So the people left Marn. They sailed west."
    found = evidence(passage(1, text), 0.1, 0.2, 0.5, 0.01)
    said = answer(asked("Why did the people leave Marn?", "reason"), found)
    assert [c.quote for c in said.citations] == ["The dyke broke. Salt killed the fields. So the people left Marn."]


def test_a_section_that_tells_how_is_quoted_from_its_beginning():
    text = "A hag hates salt. Throw some. She turns solid. Then strike. Mind the claws."
    section = [replace(e, headed=True) for e in evidence(passage(1, text, ("How to kill a hag",)), 0.1, 0, 0.3, 0.1, 0)]
    other = evidence(passage(2, "Hags were killed here."), 0.4)
    said = answer(asked("How do I kill a hag?", "manner"), section, other)
    assert [c.quote for c in said.citations] == ["A hag hates salt. Throw some. She turns solid."]
    assert len(answer(asked("How do I kill a hag?", "manner"), section, length="long").citations[0].quote) == len(text)


def test_a_list_becomes_a_list():
    fact = evidence(passage(1, "Marn — children: Ilvane; Dorte, Lady of Osk; Pell.", FACTS_PATH), 0.9)
    question = asked("Who are the children of Marn?", "person", wants_list=True)
    said = answer(replace(question, terms=()), fact)
    lines = joined(said.sentences).splitlines()
    assert lines == ["- Ilvane [1]", "- Dorte, Lady of Osk [1]", "- Pell [1]"]
    shown = paragraphs(joined(said.sentences), "t", frozenset({1}))
    assert shown.startswith('<ul class="text"><li>Ilvane') and shown.count("<li>") == 3
    assert "<script" not in paragraphs("- <script>alert(1)</script>", "t", frozenset())


def test_tellings_speak_for_themselves():
    books = evidence(passage(1, "Ilvane dies at Osk.", ("In the books",), "books"), 0.4)
    games = evidence(passage(2, "Ilvane lives on in Brennport.", ("In the games",), "games"), 0.35, rank=1)
    said = answer(asked("What became of Ilvane?"), books, games)
    assert joined(said.sentences) == (
        "In the books: “Ilvane dies at Osk.” [1]\nIn the games: “Ilvane lives on in Brennport.” [2]"
    )
    # Whoever names a telling, or asks what holds in all of them, gets no headings.
    plain = answer(asked("What became of Ilvane in the books?", canon="books"), books, games)
    assert not any(sentence.block for sentence in plain.sentences)
    whole = evidence(passage(3, "Ilvane is a queen."), 0.38)
    assert not any(s.block for s in answer(asked("What became of Ilvane?"), books, whole).sentences)


def test_a_telling_beside_the_point_is_no_side_and_a_yes_has_none():
    books = evidence(passage(1, "Marn fell at Osk.", ("In the books",), "books"), 0.6)
    games = evidence(passage(2, "Marn sells salt in Brennport.", ("In the games",), "games"), 0.25, rank=1)
    said = answer(asked("What became of Marn?"), books, games).sentences
    assert len(said) == 2 and not any(sentence.block for sentence in said)
    games = evidence(passage(2, "Marn did not fall.", ("In the games",), "games"), 0.5, rank=1)
    said = answer(asked("Did Marn fall at Osk?", "yesno"), books, games).sentences
    assert len(said) == 1 and said[0].text.startswith("Yes: “Marn fell")


@pytest.mark.parametrize(
    ("said", "begins"),
    [("Ilvane never married the king of Osk.", "No: “"), ("Ilvane married the king of Osk.", "Yes: “")],
)
def test_yes_and_no_come_with_their_reason(said, begins):
    found = evidence(passage(1, said), 0.9)
    assert joined(answer(asked("Did Ilvane marry the king of Osk?", "yesno"), found).sentences) == (
        f"{begins}{said}” [1]"
    )


def test_a_weak_yes_is_not_said():
    question = asked("Did Ilvane marry the king of Osk?", "yesno")
    found = evidence(passage(1, "Ilvane married the king of Osk."), YES - 0.01)
    assert "Yes" not in joined(answer(question, found).sentences)


@pytest.mark.parametrize(
    "text",
    ["People on the coast believe that Marn has a king.", "Only legend says that Marn has a king."],
)
def test_hearsay_carries_no_yes(text):
    question = asked("Does Marn have a king?", "yesno")
    assert joined(answer(question, evidence(passage(1, "Marn has a king."), 0.9)).sentences).startswith("Yes")
    assert not joined(answer(question, evidence(passage(1, text), 0.9)).sentences).startswith("Yes")


def test_what_another_telling_says_is_neither_yes_nor_no():
    found = [replace(e, telling=-1.0) for e in evidence(passage(1, "Marn has a king."), 0.9)]
    assert joined(answer(asked("Does Marn have a king?", "yesno"), found).sentences) == "“Marn has a king.” [1]"


def test_neighbours_are_quoted_as_one_and_nothing_twice():
    found = evidence(passage(1, LEAD), 0.3, 0.28, 0.01, 0.01)
    said = answer(asked("How did Marn begin?", "manner"), found)
    assert [c.quote for c in said.citations] == ["Marn is a kingdom of the coast. It was founded by sailors."]
