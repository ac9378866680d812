"""Lists over articles: "list all witcher oils", "which monsters are weak to Moon Dust?", "how many schools are there?"

No single passage holds such an answer.  What an article is about is read off its infobox (``class: oil``, ``profession:
sorceress``) or its first sentence ("… is a witcher school whose …"); a condition, where there is one, off a row of its
infobox (``bomb: Moon Dust``) or that sentence.  That row or sentence is what each item of the list cites.

Only words are compared.  What hangs on more than that (*not*, *before 1268*, who did it to whom) gets no list.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from app.evidence import is_instruction
from app.lexicon import ALTERNATIVES, KIND_WORDS, SLAYING
from app.text import Word, content, forms, stem, stems, words
from corpus.chunk import sentences
from corpus.store import Store, StoredPassage
from corpus.types import FACTS_PATH
from retrieval.words import key, without_note

SHOWN = 20  # articles in a list at most
LEAST = 3  # articles that make a list; with a condition or an exception one less
PHRASE = 4  # words of what is listed, at most: "medium witcher armour sets"

_NAMES_OF = r"(?:(?:the |all )*names? of\s+)?"
_NUMBERS = r"one|another|two|three|four|five|six|seven|eight|nine|ten|\d{1,3}"
# "List all …", "name every …", "give me a list of the …"
_ORDER = re.compile(
    r"^\W*(?:(?:please|ok|okay|now|so|and|hi|hello)\W+)*"
    r"(?:list|name|enumerate|show|(?:give|tell) (?:me|us))\s+(?:me\s+|us\s+)?"
    rf"(?:an? (?:full |complete )?list of\s+)?{_NAMES_OF}"
    r"(?P<which>(?:(?:all|every|each|the|some|any|of|a few|several|different|known|various|types?|kinds?|sorts?"
    rf"|{_NUMBERS})\s+)*)(?P<rest>[^?.!]+)",
    re.I,
)
# "What … are there?", "Which … are weak to …?", "What are the kinds of …?", "Who are the … of …?"
_QUESTION = re.compile(
    r"^\W*(?:what|which|who(?=\s+(?:are|were)\b))\s+"
    r"(?!(?:are|were)\s+(?!all\b|the\b|some\b|different\b|kinds\b|types\b|sorts\b))"
    rf"(?:(?:are|were)\s+)?{_NAMES_OF}(?P<which>(?:(?:all|the|some|different|known|various|of|types?|kinds?|sorts?"
    rf"|{_NUMBERS})\s+)*)(?P<rest>[^?.!]+)",
    re.I,
)
_COUNT = re.compile(
    r"^\W*how many\s+(?P<which>(?:(?:different|known|kinds?|types?|sorts?|of)\s+)*)(?P<rest>[^?.!]+)", re.I
)
_EVERY = re.compile(r"\b(?:every|each|another|one|kinds|types|sorts)\b", re.I)
_AFTER = re.compile(r"\s+(?:types?|kinds?|sorts?)\b", re.I)
_BUT = re.compile(
    r"\b(?:other th[ae]n|except(?: for)?|excluding|besides|apart from|but(?: not)?|minus|not counting)\b(?P<not>.*)$",
    re.I,
)
# Words are compared and no meaning: what turns on one of these had better be left to the search.
_TOO_HARD = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|lack\w*|cannot|\w+n['’]?t|or|only|before|after|until|since|more than"
    r"|less than|over|under|most|least|others?|(?:strong|weak|old|young|heavi|light|bigg|larg|great|small|fast|long)est"
    r"|(?:have|know|own|love|like)\W*$|he|him|his|she|her|hers|it|its|they|them|their|(?<!are )(?<!were )there)\b",
    re.I,
)
# "which kings were killed by Letho", "which kings did Letho kill": those who are listed are the victims.
_PASSIVE = re.compile(
    r"^\W*(?:did|do|does)\b|\b(?:is|are|was|were|been|being|got|get)\s+(?:\w+ly\s+)?\w+(?:ed|ain)\b",
    re.I,
)
_ARE = re.compile(r"^\s*(?:(?:who|that|which)\s+)?(?:are|were)\s+(?P<what>[^\W\d_]+)\W*$", re.I)
_NETFLIX, _NAME = stem("netflix"), stem("names")
# What may follow a list that has no condition: "are there", "exist", "do you know", "in the world of the witcher"
_NO_CONDITION = re.compile(
    r"^\W*(?:(?:that )?(?:are|were) there|(?:do|did)? ?exist|(?:that )?(?:do )?(?:you|we) know(?: of)?|have we"
    r"|(?:in|of) (?:the |this )?(?:(?:witcher|whole|entire) )?(?:world|universe|franchise|archives?|lore|setting)"
    r"(?: of the witcher)?|in the witcher|please|then|(?:can|do|does) (?:i|you) (?:use|have|know|cast|make|brew|craft)"
    r"|(?:can|do|does) (?:the |a )?witchers? (?:use|have|cast|make|brew|craft))*\W*$",
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
_OF = re.compile(r" (?:of|at|in|for|to|and) ")


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
    number: int  # how many there are said to be; 0 where the question does not say
    most: int
    without: tuple[frozenset[str], ...]  # stems of what is not wanted, one by one: titles, or sorts
    belongs: bool  # "the schools of …": what follows is no condition alone, but a part of the name


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
    """What every article of an archive is about, read once: some 0.3 s for a thousand articles.

    Raises ``StoreError``.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._titles: dict[int, str] = {}
        self._kinds: dict[str, set[int]] = defaultdict(set)
        self._lines: dict[int, list[_Line]] = defaultdict(list)
        # By noun the articles that are one, each with the lines that say so.
        self._nouns: dict[str, dict[int, list[_Line]]] = defaultdict(lambda: defaultdict(list))
        for row in store.rows("SELECT id, title, kind FROM pages"):
            self._titles[row["id"]] = row["title"]
            self._kinds[row["kind"]].add(row["id"])
        kind_of = {page: kind for kind, pages in self._kinds.items() for page in pages}
        begun: set[int] = set()
        for row in store.rows(
            "SELECT id, page, path, text, canon FROM passages WHERE path IN (?, '[]') ORDER BY page, path, start",
            [json.dumps(list(FACTS_PATH))],
        ):
            if row["path"] != "[]":
                self._read_rows(row["page"], row["id"], row["text"], row["canon"])
            elif row["page"] not in begun:  # the first sentence of all
                begun.add(row["page"])
                self._read_lead(row["page"], row["id"], row["text"], row["canon"], kind_of.get(row["page"], ""))

    def _read_lead(self, page: int, passage: int, text: str, canon: str, kind: str) -> None:
        for start, end in sentences(text)[:1]:
            if is_instruction(text[start:end]):
                continue
            line = _Line(passage, start, end, frozenset(), _interned(stems(text[start:end])), canon)
            self._lines[page].append(line)
            # The Sword of Destiny is no sword.
            head = frozenset() if kind in ("work", "quest") else _head(self._titles[page]) & line.said
            for noun in _what(text[start:end]) | head:
                self._nouns[noun][page].append(line)

    def _read_rows(self, page: int, passage: int, text: str, canon: str) -> None:
        for match in re.finditer(r"[^\n]+", text):
            row = re.match(r".+? — (?P<label>[^:]{1,60}): (?P<values>.+?)\.?$", match[0])
            if row is None or is_instruction(match[0]):
                continue
            label = _interned(stems(without_note(row["label"])))
            note = re.search(r"\((books|games|tv)\)$", row["label"])
            said = _interned(stems(row["values"]))
            line = _Line(passage, match.start(), match.end(), label, said, note[1] if note else canon)
            self._lines[page].append(line)
            if label and label <= _CLASS_LABELS:
                for value in re.split(r"[,;/]|\band\b|\bor\b", re.sub(r"\([^)]*\)", "", row["values"])):
                    last = value.split()[-1:]
                    for word in words(last[0]) if last and "-" not in last[0] else ():  # a half-elf is no elf
                        self._nouns[word.stem][page].append(line)

    def find(self, question: str, canon: str | None = None) -> Listed | None:
        """The articles that a question asks a list of; None where it asks for none, or there are too few.

        Raises ``StoreError``.
        """
        for wanted in _wanted(" ".join(question.split())):
            members = self._members(wanted, canon)
            # What two sources have an article about is one thing: of which more is told.
            best: dict[str, int] = {}
            for page in sorted(members, key=lambda page: -len(self._lines[page])):
                best.setdefault(key(self._titles[page]), page)
            order, least = list(best.values()), LEAST - bool(wanted.condition or wanted.without)
            if len(order) < max(least, wanted.number):
                continue
            chosen = order[: wanted.most]
            passages = {p.id: p for p in self.store.passages({members[page].passage for page in chosen})}
            listed = [
                Member(self._titles[page], passages[line.passage], line.start, line.end)
                for page, line in ((page, members[page]) for page in chosen)
                if line.passage in passages  # an ingest may have replaced some since
            ]
            if len(listed) < min(least, wanted.most):
                continue
            # "The Witcher" stands for the story or for a game: then the note stays.
            bare = Counter(without_note(member.title).casefold() for member in listed)
            listed = [
                replace(m, title=without_note(m.title)) if bare[without_note(m.title).casefold()] == 1 else m
                for m in listed
            ]
            counted = _COUNT.match(question) is not None
            return Listed(tuple(sorted(listed, key=lambda m: m.title.casefold())), len(order), wanted.noun, counted)
        return None

    def _members(self, wanted: _Wanted, canon: str | None) -> dict[int, _Line]:
        """The articles that are what is wanted, each with the line that says so."""

        def told(lines: Iterable[_Line]) -> list[_Line]:
            return [line for line in lines if not canon or line.canon in ("", canon)]

        noun = wanted.noun
        found: dict[int, list[_Line]] = {}
        for other in (*_ALSO.get(noun, ()), noun):
            found |= {page: told(lines) for page, lines in self._nouns.get(other, {}).items()}
        for page in self._kinds.get(_KINDS.get(noun, "-"), ()):
            found.setdefault(page, told(self._lines.get(page, ()))[:1])
        # The article on oils is none of the oils, that on the Crones of the bog none of the Crones.
        asked = {noun, *wanted.before, *(word.stem for word in wanted.condition if wanted.belongs)}
        named = {page: {word.stem for word in content(without_note(self._titles[page]))} for page in found}
        found = {
            page: lines
            for page, lines in found.items()
            if lines and not (named[page] and named[page] <= asked) and not _many(self._titles[page], noun)
        }

        def fits(page: int, words_before: frozenset[str]) -> bool:
            if not words_before:
                return True
            rows = [*found[page], *(line for line in self._lines[page] if line.label and not people)]
            return words_before <= set().union(*(line.said for line in rows)) | stems(self._titles[page])

        # "Witcher oils" are all oils, but witcher kings are not all kings.
        people = sum(page in self._kinds.get("character", ()) for page in found) * 2 > len(found)
        exact = {page: lines for page, lines in found.items() if fits(page, wanted.before)}
        idle = frozenset() if people else _GENERIC
        found = exact or {page: lines for page, lines in found.items() if fits(page, wanted.before - idle)}
        for words_not in wanted.without:
            sort = self._nouns.get(next(iter(words_not)), {}) if len(words_not) == 1 else {}
            out = {page for page in found if words_not <= named[page] or page in sort}
            if not out:
                return {}  # "besides Geralt died": more than a name
            found = {page: lines for page, lines in found.items() if page not in out}
        # "in the games" says which telling, and hardly a row repeats it.
        condition = [word for word in wanted.condition if word.stem not in KIND_WORDS or word.stem == _NETFLIX]
        if not condition:
            return {page: lines[0] for page, lines in found.items()} if canon or not wanted.condition else {}
        held = {page: _holding(told(self._lines[page]), condition) for page in found}
        return {page: line for page, line in held.items() if line}


