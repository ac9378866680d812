"""Does the cited passage really say so?  Checks a draft's sentence against the passage that it cites.

A sentence passes when it carries a citation of a passage that exists and every name, number and content word in it
occurs there: names and numbers anywhere in the passage or its heading, and the words as a whole close together, so
that a false claim cannot be assembled from words at the passage's two ends.  Denial must match: a sentence that says
*not* needs evidence that does.  What this cannot see is who did what to whom when all the words are right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.evidence import is_instruction
from app.text import Word, content, stems, words
from app.verdict import DENIAL, denied_near
from corpus.chunk import sentences
from corpus.store import StoredPassage

WINDOW = 2  # neighbouring sentences that must together hold the claim
CLOSE = 0.8  # share of the claim's words that such a window must hold; the rest may stand elsewhere in the passage

_CITATION = re.compile(r"\[(\d{1,3})\]")
_ANY_BRACKET = re.compile(r"\s*\[\s*\d[^\]]*\]")
_LEADING = re.compile(r"^\s*((?:\[\d{1,3}\][\s.]*)+)")
# Verbs and nouns that hold a sentence together and claim nothing by themselves.
_GLUE = frozenset(stem for stem in stems("called known named said according book passage text archives answer"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check found.  When ``ok``, ``passage`` (from 0) bears the sentence with ``[start:end]`` of its text."""

    ok: bool
    reason: str  # empty when ok
    passage: int = -1
    start: int = 0
    end: int = 0


def claim_of(sentence: str) -> str:
    """The sentence without its citations."""
    return _ANY_BRACKET.sub("", sentence).strip()


def check(sentence: str, passages: Sequence[StoredPassage]) -> Verdict:
    """Whether one sentence of a draft may be shown.  ``[n]`` counts ``passages`` from 1; one good citation suffices,
    but every number must exist."""
    numbers = [int(n) for n in _CITATION.findall(sentence)]
    if not numbers:
        return Verdict(False, "no citation")
    if any(not 1 <= n <= len(passages) for n in numbers):
        return Verdict(False, "cites a passage that does not exist")
    claim = claim_of(sentence)
    verdicts = [supported(claim, passages[n - 1], n - 1) for n in dict.fromkeys(numbers)]
    return next((verdict for verdict in verdicts if verdict.ok), verdicts[0])


def supported(claim: str, passage: StoredPassage, number: int = 0) -> Verdict:
    """Whether ``passage`` says what ``claim`` says, and where."""
    needed = [word for word in content(claim) if word.stem not in _GLUE]
    if not needed:
        return Verdict(False, "says nothing")
    heading = stems(passage.heading)
    spans = [(a, b) for a, b in sentences(passage.text) if not is_instruction(passage.text[a:b])]
    held = [stems(passage.text[a:b]) for a, b in spans]
    everything = heading.union(*held)
    for word in needed:
        if word.stem not in everything:
            return Verdict(False, f"{_what(word)} “{word.raw}” is not in the passage")
    wanted = {word.stem for word in needed}
    best: tuple[float, int, int] | None = None  # share, -length, start of the window
    for size in range(1, WINDOW + 1):
        for at in range(len(spans) - size + 1):
            here = heading.union(*held[at : at + size])
            # Something of the claim must be in the sentence itself: a heading alone proves nothing.
            fresh = len(wanted & set().union(*held[at : at + size]))
            rank = (len(wanted & here) / len(wanted), fresh, -size, at)
            if fresh and (best is None or rank[:3] > (best[0], best[1], best[2])):
                best, window = (rank[0], rank[1], rank[2]), (at, at + size)
    if best is None or best[0] < CLOSE:
        return Verdict(False, "its words are scattered over the passage")
    start, end = spans[window[0]][0], spans[window[1] - 1][1]
    said = passage.text[start:end]
    if bool(DENIAL.search(claim)) != bool(DENIAL.search(said)) and (
        DENIAL.search(claim) or _denies_all(said) or denied_near(claim, said)
    ):
        return Verdict(False, "one of the two is a denial")
    return Verdict(True, "", number, start, end)


def _denies_all(said: str) -> bool:
    """Whether a short passage is one denial: in a long one the *not* may belong to something else."""
    return len(said.split()) <= 15 and DENIAL.search(said) is not None


def _what(word: Word) -> str:
    return "number" if word.is_number else "name" if word.is_capital else "word"


def split(text: str, finished: bool = True) -> tuple[list[str], str]:
    """Whole sentences of a draft with their citations, and the tail that may still grow (empty when ``finished``).

    A citation after the full stop (“… Cintra. [1] She …”) belongs to the sentence before it.
    """
    joined: list[str] = []
    begins: list[int] = []
    for a, b in sentences(text):
        piece = text[a:b]
        leading = _LEADING.match(piece)
        if leading and joined and not _CITATION.search(joined[-1]):
            joined[-1] += " " + leading[1].strip(" .")
            a, piece = a + leading.end(), piece[leading.end() :].strip()
        if piece:
            joined.append(piece)
            begins.append(a)
    if finished or not joined:
        return joined, "" if finished else text
    # The last sentence is whole only when something follows it; and a bracket may be the beginning of a citation.
    held = min(len(joined), 2 if joined[-1].startswith("[") else 1)
    return joined[:-held], text[begins[-held] :]


def has_words(text: str) -> bool:
    return bool(words(claim_of(text)))
