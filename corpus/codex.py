"""The codex: our own Markdown articles, read into the same shapes as a wiki's pages.

``load`` gives ``Page`` records whose ``html`` is the file's text; ``parse_page`` is the Markdown counterpart of
``clean.parse_page``.  The format is described in ``corpus/codex/README.md``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import yaml

from corpus.clean import as_quote
from corpus.errors import CorpusError
from corpus.infobox import facts_section
from corpus.types import Article, Canon, Fact, Page, Quote, Section

FOLDER = Path(__file__).parent / "codex"
KINDS = (
    *("character", "place", "creature", "magic", "history", "faction", "gear", "alchemy", "work", "quest", "culture"),
)
CANONS = tuple(name for name in get_args(Canon) if name)
RIGHTS = "CC BY 4.0"
RIGHTS_URL = "https://creativecommons.org/licenses/by/4.0/"

_HEADING = re.compile(r"(#{1,6})\s+(.*?)(?:\s*\{\s*canon\s*=\s*([^}]*?)\s*\})?\s*#*\s*$")
_ITEM = re.compile(r"(\s*)(?:[-*+]|\d{1,3}[.)])\s+(.*)")
_FACT_CANON = re.compile(r"(.*?)\s*\(([^)]*)\)\s*$")
_RULE = re.compile(r"\s*(?:-{3,}|\*{3,}|_{3,})\s*$")
_TABLE_RULE = re.compile(r"\s*\|?[\s:|-]*-[\s:|-]*\|?\s*$")
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_INLINE = (
    (re.compile(r"!\[[^\[\]]*\]\([^()]{0,400}\)"), ""),  # pictures
    (re.compile(r"\[([^\[\]]+)\]\([^()]{0,400}\)"), r"\1"),  # links
    (re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]+)\]\]"), r"\1"),
    (re.compile(r"`([^`]+)`"), r"\1"),
    (re.compile(r"(?<!\\)\*\*(?=\S)(.{1,400}?)(?<=\S)\*\*", re.S), r"\1"),
    (re.compile(r"(?<!\\)\*(?=\S)([^*]+?)(?<=\S)\*"), r"\1"),
    (re.compile(r"(?<![\w\\])__(?=\S)(.{1,400}?)(?<=\S)__(?!\w)", re.S), r"\1"),
    (re.compile(r"(?<![\w\\])_(?=\S)([^_]+?)(?<=\S)_(?!\w)"), r"\1"),
    (re.compile(r"\\([\\`*_{}\[\]()#+.!|<>~-])"), r"\1"),
)


class CodexError(CorpusError):
    """An article of the codex that cannot be read; the message names its file and line."""

    def __init__(self, where: str, line: int, problem: str) -> None:
        super().__init__(f"{where}:{line}: {problem}")
        self.where, self.line, self.problem = where, line, problem


@dataclass(frozen=True, slots=True)
class Value:
    """A front matter value with the line it stands on (1 is the file's first)."""

    line: int
    items: tuple[str, ...]  # one for a plain value; none for an empty one


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The head of an article, every value as written (``1256`` and ``no`` stay text)."""

    fields: dict[str, Value]
    facts: tuple[tuple[str, Value], ...]  # (key as written, values), in the file's order

    def one(self, name: str) -> str:
        """The single value of a field; "" where it is missing or empty."""
        items = self.many(name)
        return items[0] if items else ""

    def many(self, name: str) -> tuple[str, ...]:
        return self.fields[name].items if name in self.fields else ()


def _scalars(node: yaml.Node, where: str, problem: str) -> Value:
    line = node.start_mark.line + 2  # marks count from 0, and from the line after the first '---'
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    items = []
    for item in nodes:
        if not isinstance(item, yaml.ScalarNode):
            raise CodexError(where, item.start_mark.line + 2, problem)
        plain_null = item.style is None and item.value in ("", "~", "null")
        if not plain_null:
            items.append(" ".join(item.value.split()))
    return Value(line, tuple(item for item in items if item))


def split(text: str, where: str) -> tuple[FrontMatter, str, int]:
    """Front matter, body, and the file's line on which the body starts.

    Raises CodexError (with ``where`` as the file) for a missing or unreadable front matter or a repeated key.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0].rstrip() != "---":
        raise CodexError(where, 1, "the article must begin with a line '---' that opens its front matter")
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    if not end:
        raise CodexError(where, 1, "the front matter is never closed by a line '---'")
    try:
        # Nodes rather than values: they know their lines, and a year or 'no' is not turned into something else.
        # SafeLoader's compose() builds no Python objects at all.
        root = yaml.compose("\n".join(lines[1:end]), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).split("\n")[0]
        line = mark.line + 2 if mark else 1
        raise CodexError(where, line, f"the front matter is no valid YAML: {reason}") from error
    if not isinstance(root, yaml.MappingNode):
        raise CodexError(where, 2, "the front matter must be a list of 'key: value' lines")
    fields: dict[str, Value] = {}
    facts: dict[str, Value] = {}
    for key, node in root.value:
        line, name = key.start_mark.line + 2, str(key.value)
        if name in fields:
            raise CodexError(where, line, f"'{name}' is given twice")
        if name == "facts" and isinstance(node, yaml.MappingNode):
            fields[name] = Value(line, ())
            for fact, value in node.value:
                if not isinstance(fact, yaml.ScalarNode):
                    raise CodexError(where, fact.start_mark.line + 2, "a fact's key must be plain text")
                if fact.value in facts:
                    raise CodexError(where, fact.start_mark.line + 2, f"the fact '{fact.value}' is given twice")
                facts[fact.value] = _scalars(
                    value, where, f"the fact '{fact.value}' must be a value or a list of values"
                )
        elif name == "facts" and not (isinstance(node, yaml.ScalarNode) and not node.value):
            raise CodexError(where, line, "'facts' must be a list of 'key: value' lines")
        else:
            fields[name] = _scalars(node, where, f"'{name}' must be a value or a list of values")
    return FrontMatter(fields, tuple(facts.items())), "\n".join(lines[end + 1 :]), end + 2


