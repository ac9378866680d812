"""Which stage lost an answer: every miss of an evaluation followed through the pipeline, from the corpus to the words.

A question of ``corpus/questions`` names the sentence that holds its answer, so one can look where that sentence got
lost.  Where a file gives no evidence, any passage that holds an alias counts (in the named article, if one is named),
which tells less: a *yes* or a *two* stands everywhere.  The first stage that lost it is the one that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.answer import Answer
from app.carry import Turn
from app.evaluate import Outcome, evidence_of, holds, plain, says
from corpus.store import Store, StoredPassage, fold
from retrieval import evaluate as relevance
from retrieval.search import DEPTH, Found, Hit

Stage = Literal["corpus", "rewrite", "search", "ranking", "declined", "reading", "wording", "bluff"]

STAGES: dict[Stage, tuple[str, str]] = {
    "corpus": ("not in the corpus", "No passage of the archive holds the answer."),
    "rewrite": ("badly rewritten", "The follow-up is answered rightly once it is asked as the file rewrites it."),
    "search": ("not retrieved", f"The passage is not among the {DEPTH} that words and vectors bring."),
    "ranking": ("not ranked", "The passage was found, but too far down for its sentences to be weighed."),
    "declined": ("wrongly declined", "The passage was weighed, and the archives were called silent all the same."),
    "reading": ("not read", "The passage was weighed, and another sentence was chosen."),
    "wording": ("not said", "The right sentence was quoted, and the answer does not say what was expected."),
    "bluff": ("wrongly answered", "The question was to be declined."),
}
"""Stages in the order in which a question passes them, each with its name and what it means."""

SHOWN = 6  # passages that a report shows of those that were found


class Inspects(Protocol):
    """What is needed of ``Pipeline``."""

    store: Store

    def ask(self, question: str, history: Sequence[Turn] = (), canon: str | None = None) -> Answer: ...

    def search(self, question: str, k: int = 8, canon: str | None = None) -> Found: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that had to be found: passages that hold it, and in what words; one of the phrases is enough."""

    phrases: tuple[str, ...]
    ids: frozenset[int]

    def in_hit(self, hit: Hit) -> bool:
        # A copy of a passage that was found in its place will do.
        return hit.passage.id in self.ids or (len(plain(self.phrases[0])) > 40 and says(hit.passage.text, self.phrases))

    def in_quote(self, quote: str) -> bool:
        """Whether a quote holds the phrase, or is a sentence of it."""
        said = plain(quote)
        return holds(said, self.phrases) or (
            len(said) > 20 and any(said.strip() in plain(phrase) for phrase in self.phrases)
        )


@dataclass(frozen=True, slots=True)
class Miss:
    """A question that was answered wrongly, with what is known about why."""

    outcome: Outcome
    stage: Stage
    notes: tuple[str, ...]
    wanted: tuple[str, ...]  # sentences or aliases that had to be found
    source: StoredPassage | None  # the passage that holds the answer, where there is one
    found: tuple[StoredPassage, ...]  # the best passages that the search brought
    bearing: frozenset[int]  # ids of those passages that hold the answer


def find(
    pipeline: Inspects, outcomes: Sequence[Outcome], progress: Callable[[int], None] = lambda done: None
) -> list[Miss]:
    """Every miss of an evaluation, in order.  ``progress`` gets the number of misses looked into.

    The outcomes must be of this pipeline and fresh from ``evaluate.run``, with their ``reply``.
    """
    missed = [outcome for outcome in outcomes if not outcome.right]
    misses = []
    for done, outcome in enumerate(missed, 1):
        misses.append(_look_into(pipeline, outcome))
        progress(done)
    return misses


def _look_into(pipeline: Inspects, outcome: Outcome) -> Miss:
    assert outcome.reply is not None, "an outcome that was read from a file cannot be looked into"
    reply = outcome.reply
    notes: list[str] = []
    hits = list(reply.hits)
    pieces = [] if outcome.decline else pieces_of(pipeline.store, outcome)
    deep: list[Hit] = []
    if pieces and not _all_in(pieces, hits):
        deep = pipeline.search(reply.standalone_question, DEPTH).hits
    stage = _stage(pipeline, outcome, pieces, hits, deep, notes)
    for piece in pieces:
        notes += _whereabouts(piece, reply, deep)
    if outcome.decline:
        notes += [f"Why it was to be declined: {outcome.extra['reason']}"] if outcome.extra.get("reason") else []
        notes += ["The sentence that corrects the question was quoted."] if outcome.corrected else []
    elif outcome.found and stage in ("search", "ranking"):
        notes.append("Another passage among the first holds the words of an expected answer.")
    ids = {id for piece in pieces for id in piece.ids}
    source = pipeline.store.passage(min(ids)) if ids else None
    for hit in hits:  # the one that the search liked best tells most
        if hit.passage.id in ids:
            source = hit.passage
            break
    return Miss(
        outcome,
        stage,
        tuple(notes),
        tuple(phrase for piece in pieces for phrase in piece.phrases) or tuple(evidence_of(outcome.extra)),
        source,
        tuple(hit.passage for hit in hits[:SHOWN]),
        frozenset(hit.passage.id for hit in hits if any(piece.in_hit(hit) for piece in pieces)),
    )


