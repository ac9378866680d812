"""Names of the archive: which words of a question name an article, however they are spelt.

Built once per index from titles, display titles and aliases (redirects included).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import dropwhile

from corpus.store import Store
from retrieval.speller import Speller, plain
from retrieval.words import Word, clean, split, without_note

MAX_NAME_WORDS = 8
MAX_PAGES = 5
"""A name that more articles share than this says nothing about which one is meant."""
MAX_CORRECTIONS = 6
"""Words corrected in one question; a text with more unknown words is not a question about names."""

PLURAL = ("creature", "alchemy", "gear", "magic", "culture")
"""Kinds of article whose subjects are several: *boars* is hardly *boar's*."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A whole title or alias found in a question: its folded words (without a leading "the"), the articles it names."""

    words: tuple[str, ...]
    pages: tuple[int, ...]
    start: int  # positions among the question's words
    end: int  # exclusive


class Names:
    """Titles and aliases by their letters alone, so that "kaer morhen", "Kaermorhen" and "scoia tael" are found.

    ``entries``: (text of the name, id of its article).  ``passages(word.text)`` counts the passages that hold a word;
    only words that none holds are taken for misspelt.  ``owners``: the articles whose subject may own something, all
    when None.
    """

    def __init__(
        self,
        entries: Iterable[tuple[str, int]],
        passages: Callable[[str], int],
        owners: frozenset[int] | None = None,
    ) -> None:
        self._passages, self._owners = passages, owners
        self._names: dict[str, tuple[tuple[str, ...], set[int]]] = {}
        self._shown: dict[str, str] = {}
        vocabulary: Counter[str] = Counter()
        for text, page in entries:
            for variant in dict.fromkeys((clean(text), without_note(clean(text)))):
                words = split(variant)
                if not words or len(words) > MAX_NAME_WORDS or all(word.stop for word in words):
                    continue
                # "The King": its "the" would make a rare phrase out of a common word.
                rest = list(dropwhile(lambda word: word.stop, words))
                core = tuple(word.text for word in rest)
                letters = _letters(words)
                for name in (letters, _letters(rest)) if len(rest) > 1 else (letters,):  # "witcher 3" needs no "the"
                    self._names.setdefault(name, (core, set()))[1].add(page)
                for word in words:
                    vocabulary[word.key] += not word.stop
                    self._shown.setdefault(word.key, variant[word.start : word.end])
                if len(words) == 2:  # written as one word and misspelt besides: "kaermorhn"
                    vocabulary[letters] += 1
                    self._shown.setdefault(letters, variant)
        self.speller = Speller({word: count for word, count in vocabulary.items() if count}, passages)

    @classmethod
    def of(cls, store: Store) -> Names:
        """Names of an archive.  One pass over titles and aliases: about 0.2 s for 10,000 articles."""
        rows = store.rows(
            """SELECT title AS name, id FROM pages
               UNION SELECT display_title, id FROM pages WHERE display_title != ''
               UNION SELECT alias, page FROM aliases ORDER BY 1, 2"""
        )

        @lru_cache(maxsize=4096)
        def passages(word: str) -> int:
            sql = "SELECT count(*) AS n FROM passages_fts WHERE passages_fts MATCH ?"
            return store.rows(sql, [f'"{word}"'])[0]["n"]

        owners = store.rows(f"SELECT id FROM pages WHERE kind NOT IN ({', '.join('?' * len(PLURAL))})", PLURAL)
        return cls(((row["name"], row["id"]) for row in rows), passages, frozenset(row["id"] for row in owners))

    def mentions(self, words: list[Word]) -> list[Mention]:
        """Whole names in a question, longest first claim, none overlapping, in order of appearance."""
        found: list[Mention] = []
        at = 0
        while at < len(words):
            for end in range(min(len(words), at + MAX_NAME_WORDS), at, -1):
                part = words[at:end]
                name = self._names.get(_letters(part))
                if name and len(name[1]) <= MAX_PAGES and not all(word.stop for word in part):
                    found.append(Mention(name[0], tuple(sorted(name[1])), at, end))
                    break
            else:
                end = at + 1
            at = end
        return found

    def correct(self, question: str) -> tuple[str, dict[str, str]]:
        """A ``clean`` question with misspelt names put right, and what was changed (old → new)."""
        words = split(question)
        named = {at for mention in self.mentions(words) for at in range(mention.start, mention.end)}
        keys = {word.key for word in words}
        changes: dict[str, str] = {}
        pieces: list[str] = []
        done = 0
        for at, word in enumerate(words):
            if at in named or word.stop or len(changes) >= MAX_CORRECTIONS:
                continue
            old = question[word.start : word.end]
            right = self.speller.correct(word.key)
            # "Who is Eragon's dragon?": whoever writes one of two words right knows how it is written.
            if right and right not in keys and not self._passages(word.text):
                new = self._shown[right]
            elif self._owner(words, at):
                new = f"{old[:-1]}'s"
            elif old.islower() and not self._passages(word.text) and (held := [*filter(self._passages, plain(old))]):
                new = held[0]
            else:
                continue
            changes[old] = new
            pieces += [question[done : word.start], new]
            done = word.end
        return "".join([*pieces, question[done:]]), changes

    def _owner(self, words: list[Word], at: int) -> bool:
        """Whether a word is a name in the possessive whose apostrophe was left out: *ciris grandmother*.

        A creature or a herb is put in the plural rather: *boars* are several.
        """
        key = words[at].key
        owns = at + 1 < len(words) and not words[at + 1].stop
        if not (owns and key.endswith("s")) or key in self._names or key[:-1] not in self._names:
            return False
        return self._owners is None or bool(self._names[key[:-1]][1] & self._owners)


def _letters(words: Iterable[Word]) -> str:
    return "".join(word.key for word in words)
