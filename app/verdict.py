"""Yes or no, and is it so at all?  What a piece of evidence says to a question that asks for, or assumes, something.

Two logistic curves over things that can be shown to a reader: a denial in the evidence and none in the question, words
that mean the opposite (*alive*, *dead*), words of the question that the evidence lacks, turns like *instead* and
*only*.  Both are fitted on the train questions, whose evidence is known (``python -m app.learn``).  They read no
meaning, so they speak only when they are sure enough, and the evidence is quoted beside them in any case.  A premise is
doubted only where the denial, the opposite, or the exchange of who did it to whom can be pointed at (``grounds``).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from app.lexicon import ALTERNATIVES
from app.text import content, stem, stems, words

SURE = 0.7  # probability from which a plain yes or no is said
NEAR = 3  # words after a denial, those that carry meaning, to which it belongs
NEAR_NAME = 4  # words between a deed and who did it
CONTRADICTED = 0.25  # probability from which a premise is called into doubt; one question in fifty has a false one

_LEARNT = json.loads(Path(__file__).with_name("learnt.json").read_text(encoding="utf-8"))
YES, PREMISE = _LEARNT["yes"], _LEARNT["premise"]

# Also as it is typed: *didnt*.
DENIAL = re.compile(
    r"\b(?:not|never|no|none|nobody|nothing|neither|nor|without|cannot|unable|impossible|incapable|\w+n['’]t"
    r"|(?:did|do|does|could|would|should|was|were|is|are|ca|wo|have|has|had)nt)\b",
    re.I,
)
# Words that deny without a *not*: what is refused, missing, in vain or hardly so.
_LACK = re.compile(
    r"\b(?:refus\w*|reject\w*|den(?:y|ies|ied)|declin\w*|fail\w*|forbid\w*|forbade|absent|missing|lacks?|lacked|lost|lose"
    r"|immune|unarmed|useless|hopeless|harmless|ineffective|waste|worth|rare|rarely|hardly|scarcely|barely|seldom|avoid\w*"
    r"|escap\w*|proof against|kept out|left out|leaves? out|gave up|gives? up|too late|unlike|invention|nonsense"
    r"|false\w*)\b",
    re.I,
)
_DENIES = re.compile(r"\W*den(?:y|ies|ied)\b", re.I)
_CONTRAST = re.compile(r"\b(?:instead of|rather than|in place of)\b", re.I)
_ABSOLUTE = re.compile(r"\b(?:all|always|never|only|completely|entirely|every|everyone|totally|forever)\b", re.I)
_HEDGE = re.compile(
    r"\b(?:slight\w*|some|sometimes|most|mostly|nearly|almost|partly|several|usually|often|but|though|although|except)\b",
    re.I,
)
_CHOICE = re.compile(r"\w\W+or (?!(?:not|no|anything|something|so|more|less|any|is|was|are|do|does|did)\b)\w", re.I)

# "Isn't he a witcher?" asks whether he is one.
_NOT_SO = re.compile(r"^(\W*(?:is|are|was|were|do|does|did|has|have|had|could|would))n['’]?t\b", re.I)

_OPPOSITES_TABLE = """
alive living survive survivor save rescue escape heal: dead die death killed corpse slain
win winner victory victor: lose defeat rout
same alike common slight slightly: different differ
open: closed shut locked
guarded: unguarded
young: old
light: heavy
strong strongest powerful: weak weakness little
safe safest: dangerous danger
best better: worst worse
first: last
early: late
secret: everyone known openly
free: vassal prisoner captive
immune: vulnerable susceptible
accept agree: refuse reject
love: hate
friend: enemy
man: woman girl
male: female
stallion: gelding mare
allow: forbid
proud: ashamed reject
celebrate hero: stone banish outcast
poor: rich
pardon spare: execute punish hang
tall: short
sober: drunk
"""
OPPOSITES: dict[str, frozenset[str]] = {}
for _line in _OPPOSITES_TABLE.strip().splitlines():
    _ones, _others = (frozenset(stem(word) for word in side.split()) for side in _line.split(":"))
    for _side, _against in ((_ones, _others), (_others, _ones)):
        OPPOSITES |= {one: OPPOSITES.get(one, frozenset()) | _against for one in _side}

_TURNED = re.compile(
    r"\b(?:refus\w*|fail\w*|rather|unlike|immune|harmless|ineffective|false\w*|reject\w*|deni\w*|lost|too)\b", re.I
)
_CORRECTS = re.compile(
    r"\b(?:only|both|alone|neither|instead|rather|already|still|remained|survived|spared|alive|dead|died|false|legend"
    r"|rumou?r|lie|belief|nobody|no one|none)\b",
    re.I,
)
_OPENINGS = {
    "why": re.compile(r"^\W*why\b", re.I), "which": re.compile(r"^\W*(?:which|what) \w+", re.I),
    "who": re.compile(r"^\W*who\b", re.I), "when": re.compile(r"^\W*when\b", re.I),
}  # fmt: skip
_ASSUMES_LITTLE = re.compile(
    r"\bhow (?:many|much)\b|\b(?:or|vs|versus)\b|\bdiffer\w*\b|\bwhose\b"
    r"|\bwhy\b.{0,40}\b(?:called|named|known as|call \w+self)\b"
    r"|^\W*when (?:will\b|(?:does|do|is|are)\b.*\b(?:come|coming|out|released?)\b)"
    r"|^\W*what (?:is|are|was|were) (?:it|they|he|she) (?:called|named)\b",
    re.I,
)
_DEED = re.compile(
    r"\b(?:did|does|do|had|has)\s+(?P<doer>(?:[\w'’-]+\s+){1,4}?)(?P<verb>kill|murder|slay|defeat|beat|betray|capture|behead"
    r"|poison|rescue|save|train|teach|raise|curse|blind|wound)\s+(?P<victim>[\w'’-]+(?:\s+[\w'’-]+){0,2})",
    re.I,
)
_IN_EVIDENCE = ("only", "but", "although", "instead", "before", "still")
_IN_QUESTION = (
    "all",
    "always",
    "really",
    "ever",
    "just",
    "any",
    "same",
    "every",
    "only",
    "can",
    "both",
    "also",
    "still",
)


def features(question: str, title: str, evidence: str) -> dict[str, float]:
    """What the verdict is read off; ``title`` is that of the evidence's article."""
    asked = {word.stem for word in content(question)}
    held = stems(evidence) | stems(title)
    covered = sum(stem in held or bool(ALTERNATIVES.get(stem, frozenset()) & held) for stem in asked)
    denied, asked_denied = bool(DENIAL.search(evidence)), bool(DENIAL.search(question))
    lacks, asked_lacks = bool(_LACK.search(evidence)), bool(_LACK.search(question))
    if _CONTRAST.search(question):
        denied = lacks = False  # "Is it A rather than B?": what is denied is B
    against = opposed(question, evidence)
    said, query = evidence.casefold(), question.casefold()

    def has(word: str, text: str) -> float:
        return float(re.search(rf"\b{word}\b", text) is not None)

    return {
        "constant": 1.0,
        "denied": float(denied),
        "asked_denied": float(asked_denied),
        "denied_otherwise": float(denied != asked_denied),
        "lacks": float(lacks),
        "asked_lacks": float(asked_lacks),
        "negative_otherwise": float((denied or lacks) != (asked_denied or asked_lacks)),
        "opposed": float(against),
        "opposed_otherwise": float(against and denied == asked_denied),
        "denied_near": float(denied and not asked_denied and denied_near(question, evidence)),
        "absolute_hedged": float(bool(_ABSOLUTE.search(question)) and bool(_HEDGE.search(evidence))),
        "turned": float(bool(_TURNED.search(evidence))),
        "coverage": covered / max(1, len(asked)),
        "length": len(held) / 20,
        **{f"evidence_{word}": has(word, said) for word in _IN_EVIDENCE},
        **{f"question_{word}": has(word, query) for word in _IN_QUESTION},
    }


