"""Which telling a text belongs to, read off headings, titles, categories and banners.

Evidence is a set of canons: a heading that names both books and games says "both", which is not the same as
saying nothing, but leads to the same tag: ``""``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from corpus.types import Canon

# Words that name a telling outright.
_NAMED: tuple[tuple[Canon, re.Pattern[str]], ...] = (
    (
        "books",
        re.compile(
            r"\bbooks?\b|\bnovels?\b|\bnovellas?\b|\bsagas?\b|\bshort stor(?:y|ies)\b|\bsapkowski|\bliterary\b", re.I
        ),
    ),
    (
        "games",
        re.compile(
            r"(?<!board )(?<!card )\b(?:video ?)?games?\b(?! of )|\bcd projekt|\bthe witcher (?:[123]|iv)\b"
            r"|\btw[123]\b|\bassassins of kings\b|\bthe witcher:? enhanced edition\b|\bwitcher 3:? wild hunt\b"
            r"|\bhearts of stone\b|\bblood and wine\b|\bthronebreaker\b|\bgwent\b"
            r"|\bwitcher (?:adventure|tales)\b"
            r"|\bwitcher:? (?:old world|battle arena|monster slayer|rise of the white wolf)\b|\bdlcs?\b",
            re.I,
        ),
    ),
    (
        "tv",
        re.compile(
            r"\bnetflix\b|\btelevision\b|\btv\b|\bseasons? (?:\d|one|two|three|four|five)|\bepisodes?\b|\bthe hexer\b"
            r"|\bnightmare of the wolf\b|\bblood origin\b|\bsirens of the deep\b|\bthe rats: a witcher tale\b"
            r"|\b(?:web|animated|live[- ]action) (?:series|film)\b",
            re.I,
        ),
    ),
)
# Titles and customs of one telling.  They lose to a name anywhere above them: "The Lesser Evil" under a heading
# "Netflix series" is an episode's retelling.
_IMPLIED: tuple[tuple[Canon, re.Pattern[str]], ...] = (
    (
        "books",
        re.compile(
            r"\b(?:the last wish|sword of destiny|blood of elves|time of contempt|baptism of fire"
            r"|tower of (?:the )?swallows?|lady of the lake|season of storms|crossroads of ravens"
            r"|a grain of truth|the lesser evil|a question of price|the edge of the world|the voice of reason"
            r"|the bounds of reason|a shard of ice|eternal (?:flame|fire)|a little sacrifice|something more"
            r"|the road with no return|something ends,? something begins)\b",
            re.I,
        ),
    ),
    (
        "games",
        re.compile(
            r"^(?:associated )?quests?$|^journal(?: entry| entries)?$|\bwalkthrough\b|\bgameplay\b|\bbestiary entry\b"
            r"|\bglossary entry\b|^crafting$|^merchants? inventory$|\bgame files\b|\bachievements?\b",
            re.I,
        ),
    ),
)
_CATEGORY_GAMES = re.compile(r"\b(?:quests?|diagrams|gwent cards?)\b", re.I)
_POINTS_ELSEWHERE = re.compile(r"\b(?:see|for (?:the|other))\b", re.I)


def _matches(text: str, rules: Sequence[tuple[Canon, re.Pattern[str]]]) -> set[Canon]:
    return {canon for canon, pattern in rules if pattern.search(text)}


def _one(found: set[Canon]) -> Canon:
    return next(iter(found)) if len(found) == 1 else ""


@lru_cache(maxsize=8192)
def of_heading(heading: str) -> Canon:
    """The telling that a heading names, or else implies; ``""`` for none or several."""
    return _one(_matches(heading, _NAMED) or _matches(heading, _IMPLIED))


def of_path(path: Sequence[str], page: Canon = "") -> Canon:
    """Canon of a section: the deepest heading that names one, else the deepest that implies one, else ``page``.

    A heading that names two tellings ends the search: what is below it belongs to both.
    """
    for rules in (_NAMED, _IMPLIED):
        for heading in reversed(path):
            found = _matches(heading, rules)
            if found:
                return _one(found)
    return page


def of_page(title: str, categories: Iterable[str], banners: Iterable[str]) -> Canon:
    """Canon of a whole page: what its title, categories and banners agree on, ``""`` where they do not.

    A banner that sends the reader elsewhere ("for the Netflix character, see …") says nothing about this page.
    """
    found = _matches(title, _NAMED)
    for category in categories:
        text = category.replace("_", " ")
        found |= _matches(text, _NAMED) or ({"games"} if _CATEGORY_GAMES.search(text) else set())
    for banner in banners:
        if not _POINTS_ELSEWHERE.search(banner):
            found |= _matches(banner, _NAMED)
    return _one(found)
