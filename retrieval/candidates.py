"""What the second stage learns from: questions with the passages that the first stage brings, sentence by sentence.

    python -m retrieval.candidates --questions corpus/questions/train.jsonl --out runs/ranking/train.jsonl
    python -m retrieval.candidates --wiki FILE --questions corpus/questions/wiki-train.jsonl \\
           --out runs/ranking/wiki.jsonl
    python -m retrieval.candidates --sets DIR --out runs/ranking/sets.jsonl

A line is ``{"id", "query", "kind", "passages": [{"heading", "text", "spans": [[start, end], …], "labels": […]}, …]}``:
passages in the first stage's order, their sentences, and for each sentence 1 where it is the evidence, 0 where it is
not, -1 where it holds an answer without being the evidence: that may be chance or a second place that says the same, so
nobody is told that it is wrong.  Questions to be declined have no 1 at all.

``--wiki`` names a file of wiki pages that the questions are about (``{"title", "facts", "text"}``); their evidence is
given as offsets of a page's text or as the key of a fact, so that no third party's sentence stands in the questions.

``--sets`` makes the same out of public question sets, whose questions come with one passage; the others of a group are
passages of the same title, which is what makes them hard.  With ``--wide`` it takes all that those sets have, questions
without an answer too, with one other passage each and four sentences of every passage: as many questions as possible
for the time, to begin with before the questions that count (as TANDA does, Garg et al. 2020).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from corpus import chunk, infobox
from corpus.pairs import read_zst, wiki_article
from corpus.store import Store, StoredPassage
from corpus.types import Article, Page
from encoder import Encoder
from retrieval.index import PassageEncoder, VectorIndex, build
from retrieval.search import Searcher
from retrieval.words import plain

DEPTH = 12  # passages of the first stage in a group
SETS = [
    ("qed_nq.train", 7_000),
    ("qed_nq.dev", 2_000),
    ("nq_open_oracle.dev", 2_000),
    ("squad1.train", 24_000),
    ("quoref.train", 3_000),
    ("duorc.train", 4_000),
    ("fairytaleqa.train", 5_000),
]

WIDE = [
    "qed_nq.train",
    "qed_nq.dev",
    "nq_open_oracle.dev",
    "squad1.train",
    "squad2.dev",
    "adversarialqa.train",
    "quoref.train",
    "duorc.train",
    "hotpotqa.train",
    "narrativeqa_summaries.dev",
    "narrativeqa_summaries.test",
    "fairytaleqa.train",
    "fairytaleqa.dev",
    "fairytaleqa.test",
]
WIDE_SENTENCES = 4

Group = dict[str, Any]


def holds(text: str, aliases: Sequence[str]) -> bool:
    """Whether one of the aliases stands in the text; ``a + b`` needs both."""
    return any(all(plain(part) in text for part in alias.split(" + ")) for alias in aliases)


def questions(path: Path) -> Iterator[dict[str, Any]]:
    """Every row with its stand-alone question (``query``), aliases and evidence, turns of conversations included."""
    for line in path.open(encoding="utf-8"):
        row = json.loads(line)
        for number, turn in enumerate(row.get("turns") or [row]):
            yield {
                "id": f"{row['id']}-{number}" if "turns" in row else row["id"],
                "query": turn.get("rewrite") or turn["question"],
                "answers": turn.get("answers", []),
                # A false premise is corrected by its evidence: that is the sentence to be found.
                "evidence": turn.get("evidence", []),
                "article": row.get("article", ""),
                "kind": "decline" if row.get("decline") else row.get("type", ""),
            }


def label(passage: StoredPassage, row: dict[str, Any]) -> tuple[list[tuple[int, int]], list[int]]:
    """Sentences of a passage and what they are to the question."""
    spans = chunk.sentences(passage.text)
    labels = []
    for a, b in spans:
        gold = any(_is_evidence(e, passage, a, b) for e in row["evidence"])
        labels.append(1 if gold else -1 if holds(plain(passage.text[a:b]), row["answers"]) else 0)
    return spans, labels


def _is_evidence(e: dict[str, Any], passage: StoredPassage, a: int, b: int) -> bool:
    """Whether ``passage.text[a:b]`` is, or overlaps, an annotated piece of evidence."""
    if e["article"] != passage.title:
        return False
    if "section" in e:
        return e["section"] == passage.section and e["start"] < passage.start + b and passage.start + a < e["end"]
    said = plain(passage.text[a:b])
    return len(said) > 3 and (said in plain(e["text"]) or plain(e["text"]) in said)


def on_wiki(rows: Iterator[dict[str, Any]], pages: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows with their evidence as text: a stretch of the page, or the line that a fact becomes in the archive."""
    for row in rows:
        evidence = []
        for e in row["evidence"]:
            page = pages[row["article"]]
            if "fact" in e:
                fact = next(fact for fact in wiki_article(page).facts if fact.key == e["fact"])
                text = infobox.fact_line(row["article"], fact)
            else:
                text = page["text"][e["start"] : e["end"]]
            evidence.append({"article": row["article"], "text": text})
        yield row | {"evidence": evidence}


def archive(articles: Sequence[Article], folder: Path, encoder: PassageEncoder, source: str) -> Store:
    """An archive of these articles in ``folder``, and its index in ``folder / "index"``.

    Page numbers are the articles' places, from 1, so that the same articles get the same ids.  Raises ``StoreError``
    and ``IndexUnwritable`` when the disk refuses.
    """
    store = Store(folder / "archive.sqlite")
    for number, article in enumerate(articles, 1):
        page = Page(source, number, article.title, 1, f"https://{source}/?curid={number}", "<p/>", article.title)
        store.replace_page(page, article, chunk.passages(article))
    build(store, encoder, folder / "index")
    return store


