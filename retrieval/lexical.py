"""BM25 over SQLite's FTS5 (Robertson & Zaragoza, "The Probabilistic Relevance Framework", 2009).

FTS5 ranks; this module turns whatever a reader typed into a query that cannot fail, and adds the one thing that BM25
does not know: that a question which does nothing but name an article ("who is Ciri?") is answered by its lead.

A question that asks more gets no bonus for the article it names.  It once did, and that cost every fifth question: what
is asked about Ciri stands as often in Geralt's article as in hers (docs/training-log.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from corpus.store import Store
from retrieval.names import Mention, Names
from retrieval.words import STOP_WORDS, clean, key, split

MAX_TERMS = 32
COLUMN_WEIGHTS = (1.5, 0.3, 1.0, 1.0)  # title, aliases, heading, body
NAMED = 0.3
"""Bonus of a passage whose article the question names and does nothing else, as a share of the best BM25 score."""
LEAD = 0.5
"""Further bonus of that article's lead."""
POOL = 200
"""Passages of the named articles that are scored with the bonuses."""

CANONS = ("books", "games", "tv")


@dataclass(frozen=True, slots=True)
class Query:
    """A question as the lexical search understands it.  ``text`` has misspelt names put right."""

    text: str
    terms: tuple[str, ...]  # folded words, no stop words, no repetitions
    mentions: tuple[Mention, ...]
    only_names: bool  # nothing is asked beyond the names themselves
    corrections: Mapping[str, str]  # old → new


def parse(question: str, names: Names) -> Query:
    """Any text at all, of any length, becomes a query; without words to search for its ``terms`` are empty."""
    text, corrections = names.correct(clean(question))
    words = split(text)
    mentions = names.mentions(words)
    inside = {at for mention in mentions for at in range(mention.start, mention.end)}
    outside = [word.text for at, word in enumerate(words) if at not in inside and not word.stop]
    # Names first, so that they survive the cut; what the archive spells otherwise ("scoia tael") also as it spells it.
    named = [word.text for at, word in enumerate(words) if at in inside and not word.stop]
    asked = {word.key for word in words} | STOP_WORDS
    spelt = [word for mention in mentions for word in mention.words if key(word) not in asked]
    terms = tuple(dict.fromkeys([*named, *spelt, *outside]))[:MAX_TERMS]
    return Query(text, terms, tuple(mentions[:MAX_TERMS]), bool(mentions) and not outside, corrections)


def search(
    store: Store, question: str | Query, k: int, canon: str | None = None, names: Names | None = None
) -> list[tuple[int, float]]:
    """The best ``k`` passages as (id, score), best first; scores are BM25 with bonuses, higher is better.

    ``canon`` keeps passages of that canon and those of none.  ``names`` saves building the names of the archive again.
    Equal scores are ordered by id.  Raises ``StoreError`` for a damaged archive, ``ValueError`` for an unknown canon.
    """
    check_canon(canon)
    query = question if isinstance(question, Query) else parse(question, names or Names.of(store))
    if not query.terms or k <= 0:
        return []
    # Everything from the question stands in double quotes and consists of letters and digits alone, so no character of
    # it can be read as an operator, a column or a wildcard.
    words = " OR ".join(_phrase([term]) for term in query.terms)
    found = {row["id"]: row for row in _match(store, words, canon, k)}
    named = _named(store, query) if query.only_names else {}
    if named:
        found |= {row["id"]: row for row in _match(store, words, canon, POOL, sorted(named))}
    top = max((row["bm25"] for row in found.values()), default=0.0)
    scores = [
        (id, row["bm25"] + top * named.get(row["page"], 0.0) * (NAMED + LEAD * (row["path"] == "[]")))
        for id, row in found.items()
    ]
    return sorted(scores, key=lambda pair: (-pair[1], pair[0]))[:k]


def _named(store: Store, query: Query) -> dict[int, float]:
    """Articles that the question names, each with the rarity of its name against the rarest name: (0, 1].

    "Letho the king" names Letho, and, where an article has that title, King; the bonus should go to Letho.
    """
    total = store.rows("SELECT count(*) AS n FROM passages")[0]["n"]
    if not total:
        return {}
    sql = "SELECT count(*) AS n FROM passages_fts WHERE passages_fts MATCH ?"
    rarity = [math.log1p(total / max(1, store.rows(sql, [_phrase(m.words)])[0]["n"])) for m in query.mentions]
    pages: dict[int, float] = {}
    for mention, value in zip(query.mentions, rarity, strict=True):
        for page in mention.pages:
            pages[page] = max(pages.get(page, 0.0), value / max(rarity))
    return pages


def check_canon(canon: str | None) -> None:
    """Raises ``ValueError`` for a canon that does not exist; None and "" stand for all of them."""
    if canon and canon not in CANONS:
        raise ValueError(f"canon must be one of {', '.join(CANONS)}, not {canon!r}")


def _phrase(words: Iterable[str]) -> str:
    return f'"{" ".join(words)}"'


def _match(
    store: Store, expression: str, canon: str | None, limit: int, pages: list[int] | None = None
) -> list[dict[str, Any]]:
    """Rows {id, page, path, bm25} of the best matches; FTS5's bm25 is negative, the better the smaller."""
    where, values = ["TRUE"], list[str | int]()
    if canon:
        where.append("p.canon IN (?, '')")
        values.append(canon)
    if pages:
        where.append(f"p.page IN ({','.join('?' * len(pages))})")
        values += pages
    weights = ", ".join(map(str, COLUMN_WEIGHTS))
    scores = f"SELECT rowid AS id, bm25(passages_fts, {weights}) AS score FROM passages_fts WHERE passages_fts MATCH ?"
    if not values:
        scores += f" ORDER BY score LIMIT {limit}"  # common words match half the archive: only the best are looked up
    # CROSS JOIN: full-text matches first, then their passages; the other way round would search once per passage.
    return store.rows(
        f"""SELECT p.id, p.page, p.path, -f.score AS bm25 FROM ({scores}) f CROSS JOIN passages p ON p.id = f.id
            WHERE {" AND ".join(where)} ORDER BY f.score, p.id LIMIT ?""",
        [expression, *values, limit],
    )
