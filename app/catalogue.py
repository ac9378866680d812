"""The archive's articles as a reader sees them: a list to browse and search, one article whole, and facts about it all.

The list is held in memory (a few hundred bytes an article), because a page's raw text lies in the same SQLite row as
its kind and canon: filtering 8,000 of them there would read the whole file each time.  It is made again when the
pipeline has been given a new index.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.render import CANONS, badge, escape, link, marked
from corpus.store import Store
from corpus.types import FACTS_PATH, Article, Section
from retrieval import lexical
from retrieval.words import clean, key

if TYPE_CHECKING:
    from app.pipeline import Pipeline

FOUND = 200  # passages that a full-text search may bring
PER_PAGE = 25
OTHER = "#"  # the "letter" of titles that begin with none from A to Z


@dataclass(frozen=True, slots=True)
class Entry:
    """One article in the list."""

    id: int  # pages.id
    title: str
    source: str
    kind: str
    canon: str
    letter: str  # A–Z or ``OTHER``
    folded: str  # the title as ``retrieval.words.key`` spells it
    aliases: tuple[tuple[str, str], ...] = ()  # (folded, as written)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a reader asked for; empty strings ask for everything."""

    query: str = ""
    source: str = ""
    kind: str = ""
    canon: str = ""
    letter: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """An article in a result, with what it was found by: "" for its title, an alias, or "text"."""

    entry: Entry
    by: str = ""


@dataclass(frozen=True)
class Catalogue:
    """All articles of an archive, by title."""

    entries: tuple[Entry, ...]
    by_id: dict[int, Entry] = field(repr=False)

    @classmethod
    def of(cls, store: Store) -> Catalogue:
        """One pass over the archive: about half a second for 8,000 wiki pages."""
        aliases: dict[int, list[tuple[str, str]]] = {}
        for row in store.rows("SELECT page, alias FROM aliases ORDER BY page, alias"):
            aliases.setdefault(row["page"], []).append((key(row["alias"]), row["alias"]))
        entries = []
        for row in store.rows("SELECT id, title, display_title, source, kind, canon FROM pages"):
            title = row["display_title"] or row["title"]
            folded = key(title)
            first = next((letter for letter in folded if letter.isalnum()), "")
            letter = first.upper() if "a" <= first <= "z" else OTHER
            names = aliases.get(row["id"], [])
            if row["title"] != title:
                names = [*names, (key(row["title"]), row["title"])]
            entries.append(
                Entry(row["id"], title, row["source"], row["kind"], row["canon"], letter, folded, tuple(names))
            )
        entries.sort(key=lambda entry: (entry.letter == OTHER, entry.folded, entry.source))
        return cls(tuple(entries), {entry.id: entry for entry in entries})

    def values(self, name: str) -> list[str]:
        """The values that a field of ``Entry`` takes, sorted, without the empty one."""
        return sorted({getattr(entry, name) for entry in self.entries} - {""})

    def find(self, wanted: Filter, store: Store, names: Any) -> list[Listed]:
        """Articles that pass the filter.  With a query: titles and aliases that begin so, then those with a word that
        does, then articles whose text matches, best first; else all by title.  Raises ``StoreError``."""
        query = clean(wanted.query)
        if not query:
            return [Listed(entry) for entry in self.entries if _passes(entry, wanted)]
        folded = key(query)
        ranked: dict[int, tuple[int, Listed]] = {}
        for entry in self.entries:
            rank, by = _match(entry, folded)
            if rank is not None:
                ranked[entry.id] = (rank, Listed(entry, by))
        named = [listed for _, listed in sorted(ranked.values(), key=lambda pair: pair[0])]
        hits = [id for id, _ in lexical.search(store, query, FOUND, wanted.canon or None, names)]
        pages = {row["id"]: row["page"] for row in _pages(store, hits)}
        found = dict.fromkeys(pages[id] for id in hits if id in pages)
        text = [Listed(self.by_id[page], "text") for page in found if page in self.by_id and page not in ranked]
        return [listed for listed in [*named, *text] if _passes(listed.entry, wanted)]


def _pages(store: Store, ids: Sequence[int]) -> list[dict[str, Any]]:
    return (
        store.rows(f"SELECT id, page FROM passages WHERE id IN ({','.join('?' * len(ids))})", list(ids)) if ids else []
    )


def _passes(entry: Entry, wanted: Filter) -> bool:
    return all(
        not asked or asked == held
        for asked, held in (
            (wanted.source, entry.source),
            (wanted.kind, entry.kind),
            (wanted.canon, entry.canon),
            (wanted.letter, entry.letter),
        )
    )


def _match(entry: Entry, folded: str) -> tuple[int | None, str]:
    """How well a name of the article begins with the words sought: 0 is best, None not at all; and which alias."""
    if entry.folded.startswith(folded):
        return (0 if entry.folded == folded else 1), ""
    for name, shown in entry.aliases:
        if name.startswith(folded):
            return (0 if name == folded else 2), shown
    if f" {folded}" in entry.folded:
        return 3, ""
    return next(((4, shown) for name, shown in entry.aliases if f" {folded}" in name), (None, ""))


