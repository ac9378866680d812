"""Chat turn + history → a question that stands alone.

Which name a turn leaves out is for ``app.carry`` to say; here it is put in its place.  Three cases:

* pronouns: "Where was she born?" → the last name that fits, put in the pronoun's place;
* a bare addition: "And his mother?", "What about Yennefer?" → the same question about something else;
* a bare request: "Why?", "Tell me more." → the last question, or its subject.

A turn that names its own subject is left alone, so a change of topic does not drag the old one along.  Where nothing
says which names are likely, the last one that fits is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from app.carry import Turn, proper_names
from app.text import STOPWORDS, words

NamesIn = Callable[[str], list[str]]
"""The names in a text as they stand there, in order."""

GenderOf = Callable[[str], str]
"""Which of ``he she it they`` the archive uses for a name, or "" when it cannot tell."""

_SUBJECT = {"he": "he", "him": "he", "she": "she", "it": "it", "they": "they", "them": "they"}
_OWNER = {"his": "he", "hers": "she", "its": "it", "their": "they", "theirs": "they"}
_PRONOUN = re.compile(r"\b(he|him|his|she|her|hers|it|its|they|them|their|theirs)(?=\b|['’]s\b)", re.I)
# "it" that stands for nothing: "What is it called when", "is it true that"
_EMPTY_IT = re.compile(r"\bis it (?:true|possible|that)\b|\bit is (?:true|said)\b", re.I)
_ADDITION = re.compile(
    r"^\W*(?:and|or|but|so|ok(?:ay)?|then|also)?[\s,]*(?:what|how) about\b\s*"
    r"|^\W*(?:(?:ok(?:ay)?|so|then|well)\b[\s,]*)?(?:and|or|but)\b[\s,]*",
    re.I,
)
# An addition that asks by itself: "And who trained her?", "And Yennefer, what did she say?"
_OWN_QUESTION = re.compile(
    r"^\W*(?:(?:who|what|where|when|how)(?:['’]?s)?|whose|whom|why|which|did|does|is|was|are|were|if)\b"
    r"|[,;:?!]\s+\w|\b(?:who|what|which|whose|whom)\b",
    re.I,
)
_BARE = re.compile(r"^\W*(?:and |but |so )*(why|how|when|where|how so|how come|why not|what for)\W*$", re.I)
_MORE = re.compile(
    r"^\W*(?:(?:can you |please |could you )*(?:tell me more|say more|more|go on|continue|elaborate"
    r"|explain(?: more)?|more details?|anything else)"
    r"(?: about (?:it|that|this|him|her|them))?|what else)\W*(?:please)?\W*$",
    re.I,
)
_CANON = re.compile(
    r"^\W*(?:in|according to) (?:the )?.*\b(?:books?|novels?|games?|series|show|tv|netflix|saga)\b\W*$", re.I
)
_TELLING = re.compile(
    r"\s*\b(?:in|according to) (?:the )?(?:netflix |television |tv )?(?:books?|novels?|games?|series|show|saga)\b", re.I
)
_RELATION = re.compile(
    r"\b(?:mother|father|parents?|wife|husband|son|daughter|children|sister|brother|grand\w+|lovers?|mentor|teacher|"
    r"friends?|enem(?:y|ies)|horse|ruler|king|queen|leader|killer|creator|author)\b",
    re.I,
)
# What may stand after the object "her"; any other word after it is hers: "show her alive", "let her run", "her mother".
_BARE_WORDS = (
    "alive dead alone away back home asleep free safe together get go come run leave stay live die escape see keep win "
    "become"
)
_NOT_HERS = STOPWORDS - {"own", "most", "will"} | set(_BARE_WORDS.split())
_PREPOSITION = re.compile(r"(?:in|on|at|by|from|for|with|after|before|during|to|of)\b", re.I)
_PERSONS = ("he", "she")
_CITATION = re.compile(r"\s*\[\d+\]")
READINGS = 3  # a follow-up is tried with, at most
UNLIKELY = 0.05  # probability under which a reading is not tried
SHORT_ANSWER = 12  # words: an answer no longer than this is taken to name what was asked for


def _candidates(history: Sequence[Turn], names_in: NamesIn, prefer_topic: bool) -> list[str]:
    """Names that a pronoun may stand for, the likeliest first."""
    out: list[str] = []
    for question, answer, *_ in reversed(history[-3:]):
        asked = names_in(question)
        plain = _CITATION.sub("", answer).strip()
        told = names_in(plain)[:3]
        is_short = len(plain.split()) <= SHORT_ANSWER or (
            plain[:60].find(".") != -1 and len(plain.split(".")[0].split()) <= 4
        )
        asks_name = re.match(r"\W*(?:who|what|which|whose|whom)\b", question, re.I) is not None
        focus = [name for name in told if name not in asked][:1] if asks_name and is_short and asked else []
        out += asked + focus if prefer_topic else focus + asked
        out += told
    return list(dict.fromkeys(out))


def _fitting(candidates: Sequence[str], pronoun: str, gender_of: GenderOf) -> str | None:
    """First candidate that the archive calls by this pronoun; else the first of unknown gender."""
    genders = [(name, gender_of(name)) for name in candidates]
    for wanted in (pronoun, ""):
        for name, gender in genders:
            if gender == wanted:
                return name
    # "they" may be a people or a beast, and so may "it"; neither is one man or one woman.
    return next((name for name, gender in genders if pronoun not in _PERSONS and gender not in _PERSONS), None)


def _fill_in(
    text: str, own: Sequence[str], candidates: Sequence[str], spare: Sequence[str], gender_of: GenderOf
) -> str:
    """Put names in the place of the pronouns, each name once: what follows in the same gender still points to it.

    Args:
        own: names in the text itself; a pronoun that stands after one may mean it.
        spare: persons for a pronoun that no candidate fits, once one was put in: "how long did she outlive him".
    """
    placed: dict[str, str] = {}

    def is_own(gender: str, at: int) -> bool:
        before = [gender_of(name) for name in own if text.find(name) < at]
        alike = (gender,) if gender in _PERSONS else ("it", "they")
        return any(one in (*alike, "") for one in before)

    def replace(match: re.Match[str]) -> str:
        pronoun = match[0].casefold()
        following = re.match(r"\s+([^\W\d_]+)", text[match.end() :])
        owns = pronoun in _OWNER or (
            pronoun == "her" and following is not None and following[1].casefold() not in _NOT_HERS
        )
        gender = _OWNER.get(pronoun) or _SUBJECT.get(pronoun) or "she"
        if gender in placed or is_own(gender, match.start()):
            return match[0]
        name = _fitting([name for name in candidates if name not in placed.values()], gender, gender_of)
        if name is None and gender in _PERSONS:
            others = (name for name in spare if name not in placed.values())
            name = next((name for name in others if gender_of(name) == gender), None)
        if name is None:
            return match[0]
        placed[gender] = name
        return f"{name}'s" if owns else name

    filled = _PRONOUN.sub(replace, text)
    if spare and not set(candidates) & set(placed.values()):
        return _fill_in(text, own, candidates, (), gender_of)
    return filled


def standalone(
    question: str,
    history: Sequence[Turn] = (),
    names_in: NamesIn = proper_names,
    gender_of: GenderOf = lambda name: "",
    candidates: Sequence[str] | None = None,
) -> str:
    """The question as someone would ask it who had said nothing before.  Without history it is returned as it is.

    Args:
        candidates: names that may be meant, the likeliest first; None: the last ones that were named.
    """

    return _complete(question, history, names_in, gender_of, candidates)[0]


def _complete(
    question: str,
    history: Sequence[Turn],
    names_in: NamesIn,
    gender_of: GenderOf,
    candidates: Sequence[str] | None,
    spare: Sequence[str] = (),
) -> tuple[str, bool]:
    """``standalone``, and whether it is sure to leave nothing out, as the last question asked of another name."""

    def meant(prefer_topic: bool) -> Sequence[str]:
        return _candidates(history, names_in, prefer_topic) if candidates is None else candidates

    text = question.strip()
    if not history or not text:
        return text, True
    last = history[-1][0].strip()
    if bare := _BARE.match(text):
        return f"{last} {bare[1].capitalize()}?", False
    if _CANON.match(_ADDITION.sub("", text)):
        telling = _ADDITION.sub("", text).strip().rstrip("?.! ")
        return f"{_TELLING.sub('', last).rstrip(' ?.!')} {telling}?", True
    if _MORE.match(text):
        topic = meant(prefer_topic=True)
        return (f"Tell me about {topic[0]}." if topic else last), False

    addition = _ADDITION.match(text)
    rest = text[addition.end() :] if addition else text
    own = names_in(rest)
    points = not _EMPTY_IT.search(rest) and _PRONOUN.search(rest) is not None
    if points:
        rest = _fill_in(rest, own, meant(prefer_topic=bool(addition)), spare, gender_of)
    if addition and len(words(rest)) <= 8 and not _OWN_QUESTION.search(rest):
        return _same_question(last, rest.strip().rstrip("?.! "), names_in, gender_of, bool(own) and not points)
    return (rest[:1].upper() + rest[1:] if addition else rest), False


def readings(
    question: str,
    history: Sequence[Turn],
    names_in: NamesIn,
    gender_of: GenderOf,
    likely: Sequence[tuple[str, float]],
) -> list[tuple[str, float]]:
    """The question with each of the names that it may leave out, and how likely that reading is.

    "And which oil?" after a turn about the kikimore reads as "And which oil kikimore?": no sentence, but the search and
    the evidence find by it what was meant.  Which reading holds is for the archives to say.

    Args:
        likely: names and their probabilities, best first; "" for none (``app.carry.likely``).
    """
    out: dict[str, float] = {}
    spare = [name for name, probability in likely if name and probability >= UNLIKELY]
    for name, probability in likely[:READINGS]:
        if probability < UNLIKELY and out:
            break
        meant = [name] if name else []
        text, is_complete = _complete(question, history, names_in, gender_of, meant, spare if name else ())
        if name and not is_complete and name.casefold() not in text.casefold():
            text = f"{text.rstrip(' ?.!')} {name}?"
        out[text] = out.get(text, 0.0) + probability
    return list(out.items())


def _same_question(last: str, about: str, names_in: NamesIn, gender_of: GenderOf, is_name: bool) -> tuple[str, bool]:
    """ "And Yennefer?" asks the last question about Yennefer; "and Ciri's mother?" is a question by itself."""
    old = names_in(last)
    if is_name and old and not _RELATION.search(about) and not _PREPOSITION.match(about):
        about = re.sub(r"(?:['’]s)?(?:\s+(?:himself|herself|itself|too|then))?$", "", about)
        # The name that stands last is what the question was about: "Who in Kaer Morhen trained Geralt?"  But one person
        # is asked for in another's place: "Who played Yennefer in The Hexer?"
        alike = [name for name in old if _sort(gender_of(name)) == _sort(gender_of(about))]
        head, found, tail = last.rpartition((alike or old)[-1])
        if found:
            begun = re.search(r"\b(?:the|a|an) $", head, re.I) is not None
            return f"{head}{re.sub(r'^(?:the|a|an) ', '', about, flags=re.I) if begun else about}{tail}", True
    if _RELATION.search(about):
        return f"Who is {about}?", False
    return f"What about {about}?", False


def _sort(gender: str) -> str:
    return "person" if gender in _PERSONS else "thing" if gender else ""