def opposed(question: str, evidence: str) -> bool:
    """Whether the evidence holds the opposite of a word of the question, and not that word itself."""
    held = stems(evidence)
    return any(word.stem not in held and OPPOSITES.get(word.stem, frozenset()) & held for word in content(question))


def denied_near(question: str, evidence: str) -> bool:
    """Whether a denial in the evidence stands just before a word of the question: *never left*."""
    asked = {word.stem for word in content(question)}
    asked |= {other for one in asked for other in ALTERNATIVES.get(one, frozenset())}
    return any(
        asked & {word.stem for word in content(clause)[:NEAR]}
        for denial in DENIAL.finditer(evidence)
        for clause in re.split("[,;:.]", evidence[denial.end() :], maxsplit=1)[:1]
        if not _DENIES.match(clause)
    )


def premise_features(question: str, title: str, evidence: str) -> dict[str, float]:
    """What it is read off that the evidence contradicts something that the question takes for granted."""
    base = features(question, title, evidence)
    held = stems(evidence) | stems(title)
    lacking = [
        word for word in content(question) if not ({word.stem} | ALTERNATIVES.get(word.stem, frozenset())) & held
    ]
    opened = {name: float(opening.search(question) is not None) for name, opening in _OPENINGS.items()}
    return base | {
        "corrects": float(bool(_CORRECTS.search(evidence))),
        "lacking_name": float(any(word.is_capital for word in lacking)),
        **{f"asks_{name}": value for name, value in opened.items()},
        "why_denied": opened["why"] * base["denied_otherwise"],
        "fact": float("—" in evidence),
        "brief": float(len(evidence.split()) < 14),
        "never": float("never" in evidence.casefold()),
        "grounds": float(grounds(question, title, evidence)),
        "covered_denied": base["coverage"] * base["denied_otherwise"],
    }