def group(row: dict[str, Any], store: Store, searcher: Searcher) -> Group:
    """A question with what the first stage brings, and its evidence's passages wherever they ranked."""
    passages = [hit.passage for hit in searcher.search(row["query"], DEPTH)]
    have = {passage.id for passage in passages}
    for e in row["evidence"]:
        if "section" in e:
            where = 'section = ? AND start < ? AND "end" > ?', [e["section"], e["end"], e["start"]]
        else:
            where = "instr(p.text, ?) > 0", [e["text"].strip()]
        sql = f"SELECT p.id FROM passages p JOIN pages ON pages.id = p.page WHERE pages.title = ? AND {where[0]}"
        found = store.rows(sql, [e["article"], *where[1]])
        new = [r["id"] for r in found if r["id"] not in have]
        have.update(new)
        passages += store.passages(new)
    rows = []
    for passage in passages:
        spans, labels = label(passage, row)
        rows.append({"heading": passage.heading, "text": passage.text, "spans": spans, "labels": labels})
    return {"id": row["id"], "query": row["query"], "kind": row["kind"], "passages": rows}


def set_groups(
    folder: Path, name: str, limit: int | None, rng: random.Random, others: int = 3, sentences: int | None = None
) -> Iterator[Group]:
    """Groups from a public question set.

    Args:
        limit: questions at most.
        others: passages beside the question's own.
        sentences: of each passage at most, its evidence among them; with it, questions without an answer count too.
    """
    rows = [r for r in read_zst(folder / f"{name}.jsonl.zst") if r.get("context")]
    if sentences is None:
        rows = [r for r in rows if r.get("answerable", True)]
    by_title: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        texts = by_title[row.get("title") or ""]
        if row["context"] not in texts[-40:]:
            texts.append(row["context"])
    everything = [row["context"] for row in rows]
    for row in rng.sample(rows, min(limit or len(rows), len(rows))):
        answers = [answer.strip() for answer in row["answers"]] if row.get("answerable", True) else []
        texts = [text for text in by_title[row.get("title") or ""] if text != row["context"]]
        picked = rng.sample(texts, min(len(texts), others)) if row.get("title") else []
        picked += rng.sample(everything, others - len(picked))
        passages = []
        for text in (row["context"], *picked):
            spans = chunk.sentences(text)
            is_gold = text == row["context"]
            hits = [holds(plain(text[a:b]), answers[:1]) for a, b in spans]
            if is_gold and answers and sum(hits) != 1:
                break  # it is not known which sentence answers
            if sentences and len(spans) > sentences:
                first = rng.randrange(len(spans) - sentences + 1)
                if is_gold and answers:
                    at = hits.index(True)
                    first = rng.randint(max(0, at - sentences + 1), min(at, len(spans) - sentences))
                spans, hits = spans[first : first + sentences], hits[first : first + sentences]
                start, end = spans[0][0], spans[-1][1]
                text, spans = text[start:end], [(a - start, b - start) for a, b in spans]
            labels = [int(hit) if is_gold else -int(hit) for hit in hits]
            passages.append({"heading": row.get("title") or "", "text": text, "spans": spans, "labels": labels})
        else:
            rng.shuffle(passages)
            yield {"id": f"{name}-{row.get('id', '')}", "query": row["question"], "kind": name, "passages": passages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, nargs="+", help="files of corpus/questions")
    parser.add_argument(
        "--wiki", type=Path, help="file of wiki pages that the questions are about (default: the codex)"
    )
    parser.add_argument("--sets", type=Path, help="folder of public question sets (instead of --questions)")
    parser.add_argument("--wide", action="store_true", help="more questions of the sets, shorter passages")
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder with an index of the codex")
    parser.add_argument("--encoder", type=Path, default=Path("weights/encoder"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if not (args.questions or args.sets):
        parser.error("--questions or --sets says what the groups are made of")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with args.out.open("w", encoding="utf-8") as f:
        for made in _groups(args):
            f.write(json.dumps(made, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count:,} groups in {args.out}")


def _groups(args: argparse.Namespace) -> Iterator[Group]:
    if args.sets:
        rng = random.Random(0)
        if args.wide:
            for name in WIDE:
                yield from set_groups(args.sets, name, None, rng, 1, WIDE_SENTENCES)
            return
        for name, limit in SETS:
            yield from set_groups(args.sets, name, limit, rng)
        return
    encoder = Encoder.load(args.encoder)
    asked = (row for path in args.questions for row in questions(path))
    if args.wiki:
        pages = {page["title"]: page for page in read_zst(args.wiki)}
        with tempfile.TemporaryDirectory() as folder:
            store = archive([wiki_article(page) for page in pages.values()], Path(folder), encoder, "wiki.example")
            searcher = Searcher(store, VectorIndex.open(Path(folder) / "index", encoder), encoder)
            for row in on_wiki(asked, pages):
                yield group(row, store, searcher)
        return
    store = Store(args.data / "archive.sqlite")
    searcher = Searcher(store, VectorIndex.open(args.data / "index", encoder), encoder)
    for row in asked:
        yield group(row, store, searcher)


if __name__ == "__main__":
    main()
