"""Training conversations: the row that every generator writes, the passages it is built from, and its distractors.

A row is one line of JSON::

    {"passages": [[heading, text], …], "turns": [["user", …], ["assistant", …], …], "answer": "… [n].", "kind",
     "query", "article", "source"}

``lm.tune`` reads the first three.  ``query`` is the last question worded so that it stands alone ("" where there is
nothing to retrieve), from which ``merge --pairs`` makes what ``encoder.contrastive`` reads; ``article`` is the title
that decides the split, ``source`` the address to credit.  Earlier answers in ``turns`` carry no citations, since their
passages are gone.  Only articles of the train split are used, as evidence and as distractors alike.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from corpus import chunk, codex
from corpus.chunk import trim
from corpus.errors import CorpusError
from corpus.grounded import DECLINE
from corpus.question_format import folded
from corpus.split import split_of
from corpus.store import Store, StoredPassage, fold
from corpus.types import FACTS_PATH, Article

Row = dict[str, Any]
Turns = tuple[tuple[str, str], ...]

_STOPWORDS = (
    "a an the and or but nor of in on at to from by with for as into onto about between among during before after is "
    "are was were be been being am do does did done has have had having will would can could shall should may might "
    "must it its he she him her his hers they them their theirs we us our you your i me my this that these those there "
    "here who whom whose which what when where why how if then than so such too very also just only both each not no "
    "yes off down own while through because until against tell me know explain describe please one some any all more "
    "most other same up out over under again"
)
STOPWORDS = frozenset(_STOPWORDS.split())
_COUNTING = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
COUNTING = {word: str(number) for number, word in enumerate(_COUNTING.split(), 1)}
"""Numbers that a text may write either way."""
_DIGITS = {digits: word for word, digits in COUNTING.items()}

_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
QUERY_WORDS = 16  # of a question, for BM25; more only makes it slower


class InstructError(CorpusError):
    """What stops a run of ``corpus.instruct``; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question with its answer and evidence, before passages are put around it."""

    turns: Turns  # ends with the user's question
    answer: str  # without citations
    evidence: tuple[StoredPassage, ...]  # cited in this order
    anchors: tuple[str, ...]  # the piece of each evidence passage that must survive trimming
    kind: str
    query: str
    article: str
    gives: tuple[str, ...] = ()  # a passage with one of these answers the question; () where that cannot be told
    never_decline: bool = False
    cited: bool = True  # False where ``answer`` holds its citations as ``[0]`` for the only evidence


@dataclass(frozen=True, slots=True)
class Shape:
    """How rows are built; lengths in words."""

    words: int = 90  # of a passage at most; lm.tune reads about 450 tokens
    distractors: int = 3  # at most
    unanswerable: float = 0.12  # share of the rows whose evidence is taken away


DEFAULT = Shape()


def telltales(value: str, title: str, other_names: Iterable[str] = ()) -> tuple[str, ...]:
    """What gives ``value`` away: its names and numbers, or its content words where it has neither.

    Words of ``title`` do not count, since every passage of the article may hold them.  Matched by ``gives_away``,
    which is generous: a passage too many is only a distractor lost.
    """
    own = set(folded(title).split())
    found: dict[str, None] = {}
    for text in (value, *other_names):
        tokens = [token for token in _TOKEN.findall(text) if token.casefold() not in STOPWORDS]
        named = [t for t in tokens if t[0].isupper() or t[0].isdigit() or t.casefold() in COUNTING]
        named = [t for t in named if not set(folded(t).split()) <= own]
        for token in named or [t for t in tokens if len(t) > 2 and not set(folded(t).split()) <= own]:
            for word in folded(token).split():
                found[word] = None
                if twin := COUNTING.get(word) or _DIGITS.get(word):
                    found[twin] = None
    return tuple(found)


def gives_away(heading: str, text: str, telling: Sequence[str]) -> bool:
    """Whether a passage holds any of ``telling`` (folded words); long words also match in another ending."""
    words = folded(f"{heading}\n{text}")
    for tell in telling:
        if len(tell) > 5 and tell.isalpha():
            tell = tell[: max(5, len(tell) - 2)]
            if f" {tell}" in words:
                return True
        elif f" {tell} " in words or f" {tell}s " in words:
            return True
    return False


class Bank:
    """The train split of an archive: its pages, their passages, BM25 over them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        reserved = _reserved_names()
        aliases: dict[int, list[str]] = {}
        for row in store.rows("SELECT page, alias FROM aliases ORDER BY page, alias"):
            aliases.setdefault(row["page"], []).append(row["alias"])
        self.titles: dict[int, str] = {}
        for row in store.rows("SELECT id, source, title FROM pages ORDER BY source, title, id"):
            names = {folded(name) for name in (row["title"], *aliases.get(row["id"], ()))}
            # The same subject under another title: a wiki's “Cirilla” must not teach what the codex's “Ciri” tests.
            if split_of(row["title"]) == "train" and not (row["source"] != "codex" and names & reserved):
                self.titles[row["id"]] = row["title"]
        self.left_out = store.counts()["pages"] - len(self.titles)
        self._aliases = {page: tuple(aliases.get(page, ())) for page in self.titles}
        self.page_of: dict[str, int] = {}
        for page, title in self.titles.items():
            for name in (title, *self._aliases[page]):
                self.page_of.setdefault(folded(name), page)
        self._passages = lru_cache(maxsize=512)(self._read_passages)
        self._ids: list[int] = []

    def other_names(self, value: str) -> tuple[str, ...]:
        """Every name of the page that ``value`` names; () if it names none."""
        page = self.page_of.get(folded(value))
        return () if page is None else (self.titles[page], *self._aliases[page])

    def names(self, page: int) -> tuple[str, ...]:
        return (self.titles[page], *self._aliases[page])

    def article(self, page: int) -> Article:
        article = self.store.article(page)
        assert article is not None, "pages are not deleted while rows are made"
        return article

    def passages(self, page: int) -> tuple[StoredPassage, ...]:
        """A page's passages in reading order."""
        return self._passages(page)

    def _read_passages(self, page: int) -> tuple[StoredPassage, ...]:
        rows = self.store.rows('SELECT id FROM passages WHERE page = ? ORDER BY section, start, "end", id', [page])
        return tuple(self.store.passages(row["id"] for row in rows))

    def passage_ids(self) -> list[int]:
        """Ids of all train passages, ascending; ids are hashes, so a beginning of the list is a fair sample."""
        if not self._ids:
            rows = self.store.rows("SELECT id, page FROM passages ORDER BY id")
            self._ids = [row["id"] for row in rows if row["page"] in self.titles]
        return self._ids

    def search(self, query: str, k: int) -> list[StoredPassage]:
        """The ``k`` best train passages by BM25, best first; equal ones by id."""
        words = [w for w in re.findall(r"\w+", fold(query)) if w.casefold() not in STOPWORDS]
        if not words:
            return []
        match = " OR ".join(f'"{word}"' for word in dict.fromkeys(words[:QUERY_WORDS]))
        # More than k are read, because some may belong to other splits.
        rows = self.store.rows(
            "SELECT f.rowid AS id, p.page FROM passages_fts f JOIN passages p ON p.id = f.rowid "
            "WHERE passages_fts MATCH ? ORDER BY bm25(passages_fts), f.rowid LIMIT ?",
            [match, 2 * k + 10],
        )
        return self.store.passages([row["id"] for row in rows if row["page"] in self.titles][:k])


