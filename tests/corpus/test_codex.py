"""The codex's reader: Markdown to the same shapes as a wiki's pages, and errors that name file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import chunk, codex
from corpus.errors import CirillaError
from corpus.types import FACTS_PATH, Article, Fact, Page, Quote

HEAD = """---
title: Halvor Brennick
aliases: [The Smith of Osterlund, Halvor]
kind: character
canon: [books, games]
facts:
  race: human
  born: 1196
  left-handed: no
  children: [Ilse Brennick, "Joren, adopted"]
  eyes (books): green
  died: ~
related: [Caldmoor]
sources: ["The Smith's Book"]
---
"""
BODY = """Halvor Brennick was a **blacksmith** of [Osterlund](https://x.example/o "town"), and _no_ smith_of_the_town.
He shod *horses*.

## Life {canon=books}
Halvor grew up at the ford.

### Youth
He left it
at nine.

- The Bent Nail
  and its sequel
- A Debt of Ash
  - a part of it

## Sayings

> "Iron remembers."
> — Halvor

## In the games { canon = games }
1. Buy a nail.
2. Sell it.

| Item | Price |
| --- | --- |
| Nail | 2 |
| Shoe | |

<!-- a note
to ourselves -->
> A page of his journal.

## Afterwards
It ended \\*well\\*.
"""


def page(text: str) -> Page:
    return Page("codex", 1, "Halvor Brennick", 1, "codex:character/halvor-brennick", text)


@pytest.fixture(scope="module")
def article() -> Article:
    return codex.parse_page(page(HEAD + BODY))


def test_sections_paths_and_plain_text(article: Article) -> None:
    assert [(s.path, s.text) for s in article.sections[:-1]] == [
        ((), "Halvor Brennick was a blacksmith of Osterlund, and no smith_of_the_town. He shod horses."),
        (("Life",), "Halvor grew up at the ford."),
        (("Life", "Youth"), "He left it at nine.\n\n• The Bent Nail and its sequel\n• A Debt of Ash\n◦ a part of it"),
        (("In the games",), "• Buy a nail.\n• Sell it.\n\nItem: Nail; Price: 2\nItem: Shoe\n\nA page of his journal."),
        (("Afterwards",), "It ended *well*."),
    ]


def test_canon_comes_from_the_heading_or_the_one_above_or_a_single_canon(article: Article) -> None:
    assert [s.canon for s in article.sections] == ["", "books", "books", "games", "", ""]
    single = codex.parse_page(page(HEAD.replace("[books, games]", "[tv]") + BODY))
    assert [s.canon for s in single.sections] == ["tv", "books", "books", "games", "tv", "tv"]
    assert single.canon == "tv" and article.canon == ""


def test_facts_keep_what_was_written(article: Article) -> None:
    assert article.facts == (
        Fact("race", "race", ("human",)),
        Fact("born", "born", ("1196",)),
        Fact("left-handed", "left-handed", ("no",)),
        Fact("children", "children", ("Ilse Brennick", "Joren, adopted")),
        Fact("eyes", "eyes", ("green",), "books"),
    )


def test_facts_section_is_that_of_a_wiki_page(article: Article) -> None:
    assert article.sections[-1].path == FACTS_PATH
    assert article.sections[-1].text.split("\n")[-2:] == [
        "Halvor Brennick — children: Ilse Brennick; Joren, adopted.",
        "Halvor Brennick — eyes (books): green.",
    ]


def test_a_quote_with_attribution_leaves_the_text(article: Article) -> None:
    assert [s.quotes for s in article.sections if s.quotes] == [(Quote("Iron remembers.", "Halvor"),)]
    assert not any("Iron" in s.text for s in article.sections)


def test_the_rest_of_the_article(article: Article) -> None:
    assert article.title == "Halvor Brennick" and article.kind == "character"
    assert article.aliases == ("The Smith of Osterlund", "Halvor")
    for passage in chunk.passages(article):
        assert passage.text == article.sections[passage.section].text[passage.start : passage.end]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_load(tmp_path: Path) -> None:
    write(tmp_path, "README.md", "no article")
    write(tmp_path, "character/README.md", "no article")
    write(tmp_path, "character/halvor-brennick.md", HEAD + BODY)
    write(tmp_path, "place/caldmoor.md", HEAD.replace("Halvor Brennick", "Caldmoor"))
    halvor, caldmoor = codex.load(tmp_path)
    assert (halvor.source, halvor.title, halvor.url) == ("codex", "Halvor Brennick", "codex:character/halvor-brennick")
    assert halvor.html == HEAD + BODY and halvor.rights == "CC BY 4.0"
    assert halvor.aliases == ("The Smith of Osterlund", "Halvor")
    assert caldmoor.title == "Caldmoor" and caldmoor.pageid != halvor.pageid > 0


def test_ids_are_stable_and_the_revision_follows_the_content(tmp_path: Path) -> None:
    path = write(tmp_path, "character/halvor-brennick.md", HEAD + BODY)
    before = codex.read(path)
    # Written down, because ids that changed between runs or machines would orphan every stored vector.
    assert before.pageid == 849918275911430
    path.write_text(HEAD + BODY + "More.", encoding="utf-8")
    after = codex.read(path)
    assert after.pageid == before.pageid and after.revid != before.revid
    assert 0 < after.revid < 2**31


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("# Halvor\n", 1, "must begin with a line '---'"),
        ("", 1, "must begin with a line '---'"),
        ("---\ntitle: Halvor\n", 1, "never closed"),
        ("---\ntitle: Halvor\nfacts:\n  race: [human\nkind: x\n---\n", 5, "no valid YAML"),
        ("---\ntitle: Halvor: smith\n---\n", 2, "no valid YAML"),
        ("---\n- title\n---\n", 2, "list of 'key: value'"),
        ("---\n---\n", 2, "list of 'key: value'"),
        ("---\nkind: character\n---\n", 1, "'title' is missing"),
        ("---\ntitle: A\nkind: b\ntitle: C\n---\n", 4, "given twice"),
        ("---\ntitle: A\nfacts:\n  eyes: blue\n  eyes: grey\n---\n", 5, "given twice"),
        ("---\ntitle: A\nfacts:\n  eyes: {left: blue}\n---\n", 4, "'eyes' must be a value or a list"),
        ("---\ntitle: A\nfacts: [blue]\n---\n", 3, "'facts' must be"),
        ("---\ntitle: A\naliases: {b: c}\n---\n", 3, "'aliases' must be"),
    ],
)
def test_malformed_front_matter_names_file_and_line(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = write(tmp_path, "character/halvor.md", text)
    with pytest.raises(codex.CodexError, match=problem) as raised:
        list(codex.load(tmp_path))
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert isinstance(raised.value, CirillaError)
    assert "\n" not in str(raised.value)


def test_unknown_canons_are_errors_with_their_line() -> None:
    with pytest.raises(codex.CodexError, match=r"codex:character/halvor-brennick:19: unknown canon 'comics'"):
        codex.parse_page(page(HEAD + "Lead.\n\n\n## Life {canon=comics}\nx\n"))
    with pytest.raises(codex.CodexError, match=r":5: unknown canon 'film'"):
        codex.parse_page(page(HEAD.replace("[books, games]", "[books, film]") + BODY))


def test_files_that_are_no_text_and_missing_folders(tmp_path: Path) -> None:
    path = tmp_path / "place" / "x.md"
    path.parent.mkdir()
    path.write_bytes(b"---\ntitle: \xff\n---\n")
    with pytest.raises(codex.CodexError, match="cannot be read"):
        list(codex.load(tmp_path))
    with pytest.raises(codex.CodexError, match="no such folder"):
        list(codex.load(tmp_path / "nowhere"))


_MARKS = ["\n", "\n\n", "## ", "- ", "> ", "| a | b |\n", "| - | - |\n", "**", "_", "[", "](x)", "— ", "<!--", "\\"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(_MARKS), st.text(max_size=6)), max_size=40).map("".join))
def test_any_body_can_be_read(body: str) -> None:
    try:
        article = codex.parse_page(page(HEAD + body))
    except codex.CodexError:
        return
    for section in article.sections:
        assert section.text.strip() == section.text != ""
    for passage in chunk.passages(article):
        assert passage.text == article.sections[passage.section].text[passage.start : passage.end]


def test_the_codex_that_ships_can_be_read() -> None:
    for shipped in codex.load():
        article = codex.parse_page(shipped)
        assert article.sections and article.title == shipped.title
        assert all(passage.text for passage in chunk.passages(article))
