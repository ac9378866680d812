"""What a question asks for: its kind, the words that an answer must touch, the articles it names.

Everything here is read off the question and the archive's vocabulary; no model is involved, so it costs a few
milliseconds and can be explained to a reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from app.lexicon import ALTERNATIVES, EVERYDAY, KIND_WORDS, UNSAID
from app.text import Word, content, forms, words
from corpus import canon
from corpus.store import Store, fold
from corpus.types import Canon
from retrieval.names import Names
from retrieval.words import bare, clean, split

Kind = Literal["person", "time", "place", "count", "reason", "manner", "yesno", "definition", "thing"]

# "Isn't", "didnt": what is asked is the same.
_YES_OR_NO = r"(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would)(?:n['’]?t)?\b"
# "In the show, do mages …": what comes before says where or when, not what is asked.
_SETTING = re.compile(
    rf"^\W*(?:in|on|at|during|after|before|if|when|since)\b[^?,:]{{1,80}}[,:]?\s+(?={_YES_OR_NO})", re.I
)
_QUESTION_WORD = re.compile(r"\b(?:whom|whose|which|(?:who|what|when|where|why|how)(?:['’]?s)?)\b", re.I)
_KINDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (
        "count",
        re.compile(
            r"\bhow (?:many|much|old|long|tall|far|big|large|often)\b|\bwhat (?:number|age)\b"
            r"|^\W*(?:the )?number of\b",
            re.I,
        ),
    ),
    (
        "time",
        re.compile(
            r"\bwhen(?:['’]?s)?\b|\b(?:what|which|in what|in which) (?:year|date|century|day|month)\b"
            r"|\b(?:year|date|day) of (?:birth|death|release|publication)\b|\b(?:birth|death|release) (?:year|date)\b",
            re.I,
        ),
    ),
    (
        "place",
        re.compile(
            r"\bwhere(?:['’]?s)?\b|\b(?:what|which) (?:city|town|country|kingdom|place|village|land|region)\b", re.I
        ),
    ),
    (
        "person",
        re.compile(
            r"\bwho(?:m|se|['’]?s)?\b|^\W*(?:the )?(?:killer|murderer|slayer|author|actor|actress|ruler|leader) of\b"
            r"|\b(?:what|which) (?:person|sorceress|king|queen|witcher(?! (?:game|book|school))|actor)\b",
            re.I,
        ),
    ),
    (
        "reason",
        re.compile(
            r"\bwhy(?:['’]?s)?\b|\breasons? (?:for|why)\b|\bwhat(?:['’]?s| was| is) the reason\b|\bhow come\b", re.I
        ),
    ),
    ("manner", re.compile(r"\bhow(?:['’]?s)?\b|^\W*(?:the )?(?:\w+ )?way to\b", re.I)),
    ("yesno", re.compile(rf"^\W*(?:(?:so|and|but|or|also|then|well|ok|okay)\W+)?{_YES_OR_NO}", re.I)),
)
_PORTRAIT = re.compile(
    r"^\W*(?:(?:who|what)(?:['’]?s| is| are| was| were)|(?:please )?(?:tell me|talk|know)\b.{0,20}\babout|describe"
    r"|explain|define)\b",
    re.I,
)


# "Do you know who Letho is?"  "What year the battle was" asks for something else.
_PORTRAIT_ENDS = re.compile(r"^\W*(?:who|what) .{1,60}\b(?:is|are|was|were)\W*$", re.I)

# "What is Tissaia's cat called?" asks for something that has a word of its own; a trade or a fate may be told without.
_POSSESSION = re.compile(
    r"^\W*(?:what|who|which)(?:['’]?s| is| are| was| were)\b[^?]*?['’]s?\s+(?P<thing>[^'’?.,;:]{2,40}?)"
    r"(?:\s+(?:called|named|like))?\W*$",
    re.I,
)
_OWNS = re.compile(r"['’]s?\s")

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
    possession: str = ""  # stem of what somebody is said to have: "cat" in "What is Tissaia's cat called?"

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
    setting = _SETTING.match(text)
    if setting and not _QUESTION_WORD.search(setting[0]):
        text = text[setting.end() :]
    found = [(match.start(), order, kind) for order, (kind, rule) in enumerate(_KINDS) if (match := rule.search(text))]
    return min(found)[2] if found else "thing"


# "Hey Cirilla, could you please tell me who …": by its name, and politely.
_CALLED = re.compile(
    r"^\W*(?:(?:hey|hi|hello|ok|okay|dear|yo)\s+cirilla\b[\s,:;!.–—-]*|cirilla\s*[,:;!]\s*)(?=\w)"
    r"|,\s*cirilla\s*(?=[?!.]*\s*$)",
    re.I,
)
_POLITE = (
    re.compile(
        r"^\W*(?:please\W+)?(?:can|could|would|will) you (?:please )?(?=(?:tell|explain|describe|name|list)\b)", re.I
    ),
    re.compile(r"^\W*do you (?=know\b.{0,20}\babout\b)", re.I),
    re.compile(
        r"^\W*(?:please\W+)?(?:(?:tell|remind) (?:me|us)|do you (?:happen to )?(?:know|remember)|any idea|i wonder"
        r"|(?:i|we)(?:['’]d| would) (?:like|love) to know|(?:i|we) (?:want|need) to know)\W+"
        rf"(?={_QUESTION_WORD.pattern})",
        re.I,
    ),
)
# "… plz lol", "…, i mean", "…, i cant remember": what is typed behind a question.
_AFTER = re.compile(
    r"(?:[\s,;.!?()–—-]+(?:plz|pls|please|thx|thanks|ty|lol|lmao|haha+|hehe|btw|idk|tbh|imo"
    r"|(?<=[,;.!?–—-] )(?:tho|though|again|exactly|anyone)"  # "does he trust anyone?" asks that
    r"|i (?:mean|think|guess|forgot|forget|wonder)|i (?:can['’]?t|cannot|don['’]?t) (?:remember|recall|know)))+"
    r"(?P<end>[\s?!.]*)$",
    re.I,
)
# "New question: …", "Also unrelated, …"
_ASIDE = re.compile(
    r"^\W*(?:(?:ok(?:ay)?|and|also|so|well)\W+)*(?:(?:something|totally|completely|an?|one)\s+)?"
    r"(?:unrelated|off[ -]topic|different topic|(?:new|next|other|another|different|last) (?:question|topic|one))"
    r"(?:\s+(?:question|topic|though|but))?\s*[:,;–—-]\s*(?=\w)",
    re.I,
)
_FIRST_PERSON = re.compile(r"\b(?:i|me|my|mine|we|us|our)\b", re.I)
_CHAT = re.compile(
    r"^\W*(?:ok|okay|right|hey|hi|hello|so|well|thanks|thank you|cheers|btw|by the way|anyway|moving on|next"
    r"|(?:an? |one )?(?:new|other|another|different|quick|last|more)\b.{0,20}\b(?:topic|question|one|thing|subject))\b",
    re.I,
)
_ASKS = re.compile(rf"{_QUESTION_WORD.pattern}|^\W*{_YES_OR_NO}", re.I)
POINTS_BACK = re.compile(
    r"\b(?:he|him|his|she|her|hers|it|its|they|them|their|this|that|these|those|there|one)\b", re.I
)
_CLAUSE = re.compile(r"[,:;–—-]\s+|\s+(?:so|and was wondering|but)\s+(?=[a-z])")


def changes_topic(text: str, names: Sequence[str]) -> bool:
    """Whether a turn says itself that it is about something else, and no pronoun stands before its first name.

    "Something unrelated: who leads the dryads?" does; "Next question: where was she born?" goes on about her.
    """
    aside = _ASIDE.match(text)
    if aside is None:
        return False
    rest = text[aside.end() :]
    first = min((at for at in map(rest.find, names) if at >= 0), default=len(rest))
    return POINTS_BACK.search(rest[:first]) is None


def core(text: str, names_any: Callable[[str], bool]) -> str:
    """The question itself, without what a speaker says of himself or to be polite before or after it.

    "I've only seen the show and was wondering: who is Duny?" asks who Duny is.  Polite openings go, and the chat's own
    name where it is called by it (it is Ciri's, too).  A sentence goes, or a clause in front of the question, when it
    is in the first person or mere chat and names nothing that the archive knows (``names_any``); the question must name
    something, and not point back with a pronoun.
    """

    text = _CALLED.sub("", text)
    for form in _POLITE:
        text = form.sub("", text)
    text = _ASIDE.sub("", text)
    text = _AFTER.sub(lambda match: match["end"], text)

    def idle(part: str) -> bool:
        return bool(_FIRST_PERSON.search(part) or _CHAT.search(part)) and not names_any(part)

    parts = [part for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]
    asking = [at for at, part in enumerate(parts) if part.rstrip().endswith("?")]
    asking = asking or [at for at, part in enumerate(parts) if _ASKS.search(part)]
    if not asking:
        return text
    question = parts[asking[-1]]
    if POINTS_BACK.search(question) or not names_any(question):
        return text
    for match in _CLAUSE.finditer(question):
        rest = question[match.end() :]
        if _ASKS.search(question[: match.start()]):
            break
        if idle(question[: match.start()]) and _ASKS.match(rest) and names_any(rest):
            question = rest
            break
    kept = [question if at == asking[-1] else part for at, part in enumerate(parts)]
    return " ".join(part for at, part in enumerate(kept) if at == asking[-1] or not idle(part))


_WHOLE = re.compile(r"(?<![\w'’])[^\W\d_]+(?![\w]|['’](?!s\b))")  # "ma", and in "ma's", not in "ma'am"


def bookish(text: str, vocabulary: Vocabulary) -> str:
    """A question with the words of an encyclopaedia: *dad* becomes *father* where the archive says *father* alone.

    Neither search nor second stage has seen enough text to know that the two are one; :data:`app.lexicon.EVERYDAY` is
    the floor until they do.  A word that the archive itself often uses stays.
    """

    def said(match: re.Match[str]) -> str:
        word = match[0].casefold()
        head = EVERYDAY.get(word) if match[0] == word or match.start() == 0 else None  # capitals: a name
        return head if head and vocabulary.count(head) > 4 * vocabulary.count(word) else match[0]

    return _WHOLE.sub(said, text)


_TELLINGS: tuple[tuple[Canon, re.Pattern[str]], ...] = (
    ("tv", re.compile(r"\b(?:in|on) the (?:tv )?(?:show|series)\b|\bon (?:tv|screen)\b", re.I)),
    (
        "games",
        re.compile(r"\b(?:witcher|tw|w) ?[123]\b|\b(?:first|second|third) (?:(?-i:Witcher)|witcher game)\b", re.I),
    ),
)


def telling_of(text: str) -> Canon:
    """The telling that a question names, more loosely than a heading would: "in the show", "Witcher 2"."""
    return canon.of_heading(text) or next((name for name, rule in _TELLINGS if rule.search(text)), "")


def _title_case(said: Sequence[Word]) -> bool:
    """Whether Every Word Is Written Like This, so that a capital says nothing about names."""
    small = [word for word in said[1:] if word.is_stop and word.raw != "I"]
    # One of them alone may open a title: "Who wrote The Last Wish?"
    return len(small) > 1 and all(word.is_capital for word in small)


def _known(word: Word, vocabulary: Vocabulary) -> bool:
    others = (*forms(bare(word.raw)), *ALTERNATIVES.get(word.stem, ()))
    return vocabulary.count(bare(word.raw)) > 0 or any(map(vocabulary.count, others))


def analyse(text: str, names: Names, vocabulary: Vocabulary) -> Question:
    """Understand a stand-alone question.  Time is linear in its length; 2,000 characters take a few milliseconds."""
    cleaned = clean(text)
    split_words = split(cleaned)
    mentions = names.mentions(split_words)
    named = {
        word.start: frozenset(mention.pages)
        for mention in mentions
        for word in split_words[mention.start : mention.end]
    }
    pages = frozenset(page for mention in mentions for page in mention.pages)

    terms: dict[str, Term] = {}
    unknown: list[str] = []
    said = words(text)
    capitals_tell = not _title_case(said)
    first = said[0].start if said else 0
    for word in content(text):
        is_name = word.start in named or (word.is_capital and word.start != first and capitals_tell)
        known = _known(word, vocabulary)
        if not known and not word.is_number and len(word.raw) > 2 and word.start not in named:
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
    # "Geralt's horse" is no portrait of the horse as such.
    owned = any(
        one.end == other.start and _OWNS.match(cleaned, split_words[one.end - 1].end)
        for one, other in pairwise(mentions)
    )
    rest = [term for term in terms.values() if not term.is_name and term.stem not in KIND_WORDS]
    portrait = _PORTRAIT.match(text) or (_PORTRAIT_ENDS.match(text) and all(term.is_name for term in terms.values()))
    if terms and not rest and pages and not owned and (portrait or len(said) == len(terms)):
        kind = "definition"
    return Question(
        text, kind, tuple(terms.values()), pages, tuple(dict.fromkeys(unknown)),
        telling_of(text), _LIST.search(text) is not None, _possession(text),
    )  # fmt: skip


def _possession(text: str) -> str:
    asked = _POSSESSION.match(text)
    said = words(asked["thing"]) if asked else []
    if not 0 < len(said) <= 3 or any(word.is_stop for word in said):
        return ""
    while said and said[-1].stem in KIND_WORDS:  # the middle name: whoever answers says "middle"
        said.pop()
    return said[-1].stem if said and said[-1].stem not in UNSAID else ""
