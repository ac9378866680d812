"""Sections → passages of about 180 words, cut between sentences, with exact offsets.

The packing is langchain's: ``SentencePacker`` is a ``TextSplitter`` whose pieces are our sentences.  Nothing is
stripped while packing, so the chunks concatenate to the section's text and offsets are running sums, not guesses
by searching (which is how langchain's own ``add_start_index`` goes wrong on repeated text).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise

from langchain_text_splitters import RecursiveCharacterTextSplitter, TextSplitter

from corpus.types import FACTS_PATH, Article, Passage, Section

TARGET = 180  # words in a passage
MAXIMUM = 230  # words up to which a section stays whole, or a passage takes in a short tail
TAIL = 50  # words under which the last passage of a section is joined to the one before

_BULLET = re.compile(r"[•◦]\s*")
# The lookbehind makes a run of stops match once, from its start: without it "....…" costs quadratic time.
_STOP = re.compile(r"(?<![.!?…])[.!?…](?:[.!?…]|[ \t\u00a0](?=[.…]))*+[\"”’'»)\]]*+\s++(?=\S)")
_ENCLOSED = re.compile(r"“[^”]{1,400}”|\"[^\"]{1,400}\"|«[^»]{1,400}»|\([^()]{1,300}\)")
_LAST_WORD = re.compile(r"[\w.’'-]*$")
# Abbreviations that are followed by what they belong to, so that a sentence hardly ends after them …
_NEVER_LAST = re.compile(
    "mr|mrs|ms|dr|st|sr|prof|sgt|cpt|capt|lt|gen|col|vols?|pp|fig|ca|cf|vs|viz|e\\.?g|i\\.?e|approx|esp|incl"
)
# … and those that only count as such before a number: "no. 5", "ch. 3", "p. 12", "d. 1268".
_BEFORE_NUMBER = re.compile("nos?|p|ch|ed|ep|art|sec|pt|b|d|r|c|s|est|bk")


def words(text: str) -> int:
    """Length of a text in words.  Text without spaces (Chinese, an address) counts one word per eight characters."""
    return max(len(text.split()), -(-len(text) // 8))


def _ends_sentence(line: str, stop: re.Match[str]) -> bool:
    """Whether the full stop, question mark … matched in ``line`` really closes a sentence."""
    following = line[stop.end()]
    if following.islower():
        return False  # "Well… perhaps", "“Run!” he said"
    if line[stop.start()] != "." or stop.group().count(".") > 1:
        return True
    word = _LAST_WORD.search(line, max(0, stop.start() - 24), stop.start())
    before = word.group() if word else ""
    lower = before.casefold().lstrip("'’")
    if _NEVER_LAST.fullmatch(lower) or (following.isdigit() and _BEFORE_NUMBER.fullmatch(lower)):
        return False
    if len(before) == 1 and before.isupper() and before != "I":
        return False  # an initial: "J. Holt"; "I" is far more often a king's number or a speaker
    return not (before.isdigit() and stop.start() == len(before))  # "3. Take the key" numbers its line


def _sentence_starts(line: str) -> Iterator[int]:
    """Offsets in ``line`` (one line, no leading bullet) where a sentence after the first one begins."""
    enclosed = [m.span() for m in _ENCLOSED.finditer(line)]
    i = 0
    for stop in _STOP.finditer(line):
        while i < len(enclosed) and enclosed[i][1] < stop.end():
            i += 1
        inside = i < len(enclosed) and enclosed[i][0] < stop.start() and stop.end() < enclosed[i][1]
        if not inside and _ends_sentence(line, stop):
            yield stop.end()


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans ``(start, end)`` of the sentences in ``text``, in order and never empty or overlapping.

    A line break always ends a sentence (cleaned text only has them between paragraphs, list items and table rows).
    What lies between two spans is white space or a list bullet.  Speech and brackets of ordinary length stay in one
    piece.  Never raises.
    """
    spans = []
    offset = 0
    for line in text.split("\n"):
        bullet = _BULLET.match(line, len(line) - len(line.lstrip()))
        first = bullet.end() if bullet else 0
        body = line[first:]
        cuts = [0, *_sentence_starts(body), len(body)]
        for a, b in pairwise(cuts):
            piece = body[a:b]
            start = a + len(piece) - len(piece.lstrip())
            end = a + len(piece.rstrip())
            if start < end:
                spans.append((offset + first + start, offset + first + end))
        offset += len(line) + 1
    return spans


