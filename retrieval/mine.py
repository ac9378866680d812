"""Hard negatives for contrastive training: passages that BM25 takes for the answer and that are not.

    python -m retrieval.mine --pairs runs/pairs.jsonl --out runs/mined.jsonl [--negatives N]

Reads the lines of ``corpus.pairs`` and adds ``"negatives"`` to each: ``N`` of the first passages that our own lexical
search finds for the question among all passages of the file (after DPR, Karpukhin et al. 2020).  Much of what such a
search finds is an answer that nobody has labelled (RocketQA, Qu et al. 2021), so a passage is never a negative when it
- is a passage of that question anywhere in the file, however the question is spelt;
- holds one of the pair's ``"answers"`` (aliases of the answer, its evidence sentence), heading included;
- shares half of the positive's word triples, or holds half of its own there: a neighbour cut from the same text;
- belongs to the positive's article, where no answer is known to look for.
Where too few are left, passages drawn at random under the same rules fill up; where that fails, the pair is left out.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from corpus.store import Store
from corpus.types import Article, Page, Passage
from retrieval import lexical
from retrieval.candidates import holds
from retrieval.names import Names
from retrieval.words import plain

DEPTH = 30  # passages that the search is asked for
AMONG = 10  # negatives are drawn from so many of those that pass; the first alone would always be the same
ALIKE = 0.5
TRIES = 200  # random draws for a pair before it is given up; only a tiny file needs so many

Row = dict[str, Any]
_plain = lru_cache(maxsize=100_000)(plain)


def title_of(passage: str) -> str:
    """Title of the article in a passage as ``corpus.pairs`` writes it (heading path, line break, text); "": none."""
    heading, line_break, _ = passage.partition("\n")
    return heading.split(" › ")[0] if line_break else ""


class Pool:
    """The distinct passages of a file of pairs in an archive of their own, searched as an index would be."""

    def __init__(self, passages: Iterable[str], folder: Path) -> None:
        self.store = Store(folder / "archive.sqlite")
        self.texts: dict[int, str] = {}
        articles: dict[str, list[str]] = defaultdict(list)
        for passage in dict.fromkeys(passages):
            articles[title_of(passage)].append(passage)
        for number, (title, members) in enumerate(articles.items()):
            made = []
            for section, passage in enumerate(members):
                heading, line_break, text = passage.partition("\n")
                path = tuple(heading.split(" › ")[1:]) if line_break else ()
                made.append(Passage(title, path, text if line_break else passage, 0, len(passage), section=section))
                self.texts[made[-1].key("pool", number)] = passage
            self.store.replace_page(Page("pool", number, title, 1, "", ""), Article(title, ()), made)
        self.names = Names.of(self.store)
        self.found = lru_cache(maxsize=None)(self._found)  # a file asks the same question of several passages

    def _found(self, query: str) -> tuple[str, ...]:
        """Passages for a question, best first."""
        hits = lexical.search(self.store, query, DEPTH, names=self.names)
        return tuple(self.texts[id] for id, _ in hits)


@lru_cache(maxsize=20_000)
def _triples(text: str) -> frozenset[tuple[str, ...]]:
    words = plain(text.partition("\n")[2] or text).split()
    return frozenset(tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2)))


def alike(a: str, b: str) -> bool:
    """Whether two passages are pieces of one text: half of the shorter one's word triples stand in the other."""
    x, y = _triples(a), _triples(b)
    return len(x & y) >= ALIKE * min(len(x), len(y))


def wrong(passage: str, row: Row, positives: set[str]) -> bool:
    """Whether ``passage`` may stand as a negative beside ``row``; the rules are in the module's docstring."""
    if passage in positives:
        return False
    title = title_of(row["passage"])
    if row["answers"]:
        if holds(_plain(passage), row["answers"]):
            return False
    elif title and title_of(passage) == title:
        return False
    return not any(alike(passage, positive) for positive in positives)


def mine(rows: Sequence[Row], pool: Pool, negatives: int, rng: random.Random) -> Iterator[Row]:
    """The rows with ``negatives`` and ``mined`` (how many of them the search found); see the module's docstring."""
    positives: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        positives[plain(row["query"])].add(row["passage"])
    everything = list(pool.texts.values())
    for row in rows:
        own = positives[plain(row["query"])]
        found: list[str] = []
        for passage in pool.found(row["query"]):
            if len(found) < AMONG and wrong(passage, row, own):
                found.append(passage)
        chosen = rng.sample(found, min(negatives, len(found)))
        mined, tries = len(chosen), 0
        while len(chosen) < negatives and tries < TRIES:
            passage, tries = rng.choice(everything), tries + 1
            if passage not in chosen and wrong(passage, row, own):
                chosen.append(passage)
        if len(chosen) == negatives:
            yield {**row, "negatives": chosen, "mined": mined}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=Path("runs/pairs.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("runs/mined.jsonl"))
    parser.add_argument("--negatives", type=int, default=1, help="negatives a pair")
    parser.add_argument("--kinds", nargs="+", help="only pairs of these kinds; negatives come from all passages still")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.pairs.open(encoding="utf-8")]
    if any("answers" not in row for row in rows):
        sys.exit(f"{args.pairs} does not say what the answers are: make it anew with `python -m corpus.pairs`.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    kept = mined = 0
    with tempfile.TemporaryDirectory() as folder, args.out.open("w", encoding="utf-8") as out:
        pool = Pool((row["passage"] for row in rows if row["kind"] != "cloze"), Path(folder))
        rows = [row for row in rows if not args.kinds or row["kind"] in args.kinds]
        for row in mine(rows, pool, args.negatives, random.Random(args.seed)):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            kept, mined = kept + 1, mined + row["mined"]
            if kept % 10_000 == 0:
                print(f"{kept:,} of {len(rows):,}", flush=True)
    share = mined / max(1, kept * args.negatives)
    print(
        f"{kept:,} of {len(rows):,} pairs, {share:.0%} of their negatives found by BM25, the others drawn: {args.out}"
    )


if __name__ == "__main__":
    main()
