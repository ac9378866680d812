"""Lists over articles: "list all witcher oils", "which monsters are weak to Moon Dust?", "how many schools are there?"

No single passage holds such an answer.  What an article is about is read off its infobox (``class: oil``, ``profession:
sorceress``) or its first sentence ("… is a witcher school whose …"); a condition, where there is one, off a row of its
infobox (``bomb: Moon Dust``) or that sentence.  That row or sentence is what each item of the list cites.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from app.evidence import is_instruction
from app.lexicon import ALTERNATIVES, KIND_WORDS
from app.text import Word, content, forms, stem, stems, words
from corpus.chunk import sentences
from corpus.store import Store, StoredPassage
from corpus.types import FACTS_PATH
from retrieval.words import key, without_note

SHOWN = 20  # articles in a list at most
LEAST = 3  # articles that make a list; with a condition or an exception one less
EXCEPTION = 3  # words of what is not wanted, at most: "except the School of the Wolf" has two
PHRASE = 4  # words of what is listed, at most: "medium witcher armour sets"

# "List all …", "name every …", "give me a list of the …"
_ORDER = re.compile(
    r"^\W*(?:list|name|enumerate|show|(?:give|tell) (?:me|us))\s+(?:me\s+|us\s+)?"
    r"(?:an? (?:full |complete )?list of\s+)?"
    r"(?P<which>(?:(?:all|every|each|the|some|any|of|different|known|various|types?|kinds?|sorts?|two|three|four|five"
    r"|six|seven|ten|\d+)\s+)*)(?P<rest>[^?.!]+)",
    re.I,
)
# "What … are there?", "Which … are weak to …?", "What are the kinds of …?", "Who are the … of …?"
_QUESTION = re.compile(
    r"^\W*(?:what|which|who)\s+(?!(?:are|were)\s+(?!all\b|the\b|some\b|different\b|kinds\b|types\b|sorts\b))"
    r"(?:(?:are|were)\s+)?(?P<which>(?:(?:all|the|some|different|known|various|of|other|two|three|four|five|six|seven"
    r"|types?|kinds?|sorts?)\s+)*)(?P<rest>[^?.!]+)",
    re.I,
)
_COUNT = re.compile(
    r"^\W*how many\s+(?P<which>(?:(?:different|known|kinds?|types?|sorts?|of)\s+)*)(?P<rest>[^?.!]+)", re.I
)
_EVERY = re.compile(r"\b(?:every|each|kinds|types|sorts)\b", re.I)
_AFTER = re.compile(r"\s+(?:types?|kinds?|sorts?)\b", re.I)
_BUT = re.compile(r"\b(?:other th[ae]n|except(?: for)?|besides|apart from|but not)\b(?P<not>.*)$", re.I)
_ARE = re.compile(r"^\s*(?:are|were)\s+(?P<what>[^\W\d_]+)\W*$", re.I)
_NETFLIX = stem("netflix")
# What may follow a list that has no condition: "are there", "exist", "do you know", "in the world of the witcher"
_NO_CONDITION = re.compile(
    r"^\W*(?:(?:that )?(?:are|were) there|(?:do|did)? ?exist|(?:that )?(?:do )?(?:you|we) know(?: of)?|have we"
    r"|(?:in|of) (?:the |this )?(?:(?:witcher|whole|entire) )?(?:world|universe|franchise|archives?|lore|setting)"
    r"(?: of the witcher)?|in the witcher|please|then"
    r"|(?:can|do|does) (?:the |a )?(?:witchers?|geralt|i|you) (?:use|have|know|cast|make|brew|craft))*\W*$",
    re.I,
)
# A noun for what the archive calls by a kind; the words of an infobox or a lead come first.
_KINDS = {
    stem(word): kind
    for kind, names in {
        "creature": "monsters creatures", "quest": "quests", "place": "places locations", "character": "characters",
        "faction": "factions groups organisations organizations", "work": "works",
    }.items()
    for word in names.split()
}  # fmt: skip
_CLASS_LABELS = frozenset(map(stem, ("class", "type", "race", "species", "profession", "form", "kind")))
_APPEAR, _APPEARANCE = stem("appear"), stem("appearance")
_ALSO = {stem("book"): (stem("novel"), stem("collection"))}
_GENERIC = frozenset(
    map(stem, ("witcher", "known", "different", "main", "various", "important", "existing", "possible"))
)
# Relation of a question → labels of the rows that hold it, beside those of the lexicon.
_LABELS = {
    stem(word): frozenset(map(stem, labels.split()))
    for heads, labels in (
        ("weak weakness vulnerable susceptible hurt harm work affect kill beat", "weakness oil sign bomb effective"),
        ("effective good help use", "effective weakness oil sign bomb"),
        ("give start", "giver"),
        ("make develop publish create", "developer publisher creator author"),
        ("write", "author"),
        ("play", "role roles actor"),
        ("live found meet appear", "location occurrence region residence"),
        ("contain need require take use", "ingredients brewed"),
        ("belong join member", "affiliation"),
    )
    for word in heads.split()
    for labels in (labels,)
}
# "… is a large and cunning necrophage that …": what stands before the first of these is what the thing is.
_IS_A = re.compile(r"\b(?:is|are|was|were)\s+(?:an?|the|one of the)\s+(?P<what>[^.;:!?]+)", re.I)
_ENDS = re.compile(
    r"\b(?:who|which|that|whose|whom|of|from|in|at|with|for|to|on|by|used|made|known|called|near|among|under"
    r"|between|during|after|before|about|against|inside|within|beneath|behind|beyond|off|over|around|along|as|like|where|when"
    r"|is|was|are|were)\b|[(]",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Member:
    """An article of a list, and what says that it belongs there: ``passage.text[start:end]``."""

    title: str
    passage: StoredPassage
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Listed:
    """The articles of a list in alphabetical order, ``SHOWN`` at most, and how many there are."""

    members: tuple[Member, ...]
    of: int
    noun: str  # stem of the word for what they are
    counted: bool = False  # their number was asked for


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be listed: its noun, the words before that, and what is asked of it besides."""

    noun: str
    before: frozenset[str]
    condition: tuple[Word, ...]
    most: int
    without: frozenset[str]  # stems of the titles that are not wanted


