"""What is asked side by side: the pipeline, the stack that people would assemble instead, a floor, and two bounds.

Each answers like ``Pipeline.ask``, so that ``app.evaluate`` scores all of them by the same rules.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from app import support
from app.answer import Answer, Citation, Draft, Final, Sentence
from app.carry import Turn
from app.evaluate import TOP, Item
from app.pipeline import Pipeline
from app.text import content, stems
from benchmarks import lm
from corpus.chunk import sentences
from corpus.store import Store
from retrieval import lexical
from retrieval.evaluate import Ranker
from retrieval.search import Found, Hit, Searcher

NOTHING_FOUND = "Nothing was found."


class Timed:
    """The pipeline, with the time to the first word that a reader sees among its timings (``first_word``)."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def ask(self, question: str, history: Sequence[Turn] = (), canon: str | None = None) -> Answer:
        began = time.perf_counter()
        first = 0.0
        for event in self.pipeline.stream(question, history, canon):
            if isinstance(event, Draft | Final) and not first:
                first = (time.perf_counter() - began) * 1000
            if isinstance(event, Final):
                return replace(event.answer, timings=event.answer.timings | {"first_word": first})
        raise AssertionError("a stream ends with its answer")


class Given:
    """The pipeline with passages handed to it in the place of its search: one list for each turn, in order.

    The right passages tell what evidence and answer make of a perfect search; none at all, whether they keep silent.
    """

    def __init__(self, pipeline: Pipeline, passages: Iterable[Iterable[int]]) -> None:
        inner = pipeline.searcher
        assert isinstance(inner, Searcher)
        self.search = _GivenSearch(inner)
        self.pipeline = Pipeline(pipeline.settings, pipeline.store, self.search, pipeline.encoder, pipeline.reader)
        self.passages = iter(passages)

    def ask(self, question: str, history: Sequence[Turn] = (), canon: str | None = None) -> Answer:
        stored = self.pipeline.store.passages(next(self.passages))
        self.search.hits = [Hit(passage, 1 / (1 + rank)) for rank, passage in enumerate(stored)]
        return self.pipeline.ask(question, history, canon)


class _GivenSearch:
    """Finds what it was given, whatever is asked."""

    def __init__(self, inner: Searcher) -> None:
        self.inner, self.names = inner, inner.names
        self.hits: list[Hit] = []

    def search_timed(self, question: str, k: int = 8, canon: str | None = None) -> Found:
        query = lexical.parse(question, self.names)  # names are spelt right by the search, so here too
        return Found(self.inner.read(query.text, self.hits), {}, dict(query.corrections))

    def read(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        return []  # the pipeline would add leads and infoboxes: nothing but the given passages is to be read


class BestSentence:
    """The floor, without any model: BM25, and of its first passages the sentence with most of the question's words.

    A word that only the heading holds counts half.  The confidence is the share of the question's words that it holds.
    """

    def __init__(self, store: Store, ranker: Ranker) -> None:
        self.store, self.ranker = store, ranker

    def ask(self, question: str, history: Sequence[Turn] = (), canon: str | None = None) -> Answer:
        began = time.perf_counter()
        hits = found(self.store, self.ranker, question)
        asked = {word.stem for word in content(question)}
        best: tuple[float, Hit | None, int, int] = (0.0, None, 0, 0)
        for hit in hits:
            heading = stems(hit.passage.heading)
            for start, end in sentences(hit.passage.text):
                own = stems(hit.passage.text[start:end])
                overlap = len(asked & own) + 0.5 * len(asked & (heading - own))
                if overlap > best[0]:  # of equals the one that BM25 likes better
                    best = (overlap, hit, start, end)
        overlap, chosen, start, end = best
        timings = {"total": (time.perf_counter() - began) * 1000}
        if chosen is None:
            return Answer(question, question, NOTHING_FOUND, True, 0.0, (), timings, "floor", hits=tuple(hits))
        sentence = Sentence(f"{chosen.passage.text[start:end]} [1]", 1)
        citation = Citation.of(1, chosen.passage, start, end, chosen.score)
        return Answer(
            question, question, sentence.text, False, min(1.0, overlap / max(1, len(asked))), (citation,), timings,
            "floor", sentences=(sentence,), hits=tuple(hits),
        )  # fmt: skip


class Writes(Protocol):
    """What is needed of ``benchmarks.peers.Peer``."""

    def stream(
        self, question: str, passages: Sequence[tuple[str, str]], max_new_tokens: int = lm.NEW_TOKENS
    ) -> Iterator[str]: ...


class Assembled:
    """What people would put together from parts: a ranking, and a small language model that reads its first passages.

    Scored generously: a sentence counts as borne when any of the passages bears it, cited or not, and any wording of
    "they do not say" as a decline.  It tells no confidence.
    """

    def __init__(self, store: Store, ranker: Ranker, writer: Writes, name: str) -> None:
        self.store, self.ranker, self.writer, self.name = store, ranker, writer, name

    def ask(self, question: str, history: Sequence[Turn] = (), canon: str | None = None) -> Answer:
        began = time.perf_counter()
        hits = found(self.store, self.ranker, question)
        text, first = "", 0.0
        for piece in self.writer.stream(question, [(hit.passage.heading, hit.passage.text) for hit in hits]):
            first = first or (time.perf_counter() - began) * 1000
            text += piece
        total = (time.perf_counter() - began) * 1000
        text = text.strip()
        timings = {"first_word": first or total, "total": total}
        if not text or lm._SILENT.search(text):
            return Answer(
                question, question, text or NOTHING_FOUND, True, 0.0, (), timings, self.name, hits=tuple(hits)
            )
        said: list[Sentence] = []
        cited: list[Citation] = []
        for claim in support.split(text)[0]:
            if not support.has_words(claim):
                continue
            at, verdict = borne_by(claim, hits)
            if verdict is None:
                said.append(Sentence(claim, 0))
                continue
            cited.append(Citation.of(len(cited) + 1, hits[at].passage, verdict.start, verdict.end, hits[at].score))
            said.append(Sentence(claim, len(cited)))
        return Answer(
            question, question, text, False, 0.0, tuple(cited), timings, self.name,
            sentences=tuple(said), hits=tuple(hits),
        )  # fmt: skip


def borne_by(sentence: str, hits: Sequence[Hit]) -> tuple[int, support.Verdict | None]:
    """The first of the hits that bears a sentence, and where; (-1, None) when none does."""
    claim = support.claim_of(sentence)
    for at, hit in enumerate(hits):
        verdict = support.supported(claim, hit.passage)
        if verdict.ok:
            return at, verdict
    return -1, None


def found(store: Store, ranker: Ranker, question: str) -> list[Hit]:
    """The ranking's first passages."""
    passages = store.passages(list(ranker(question))[:TOP])
    return [Hit(passage, 1 / (1 + rank)) for rank, passage in enumerate(passages)]


def alone(items: Sequence[Item]) -> list[Item]:
    """The same questions with follow-ups as their files rewrite them, for those that cannot rewrite by themselves."""
    return [
        replace(
            item,
            turns=tuple(replace(turn, question=str(turn.extra.get("rewrite") or turn.question)) for turn in item.turns),
        )
        for item in items
    ]