def _stage(
    pipeline: Inspects,
    outcome: Outcome,
    pieces: Sequence[Piece],
    hits: Sequence[Hit],
    deep: Sequence[Hit],
    notes: list[str],
) -> Stage:
    if not outcome.decline and not all(piece.ids for piece in pieces):
        return "corpus"
    rewrite = outcome.extra.get("rewrite")
    if outcome.turn and isinstance(rewrite, str) and rewrite.strip():
        again = pipeline.ask(rewrite)
        notes.append(f"As the file rewrites it: “{rewrite}” → {again.answer}")
        if again.abstained if outcome.decline else not again.abstained and says(again.answer, outcome.expected):
            return "rewrite"
    if outcome.decline:
        return "bluff"
    if not _all_in(pieces, hits):
        return "ranking" if _all_in(pieces, [*hits, *deep]) else "search"
    if outcome.answer["abstained"]:
        return "declined"
    quotes = [citation["quote"] for citation in outcome.answer["citations"]]
    return "wording" if all(any(piece.in_quote(quote) for quote in quotes) for piece in pieces) else "reading"


def pieces_of(store: Store, outcome: Outcome) -> list[Piece]:
    """What had to be found for an answerable question: each sentence of its evidence, or else one of its aliases.

    An archive that does not hold the evidence word for word may still say the same, so there the aliases count too.
    """
    evidence = evidence_of(outcome.extra)
    articles = _articles(outcome.extra)
    pieces = [Piece((text,), _relevant(store, outcome, articles, (text,))) for text in evidence]
    if pieces and all(piece.ids for piece in pieces):
        return pieces
    ids = _relevant(store, outcome, articles, ()) or (frozenset() if articles else _holding(store, outcome.expected))
    return [Piece(outcome.expected, ids)]


def _articles(extra: dict[str, Any]) -> tuple[str, ...]:
    named = extra.get("article") or []
    evidence = extra.get("evidence")
    titles = list(named) if isinstance(named, list) else [named]
    titles += [one.get("article") for one in evidence if isinstance(one, dict)] if isinstance(evidence, list) else []
    return tuple(dict.fromkeys(title for title in titles if isinstance(title, str)))


def _relevant(store: Store, outcome: Outcome, articles: tuple[str, ...], evidence: tuple[str, ...]) -> frozenset[int]:
    """Passages of the named articles that hold the evidence, or without any an alias; none where none is named."""
    question = relevance.Question(outcome.id, outcome.question, outcome.expected, articles, evidence, "")
    return frozenset(relevance.relevant(store, question)) if articles else frozenset()


def _holding(store: Store, aliases: Sequence[str]) -> frozenset[int]:
    """Passages of the whole archive that hold one of the aliases, headings included."""

    def phrases(alias: str) -> str:
        return " AND ".join('"' + fold(part).replace('"', " ") + '"' for part in alias.split(" + "))

    # The full-text index brings those that may; it knows stems, and an alias is to be there as it is.
    match = " OR ".join(f"({phrases(alias)})" for alias in aliases)
    ids = [row["rowid"] for row in store.rows("SELECT rowid FROM passages_fts WHERE passages_fts MATCH ?", [match])]
    return frozenset(p.id for p in store.passages(ids) if says(f"{p.heading} {p.text}", aliases))


def _all_in(pieces: Sequence[Piece], hits: Sequence[Hit]) -> bool:
    return all(any(piece.in_hit(hit) for hit in hits) for piece in pieces)


def _whereabouts(piece: Piece, reply: Answer, deep: Sequence[Hit]) -> list[str]:
    """How far a piece came: the rank of its passage, and of its sentence among the evidence."""
    if not piece.ids:
        return []
    rank = next((at for at, hit in enumerate(reply.hits, 1) if piece.in_hit(hit)), 0)
    if not rank:
        deeper = next(((at, hit) for at, hit in enumerate(deep, 1) if piece.in_hit(hit)), None)
        if deeper is None:
            return ["The passage was not found."]
        at, hit = deeper
        words, vector = (_th(r) if r else "not found" for r in (hit.bm25_rank, hit.dense_rank))
        return [f"The passage came {_th(at)} when {DEPTH} were asked for (by words {words}, by vector {vector})."]
    told = [f"The passage was {_th(rank)} of {len(reply.hits)} that were weighed."]
    sentence = next(((at, e) for at, e in enumerate(reply.evidence, 1) if piece.in_quote(e.text)), None)
    if sentence:
        at, e = sentence
        told.append(f"Its sentence was {_th(at)} of {len(reply.evidence)} by evidence, with a share of {e.share:.2f}.")
    return told


def _th(number: int) -> str:
    """A number as a rank: 1st, 2nd, 11th, 23rd."""
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if 10 < number % 100 < 14 else ends.get(number % 10, 'th')}"
