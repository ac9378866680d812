"""How an answer is put together: what is quoted, how much, in which order.

A question decides the style.  A name or a number is one sentence, from the infobox where a row says just that; a
portrait is three to five sentences, the article's lead first and then what other passages add; reasons and manners get
the steps around the best sentence; a list becomes a list; yes or no is said when the evidence is clear (``verdict``).
Where the tellings differ, each speaks for itself.  Nothing here is invented: a sentence is a row of an infobox, a
quote, or a draft's sentence that has passed ``support.check``, and carries the number of its citation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from app import evidence as ev
from app import support, verdict
from app.answer import Citation, Sentence
from app.question import Question
from app.roster import Listed
from app.text import content, stems, words
from corpus.store import StoredPassage
from retrieval.search import Hit
from retrieval.words import without_note

Length = Literal["short", "normal", "long"]

RELEVANT = 0.15  # a draft's sentence must rest on evidence whose share is at least this part of the best one's
YES = 0.4  # share of a sentence from which "yes" may stand before it
SECOND = 0.35  # an infobox row this near to the best sentence may be the answer in its place
LEAD = 3  # sentences of an article's lead in a portrait
SAME = 0.6  # share of a sentence's words that another may hold before it says nothing new
SIDE = 0.5  # a telling is set beside another only when its best sentence has this part of the best one's share
NAMED = frozenset({"person", "place", "time", "count"})  # kinds of question that a name or a number answers
ITEMS = 3  # values of an infobox row from which they are set as a list
_PARENTS = re.compile(r"^\W*who(?:['’]?s| is| are| was| were)\b[^?]*?(?:['’]?s?['’]? parents\W*$|\bparents of\b)", re.I)
_PARENT_ROWS = ("mother", "father", "parents")
_PRONOUN = re.compile(r"\b(?:he|him|his|she|hers?|it|its|they|them|their)\b")
PRONOUN_START = re.compile(r"^(?:he|she|it|they|his|her|their|its|this|these|both)\b", re.I)
_HEARSAY = re.compile(
    r"\b(?:people|peasants|folk|many|some|others) (?:\w+ ){0,3}?(?:believe|think|regard|say|hold|call|suppose|take)\b"
    r"|\b(?:legend|rumou?r|folk belief|superstition|is said|are said|supposed(?:ly)?|allegedly|reputed(?:ly)?)\b"
    r"|^\W*only\b",
    re.I,
)
OTHERWISE = "The archives tell it differently: "
TELLINGS = {"books": "In the books", "games": "In the games", "tv": "In the series"}


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is quoted: at most so many sentences, none with less than this part of the best one's share."""

    most: int
    part: float


# By what is asked; the first value is for a normal answer, the second for a long one.  A short one quotes one sentence.
_AMOUNTS: dict[str, tuple[Amount, Amount]] = {
    "definition": (Amount(4, 0.02), Amount(6, 0.01)),
    "reason": (Amount(3, 0.2), Amount(5, 0.08)),
    "manner": (Amount(3, 0.2), Amount(5, 0.08)),
    "list": (Amount(3, 0.2), Amount(5, 0.08)),
    "yesno": (Amount(1, 1.0), Amount(3, 0.2)),
    "": (Amount(2, 0.35), Amount(4, 0.08)),
}


@dataclass(slots=True)
class _Span:
    """Neighbouring sentences of one passage, to be quoted as one."""

    hit: Hit
    start: int
    end: int
    is_fact: bool


