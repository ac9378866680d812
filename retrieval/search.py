"""From a question to ranked passages: FTS5 and FAISS, fused by reciprocal rank, then read by the second stage."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from corpus.chunk import sentences
from corpus.store import Store, StoredPassage
from encoder import Candidate
from retrieval import fusion, lexical
from retrieval.index import PassageEncoder, VectorIndex
from retrieval.names import Names

DEPTH = 50
"""Passages taken from each ranking."""
WEIGHTS = (1.0, 0.85)
"""BM25 and dense, tuned on dev questions over the codex *and* over real wiki pages."""
ALIKE = 0.9
"""Passages that share this much of their word triples (Jaccard) are taken for copies; see ``distinct``."""
SECOND_WEIGHT = 0.03
"""Of the second stage's logit, added to the fused score.  Logits are trained in one softmax over all passages of a
question, so how far apart they are says something that their order does not; tuned as ``WEIGHTS``."""
SURE = 15.0  # logits beyond it say no more
MAX_QUERY = 1_000  # characters that the encoder is given; it would cut later anyway
CANDIDATES = 20
"""Passages that the second stage reads: what two cores read in some 150 ms."""


class QueryEncoder(PassageEncoder, Protocol):
    """What this module needs of ``encoder.Encoder``."""

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray: ...  # (n, dimension), unit length


class SecondStage(Protocol):
    """What this module needs of ``encoder.Reranker``."""

    def score(self, question: str, candidates: Sequence[Candidate]) -> list[np.ndarray]: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found, and what every stage thought of it; None where a stage did not find it."""

    passage: StoredPassage
    score: float  # what the hits are ordered by: reciprocal rank fusion, the second stage's logit included
    bm25: float | None = None
    bm25_rank: int | None = None  # from 1
    dense: float | None = None  # cosine
    dense_rank: int | None = None
    second: float | None = None  # of its best sentence, a logit against "none of them answers"
    second_rank: int | None = None
    sentences: tuple[tuple[int, int, float], ...] = field(default=(), repr=False)  # start, end, second-stage score


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, and how they came about.  ``timings``: milliseconds of lexical, encode, dense, fuse, second and total."""

    hits: list[Hit]
    timings: dict[str, float]
    corrections: dict[str, str] = field(default_factory=dict)  # misspelt name → the name searched for


class Searcher:
    """Searches one archive through one index.

    Names and canons are read once, when they are first needed: open a new ``Searcher`` after an ingest, together with
    the new index.  Safe to share between threads.
    """

    def __init__(
        self,
        store: Store,
        index: VectorIndex,
        encoder: QueryEncoder,
        *,
        second: SecondStage | None = None,
        depth: int = DEPTH,
        weights: tuple[float, float] = WEIGHTS,
    ) -> None:
        self.store, self.index, self.encoder, self.second = store, index, encoder, second
        self.depth, self.weights = depth, weights
        self.names = Names.of(store)
        self._allowed: dict[str, np.ndarray] = {}

    def search(self, question: str, k: int = 8, canon: str | None = None) -> list[Hit]:
        """The best ``k`` passages, best first.

        ``canon`` ("books", "games" or "tv") keeps passages of that canon and those of none: a lead, an infobox or a
        codex article mostly holds for every telling, and dropping them would take the plainest answers away from
        whoever names a canon.  What belongs to *another* canon is what the reader does not want, and that is left out.

        A question without any word gives []; one made of question words alone is searched by meaning only.  Copies
        and near-copies of a better passage are left out.  Equal scores are ordered by best rank, then by id.
        Raises ``ValueError`` for an unknown canon.
        """
        return self.search_timed(question, k, canon).hits

    def search_timed(self, question: str, k: int = 8, canon: str | None = None) -> Found:
        """As ``search``, with the time that each stage took and the spelling that was corrected."""
        lexical.check_canon(canon)
        clock = _Clock()
        query = lexical.parse(question, self.names)
        depth = max(self.depth, k)
        bm25 = lexical.search(self.store, query, depth, canon, self.names)
        clock.lap("lexical")
        dense = self._dense(query.text, depth, canon, clock) if re.search(r"\w", query.text) else []
        by_bm25, by_dense = dict(bm25), dict(dense)
        bm25_ranks, dense_ranks = fusion.ranks(list(by_bm25)), fusion.ranks(list(by_dense))
        fused = fusion.reciprocal_rank_fusion([list(by_bm25), list(by_dense)], self.weights)
        scores = dict(fused)
        wanted = max(k, CANDIDATES) if self.second else k
        # Thrice as many as wanted: enough to fill up after copies are dropped, and cheaper than reading them all.
        passages = self.store.passages(id for id, _ in fused[: 3 * wanted])
        hits = [
            Hit(
                passage,
                scores[passage.id],
                by_bm25.get(passage.id),
                bm25_ranks.get(passage.id),
                by_dense.get(passage.id),
                dense_ranks.get(passage.id),
            )
            for passage in distinct(passages, wanted)
        ]
        clock.lap("fuse")
        if self.second is not None:
            hits = self._read(query.text, hits)
            clock.lap("second")
        return Found(hits[:k], clock.done(), dict(query.corrections))

    def read(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """The hits with the second stage's scores, in the order given; as they are where there is no second stage."""
        if self.second is None or not hits:
            return list(hits)
        spans = [sentences(hit.passage.text) for hit in hits]
        candidates = [
            Candidate(hit.passage.heading, hit.passage.text, part) for hit, part in zip(hits, spans, strict=True)
        ]
        out = []
        for hit, part, scores in zip(hits, spans, self.second.score(question[:MAX_QUERY], candidates), strict=True):
            scored = tuple((a, b, float(score)) for (a, b), score in zip(part, scores, strict=True))
            best = max((score for _, _, score in scored), default=-np.inf)
            out.append(replace(hit, second=float(best), sentences=scored))
        return out

    def _read(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """Read, and order by the first stages' score and the second's logit."""
        read = self.read(question, hits)
        logits = np.clip(np.array([hit.second for hit in read], dtype=np.float64), -SURE, SURE)  # (n,)
        ranks = {int(i): rank for rank, i in enumerate(np.argsort(-logits, kind="stable"), 1)}
        read = [
            replace(hit, second_rank=ranks[i], score=hit.score + SECOND_WEIGHT * (SURE + float(logits[i])))  # never < 0
            for i, hit in enumerate(read)
        ]
        return sorted(read, key=lambda hit: -hit.score)

    def dense(self, question: str, k: int, canon: str | None = None) -> list[tuple[int, float]]:
        """Dense search alone: (id, cosine), best first; for evaluation."""
        lexical.check_canon(canon)
        return self._dense(lexical.parse(question, self.names).text, k, canon, _Clock())

    def _dense(self, text: str, k: int, canon: str | None, clock: _Clock) -> list[tuple[int, float]]:
        vectors = self.encoder.encode_queries([text[:MAX_QUERY]])  # (1, d)
        clock.lap("encode")
        cosines, ids = self.index.search(vectors, k, self._allowed_ids(canon))  # (1, k) each
        clock.lap("dense")
        return [(int(id), float(cosine)) for id, cosine in zip(ids[0], cosines[0], strict=True) if id >= 0]

    def _allowed_ids(self, canon: str | None) -> np.ndarray | None:
        if not canon:
            return None
        if canon not in self._allowed:
            rows = self.store.rows("SELECT id FROM passages WHERE canon IN (?, '') ORDER BY id", [canon])
            self._allowed[canon] = np.array([row["id"] for row in rows], dtype=np.int64)
        return self._allowed[canon]


def distinct(passages: Sequence[StoredPassage], k: int) -> list[StoredPassage]:
    """The first ``k`` passages that do not repeat one before them.

    Equal words are a copy.  Nearly equal words are one only within a canon and with the same numbers: what two canons
    or two swords differ in may be a single word of a shared phrasing, and that word may be the answer.
    """
    kept: list[StoredPassage] = []
    texts: set[tuple[str, ...]] = set()
    near: dict[tuple[str, frozenset[str]], list[set[tuple[str, ...]]]] = {}
    for passage in passages:
        if len(kept) >= k:
            break
        words = tuple(re.findall(r"\w+", passage.text.lower()))
        shingles = {words[at : at + 3] for at in range(max(1, len(words) - 2))}
        numbers = frozenset(word for word in words if any(letter.isdigit() for letter in word))
        others = near.setdefault((passage.canon, numbers), [])
        if words in texts or any(_jaccard(shingles, other) >= ALIKE for other in others):
            continue
        kept.append(passage)
        texts.add(words)
        others.append(shingles)
    return kept


def _jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    if min(len(a), len(b)) < ALIKE * max(len(a), len(b)):  # cannot reach it
        return 0.0
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


class _Clock:
    """Milliseconds of each stage since the stage before."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = (now - self._last) * 1000
        self._last = now

    def done(self) -> dict[str, float]:
        return self._laps | {"total": (time.perf_counter() - self._began) * 1000}
