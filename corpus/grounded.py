"""Grounded conversations for tuning the decoder: numbered passages and a question → an answer that cites.

    python -m corpus.grounded --data DIR --out runs/grounded.jsonl
        [--groups runs/ranking/train.jsonl runs/ranking/wiki.jsonl]

Every line is ``{"passages": [[heading, text], …], "turns": [["user", question], …], "answer": "… [n].", "kind",
"answers", "gold"}``; the last two, aliases and the numbers of the passages that hold them, are for whoever scores
answers.  The passage that answers stands at a random place among distractors: passages of the same source that BM25
finds for the question (the hard ones), others of the same title, and random ones.  None of them gives the answer away.
In some rows the evidence is taken away, and the right answer is then that the archives do not say.

:data:`MIXTURE` is the whole recipe.  The codex's own questions get the passages that retrieval really brings when
``--groups`` names what ``python -m retrieval.candidates`` wrote, else BM25's; those over wiki pages come only with
their groups.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus import chunk, codex
from corpus.grounded_rows import DECLINE, Pool, Row, Shape, assemble
from corpus.grounded_sources import BUILDERS, article_rows, copies, own_questions, passage_of
from corpus.pairs import read_zst, wiki_article
from corpus.split import split_of
from corpus.types import Article

__all__ = ["DECLINE", "MIXTURE", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the mixture."""

    kind: str  # what its rows are called
    builder: str  # a key of BUILDERS
    files: tuple[str, ...] = ()  # under qa/
    rows: int = 1_000_000  # of each file at most
    times: int = 1  # how often each row comes, every time among other distractors
    missing: float = 0.12  # share of the rows whose evidence is taken away


# Ours weigh most, since they are what will be asked; then real search queries; SQuAD is there for quantity.  Declines
# come to 10–20 % of all rows: those written as such, and the evidence taken away from a share of the others.
MIXTURE = (
    Part("codex", "codex", times=3, missing=0.1),
    Part("wiki", "wiki", times=3, missing=0.1),
    Part("rules", "rules", rows=16),  # rows of an article: infobox facts, lists, definitions, follow-ups
    Part("short", "questions", ("qed_nq.train", "qed_nq.dev", "nq_open_oracle.dev"), times=2),
    Part("short", "questions", ("squad1.train",), rows=30_000),
    Part("short", "questions", ("adversarialqa.train", "quoref.train", "duorc.train", "hotpotqa.train")),
    Part("short", "questions", ("iirc.train", "qamr.dev", "qamr.test"), rows=3_000),
    Part("sentence", "questions", ("fairytaleqa.train", "fairytaleqa.dev", "fairytaleqa.test")),
    Part("sentence", "questions", ("narrativeqa_summaries.dev", "narrativeqa_summaries.test"), rows=3_000),
    Part("sentence", "questions", ("clapnq.dev", "instructlab_grounded.train", "onestopqa.train"), times=2),
    Part("sentence", "questions", ("fetaqa.dev", "fetaqa.test"), missing=0.05),
    Part("sentence", "verbalised", ("vquanda.train", "vquanda.test"), rows=2_000, missing=0.0),
    Part("conversation", "conversations", ("mtrag.dev",), times=2, missing=0.05),
    Part("conversation", "spoken", ("verbal_convquestions.dev", "verbal_convquestions.test"), times=2),
    Part("yes/no", "yes_no", ("boolq.train", "boolq.dev"), rows=3_000),
    Part("decline", "unanswerable", ("squad2.dev", "iirc.train", "clapnq.dev"), rows=4_000),
    Part("decline", "unanswerable", ("aquamuse_answerability.train", "doqa_answerability.train")),
    Part("copy", "copies", rows=12_000, missing=0.0),
)


def part_rows(part: Part, data: Path, rng: random.Random, shape: Shape, share: float) -> Iterator[Row]:
    """Rows of a part that reads question sets."""
    build = BUILDERS[part.builder]
    for name in part.files:
        rows = list(read_zst(data / "qa" / f"{name}.jsonl.zst"))
        pool = Pool(p for row in rows if row.get("context") and "<" not in (p := passage_of(row))[1])
        made = list(build(rows, part.kind, rng))
        if part.builder in ("spoken", "verbalised"):
            pool = Pool(passage for question in made for passage in question.evidence)
        rng.shuffle(made)
        for question in made[: max(1, int(min(part.rows, len(made)) * share))]:
            for _ in range(part.times):
                if row := assemble(question, pool, rng, part.missing, shape):
                    if part.builder == "yes_no":  # a wrong answer may quote the same reason
                        row["answers"] = row["answers"][:1]
                    yield row


