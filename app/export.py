"""A conversation as Markdown, for the reader's own notes; and one answer as plain text, for the clipboard."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote, urlsplit

from app.turns import CANONS, Place, Turn

# What Markdown (and HTML within it) could take for markup, wherever it stands in a line.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!&$^])")
# What is markup at the beginning of a line only: lists, headings, rules, numbered lists.
_AT_START = re.compile(r"^(\s*)([-+=]|\d+[.)])", re.M)


def escape(text: str) -> str:
    """Text that any Markdown renderer shows as just that text."""
    text = _SPECIAL.sub(r"\\\1", " ".join(text.split("\r")))
    text = re.sub(r"\b(https?|ftp|www)([:.])", r"\1\\\2", text)  # no address becomes a link by itself
    return _AT_START.sub(
        lambda m: f"{m[1]}\\{m[2]}" if not m[2][0].isdigit() else f"{m[1]}{m[2][:-1]}\\{m[2][-1]}", text
    )


def markdown(turns: Sequence[Turn], at: datetime) -> str:
    """All finished turns, every source with its quote, place, address and licence."""
    lines = [
        "# A conversation with Cirilla",
        "",
        f"{at.day} {at:%B %Y}. Every numbered quote stands word for word in its source.",
    ]
    for turn in turns:
        if turn.answer is not None:
            lines += ["", *_turn(turn)]
    lines += ["", "---", "", "A fan project; the quotes belong to their sources, under the licences named above.", ""]
    return "\n".join(lines)


def _turn(turn: Turn) -> list[str]:
    assert turn.answer is not None
    answer = turn.answer
    lines = [f"## {escape(' '.join(turn.question.split())) or '…'}", "", _paragraphs(answer["answer"])]
    if not answer["abstained"]:
        lines += ["", f"*Confidence: {answer['confidence']:.0%}*"]
    for citation in answer["citations"]:
        place = turn.places.get(citation["n"], Place(0))
        where = " › ".join(escape(part) for part in (citation["title"], citation["section"]) if part)
        about = [
            CANONS.get(citation["canon"], "").lower(),
            link(citation["url"], "this revision"),
            escape(place.rights),
        ]
        lines += ["", f"**\\[{citation['n']}\\] {where}**", "", _quoted(citation["quote"]), ""]
        lines += [" · ".join(part for part in about if part) or "The codex"]
    return lines


def _paragraphs(text: str) -> str:
    """An answer's lines; those that begin with ``- `` are the items of a list."""
    lines = text.split("\n")
    out = ""
    for before, line in zip(["", *lines], lines, strict=False):
        is_item = line.startswith("- ")
        # A list and the text before it need an empty line between them, other lines a forced break.
        out += "" if not out else "\n" if is_item and before.startswith("- ") else "\n\n" if is_item else "  \n"
        out += f"- {escape(line[2:])}" if is_item else escape(line)
    return out


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in escape(text).splitlines()) or ">"


def link(url: str, label: str) -> str:
    """A Markdown link where the address is one of the web's, else nothing."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return ""
    return f"[{label}](<{quote(url, safe=':/?#[]@!$&*+,;=%~')}>)"


def plain(turn: Turn) -> str:
    """Question, answer and sources of a turn as plain text."""
    if turn.answer is None:
        return turn.question
    lines = [turn.question, "", turn.answer["answer"]]
    for citation in turn.answer["citations"]:
        where = " › ".join(part for part in (citation["title"], citation["section"]) if part)
        address = citation["url"] if link(citation["url"], "x") else ""
        lines += ["", f"[{citation['n']}] {where} {address}".rstrip(), f"“{citation['quote']}”"]
    return "\n".join(lines)
