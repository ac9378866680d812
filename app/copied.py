"""Where a draft's words come from: runs of words that stand in one of the passages that the decoder read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from app.text import words


@dataclass(frozen=True, slots=True)
class Run:
    """``draft[start:end]`` stands word for word in passage ``passage`` (from 1); ``words`` long."""

    start: int
    end: int
    passage: int
    words: int


def runs(draft: str, passages: Sequence[str]) -> list[Run]:
    """The draft's words cut greedily into the longest runs that a passage holds; what none holds is left out.

    Case and punctuation do not matter.  One word alone counts only when it carries meaning: *the* is everywhere.  Of
    passages with equally long runs the first wins, which is the one that the search liked best.
    """
    texts = [[word.raw.casefold() for word in words(passage)] for passage in passages]
    at: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, text in enumerate(texts):
        for position, word in enumerate(text):
            at[word].append((number, position))
    said = words(draft)
    folded = [word.raw.casefold() for word in said]
    found: list[Run] = []
    here = 0
    while here < len(said):
        length, passage = 0, 0
        for number, position in at.get(folded[here], ()):
            text, n = texts[number], 0
            while here + n < len(folded) and position + n < len(text) and folded[here + n] == text[position + n]:
                n += 1
            if n > length:
                length, passage = n, number
        if length > 1 or (length == 1 and not said[here].is_stop):
            found.append(Run(said[here].start, said[here + length - 1].end, passage + 1, length))
        here += max(1, length)
    return found


def of_pieces(pieces: Sequence[str], passages: Sequence[str]) -> list[Run | None]:
    """For each piece (token) of a draft the run that it belongs to, by the piece's middle; None for the others."""
    draft = "".join(pieces)
    found = runs(draft, passages)
    out: list[Run | None] = []
    at = 0
    for piece in pieces:
        bare = piece.strip()
        first = at + (len(piece) - len(piece.lstrip()))
        middle = first + len(bare) / 2
        out.append(next((run for run in found if bare and run.start <= middle <= run.end), None))
        at += len(piece)
    return out