def grounds(question: str, title: str, evidence: str) -> bool:
    """Whether something can be pointed at that speaks against what a question assumes.

    A denial of what the question says and does not deny itself, the opposite of one of its words, or the same deed done
    the other way round.  A question for a number, a difference or a name assumes too little to be contradicted.
    """
    if _ASSUMES_LITTLE.search(question):
        return False
    denied = not (DENIAL.search(question) or _LACK.search(question)) and denied_near(question, evidence)
    return denied or opposed(question, evidence) or reversed_roles(question, title, evidence)


def reversed_roles(question: str, title: str, evidence: str) -> bool:
    """Whether "When did A kill B?" meets "B killed A" or, in A's article, "killed by B", and nowhere "A killed B"."""
    form = _DEED.search(question)
    if form is None:
        return False
    verb = stem(form["verb"])
    doer, victim = ({word.stem for word in content(form[side])} for side in ("doer", "victim"))
    doer, victim = doer - victim, victim - doer
    cut = [word.stem for word in words(evidence)]
    found = False
    for at, one in enumerate(cut):
        if one != verb:
            continue
        before, after = set(cut[max(0, at - NEAR_NAME) : at]), cut[at + 1 : at + 1 + NEAR_NAME]
        by = after.index("by") if "by" in after else len(after)
        if doer & before and victim & set(after[:by]):
            return False  # as it was asked; "by stabbing her" may follow
        passive = doer & (before | stems(title)) and victim & set(after[by:])
        active = by == len(after) and victim & before and doer & set(after) and not doer & before
        found = found or bool(passive or active)
    return found


def contradicts(question: str, title: str, evidence: str, weights: dict[str, float] = PREMISE) -> bool:
    """Whether the evidence speaks against what a question assumes ("Why did X leave Y?": "X never left Y.")."""
    if reversed_roles(question, title, evidence):
        return True
    return doubted(premise_features(question, title, evidence), weights)


def doubted(values: dict[str, float], weights: dict[str, float]) -> bool:
    """Whether these features call a premise into doubt: there are grounds, and the curve says so."""
    return bool(values["grounds"]) and probability(values, weights) >= CONTRADICTED


def probability(values: dict[str, float], weights: dict[str, float]) -> float:
    """The curve's value for these features."""
    return 1 / (1 + math.exp(-sum(weights[name] * value for name, value in values.items())))


def yes(question: str, title: str, evidence: str, weights: dict[str, float] = YES) -> float:
    """Probability that the evidence says yes."""
    return probability(features(question, title, evidence), weights)


def word(question: str, title: str, evidence: str, weights: dict[str, float] = YES) -> str:
    """``Yes``, ``No``, or nothing: not sure enough, or the question leaves a choice ("light or heavy?")."""
    if _CHOICE.search(question):
        return ""
    if reversed_roles(question, title, evidence):
        return "No"
    p = yes(_NOT_SO.sub(r"\1", question), title, evidence, weights)
    return "Yes" if p >= SURE else "No" if p <= 1 - SURE else ""
