"""Pairs of answers for preference tuning, out of the tuned decoder's samples, scored without anybody's opinion.

    python -m lm.sample --model runs/cirilla-tuned/model --data runs/grounded.jsonl --out runs/samples.jsonl
    python -m benchmarks.preferences --samples runs/samples.jsonl --out runs/preferences.jsonl

Every sample of a prompt gets points: for an alias of the answer, for citing a passage that holds it, for every sentence
being supported by what it cites (``app.support``), for declining when and only when the evidence is missing; and it
loses some for length.  The best and the worst of a prompt make a pair when they are far enough apart; where no sample
is right, the answer of the data is the better one.  ``python -m lm.prefer`` learns from the pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app import support
from corpus.question_format import folded, holds
from corpus.store import StoredPassage
from lm import chat
from lm.tune import Row, read_rows

GAP = 1.0  # points between the two answers of a pair at least
WORD = 0.02  # points that a word beyond the reference's length costs
_CITED = re.compile(r"\[(\d{1,3})\]")


@dataclass(frozen=True, slots=True)
class Score:
    """Points of one answer, and what they are for."""

    points: float
    right: bool  # an alias is in it, or it declines as it should
    cited: bool
    supported: bool


def stored(heading: str, text: str) -> StoredPassage:
    """A passage as ``app.support`` reads it, though it comes from no archive."""
    return StoredPassage(
        id=0, page=0, source="", title=heading, display_title=heading, path=(), heading=heading, text=text, start=0,
        end=len(text), section=0, canon="", url="", revid=0, rights="", rights_url="",
    )  # fmt: skip


def says(claim: str, alias: str) -> bool:
    """Whether an answer gives an alias; it begins with “yes” or “no” where it means it."""
    word = folded(alias)
    return folded(claim).startswith(word) if word in (" yes ", " no ") else holds([claim], alias)


def score(said: str, row: Row) -> Score:
    """Points of an answer to a row of ``corpus.grounded``: 0 for a wrong one, about 4 for the best."""
    said = said.strip()
    declines = said == chat.DECLINE
    if row["answer"] == chat.DECLINE or declines:
        right = declines and row["answer"] == chat.DECLINE
        return Score(3.0 if right else 0.0, right, right, right)
    passages = [stored(heading, text) for heading, text in row["passages"]]
    sentences, _ = support.split(said)
    supported = bool(sentences) and all(support.check(sentence, passages).ok for sentence in sentences)
    numbers = {int(n) for n in _CITED.findall(said)}
    cited = bool(numbers & set(row["gold"])) and all(1 <= n <= len(passages) for n in numbers)
    right = any(says(support.claim_of(said), alias) for alias in row["answers"])
    extra = max(0, len(said.split()) - len(row["answer"].split()) - 4)
    return Score(2.0 * right + 1.0 * cited + 1.0 * supported - WORD * extra, right, cited, supported)


def pair_of(row: Row, said: Sequence[str], rng: random.Random) -> Row | None:
    """The best and the worst of the samples, or None where they are about as good."""
    scored = [(score(text, row), text) for text in dict.fromkeys(text.strip() for text in said) if text]
    if not scored:
        return None
    rng.shuffle(scored)
    best = max(scored, key=lambda one: one[0].points)
    worst = min(scored, key=lambda one: one[0].points)
    if not best[0].right:
        best = score(row["answer"], row), row["answer"]
    if best[0].points - worst[0].points < GAP:
        return None
    return {
        "passages": row["passages"],
        "turns": row["turns"],
        "chosen": best[1],
        "rejected": worst[1],
        "points": [round(best[0].points, 2), round(worst[0].points, 2)],
        "kind": row.get("kind", ""),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, default=Path("runs/samples.jsonl"), help="rows of lm.sample")
    parser.add_argument("--out", type=Path, default=Path("runs/preferences.jsonl"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    count = right = total = 0
    with args.out.open("w", encoding="utf-8") as f:
        for row in read_rows([args.samples]):
            total += len(row["samples"])
            right += sum(score(text, row).right for text in row["samples"])
            if made := pair_of(row, row["samples"], rng):
                f.write(json.dumps(made, ensure_ascii=False) + "\n")
                count += 1
    print(f"{args.out}: {count:,} pairs; {right / max(1, total):.1%} of {total:,} samples were right")


if __name__ == "__main__":
    main()