@dataclass(frozen=True, slots=True)
class _Line:
    """A row of an infobox, or the first sentence of an article (no label)."""

    passage: int
    start: int
    end: int
    label: frozenset[str]
    said: frozenset[str]
    canon: str


class Roster:
    """What every article of an archive is about.  Made when first asked; some 20 ms for a thousand articles."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @cached_property
    def _read(self) -> tuple[dict[int, str], dict[int, list[_Line]], dict[str, set[int]], dict[str, dict[int, _Line]]]:
        """Titles, lines of each article, articles by kind, and by noun the articles with the line that says so."""
        titles: dict[int, str] = {}
        kinds: dict[str, set[int]] = defaultdict(set)
        for row in self.store.rows("SELECT id, title, kind FROM pages"):
            titles[row["id"]] = row["title"]
            kinds[row["kind"]].add(row["id"])
        lines: dict[int, list[_Line]] = defaultdict(list)
        nouns: dict[str, dict[int, _Line]] = defaultdict(dict)
        for row in self.store.rows(
            "SELECT id, page, path, text, canon FROM passages WHERE path IN (?, '[]') ORDER BY page, path, start",
            [json.dumps(list(FACTS_PATH))],
        ):
            page, text = row["page"], row["text"]
            if row["path"] == "[]":
                if any(not line.label for line in lines[page]):
                    continue  # only the first sentence of all
                spans = [(a, b) for a, b in sentences(text)[:1] if not is_instruction(text[a:b])]
                found = [
                    _Line(row["id"], a, b, frozenset(), frozenset(stems(text[a:b])), row["canon"]) for a, b in spans
                ]
                lines[page] += found
                for line in found:
                    for noun in _what(text[line.start : line.end]) | (_head(titles[page]) & line.said):
                        nouns[noun].setdefault(page, line)
                continue
            for match in re.finditer(r"[^\n]+", text):
                row_of = re.match(r".+? — (?P<label>[^:]{1,60}): (?P<values>.+?)\.?$", match[0])
                if row_of is None or is_instruction(match[0]):
                    continue
                label = frozenset(stems(without_note(row_of["label"])))
                note = re.search(r"\((books|games|tv)\)$", row_of["label"])
                canon = note[1] if note else row["canon"]
                said = frozenset(stems(row_of["values"]))
                line = _Line(row["id"], match.start(), match.end(), label, said, canon)
                lines[page].append(line)
                if label & _CLASS_LABELS:
                    for value in re.split(r"[,;/]|\band\b|\bor\b", re.sub(r"\([^)]*\)", "", row_of["values"])):
                        for word in words(value)[-1:]:
                            nouns[word.stem].setdefault(page, line)
        return titles, dict(lines), dict(kinds), dict(nouns)

    def find(self, question: str, canon: str | None = None) -> Listed | None:
        """The articles that a question asks a list of; None where it asks for none, or there are too few.

        Raises ``StoreError``.
        """
        for wanted in _wanted(question):
            members = self._members(wanted, canon)
            # What two sources have an article about is one thing: of which more is told.
            order = sorted(members, key=lambda page: -len(self._read[1][page]))
            order = list({key(self._read[0][page]): page for page in reversed(order)}.values())[::-1]
            if len(order) < LEAST - bool(wanted.condition or wanted.without):
                continue
            chosen = order[: wanted.most]
            passages = {p.id: p for p in self.store.passages({members[page].passage for page in chosen})}
            listed = [
                Member(passages[line.passage].title, passages[line.passage], line.start, line.end)
                for line in (members[page] for page in chosen)
                if line.passage in passages
            ]
            counted = _COUNT.match(question) is not None
            return Listed(tuple(sorted(listed, key=lambda m: m.title.casefold())), len(order), wanted.noun, counted)
        return None

    def _members(self, wanted: _Wanted, canon: str | None) -> dict[int, _Line]:
        """The articles that are what is wanted, each with the line that says so."""
        titles, lines, kinds, nouns = self._read
        noun = wanted.noun
        found: dict[int, _Line] = {}
        for other in (*_ALSO.get(noun, ()), noun):
            found |= nouns.get(other, {})
        for page in kinds.get(_KINDS.get(noun, "-"), ()):
            if page not in found and page in lines:
                found[page] = lines[page][0]
        # The article on oils is none of the oils, that on the Crones of the bog none of the Crones.
        asked = {noun, *wanted.before, *(word.stem for word in wanted.condition)}
        named = {page: {word.stem for word in content(without_note(titles[page]))} for page in found}
        found = {
            page: line for page, line in found.items() if not (named[page] <= asked or wanted.without & named[page])
        }

        def fits(page: int, words_before: Iterable[str]) -> bool:
            told = set().union(*(line.said for line in lines[page])) | stems(titles[page])
            return all(word in told for word in words_before)

        exact = {page: line for page, line in found.items() if fits(page, wanted.before)}
        found = exact or {page: line for page, line in found.items() if fits(page, wanted.before - _GENERIC)}
        # "in the games" says which telling, and hardly a row repeats it.
        condition = [word for word in wanted.condition if word.stem not in KIND_WORDS or word.stem == _NETFLIX]
        held = {page: _holding(lines[page], condition) if condition else line for page, line in found.items()}
        return {page: line for page, line in held.items() if line and (not canon or line.canon in ("", canon))}


def _holding(lines: Sequence[_Line], condition: Sequence[Word]) -> _Line | None:
    """The line that meets a condition, a row before the first sentence: every word in it, or told by its label."""
    appears = any(word.stem == _APPEAR for word in condition)
    for line in sorted(lines, key=lambda line: not line.label):
        if not appears and _APPEARANCE in line.label:
            continue  # who first appears in Blood of Elves need be none
        named = False
        for word in condition:
            same = {word.stem, *map(stem, forms(word.raw))}
            if same & line.said:
                named = True
            elif not line.label & (
                same | ALTERNATIVES.get(word.stem, frozenset()) | _LABELS.get(word.stem, frozenset())
            ):
                break
        else:
            if named:
                return line
    return None


def _what(sentence: str) -> set[str]:
    """Stems of what a first sentence says that its subject is: "a dwarf, a dragon hunter and a friend of …" → dwarf,
    hunter, friend."""
    match = _IS_A.search(sentence)
    if match is None:
        return set()
    end = _ENDS.search(match["what"])
    parts = re.split(r",|\band\b", match["what"][: end.start()] if end else match["what"])
    return {word.stem for part in parts for word in words(part)[-1:]}


def _head(title: str) -> set[str]:
    """Stem of a title's noun: "Battle of Brenna" → battle."""
    return {word.stem for word in words(re.split(r" (?:of|at|in|for|to|and) ", without_note(title))[0])[-1:]}


