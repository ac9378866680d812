"""From a question to an answer that shows its sources.

``Pipeline.stream`` reads top to bottom as docs/pictures/how-it-works.svg does: question → stand-alone question →
search → evidence → enough? → draft, sentence by sentence, each checked against its passage before anyone sees it →
answer.
"""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from app import carry, followup, smalltalk, support
from app import evidence as ev
from app.answer import SILENT, Answer, Citation, Draft, Event, Final, Status, joined
from app.carry import Turn
from app.compose import Composer, Length
from app.errors import NothingIndexed
from app.known import Known
from app.question import Question, Vocabulary, analyse, bookish, changes_topic, core
from app.roster import Listed, Roster
from app.settings import Settings
from app.text import clip, stems
from corpus.chunk import trim
from corpus.store import Store, StoredPassage
from retrieval.names import Names
from retrieval.search import Found, Hit
from retrieval.words import clean, without_note

if TYPE_CHECKING:
    from lm.reader import TracedToken

LIKELY = 0.1  # how much a reading's own probability counts beside the confidence in its answer, as logarithms
LEAST = 40  # words of a passage that the decoder reads, however many passages there are
SURE = 0.9  # probability of a drafted sentence's tokens, their geometric mean, under which it is not trusted
LISTED = 0.8  # confidence that a list of articles, each of whose lines says that it belongs there, has at least
WHO = re.compile(r"^\W*(?:and |so |but )*who(?:['’]?s|['’]?re)?\b", re.I)
ENOUGH = 0.3  # a reading whose probability times its confidence is so high needs no other: each costs a search


class Search(Protocol):
    """What the pipeline needs of ``retrieval.search.Searcher``."""

    names: Names

    def search_timed(self, question: str, k: int = 8, canon: str | None = None) -> Found: ...

    def read(self, question: str, hits: Sequence[Hit]) -> list[Hit]: ...


@runtime_checkable
class Reader(Protocol):
    """What the pipeline needs of ``lm.reader.Reader``."""

    name: str
    room: int  # words of all passages that it reads well together; 0: as many as there are

    def stream(
        self,
        question: str,
        passages: Sequence[tuple[str, str]],
        history: Sequence[tuple[str, str]] = (),
        max_new_tokens: int = 96,
        trace: list[TracedToken] | None = None,
        copying: bool = False,
    ) -> Iterator[str]: ...


