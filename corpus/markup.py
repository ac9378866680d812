"""What every part of the cleaner needs of HTML: what is noise, what breaks a line, and the text of a subtree.

Everything walks with a stack instead of recursion, because a page may nest deeper than Python may recurse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from bs4 import NavigableString, Tag
from bs4.element import PreformattedString

BREAK = "\v"  # a line break that survives white space being collapsed; plain newlines in HTML mean nothing

_BLOCK_NAMES = (
    "address article aside blockquote body caption center dd details dir div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hr html li main menu nav ol p pre section summary table tbody td tfoot th thead tr "
    "ul"
)
BLOCKS = frozenset(_BLOCK_NAMES.split())
HEADINGS = {f"h{level}": level for level in range(1, 7)}
_NOISE_NAMES = (
    "script style noscript template figure svg audio video iframe form input button select textarea object embed nav "
    "head title meta link canvas map dialog"
)
_NOISE_TAGS = frozenset(_NOISE_NAMES.split())
_NOISE_CLASS = re.compile(
    r"(?:va-)?nav(?:box|bar)(?:[-_].*)?|toc|mw-editsection.*|(?:wikia-)?gallery.*|thumb(?:inner|image|caption)?"
    r"|hatnote|dablink|rellink|notice|[acfiot]?mbox(?:[-_].*)?|messagebox|noprint|mw-empty-elt|metadata|catlinks"
    r"|printfooter|navigation-not-searchable|mw-cite-backlink|error|mw-jump-link|sistersitebox|shortdescription"
    r"|.*quick-?answers.*|sub-?pages|audio(?:-version|-button|link)?|mediaContainer|wds-tabs__wrapper|tabbernav"
    r"|mw-ext-cite-error|citation-needed|Template-Fact|spoiler-?(?:warning|banner)|stub|cleanup|pi-navigation|magnify",
    re.I,
)
BANNER_CLASS = re.compile(r"notice|[acfiot]?mbox(?:[-_].*)?|messagebox", re.I)
_QUOTE_CLASS = re.compile(
    r"c?quote(?:box)?|[prb]quote|quotation|templatequote|pull-?quote|quote-?(?:block|table|box)", re.I
)
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)

# Removed outright: soft hyphens, zero-width and direction marks, controls (but not the break, tab or newline).
_INVISIBLE = {c: None for c in (0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF, 0xFFFE, 0xFFFF, 0x7F)}
_INVISIBLE |= {c: None for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0, 9), *range(14, 28))}
_EMPTY_BRACKETS = re.compile(r" ?\(\s*[,;]?\s*\)")
_SPACE_BEFORE = re.compile(r" +(?=[,;.](?:\s|$))")


def tidy(text: str) -> str:
    """Collapse white space of every kind, drop invisible characters; ``BREAK`` becomes a newline, blank lines go."""
    lines = (" ".join(line.split()) for line in text.translate(_INVISIBLE).split(BREAK))
    joined = "\n".join(line for line in lines if line)
    if "(" in joined:
        joined = _EMPTY_BRACKETS.sub("", joined)
    return _SPACE_BEFORE.sub("", joined)


@lru_cache(maxsize=8192)
def _is_noise_class(name: str) -> bool:
    return _NOISE_CLASS.fullmatch(name) is not None


@lru_cache(maxsize=8192)
def is_quote_class(name: str) -> bool:
    return _QUOTE_CLASS.fullmatch(name) is not None


def classes_of(tag: Tag) -> list[str]:
    value = tag.attrs.get("class")
    return [] if value is None else value.split() if isinstance(value, str) else list(value)


def is_noise(tag: Tag) -> bool:
    """Whether nothing inside this element belongs to the article."""
    if tag.name in _NOISE_TAGS:
        return True
    attrs = tag.attrs
    if not attrs:
        return False
    if "class" in attrs and any(_is_noise_class(name) for name in classes_of(tag)):
        return True
    style = attrs.get("style")
    if style and _HIDDEN_STYLE.search(str(style)):
        return True
    if "hidden" in attrs or attrs.get("role") in ("navigation", "note", "presentation-banner"):
        return True
    return tag.name == "div" and attrs.get("id") in ("toc", "catlinks")


class Gatherer:
    """Text of one subtree (a heading, cell, infobox value, quote …) in reading order, noise left out."""

    def __init__(self, noise: bool = True) -> None:
        self.parts: list[str] = []
        self.cited: list[str] = []  # ids of the footnotes met
        self._noise = noise

    def add(self, root: Tag) -> Gatherer:
        stack: list[tuple[Tag, Iterator[object]]] = [(root, iter(root.contents))]
        while stack:
            tag, children = stack[-1]
            child = next(children, None)
            if child is None:
                stack.pop()
                if tag.name in BLOCKS and tag is not root:
                    self.parts.append(" " if tag.name in ("td", "th") else BREAK)
            elif isinstance(child, Tag):
                if child.name == "br":
                    self.parts.append(BREAK)
                elif is_citation(child):
                    self.cited += citation_ids(child)
                elif not (self._noise and is_noise(child)):
                    if child.name in BLOCKS:
                        self.parts.append(" " if child.name in ("td", "th") else BREAK)
                    stack.append((child, iter(child.contents)))
            elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):
                self.parts.append(child)
        return self

    @property
    def text(self) -> str:
        return tidy("".join(self.parts))


def _text(tag: Tag) -> str:
    return Gatherer().add(tag).text


def line_of(tag: Tag) -> str:
    """Text of a subtree on one line."""
    return _text(tag).replace("\n", " ")


def is_citation(tag: Tag) -> bool:
    return tag.name == "sup" and "reference" in classes_of(tag)


def citation_ids(tag: Tag) -> list[str]:
    links = [a.attrs.get("href") for a in tag.contents if isinstance(a, Tag)]
    return [str(href)[1:] for href in links if href and str(href).startswith("#")]