def _plural(word: Word) -> bool:
    raw = word.raw.casefold()
    return (raw.endswith("s") and not raw.endswith(("ss", "us", "is", "'s", "’s"))) or stem(raw) != stem(raw + "s")


def _wanted(question: str) -> list[_Wanted]:
    """What a question may ask a list of, the longest phrase first; empty where it asks for none."""
    asked = _ORDER.match(question) or _QUESTION.match(question) or _COUNT.match(question)
    if asked is None:
        return []
    every = _EVERY.search(asked["which"]) is not None
    # "Name three dwarves" wants any three; "name the five Signs" had better get all that there are.
    some = [] if re.search(r"\b(?:all|the)\b", asked["which"], re.I) else words(asked["which"])
    most = min((int(word.stem) for word in some if word.stem.isdigit()), default=SHOWN)
    cut = words(asked["rest"])
    out = []
    for n in range(min(PHRASE, len(cut)), 0, -1):
        phrase, behind = cut[:n], asked["rest"][cut[n - 1].end :]
        sort = _AFTER.match(behind)
        if any(word.is_stop for word in phrase) or not (every or sort or _plural(phrase[-1])):
            continue
        rest = behind[sort.end() if sort else 0 :]
        but = _BUT.search(rest)
        if but and len(words(but["not"])) > EXCEPTION:
            continue  # "which beasts besides dracolizards did his men kill"
        rest = rest[: but.start()] if but else rest
        noun, before = phrase[-1].stem, frozenset(word.stem for word in phrase[:-1])
        if noun in _KINDS and (are := _ARE.match(rest)) and _plural(words(are["what"])[0]):
            noun, rest = stem(are["what"]), ""  # "which characters are elves?" wants elves
        bare = _NO_CONDITION.match(rest) is not None
        condition = () if bare else tuple(w for w in words(rest) if not w.is_stop or w.stem in _LABELS)
        if not condition and not bare:
            continue  # "which oils did he use": who and when is not said
        without = frozenset(word.stem for word in content(but["not"])) if but else frozenset()
        out.append(_Wanted(noun, before, condition, most, without))
    return out
