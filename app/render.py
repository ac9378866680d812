"""A conversation as HTML.  Everything that is not our own markup goes through ``escape``: questions, answers,
titles and passages are data, whatever they look like."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

from app import export
from app.feedback import COMMENT_LIMIT, REASONS
from app.turns import CANONS, Place, Turn

_CITATION = re.compile(r"\[(\d{1,3})\]")
_BEFORE = re.compile(r" ?\[\d{1,3}\]")
_AT_END = re.compile(r" ?(\[(\d{1,3})\])([.!?]?)(?=\s|$)")
# Gradio fills its HTML through JavaScript and Handlebars templates; spelt as entities, these mean nothing to either.
_TEMPLATE = str.maketrans({sign: f"&#{ord(sign)};" for sign in "${}`@"})

# Outlines on a grid of 24, drawn for this page.
_ICONS = {
    "copy": '<rect x="9" y="9" width="11" height="11" rx="2"/><path d="M5 15H4V4h11v1"/>',
    "share": '<path d="M9 15l6-6M10 6l2-2a4 4 0 0 1 6 6l-2 2M14 18l-2 2a4 4 0 0 1-6-6l2-2"/>',
    "like": '<path d="M7 11v9H4v-9zM7 11l4-8c2 0 3 1 2.5 3L13 9h6a2 2 0 0 1 2 2.3l-1 7A2 2 0 0 1 18 20H7"/>',
    "dislike": '<path d="M17 13V4h3v9zM17 13l-4 8c-2 0-3-1-2.5-3l.5-3H5a2 2 0 0 1-2-2.3l1-7A2 2 0 0 1 6 4h11"/>',
    "retry": '<path d="M20 11a8 8 0 1 0-2 6M20 5v6h-6"/>',
    "edit": '<path d="M4 20l1-5L16 4l4 4L9 19z"/>',
    "article": '<path d="M6 3h9l4 4v14H6zM9 11h7M9 15h7"/>',
    "inside": '<circle cx="11" cy="11" r="6"/><path d="M16 16l5 5"/>',
    "again": '<path d="M5 12h14M13 6l6 6-6 6"/>',
}


def escape(text: str) -> str:
    """Text as HTML that shows just that text, line breaks included."""
    return html.escape(text, quote=True).translate(_TEMPLATE).replace("\n", "<br>")


def attribute(text: str) -> str:
    """Text as the value of an attribute, to be written between double quotes."""
    return html.escape(text, quote=True).translate(_TEMPLATE).replace("\r", "").replace("\n", "&#10;")


def link(url: str, label: str) -> str:
    """A link where the address is one of the web's; anything else (``codex:…``, ``javascript:…``) stays text."""
    try:
        safe = urlsplit(url).scheme in ("http", "https")
    except ValueError:
        safe = False
    if not safe:
        return ""
    return f'<a href="{attribute(url)}" target="_blank" rel="noopener noreferrer nofollow">{escape(label)}</a>'


def icon(name: str) -> str:
    """One of our outlines; it says nothing to screen readers, the button around it does."""
    return f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">{_ICONS[name]}</svg>'


def cited(text: str, turn: str, known: frozenset[int]) -> str:
    """An answer's text with its ``[n]`` as superscript buttons that open source n; other brackets stay text."""

    def button(match: re.Match[str]) -> str:
        n = int(match[1])
        if n not in known:
            return match[0]
        return (
            f'<sup><button type="button" class="cite" data-source="source-{turn}-{n}" '
            f'aria-label="Show source {n}">{n}</button></sup>'
        )

    def tidy(match: re.Match[str]) -> str:
        return f"{match[3]}{match[1]}" if int(match[2]) in known else match[0]

    # The space before a number goes, and a full stop after it moves in front, as in print: “Calanthe.¹”
    return _CITATION.sub(button, escape(_AT_END.sub(tidy, text)))


def paragraphs(text: str, turn: str, known: frozenset[int]) -> str:
    """An answer's text as paragraphs and lists: a line that begins with ``- `` is an item, any other a paragraph."""
    out = ""
    for is_list, lines in groupby(text.split("\n"), key=lambda line: line.startswith("- ")):
        if is_list:
            items = "".join(f"<li>{cited(line[2:], turn, known)}</li>" for line in lines)
            out += f'<ul class="text">{items}</ul>'
        else:
            out += "".join(f'<p class="text">{cited(line, turn, known)}</p>' for line in lines if line.strip())
    return out