@lru_cache(maxsize=1)
def _reserved_names() -> frozenset[str]:
    """Titles and aliases of the codex's dev and test articles, folded."""
    try:
        held = [page for page in codex.load() if split_of(page.title) != "train"]
    except codex.CodexError:
        return frozenset()
    return frozenset(folded(name) for page in held for name in (page.title, *page.aliases))


@contextmanager
def open_bank(data: Path | None, folder: Path) -> Iterator[Bank]:
    """The archive under ``data``, or without one an archive of the codex in ``folder``, made for the occasion.

    Raises InstructError when there is nothing to read, StoreError or CodexError for what cannot be read.
    """
    if data is not None:
        path = data / "archive.sqlite"
        if not path.is_file():
            raise InstructError(f"There is no archive in {data}: run `python app.py --ingest --data {data}` first.")
        with Store(path) as store:
            yield _checked(store)
        return
    with (
        tempfile.TemporaryDirectory(prefix="cirilla-instruct-") as scratch,
        Store(Path(scratch) / "archive.sqlite") as store,
    ):
        store.db.execute("PRAGMA synchronous = OFF")  # thrown away at the end
        for page in codex.load(folder):
            if split_of(page.title) == "train":
                article = codex.parse_page(page)
                store.replace_page(page, article, chunk.passages(article))
        yield _checked(store)


def _checked(store: Store) -> Bank:
    bank = Bank(store)
    if not bank.titles:
        raise InstructError(f"{store.path} holds no article of the train split.")
    return bank


