"""From a question to an answer that shows its sources.

``Pipeline.stream`` reads top to bottom as the design's picture does: question → stand-alone question → search →
evidence → enough? → draft, sentence by sentence, each checked against its passage before anyone sees it → answer.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from app import evidence as ev
from app import followup, support
from app.answer import SILENT, Answer, Citation, Draft, Event, Final, Sentence, Status
from app.errors import NothingIndexed
from app.followup import Turn
from app.question import Question, Vocabulary, analyse
from app.settings import Settings
from app.text import clip, words
from corpus.store import Store, StoredPassage
from retrieval.names import Names
from retrieval.search import Found, Hit
from retrieval.words import clean, split

if TYPE_CHECKING:
    from lm.reader import TracedToken

RELEVANT = 0.15  # a draft's sentence must rest on evidence whose share is at least this part of the best one's
SECOND = 0.35  # a second sentence is quoted when its share is at least this part of the first's
EMPTY = "Ask me something about the world of the Witcher, for example: Who is Ciri's mother?"
CARRY = 0.05  # confidence by which a reading that carries the last subject over must be better to be believed
PRONOUN_START = re.compile(r"^(?:he|she|it|they|his|her|their|its|this|these|both)\b", re.I)


Length = Literal["short", "normal", "long"]


class Search(Protocol):
    """What the pipeline needs of ``retrieval.search.Searcher``."""

    names: Names

    def search_timed(self, question: str, k: int = 8, canon: str | None = None) -> Found: ...

    def read(self, question: str, hits: Sequence[Hit]) -> list[Hit]: ...


@runtime_checkable
class Reader(Protocol):
    """What the pipeline needs of ``lm.reader.Reader``."""

    name: str

    def stream(
        self,
        question: str,
        passages: Sequence[tuple[str, str]],
        history: Sequence[tuple[str, str]] = (),
        max_new_tokens: int = 96,
        trace: list[TracedToken] | None = None,
    ) -> Iterator[str]: ...


class Pipeline:
    """Everything that answers, loaded once.  One question at a time: callers queue."""

    def __init__(
        self, settings: Settings, store: Store, searcher: Search, encoder: ev.SentenceEncoder, reader: Reader | None
    ) -> None:
        self.settings, self.store, self.searcher, self.encoder, self.reader = settings, store, searcher, encoder, reader
        self.vocabulary = Vocabulary.of(store)

    @classmethod
    def open(cls, settings: Settings) -> Pipeline:
        """Load the archive, the index and the models.

        Raises:
            StoreError, IndexMissing, IndexMismatch, IndexDamaged, EncoderError, LMError: with the remedy.
            NothingIndexed: when the archive is empty.
        """
        from encoder import Encoder, Reranker
        from retrieval.index import VectorIndex
        from retrieval.search import Searcher

        if not settings.archive.exists():
            raise NothingIndexed(f"There is no archive in {settings.data}: run `python app.py --ingest` to make one.")
        store = Store(settings.archive)
        encoder = Encoder.load(settings.encoder_weights)
        index = VectorIndex.open(settings.index, encoder)
        if not len(index):
            raise NothingIndexed(f"The index in {settings.index} is empty: run `python app.py --ingest` to fill it.")
        second = Reranker.load(settings.reranker_weights) if settings.second_stage else None
        reader: Reader | None = None
        if settings.generator == "cirilla" and settings.lm_url:
            from app.remote import RemoteReader

            reader = RemoteReader.of(settings)
        elif settings.generator == "cirilla":
            from lm.reader import Reader as Cirilla

            reader = Cirilla.load(settings.lm_weights)
        return cls(settings, store, Searcher(store, index, encoder, second=second), encoder, reader)

    def ask(self, question: str, history: Sequence[Turn] = (), canon: str | None = None) -> Answer:
        """The answer to a question; ``history`` holds earlier (stand-alone question, answer) pairs, oldest first."""
        for event in self.stream(question, history, canon):
            if isinstance(event, Final):
                return event.answer
        raise AssertionError("a stream ends with its answer")

    def search(self, question: str, k: int = 8, canon: str | None = None) -> Found:
        """Ranked passages with every stage's score."""
        return self.searcher.search_timed(question, k, canon)

    def stream(
        self,
        question: str,
        history: Sequence[Turn] = (),
        canon: str | None = None,
        *,
        length: Length = "normal",
        passages: int | None = None,
    ) -> Iterator[Event]:
        """``Status`` and ``Draft`` events, then one ``Final``.

        Only sentences that passed their check are ever sent as ``Draft``.

        Args:
            length: how much is quoted where the evidence itself is the answer, and how long a draft may be.
            passages: how many the decoder reads; the settings' number when None.
        """
        self = copy.copy(self)  # one question, one index: app.live may put a newer one in place meanwhile
        clock = _Clock()
        asked = clean(clip(question.strip(), self.settings.question_limit))
        note = ""
        if len(question.strip()) > self.settings.question_limit:
            note = f"Only the first {self.settings.question_limit:,} characters of the question were read."
        if not words(asked):
            yield Final(Answer(asked, asked, EMPTY, True, 0.0, (), clock.done(), "evidence", note))
            return

        yield Status("Searching the archives")
        readings = self.readings(asked, history)
        clock.lap("rewrite")
        understood, hits, best, sure = self._weigh(readings[0], canon, clock)
        # What a follow-up leaves out may be the subject of the turn before: then that reading is answered better.
        for reading in readings[1:]:
            other = self._weigh(reading, canon, clock)
            if other[3] > sure + CARRY:
                understood, hits, best, sure = other
        alone = understood.text
        writer = _Writer(understood, best, length)
        if sure < self.settings.threshold:
            yield Final(_silent(asked, alone, note, sure, hits, clock, understood))
            return

        # Whether the archives answer at all is decided above, by the evidence.  The decoder's own "do not say" means no
        # more than that it has nothing to add: the first weights say so far too often (docs/training-log.md).
        read: list[Hit] = []
        traced: list[TracedToken] = []
        if not writer.short_answer() and self.reader is not None:
            yield Status("Reading the passages")
            read = _reading_list(best, hits, passages or self.settings.passages)
            yield from self._draft(alone, read, writer, traced, clock)
        writer.finish()
        clock.lap("check")
        yield Final(
            Answer(
                asked,
                alone,
                " ".join(sentence.text for sentence in writer.sentences),
                False,
                sure,
                tuple(writer.citations),
                clock.done(),
                self.reader.name if writer.drafted and self.reader is not None else "evidence",
                note,
                tuple(writer.sentences),
                tuple(hits),
                tuple(best),
                tuple(read),
                tuple(traced),
            )
        )

    def understand(self, question: str, canon: str | None) -> tuple[Question, list[Hit]]:
        """A stand-alone question, its names spelt right, and the passages that may answer it, best first."""
        found = self.search(question, self.settings.candidates, canon)
        if found.corrections:
            question = _respell(question, found.corrections)
        understood = analyse(question, self.searcher.names, self.vocabulary)
        return understood, self._with_facts(understood, found.hits, canon)

    def _weigh(
        self, question: str, canon: str | None, clock: _Clock
    ) -> tuple[Question, list[Hit], list[ev.Evidence], float]:
        """One reading of the question: understood, its passages, their sentences best first, and the confidence."""
        understood, hits = self.understand(question, canon)
        clock.lap("search")
        best = ev.find(understood, hits, self.encoder)
        sure = ev.confidence(understood, best)
        clock.lap("evidence")
        return understood, hits, best, sure

    def readings(self, question: str, history: Sequence[Turn]) -> list[str]:
        """The question as it would be asked without the turns before it, the likeliest reading first."""
        if not history:
            return [question]
        return followup.readings(question, history, self._names_in, self._gender_of)

    def _names_in(self, text: str) -> list[str]:
        """Names in a text: what the archive knows by that name, and other capitalised words."""
        cut = split(clean(text))
        spans = [(cut[m.start].start, cut[m.end - 1].end) for m in self.searcher.names.mentions(cut)]
        found = [(a, text[a:b]) for a, b in spans]
        for name in followup.proper_names(text):
            at = text.find(name)
            if not any(a < at + len(name) and at < b for a, b in spans):
                found.append((at, name))
        return [name for _, name in sorted(found)]

    def _gender_of(self, name: str) -> str:
        """The pronoun that the named article's first passages use most; "" when they use none."""
        cut = split(clean(name))
        pages = [page for mention in self.searcher.names.mentions(cut) for page in mention.pages]
        if not pages:
            return ""
        rows = self.store.rows("SELECT text FROM passages WHERE page = ? ORDER BY section, start LIMIT 6", [pages[0]])
        facts = self.store.rows("SELECT \"values\" FROM facts WHERE page = ? AND key = 'gender'", [pages[0]])
        stated = "".join(row["values"].casefold() for row in facts)
        if "female" in stated or "male" in stated:
            return "she" if "female" in stated else "he"
        text = " ".join(row["text"] for row in rows).casefold()
        counts = {
            "he": len(re.findall(r"\b(?:he|him|his)\b", text)),
            "she": len(re.findall(r"\b(?:she|her|hers)\b", text)),
            "it": len(re.findall(r"\b(?:it|its)\b", text)),
            "they": len(re.findall(r"\b(?:they|them|their)\b", text)),
        }
        winner = max(counts, key=lambda pronoun: counts[pronoun])
        return winner if counts[winner] else ""

    def _with_facts(self, question: Question, hits: Sequence[Hit], canon: str | None) -> list[Hit]:
        """The hits, and the leads and infoboxes of the articles that the question names, found or not."""
        have = {hit.passage.id for hit in hits}
        more: list[StoredPassage] = []
        for page in sorted(question.pages)[:4]:
            rows = self.store.rows(
                "SELECT id FROM passages WHERE page = ? AND path IN ('[]', '[\"Facts\"]') AND (? OR canon IN ('', ?))",
                [page, canon is None, canon or ""],
            )
            more += self.store.passages(row["id"] for row in rows if row["id"] not in have)
        lowest = min((hit.score for hit in hits), default=0.0)
        added = [Hit(passage, lowest / 2) for passage in more]
        return [*hits, *self.searcher.read(question.text, added)]

    def _draft(
        self, question: str, read: Sequence[Hit], writer: _Writer, traced: list[TracedToken], clock: _Clock
    ) -> Iterator[Event]:
        """Let the decoder write; keep each sentence that its passage bears."""
        assert self.reader is not None
        passages = [hit.passage for hit in read]
        shown = [(passage.heading, ev.readable(passage.text)) for passage in passages]
        tail, begun = "", False
        for piece in self.reader.stream(question, shown, (), self.settings.max_new_tokens, traced):
            if not begun:
                clock.mark("first_token")
                begun = True
            complete, tail = support.split(tail + piece, finished=False)
            for sentence in complete:
                yield from self._keep(sentence, read, writer)
        for sentence in support.split(tail)[0]:
            yield from self._keep(sentence, read, writer)
        clock.lap("draft")

    @staticmethod
    def _keep(sentence: str, read: Sequence[Hit], writer: _Writer) -> Iterator[Event]:
        if support.claim_of(sentence) == SILENT:
            return
        verdict = support.check(sentence, [hit.passage for hit in read])
        if verdict.ok and (kept := writer.keep(support.claim_of(sentence), read[verdict.passage], verdict)):
            yield Draft(kept)
        elif support.has_words(sentence):
            writer.refuse()