def confidence_chip(confidence: float) -> str:
    """How sure the answer is, in words and per cent."""
    level = "high" if confidence >= 0.8 else "fair" if confidence >= 0.6 else "low"
    return (
        f'<span class="chip {level}" title="How sure the archives hold this answer">'
        f"{level.capitalize()} confidence · {confidence:.0%}</span>"
    )


def badge(canon: str) -> str:
    """Which telling a text belongs to; nothing for those that hold for all."""
    return f'<span class="badge {canon}">{CANONS[canon]}</span>' if canon in CANONS else ""


def licence(place: Place) -> str:
    """The licence by name, linked where its text is on the web."""
    return link(place.rights_url, place.rights) or escape(place.rights) if place.rights else ""


def marked(text: str, start: int, end: int) -> str:
    """Text with one stretch of it highlighted."""
    return f"{escape(text[:start])}<mark>{escape(text[start:end])}</mark>{escape(text[end:])}"


def source(citation: dict[str, Any], turn: Turn, is_open: bool) -> str:
    """One numbered source: where it stands, the passage with the quote marked, its origin and its licence."""
    place = turn.places.get(citation["n"], Place(0))
    where = " › ".join(part for part in (citation["title"], citation["section"]) if part)
    origin = link(citation["url"], "Read this revision") or "From the codex"
    rights = licence(place)
    whole = ""
    if place.passage:
        whole = (
            f'<button type="button" class="tool whole" data-passage="{place.passage}" '
            f'data-start="{citation["start"]}" data-end="{citation["end"]}">'
            f"{icon('article')} Show in the article</button>"
        )
    return (
        f'<details class="source" id="source-{turn.id}-{citation["n"]}"{" open" if is_open else ""}>'
        f'<summary><span class="number">{citation["n"]}</span><span class="where">{escape(where)}</span>'
        f"{badge(citation['canon'])}</summary>"
        f'<blockquote tabindex="0" role="group" aria-label="Passage of source {citation["n"]}">'
        f"{marked(citation['passage'], citation['start'], citation['end'])}</blockquote>"
        f'<div class="origin"><span class="quiet">{origin}{f" · {rights}" if rights else ""}</span>{whole}</div>'
        "</details>"
    )


def tool(name: str, label: str, *, text: bool = True, classes: str = "", **data: str) -> str:
    """A small button below an answer; the page's script acts on its class."""
    attributes = "".join(f' {key.replace("_", "-")}="{attribute(value)}"' for key, value in data.items())
    shown = f'<span class="word">{label}</span>' if text else ""
    # Words vanish on phones, so the button is named in any case.
    return (
        f'<button type="button" class="tool {name} {classes}" title="{label}" aria-label="{label}"{attributes}>'
        f"{icon(name)}{shown}</button>"
    )


def tools(turn: Turn, is_last: bool) -> str:
    """What can be done with an answer."""
    of = turn.id
    liked, disliked = ("true" if turn.verdict == verdict else "false" for verdict in ("like", "dislike"))
    buttons = [
        tool("like", "Good answer", text=False, data_turn=of, aria_pressed=liked),
        tool("dislike", "Bad answer", text=False, data_turn=of, aria_pressed=disliked, aria_controls=f"reasons-{of}"),
        tool("copy", "Copy", data_text=export.plain(turn)),
        tool("share", "Share", data_question=turn.question),
    ]
    if is_last:
        buttons += [tool("retry", "Retry"), tool("edit", "Edit"), tool("inside", "Look inside")]
    return f'<div class="tools" role="group" aria-label="This answer">{"".join(buttons)}</div>'


def reasons(turn: Turn) -> str:
    """The form that a dislike opens."""
    choices = "".join(
        f'<label><input type="radio" name="reason-{turn.id}" value="{key}"> {escape(label)}</label>'
        for key, label in REASONS.items()
    )
    return (
        f'<form class="reasons" id="reasons-{turn.id}" data-turn="{turn.id}" hidden>'
        f"<fieldset><legend>What is wrong with it?</legend>{choices}</fieldset>"
        '<label class="comment">Anything else? '
        f'<textarea name="comment" rows="2" maxlength="{COMMENT_LIMIT}"></textarea></label>'
        '<div><button type="submit" class="primary">Send</button>'
        '<button type="button" class="cancel">Cancel</button></div></form>'
    )


