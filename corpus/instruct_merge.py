"""Many files into one: read, checked, rid of near-duplicates, shuffled; and the pairs that retrieval trains on.

Near-duplicates are found by MinHash (Broder 1997) over the words of conversation and answer, in datasketch's LSH
index, and confirmed by rapidfuzz, so that no row falls to a hash.  Rows that differ in a number, or in whether they
decline, are never duplicates.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError, model_validator
from rapidfuzz import fuzz

from corpus.grounded import DECLINE
from corpus.instruct_rows import Bank, Candidate, InstructError, Row, Shape, Tally, assemble, telltales
from corpus.question_format import Rejected, folded, parse_row
from corpus.question_sets import split_for
from corpus.split import split_of
from corpus.store import StoredPassage

ALIKE = 92.0  # rapidfuzz's score from which two wordings are one
PERMUTATIONS = 64
CANDIDATE = 0.6  # Jaccard similarity of words from which a pair of rows is looked at
TASKS = ("syllogism", "family_relationships", "knights_knaves", "calendar_arithmetic", "time_intervals", "aiw",
         "leg_counting", "chain_sum", "gsm_symbolic", "number_filtering", "letter_counting",
         "basic_arithmetic")  # fmt: skip
REASONING_WORDS = 150  # of an exercise at most; lm.tune would cut longer ones

_CITED = re.compile(r"\[(\d{1,3})\]")
_NUMBER = re.compile(r"\d+")
_ROLES = ("user", "assistant")


class Conversation(BaseModel):
    """A row of the one format, as any of our builders writes it."""

    passages: list[tuple[str, str]]
    turns: list[tuple[str, str]] = Field(min_length=1)
    answer: str = Field(min_length=1)
    kind: str = "unknown"
    query: str | None = None  # None: not given, so that a single question is its own query
    article: str = ""
    source: str = ""

    @model_validator(mode="after")
    def _sound(self) -> Conversation:
        if self.turns[-1][0] != "user" or any(role not in _ROLES for role, _ in self.turns):
            raise ValueError("turns end with the user's")
        if any(not 1 <= int(n) <= len(self.passages) for n in _CITED.findall(self.answer)) and self.passages:
            raise ValueError("cites a passage that is not there")
        texts = [self.answer, *(t for _, t in self.turns), *(t for passage in self.passages for t in passage)]
        if not all(t.strip() for _, t in self.turns) or any("<|" in t for t in texts):
            raise ValueError("an empty turn, or a mark of the prompt format")
        return self


def read(path: Path, dropped: Tally) -> Iterator[Row]:
    """The usable rows of a file of the train split; what is left out is counted by reason.

    Raises InstructError if the file cannot be read or holds no row at all.
    """
    found = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip():
                    continue
                found += 1
                try:
                    row = Conversation.model_validate_json(line)
                except ValidationError as error:
                    broken = any(e["type"] == "json_invalid" for e in error.errors())
                    dropped.add("no JSON" if broken else "not a row of this format")
                    continue
                if row.article and split_of(row.article) != "train":
                    dropped.add("dev or test article")
                    continue
                query = row.query
                if query is None:
                    query = row.turns[-1][1] if len(row.turns) == 1 and row.answer != DECLINE else ""
                plain = row.model_dump(mode="json")
                yield {**plain, "query": query}
    except OSError as error:
        raise InstructError(f"{path}: cannot be read: {error.strerror}.") from error
    if not found:
        raise InstructError(f"{path}: there are no rows in it.")


# -- the codex's own questions ----------------------------------------------------------------------------------


def question_rows(path: Path, bank: Bank, seed: int, shape: Shape, dropped: Tally) -> Iterator[Row]:
    """The codex's questions as rows, a conversation's every turn as one.  Only the train split is taken.

    Raises InstructError if the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InstructError(f"{path}: cannot be read: {error.strerror}.") from error
    for line in filter(str.strip, lines):
        try:
            row = parse_row(line)
            if split_for(row) != "train":
                dropped.add("dev or test question")
                continue
        except Rejected:
            dropped.add("not a row of this format")
            continue
        rng = random.Random(f"{seed}\x1f{row['id']}")
        # A set's questions are few and their declines are written as such, so nothing is taken away from them.
        kept = Shape(shape.words, shape.distractors, 0.0)
        for candidate in _question_candidates(row, bank, dropped):
            if made := assemble(candidate, bank, rng, kept):
                yield made if candidate.answer else {**made, "answer": DECLINE, "query": ""}
            else:
                dropped.add("evidence does not fit")


def _question_candidates(row: Row, bank: Bank, dropped: Tally) -> Iterator[Candidate]:
    turns: list[tuple[str, str]] = []
    for part in row.get("turns", [row]):
        turns.append(("user", part["question"]))
        places = [_place(one, bank) for one in part.get("evidence", [])]
        found = [place for place in places if place]
        query = part.get("rewrite", part["question"])
        answer = part.get("correction", "") if row.get("decline") else part["answer"]
        if len(found) < len(places):
            dropped.add("evidence not found")
            return
        yield Candidate(
            turns=tuple(turns),
            answer=answer,
            evidence=tuple(p for p, _ in found),
            anchors=tuple(text for _, text in found),
            kind="codex decline"
            if row.get("decline")
            else "codex conversation"
            if "turns" in row
            else "codex question",
            query=query,
            article=part.get("article", ""),
            gives=tuple(t for alias in part.get("answers", [])[:1] for t in telltales(alias, part["article"])),
            cited=bool(found),
        )
        turns.append(("assistant", answer or DECLINE))


