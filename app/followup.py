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

from app.carry import Turn
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
    r"^\W*(?:and|or|but|so|ok(?:ay)?|then|also)?[\s,]*(?:what|how) about\b\s*|^\W*(?:and|or|but)\b[\s,]*", re.I
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
_RELATION = re.compile(
    r"\b(?:mother|father|parents?|wife|husband|son|daughter|children|sister|brother|grand\w+|lovers?|mentor|teacher|"
    r"friends?|enem(?:y|ies)|horse|ruler|king|queen|leader|killer|creator|author)\b",
    re.I,
)
_CITATION = re.compile(r"\s*\[\d+\]")
READINGS = 3  # a follow-up is tried with, at most
UNLIKELY = 0.05  # probability under which a reading is not tried
SHORT_ANSWER = 12  # words: an answer no longer than this is taken to name what was asked for


def proper_names(text: str) -> list[str]:
    """Runs of capitalised words in order: the floor where no list of names is at hand."""
    runs: list[list[tuple[int, int]]] = []
    for at, word in enumerate(words(text)):
        lone_start = at == 0 and word.raw.casefold() in STOPWORDS
        if not word.is_capital or lone_start or word.raw.casefold() in STOPWORDS:
            continue
        bare_end = word.end - 2 if word.raw[-2:] in ("'s", "’s") else word.end
        between = text[runs[-1][-1][1] : word.start] if runs else ""
        if runs and re.fullmatch(r"\s+(?:(?:of|the|var|aep|de|von|an) )*", between):
            runs[-1].append((word.start, bare_end))
        else:
            runs.append([(word.start, bare_end)])
    return [text[run[0][0] : run[-1][1]] for run in runs]


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
    # "they" may stand for any name, and a creature that is an "it" to us may be a "he" to the reader.
    return candidates[0] if candidates and pronoun in ("they", "it") else None


def _fill_in(text: str, candidates: Sequence[str], gender_of: GenderOf) -> str:
    """Put names in the place of the pronouns."""

    def replace(match: re.Match[str]) -> str:
        pronoun = match[0].casefold()
        following = re.match(r"\s+([^\W\d_]+)", text[match.end() :])
        owns = pronoun in _OWNER or (
            pronoun == "her" and following is not None and following[1].casefold() not in STOPWORDS
        )
        gender = _OWNER.get(pronoun) or _SUBJECT.get(pronoun) or "she"
        name = _fitting(candidates, gender, gender_of)
        if name is None:
            return match[0]
        return f"{name}'s" if owns else name

    return _PRONOUN.sub(replace, text)


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

    def meant(prefer_topic: bool) -> Sequence[str]:
        return _candidates(history, names_in, prefer_topic) if candidates is None else candidates

    text = question.strip()
    if not history or not text:
        return text
    last = history[-1][0].strip()
    if bare := _BARE.match(text):
        return f"{last} {bare[1].capitalize()}?"
    if _CANON.match(_ADDITION.sub("", text)):
        return f"{last.rstrip(' ?.!')} {_ADDITION.sub('', text).strip().rstrip('?.! ')}?"
    if _MORE.match(text):
        topic = meant(prefer_topic=True)
        return f"Tell me about {topic[0]}." if topic else last

    addition = _ADDITION.match(text)
    rest = text[addition.end() :] if addition else text
    own = names_in(rest)
    pronoun = None if _EMPTY_IT.search(rest) else _PRONOUN.search(rest)
    # A name before the pronoun is what the pronoun means: "Who is Yennefer and what did she do?"
    if pronoun and any(rest.find(name) < pronoun.start() for name in own):
        pronoun = None
    if pronoun:
        rest = _fill_in(rest, meant(prefer_topic=bool(addition)), gender_of)
    if (
        addition
        and len(words(rest)) <= 8
        and not re.match(r"\W*(?:who|what|when|where|why|how|which|did|does|is|was|are|were)\b", rest, re.I)
    ):
        return _same_question(last, rest.strip().rstrip("?.! "), names_in, bool(own) and not pronoun)
    return rest[:1].upper() + rest[1:] if addition else rest


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
    for name, probability in likely[:READINGS]:
        if probability < UNLIKELY and out:
            break
        text = standalone(question, history, names_in, gender_of, [name] if name else [])
        if name and name.casefold() not in text.casefold():
            text = f"{text.rstrip(' ?.!')} {name}?"
        out[text] = out.get(text, 0.0) + probability
    return list(out.items())


def _same_question(last: str, about: str, names_in: NamesIn, is_name: bool) -> str:
    """ "And Yennefer?" asks the last question about Yennefer; "and Ciri's mother?" is a question by itself."""
    old = names_in(last)
    if is_name and old and not _RELATION.search(about):
        # The name that stands last is what the question was about: "Who in Kaer Morhen trained Geralt?"
        head, found, tail = last.rpartition(old[-1])
        if found:
            return f"{head}{about}{tail}"
    if _RELATION.search(about):
        return f"Who is {about}?"
    return f"What about {about}?"