def trim(text: str, answer: str, words: int) -> str:
    """At most about ``words`` words of whole sentences around the answer, which may stand anywhere among them.

    The same arguments always give the same piece.
    """
    spans = sentences(text)
    place = text.find(answer)
    home = next((i for i, (start, end) in enumerate(spans) if start <= place < end), 0)
    last_place = place + max(1, len(answer)) - 1
    first = home
    last = next((i for i, (start, end) in enumerate(spans) if start <= last_place < end), home)
    last = max(first, last)
    # Always the same side first would put every answer at the other end.
    rng = random.Random(f"{words} {place} {text[:60]}")
    while True:
        wider = [(first - 1, last), (first, last + 1)]
        fits = [
            (a, b)
            for a, b in wider
            if a >= 0 and b < len(spans) and len(text[spans[a][0] : spans[b][1]].split()) <= words
        ]
        if not fits:
            return text[spans[first][0] : spans[last][1]] if spans else text
        first, last = rng.choice(fits)


class SentencePacker(TextSplitter):
    """Packs whole sentences (or, with ``by_line``, whole lines) into chunks of at most ``TARGET`` words.

    A sentence that is longer than that alone is cut at a clause, a word or, at worst, a character.
    """

    def __init__(self, by_line: bool = False) -> None:
        super().__init__(chunk_size=TARGET, chunk_overlap=0, length_function=words, strip_whitespace=False)
        self._by_line = by_line
        self._cutter = RecursiveCharacterTextSplitter(
            [r"\n", r"[.;:!?]\s", r",\s", r"\s", ""],
            keep_separator="end",
            is_separator_regex=True,
            chunk_size=TARGET,
            chunk_overlap=0,
            length_function=words,
            strip_whitespace=False,
        )

    def _pieces(self, text: str) -> list[str]:
        if self._by_line:
            starts = [m.start() for m in re.finditer(r"(?<=\n)[^\n]", text)]
        else:
            starts = []
            for start, _ in sentences(text)[1:]:
                line = text.rfind("\n", 0, start) + 1
                starts.append(line if _BULLET.fullmatch(text[line:start].strip()) else start)  # a bullet goes along
        cuts = [0, *starts, len(text)]
        return [text[a:b] for a, b in pairwise(cuts) if a < b]

    def split_text(self, text: str) -> list[str]:
        """Chunks of ``text`` in order; they concatenate to ``text``."""
        pieces: list[str] = []
        for piece in self._pieces(text):
            pieces += [piece] if words(piece) <= TARGET else self._cutter.split_text(piece)
        return self._merge_splits(pieces, "")


_BY_SENTENCE = SentencePacker()
_BY_LINE = SentencePacker(by_line=True)


def _spans(section: Section) -> list[tuple[int, int]]:
    """Spans of a section's passages, blank ends trimmed."""
    text = section.text
    if words(text) <= MAXIMUM:
        spans = [(0, len(text))]
    else:
        packer = _BY_LINE if section.path == FACTS_PATH else _BY_SENTENCE
        spans, end = [], 0
        for chunk in packer.split_text(text):
            spans.append((end, end + len(chunk)))
            end += len(chunk)
        if len(spans) > 1 and words(text[slice(*spans[-1])]) < TAIL and words(text[spans[-2][0] :]) <= MAXIMUM:
            spans[-2:] = [(spans[-2][0], spans[-1][1])]
    trimmed = []
    for start, end in spans:
        chunk = text[start:end]
        start += len(chunk) - len(chunk.lstrip())
        end -= len(chunk) - len(chunk.rstrip())
        if start < end:
            trimmed.append((start, end))
    return trimmed


def passages(article: Article) -> list[Passage]:
    """The article's passages in reading order: no more than ``MAXIMUM`` words each, never across two sections.

    ``passage.text == article.sections[passage.section].text[passage.start:passage.end]`` holds for every one.
    Blank sections give none.
    """
    return [
        Passage(
            title=article.title,
            path=section.path,
            text=section.text[start:end],
            start=start,
            end=end,
            canon=section.canon,
            section=ordinal,
            aliases=article.aliases,
        )
        for ordinal, section in enumerate(article.sections)
        for start, end in _spans(section)
    ]
