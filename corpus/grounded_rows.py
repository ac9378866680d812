"""A grounded conversation from a question and its evidence: distractors, trimming, numbering, citing.

:func:`assemble` makes every row of ``corpus.grounded``; the rest of this file is what it needs.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from corpus import chunk
from corpus.chunk import trim

DECLINE = "The archives do not say."  # word for word what lm/chat.py expects

Row = dict[str, Any]
Text = tuple[str, str]
"""Heading and text of a passage."""

DISTRACTORS = (1, 2, 3, 4)
DISTRACTOR_WEIGHTS = (1, 2, 3, 4)
NEAR = (0, 1, 1, 2)  # distractors where reading is to be learnt rather than choosing
LEAST, LEAST_NEAR = 30, 12  # words of a passage


# -- small tools -------------------------------------------------------------------------------------------------


_WORD = re.compile(r"[^\W_]{3,}")


def overlap(one: str, two: str) -> float:
    """Share of the words of ``one``, of three letters or more, that stand in ``two``."""
    words = set(_WORD.findall(one.casefold()))
    return len(words & set(_WORD.findall(two.casefold()))) / len(words) if words else 0.0


def best_sentence(text: str, wanted: str) -> str:
    """The sentence of ``text`` that shares most with ``wanted``; "" where there is none."""
    found = [text[a:b] for a, b in chunk.sentences(text)]
    return max(found, key=lambda s: overlap(wanted, s), default="")


def stands_in(text: str, answer: str) -> str:
    """``answer`` as the text spells it, "" where it does not stand there."""
    match = re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.I)
    return match[0] if match else ""


def cite(answer: str, numbers: Sequence[int], texts: Sequence[str], *, all_of_them: bool = False) -> str:
    """The answer with ``[n]`` before the end of every sentence.

    Args:
        numbers, texts: of the passages that hold it.  A sentence cites the one that shares most with it.
        all_of_them: every sentence cites every passage: it takes all of them to say it.
    """
    marked = []
    for a, b in chunk.sentences(answer) or [(0, len(answer))]:
        said = answer[a:b].strip()
        if all_of_them or len(numbers) == 1:
            cited = list(numbers)
        else:
            cited = [max(zip(numbers, texts, strict=True), key=lambda pair: overlap(said, pair[1]))[0]]
        marks = "".join(f"[{n}]" for n in cited)
        marked.append(f"{said.rstrip('.').rstrip()} {marks}." if not said.endswith(("!", "?")) else f"{said} {marks}")
    return " ".join(marked)


class Pool:
    """The passages of one source, searched by BM25 (SQLite's FTS5, in memory)."""

    def __init__(self, passages: Iterable[Text]) -> None:
        self.passages = list(dict.fromkeys(passages))
        self.by_heading: dict[str, list[Text]] = defaultdict(list)
        self._db = sqlite3.connect(":memory:")
        self._db.execute("CREATE VIRTUAL TABLE t USING fts5(heading, body, tokenize='porter unicode61')")
        self._db.executemany("INSERT INTO t(rowid, heading, body) VALUES (?, ?, ?)",
                             ((i, h, b) for i, (h, b) in enumerate(self.passages)))  # fmt: skip
        for passage in self.passages:
            self.by_heading[passage[0]].append(passage)

    def near(self, question: str, k: int) -> list[Text]:
        """The ``k`` best passages for a question, best first."""
        from corpus.instruct_rows import STOPWORDS

        words = [w for w in dict.fromkeys(re.findall(r"\w+", question.casefold())) if w not in STOPWORDS][:8]
        if not words:
            return []
        match = " OR ".join(f'"{word}"' for word in words)
        found = self._db.execute("SELECT rowid FROM t WHERE t MATCH ? ORDER BY bm25(t) LIMIT ?", [match, k])
        return [self.passages[rowid] for (rowid,) in found]


# -- from questions to rows --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its evidence, before distractors are put around it."""

    kind: str
    turns: tuple[tuple[str, str], ...]  # ends with the user's
    answer: str  # without citations; DECLINE where the passages do not answer
    evidence: tuple[Text, ...] = ()
    anchors: tuple[str, ...] = ()  # of each, what trimming must leave; the whole text where nothing may be cut
    answers: tuple[str, ...] = ()  # aliases
    all_cited: bool = False  # the answer needs every passage of the evidence
    can_miss: bool = True  # its evidence may be taken away
    given: tuple[Text, ...] | None = None  # distractors that are already known, best first


@dataclass(frozen=True, slots=True)
class Shape:
    """How long rows are, in words."""

    words: int = 170  # of a passage at most; no passage of an archive is much longer
    room: int = 560  # of all passages: some 900 tokens with the conversation
    near: bool = False  # the right passages and two others at most, each cut down to what is most about the question


def telling(question: Question) -> tuple[str, ...]:
    """What a distractor must not hold."""
    from corpus.instruct_rows import telltales

    heading = question.evidence[0][0] if question.evidence else ""
    aliases = question.answers or ((question.answer,) if question.answer != DECLINE else ())
    return tuple(dict.fromkeys(t for alias in aliases[:4] for t in telltales(alias, heading)))


def distractors(question: Question, pool: Pool, rng: random.Random, wanted: int) -> list[Text]:
    """Passages that look like the answer and do not hold it: half of them BM25's, a quarter of the same title."""
    from corpus.instruct_rows import gives_away

    gives = telling(question)
    taken = set(question.evidence)

    def fits(passage: Text) -> bool:
        if passage in taken or (gives and gives_away(*passage, gives)):
            return False
        return not any(anchor and anchor in passage[1] for anchor in question.anchors)

    found: list[Text] = []
    asked = question.turns[-1][1] + (" " + question.turns[0][1] if len(question.turns) > 1 else "")
    hard = [p for p in (question.given if question.given is not None else pool.near(asked, 4 * wanted + 4)) if fits(p)]
    same = [p for p in pool.by_heading.get(question.evidence[0][0], []) if fits(p)] if question.evidence else []
    same = rng.sample(same, min(len(same), wanted))
    tries = 0
    while len(found) < wanted and tries < 20 * wanted and (pool.passages or hard):
        tries += 1
        draw = rng.random()
        if (question.given is not None or draw < 0.5) and hard:
            passage = hard.pop(0)
        elif draw < 0.75 and same:
            passage = same.pop()
        elif pool.passages:
            passage = rng.choice(pool.passages)
        else:
            break
        if passage not in taken and fits(passage):
            taken.add(passage)
            found.append(passage)
    return found


def assemble(question: Question, pool: Pool, rng: random.Random, missing: float, shape: Shape) -> Row | None:
    """The row, or None where its evidence does not fit or where there would be nothing to read."""
    wanted = rng.choice(NEAR) if shape.near else rng.choices(DISTRACTORS, DISTRACTOR_WEIGHTS)[0]
    takes_away = bool(question.can_miss and question.evidence and telling(question) and rng.random() < missing)
    wanted = max(wanted, int(not question.evidence))
    others = distractors(question, pool, rng, wanted + takes_away)
    *before, (role, asked) = question.turns
    evidence = () if takes_away else question.evidence
    count = len(others) + len(evidence)
    if not count:
        return None
    words = min(shape.words, max(40, shape.room // count))
    words = rng.randint(LEAST_NEAR if shape.near else max(LEAST, words // 2), words)
    kept: list[Text] = []
    for (heading, text), anchor in zip(evidence, question.anchors if evidence else (), strict=True):
        piece = text if anchor == text else trim(text, anchor, words)
        if anchor not in piece or len(piece.split()) > shape.room // len(evidence):
            return None
        kept.append((heading, piece))
    spare = (shape.room - sum(len(t.split()) for _, t in kept)) // max(1, len(others))
    if others and spare < 25:
        others, spare = others[:1], max(25, spare * len(others))
    shown = []
    for heading, text in others:
        said = [text[start:end] for start, end in chunk.sentences(text)] or [text]
        spot = max(said, key=lambda s: overlap(asked, s)) if shape.near else rng.choice(said)
        shown.append((heading, trim(text, spot, min(words, spare))))
    numbers = sorted(rng.sample(range(len(shown) + len(kept)), len(kept)))
    for place, passage in zip(numbers, kept, strict=True):
        shown.insert(place, passage)
    gold = [place + 1 for place in numbers]
    answer = question.answer
    if takes_away:
        answer = DECLINE
    elif answer != DECLINE:
        answer = cite(answer, gold, [text for _, text in kept], all_of_them=question.all_cited)
    noise = rng.random()
    asked = asked.lower() if noise < 0.2 else asked.rstrip("?") if noise < 0.25 else asked
    declines = answer == DECLINE
    return {
        "passages": [list(passage) for passage in shown],
        "turns": [*map(list, before), [role, asked]],
        "answer": answer,
        "kind": question.kind,
        "answers": [] if declines else list(question.answers),
        "gold": [] if declines else gold,
    }
