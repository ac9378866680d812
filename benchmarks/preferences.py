"""Pairs of answers for preference tuning: sampled from the tuned decoder, scored without anybody's opinion.

    python -m benchmarks.preferences --model runs/cirilla-tuned/model --data runs/grounded.jsonl \
           --out runs/preferences.jsonl --prompts 4000 --samples 8

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app import support
from corpus.question_format import holds
from corpus.store import StoredPassage
from lm import chat, files, generate
from lm.model import Cirilla
from lm.tokenizer import EOS, USER, Tokenizer
from lm.tune import read_rows

Row = dict[str, Any]

NEW_TOKENS = 96  # of a sample at most
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
    right = any(holds([support.claim_of(said)], alias) for alias in row["answers"])
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


def sampled(
    model: Cirilla,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    samples: int,
    together: int,
    temperature: float,
    seed: int,
) -> Iterator[tuple[Row, list[str]]]:
    """Every row with ``samples`` answers, those of ``together`` rows drawn side by side."""
    stop = frozenset({tokenizer.end, tokenizer.special(EOS), tokenizer.special(USER), tokenizer.bos})
    budget = model.config.max_length - NEW_TOKENS
    for at in range(0, len(rows), together):
        part = rows[at : at + together]
        prompts = [
            chat.render(tokenizer, [(h, t) for h, t in row["passages"]], row["turns"], budget=budget) for row in part
        ]
        found = generate.batch(
            model,
            [prompt for prompt in prompts for _ in range(samples)],
            max_new_tokens=NEW_TOKENS,
            stop=stop,
            temperature=temperature,
            top_p=0.95,
            seeds=[seed + at * samples + i for i in range(len(part) * samples)],
        )
        for i, row in enumerate(part):
            yield row, [tokenizer.decode(ids) for ids in found[i * samples : (i + 1) * samples]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the tuned model")
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="rows of corpus.grounded")
    parser.add_argument("--out", type=Path, default=Path("runs/preferences.jsonl"))
    parser.add_argument("--prompts", type=int, default=4000, help="rows to sample for, the last ones of the data")
    parser.add_argument("--samples", type=int, default=8, help="answers to each")
    parser.add_argument("--together", type=int, default=16, help="rows sampled side by side")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model, tokenizer = files.load(args.model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device, torch.bfloat16 if device == "cuda" else torch.float32)
    model.init_rotation()  # its angles must not be rounded with the weights
    model.to(device)
    # Rows that say what a right answer is; lm.tune measures on the first ones, so the last ones are taken.
    rows = [row for row in read_rows(args.data) if "gold" in row and not row["kind"].startswith("copy")]
    rng = random.Random(args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    count = right = total = 0
    with args.out.open("w", encoding="utf-8") as f:
        settings = (args.samples, args.together, args.temperature, args.seed)
        for row, said in sampled(model, tokenizer, rows[-args.prompts :], *settings):
            total += len(said)
            right += sum(score(text, row).right for text in said)
            if made := pair_of(row, said, rng):
                f.write(json.dumps(made, ensure_ascii=False) + "\n")
                count += 1
    print(f"{args.out}: {count:,} pairs; {right / max(1, total):.1%} of {total:,} samples were right")


if __name__ == "__main__":
    main()
