"""Grounded conversations for tuning the decoder: numbered passages and a question → an answer that cites.

    python -m corpus.grounded --data DIR --out runs/grounded.jsonl

Every line is ``{"passages": [[heading, text], …], "turns": [["user", question]], "answer": "… [n]", "kind"}``.  The
passage that holds the answer stands at a random place among distractors, from the same article where there are others;
in some rows it is taken away, and the right answer is then that the archives do not say.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpus import chunk, codex
from corpus.pairs import ASK, read_zst, wiki_article
from corpus.types import FACTS_PATH, Article

DECLINE = "The archives do not say."  # word for word what lm/chat.py expects

# (file, rows at most, times): short answers to real questions first, SQuAD for quantity.
QUESTION_SETS = [
    ("qed_nq.train", None, 2),
    ("qed_nq.dev", None, 2),
    ("nq_open_oracle.dev", None, 2),
    ("squad1.train", 60_000, 1),
    ("adversarialqa.train", None, 1),
    ("fairytaleqa.train", None, 1),
    ("quoref.train", None, 1),
    ("duorc.train", None, 1),
    ("instructlab_grounded.train", None, 1),
]


def trim(text: str, answer: str, words: int) -> str:
    """At most about ``words`` words of whole sentences around the answer."""
    spans = chunk.sentences(text)
    place = text.find(answer)
    home = next((i for i, (start, end) in enumerate(spans) if start <= place < end), 0)
    first = last = home
    while True:
        wider = [(first - 1, last), (first, last + 1)]
        fits = [
            (a, b)
            for a, b in wider
            if a >= 0 and b < len(spans) and len(text[spans[a][0] : spans[b][1]].split()) <= words
        ]
        if not fits:
            return text[spans[first][0] : spans[last][1]] if spans else text
        first, last = fits[0]


def question_rows(folder: Path, name: str, limit: int | None, words: int, rng: random.Random) -> Iterator[dict]:
    rows = [r for r in read_zst(folder / f"{name}.jsonl.zst") if r.get("answerable", True) and r.get("context")]
    rng.shuffle(rows)
    for row in rows[:limit]:
        answer = row["answers"][0].strip()
        if len(answer.split()) > 40:
            continue
        text = trim(row["context"], answer, words)
        yield {
            "title": row.get("title") or name,
            "text": text,
            "question": row["question"],
            "answer": answer,
            "kind": name,
        }


def article_rows(articles: Iterable[Article], rng: random.Random) -> Iterator[dict]:
    """Infobox rows asked as questions, read out of the passage that spells the infobox out."""
    for article in articles:
        for passage in chunk.passages(article):
            if passage.path != FACTS_PATH:
                continue
            for fact in article.facts:
                if all(value in passage.text for value in fact.values):
                    question = rng.choice(ASK).format(title=article.title, key=fact.label.lower())
                    text = " ".join(passage.text.split("\n"))
                    answer = ", ".join(fact.values)
                    yield {
                        "title": passage.heading,
                        "text": text,
                        "question": question,
                        "answer": answer,
                        "kind": "fact",
                    }


def assemble(rows: list[dict], rng: random.Random, distractors: int, unanswerable: float) -> Iterator[dict]:
    """Add distractors, shuffle, number, cite; take the evidence away from a share of ``unanswerable`` rows."""
    by_title = defaultdict(list)
    for i, row in enumerate(rows):
        by_title[row["title"]].append(i)
    for row in rows:
        near = [i for i in by_title[row["title"]] if row["answer"].lower() not in rows[i]["text"].lower()]
        picked = rng.sample(near, min(len(near), 1)) if rng.random() < 0.5 else []
        while len(picked) < distractors:
            i = rng.randrange(len(rows))
            if row["answer"].lower() not in rows[i]["text"].lower():
                picked.append(i)
        passages = [[rows[i]["title"], rows[i]["text"]] for i in picked[:distractors]]
        answer = DECLINE
        if rng.random() >= unanswerable:
            place = rng.randint(0, len(passages))
            passages.insert(place, [row["title"], row["text"]])
            answer = f"{row['answer'].rstrip('.')} [{place + 1}]."
        question = row["question"].lower() if rng.random() < 0.2 else row["question"]
        yield {"passages": passages, "turns": [["user", question]], "answer": answer, "kind": row["kind"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with witcher/, lore/ and qa/")
    parser.add_argument("--codex", type=Path, default=Path("corpus/codex"))
    parser.add_argument("--words", type=int, default=90, help="words of a passage at most")
    parser.add_argument("--distractors", type=int, default=2)
    parser.add_argument("--unanswerable", type=float, default=0.12)
    parser.add_argument("--out", type=Path, default=Path("runs/grounded.jsonl"))
    args = parser.parse_args()
    rng = random.Random(0)
    rows: list[dict] = []
    rows += article_rows((codex.parse_page(page) for page in codex.load(args.codex)), rng)
    rows += article_rows(map(wiki_article, read_zst(args.data / "witcher/wiki_characters.jsonl.zst")), rng)
    for name, limit, times in QUESTION_SETS:
        rows += times * list(question_rows(args.data / "qa", name, limit, args.words, rng))
    rng.shuffle(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", encoding="utf-8") as f:
        for row in assemble(rows, rng, args.distractors, args.unanswerable):
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{len(rows):,} rows")


if __name__ == "__main__":
    main()
