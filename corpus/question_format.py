"""Questions over the codex: the rows that are stored, the compact format they are written in, and their evidence.

A stored row is one line of JSON, as ``python app.py --evaluate`` reads them::

    {"id", "question", "answers", "answer", "article", "evidence", "type", "canon"}
    {"id", "turns": [{"question", "rewrite", "answers", "answer", "article", "evidence"}, …], "type": "conversation"}
    {"id", "question", "decline": true, "reason"[, "correction", "evidence"]}

``answers`` are short aliases, best first (``a + b`` where all parts are needed); ``answer`` is a full sentence;
``evidence`` is one or two sentences of the codex, each {"article", "section", "path", "start", "end", "text"}, where
``text`` equals the section's ``text[start:end]``.

The compact format has one question a line, its fields parted by ``||``::

    @ Title                       the article of the questions that follow; # begins a remark
    question || alias; alias || evidence || full-sentence answer || type [|| canon: books, games or tv]
    + Other Title                 where the second half of an evidence stands if it does not name its article
    = conversation                one conversation, a turn a line, ended by a blank line
    question || stand-alone rewrite || alias; alias || Title: evidence || full-sentence answer
    = decline                     until the next line that begins with @ or =
    question || reason [|| correction || Title: evidence]

Evidence is a verbatim piece of one sentence, or ``FACT key`` for a line of the article's facts; two are joined by
``&&``, and one from another article begins with its title and a colon.  An alias ``a + b`` needs both parts.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from corpus import codex
from corpus.chunk import sentences
from corpus.errors import CorpusError
from corpus.types import FACTS_PATH

Row = dict[str, Any]
Evidence = dict[str, Any]

_ANSWERED: dict[str, type] = {"answers": list, "answer": str, "article": str, "evidence": list}
_PAIR: dict[str, type] = {"id": str, "question": str, **_ANSWERED, "type": str, "canon": str}
_CONVERSATION: dict[str, type] = {"id": str, "turns": list, "type": str}
_TURN: dict[str, type] = {"question": str, "rewrite": str, **_ANSWERED}
_DECLINE: dict[str, type] = {"id": str, "question": str, "decline": bool, "reason": str}
_CORRECTED: dict[str, type] = {**_DECLINE, "correction": str, "evidence": list}
_EVIDENCE: dict[str, type] = {"article": str, "section": int, "path": list, "start": int, "end": int, "text": str}

_QUOTES = str.maketrans("’‘ʼ`´“”", "'''''\"\"")
_POSSESSIVE = re.compile(r"'s\b", re.I)
_WORD = re.compile(r"[^\W_]+")
_LINE = re.compile(r"[^\n]+")
_FACT = re.compile(r"FACT\s+(.+)")
_CANON = re.compile(r"canon\s*:?\s*")
_FACTS = list(FACTS_PATH)


class Rejected(ValueError):
    """A question that breaks a rule; the message says which."""


def _fields(value: Any, fields: dict[str, type], what: str) -> None:
    if not isinstance(value, dict) or set(value) != set(fields):
        raise Rejected(f"{what} has the fields {', '.join(fields)} and no others")
    for name, kind in fields.items():
        # bool is an int to Python, but no offset.
        if not isinstance(value[name], kind) or (kind is int and isinstance(value[name], bool)):
            raise Rejected(f"'{name}' of {what} is of the wrong kind")
    if not all(isinstance(item, str) for name in ("answers", "path") for item in value.get(name, ())):
        raise Rejected("aliases and headings are text")
    for one in value.get("evidence", ()):
        _fields(one, _EVIDENCE, "an evidence")
    if (
        not all(one["text"].strip() for one in value.get("evidence", ()))
        or not 1 <= len(value.get("evidence", "-")) <= 2
    ):
        raise Rejected("the evidence must be one sentence or two")


def parse_row(line: str) -> Row:
    """A stored row.  Raises Rejected unless it is JSON with exactly the fields of its kind."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"not JSON: {error}") from error
    if isinstance(row, dict) and "turns" in row:
        _fields(row, _CONVERSATION, "a conversation")
        for turn in row["turns"]:
            _fields(turn, _TURN, "a turn")
        if row["type"] != "conversation":
            raise Rejected("the type of a row with turns is 'conversation'")
    elif isinstance(row, dict) and "decline" in row:
        corrected = "correction" in row or "evidence" in row
        _fields(row, _CORRECTED if corrected else _DECLINE, "a decline")
        if not row["decline"]:
            raise Rejected("'decline' is true or not there at all")
    else:
        _fields(row, _PAIR, "a pair")
    return row


def tidy(text: str) -> str:
    """A text for comparing verbatim: white space, case and the shape of quotation marks aside."""
    return " ".join(text.translate(_QUOTES).casefold().split())


@lru_cache(maxsize=1 << 16)
def folded(text: str) -> str:
    """The words of a text between single spaces, one at either end; case, accents, apostrophes, possessives aside."""
    bare = _POSSESSIVE.sub("", text.translate(_QUOTES)).replace("'", "").replace("ł", "l").replace("Ł", "L")
    letters = unicodedata.normalize("NFKD", bare).casefold()
    return f" {' '.join(_WORD.findall(''.join(c for c in letters if not unicodedata.combining(c))))} "