class Pipeline:
    """Everything that answers, loaded once.  One question at a time: callers queue."""

    def __init__(
        self, settings: Settings, store: Store, searcher: Search, encoder: ev.SentenceEncoder, reader: Reader | None
    ) -> None:
        self.settings, self.store, self.searcher, self.encoder, self.reader = settings, store, searcher, encoder, reader
        self.vocabulary, self.known = Vocabulary.of(store), Known(store, searcher.names)
        self.roster = Roster(store)

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
        """The answer to a question; ``history`` holds the earlier turns, oldest first."""
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
        if said := smalltalk.reply(asked):
            yield Final(Answer(asked, asked, said, True, 0.0, (), clock.done(), "evidence", note))
            return
        if first := smalltalk.first_question(asked):
            asked, note = first, f"{note} {smalltalk.MANY}".strip()

        yield Status("Searching the archives")
        readings = self.readings(asked, history)
        clock.lap("rewrite")
        weighed: list[_Weighed] = []
        again = asked.strip(" ?.!").casefold()  # who asks the same once more gets the same answer
        told = "\n".join(turn[1] for turn in history if turn[0].strip(" ?.!").casefold() != again)
        for reading, probability in readings:
            weighed.append(self._weigh(reading, probability, canon, clock, told))
            if probability * weighed[-1].sure > ENOUGH:
                break
        # Which reading was meant?  Mostly the one that the archives answer best; how likely it is counts besides.
        weighed.sort(key=_Weighed.likelihood, reverse=True)
        listed = self._listed(weighed, asked, canon)
        understood, hits, best, sure, *_ = weighed[0]
        alone = understood.text
        if history and followup.asks_for_more(asked):
            best = [e for e in best if not e.told] or best
            length = "long" if length == "normal" else length
        writer = Composer(understood, best, length)
        if listed:
            writer.articles(listed)
            sure = max(sure, LISTED)
            if listed.counted or listed.of > len(listed.members):
                shown = f"{len(listed.members)} of the" if listed.of > len(listed.members) else "All"
                note = f"{note} {shown} {listed.of} that have an article are listed.".strip()
        elif sure < self.settings.threshold:
            yield Final(_silent(asked, alone, note, sure, hits, best, clock, understood, writer.closest()))
            return

        # Whether the archives answer at all is decided above, by the evidence.  The decoder's own "do not say" means no
        # more than that it has nothing to add: the first weights say so far too often (docs/training-log.md).
        read: list[Hit] = []
        excerpts: list[str] = []
        traced: list[TracedToken] = []
        # A drafted sentence would stand where yes or no is to be said, or where a portrait or a section takes several.
        drafts = understood.kind not in ("yesno", "definition") and not any(e.headed for e in best)
        if not listed and not writer.short_answer() and drafts and self.reader is not None:
            yield Status("Reading the passages")
            read = _reading_list(best, hits, passages or self.settings.passages)
            words = self.reader.room // len(read)
            excerpts = [_excerpt(hit, best, words) for hit in read]
            yield from self._draft(alone, read, excerpts, writer, traced, clock)
        writer.finish()
        clock.lap("check")
        yield Final(
            Answer(
                question=asked,
                standalone_question=alone,
                answer=joined(writer.sentences),
                abstained=False,
                confidence=sure,
                citations=tuple(writer.citations),
                timings=clock.done(),
                generator=self.reader.name if writer.drafted and self.reader is not None else "evidence",
                note=note,
                sentences=tuple(writer.sentences),
                hits=tuple(hits),
                evidence=tuple(best),
                read=tuple(read),
                excerpts=tuple(excerpts),
                tokens=tuple(traced),
                corrected=writer.corrected,
            )
        )

    def _listed(self, weighed: list[_Weighed], asked: str, canon: str | None) -> Listed | None:
        """The articles that one of the readings asks a list of; that reading is put first.

        A name that was only put behind the question is no condition that anybody set.

        A sentence that names them all says more than their list.
        """
        for at, reading in enumerate(weighed):
            appended = reading.text != asked and reading.text.startswith(asked.rstrip(" ?.!"))
            listed = self.roster.find(reading.question.text, canon or reading.question.canon or None)
            portrait = reading.question.kind == "definition" and WHO.match(reading.question.text)
            if appended or portrait or listed is None:
                continue
            best = reading.best[0] if reading.best else None
            told = stems(best.text) if best else set()
            names = [stems(without_note(member.title)) - {listed.noun} for member in listed.members]
            named = all(name & told for name in names)
            # A number that the archives state is better than one that their articles add up to.
            stated = listed.counted and best and reading.sure >= self.settings.threshold and best.type == 1
            if named or stated:
                return None
            weighed.insert(0, weighed.pop(at))
            return listed
        return None

    def understand(self, question: str, canon: str | None, clock: _Clock | None = None) -> tuple[Question, list[Hit]]:
        """A stand-alone question, its names spelt right, and the passages that may answer it, best first."""
        question = bookish(core(question, lambda part: bool(self.known.mentions(part))), self.vocabulary)
        found = self.search(question, self.settings.candidates, canon)
        if clock is not None:
            clock.lap("search", second=found.timings.get("second", 0.0))
        if found.corrections:
            question = _respell(question, found.corrections)
        understood = analyse(question, self.searcher.names, self.vocabulary)
        # "What happened at Thanedd?" is told by the article on the coup; who is asked for is no novel.
        if ev.asks_what_happened(understood) and (event := self.known.event(understood.pages)):
            return self.understand(f"What was {event}?", canon, clock)
        if understood.kind == "definition" and WHO.match(question):
            understood = replace(understood, pages=self.known.persons(understood.pages))
        return understood, self._with_facts(understood, found.hits, canon)

    def _weigh(self, question: str, probability: float, canon: str | None, clock: _Clock, told: str) -> _Weighed:
        """One reading of the question with what the archives say to it."""
        understood, hits = self.understand(question, canon, clock)
        clock.lap("search")
        best = ev.find(understood, hits, self.encoder, told)
        sure = ev.confidence(understood, best)
        clock.lap("evidence")
        return _Weighed(understood, hits, best, sure, probability, question)

    def readings(self, question: str, history: Sequence[Turn]) -> list[tuple[str, float]]:
        """The question as it would be asked without the turns before it, and how likely each reading is."""
        # "And Yennefer?" after a word of thanks is about what was asked before it.
        history = [turn for turn in history if smalltalk.reply(turn[0]) is None]
        if not history or changes_topic(question, self._names_in(question)) or self.roster.find(question):
            return [(question, 1.0)]
        likely = carry.likely(question, history, self.known)
        return followup.readings(question, history, self._names_in, self.known.pronoun, likely)

    def _names_in(self, text: str) -> list[str]:
        """Names in a text: what the archive knows by that name, and other capitalised words."""
        known = carry.places(self.known.mentions(text), clean(text))
        found = [(at, at + len(name), name) for at, name, _ in known]
        for name in carry.proper_names(text):
            at = text.find(name)
            if not any(a < at + len(name) and at < b for a, b, _ in found):
                found.append((at, at + len(name), name))
        return [name for *_, name in sorted(found)]

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
        # Nobody found them: they rank behind whatever the search did find.
        lowest = min((hit.score for hit in hits), default=0.0)
        added = [Hit(passage, lowest / 2) for passage in more]
        return [*hits, *self.searcher.read(question.text, added)]

    def _draft(
        self,
        question: str,
        read: Sequence[Hit],
        excerpts: Sequence[str],
        writer: Composer,
        traced: list[TracedToken],
        clock: _Clock,
    ) -> Iterator[Event]:
        """Let the decoder write; keep each sentence that its passage bears.

        Where nothing could be kept because it was not borne, it writes once more, in the passages' own words alone.
        """
        assert self.reader is not None
        shown = [(hit.passage.heading, excerpt) for hit, excerpt in zip(read, excerpts, strict=True)]
        begun = False
        for copying in (False, True):
            writer.again()
            traced.clear()  # who looks inside sees the last draft
            borne, tail, told = True, "", 0
            # No history: the question stands alone by now.
            for piece in self.reader.stream(question, shown, (), self.settings.max_new_tokens, traced, copying):
                if not begun:
                    clock.mark("first_token")
                    begun = True
                complete, tail = support.split(tail + piece, finished=False)
                for sentence in complete:
                    borne &= yield from self._keep(sentence, read, writer, _sureness(traced[told:]))
                told = len(traced) if complete else told
            for sentence in support.split(tail)[0]:
                borne &= yield from self._keep(sentence, read, writer, _sureness(traced[told:]))
            if borne or writer.drafted:
                break
        clock.lap("draft")

    @staticmethod
    def _keep(sentence: str, read: Sequence[Hit], writer: Composer, sureness: float) -> Generator[Event, None, bool]:
        """Take a sentence into the answer if it may; whether its passage bears it."""
        if support.claim_of(sentence) == SILENT or not support.has_words(sentence):
            return True
        verdict = support.check(sentence, [hit.passage for hit in read])
        # A passage bears many a sentence that does not answer the question: whether one does, the decoder's own
        # probabilities tell best.
        trusted = verdict.ok and sureness >= SURE
        if trusted and (kept := writer.keep(support.claim_of(sentence), read[verdict.passage], verdict)):
            yield Draft(kept)
        else:
            writer.refuse()
        return verdict.ok


