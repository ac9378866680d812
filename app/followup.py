"""Chat turn + history → a question that stands alone.

Which name a turn leaves out is for ``app.carry`` to say; here it is put in its place.  Three cases:

* pronouns: "Where was she born?" → the last name that fits, put in the pronoun's place;
* a bare addition: "And his mother?", "What about Yennefer?" → the same question about something else;
* a bare request: "Why?", "Tell me more." → the last question with that question word, or its subject.

A turn that names its own subject is left alone, so a change of topic does not drag the old one along.
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
_BARE = re.compile(
    r"^\W*(?:(?:and|but|so|ok(?:ay)?|then)\W+)*(why|how come|how|when|where|what for|in (?:what|which) \w+)"
    r"(?:\W+(?:not|so|exactly|though|then|him|her|them|(?:is|was|s) (?:that|this)|did (?:that|this|it) happen"
    r"|(?:did|does|do|would) (?:he|she|they) do (?:that|this|it|so)))*\W*$",
    re.I,
)
_AUXILIARY = r"(?:did|does|do|is|are|was|were|has|have|had|can|could|will|would|must|should)\b"
# What another question word takes the place of; "Who killed …" and "Who was …" would lose their subject.
_ASKING = re.compile(
    rf"^\W*(?:(?:(?:why|how|when|where|whom)\s+)?(?={_AUXILIARY})|(?:who|what)\s+(?=(?:did|does|do)\b))", re.I
)
_WHO = re.compile(rf"^\W*who\s+(?!{_AUXILIARY})", re.I)
_MORE = re.compile(
    r"^\W*(?:(?:can you |please |could you )*(?:tell me more|say more|more|go on|continue|elaborate"
    r"|explain(?: more)?|more details?|anything else)"
    r"(?: about (?:it|that|this|him|her|them))?|what else)\W*(?:please)?\W*$",
    re.I,
)
_WORK = r"(?:(?:netflix(?:['’]s)?|television|tv|video|witcher) )*(?:books?|novels?|games?|series|show|saga)\b"
_IN_WORK = (
    r"(?:in|on|according to) (?:the )?(?:(?:first|second|third|last) )?"
    rf"(?:{_WORK}(?! of\b)|(?:tv|television|netflix|witcher [123])\b)"
)
# "in the Thronebreaker game"; what asks or orders is a question of its own: "In what order should I read the books?"
_NO_QUESTION = rf"(?!(?:wh\w+|how|tell|describe|explain|list|name|{_AUXILIARY})\b)"
_CANON = re.compile(
    rf"^\W*(?:{_IN_WORK}|(?:in|on|according to) (?:{_NO_QUESTION}[\w'’]+ ){{0,3}}{_WORK}|the {_WORK})\W*$", re.I
)
_TELLING = re.compile(rf"\s*\b{_IN_WORK},?", re.I)
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
READINGS = 3  # a follow-up is tried with, at most
UNLIKELY = 0.05  # probability under which a reading is not tried


def _fits(gender: str, pronoun: str) -> bool:
    """Whether a name of this gender, "" when unknown, may be called by the pronoun."""
    # "they" may be a people or a beast, and so may "it"; neither is one man or one woman.
    return gender in (pronoun, "") or (pronoun not in _PERSONS and gender not in _PERSONS)


def _fill_in(text: str, own: Sequence[str], meant: str, spare: Sequence[str], gender_of: GenderOf) -> str:
    """Put names in the place of the pronouns, each name once: what follows in the same gender still points to it.

    Args:
        own: names in the text itself; a pronoun that stands after one may mean it.
        spare: persons for a pronoun that ``meant`` does not fit, once that was put in: "how long did she outlive him".
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
        name = meant if meant not in placed.values() and _fits(gender_of(meant), gender) else None
        if name is None and gender in _PERSONS:
            others = (name for name in spare if name not in placed.values())
            name = next((name for name in others if gender_of(name) == gender), None)
        if name is None:
            return match[0]
        placed[gender] = name
        return f"{name}'s" if owns else name

    filled = _PRONOUN.sub(replace, text)
    if spare and meant not in placed.values():
        return _fill_in(text, own, meant, (), gender_of)
    return filled


