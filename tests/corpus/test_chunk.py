"""Sentences and passages: where texts are cut, and that offsets are exact."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.chunk import MAXIMUM, TAIL, TARGET, passages, sentences, words
from corpus.types import FACTS_PATH, Article, Section


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def article(*sections: Section) -> Article:
    return Article("Halvor Brennick", sections, aliases=("The smith",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He came. He saw.", ["He came.", "He saw."]),
        ("It fell in 1268. Ilse fled.", ["It fell in 1268.", "Ilse fled."]),
        ("It fell in 1268. 300 men fled.", ["It fell in 1268.", "300 men fled."]),
        ("Mr. Holt met St. Anna. She left.", ["Mr. Holt met St. Anna.", "She left."]),
        ("See vol. 3 and p. 12, no. 5. End.", ["See vol. 3 and p. 12, no. 5.", "End."]),
        ("Ask no. He knows.", ["Ask no.", "He knows."]),
        ("Salt, e.g. Grey Salt, sells.", ["Salt, e.g. Grey Salt, sells."]),
        ("J. R. Holt wrote it. A. Vane too.", ["J. R. Holt wrote it.", "A. Vane too."]),
        ("She followed Wulfric I. He fell.", ["She followed Wulfric I.", "He fell."]),
        ("Well… perhaps. Well… Perhaps.", ["Well… perhaps.", "Well…", "Perhaps."]),
        ("Wait... What? No! Yes.", ["Wait...", "What?", "No!", "Yes."]),
        ("She saw St... He left.", ["She saw St...", "He left."]),
        ("Wait . . . What?", ["Wait . . .", "What?"]),
        ("“Run!” he said. “Stay. Go.” She ran.", ["“Run!” he said.", "“Stay. Go.”", "She ran."]),
        ('"Stay. Go." She ran.', ['"Stay. Go."', "She ran."]),
        ("It broke (see below. Or not.) twice. Then no.", ["It broke (see below. Or not.) twice.", "Then no."]),
        ("It broke. (It was old.) So it went.", ["It broke.", "(It was old.)", "So it went."]),
        ("• The Bent Nail\n◦ A sub. Two.\n\nNext one", ["The Bent Nail", "A sub.", "Two.", "Next one"]),
        ("3. Take the key. Leave.", ["3. Take the key.", "Leave."]),
        ("Halvor — mother: Marit.\nHalvor — wife: Ilse.", ["Halvor — mother: Marit.", "Halvor — wife: Ilse."]),
        ("It weighs 3.5 stone. Heavy.", ["It weighs 3.5 stone.", "Heavy."]),
        ("", []),
        (" \n• \n ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


_MARKS = [". ", "… ", "\n", "• ", "“", "”", '"', "(", ")", "! ", "St. ", "J. ", "1268. ", "Ab ", "x"]
_TEXT = st.lists(st.one_of(st.sampled_from(_MARKS), st.text(max_size=6)), max_size=60).map("".join)


@settings(max_examples=200, deadline=None)
@given(_TEXT)
def test_spans_and_gaps_restore_the_text(text: str) -> None:
    rebuilt, end = "", 0
    for start, stop in sentences(text):
        assert end <= start < stop
        assert text[start:stop] == text[start:stop].strip()
        assert set(text[end:start]) <= {c for c in text if c.isspace() or c in "•◦"}
        rebuilt += text[end:start] + text[start:stop]
        end = stop
    assert rebuilt + text[end:] == text
    assert not text[end:].strip(" \n•◦" + "".join(c for c in text if c.isspace()))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(_TEXT, st.integers(1, 60)).map(lambda pair: pair[0] * pair[1]), max_size=3))
def test_passages_are_exact_complete_and_never_too_long(texts: list[str]) -> None:
    made = article(*(Section((f"Part {i}",), text) for i, text in enumerate(texts)))
    covered = ["" for _ in texts]
    for passage in passages(made):
        text = made.sections[passage.section].text
        assert passage.text == text[passage.start : passage.end] == passage.text.strip() != ""
        assert words(passage.text) <= MAXIMUM
        covered[passage.section] += passage.text
    for text, seen in zip(texts, covered, strict=True):
        assert "".join(seen.split()) == "".join(text.split())


def prose(count: int, size: int = 9) -> str:
    """``count`` sentences of ``size`` words."""
    return " ".join(f"Sentence {i} {'runs ' * (size - 3)}on." for i in range(count))


def test_about_180_words_cut_between_sentences() -> None:
    made = passages(article(Section((), prose(100))))
    assert [words(p.text) for p in made[:-1]] == [TARGET] * 4
    assert all(p.text.startswith("Sentence") and p.text.endswith("on.") for p in made)


def test_a_short_tail_joins_the_passage_before_and_a_longer_one_does_not() -> None:
    joined = passages(article(Section((), prose(44))))  # 396 words: 180, 180, 36
    assert [words(p.text) for p in joined] == [180, 216]
    apart = passages(article(Section((), prose(47))))  # 423 words: 180, 180, 63
    assert [words(p.text) for p in apart] == [180, 180, 63]
    assert TAIL < 63


def test_a_section_that_is_not_too_long_stays_whole() -> None:
    assert [words(p.text) for p in passages(article(Section((), prose(25))))] == [225]
    assert len(passages(article(Section((), prose(26))))) == 2


def test_passages_never_cross_sections_and_carry_where_they_are_from() -> None:
    made = article(Section((), "A lead."), Section(("Life",), " \n "), Section(("Life", "Youth"), "A life.", "games"))
    lead, life = passages(made)
    assert (lead.text, lead.section, lead.canon, lead.path) == ("A lead.", 0, "", ())
    assert (life.text, life.section, life.canon, life.path) == ("A life.", 2, "games", ("Life", "Youth"))
    assert life.title == "Halvor Brennick" and life.aliases == ("The smith",)
    assert life.heading == "Halvor Brennick › Life › Youth"


def test_facts_are_cut_between_lines_only() -> None:
    text = "\n".join(f"Halvor — trade {i}: smith. Farrier. Cutler of knives, shears and sickles." for i in range(60))
    made = passages(article(Section(FACTS_PATH, text)))
    assert len(made) > 2
    assert all(p.text.startswith("Halvor — trade") and p.text.endswith("sickles.") for p in made)


def test_list_items_keep_their_bullets() -> None:
    text = "\n".join(f"• Item {i} lies in the yard behind the old hall. It rusts." for i in range(60))
    assert all(p.text.startswith(("• Item", "It rusts")) for p in passages(article(Section((), text))))
    assert sum(p.text.count("•") for p in passages(article(Section((), text)))) == 60


def test_a_sentence_that_is_too_long_is_cut_at_a_clause() -> None:
    text = ", ".join("then the river rose over the lower road" for _ in range(60)) + "."
    made = passages(article(Section((), text)))
    assert len(made) == 3
    assert all(p.text.startswith("then") and p.text.endswith(("road,", "road.")) for p in made)


def test_text_without_spaces_is_measured_by_its_characters() -> None:
    made = passages(article(Section((), "狩魔獵人" * 2000)))
    assert len(made) > 4 and "".join(p.text for p in made) == "狩魔獵人" * 2000


@pytest.mark.parametrize("text", ["." * 100_000, ". ) " * 50_000, "(" * 100_000, '"' * 100_000, "“a. B" * 30_000])
def test_no_text_takes_quadratic_time(text: str) -> None:
    started = time.process_time()
    passages(article(Section((), text)))
    assert time.process_time() - started < 5


def test_importing_pulls_in_no_model_library() -> None:
    code = "import sys, corpus.chunk; print({'torch', 'transformers', 'spacy', 'nltk'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