def _place(evidence: Row, bank: Bank) -> tuple[StoredPassage, str] | None:
    """The passage that holds a piece of evidence now, and the piece; None if it is gone."""
    page = bank.page_of.get(folded(evidence["article"]))
    passages = bank.passages(page) if page is not None else ()
    holding = [p for p in passages if evidence["text"] in p.text]
    holding.sort(key=lambda p: p.section != evidence["section"])
    return (holding[0], evidence["text"]) if holding else None


# -- exercises --------------------------------------------------------------------------------------------------


def reasoning_rows(count: int, seed: int, tasks: Sequence[str] = TASKS) -> list[Row]:
    """``count`` exercises of reasoning-gym, evenly over ``tasks``; they have no passages and cite nothing.

    Raises InstructError where the package or a task is missing.
    """
    try:
        import reasoning_gym
    except ImportError:
        raise InstructError("--reasoning needs the package reasoning-gym: pip install 'cirilla[instruct]'.") from None
    found: list[Row] = []
    for number, task in enumerate(tasks):
        wanted = count // len(tasks) + (number < count % len(tasks))
        if not wanted:
            continue
        try:
            # Thrice as many: long ones are passed over.
            exercises = reasoning_gym.create_dataset(task, size=3 * wanted, seed=seed)
        except ValueError:
            raise InstructError(f"reasoning-gym has no task '{task}'.") from None
        for index in range(3 * wanted):
            if not wanted:
                break
            exercise = exercises[index]
            question, answer = exercise["question"].strip(), str(exercise["answer"] or "").strip()
            if not answer or len(question.split()) > REASONING_WORDS or len(answer.split()) > 30:
                continue
            wanted -= 1
            found.append(
                {
                    "passages": [],
                    "turns": [["user", question]],
                    "answer": answer,
                    "kind": f"reasoning: {task}",
                    "query": "",
                    "article": "",
                    "source": "",
                }
            )
    return found


# -- near-duplicates and pairs ----------------------------------------------------------------------------------


def distinct(rows: Iterable[Row], dropped: Tally, alike: float = ALIKE) -> Iterator[Row]:
    """The rows without near-duplicates of earlier ones.  Raises InstructError where datasketch is missing."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise InstructError("merge needs the package datasketch: pip install 'cirilla[instruct]'.") from None
    index = MinHashLSH(threshold=CANDIDATE, num_perm=PERMUTATIONS)
    kept: list[tuple[str, str, tuple[str, ...], bool]] = []
    exact: set[tuple[str, str, tuple[str, ...], bool]] = set()
    for row in rows:
        asked = folded(" ".join(text for _, text in row["turns"])).strip()
        declines = row["answer"] == DECLINE
        answer = "" if declines else folded(_CITED.sub("", row["answer"])).strip()
        mark = (asked, answer, tuple(sorted(_NUMBER.findall(f"{asked} {answer}"))), declines)
        if mark in exact:
            dropped.add("duplicate")
            continue
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([word.encode() for word in set(f"{asked} {answer}".split())])
        if any(_alike(mark, kept[other], alike) for other in index.query(sketch)):
            dropped.add("near-duplicate")
            continue
        index.insert(len(kept), sketch)
        kept.append(mark)
        exact.add(mark)
        yield row


def _alike(
    one: tuple[str, str, tuple[str, ...], bool], two: tuple[str, str, tuple[str, ...], bool], alike: float
) -> bool:
    if one[2:] != two[2:]:
        return False
    return bool(
        fuzz.token_sort_ratio(one[0], two[0], score_cutoff=alike)
        and (one[1] == two[1] or fuzz.ratio(one[1], two[1], score_cutoff=alike))
    )


def pairs(rows: Iterable[Row]) -> Iterator[Row]:
    """``{"query", "passage", "kind"}`` for every passage that an answer cites and its question can be found by."""
    for row in rows:
        if not row["query"] or row["answer"] == DECLINE:
            continue
        for number in dict.fromkeys(map(int, _CITED.findall(row["answer"]))):
            heading, text = row["passages"][number - 1]
            # With and without noise: the last turn as it was typed, where it stands alone.
            asked = row["turns"][-1][1] if len(row["turns"]) == 1 else row["query"]
            yield {"query": asked, "passage": f"{heading}\n{text}", "kind": row["kind"]}


def write(path: Path, rows: Iterable[Row]) -> int:
    """Write JSON lines to ``path`` in one piece: a run that dies leaves the file as it was."""
    scratch = path.with_name(path.name + ".part")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        scratch.replace(path)
    except OSError as error:
        raise InstructError(f"Cannot write {path}: {error.strerror}.") from error
    finally:
        scratch.unlink(missing_ok=True)
    return count