def _hash(text: str, bits: int) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - bits) or 1


def files(folder: Path) -> list[Path]:
    """The articles' files under ``folder``, sorted; README.md is none."""
    return sorted(path for path in folder.glob("*/*.md") if path.name != "README.md")


def read(path: Path) -> Page:
    """One article's file as a page.  Raises CodexError if it cannot be read or has no title."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CodexError(str(path), 1, f"cannot be read: {error}") from error
    matter, _, _ = split(text, str(path))
    title = matter.one("title")
    if not title:
        raise CodexError(str(path), 1, "'title' is missing")
    name = f"{path.parent.name}/{path.stem}"
    return Page(
        source="codex",
        pageid=_hash(name, 52),  # 52 bits: exact as a JSON number too
        title=title,
        revid=_hash(text, 31),
        url=f"codex:{name}",
        html=text,
        display_title=title,
        categories=(path.parent.name,),
        aliases=matter.many("aliases"),
        rights=RIGHTS,
        rights_url=RIGHTS_URL,
    )


def load(folder: Path | str = FOLDER) -> Iterator[Page]:
    """Every article under ``folder`` (``<kind>/<slug>.md``) as a page, in the order of their names.

    Raises CodexError naming file and line at the first article that cannot be read, or if there is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CodexError(str(folder), 1, "there is no such folder of articles")
    for path in files(folder):
        yield read(path)


def plain(markdown: str) -> str:
    """A paragraph of Markdown as plain text on one line."""
    for pattern, replacement in _INLINE:
        markdown = pattern.sub(replacement, markdown)
    return " ".join(markdown.split())


def _canon_of(name: str, where: str, line: int) -> Canon:
    if name not in CANONS:
        raise CodexError(where, line, f"unknown canon '{name}'; it is one of {', '.join(CANONS)}")
    return cast(Canon, name)


def fact_key(written: str) -> tuple[str, Canon]:
    """A fact's key and canon: ``eyes (books)`` is the fact ``eyes`` of the books."""
    match = _FACT_CANON.match(written)
    if match and match[2] in CANONS:
        return match[1], cast(Canon, match[2])
    return written.strip(), ""


def facts_of(matter: FrontMatter) -> tuple[Fact, ...]:
    """The front matter's facts with any markup taken off; those without a value are left out."""
    facts = []
    for written, value in matter.facts:
        key, canon = fact_key(written)
        values = tuple(item for item in map(plain, value.items) if item)
        if values:
            facts.append(Fact(key=key, label=key, values=values, canon=canon))
    return tuple(facts)


