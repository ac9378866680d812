"""What the archive knows about names: where they stand in a text, what they name, and which pronoun they take."""

from __future__ import annotations

import json
import re
from functools import lru_cache

from corpus.store import Store
from retrieval.names import Names
from retrieval.words import clean, split, without_note

_THINGS = ("work", "quest", "place", "history", "gear", "alchemy")  # of whom nobody asks *who*
_PRONOUNS = {
    "he": re.compile(r"\b(?:he|him|his)\b"),
    "she": re.compile(r"\b(?:she|her|hers)\b"),
    "it": re.compile(r"\b(?:it|its)\b"),
    "they": re.compile(r"\b(?:they|them|their)\b"),
}


class Known:
    """Names of one archive, looked up once each."""

    def __init__(self, store: Store, names: Names) -> None:
        self.store, self.names = store, names
        self.mentions = lru_cache(maxsize=1024)(self._mentions)
        self.kind = lru_cache(maxsize=8192)(self._kind)
        self.pronoun = lru_cache(maxsize=4096)(self._pronoun)

    def _mentions(self, text: str) -> list[tuple[str, frozenset[int]]]:
        """Names as they stand in a text, in order, with the pages (pages.id) that they may mean."""
        plain = clean(text)
        cut = split(plain)
        return [(plain[cut[m.start].start : cut[m.end - 1].end], frozenset(m.pages)) for m in self.names.mentions(cut)]

    def pages(self, text: str) -> set[int]:
        """Everything that a text names."""
        return {page for _, pages in self.mentions(text) for page in pages}

    def event(self, pages: frozenset[int]) -> str:
        """The name of the article on what a place is known for, as its infobox gives it ("event: Thanedd coup, 1267").

        "" where no infobox of these pages names an event that has an article.
        """
        for page in sorted(pages):
            rows = self.store.rows("SELECT \"values\" FROM facts WHERE page = ? AND key IN ('event', 'events')", [page])
            for name, named in (
                mention for row in rows for value in json.loads(row["values"]) for mention in self.mentions(value)
            ):
                if any(self.kind(other) == "history" for other in named):
                    return name
        return ""

    def persons(self, pages: frozenset[int]) -> frozenset[int]:
        """Those of some articles of one name that may be about somebody; all of them where none is.

        Where they are about a novel, that may be "Lady of the Lake (character)", which nobody calls so.
        """
        found = {page for page in pages if self.kind(page) not in _THINGS}
        for page in () if found else pages:
            title = self.store.rows("SELECT title FROM pages WHERE id = ?", [page])[0]["title"]
            bare = re.sub(r"^the\s+", "", without_note(title), flags=re.I)
            like = self.store.rows("SELECT id FROM pages WHERE title LIKE ?", [f"{bare} (%)"])
            found |= {row["id"] for row in like if self.kind(row["id"]) not in _THINGS}
        return frozenset(found) or pages

    def _kind(self, page: int) -> str:
        """What an article is about (``character``, ``place``, …); "" where the archive does not say, as for wikis."""
        return self.store.rows("SELECT kind FROM pages WHERE id = ?", [page])[0]["kind"]

    def _pronoun(self, name: str) -> str:
        """``he``, ``she``, ``it`` or ``they``, as the named article's first passages have it; "" when none is there."""
        pages = [page for _, pages in self.mentions(name) for page in sorted(pages)]
        if not pages:
            return ""
        rows = self.store.rows("SELECT text FROM passages WHERE page = ? ORDER BY section, start LIMIT 6", [pages[0]])
        facts = self.store.rows("SELECT \"values\" FROM facts WHERE page = ? AND key = 'gender'", [pages[0]])
        stated = "".join(row["values"].casefold() for row in facts)
        if "female" in stated or "male" in stated:
            return "she" if "female" in stated else "he"
        text = " ".join(row["text"] for row in rows).casefold()
        # A thing's article may speak of persons more often than of the thing.
        living = self.kind(pages[0]) in ("", "character", "creature")
        counts = {p: len(rule.findall(text)) for p, rule in _PRONOUNS.items() if living or p in ("it", "they")}
        winner = max(counts, key=lambda pronoun: counts[pronoun])
        return winner if counts[winner] else ""
