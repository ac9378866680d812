"""A small archive and an encoder that needs no weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from corpus.chunk import passages
from corpus.store import Store
from corpus.types import Article, Canon, Page, Section
from retrieval.words import key, split


class FakeEncoder:
    """Hashed bag of words: texts that share words are near each other.  ``calls`` counts texts embedded."""

    def __init__(self, name: str = "fake", dimension: int = 64, fail_after: int | None = None) -> None:
        self.model_hash, self.dimension, self.fail_after = name, dimension, fail_after
        self.calls = 0

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray:
        out = np.zeros((len(queries), self.dimension), dtype=np.float32)
        for row, text in enumerate(queries):
            for word in split(text):
                digest = hashlib.sha256(f"{self.model_hash} {key(word.text)}".encode()).digest()
                out[row, int.from_bytes(digest[:4], "big") % self.dimension] += 1 if digest[4] % 2 else -1
        out += 1e-3  # a text without words still needs a direction
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    def encode_passages(self, passages: Sequence[tuple[str, str]]) -> np.ndarray:
        if self.fail_after is not None and self.calls + len(passages) > self.fail_after:
            raise KeyboardInterrupt
        self.calls += len(passages)
        return self.encode_queries([f"{heading}\n{text}" for heading, text in passages])


class Shelf:
    """Puts articles into a store: ``put("Ciri", ("", "lead text"), ("Biography", "…"))``."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(
        self, title: str, *parts: tuple[str, str], aliases: tuple[str, ...] = (), canons: dict[str, Canon] | None = None
    ) -> None:
        canons = canons or {}
        article = Article(
            title=title,
            sections=tuple(
                Section((heading,) if heading else (), text, canons.get(heading, "")) for heading, text in parts
            ),
        )
        number = int.from_bytes(hashlib.sha256(title.encode()).digest()[:4], "big")
        page = Page("wiki", number, title, 1, f"https://wiki.invalid/{number}", "raw", aliases=aliases)
        self.store.replace_page(page, article, passages(article))

    def drop(self, title: str) -> None:
        number = int.from_bytes(hashlib.sha256(title.encode()).digest()[:4], "big")
        assert self.store.delete_page("wiki", number)


ARTICLES: list[tuple[str, tuple[tuple[str, str], ...], tuple[str, ...]]] = [
    (
        "Cirilla of Cintra",
        (
            ("", "Cirilla is a princess of the Elder Blood who was trained in the keep of the wolves."),
            ("Childhood", "The girl fled her burning city. Ciri was later raised by Vesemir and the other wolves."),
            ("Swords", "Ciri carries a gnomish blade that was forged far away in the mountains."),
        ),
        ("Ciri", "Lion Cub of Cintra"),
    ),
    (
        "Geralt of Rivia",
        (
            ("", "Geralt is a witcher with white hair. He is the guardian of Ciri, whom he found in a forest."),
            ("Horses", "Every horse of his is called Roach, and Ciri rode one. Ciri, Ciri, Ciri is on his mind."),
        ),
        ("White Wolf", "Gwynbleidd"),
    ),
    (
        "Yennefer of Vengerberg",
        (
            ("", "A sorceress with violet eyes who smells of lilac and gooseberries and taught magic to Ciri."),
            ("The Lodge", "She refused to serve the Lodge of women who wanted to rule from the shadows."),
        ),
        ("Yennefer",),
    ),
    ("Scoia'tael", (("", "Bands of elves and dwarves who fight human rule; Iorveth commands one of them."),), ()),
    ("Eithné", (("", "The silver-eyed queen of the dryads rules the forest of Brokilon."),), ()),
    ("Kaer Morhen", (("", "An old keep in the mountains where witchers of the Wolf school were trained."),), ()),
    ("Iorveth", (("", "An elven archer who lost an eye; he trusts no human king."),), ()),
    ("The Wild Hunt", (("", "A cavalcade of spectral riders that crosses the winter sky."),), ("Red Riders",)),
]


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "archive.sqlite") as opened:
        yield opened


@pytest.fixture
def shelf(store: Store) -> Shelf:
    shelf = Shelf(store)
    for title, parts, aliases in ARTICLES:
        shelf.put(title, *parts, aliases=aliases)
    return shelf


@pytest.fixture
def best(shelf: Shelf) -> Callable[..., str]:
    """The heading of the passage that lexical search puts first, "" for none."""
    from retrieval import lexical

    def first(question: str, canon: str | None = None) -> str:
        found = shelf.store.passages(id for id, _ in lexical.search(shelf.store, question, 1, canon))
        return found[0].heading if found else ""

    return first
