"""Yes or no, and is it so at all?  What a piece of evidence says to a question that asks for, or assumes, something.

Two logistic curves over things that can be shown to a reader: a denial in the evidence and none in the question, words
of the question that the evidence lacks, turns like *instead* and *only*.  Both are fitted on the train questions, whose
evidence is known (``python -m app.learn``).  They read no meaning, so they speak only when they are sure enough,
and the evidence is quoted beside them in any case.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from app.lexicon import ALTERNATIVES
from app.text import content, stems

SURE = 0.7  # probability from which a plain yes or no is said
CONTRADICTED = 0.2  # probability from which a premise is called into doubt; one question in fifty has a false one

_LEARNT = json.loads(Path(__file__).with_name("learnt.json").read_text(encoding="utf-8"))
YES, PREMISE = _LEARNT["yes"], _LEARNT["premise"]

_DENIAL = re.compile(r"\b(?:not|never|no|none|nobody|nothing|neither|nor|without|cannot|\w+n['’]t)\b", re.I)
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
    denied, asked_denied = bool(_DENIAL.search(evidence)), bool(_DENIAL.search(question))
    said, query = evidence.casefold(), question.casefold()

    def has(word: str, text: str) -> float:
        return float(re.search(rf"\b{word}\b", text) is not None)

    return {
        "constant": 1.0,
        "denied": float(denied),
        "asked_denied": float(asked_denied),
        "denied_otherwise": float(denied != asked_denied),
        "turned": float(bool(_TURNED.search(evidence))),
        "coverage": covered / max(1, len(asked)),
        "length": len(held) / 20,
        **{f"evidence_{word}": has(word, said) for word in _IN_EVIDENCE},
        **{f"question_{word}": has(word, query) for word in _IN_QUESTION},
    }


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
        "covered_denied": base["coverage"] * base["denied_otherwise"],
    }


def contradicts(question: str, title: str, evidence: str, weights: dict[str, float] = PREMISE) -> bool:
    """Whether the evidence speaks against what a question assumes ("Why did X leave Y?": "X never left Y.")."""
    return probability(premise_features(question, title, evidence), weights) >= CONTRADICTED


def probability(values: dict[str, float], weights: dict[str, float]) -> float:
    """The curve's value for these features."""
    return 1 / (1 + math.exp(-sum(weights[name] * value for name, value in values.items())))


def yes(question: str, title: str, evidence: str, weights: dict[str, float] = YES) -> float:
    """Probability that the evidence says yes."""
    return probability(features(question, title, evidence), weights)


def word(question: str, title: str, evidence: str, weights: dict[str, float] = YES) -> str:
    """``Yes``, ``No``, or nothing where it is not sure enough."""
    p = yes(question, title, evidence, weights)
    return "Yes" if p >= SURE else "No" if p <= 1 - SURE else ""
