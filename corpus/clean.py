"""A wiki page's HTML → an ``Article``: clean sections, infobox facts, quotes and references.

One pass over the tree.  Noise is recognised on the way in and never descended into, so nothing is removed from the
tree or searched for twice; that keeps a 60 kB page under 30 ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from bs4 import BeautifulSoup, NavigableString, Tag
from bs4.builder import ParserRejectedMarkup
from bs4.element import PreformattedString

from corpus import canon
from corpus.infobox import facts_section, legacy_facts, portable_facts, table_cells, table_lines
from corpus.markup import (
    BANNER_CLASS,
    BLOCKS,
    BREAK,
    HEADINGS,
    Gatherer,
    citation_ids,
    classes_of,
    is_citation,
    is_noise,
    is_quote_class,
    line_of,
    tidy,
)
from corpus.types import Article, Fact, Page, Quote, Section

_DROPPED_SECTIONS = frozenset(
    (
        "external links",
        "external link",
        "references",
        "notes and references",
        "citations",
        "gallery",
        "galleries",
        "image gallery",
        "images",
        "navigation",
        "see also",
        "video",
        "videos",
        "footnotes",
        "quick answers",
        "contents",
    )
)
# Whole blocks that talk about the page instead of its subject.  Each is bounded in length (see _is_remark), so a
# paragraph that merely begins like one of them is kept.
_REMARK = re.compile(
    r"main (?:article|page)s?\s*:|see(?: also|  main article)?\s*:|further (?:information|reading)\s*:|sub-?pages?\s*:"
    r"|\W*(?:warning\W+)?spoilers?\b(?:\s*(?:warning|alert|ahead|end|follow)|\W*$|!)|(?:plot )?spoilers? (?:begin|end)"
    r"|.{0,40}\baudio version\b|listen to this article|quick answers"
    r"|this (?:article|page|section) (?:is (?:a stub|incomplete|under construction|about)|needs|requires"
    r"|may (?:need|contain)|contains? (?:major |plot |possible )?spoilers|has been)"
    r"|you can help .{0,40}\bby expanding\b"
    r"|for (?:other uses|the|an?)\b.{1,120}?,? (?:please )?see\b.{1,120}$|not to be confused with\b|\(?edit\)?$",
    re.I | re.S,
)
_REMARK_WORDS = 45
_DEEPEST = 8

_ATTRIBUTION = re.compile(r"^(?:[–—―‒~]|--?)\s*(?=\S)")
_SPEECH = re.compile(r"^[\"“”„«'‘]")
_QUOTE_MARKS = ' "“”„«»'


def as_quote(lines: list[str], cite: str = "") -> Quote | None:
    """The quote in these lines if they end in an attribution: ``cite``, or a last line that starts with a dash."""
    if not lines:
        return None
    if cite and lines[-1].endswith(cite):
        lines = [*lines[:-1], lines[-1][: len(lines[-1]) - len(cite)].rstrip(" –—―-~")]
    elif len(lines) > 1 and _ATTRIBUTION.match(lines[-1]):
        cite = lines[-1]
        lines = lines[:-1]
    else:
        return None
    text = _unquoted(" ".join(line for line in lines if line))
    return Quote(text, _ATTRIBUTION.sub("", cite).strip()) if text else None


def _unquoted(text: str) -> str:
    """The text without the marks around it, unless there are marks inside that they would be missing to."""
    inner = text.strip(_QUOTE_MARKS)
    return text.strip() if any(mark in inner for mark in '"“”„«»') else inner


def _is_remark(text: str) -> bool:
    return _REMARK.match(text) is not None and len(text.split()) <= _REMARK_WORDS


@dataclass(slots=True)
class _Draft:
    """A section while it is being read."""

    path: tuple[str, ...]
    dropped: bool
    blocks: list[str] = field(default_factory=list)
    quotes: list[Quote] = field(default_factory=list)
    cited: list[str] = field(default_factory=list)


class _Reader:
    """Walks a page once and fills drafts, facts, banners and notes."""

    def __init__(self, title: str) -> None:
        self.drafts = [_Draft((), False)]
        self.facts: list[Fact] = []
        self.facts_cited: list[str] = []
        self.banners: list[str] = []
        self.notes: dict[str, str] = {}  # id of a footnote → its text
        self.kind = ""
        self._title = title
        self._headings: list[tuple[int, str]] = []
        self._inline: list[str] = []  # text of the block being read
        self._lines: list[str] = []  # finished lines of the list being read
        self._lists = 0  # how many lists deep
        self._bullet = ""
        self._term = ""
        self._term_used = True
        self._open: set[int] = set()  # tables, and quotations that were none, around what is being read

    def read(self, root: Tag) -> None:
        stack: list[tuple[Tag, Iterator[object]]] = [(root, iter(root.contents))]
        while stack:
            tag, children = stack[-1]
            child = next(children, None)
            if child is None:
                stack.pop()
                if tag.name in BLOCKS:
                    self._leave(tag)
            elif isinstance(child, Tag):
                if self._enter(child):
                    stack.append((child, iter(child.contents)))
            elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):
                self._inline.append(child)
        self._flush()

    def _enter(self, tag: Tag) -> bool:
        """Take in the start of an element; whether to go on to what is inside it."""
        name = tag.name
        classes = classes_of(tag)
        if name == "br":
            self._inline.append(BREAK)
            return False
        if "portable-infobox" in classes:
            self.kind = self.kind or next((c[5:] for c in classes if c.startswith("type-")), "")
            self.facts += portable_facts(tag, self.facts_cited)
            return False
        if is_citation(tag):
            self.drafts[-1].cited += citation_ids(tag)
            return False
        if is_noise(tag):
            if any(BANNER_CLASS.fullmatch(c) for c in classes):
                self.banners.append(Gatherer(noise=False).add(tag).text)
            return False
        if name not in BLOCKS:
            return True
        self._flush()
        if name in HEADINGS:
            self._heading(HEADINGS[name], tag)
            return False
        if "references" in classes or "reflist" in classes or "references-small" in classes:
            self._footnotes(tag)
            return False
        if name == "table" and any(c.lower().startswith("infobox") for c in classes):
            self.facts += legacy_facts(tag, self.facts_cited)
            return False
        quoted = any(is_quote_class(c) for c in classes)
        if quoted or name in ("blockquote", "dl", "table"):
            # Each of these is read ahead to see what it is; nested without end that would take quadratic time.
            if len(self._open) < _DEEPEST:
                if (quoted or name != "table") and self._quote(tag, quoted):
                    return False
                if name == "table" and not self._table(tag, classes):
                    return False
            self._open.add(id(tag))
        if name in ("ul", "ol", "dl"):
            self._lists += 1
        elif name == "li":
            self._bullet = "• " if self._lists <= 1 else "◦ "
        return True

    def _leave(self, tag: Tag) -> None:
        name = tag.name
        if name == "dt":
            text = tidy("".join(self._inline)).replace("\n", " ").rstrip(": ")
            self._inline.clear()
            if text:
                self._term = text if self._term_used else f"{self._term} / {text}"
                self._term_used = False
            return
        self._flush()
        self._open.discard(id(tag))
        if name == "li":
            self._bullet = ""
        elif name in ("ul", "ol", "dl"):
            if name == "dl":
                if not self._term_used:
                    self._lines.append(self._term)
                self._term, self._term_used = "", True
            self._lists -= 1
            if self._lists == 0:
                self._add("\n".join(self._lines))
                self._lines.clear()

    def _add(self, block: str) -> None:
        if block:
            self.drafts[-1].blocks.append(block)

    def _flush(self) -> None:
        """Close the block being read."""
        if not self._inline:
            return
        text = tidy("".join(self._inline))
        self._inline.clear()
        if not text:
            return
        if self._lists:
            if self._term:
                text, self._term_used = f"{self._term}: {text}", True
            elif not self._bullet and _is_remark(text):
                return
            self._lines.append(self._bullet + text)
            self._bullet = ""
        elif not _is_remark(text):
            quote = as_quote(text.split("\n")) if "\n" in text and _SPEECH.match(text) else None
            if quote:
                self.drafts[-1].quotes.append(quote)
            else:
                self._add(text)

    def _heading(self, level: int, tag: Tag) -> None:
        text = re.sub(r"\s*\[\s*(?:edit[^\]]*)?\s*\]$", "", line_of(tag))
        if not text or (level == 1 and text == self._title):
            return
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()
        self._headings.append((level, text))
        path = tuple(heading for _, heading in self._headings)
        dropped = any(heading.casefold().rstrip(":") in _DROPPED_SECTIONS for heading in path)
        self.drafts.append(_Draft(path, dropped))

    def _footnotes(self, tag: Tag) -> None:
        for item in tag.find_all("li"):
            text = line_of(item).lstrip("↑^ ")
            if text:
                self.notes[str(item.attrs.get("id") or f"unnamed-{len(self.notes)}")] = text

    def _quote(self, tag: Tag, certain: bool) -> bool:
        """Take in a quote template; False if this is ordinary text after all."""
        if tag.name == "dl" and tag.find("dt"):
            return False
        gathered = Gatherer().add(tag)
        lines = gathered.text.split("\n") if gathered.text else []
        if tag.name == "dl" and lines and not (_SPEECH.match(lines[0]) or tag.find("i")):
            return False
        credit = tag.find(["cite", "footer"])
        quote = as_quote(lines, line_of(credit) if credit else "")
        if quote is None and certain and lines:
            quote = Quote(_unquoted(" ".join(lines)))
        if quote is None or len(quote.text.split()) > 400:
            return False
        self.drafts[-1].quotes.append(quote)
        self.drafts[-1].cited += gathered.cited
        return True

    def _table(self, table: Tag, classes: list[str]) -> bool:
        """Take in a table of data; True if it only lays text out, to be read like any other block."""
        rows = table_cells(table)
        header = any(cell.name == "th" for row in rows for cell in row)
        if not (header or {"wikitable", "article-table", "fandom-table"} & set(classes)):
            return not (rows and _is_remark(line_of(rows[0][0])))
        if self._lists == 0 and rows and table.find(list(HEADINGS)):
            return True
        lines = table_lines(rows)
        if lines and not _is_remark(lines[0]):
            caption = table.find("caption", recursive=False)
            lines = ([line_of(caption)] if caption else []) + lines
            lines = [line for line in lines if line]
            if self._lists:
                self._lines += lines
            else:
                self._add("\n".join(lines))
        return False


def _root(html: str) -> Tag | None:
    """The element that holds the article; None for markup that no parser takes."""
    text = html.encode("utf-8", "replace").decode().replace("\0", "")
    try:
        # The div: a bare word is not taken for a file name.  Class attributes stay strings: a fifth faster.
        soup = BeautifulSoup(f"<div>{text}</div>", "lxml", multi_valued_attributes=None)
    except (ParserRejectedMarkup, AssertionError):
        return None
    return soup.find(lambda tag: "mw-parser-output" in classes_of(tag)) or soup


def parse_page(page: Page) -> Article:
    """The article in a wiki page's rendered HTML (``action=parse``); broken HTML gives what could be read of it.

    Sections come in page order with empty ones left out, the infobox last, under ``FACTS_PATH``.  Never raises.
    """
    reader = _Reader(page.title)
    root = _root(page.html)
    if root is not None:
        reader.read(root)
    whole = canon.of_page(page.title, page.categories, reader.banners)
    sections = [
        Section(
            path=draft.path,
            text="\n\n".join(draft.blocks),
            canon=canon.of_path(draft.path, whole),
            quotes=tuple(draft.quotes),
            references=_references(reader, draft.cited),
        )
        for draft in _kept(reader.drafts)
    ]
    cited = _references(reader, reader.facts_cited)
    sections += facts_section(page.title, tuple(reader.facts), whole, cited)
    return Article(
        title=page.title,
        sections=tuple(sections),
        facts=tuple(reader.facts),
        categories=page.categories,
        aliases=page.aliases,
        canon=whole,
        kind=reader.kind,
    )


def _kept(drafts: list[_Draft]) -> list[_Draft]:
    """The drafts with text.  Quotes and footnotes of the others go to the next below them, or else the one before."""
    kept: list[_Draft] = []
    waiting: list[_Draft] = []
    for draft in drafts:
        if draft.dropped:
            continue
        if not draft.blocks:
            waiting.append(draft)
            continue
        for empty in reversed(waiting):
            if draft.path[: len(empty.path)] == empty.path or not kept:
                draft.quotes[:0], draft.cited[:0] = empty.quotes, empty.cited
            else:
                kept[-1].quotes += empty.quotes
                kept[-1].cited += empty.cited
        waiting = []
        kept.append(draft)
    for empty in waiting:
        if kept:
            kept[-1].quotes += empty.quotes
            kept[-1].cited += empty.cited
    return kept


def _references(reader: _Reader, cited: list[str]) -> tuple[str, ...]:
    """Texts of the cited footnotes, once each, in the order of citing."""
    return tuple(dict.fromkeys(reader.notes[note] for note in cited if note in reader.notes))