def _complete(
    question: str,
    last: str,
    names_in: NamesIn,
    gender_of: GenderOf,
    meant: str,
    spare: Sequence[str],
) -> tuple[str, bool]:
    """The question as someone would ask it who had not asked the ``last`` one, where it leaves out the name ``meant``
    ("" for none); and whether it is sure to leave nothing out, as the last question asked of another name."""
    text = question.strip()
    if bare := _BARE.match(text):
        word = "Why" if bare[1].casefold() in ("how come", "what for") else bare[1].capitalize()
        return _asked_with(word, last, gender_of, meant), False
    if _MORE.match(text):
        return (f"Tell me about {meant}." if meant else last), False

    addition = _ADDITION.match(text)
    rest = text[addition.end() :] if addition else text
    if _CANON.match(rest):
        telling, untold = rest.strip().rstrip("?.! "), _TELLING.sub("", last).strip(" ?.!")
        is_work = telling[:4].casefold() == "the "
        # "Who wrote the books?  And the games?" asks about the games themselves.
        if not (is_work and re.search(_WORK, untold, re.I)):
            return f"{untold[:1].upper()}{untold[1:]}{' in' if is_work else ''} {telling}?", True
    own = names_in(rest)
    points = not _EMPTY_IT.search(rest) and _PRONOUN.search(rest) is not None
    if points and meant:
        rest = _fill_in(rest, own, meant, spare, gender_of)
    if addition and len(words(rest)) <= 8 and not _OWN_QUESTION.search(rest):
        return _same_question(last, rest.strip().rstrip("?.! "), names_in, gender_of, bool(own) and not points)
    return (rest[:1].upper() + rest[1:] if addition else rest), False


def asks_for_more(text: str) -> bool:
    """Whether a turn only wants to hear more of what the last one was about."""
    return _MORE.match(text) is not None


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
        history: the turns before it, one at least.
        likely: names and their probabilities, best first; "" for none (``app.carry.likely``).
    """
    out: dict[str, float] = {}
    spare = [name for name, probability in likely if name and probability >= UNLIKELY]
    for name, probability in likely[:READINGS]:
        if probability < UNLIKELY and out:
            break
        text, is_complete = _complete(question, history[-1][0].strip(), names_in, gender_of, name, spare)
        if name and not is_complete and name.casefold() not in text.casefold():
            text = f"{text.rstrip(' ?.!')} {name}?"
        out[text] = out.get(text, 0.0) + probability
    return list(out.items())


def _asked_with(word: str, last: str, gender_of: GenderOf, meant: str) -> str:
    """The last question with another question word, in front, where it says what is asked for: "Did Orsolya flee?" …
    "Why?" asks "Why did Orsolya flee?"; after "Who raised Orsolya?", "Why: who raised Orsolya?" """
    last = re.sub(r"^(?:why|how|when|where|in wh\w+ \w+): ", "", last, flags=re.I).strip(" ?.!")
    if asking := _ASKING.match(last):
        rest = last[asking.end() :]
        return f"{word} {rest[:1].lower()}{rest[1:]}?"
    is_answer = meant and meant.casefold() not in last.casefold() and gender_of(meant) in (*_PERSONS, "")
    if is_answer and (who := _WHO.match(last)):
        return f"{word}: {meant} {last[who.end() :]}?"
    begins = words(last)[:1]
    return f"{word}: {last[:1].lower() if begins and begins[0].is_stop else last[:1]}{last[1:]}?"


def _same_question(last: str, about: str, names_in: NamesIn, gender_of: GenderOf, is_name: bool) -> tuple[str, bool]:
    """ "And Yennefer?" asks the last question about Yennefer; "and Ciri's mother?" is a question by itself."""
    old = names_in(last)
    if is_name and old and not _RELATION.search(about) and not _PREPOSITION.match(about):
        owners = [name for name in old if re.search(rf"\b{re.escape(name)}['’]s?(?!\w)", last)]
        in_possessive = re.search(r"['’]s?$", about) is not None
        about = re.sub(r"(?:['’]s?)?(?:\s+(?:himself|herself|itself|too|then))?$", "", about)
        # The name that stands last is what the question was about: "Who in Kaer Morhen trained Geralt?"  But one person
        # is asked for in another's place: "Who played Yennefer in The Hexer?"
        alike = [name for name in old if _sort(gender_of(name)) == _sort(gender_of(about))]
        # "Who is Geralt's horse?  And Ciri's?"  A mare, too, is a she.
        instead = owners if in_possessive or gender_of(about) in _PERSONS else []
        head, found, tail = last.rpartition((instead or alike or old)[-1])
        if found:
            begun = re.search(r"\b(?:the|a|an) $", head, re.I) is not None
            return f"{head}{re.sub(r'^(?:the|a|an) ', '', about, flags=re.I) if begun else about}{tail}", True
    if _RELATION.search(about):
        return f"Who is {about}?", False
    return f"What about {about}?", False


def _sort(gender: str) -> str:
    return "person" if gender in _PERSONS else "thing" if gender else ""