class Catalogues:
    """The catalogue of the index that a pipeline answers from, made when first needed."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._lock = threading.Lock()
        self._held: tuple[Any, Catalogue] | None = None

    def get(self) -> Catalogue:
        """Raises ``StoreError`` for a damaged archive."""
        with self._lock:
            searcher = self.pipeline.searcher  # a reload puts another one there
            if self._held is None or self._held[0] is not searcher:
                self._held = (searcher, Catalogue.of(self.pipeline.store))
            return self._held[1]


# -- one article ---------------------------------------------------------------------------------------------------


Place = tuple[int, int, int]
"""A stretch of an article: the section's ordinal, and where in its text it begins and ends."""


def article_html(store: Store, page: int, quote: Place | None = None) -> str:
    """An article with all that is known of it; a sentence when it is gone.

    With a quote it is marked, and the title is what a dialog is named by.  Raises ``StoreError``.
    """
    article = store.article(page)
    rows = store.rows(
        "SELECT g.source, g.title, g.display_title, g.revid, g.url, g.revised_at, g.fetched_at, "
        "s.site_name, s.rights, s.rights_url FROM pages g JOIN sources s ON s.id = g.source WHERE g.id = ?",
        [page],
    )
    if article is None or not rows:
        return '<p role="status">This article is no longer in the archive.</p>'
    row = rows[0]
    names = [each["alias"] for each in store.rows("SELECT alias FROM aliases WHERE page = ? ORDER BY alias", [page])]
    kind = f'<span class="badge">{escape(article.kind)}</span> ' if article.kind else ""
    known_as = f"<p><b>Also known as:</b> {escape(', '.join(names))}</p>" if names else ""
    top, mark = (2, ' id="article-title"') if quote else (3, ' tabindex="-1"')
    body, table = "", _facts(article)
    for ordinal, part in enumerate(article.sections):
        marked_here = quote[1:] if quote and quote[0] == ordinal else None
        if part.path == FACTS_PATH and article.facts:
            if marked_here is None:
                continue
            table = ""  # what is quoted are the facts as sentences
        body += _section(part, top, marked_here)
    shown = escape(row["display_title"] or row["title"])
    return (
        f'<article class="article" aria-label="{shown}"><h{top}{mark}>{shown}</h{top}>'
        f"<p>{kind}{badge(article.canon)}</p>{known_as}{table}{body}<footer>{_origin(row)}</footer></article>"
    )


def _canon(canon: str) -> str:
    return CANONS.get(canon, "")


def _facts(article: Article) -> str:
    if not article.facts:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(fact.label)}</th><td>{escape("; ".join(fact.values))}'
        f"{f' <i>({_canon(fact.canon)})</i>' if fact.canon else ''}</td></tr>"
        for fact in article.facts
    )
    return f'<table><caption class="visually-hidden">Facts</caption><tbody>{rows}</tbody></table>'


def _section(part: Section, top: int, quote: tuple[int, int] | None) -> str:
    """A section below a title of level ``top``, ``part.text[start:end]`` marked."""
    level = min(6, top + len(part.path))
    heading = f"<h{level}>{escape(part.path[-1])} {badge(part.canon)}</h{level}>" if part.path else ""
    quotes = "".join(
        f"<blockquote>{escape(quote.text)}{f'<br>— {escape(quote.attribution)}' if quote.attribution else ''}"
        "</blockquote>"
        for quote in part.quotes
    )
    text = "".join(f"<p>{paragraph}</p>" for paragraph in _paragraphs(part.text, quote))
    notes = ""
    if part.references:
        items = "".join(f"<li>{escape(reference)}</li>" for reference in part.references)
        notes = f"<details><summary>References</summary><ol>{items}</ol></details>"
    return heading + quotes + text + notes


def _paragraphs(text: str, quote: tuple[int, int] | None) -> Iterator[str]:
    """A text's paragraphs as HTML; a quote that spans several has a mark in each of them."""
    at = 0
    for paragraph in text.split("\n\n"):
        start, at = at, at + len(paragraph) + 2
        if not paragraph.strip():
            continue
        if quote is None:
            yield escape(paragraph)
            continue
        first, last = max(0, quote[0] - start), min(len(paragraph), quote[1] - start)
        is_place = quote[0] == quote[1] and first == last  # an empty quote says where a passage begins
        yield marked(paragraph, first, last) if first < last or is_place else escape(paragraph)


def _origin(row: dict[str, Any]) -> str:
    """Where an article comes from: source, revision with its date and address, when it was fetched, licence."""
    said = [escape(row["site_name"] or row["source"])]
    date = f" of {row['revised_at'][:10]}" if row["revised_at"] else ""
    address = link(row["url"], f"revision {row['revid']}{date}")
    said.append(address or "part of this project")
    if row["fetched_at"]:
        said.append(f"fetched {escape(row['fetched_at'][:10])}")
    if row["rights"]:
        said.append("licence: " + (link(row["rights_url"], row["rights"]) or escape(row["rights"])))
    return " · ".join(said)