class Composer:
    """Collects the sentences of one answer, with the citations that bear them numbered as they come."""

    def __init__(self, question: Question, best: Sequence[ev.Evidence], length: Length = "normal") -> None:
        self.question, self.best, self.length = question, best, length
        self.sentences: list[Sentence] = []
        self.citations: list[Citation] = []
        self.drafted = False  # the decoder phrased at least one sentence
        self.corrected = False  # the evidence speaks against what the question assumes
        self._refused = False

    def short_answer(self) -> bool:
        """Answer from an infobox row when one says just what is asked."""
        if not self.best:
            return False
        if self.question.kind not in ("yesno", "definition") and _PARENTS.search(self.question.text):
            rows = [e for e in self.best if e.is_fact and e.subject and _label(e) in _PARENT_ROWS]
            if rows:
                for row in sorted(rows, key=lambda e: _PARENT_ROWS.index(_label(e))):
                    self._quote([row])
                return True
        # Rows of the infobox may tie with prose that says the same at greater length: then the row is the answer.
        for candidate in self.best[:5]:
            if candidate.share < SECOND * self.best[0].share:
                break
            value = ev.short_answer(self.question, candidate)
            if value:
                n = self._cite(candidate.hit, candidate.start, candidate.end)
                self._values(value, n)
                told = next((e for e in self.best[:6] if not e.is_fact and _says(value, e.text)), None)
                if told is not None:
                    self._quote([told])
                return True
        return False

    def _values(self, value: str, n: int) -> None:
        """An infobox row's values, one below the other when they are several and a list is asked for."""
        parts = [part.strip() for part in value.split(";" if ";" in value else ",")]
        if self.question.wants_list and len(parts) >= ITEMS and all(parts):
            self.sentences += [Sentence(f"- {part[:1].upper()}{part[1:]} [{n}]", n, block=True) for part in parts]
        else:
            self.sentences.append(Sentence(f"{value[:1].upper()}{value[1:]} [{n}].", n))

    def articles(self, listed: Listed) -> None:
        """A list of articles, each with what says that it belongs there."""
        for member in listed.members:
            n = self._cite(Hit(member.passage, 0.0), member.start, member.end)
            self.sentences.append(Sentence(f"- {member.title} [{n}]", n, block=True))

    def keep(self, claim: str, hit: Hit, checked: support.Verdict) -> str:
        """Take a checked sentence into the answer, unless it is beside the point or has been said; the text shown."""
        inside = [
            e for e in self.best if e.passage.id == hit.passage.id and e.start >= checked.start and e.end <= checked.end
        ]
        if not inside or max(e.share for e in inside) < RELEVANT * self.best[0].share:
            return ""
        # The check compares names, and a pronoun is none: "she plays him" would pass for "she plays Visenna".
        said = hit.passage.text[checked.start : checked.end]
        if not set(_PRONOUN.findall(claim.lower())) <= set(_PRONOUN.findall(said.lower())):
            return ""
        if self.question.kind in ("time", "place", "count") and not any(e.type for e in inside):
            return ""  # where she was born is not how
        told = stems(claim)
        if {word.stem for word in content(claim)} <= stems(self.question.text):  # the question over again
            return ""
        # Lilies are the arms of Temeria, but it was asked who rules it, and the best sentence says so.
        asked = [{term.stem} | term.alternatives for term in self.question.terms if not term.is_name]
        if any(words_for & stems(self.best[0].text) and not words_for & told for words_for in asked):
            return ""
        if any(support.claim_of(sentence.text).rstrip(".!? ") == claim.rstrip(".!? ") for sentence in self.sentences):
            return ""
        n = self._cite(hit, checked.start, checked.end)
        bare = claim.rstrip()
        stop = bare[-1] if bare[-1] in ".!?" else "."
        shown = f"{bare.rstrip('.!? ')} [{n}]{stop}"
        self.sentences.append(Sentence(shown, n))
        self.drafted = True
        return shown

    def closest(self) -> Citation | None:
        """The sentence to show when the archives are silent: the best one, if it is about what the question names."""
        if any(word[0].isupper() for word in self.question.unknown) or not self.best or not self.best[0].subject:
            return None
        self._cite(self.best[0].hit, self.best[0].start, self.best[0].end)
        return self.citations[0]

    def again(self) -> None:
        """The decoder tries once more: what was refused is forgotten."""
        self._refused = False

    def refuse(self) -> None:
        """A sentence of the draft failed: the best evidence takes its place."""
        self._refused = True

    def finish(self) -> None:
        """Put the quoted evidence where the draft failed, or where there was none."""
        if self.sentences and not self._refused:
            return
        if self.drafted:
            self._quote(self.best[:1])
            return
        chosen = self._section() or (self._portrait() if self.question.kind == "definition" else self._nearest())
        sides = _sides(chosen, self.question, self.best[0].share)
        if len(sides) > 1:
            for canon, side in sides.items():
                self._quote(side, f"{TELLINGS[canon]}: ", block=True)
        else:
            self._quote(chosen, self._verdict())

    def _amount(self) -> Amount:
        if self.length == "short":
            return Amount(1, 1.0)
        kind = "list" if self.question.wants_list else self.question.kind
        return _AMOUNTS.get(kind, _AMOUNTS[""])[self.length == "long"]

    def _nearest(self) -> list[ev.Evidence]:
        """The best sentence and those that come near it, if they say something new.

        A row of an infobox reads like a fragment behind a sentence, so it stands there only when it is what is asked.
        """
        amount = self._amount()
        near = [e for e in self.best if e.share >= amount.part * self.best[0].share]
        near = near[:1] + [e for e in near[1:] if (not e.is_fact or self._asks_for(e)) and self._adds(e)]
        return _distinct([], near, amount.most)

    def _asks_for(self, row: ev.Evidence) -> bool:
        """Whether the question asks for this row of an infobox by its label."""
        if self.question.wants_list:
            return True
        fact = ev.fact_line(row.text)
        return fact is None or stems(without_note(fact.label)) <= stems(self.question.text)

    def _adds(self, e: ev.Evidence) -> bool:
        """Whether a sentence behind the best one could tell a name or a number that is asked for and not yet told."""
        best = self.best[0]
        if self.question.kind not in NAMED or self.question.wants_list or self.length == "long" or best.type < 1:
            return True
        said = stems(self.question.text) | stems(best.text)
        return any(w.stem not in said and (w.is_number or (w.is_capital and w.start > 0)) for w in content(e.text))

    def _portrait(self) -> list[ev.Evidence]:
        """The lead of the article that is asked about, then what other passages of it add."""
        amount = self._amount()
        own = [e for e in self.best if e.subject and not e.is_fact]
        lead = sorted((e for e in own if e.is_lead), key=lambda e: (e.rank, e.start))
        lead = lead[: 1 if self.length == "short" else LEAD]
        if not lead:
            return self._nearest()
        about = lead[0].passage.page
        lead = [e for e in lead if e.passage.page == about]
        taken = {(e.passage.id, e.start) for e in lead}
        more = [
            e
            for e in own
            if e.passage.page == about
            and (e.passage.id, e.start) not in taken
            and e.share >= amount.part * self.best[0].share
        ]
        return _distinct(lead, more, amount.most)

    def _section(self) -> list[ev.Evidence]:
        """The first sentences of the section that says by its heading that it tells how, if there is one."""
        first = next((e for e in self.best if e.headed), None)
        if first is None:
            return []
        own = [e for e in self.best if (e.passage.page, e.passage.path) == (first.passage.page, first.passage.path)]
        own.sort(key=lambda e: (e.passage.start, e.start))
        return own[: self._amount().most]

    def _verdict(self) -> str:
        """What stands before the first quote: yes or no, or that it is not as the question assumes."""
        best = self.best[0]
        about = self.question.text, best.passage.title, best.text
        if self.question.kind == "yesno":
            said = verdict.word(*about)
            # Beside the point, a sentence denies nothing, nor does one about somebody else; what people believe need
            # not be so, nor what others tell.
            if (
                best.telling < 0
                or best.named == 0
                or (said == "Yes" and (best.share < YES or _HEARSAY.search(best.text)))
            ):
                return ""
            return f"{said}: " if said else ""
        if self.question.kind != "definition" and verdict.contradicts(*about):
            self.corrected = True
            return OTHERWISE
        return ""

    def _quote(self, chosen: Sequence[ev.Evidence], before: str = "", block: bool = False) -> None:
        """Quote sentences, neighbours as one; ``before`` stands in front of the first."""
        for span in _spans(chosen):
            passage = span.hit.passage
            if any(c.passage == passage.text and c.start <= span.start and span.end <= c.end for c in self.citations):
                continue
            n = self._cite(span.hit, span.start, span.end)
            text = passage.text[span.start : span.end]
            fact = ev.fact_line(text) if span.is_fact else None
            if fact:
                shown = f"{fact.title}, {fact.label}: {fact.values} [{n}]."
            else:
                pronoun = PRONOUN_START.match(text) is not None
                about = f"{passage.title}: " if pronoun or (not before and self._lacks_name(passage, text)) else ""
                shown = f"{about}“{text}” [{n}]"
            self.sentences.append(Sentence(before + shown, n, block=block and bool(before)))
            before = ""

    def _lacks_name(self, passage: StoredPassage, text: str) -> bool:
        """Whether a quote leaves open of whom it speaks ("the captain").

        It does where it holds no word of its article's title, nor of another name by which the question calls it.
        """
        names = {word.stem for word in content(without_note(passage.title))}
        names |= {term.stem for term in self.question.terms if passage.page in term.pages}
        return bool(names) and not names & stems(text)

    def _cite(self, hit: Hit, start: int, end: int) -> int:
        """Number of the citation of this quote, made when it is new."""
        passage = hit.passage
        for citation in self.citations:
            if (citation.passage, citation.start, citation.end) == (passage.text, start, end):
                return citation.n
        n = len(self.citations) + 1
        self.citations.append(Citation.of(n, passage, start, end, round(hit.score, 5)))
        return n


