"""How people ask: wordings for every kind of infobox row, and the slips of their typing.

``{t}`` is the article's title, ``{k}`` the row's label, ``{v}`` its value, ``{his}`` a possessive.  An answer may only
use words that the row itself holds (title, label, value): anything else could not be found in its passage.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from corpus.pairs import ASK, typo


@dataclass(frozen=True, slots=True)
class Key:
    """Wordings of one kind of row; ``follow`` are second questions that lean on the first."""

    ask: tuple[str, ...]
    answer: str = "{v}"
    follow: tuple[str, ...] = ("and {his} {k}?", "what about {his} {k}?", "{k}?")


def _key(ask: str, answer: str = "{v}", follow: str = "") -> Key:
    parted = tuple(map(str.strip, ask.split("|")))
    return Key(parted, answer, tuple(map(str.strip, follow.split("|"))) if follow else Key(()).follow)


_OF = "{t}'s {k} is {v}"
_ARE = "{t}'s {k} are {v}"
KEYS = {
    "mother": _key("who is {t}'s mother | who was the mother of {t} | who gave birth to {t} | {t} mum | {t} mother name"
                   " | which woman had {t} as a child", _OF),
    "father": _key("who is {t}'s father | who was the father of {t} | {t} dad | who sired {t} | {t} father name", _OF),
    "parents": _key("who are {t}'s parents | whose child is {t} | {t} parents | {t} mother and father", _ARE),
    "children": _key("who are {t}'s children | does {t} have kids, and who are they | {t} kids | sons and daughters of "
                     "{t} | who did {t} have as children", "{t}'s {k}: {v}"),
    "siblings": _key("who are {t}'s brothers and sisters | {t} siblings | does {t} have a brother or sister",
                     "{t}'s {k}: {v}"),
    "wife": _key("who is {t} married to | who is {t}'s wife | {t} wife | whom did {t} marry", _OF),
    "husband": _key("who is {t} married to | who is {t}'s husband | {t} husband | whom did {t} marry", _OF),
    "lovers": _key("who did {t} sleep with | who were {t}'s lovers | {t} love interest | with whom was {t} involved | "
                   "who was {t} in love with", "{t}'s {k}: {v}"),
    "race": _key("what race is {t} | is {t} human, elf or what | {t} race | what kind of creature is {t}",
                 "{t}'s {k} is {v}", "and what race? | race?"),
    "gender": _key("is {t} male or female | {t} gender | is {t} a man or a woman"),
    "profession": _key("what does {t} do for a living | what is {t}'s job | {t} profession | what work does {t} do",
                       "{t}'s {k} is {v}", "and {his} job? | {k}?"),
    "affiliation": _key("who does {t} side with | whose side is {t} on | which group does {t} belong to | {t} "
                        "affiliation | who is {t} loyal to"),
    "first appearance": _key("where does {t} first appear | what was {t} first in | {t} first appearance | which book "
                             "or game introduced {t}", "{t}'s {k} is {v}", "and {his} {k}? | first seen where?"),
    "hair": _key("what colour is {t}'s hair | {t} hair | what is {t}'s hair like", "{t}'s {k} is {v}"),
    "eyes": _key("what colour are {t}'s eyes | {t} eye colour | what are {t}'s eyes like", _ARE),
    "died": _key("how, when or where did {t} die | what happened to {t} in the end | {t} death | how does {t} end up "
                 "dead | what do we know about the death of {t}", "{v}", "how did {t} die? | and {his} death?"),
    "born": _key("when or where was {t} born | {t} birth | where does {t} come from", "{v}", "born when or where?"),
    "title": _key("what is {t}'s title | what title does {t} hold | {t} title | how is {t} styled", _OF),
    "location": _key("where can i find {t} | where is {t} | {t} location | whereabouts of {t} | where would i have to "
                     "go for {t}", "{v}", "and where is that? | where?"),
    "region": _key("which region is {t} in | {t} region | what part of the world is {t} in", "{t}'s {k} is {v}"),
    "weakness": _key("what is {t} weak to | how do i beat {t} | {t} weakness | what hurts {t} | what should i bring "
                     "against {t}"),
    "oil": _key("which oil works on {t} | what blade oil for {t} | {t} oil | what do i put on my sword against {t}",
                "{v}", "and which oil? | oil?"),
    "sign": _key("which sign should i use on {t} | best sign vs {t} | {t} sign | what sign works against {t}",
                 "{v}", "and which sign? | sign?"),
    "bomb": _key("which bomb is good against {t} | {t} bomb | what bombs should i throw at {t}",
                 "{v}", "and bombs? | which bomb?"),
    "occurrence": _key("where does {t} live | where do you run into {t} | {t} habitat | where is {t} usually found"),
    "class": _key("what class of thing is {t} | what sort of monster or thing is {t} | {t} class", "{t}'s {k} is {v}"),
    "effect": _key("what does {t} do | what is {t} good for | {t} effect | what happens if i use {t}"),
    "duration": _key("how long does {t} last | {t} duration | for how long does {t} work", "{t}'s {k} is {v}"),
    "toxicity": _key("how toxic is {t} | {t} toxicity | how much toxicity does {t} cost", "{t}'s {k} is {v}"),
    "ingredients": _key("what is {t} made of | how do i brew {t} | {t} recipe | ingredients for {t} | what do i need "
                        "to make {t}", "{t}'s {k}: {v}"),
    "outcome": _key("how did {t} end | what came of {t} | {t} outcome | who came out on top in {t}"),
    "giver": _key("who gives {t} | where do i get {t}, from whom | {t} quest giver | who starts {t}"),
    "members": _key("who belongs to {t} | who is in {t} | {t} members | name the people of {t}", "{t}'s {k}: {v}"),
    "leader": _key("who leads {t} | who is the head of {t} | {t} leader | who is in charge of {t}", _OF),
    "ruler": _key("who rules {t} | who is king or queen of {t} | {t} ruler | who sits on the throne of {t}", _OF),
    "capital": _key("what is the capital of {t} | {t} capital city | which town is {t} governed from", _OF),
    "owner": _key("who owns {t} | whose is {t} | {t} owner | who does {t} belong to", _OF),
    "author": _key("who wrote {t} | {t} author | {t} was written by whom", _OF),
    "actor": _key("who plays {t} | {t} actor | who was cast as {t} | whose face does {t} have on screen", _OF),
    "voice": _key("who voices {t} | {t} voice actor | who speaks {t}"),
    "date": _key("when was {t} | {t} date | what year was {t} | when did {t} take place"),
    "released": _key("when did {t} come out | {t} release date | how old is {t}", "{t} released {v}"),
    "published": _key("when was {t} published | {t} publication year | when did {t} come out", "{t} published {v}"),
    "publisher": _key("who published {t} | {t} publisher", _OF),
    "developer": _key("who made {t} | which studio developed {t} | {t} developer", _OF),
    "composer": _key("who wrote the music for {t} | {t} composer", _OF),
    "belligerents": _key("who fought in {t} | which sides were there in {t} | {t} belligerents", "{v}"),
    "commanders": _key("who commanded in {t} | {t} commanders | who led the armies in {t}", "{v}"),
    "headquarters": _key("where is {t} based | {t} headquarters | where does {t} have its seat", _OF),
    "horse": _key("what is {t}'s horse called | {t} horse name | what does {t} ride", _OF),
    "weapon": _key("what does {t} fight with | {t} weapon | which weapon does {t} carry", _OF),
    "swords": _key("what swords does {t} have | {t} swords | names of {t}'s blades", "{t}'s {k}: {v}"),
    "age": _key("how old is {t} | {t} age", "{t}'s {k} is {v}"),
    "immune to": _key("what does not work on {t} | what is {t} immune to | {t} immunities"),
}  # fmt: skip
SAME = {
    "parent": "parents", "parent s": "parents", "child": "children", "sibling": "siblings", "spouse": "husband",
    "partner": "lovers", "partner s": "lovers", "lover": "lovers", "species": "race", "occupation": "profession",
    "affiliations": "affiliation", "hair color": "hair", "hair colour": "hair", "eye color": "eyes",
    "eye colour": "eyes", "death": "died", "birth": "born", "titles": "title", "place": "location",
    "susceptibility": "weakness", "weaknesses": "weakness", "habitat": "occurrence", "appears in": "first appearance",
    "release date": "released", "member": "members", "leaders": "leader", "sex": "gender", "weapons": "weapon",
}  # fmt: skip
"""Labels of other wikis → ours."""
INFERRED = frozenset(("gender", "race", "class", "status", "type", "first appearance", "title", "region"))
"""Rows whose value other passages show without saying it: never asked with the evidence taken away."""

DEFINITION = {
    True: ("who is {t}", "who was {t}", "{t}", "tell me about {t}", "who's {t}", "never heard of {t}, who's that",
           "what should i know about {t}", "give me a one-line summary of {t}"),
    False: ("what is {t}", "{t}", "tell me about {t}", "what exactly is {t}", "explain {t}", "what's {t}", "{t}?",
            "never heard of {t}, what is that"),
}  # fmt: skip
"""Keyed by whether it is a person."""
HEADING = ("what about {t}: {h}", "{t} {h}", "tell me about {t}, {h}", "what do the archives say under {h} on {t}")
LINK = ("how is {t} connected to {o}", "what does {t} have to do with {o}", "{t} and {o}",
        "what is there between {t} and {o}", "{t} {o} connection")  # fmt: skip
AGENT = (
    "who was {t} {verb} by",
    "by whom was {t} {verb}",
    "{t} {verb} by who",
    "whose doing was it that {t} was {verb}",
)
YEAR = ("what year was it when {s}", "when was it that {s}", "in which year: {s}", "{s} – what year")
DEED = ("what happened to {t} in {y}", "{t} in {y}", "what is told of {t} for the year {y}")
SWITCH = ("and {o}?", "what about {o}?", "same question for {o}", "ok and {o}")
CANON = {"books": (" in the books", " (books)"), "games": (" in the games", " in game"),
         "tv": (" in the series", " on the show")}  # fmt: skip

_OPENERS = ("hey, ", "hi! ", "quick question: ", "i was wondering, ", "sorry if this is obvious, but ", "pls tell me ",
            "can you tell me ", "so ", "i forgot: ", "my friend and i disagree: ")  # fmt: skip
_CLOSERS = (" pls", " thanks", " ?", " again", ", do you know?", " (no spoilers needed)")
_SHORT = ((r"\bwhat is\b", "whats"), (r"\bwho is\b", "whos"), (r"\bwhere is\b", "wheres"), (r"\bdoes not\b", "doesnt"),
          (r"\bplease\b", "pls"), (r"\byou\b", "u"))  # fmt: skip


def ask_of(key: str) -> tuple[Key, str]:
    """Wordings for an infobox key, and the key they are filed under."""
    name = " ".join(re.findall(r"[a-z]+", key.casefold().replace("_", " ")))
    name = SAME.get(name, name)
    if name in KEYS:
        return KEYS[name], name
    # The last of the general forms is the plainest; "who is …" would be wrong for most unknown labels.
    general = tuple(form.replace("{title}", "{t}").replace("{key}", "{k}").rstrip("?") for form in ASK[1:])
    return Key(general), name


def typed(question: str, rng: random.Random) -> str:
    """The question as somebody may have typed it: mostly tidy, often terse, sometimes with a slip."""
    text = question.strip()
    if rng.random() < 0.12:
        text = rng.choice(_OPENERS) + text
    if rng.random() < 0.15:
        for pattern, short in _SHORT:
            text = re.sub(pattern, short, text)
    if rng.random() < 0.08:
        text = typo(text, rng)
    text = text.lower() if rng.random() < 0.35 else text[:1].upper() + text[1:]
    if text[-1:] not in "?.!" and rng.random() < 0.65:
        text += "?"
    if rng.random() < 0.05:
        text = text.rstrip("?") + rng.choice(_CLOSERS)
    return text


def tidy_question(question: str) -> str:
    """The same question for a rewrite: a capital and a question mark."""
    text = question.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(("?", ".", "!")) else "?")
