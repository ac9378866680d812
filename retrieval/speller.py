"""Corrects misspelt names: yenefer → Yennefer, gearlt → Geralt, scoiatel → Scoia'tael.

Readers misspell invented names more than anything else, and neither BM25 nor a small encoder forgives it.  A word is
corrected only when no passage of the archive holds it, so a name that is spelt right is never touched, only to a word
of a title or an alias, and never when it is a common English word: "hell" is not Hill.  Whoever mistakes two letters
still writes what he hears, so the consonants must agree: Alduin, who belongs to another world, is not Alvin.  Distance
is optimal string alignment (Damerau 1964: insertion, deletion, substitution, transposition of neighbours), computed by
rapidfuzz.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from rapidfuzz import process
from rapidfuzz.distance import OSA, JaroWinkler
from spellchecker import SpellChecker

MIN_LENGTH = 4
"""Shorter words have too many neighbours: "cat" is one letter from half a dozen names."""

COMMON = 500
"""Occurrences that make a word of pyspellchecker's English list a common one: *grumpy* has 3,192, *Gerald* 296."""
LONG = 7
"""Letters up to which two mistakes must leave every consonant in its place."""
FAME = 0.03
"""What ten times as many passages are worth to a name, in Jaro-Winkler similarity: "siri" is Ciri rather than Sigi."""

# First letters that sound alike, so Siri may be Ciri, while a short word that begins differently is another word.
_SOUNDS = ("ckqs", "sz", "vwf", "iyje", "gj", "fp", "ao", "td")
# Spellings of one sound → one letter; what is left of a word without its vowels is what is heard of it.
_SPELLINGS = tuple(
    (re.compile(spelling), sound)
    for spelling, sound in (
        ("(?<=.)s$", ""), ("ph", "f"), ("x", "ks"), ("[cq]", "k"), ("z", "s"), ("w", "v"), ("j", "g"), ("d", "t"),
        ("[aeiouyh]", ""), (r"(.)\1+", r"\1"),
    )
)  # fmt: skip
_DOUBLED = re.compile(r"(.)\1+")
_SILENT = re.compile("(?<=.)h")
# British endings that pyspellchecker's list, an American one, lacks → how they are spelt there.
_BRITISH = tuple(
    (re.compile(british), american)
    for british, american in (
        ("is(e[drs]?|ing|ation|ations)$", r"iz\1"), ("ys(e[drs]?|ing)$", r"yz\1"), ("our", "or"), ("re(s?)$", r"er\1"),
        ("ll(ed|ing|ers?)$", r"l\1"), ("ence(s?)$", r"ense\1"), ("ogue(s?)$", r"og\1"), ("^re", ""),
    )
)  # fmt: skip


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
        A doubled letter or an h is the least mistake of all; then of equally near words the one wins that shares the
        longer beginning (Jaro-Winkler) or stands in more passages.
        """
        if len(word) < MIN_LENGTH or not word.isalpha() or word in self._vocabulary or is_english(word):
            return None
        allowed = 1 if len(word) <= 5 else 2 if len(word) <= 10 else 3
        single, rare = _single(word), word in _english()
        best: tuple[bool, float, float, int, str] | None = None
        for length in range(len(word) - allowed, len(word) + allowed + 1):
            choices = self._by_length.get(length, [])
            for choice, distance, _ in process.extract(
                word, choices, scorer=OSA.distance, score_cutoff=allowed, limit=None
            ):
                # Two mistakes in six letters are believed only where the beginning is right.
                if (distance > 1 or len(word) <= 5) and not _alike(word[0], choice[0]):
                    continue
                other = single != _single(choice)
                if distance > 1 and other and not _sounds_like(word, choice):
                    continue
                # A rare English word may be a misspelt name (Gerald), but is hardly another English word (codex: code).
                if rare and (distance > 1 or choice in _english()) and _sound(word) != _sound(choice):
                    continue
                # Nobody mistakes the first letter of an English word: Eragon is no dragon.
                if not _alike(word[0], choice[0]) and is_english(choice):
                    continue
                # A name of another world is no misspelt English word: Mordor is not murder.
                if distance > 1 and len(word) <= 6 and choice in _english():
                    continue
                likeness = JaroWinkler.similarity(word, choice) + FAME * math.log10(1 + self._passages(choice))
                rank = (other, distance, -likeness, -self._vocabulary[choice], choice)
                best = rank if best is None else min(best, rank)
        return best[-1] if best else None


@lru_cache(maxsize=1)
def _english() -> Mapping[str, int]:
    return dict(SpellChecker().word_frequency.items())


def is_english(word: str) -> bool:
    """Whether a word, or what Americans or its bare verb make of it, is a common one: *realise*, *rereading*."""
    variants = (word, *(british.sub(american, word) for british, american in _BRITISH))
    return any(_english().get(variant, 0) >= COMMON for variant in variants)


def plain(word: str) -> list[str]:
    """Common English words one mistake from a word that is none itself, the commonest first: *ingridients*.

    Short words have too many neighbours, and nobody mistakes the first letter.
    """
    if len(word) <= LONG or not word.isalpha() or is_english(word):
        return []
    near = process.extract(word, _common(word[0]), scorer=OSA.distance, score_cutoff=1, limit=None)
    return sorted((choice for choice, _, _ in near), key=lambda choice: -_english()[choice])


@lru_cache(maxsize=32)
def _common(letter: str) -> list[str]:
    return [word for word, times in _english().items() if times >= COMMON and word[0] == letter]


def _alike(a: str, b: str) -> bool:
    return a == b or any(a in sounds and b in sounds for sounds in _SOUNDS)


def _single(word: str) -> str:
    """The word without doubled letters and without an h that is not heard: *Phillipa*, *Moren*."""
    return _DOUBLED.sub(r"\1", _SILENT.sub("", word))


def _sounds_like(a: str, b: str) -> bool:
    """Whether two words have the same consonants; long ones may differ in one."""
    allowed = 1 if max(len(a), len(b)) > LONG else 0
    return int(OSA.distance(_sound(a), _sound(b))) <= allowed


def _sound(word: str) -> str:
    for spelling, sound in _SPELLINGS:
        word = spelling.sub(sound, word)
    return word