def _label(row: ev.Evidence) -> str:
    """The label of an infobox row, without its note."""
    fact = ev.fact_line(row.text)
    return without_note(fact.label).casefold() if fact else ""


def _distinct(chosen: list[ev.Evidence], more: Iterable[ev.Evidence], most: int) -> list[ev.Evidence]:
    """``chosen`` and, up to ``most`` in all, those of ``more`` that say something new."""
    out = list(chosen)
    said = [{word.stem for word in content(e.text)} for e in out]
    for e in more:
        if len(out) >= most:
            break
        here = {word.stem for word in content(e.text)}
        if not any(len(here & others) > SAME * len(here) for others in said):
            out.append(e)
            said.append(here)
    return out


def _spans(chosen: Sequence[ev.Evidence]) -> list[_Span]:
    """The sentences as stretches of their passages, none over a paragraph's end, passages in the order chosen."""
    passages: dict[int, list[ev.Evidence]] = {}
    for e in chosen:
        passages.setdefault(e.passage.id, []).append(e)
    out: list[_Span] = []
    for members in passages.values():
        members.sort(key=lambda e: e.start)
        out.append(_Span(members[0].hit, members[0].start, members[0].end, members[0].is_fact))
        for before, e in pairwise(members):
            gap = e.passage.text[before.end : e.start]
            if not e.is_fact and not gap.strip() and "\n" not in gap:
                out[-1].end = e.end
            else:
                out.append(_Span(e.hit, e.start, e.end, e.is_fact))
    return out


def _sides(chosen: Sequence[ev.Evidence], question: Question, best: float) -> dict[str, list[ev.Evidence]]:
    """The chosen sentences by telling, best first, when every one belongs to a telling and the reader named none.

    Each telling must answer nearly as well as the ``best`` sentence, or the headings promise a difference that is not
    there; and a yes or no has but one side.
    """
    sides: dict[str, list[ev.Evidence]] = {}
    if question.canon or question.kind == "yesno" or any(e.passage.canon not in TELLINGS for e in chosen):
        return {}
    for e in chosen:
        sides.setdefault(e.passage.canon, []).append(e)
    return sides if all(max(e.share for e in side) >= SIDE * best for side in sides.values()) else {}


def _says(value: str, sentence: str) -> bool:
    """Whether a sentence of prose holds an infobox value."""
    return (
        bool(value)
        and not support.is_instruction(sentence)
        and {w.stem for w in words(value)} <= {w.stem for w in words(sentence)}
    )
