"""Corrects misspelt names: yenefer → Yennefer, gearlt → Geralt, scoiatel → Scoia'tael.

Readers misspell invented names more than anything else, and neither BM25 nor a small encoder forgives it.  A word is
corrected only when no passage of the archive holds it, so a name that is spelt right is never touched, and only to a
word of a title or an alias.  Distance is optimal string alignment (Damerau 1964: insertion, deletion, substitution,
transposition of neighbours), computed by rapidfuzz.
"""

from __future__ import annotations

from collections.abc import Mapping

from rapidfuzz import process
from rapidfuzz.distance import OSA, JaroWinkler

MIN_LENGTH = 4
"""Shorter words have too many neighbours: "cat" is one letter from half a dozen names."""

# First letters that sound alike, so Siri may be Ciri, while a short word that begins differently is another word.
_SOUNDS = ("ckqs", "sz", "vwf", "iyje", "gj", "fp", "ao", "td")


class Speller:
    """Corrections out of ``vocabulary``: word (as ``words.key`` spells it) → how many titles and aliases hold it."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._vocabulary = vocabulary
        self._by_length: dict[int, list[str]] = {}
        for word in sorted(vocabulary):
            if len(word) >= MIN_LENGTH:
                self._by_length.setdefault(len(word), []).append(word)

    def correct(self, word: str) -> str | None:
        """The word that ``word`` (a key) was probably meant to be; None when it is one already or nothing is near.

        Up to five letters may hold one mistake and must begin with a like sound, up to ten two, longer words three.
        Among equally near words the one that shares the longer beginning wins (Jaro-Winkler), then the commoner.
        """
        if len(word) < MIN_LENGTH or not word.isalpha() or word in self._vocabulary:
            return None
        allowed = 1 if len(word) <= 5 else 2 if len(word) <= 10 else 3
        best: tuple[float, float, int, str] | None = None
        for length in range(len(word) - allowed, len(word) + allowed + 1):
            choices = self._by_length.get(length, [])
            for choice, distance, _ in process.extract(
                word, choices, scorer=OSA.distance, score_cutoff=allowed, limit=None
            ):
                # Two mistakes in six letters are believed only where the beginning is right.
                if (distance > 1 or len(word) <= 5) and not _alike(word[0], choice[0]):
                    continue
                rank = (distance, -JaroWinkler.similarity(word, choice), -self._vocabulary[choice], choice)
                best = rank if best is None else min(best, rank)
        return best[-1] if best else None


def _alike(a: str, b: str) -> bool:
    return a == b or any(a in sounds and b in sounds for sounds in _SOUNDS)