class _Writer:
    """Collects the sentences of one answer, with the citations that bear them numbered as they come."""

    def __init__(self, question: Question, best: Sequence[ev.Evidence], length: Length = "normal") -> None:
        self.question, self.best, self.length = question, best, length
        self.sentences: list[Sentence] = []
        self.citations: list[Citation] = []
        self.drafted = False  # the decoder phrased at least one sentence
        self._refused = False

    def short_answer(self) -> bool:
        """Answer from an infobox row when one says just what is asked."""
        if not self.best:
            return False
        # Rows of the infobox may tie with prose that says the same at greater length: then the row is the answer.
        for candidate in self.best[:5]:
            if candidate.share < SECOND * self.best[0].share:
                break
            value = ev.short_answer(self.question, candidate)
            if value:
                n = self._cite(candidate.hit, candidate.start, candidate.end)
                self.sentences.append(Sentence(f"{value[:1].upper()}{value[1:]} [{n}].", n))
                told = next((e for e in self.best[:6] if not e.is_fact and _says(value, e.text)), None)
                if told is not None:
                    self._quote(told)
                return True
        return False

    def keep(self, claim: str, hit: Hit, verdict: support.Verdict) -> str:
        """Take a checked sentence into the answer, unless it is beside the point or has been said; the text shown."""
        inside = [
            e.share
            for e in self.best
            if e.passage.id == hit.passage.id and e.start >= verdict.start and e.end <= verdict.end
        ]
        if not inside or max(inside) < RELEVANT * self.best[0].share:
            return ""
        if any(support.claim_of(sentence.text).rstrip(".!? ") == claim.rstrip(".!? ") for sentence in self.sentences):
            return ""
        n = self._cite(hit, verdict.start, verdict.end)
        bare = claim.rstrip()
        stop = bare[-1] if bare[-1] in ".!?" else "."
        shown = f"{bare.rstrip('.!? ')} [{n}]{stop}"
        self.sentences.append(Sentence(shown, n))
        self.drafted = True
        return shown

    def refuse(self) -> None:
        """A sentence of the draft failed: the best evidence takes its place."""
        self._refused = True

    def finish(self) -> None:
        """Put the quoted evidence where the draft failed, or where there was none."""
        if self.sentences and not self._refused:
            return
        if self.question.kind == "definition" and not self.sentences:
            limit = {"short": 1, "normal": 3, "long": 5}[self.length]
            lead = [e for e in self.best if e.subject and not e.passage.path and not e.is_fact][:limit]
            for e in sorted(lead, key=lambda e: (e.rank, e.start)):
                self._quote(e)
        if self._refused or not self.sentences:
            self._quote(self.best[0])
        if self.length == "short" or self.drafted:
            return
        for other in self.best[1:]:
            wanted, part = (4, SECOND / 4) if self.length == "long" else (2, SECOND)
            if len(self.sentences) >= wanted or other.share < part * self.best[0].share:
                break
            if self.question.kind != "definition" or self.length == "long":
                self._quote(other)

    def _quote(self, e: ev.Evidence) -> None:
        if any(c.passage == e.passage.text and c.start <= e.start and e.end <= c.end for c in self.citations):
            return
        n = self._cite(e.hit, e.start, e.end)
        fact = ev.fact_line(e.text) if e.is_fact else None
        if fact:
            shown = f"{fact.title}, {fact.label}: {fact.values} [{n}]."
        else:
            about = f"{e.passage.title}: " if PRONOUN_START.match(e.text) else ""
            shown = f"{about}“{e.text}” [{n}]"
        self.sentences.append(Sentence(shown, n))

    def _cite(self, hit: Hit, start: int, end: int) -> int:
        """Number of the citation of this quote, made when it is new."""
        passage = hit.passage
        for citation in self.citations:
            if (citation.passage, citation.start, citation.end) == (passage.text, start, end):
                return citation.n
        n = len(self.citations) + 1
        self.citations.append(
            Citation(
                n, passage.display_title or passage.title, passage.url, " › ".join(passage.path), passage.canon,
                passage.text, passage.text[start:end], start, end, round(hit.score, 5),
            )
        )  # fmt: skip
        return n