# -- facts about the whole -----------------------------------------------------------------------------------------


def index_html(pipeline: Pipeline) -> str:
    """What the archive and its index hold and are made of.  Raises ``StoreError``."""
    store, settings = pipeline.store, pipeline.settings
    counts = store.counts()
    rows = [
        ("Articles", f"{counts['pages']:,}"),
        ("Passages", f"{counts['passages']:,}"),
        ("Facts from infoboxes", f"{counts['facts']:,}"),
        ("Other names", f"{counts['aliases']:,}"),
    ]
    manifest = getattr(getattr(pipeline.searcher, "index", None), "manifest", None)
    if manifest is not None:
        rows += [
            ("Index built", manifest.created.replace("T", " ").replace("+00:00", " UTC")),
            (
                "Vectors",
                f"{manifest.count:,} of {manifest.dimension} dimensions, {_size(manifest.bytes)} ({manifest.kind})",
            ),
            ("Index hash", manifest.sha256[:16]),
        ]
    files = [settings.archive, settings.archive.with_name(settings.archive.name + "-wal")]
    rows.append(("Archive on disk", _size(sum(path.stat().st_size for path in files if path.exists()))))
    rows.append(("Encoder", str(getattr(pipeline.encoder, "model_hash", "unknown"))))
    rows.append(("Second stage", second_stage_name(pipeline)))
    rows.append(("Decoder", decoder_name(pipeline)))
    cells = "".join(f'<tr><th scope="row">{name}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in (
            "source", "articles", "oldest revision", "newest revision", "newest copy", "last whole ingest", "licence"
        )
    )  # fmt: skip
    sources = "".join(_source(store, row) for row in _sources(store))
    return (
        f'<div class="archive"><table><caption>Archive and index</caption><tbody>{cells}</tbody></table>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Sources"><table><caption>Sources</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{sources}</tbody></table></div></div>"
    )


def _sources(store: Store) -> list[dict[str, Any]]:
    return store.rows(
        """SELECT s.*, count(g.id) AS pages, max(g.fetched_at) AS copied
           FROM sources s LEFT JOIN pages g ON g.source = s.id GROUP BY s.id ORDER BY s.id"""
    )


def _source(store: Store, row: dict[str, Any]) -> str:
    name = link(row["base_url"], row["site_name"] or row["id"]) or escape(row["site_name"] or row["id"])
    licence = link(row["rights_url"], row["rights"]) or escape(row["rights"] or "not stated")
    revisions = "".join(f"<td>{_revision(store, row['id'], order)}</td>" for order in ("ASC", "DESC"))
    dates = "".join(f"<td>{escape((row[field] or '–')[:10])}</td>" for field in ("copied", "last_run"))
    return f"<tr><td>{name}</td><td>{row['pages']:,}</td>{revisions}{dates}<td>{licence}</td></tr>"


def _revision(store: Store, source: str, order: str) -> str:
    """The date of a source's oldest ("ASC") or newest ("DESC") revision, a link to it; a dash for the codex."""
    rows = store.rows(
        f"SELECT revised_at, url FROM pages WHERE source = ? AND revised_at > '' ORDER BY revised_at {order} LIMIT 1",
        [source],
    )
    return next((link(row["url"], row["revised_at"][:10]) or escape(row["revised_at"][:10]) for row in rows), "–")


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def decoder_name(pipeline: Pipeline) -> str:
    """Who phrases answers: the hash of the decoder's weights, as the encoder's is made, or what replaces it."""
    if pipeline.reader is None:
        return "none: evidence is quoted"
    if pipeline.settings.lm_url:
        return pipeline.reader.name
    from lm import files

    folder = Path(pipeline.settings.lm_weights)
    try:
        return _hash_now([*files.weight_files(folder), folder / files.CONFIG, folder / files.TOKENIZER])
    except (OSError, ValueError, KeyError, TypeError):  # gone or damaged since the reader was opened
        return pipeline.reader.name


def second_stage_name(pipeline: Pipeline) -> str:
    """The hash of the second stage's weights, as the encoder's is made."""
    if getattr(pipeline.searcher, "second", None) is None:
        return "none"
    from encoder import files, reranker

    folder = Path(pipeline.settings.reranker_weights)
    try:
        return _hash_now(folder / name for name in (files.WEIGHTS, reranker.WEIGHTS, files.CONFIG, files.TOKENIZER))
    except OSError:
        return "unknown"


def _hash_now(paths: Iterable[Path]) -> str:
    states = [(path, path.stat()) for path in paths]
    return _hash(tuple((path, state.st_mtime_ns, state.st_size) for path, state in states))


@lru_cache(maxsize=4)
def _hash(states: tuple[tuple[Path, int, int], ...]) -> str:
    """By path, time and size, since hashing takes a second and the page asks often."""
    from encoder.files import hash_of

    return hash_of(path for path, *_ in states)
