"""Words: one way of cutting, folding and stemming text, shared by everything that compares two texts.

Folding drops case, accents and apostrophes (*Eithné* = *Eithne*, *Scoia'tael* = *Scoiatael*), what is only hung on
goes (*Ciri's* = *Ciri*, *couldn't* = *could*), and a light stemmer joins the forms of a word.  The stemmer only has to
be consistent between a question, a draft and a passage; it is a shortened Porter with a table of the irregular verbs
that stories use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from retrieval.words import bare, key

_WORD = re.compile(r"[^\W_]+(?:['’‘ʼ`][^\W_]+)*")

_STOPWORDS = (
    "a an the and or but nor of in on at to from by with for as into onto about between among during before after "
    "is are was were be been being am do does did done has have had having will would can could shall should may might "
    "must it its he she him her his hers they them their theirs we us our you your i me my mine this that these those "
    "there here who whom whose which what when where why how if then than so such too very also just only both each "
    "please tell know explain describe give say list all any some much many more most other own same up out over under "
    "again once not no s t not yes off down own while through because until against "
    "ca wo im ive youre theyre weve arent cant couldnt didnt doesnt dont hadnt hasnt havent hows isnt shouldnt thats "
    "theres wasnt werent whens wheres whos whys wont wouldnt whats another actually really ok okay btw hey"
)
STOPWORDS = frozenset(_STOPWORDS.split())
"""Words that hold a sentence together; neither evidence nor claim."""

_COUNTING = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_NUMBERS = {word: str(value) for value, word in enumerate(_COUNTING.split())}
_NUMBERS |= {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "hundred": "100", "thousand": "1000"}
_NUMBERS |= {"first": "1st", "second": "2nd", "third": "3rd", "fourth": "4th", "fifth": "5th", "sixth": "6th"}
_NUMBERS |= {"seventh": "7th", "eighth": "8th", "ninth": "9th", "tenth": "10th"}

_FORMS = {
    "wife": "wives", "wolf": "wolves", "elf": "elves", "dwarf": "dwarves", "life": "lives", "man": "men",
    "woman": "women", "child": "children", "die": "died dying dies", "slay": "slew slain",
    "bear": "bore born borne",
    "swear": "swore sworn", "fight": "fought", "write": "wrote written", "teach": "taught", "become": "became",
    "lead": "led", "meet": "met", "give": "gave given", "take": "took taken", "win": "won", "lose": "lost",
    "steal": "stole stolen", "build": "built", "bring": "brought", "fall": "fell fallen", "know": "knew known",
    "make": "made", "leave": "left", "ride": "rode ridden", "see": "saw seen", "go": "went gone goes",
    "come": "came",
    "speak": "spoke spoken", "bind": "bound", "find": "found", "grow": "grew grown", "hold": "held", "keep": "kept",
    "flee": "fled", "forge": "forged forging", "raise": "raised raising", "wield": "wielded", "lie": "lay lain",
    "choose": "chose chosen", "draw": "drew drawn", "break": "broke broken", "sing": "sang sung", "tell": "told",
    "hide": "hid hidden", "rule": "ruler ruled", "begin": "began begun", "wear": "wore worn", "feed": "fed",
    "strike": "struck", "think": "thought", "buy": "bought", "sell": "sold", "wake": "woke", "eat": "ate eaten",
    "call": "called", "name": "named",
}  # fmt: skip
_IRREGULAR = {form: base for base, forms in _FORMS.items() for form in forms.split()}


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a text: ``text[start:end]`` is how it stands there, ``stem`` what it is compared by."""

    raw: str
    stem: str
    start: int
    end: int

    @property
    def is_number(self) -> bool:
        return self.stem[0].isdigit()

    @property
    def is_capital(self) -> bool:
        return self.raw[0].isupper()

    @property
    def is_stop(self) -> bool:
        return bare(self.raw).casefold() in STOPWORDS


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Folded stem of one word; number words become digits, so that *twelve* meets *12*."""
    base = key(bare(word)) or word.casefold()
    if base in _NUMBERS:
        return _NUMBERS[base]
    if base in _IRREGULAR:
        base = _IRREGULAR[base]
    if len(base) <= 3 or base[0].isdigit():
        return base
    if base.endswith("ies") or base.endswith("ied"):
        base = base[:-3] + "i"
    elif base.endswith("sses"):
        base = base[:-2]
    elif base.endswith("s") and not base.endswith(("ss", "us", "is")):
        base = base[:-1]
    for ending in ("ing", "ed", "ly"):
        rest = base[: -len(ending)]
        if base.endswith(ending) and len(rest) >= 3 and re.search("[aeiouy]", rest):
            base = rest
            if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "lsz":
                base = base[:-1]  # stopped → stop
            break
    if base.endswith("e") and len(base) > 3:
        base = base[:-1]
    return base[:-1] + "i" if base.endswith("y") and len(base) > 3 else base


def forms(word: str) -> list[str]:
    """An irregular word's other forms, in either direction (*sell* → *sold*); none for a regular one."""
    base = _IRREGULAR.get(word.casefold(), word.casefold())
    return [base, *_FORMS[base].split()] if base in _FORMS else []


def words(text: str) -> list[Word]:
    """The words of a text in order, punctuation left out; a hyphen separates words, an apostrophe does not."""
    return [Word(m.group(), stem(m.group()), m.start(), m.end()) for m in _WORD.finditer(text)]


def stems(text: str) -> set[str]:
    return {word.stem for word in words(text)}


def content(text: str) -> list[Word]:
    """The words that carry meaning: all but the stop words."""
    return [word for word in words(text) if not word.is_stop]


def clip(text: str, limit: int) -> str:
    """``text`` cut to at most ``limit`` characters, at a word's end where one is near."""
    if len(text) <= limit:
        return text
    cut = text[:limit]
    space = cut.rfind(" ")
    return cut[: space if space > limit - 80 else limit].rstrip()
