"""Wording that two sets of texts share: runs of eight words, names and titles aside."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from corpus.errors import CorpusError

RUN = 8  # words in a row
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_CONNECTORS = frozenset(["of", "the", "and", "in", "at", "von", "van", "var", "aep", "de", "la", "a", "an", "to"])


@lru_cache(maxsize=65536)
def fold(name: str) -> str:
    """A name for comparing: case, accents, apostrophes and anything in brackets ignored."""
    bare = re.sub(r"\s*\([^)]*\)", "", name)
    letters = unicodedata.normalize("NFKD", bare).casefold()
    return " ".join(re.sub(r"[^\w\s]|_", "", "".join(c for c in letters if not unicodedata.combining(c))).split())


def tokens(text: str) -> list[str]:
    """Words of a text as they are written; punctuation and hyphens divide them no further than a reader would."""
    return _WORD.findall(text.replace("’", "'"))


def is_names(run: list[str], titles: set[str]) -> bool:
    """Whether most of a run of words is names and titles, which nobody can put in their own words."""
    named = [word[0].isupper() or word[0].isdigit() for word in run]
    folded = [fold(word) for word in run]
    for size in range(2, min(len(run), 8) + 1):
        for i in range(len(run) - size + 1):
            if " ".join(folded[i : i + size]) in titles:
                named[i : i + size] = [True] * size
    between = [
        word.casefold() in _CONNECTORS and any(named[max(0, i - 2) : i]) and any(named[i + 1 : i + 3])
        for i, word in enumerate(run)
    ]
    return sum(a or b for a, b in zip(named, between, strict=True)) > 0.6 * len(run)


def reference_pages(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Pages ``{"title", "text", "facts"}`` from JSON lines, plain or zstd.  Raises CorpusError naming the file."""
    for path in paths:
        try:
            with path.open("rb") as raw:
                stream: Any = raw
                if path.suffix == ".zst":
                    try:
                        import zstandard
                    except ImportError as error:
                        raise CorpusError("reading .zst needs zstandard: pip install -e '.[train]'") from error
                    stream = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw)
                for line in io.TextIOWrapper(stream, encoding="utf-8"):
                    if line.strip():
                        yield json.loads(line)
        except (OSError, ValueError) as error:
            raise CorpusError(f"{path}: cannot be read as JSON lines: {error}") from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise CorpusError(f"{path}: is no zstd file: {error}") from error


def _flatten(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _flatten(item)
    elif value is not None:
        yield from str(value).split("\n")


def shared_runs(
    texts: list[str], pages: Iterable[dict[str, Any]], titles: set[str]
) -> tuple[list[tuple[int, list[str], str]], int]:
    """Runs of ``RUN`` words or more that a text shares with a page, names and titles aside.

    Gives (index of the text, the whole run, title of a page that has its beginning) and how many pages there were.
    ``titles`` are folded names that count as such, besides the pages' own.
    """
    seen: dict[int, str] = {}
    titles = set(titles)
    count = 0
    for page in pages:
        count += 1
        title = str(page.get("title", ""))
        titles.add(fold(title))
        for piece in _flatten([page.get("text", ""), page.get("facts", {})]):
            for _, gram in _grams(tokens(piece)):
                seen.setdefault(gram, title)
    found = []
    for number, text in enumerate(texts):
        words = tokens(text)
        hits = [(i, gram) for i, gram in _grams(words) if gram in seen]
        while hits:
            first, gram = hits.pop(0)
            last = first
            while hits and hits[0][0] == last + 1:
                last = hits.pop(0)[0]
            run = words[first : last + RUN]
            if not is_names(run, titles):
                found.append((number, run, seen[gram]))
    return found, count


def _grams(words: list[str]) -> Iterator[tuple[int, int]]:
    """Position and hash of every run of ``RUN`` words, case, accents and apostrophes ignored."""
    bare = [fold(word) for word in words]
    for i in range(len(bare) - RUN + 1):
        yield i, hash(tuple(bare[i : i + RUN]))