def _interned(found: Iterable[str]) -> frozenset[str]:
    """Stems recur in every article; one copy of each will do."""
    return frozenset(map(sys.intern, found))


def _holding(lines: Sequence[_Line], condition: Sequence[Word]) -> _Line | None:
    """The line that meets a condition, a row before the first sentence: every word in it, or told by its label."""
    appears = any(word.stem == _APPEAR for word in condition)
    for line in sorted(lines, key=lambda line: not line.label):
        if not appears and _APPEARANCE in line.label:
            continue  # who first appears in Blood of Elves need be none
        named = False
        for word in condition:
            same = {word.stem, *map(stem, forms(word.raw))}
            if same & line.said and (line.label or word.stem not in SLAYING):
                named = True
            elif word.stem in SLAYING:
                if not line.label or not SLAYING & line.said:
                    break  # "died" may be of smallpox, and a sentence may be about the murderer
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
    return {word.stem for word in words(_OF.split(without_note(title))[0])[-1:]}


def _many(title: str, noun: str) -> bool:
    """Whether a title's own noun is the plural of what is listed: "Crones of the Bog"."""
    head = words(_OF.split(without_note(title))[0])[-1:]
    return any(word.stem == noun and _plural(word) for word in head)


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
    number = min((int(word.stem) for word in words(asked["which"]) if word.stem.isdigit()), default=0)
    any_will_do = number and not re.search(r"\b(?:all|the)\b", asked["which"], re.I)
    most = max(1, min(number, SHOWN)) if any_will_do else SHOWN
    cut = words(asked["rest"])
    out = []
    for n in range(min(PHRASE, len(cut)), 0, -1):
        phrase, behind = cut[:n], asked["rest"][cut[n - 1].end :]
        sort = _AFTER.match(behind)
        if any(word.is_stop or word.is_number or word.stem == _NAME for word in phrase) or not (
            every or sort or _plural(phrase[-1])
        ):
            continue
        if any(_is_verb(word) for word in phrase[:-1]):
            continue  # "what kills monsters"
        rest = behind[sort.end() if sort else 0 :]
        but = _BUT.search(rest)
        noun, before = phrase[-1].stem, frozenset(word.stem for word in phrase[:-1])
        without = _exceptions(but["not"], before | {noun}) if but else ()
        rest = rest[: but.start()] if but else rest
        if noun in _KINDS and (are := _ARE.match(rest)) and _plural(words(are["what"])[0]):
            noun, rest = stem(are["what"]), ""  # "which characters are elves?" wants elves
        bare = _NO_CONDITION.match(rest) is not None
        condition = () if bare else tuple(w for w in words(rest) if not w.is_stop or w.stem in _LABELS)
        if not condition and not bare:
            continue  # "which oils did he use": who and when is not said
        if not bare and (_TOO_HARD.search(rest) or (but and not all(without))):
            continue
        if any(word.stem in SLAYING for word in condition) and not _PASSIVE.search(rest):
            continue  # "which kings killed Letho": the row that names both says who killed them
        belongs = re.match(r"\s*of\b", rest, re.I) is not None
        out.append(_Wanted(noun, before, condition, 0 if any_will_do else number, most, without, belongs))
    return out


def _exceptions(text: str, asked: frozenset[str]) -> tuple[frozenset[str], ...]:
    """ "Geralt, Vesemir and the School of the Wolf": stems of each, without the words of what is listed."""
    parts = re.split(r",|\band\b|\bor\b", text)
    return tuple(frozenset(word.stem for word in content(part)) - asked for part in parts if part.strip(" .?!"))


def _is_verb(word: Word) -> bool:
    raw = word.raw.casefold()
    return word.stem in SLAYING or (_plural(word) and not raw.endswith(("'s", "’s"))) or raw in ("made", "wrote", "did")