def _sureness(tokens: Sequence[TracedToken]) -> float:
    """Geometric mean of the probabilities of what was just written; 1 where the decoder tells none."""
    logs = [math.log(max(token.probability, 1e-9)) for token in tokens]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0


class _Weighed(NamedTuple):
    """A reading of the question: its passages, their sentences best first, the confidence, how likely it was meant."""

    question: Question
    hits: list[Hit]
    best: list[ev.Evidence]
    sure: float
    probability: float
    text: str  # the reading before its names were spelt right

    def likelihood(self) -> float:
        return math.log(max(self.sure, 1e-6)) + LIKELY * math.log(max(self.probability, 1e-6))


class _Clock:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, stage: str, **parts: float) -> None:
        """Time since the last lap belongs to ``stage``, but for ``parts`` of it, in milliseconds, with names of their
        own."""
        now = time.perf_counter()
        for name, ms in {stage: (now - self._last) * 1000 - sum(parts.values()), **parts}.items():
            self._laps[name] = self._laps.get(name, 0.0) + ms
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


def _excerpt(hit: Hit, best: Sequence[ev.Evidence], words: int) -> str:
    """What the decoder reads of a passage: about ``words`` words around its best sentence, all of it when 0."""
    text = ev.readable(hit.passage.text)
    spot = next((e.text for e in best if e.passage.id == hit.passage.id), "")
    return trim(text, spot, max(words, LEAST)) if words else text


def _respell(question: str, corrections: dict[str, str]) -> str:
    for old, new in corrections.items():
        question = re.sub(rf"\b{re.escape(old)}\b", lambda _, new=new: new, question)  # type: ignore[misc]
    return question


def _silent(
    asked: str,
    alone: str,
    note: str,
    sure: float,
    hits: Sequence[Hit],
    best: Sequence[ev.Evidence],
    clock: _Clock,
    question: Question,
    closest: Citation | None,
) -> Answer:
    """The polite way to say no, with the articles that come nearest."""
    nearest = tuple(dict.fromkeys(hit.passage.display_title or hit.passage.title for hit in hits))[:3]
    text = "The archives do not hold an answer to that."
    # An ordinary word that no article uses ("impersonate") is not what is missing; a name is, or the only thing asked.
    missing = [word for word in question.unknown if word[0].isupper() or len(question.terms) == len(question.unknown)]
    if missing:
        text = f"The archives do not hold anything about {' or '.join(f'“{word}”' for word in missing[:2])}."
    if nearest:
        text += f" The nearest articles: {', '.join(nearest)}."
    return Answer(
        asked, alone, text, True, sure, (), clock.done(), "evidence", note, (), tuple(hits), tuple(best),
        closest=closest, nearest=nearest,
    )  # fmt: skip