class _Clock:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Time since the last lap belongs to ``stage``."""
        now = time.perf_counter()
        self._laps[stage] = self._laps.get(stage, 0.0) + (now - self._last) * 1000
        self._last = now

    def mark(self, name: str) -> None:
        """Time from the very beginning to now."""
        self._laps[name] = (time.perf_counter() - self._began) * 1000

    def done(self) -> dict[str, float]:
        return self._laps | {"total": (time.perf_counter() - self._began) * 1000}


def _reading_list(best: Sequence[ev.Evidence], hits: Sequence[Hit], size: int) -> list[Hit]:
    """The passages that the decoder reads: those of the best evidence first, then the search's own order."""
    order: dict[int, Hit] = {}
    for hit in [*(e.hit for e in best[: 3 * size]), *hits]:
        order.setdefault(hit.passage.id, hit)
    return list(order.values())[:size]


def _says(value: str, sentence: str) -> bool:
    """Whether a sentence of prose holds an infobox value."""
    return (
        bool(value)
        and not support.is_instruction(sentence)
        and {w.stem for w in words(value)} <= {w.stem for w in words(sentence)}
    )


def _respell(question: str, corrections: dict[str, str]) -> str:
    for old, new in corrections.items():
        question = re.sub(rf"\b{re.escape(old)}\b", lambda _, new=new: new, question)  # type: ignore[misc]
    return question


def _silent(
    asked: str, alone: str, note: str, sure: float, hits: Sequence[Hit], clock: _Clock, question: Question
) -> Answer:
    """The polite way to say no, with the articles that come nearest."""
    nearest = tuple(dict.fromkeys(hit.passage.display_title or hit.passage.title for hit in hits))[:3]
    text = "The archives do not hold an answer to that."
    if question.unknown:
        text = f"The archives do not hold anything about {' or '.join(f'“{word}”' for word in question.unknown[:2])}."
    if nearest:
        text += f" The nearest articles: {', '.join(nearest)}."
    return Answer(asked, alone, text, True, sure, (), clock.done(), "evidence", note, (), tuple(hits), nearest=nearest)
