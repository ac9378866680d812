"""What a question asks for: its kind, the words that an answer must touch, the articles it names.

Everything here is read off the question and the archive's vocabulary; no model is involved, so it costs a few
milliseconds and can be explained to a reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from app.lexicon import ALTERNATIVES, KIND_WORDS
from app.text import Word, content, forms, words
from corpus import canon
from corpus.store import Store, fold
from corpus.types import Canon
from retrieval.names import Names
from retrieval.words import bare, clean, split

Kind = Literal["person", "time", "place", "count", "reason", "manner", "yesno", "definition", "thing"]

_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("count", re.compile(r"\bhow (?:many|much|old|long|tall|far|big|large|often)\b|\bwhat number\b", re.I)),
    ("time", re.compile(r"\bwhen\b|\b(?:what|which|in what|in which) (?:year|date|century|day|month)\b", re.I)),
    (
        "place",
        re.compile(r"\bwhere\b|\b(?:what|which) (?:city|town|country|kingdom|place|village|land|region)\b", re.I),
    ),
    ("person", re.compile(r"\bwho(?:m|se)?\b|\b(?:what|which) (?:person|sorceress|king|queen|witcher|actor)\b", re.I)),
    ("reason", re.compile(r"\bwhy\b|\bwhat (?:was|is) the reason\b|\bhow come\b", re.I)),
    ("manner", re.compile(r"\bhow\b", re.I)),
    ("yesno", re.compile(r"^\W*(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would)\b", re.I)),
)
_PORTRAIT = re.compile(
    r"^\W*(?:(?:who|what)(?:['’]s| is| are| was| were)|(?:please )?(?:tell me|talk|know)\b.{0,20}\babout|describe"
    r"|explain|define|what happened)\b",
    re.I,
)


# Several things are asked for.  Only the layout and the number of quotes hang on it.
_LIST = re.compile(
    r"\b(?:list|name|enumerate)\s+(?:all|every|each|the|some|a few|any|two|three|four|five|six|\d+)\b"
    r"|\b(?:which|what)\s+(?:two|three|four|five|six|seven|\d+)\b"
    r"|\bwho\s+(?:are|were|all)\b|\bwhat\s+(?:are|were)\b(?! (?:you|the (?:difference|meaning))\b)"
    r"|\b(?:which|what)\s+(?:\w+\s){0,2}?\w{2,}[^s\W]s\s+(?:are|were|do|did|have|can|make|belong|grow)\b"
    r"|\b(?:ingredients|members|children|siblings|parents|lovers|powers|abilities|allies|names|kinds|types) of\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Term:
    """A content word of a question: what it weighs (rarity in the archive, 0–1) and what may stand for it."""

    stem: str
    weight: float
    is_name: bool
    alternatives: frozenset[str]
    pages: frozenset[int] = frozenset()  # the articles that it names, as part of a title or an alias


@dataclass(frozen=True, slots=True)
class Question:
    """A stand-alone question, understood as far as words go."""

    text: str
    kind: Kind
    terms: tuple[Term, ...]
    pages: frozenset[int]  # pages.id of the articles it names
    unknown: tuple[str, ...]  # words that no passage of the archive holds, as the user spelt them
    canon: Canon = ""  # the telling that the wording names ("in the books"), if it names one
    wants_list: bool = False

    @property
    def stems(self) -> frozenset[str]:
        return frozenset(term.stem for term in self.terms)


class Vocabulary:
    """How many passages hold a word, asked of the full-text index and remembered."""

    def __init__(self, count: Callable[[str], int], passages: int) -> None:
        self.count, self.passages = lru_cache(maxsize=8192)(count), max(1, passages)

    @classmethod
    def of(cls, store: Store) -> Vocabulary:
        def count(word: str) -> int:
            sql = "SELECT count(*) AS n FROM passages_fts WHERE passages_fts MATCH ?"
            return store.rows(sql, ['"' + fold(word).replace('"', "") + '"'])[0]["n"]

        return cls(count, store.rows("SELECT count(*) AS n FROM passages")[0]["n"])

    def weight(self, word: str) -> float:
        """Inverse document frequency scaled to 0–1; a word that the archive lacks weighs 1."""
        return math.log(1 + self.passages / (1 + self.count(word))) / math.log(1 + self.passages)


def kind_of(text: str) -> Kind:
    """The kind of answer that the wording asks for; the earliest question word wins."""
    found = [(match.start(), order, kind) for order, (kind, rule) in enumerate(_KINDS) if (match := rule.search(text))]
    return min(found)[2] if found else "thing"


def _known(word: Word, vocabulary: Vocabulary) -> bool:
    others = (*forms(bare(word.raw)), *ALTERNATIVES.get(word.stem, ()))
    return vocabulary.count(bare(word.raw)) > 0 or any(map(vocabulary.count, others))


def analyse(text: str, names: Names, vocabulary: Vocabulary) -> Question:
    """Understand a stand-alone question.  Time is linear in its length; 2,000 characters take a few milliseconds."""
    split_words = split(clean(text))
    mentions = names.mentions(split_words)
    named = {
        word.start: frozenset(mention.pages)
        for mention in mentions
        for word in split_words[mention.start : mention.end]
    }
    pages = frozenset(page for mention in mentions for page in mention.pages)

    terms: dict[str, Term] = {}
    unknown: list[str] = []
    first = next((word.start for word in words(text)), 0)
    for word in content(text):
        is_name = word.start in named or (word.is_capital and word.start != first)
        known = _known(word, vocabulary)
        if not known and not word.is_number and len(word.raw) > 2:
            unknown.append(bare(word.raw))
        weight = vocabulary.weight(bare(word.raw))
        if word.stem in KIND_WORDS and not is_name:
            weight *= 0.2
        alternatives = ALTERNATIVES.get(word.stem, frozenset())
        if word.stem not in terms:
            terms[word.stem] = Term(
                word.stem, max(weight, 0.05), is_name, alternatives, named.get(word.start, frozenset())
            )

    kind = kind_of(text)
    rest = [term for term in terms.values() if not term.is_name and term.stem not in KIND_WORDS]
    if terms and not rest and pages and (_PORTRAIT.match(text) or len(words(text)) == len(terms)):
        kind = "definition"
    return Question(
        text, kind, tuple(terms.values()), pages, tuple(dict.fromkeys(unknown)),
        canon.of_heading(text), _LIST.search(text) is not None,
    )  # fmt: skip
