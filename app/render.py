"""A conversation as HTML.  Everything that is not our own markup goes through ``escape``: questions, answers,
titles and passages are data, whatever they look like."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from app.answer import Answer

_CITATION = re.compile(r"\[(\d{1,3})\]")
# Gradio fills its HTML through JavaScript and Handlebars templates; spelt as entities, these mean nothing to either.
_TEMPLATE = str.maketrans({sign: f"&#{ord(sign)};" for sign in "${}`@"})

CANONS = {"books": "Books", "games": "Games", "tv": "Television"}


@dataclass(slots=True)
class Turn:
    """One question and what has become of it so far."""

    question: str
    status: str = ""  # what is being done now; empty when the answer is there
    draft: list[str] = field(default_factory=list)  # checked sentences shown before the answer is complete
    answer: dict[str, Any] | None = None  # the contract's JSON
    note: str = ""

    def finish(self, answer: Answer) -> None:
        self.question, self.note = answer.question or self.question, answer.note
        self.answer, self.status, self.draft = answer.to_json(), "", []


def escape(text: str) -> str:
    """Text as HTML that shows just that text, line breaks included."""
    return html.escape(text, quote=True).translate(_TEMPLATE).replace("\n", "<br>")


def link(url: str, label: str) -> str:
    """A link where the address is one of the web's; anything else (``codex:…``, ``javascript:…``) stays text."""
    try:
        safe = urlsplit(url).scheme in ("http", "https")
    except ValueError:
        safe = False
    if not safe:
        return ""
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer nofollow">{escape(label)}</a>'


def cited(text: str, turn: int, known: frozenset[int]) -> str:
    """An answer's text with its ``[n]`` as superscript buttons that open source n; other brackets stay text."""

    def button(match: re.Match[str]) -> str:
        n = int(match[1])
        if n not in known:
            return match[0]
        return (
            f'<sup><button type="button" class="cite" data-source="source-{turn}-{n}" '
            f'aria-label="Show source {n}">{n}</button></sup>'
        )

    return _CITATION.sub(button, escape(text))


def confidence_chip(confidence: float) -> str:
    """How sure the answer is, in words and per cent."""
    level = "high" if confidence >= 0.8 else "fair" if confidence >= 0.6 else "low"
    return (
        f'<span class="chip {level}" title="How sure the archives hold this answer">'
        f"{level} confidence · {confidence:.0%}</span>"
    )


def source(citation: dict[str, Any], turn: int, is_open: bool) -> str:
    """One numbered source: where it stands, and the passage with the quote marked."""
    passage, start, end = citation["passage"], citation["start"], citation["end"]
    where = " › ".join(part for part in (citation["title"], citation["section"]) if part)
    canon = CANONS.get(citation["canon"], "")
    badge = f'<span class="badge {citation["canon"]}">{canon}</span>' if canon else ""
    body = f"{escape(passage[:start])}<mark>{escape(passage[start:end])}</mark>{escape(passage[end:])}"
    origin = link(citation["url"], "Read this revision") or '<span class="quiet">From the codex</span>'
    return (
        f'<details class="source" id="source-{turn}-{citation["n"]}"{" open" if is_open else ""}>'
        f'<summary><span class="number">{citation["n"]}</span> <span>{escape(where)}</span> {badge}</summary>'
        f"<blockquote>{body}</blockquote><p>{origin}</p></details>"
    )


def turn_html(turn: Turn, number: int) -> str:
    """Question, answer and sources of one turn."""
    said = f'<div class="question"><span class="visually-hidden">You asked: </span>{escape(turn.question)}</div>'
    if turn.answer is None:
        draft = " ".join(escape(sentence) for sentence in turn.draft)
        waiting = f'<p class="status">{escape(turn.status)}<span class="dots" aria-hidden="true"></span></p>'
        reply = f'<div class="answer">{f"<p>{draft}</p>" if draft else ""}{waiting if turn.status else ""}</div>'
        return f'<article class="turn">{said}{reply}</article>'
    answer = turn.answer
    known = frozenset(citation["n"] for citation in answer["citations"])
    asked_as = ""
    if answer["standalone_question"] not in ("", answer["question"]):
        asked_as = f'<p class="quiet">Understood as: {escape(answer["standalone_question"])}</p>'
    note = f'<p class="quiet">{escape(turn.note)}</p>' if turn.note else ""
    chip = "" if answer["abstained"] else confidence_chip(answer["confidence"])
    seconds = answer["timings"].get("total", 0.0) / 1000
    foot = f'<p class="foot">{chip} <span class="quiet">{seconds:.1f} s</span></p>'
    reply = (
        f'<div class="answer{" silent" if answer["abstained"] else ""}">{asked_as}'
        f"<p>{cited(answer['answer'], number, known)}</p>{note}{foot}</div>"
    )
    sources = ""
    if answer["citations"]:
        cards = "".join(source(c, number, is_open=at == 0) for at, c in enumerate(answer["citations"]))
        sources = f'<aside class="sources" aria-label="Sources"><h3>Sources</h3>{cards}</aside>'
    return f'<article class="turn">{said}<div class="reply">{reply}{sources}</div></article>'


def conversation(turns: Sequence[Turn]) -> str:
    """The whole conversation, newest last; announced politely to screen readers."""
    if not turns:
        return (
            '<div class="conversation"><p class="welcome">Ask about the people, places, monsters and stories of the '
            "Witcher. Every sentence of an answer shows where it comes from.</p></div>"
        )
    body = "".join(turn_html(turn, number) for number, turn in enumerate(turns))
    return f'<div class="conversation" role="log" aria-live="polite">{body}</div>'