def holds(texts: Sequence[str], alias: str) -> bool:
    """Whether every part of an alias (``a + b``) stands in one of the texts, between word boundaries."""
    parts = [folded(part) for part in alias.split(" + ")]
    return all(part.strip() and any(part in folded(text) for text in texts) for part in parts)


def row_id(question: str, article: str = "") -> str:
    return hashlib.blake2b(f"{question}\x1f{article}".encode(), digest_size=6).hexdigest()


class Library:
    """The codex's articles by title, each as the sentences (and lines of facts) that evidence can be."""

    def __init__(self, folder: Path = codex.FOLDER) -> None:
        """Read the codex; what cannot be read is told in ``problems``.  Raises CorpusError if there is no article."""
        self.problems: list[codex.CodexError] = []
        self._articles = {}
        for path in codex.files(folder):
            try:
                article = codex.parse_page(codex.read(path))
                self._articles[article.title] = article
            except codex.CodexError as error:
                self.problems.append(error)
        if not self._articles:
            raise CorpusError(f"{folder}: there are no articles")
        self._titles = {tidy(title): title for title in self._articles}
        self._places: dict[str, list[Evidence]] = {}
        names = " ".join(name for a in self._articles.values() for name in (a.title, *a.aliases))
        self.names = {folded(word).strip() for word in names.split() if word[0].isupper() and len(word) > 2}

    def title(self, name: str) -> str:
        """An article's title as its front matter has it.  Raises Rejected if there is no such article."""
        if title := self._titles.get(tidy(name)):
            return title
        raise Rejected(f"there is no article '{name.strip()}'")

    def places(self, title: str) -> list[Evidence]:
        """Every sentence of an article and every line of its facts, as evidence."""
        if title not in self._places:
            self._places[title] = [
                dict(article=title, section=n, path=list(section.path), start=a, end=b, text=section.text[a:b])
                for n, section in enumerate(self._articles[title].sections)
                # A fact's line names its article only at its beginning, so it is never cut into sentences.
                for a, b in (
                    [line.span() for line in _LINE.finditer(section.text)]
                    if section.path == FACTS_PATH
                    else sentences(section.text)
                )
            ]
        return self._places[title]

    def _matching(self, title: str, piece: str) -> list[Evidence]:
        wanted = tidy(piece)
        found = [place for place in self.places(title) if wanted in tidy(place["text"])]
        # What the body says counts once, even where the facts repeat it.
        return [place for place in found if place["path"] != _FACTS] or found

    def _fact(self, title: str, written: str, canon: str) -> Evidence:
        lines = [place for place in self.places(title) if place["path"] == _FACTS]
        key, tag = codex.fact_key(written)
        facts = zip(self._articles[title].facts, lines, strict=True)
        found = [(fact, place) for fact, place in facts if fact.key.casefold() == key.casefold()]
        if tag or len(found) > 1:
            found = [(fact, place) for fact, place in found if not (tag or canon) or fact.canon == (tag or canon)]
        if not found:
            raise Rejected(f"'{title}' has no fact '{written}'")
        if len(found) > 1:
            tags = " or ".join(f"'FACT {key}{f' ({fact.canon})' if fact.canon else ''}'" for fact, _ in found)
            raise Rejected(f"'{title}' has {len(found)} facts '{key}': write {tags}")
        return found[0][1]

    def locate(self, title: str, piece: str, canon: str = "") -> Evidence:
        """The one sentence of the article that holds ``piece``.  Raises Rejected if there is none, or several."""
        if fact := _FACT.fullmatch(piece):
            return self._fact(title, fact[1].strip(), canon)
        if not tidy(piece):
            raise Rejected("the evidence is empty")
        found = self._matching(title, piece) or self._matching(title, codex.plain(piece))
        if len(found) == 1:
            return found[0]
        if found:
            raise Rejected(f"the evidence stands in {len(found)} sentences of '{title}': {piece!r}")
        if any(tidy(piece) in tidy(section.text) for section in self._articles[title].sections):
            raise Rejected(f"the evidence runs over more than one sentence of '{title}': {piece!r}")
        raise Rejected(f"the evidence does not stand in '{title}': {piece!r}")

    def _addressed(self, written: str) -> tuple[str, str] | None:
        """Title and piece of ``Title: piece``, the longest title that fits; None if it begins with no title."""
        for colon in reversed([match.start() for match in re.finditer(r":\s", written)]):
            if title := self._titles.get(tidy(written[:colon])):
                return title, written[colon + 1 :].strip()
        return None

    def evidence(self, field: str, article: str = "", partner: str = "", canon: str = "") -> list[Evidence]:
        """The one or two sentences that a field of the compact format means.  Raises Rejected."""
        found: list[Evidence] = []
        for written in map(str.strip, field.split("&&")):
            home = self.title(partner) if found and partner else article
            address = self._addressed(written)
            # Prose may have a title and a colon too: a piece that stands in the article as it is needs no address.
            if address and not (home and self._matching(home, written)):
                home, written = address
            elif not home:
                raise Rejected(f"the evidence must begin with an article's title and a colon: {written!r}")
            found.append(self.locate(home, written, canon))
        if len(found) > 2 or (len(found) == 2 and found[0] == found[1]):
            raise Rejected("the evidence must be one sentence, or two different ones")
        return found

    def now(self, evidence: Evidence) -> Evidence | None:
        """Stored evidence where it stands today: itself if nothing changed, None if its sentence is gone.

        Raises Rejected if its article is gone.
        """
        title, text, path = self.title(evidence["article"]), evidence["text"], evidence["path"]
        if title != evidence["article"]:
            raise Rejected(f"the article '{evidence['article']}' is titled '{title}'")
        sections, ordinal = self._articles[title].sections, evidence["section"]
        start, there = evidence["start"], 0 <= ordinal < len(sections) and list(sections[ordinal].path) == path
        # A slice would forgive a negative start or an end beyond the text.
        there = there and start >= 0 and evidence["end"] == start + len(text)
        if there and sections[ordinal].text.startswith(text, start):
            return evidence
        same = [place for place in self.places(title) if place["text"] == text]
        return next((place for place in same if place["path"] == path), same[0] if same else None)