def mixture(args: argparse.Namespace, rng: random.Random) -> Iterator[Row]:
    """All rows of the mixture, part by part."""
    shape = Shape(args.words, args.room, args.near)
    own = [("codex", codex.parse_page(page)) for page in codex.load(args.codex)]
    wiki = [("witcher", wiki_article(row)) for row in read_zst(args.data / "witcher/wiki_characters.jsonl.zst")]
    lore: list[tuple[str, Article]] = []
    for name in ("got_wiki", "lotr_wiki", "wookieepedia_characters"):
        rows = list(read_zst(args.data / f"lore/{name}.jsonl.zst"))
        picked = rng.sample(rows, min(len(rows), int(args.lore * args.share) + 1))
        lore += [(name, wiki_article(row)) for row in picked]
    everything = [*own, *wiki, *lore]
    some = rng.sample(everything, min(len(everything), int(len(everything) * args.share) + 20))
    for part in MIXTURE:
        if part.builder in ("codex", "wiki") and args.groups:
            pool = Pool(())
            file = args.questions if part.builder == "codex" else args.wiki
            for question in own_questions(file, args.groups, part.kind):
                for _ in range(part.times):
                    if rng.random() < args.share and (row := assemble(question, pool, rng, part.missing, shape)):
                        yield row
        elif part.builder == "codex":
            for turn in range(part.times):
                for row in article_rows(own, args.questions, 0, turn, shape):
                    if rng.random() < args.share:
                        yield row
        elif part.builder == "wiki":
            print("no --groups: the questions over wiki pages are left out")
        elif part.builder == "rules":
            for row in article_rows(some, None, part.rows, 0, shape):
                yield {**row, "kind": f"{part.kind}: {row['kind']}"}
        elif part.builder == "copies":
            known = [article for _, article in some if split_of(article.title) == "train"]
            passages = [(p.heading, p.text) for article in known for p in chunk.passages(article)]
            yield from copies(passages, int(part.rows * args.share) + 1, part.kind, rng, shape)
        else:
            yield from part_rows(part, args.data, rng, shape, args.share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with witcher/, lore/ and qa/")
    parser.add_argument("--codex", type=Path, default=Path("corpus/codex"))
    parser.add_argument("--questions", type=Path, default=Path("corpus/questions/train.jsonl"))
    parser.add_argument("--wiki", type=Path, default=Path("corpus/questions/wiki-train.jsonl"), help="over wiki pages")
    parser.add_argument("--groups", type=Path, nargs="+", help="what retrieval brings for both (retrieval.candidates)")
    parser.add_argument("--words", type=int, default=Shape().words, help="words of a passage at most")
    parser.add_argument("--room", type=int, default=Shape().room, help="words of all passages of a row")
    parser.add_argument("--near", action="store_true", help="two passages at most that do not answer")
    parser.add_argument("--lore", type=int, default=1_200, help="articles of each other world at most")
    parser.add_argument("--share", type=float, default=1.0, help="of the mixture, for a quick try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/grounded.jsonl"))
    args = parser.parse_args()
    rng = random.Random(args.seed)
    keys = ("passages", "turns", "answer", "kind", "answers", "gold")
    rows = [{key: row[key] for key in keys if key in row} for row in mixture(args, rng)]
    rng.shuffle(rows)  # lm.tune measures on the first rows
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", encoding="utf-8") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    kinds = Counter(row["kind"] for row in rows)
    declines = sum(row["answer"] == DECLINE for row in rows)
    print("\n".join(f"{n:8,}  {kind}" for kind, n in kinds.most_common()))
    print(f"{len(rows):,} rows, {declines / max(1, len(rows)):.1%} of them declines: {args.out}")


if __name__ == "__main__":
    main()
