"""Corrects misspelt names: yenefer → Yennefer, gearlt → Geralt, scoiatel → Scoia'tael.

Readers misspell invented names more than anything else, and neither BM25 nor a small encoder forgives it.  A word is
corrected only when no passage of the archive holds it, so a name that is spelt right is never touched, only to a word
of a title or an alias, and never when it is a common English word: "hell" is not Hill.  Distance is optimal string
alignment (Damerau 1964: insertion, deletion, substitution, transposition of neighbours), computed by rapidfuzz.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

from rapidfuzz import process
from rapidfuzz.distance import OSA, JaroWinkler
from spellchecker import SpellChecker

MIN_LENGTH = 4
"""Shorter words have too many neighbours: "cat" is one letter from half a dozen names."""

COMMON = 500
"""Occurrences that make a word of pyspellchecker's English list a common one: *grumpy* has 3,192, *Gerald* 296."""
FAME = 0.03
"""What ten times as many passages are worth to a name, in Jaro-Winkler similarity: "siri" is Ciri rather than Sigi."""

# First letters that sound alike, so Siri may be Ciri, while a short word that begins differently is another word.
_SOUNDS = ("ckqs", "sz", "vwf", "iyje", "gj", "fp", "ao", "td")


class Speller:
    """Corrections out of ``vocabulary``: word (as ``words.key`` spells it) → how many titles and aliases hold it.

    ``passages(word)`` counts the passages that hold a word.
    """

    def __init__(self, vocabulary: Mapping[str, int], passages: Callable[[str], int]) -> None:
        self._vocabulary, self._passages = vocabulary, passages
        self._by_length: dict[int, list[str]] = {}
        for word in sorted(vocabulary):
            if len(word) >= MIN_LENGTH:
                self._by_length.setdefault(len(word), []).append(word)

    def correct(self, word: str) -> str | None:
        """The word that ``word`` (a key) was probably meant to be; None when it is one already or nothing is near.

        Up to five letters may hold one mistake and must begin with a like sound, up to ten two, longer words three.
        Of equally near words the one wins that shares the longer beginning (Jaro-Winkler) or stands in more passages.
        """
        if len(word) < MIN_LENGTH or not word.isalpha() or word in self._vocabulary or word in _english():
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
                # A name of another world is no misspelt English word: Mordor is not murder.
                if distance > 1 and len(word) <= 6 and choice in _english():
                    continue
                likeness = JaroWinkler.similarity(word, choice) + FAME * math.log10(1 + self._passages(choice))
                rank = (distance, -likeness, -self._vocabulary[choice], choice)
                best = rank if best is None else min(best, rank)
        return best[-1] if best else None


@lru_cache(maxsize=1)
def _english() -> frozenset[str]:
    return frozenset(word for word, count in SpellChecker().word_frequency.items() if count >= COMMON)


def _alike(a: str, b: str) -> bool:
    return a == b or any(a in sounds and b in sounds for sounds in _SOUNDS)