def _parted(line: str, least: int, most: int) -> list[str]:
    fields = [" ".join(field.split()) for field in line.split("||")]
    while fields and not fields[-1]:
        fields.pop()
    if not least <= len(fields) <= most or not all(fields[:least]):
        wanted = f"{least} to {most}" if most > least else f"{least}"
        raise Rejected(f"{wanted} fields parted by '||' are needed, none of them empty; there are {len(fields)}")
    return fields + [""] * (most - len(fields))


def _aliases(field: str) -> list[str]:
    return list(dict.fromkeys(alias for alias in map(str.strip, field.split(";")) if alias))


def _pair(line: str, library: Library, article: str, partner: str) -> Row:
    if not article:
        raise Rejected("no '@ Title' above says which article this is about")
    article = library.title(article)
    question, aliases, evidence, answer, kind, canon = _parted(line, 5, 6)
    canon = _CANON.sub("", canon.casefold())
    return {
        "id": row_id(question, article),
        "question": question,
        "answers": _aliases(aliases),
        "answer": answer,
        "article": article,
        "evidence": library.evidence(evidence, article, partner, canon),
        "type": kind.casefold(),
        "canon": canon,
    }


def _turn(line: str, library: Library) -> Row:
    question, rewrite, aliases, evidence, answer = _parted(line, 5, 5)
    found = library.evidence(evidence)
    row = {"question": question, "rewrite": rewrite, "answers": _aliases(aliases), "answer": answer}
    return row | {"article": found[0]["article"], "evidence": found}


def _decline(line: str, library: Library) -> Row:
    question, reason, correction, evidence = _parted(line, 2, 4)
    reason = " ".join(re.split(r"[\s_-]+", reason.casefold()))
    row: Row = {"id": row_id(question), "question": question, "decline": True, "reason": reason}
    if evidence:
        row |= {"correction": correction, "evidence": library.evidence(evidence)}
    elif correction:
        raise Rejected("a correction needs its evidence")
    return row


def _conversation(lines: list[tuple[int, str]], library: Library) -> Iterator[tuple[int, Row | str]]:
    turns = []
    for number, line in lines:
        try:
            turns.append(_turn(line, library))
        except Rejected as error:
            yield number, f"{error} (its conversation is left out)"
    if len(turns) == len(lines):
        asked = "\x1f".join(turn["question"] for turn in turns)
        yield lines[0][0], {"id": row_id(asked, turns[0]["article"]), "turns": turns, "type": "conversation"}


def read(path: Path, library: Library) -> Iterator[tuple[int, Row | str]]:
    """Line number with the row that begins there, or with the reason why there is none, in the file's order.

    Rows have their evidence, but no other rule of a question set has been looked at yet.
    Raises CorpusError if the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read: {error}") from error
    article = partner = mode = ""
    turns: list[tuple[int, str]] = []
    for number, line in enumerate([*map(str.strip, lines), ""], 1):
        header = line[:1] in ("@", "=", "+") and "||" not in line
        if line.startswith("#"):
            continue
        if mode == "conversation" and (header or not line) and turns:
            yield from _conversation(turns, library)
            turns, mode = [], ""
        if not line:
            continue
        if header and line[0] == "@":
            article, partner, mode = line[1:].strip(), "", ""
        elif header and line[0] == "+":
            partner = line[1:].strip()
        elif header:
            mode = line[1:].strip().casefold().removesuffix("s")
            if mode not in ("conversation", "decline"):
                yield number, f"'{line}' is neither '= conversation' nor '= decline'"
        elif mode == "conversation":
            turns.append((number, line))
        elif mode not in ("", "decline"):
            yield number, "it stands under a header that is not understood"
        else:
            try:
                yield number, _decline(line, library) if mode else _pair(line, library, article, partner)
            except Rejected as error:
                yield number, str(error)