@dataclass(slots=True)
class Block:
    """A paragraph, list, quotation or table of the body: consecutive lines without a blank one between."""

    line: int  # of its first line in the file
    lines: list[str]


@dataclass(slots=True)
class Part:
    """A heading (level 0: the lead, before any) with the blocks below it."""

    line: int
    level: int
    heading: str
    canon: Canon | None  # None: not given
    blocks: list[Block]


def parts(body: str, first_line: int, where: str) -> list[Part]:
    """The body cut at its headings and blank lines.  Raises CodexError for an unknown ``{canon=…}``."""
    found = [Part(first_line, 0, "", None, [])]
    block: Block | None = None
    for number, line in enumerate(
        re.sub(r"<!--.*?-->", lambda m: "\n" * m[0].count("\n"), body, flags=re.S).split("\n")
    ):
        match = _HEADING.match(line)
        if match:
            given = _canon_of(match[3], where, first_line + number) if match[3] is not None else None
            found.append(Part(first_line + number, len(match[1]), plain(match[2]), given, []))
            block = None
        elif not line.strip() or _RULE.match(line):
            block = None
        else:
            if block is None:
                block = Block(first_line + number, [])
                found[-1].blocks.append(block)
            block.lines.append(line)
    return found


def _render(block: Block) -> str | Quote:
    """A block as plain text, its list items and table rows one a line; or the quote that it is."""
    lines = block.lines
    if all(line.lstrip().startswith(">") for line in lines):
        inner = [plain(line.lstrip()[1:]) for line in lines]
        inner = [line for line in inner if line]
        return as_quote(inner) or " ".join(inner)
    if all("|" in line for line in lines) and len(lines) > 2 and _TABLE_RULE.match(lines[1]):
        rows = [[plain(cell) for cell in line.strip().strip("|").split("|")] for line in (lines[0], *lines[2:])]
        paired = [[(h, c) for h, c in zip(rows[0], row, strict=False) if c] for row in rows[1:]]
        return "\n".join("; ".join(f"{h}: {c}" if h else c for h, c in row) for row in paired if row)
    text: list[str] = []
    for line in lines:
        item = _ITEM.match(line)
        if item and (text or len(lines) == 1 or item[1] == "" or _ITEM.match(lines[0])):
            text.append(("◦ " if len(item[1]) >= 2 else "• ") + item[2])
        elif text:
            text[-1] += " " + line.strip()
        else:
            text.append(line.strip())
    return "\n".join(filter(None, map(plain, text)))


def parse_page(page: Page) -> Article:
    """The article in a codex page: the same shapes as from a wiki, facts section included.

    Raises CodexError, which names the article's address and line, if the front matter or a canon is wrong.
    """
    matter, body, first_line = split(page.html, page.url)
    named = matter.fields.get("canon", Value(1, ()))
    canons = [_canon_of(name, page.url, named.line) for name in named.items]
    whole: Canon = canons[0] if len(canons) == 1 else ""
    sections: list[Section] = []
    quotes: tuple[Quote, ...] = ()  # of a heading without text of its own: they go to the next section
    above: list[tuple[int, str, Canon | None]] = []
    for part in parts(body, first_line, page.url):
        while above and above[-1][0] >= part.level:
            above.pop()
        if part.level:
            above.append((part.level, part.heading, part.canon))
        rendered = [_render(block) for block in part.blocks]
        text = "\n\n".join(block for block in rendered if isinstance(block, str) and block)
        quotes += tuple(block for block in rendered if isinstance(block, Quote))
        if not text:
            continue
        sections.append(
            Section(
                path=tuple(heading for _, heading, _ in above),
                text=text,
                canon=next((canon for _, _, canon in reversed(above) if canon is not None), whole),
                quotes=quotes,
            )
        )
        quotes = ()
    facts = facts_of(matter)
    title = matter.one("title") or page.title
    return Article(
        title=title,
        sections=(*sections, *facts_section(title, facts, whole)),
        facts=facts,
        categories=page.categories,
        aliases=matter.many("aliases") or page.aliases,
        canon=whole,
        kind=matter.one("kind"),
    )
