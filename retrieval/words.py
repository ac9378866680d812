"""Words of a question and of a name, cut the same way, so that the two can be compared."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from corpus.store import fold

MAX_CHARACTERS = 8_000
"""A question is cut to this length before anything looks at it; nobody asks for longer, pasted books aside."""
MAX_WORD = 64
"""Longer runs of letters are no words of any language that a wiki about the Witcher would hold."""

APOSTROPHES = "'’‘ʼʻ`´′＇"
_WORD = re.compile(rf"[^\W_]+(?:[{APOSTROPHES}][^\W_]+)*")
_POSSESSIVE = re.compile(rf"(?<=\w)[{APOSTROPHES}]s\b", re.IGNORECASE)
_ENDING = re.compile(rf"(?:n[{APOSTROPHES}]t|[{APOSTROPHES}](?:s|d|ll|m|re|ve))$", re.IGNORECASE)

_NOTE = re.compile(r"\s*\([^()]*\)\s*$")

_STOP_WORDS = """
    a about am an and any are arent as at be been being but by ca can cant could couldnt describe did didnt do does
    doesnt dont explain few for from give had hadnt has hasnt have havent he her hers him his how hows i if im in into
    is isnt it its ive just know let me mean meant more most my of on or our please say she should shouldnt so some
    tell than that thats the their them then there theres these they theyre theyve this those to too under us was
    wasnt we were werent weve what whats when where wheres which while who whod whom whos whose why will with wo wont
    would wouldnt you your youre youve"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that a question is asked with rather than about."""


@dataclass(frozen=True, slots=True)
class Word:
    """``text`` as the full-text index folds it; ``key`` lower case without accents; where it stands in the text."""

    text: str
    key: str
    start: int
    end: int

    @property
    def stop(self) -> bool:
        """Whether questions are asked with it rather than about it."""
        return self.key in STOP_WORDS


def clean(question: str) -> str:
    """Composed Unicode without lone surrogates (which neither SQLite nor a tokenizer accepts), cut to length."""
    sound = question[:MAX_CHARACTERS].encode("utf-8", "ignore").decode()
    return unicodedata.normalize("NFKC", sound)[:MAX_CHARACTERS].strip()


def key(text: str) -> str:
    """Case, accents and apostrophes do not tell names apart: Eithné = Eithne, Scoia'tael = scoiatael."""
    letters = unicodedata.normalize("NFKD", fold(text))
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).lower()


def plain(text: str) -> str:
    """Words alone, one space between them and one on either side: so ``in`` finds whole words, however spelt.

    A possessive is no part of a word: "a slyzard's tail" holds "slyzard".  A text without any word becomes blank, which
    no other text holds.
    """
    letters = key(_POSSESSIVE.sub("", text))
    return " " + " ".join("".join(letter if letter.isalnum() else " " for letter in letters).split()) + " "


def bare(word: str) -> str:
    """A word without what is only hung on: a possessive ``'s``, ``'d``, ``n't`` and the like."""
    return _ENDING.sub("", word)


def without_note(title: str) -> str:
    """A title without the note that tells it from others: "Ciri (novel)" is also just "Ciri"."""
    return _NOTE.sub("", title)


def split(text: str) -> list[Word]:
    """Words of a ``clean`` text in order.  What :func:`bare` takes off is no part of a word."""
    words = []
    for match in _WORD.finditer(text):
        word = bare(match[0])
        folded = fold(word)
        if folded and len(folded) <= MAX_WORD:
            words.append(Word(folded, key(word), match.start(), match.start() + len(word)))
    return words