def assemble(candidate: Candidate, bank: Bank, rng: random.Random, shape: Shape) -> Row | None:
    """The row: evidence among distractors, numbered and cited, or the evidence taken away and the answer a decline.

    No distractor answers the question (``Candidate.gives``).  None where the evidence was to be taken away and nothing
    would be left to read, or where trimming would lose it.
    """
    telling = candidate.gives
    decline = bool(telling) and not candidate.never_decline and rng.random() < shape.unanswerable
    kept: list[list[str]] = []
    for passage, anchor in zip(candidate.evidence, candidate.anchors, strict=True):
        if decline:
            if (rest := _without(passage, anchor, shape.words)) and not gives_away(*rest, telling):
                kept.append(list(rest))
        else:
            # What sums a passage up rests on all of it.
            text = anchor if anchor == passage.text else trim(passage.text, anchor, shape.words)
            if anchor not in text:
                return None
            kept.append([passage.heading, text])
    # Half of the declines keep what is left of the evidence passage, half have other passages alone.
    shown = kept if not decline or rng.random() < 0.5 else []
    wanted = rng.randint(1, shape.distractors) if shape.distractors else 0
    if any(len(text.split()) > shape.words for _, text in kept):
        wanted = min(wanted, 1)  # leave the long one its room
    others = _distractors(candidate, bank, rng, shape, wanted + (1 if decline and not shown else 0))
    if decline:
        shown = [*shown, *others]
        rng.shuffle(shown)
        answer = DECLINE
        if not shown:
            return None
    else:
        places = sorted(rng.sample(range(len(kept) + len(others)), len(kept)))
        rng.shuffle(order := list(range(len(kept))))
        shown = list(others)
        numbers = [0] * len(kept)
        for place, which in zip(places, order, strict=True):
            shown.insert(place, kept[which])
            numbers[which] = place + 1
        if candidate.cited:
            marks = "".join(f"[{number}]" for number in numbers)
            answer = f"{candidate.answer.rstrip().rstrip('.')} {marks}."
        else:
            answer = candidate.answer.replace("[0]", f"[{numbers[0]}]") if numbers else candidate.answer
    return {
        "passages": shown,
        "turns": [list(turn) for turn in candidate.turns],
        "answer": answer,
        "kind": candidate.kind,
        "query": "" if decline else candidate.query,
        "article": candidate.article,
        "source": candidate.evidence[0].url if candidate.evidence else "",
    }


def _without(passage: StoredPassage, anchor: str, words: int) -> tuple[str, str] | None:
    """Heading and text of a passage from which the sentences of ``anchor`` are cut; None if too little is left."""
    place = passage.text.find(anchor)
    if place < 0:
        return None
    spans = [s for s in chunk.sentences(passage.text) if s[1] <= place or s[0] >= place + len(anchor)]
    joint = "\n" if passage.path == FACTS_PATH else " "
    rest = joint.join(passage.text[a:b] for a, b in spans)
    return (passage.heading, trim(rest, "", words)) if len(rest.split()) >= 8 else None


def _distractors(candidate: Candidate, bank: Bank, rng: random.Random, shape: Shape, wanted: int) -> list[list[str]]:
    """Passages that look like the answer and are not: one of the same article where there is one, the rest by BM25."""
    taken = {passage.id for passage in candidate.evidence}
    places = {(passage.page, passage.section) for passage in candidate.evidence}
    found: list[list[str]] = []

    def offer(passage: StoredPassage) -> None:
        if passage.id in taken or (not candidate.gives and (passage.page, passage.section) in places):
            return
        taken.add(passage.id)
        spans = chunk.sentences(passage.text)
        if not spans:
            return
        start, end = spans[rng.randrange(len(spans))]
        text = trim(passage.text, passage.text[start:end], shape.words)
        if len(text.split()) < 8 or gives_away(passage.heading, text, candidate.gives):
            return
        if any(anchor in text for anchor in candidate.anchors):
            return
        found.append([passage.heading, text])

    if wanted and candidate.evidence and rng.random() < 0.6:
        near = list(bank.passages(candidate.evidence[0].page))
        rng.shuffle(near)
        for passage in near:
            if found:
                break
            offer(passage)
    for passage in bank.search(candidate.query or candidate.turns[-1][1], 4 * wanted + 8) if wanted else []:
        if len(found) >= wanted:
            break
        offer(passage)
    if not found and not candidate.evidence:  # a question with no word of ours: any passage fails to answer it
        for passage in bank.store.passages(rng.sample(bank.passage_ids(), min(wanted, len(bank.passage_ids())))):
            offer(passage)
    return found[:wanted]


def dump(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


@dataclass(slots=True)
class Tally:
    """Counts by kind or reason, in the order they first came."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, n: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + n

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {n:,}" for name, n in sorted(self.counts.items(), key=lambda item: -item[1]))