def suggestions(titles: Sequence[str]) -> str:
    """The nearest articles as questions to ask instead."""
    if not titles:
        return ""
    buttons = "".join(
        f'<button type="button" class="ask" data-question="{attribute(f"Tell me about {title}.")}">{escape(title)}'
        "</button>"
        for title in titles
    )
    return f'<div class="nearest" role="group" aria-label="Nearest articles"><p>Perhaps you meant</p>{buttons}</div>'


def turn_html(turn: Turn, is_last: bool = False) -> str:
    """Question, answer and sources of one turn."""
    said = f'<h2 class="question"><span class="visually-hidden">You asked: </span>{escape(turn.question)}</h2>'
    head = f'<article class="turn{" pending" if turn.waiting else ""}" id="turn-{turn.id}">{said}'
    if turn.answer is None:
        draft = paragraphs(" ".join(turn.draft), turn.id, frozenset())
        waiting = f'<p class="status">{escape(turn.status)}<span class="dots" aria-hidden="true"></span></p>'
        problem = f'<p class="problem">{escape(turn.problem)}</p>' if turn.problem else ""
        again = (
            f'<div class="tools">{tool("retry", "Retry")}{tool("edit", "Edit")}</div>' if problem and is_last else ""
        )
        told = draft + (waiting if turn.waiting else problem + again)
        return f'{head}<div class="reply"><div class="answer">{told}</div></div></article>'
    answer = turn.answer
    known = frozenset(citation["n"] for citation in answer["citations"])
    understood = ""
    if answer["standalone_question"] not in ("", answer["question"]):
        understood = f'<p class="quiet">Understood as: {escape(answer["standalone_question"])}</p>'
    note = f'<p class="quiet">{escape(turn.note)}</p>' if turn.note else ""
    text = answer["answer"]
    if turn.nearest:  # they follow as buttons
        text = text.removesuffix(f" The nearest articles: {', '.join(turn.nearest)}.")
    chip = "" if answer["abstained"] else confidence_chip(answer["confidence"])
    seconds = answer["timings"].get("total", 0.0) / 1000
    took = f'<span class="quiet">{seconds:.1f} s</span>'
    reply = (
        f'<div class="answer{" silent" if answer["abstained"] else ""}">{understood}'
        f"{paragraphs(text, turn.id, known)}{note}"
        f"{suggestions(turn.nearest) if answer['abstained'] else ''}"
        f'<div class="foot">{chip}{took}{tools(turn, is_last)}</div>{reasons(turn)}</div>'
    )
    sources = ""
    if turn.sources:
        cards = "".join(source(c, turn, is_open=at == 0) for at, c in enumerate(turn.sources))
        of, title = (
            ("this answer", "Sources") if answer["citations"] else ("what comes closest", "The closest they come")
        )
        sources = f'<aside class="sources" aria-label="Sources of {of}"><h3>{title}</h3>{cards}</aside>'
    return f'{head}<div class="reply">{reply}{sources}</div></article>'


def announcement(turns: Sequence[Turn], said: str = "") -> str:
    """What a screen reader is told: the step that is being taken, then the answer without its apparatus."""
    text = said
    if not text and turns:
        turn = turns[-1]
        if turn.answer is None:
            text = turn.problem or turn.status
        else:
            count = len(turn.answer["citations"])
            text = f"{_BEFORE.sub('', turn.answer['answer'])} {count or 'No'} source{'' if count == 1 else 's'}."
    return f'<p class="visually-hidden" role="status" aria-live="polite">{escape(text)}</p>'


def welcome(examples: Sequence[str]) -> str:
    """An empty page: what this is for, and questions to begin with."""
    buttons = "".join(
        f'<button type="button" class="ask" data-question="{attribute(example)}">{escape(example)}'
        f"{icon('again')}</button>"
        for example in examples
    )
    return (
        '<div class="welcome"><h2>What would you like to know?</h2><p>Ask about the people, places, monsters and '
        "stories of the Witcher. Every sentence of an answer shows where it comes from.</p>"
        f'<div class="examples" role="group" aria-label="Examples">{buttons}</div></div>'
    )


def conversation(turns: Sequence[Turn], examples: Sequence[str] = (), said: str = "") -> str:
    """The whole conversation, newest last.  ``said`` is announced to screen readers in the place of the last turn."""
    # The announcement stands first and always, for it must not move: screen readers watch one element.
    body = "".join(turn_html(turn, at == len(turns) - 1) for at, turn in enumerate(turns)) or welcome(examples)
    return f'<div class="conversation">{announcement(turns, said)}{body}</div>'
