"""The records that flow from a page to a passage.

``Page`` is what a wiki (or the codex) gave us, ``Article`` is what we understood of it, ``Passage`` is what
is searched and cited.  They are plain frozen data classes: every stage of ingestion takes one and returns the
next, so each stage can be run again from the one before without the network.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

Canon = Literal["books", "games", "tv", ""]
"""Which telling of the story a text belongs to; the empty string means all of them, or unknown."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page as the wiki rendered it: the raw material, kept so that nothing is fetched twice."""

    source: str  # "codex", or the wiki's host, e.g. "witcher.fandom.com"
    pageid: int  # the wiki's page id; for the codex, a stable hash of the file name
    title: str
    revid: int
    url: str  # permanent address of this very revision
    html: str  # raw HTML from action=parse; for the codex, the Markdown file's text
    display_title: str = ""
    categories: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()  # titles that redirect here, other spellings
    revised_at: str = ""  # when this revision was saved: ISO 8601, UTC; "" where the source does not tell
    fetched_at: str = ""  # ISO 8601, UTC
    rights: str = ""  # licence name, e.g. "CC BY-SA 3.0"
    rights_url: str = ""

    @property
    def sha(self) -> str:
        """SHA-256 of the raw text: tells whether a page that was fetched again changed at all."""
        return hashlib.sha256(self.html.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Fact:
    """One infobox row: ``key`` is the machine name (data-source), ``label`` what a reader sees."""

    key: str
    label: str
    values: tuple[str, ...]
    canon: Canon = ""


@dataclass(frozen=True, slots=True)
class Quote:
    """Words that somebody said, kept out of the running text because they answer other questions."""

    text: str
    attribution: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Running text under one heading.  ``path`` is the headings from the top, () for the lead."""

    path: tuple[str, ...]
    text: str  # paragraphs separated by a blank line, no markup
    canon: Canon = ""
    quotes: tuple[Quote, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Article:
    """A page with its markup understood."""

    title: str
    sections: tuple[Section, ...]
    facts: tuple[Fact, ...] = ()
    categories: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    canon: Canon = ""
    kind: str = ""  # "character", "place", … where the source says so


FACTS_PATH = ("Facts",)
"""Heading path of the section that spells an article's infobox out as sentences."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A searchable piece of one section.

    ``text`` equals ``section.text[start:end]`` exactly, so a quote found in the passage can be highlighted in
    its article.  ``heading`` (title and heading path) is what the models read before the text.
    """

    title: str
    path: tuple[str, ...]
    text: str
    start: int
    end: int
    canon: Canon = ""
    section: int = 0  # ordinal of the section in its article
    aliases: tuple[str, ...] = field(default=())

    @property
    def heading(self) -> str:
        """Title and heading path as one line, e.g. ``Ciri › Biography › Childhood``."""
        return " › ".join((self.title, *self.path))

    def key(self, source: str, pageid: int) -> int:
        """A positive 63-bit id that depends on content and place alone.

        Two ingestions of the same wiki give the same ids in whatever order pages arrive, which is what makes a
        killed and resumed ingestion comparable with an uninterrupted one.
        """
        place = f"{source}\x1f{pageid}\x1f{self.section}\x1f{self.start}\x1f{self.heading}\x1f{self.text}"
        return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest(), "big") >> 1
