"""Which second stage?  Late interaction over stored token vectors against the cross-encoder, on the same candidates.

    python -m benchmarks.maxsim [--wiki FILE.jsonl.zst] [--limit N] [--out FILE.json]

Late interaction (ColBERT, Khattab & Zaharia 2020): every token of a passage keeps its vector, and a passage's score
is the sum over the question's tokens of the best cosine among the passage's (MaxSim).  The vectors are our encoder's,
which was trained for its mean and not for this.  To be fair to it, MaxSim is also tried with the question's tokens
weighted by their rarity in the archive, and its weight in the fusion is the best of a grid on these very questions,
while the cross-encoder keeps the weight that the search uses.

Both stages read the first 20 passages of the fused search.  Times are processor time a question: for MaxSim encoding
the question and comparing it with vectors that lie ready, for the cross-encoder reading all 20.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.retrieval import QUESTIONS, archive
from corpus import codex
from corpus.pairs import read_zst, wiki_article
from corpus.store import StoredPassage
from corpus.types import Article
from encoder import Encoder, Reranker
from retrieval import evaluate, fusion
from retrieval.index import VectorIndex
from retrieval.search import CANDIDATES, SECOND_WEIGHT, Searcher

GRID = (0.1, 0.3, 1.0, 2.0, 4.0)
METRICS = ("R@1", "R@5")


class MaxSim:
    """Token vectors of passages, kept as float16 as an archive would, and what a question makes of them."""

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.encoder = encoder
        self.stored: dict[int, torch.Tensor] = {}
        self.tokens = 0
        counts = Counter(token for e in encoder.tokenizer.encode_batch_fast(list(texts)) for token in set(e.ids))
        rarity = np.log((1 + len(texts)) / (1 + np.array([counts[i] for i in range(encoder.model.config.vocab_size)])))
        self.rarity = torch.from_numpy(rarity.astype(np.float32))

    @torch.inference_mode()
    def vectors(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids ``(T,)`` and unit vectors ``(T, d)`` float32, the leading ``<|bos|>`` left out."""
        ids = torch.tensor([self.encoder.tokenizer.encode(text).ids])
        hidden = self.encoder.model(ids, torch.ones_like(ids, dtype=torch.bool))[0]  # (T, d)
        return ids[0, 1:], F.normalize(hidden[1:].float(), dim=-1)

    def add(self, passage: StoredPassage) -> None:
        if passage.id not in self.stored:
            self.stored[passage.id] = self.vectors(f"{passage.heading}\n{passage.text}")[1].half()
            self.tokens += len(self.stored[passage.id])

    @torch.inference_mode()
    def score(self, question: str, ids: Sequence[int]) -> dict[str, np.ndarray]:
        """Scores of stored passages, ``(n,)`` each: plain, and with the question's tokens weighted by rarity."""
        tokens, asked = self.vectors(question)  # (Q,), (Q, d)
        passages = [self.stored[id].float() for id in ids]
        cosines = asked @ torch.cat(passages).T  # (Q, sum of T)
        best = torch.stack([part.amax(1) for part in cosines.split([len(p) for p in passages], 1)])  # (n, Q)
        return {"maxsim": best.sum(1).numpy(), "maxsim, by rarity": (best @ self.rarity[tokens]).numpy()}


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank of every candidate, from 1."""
    out = np.empty(len(scores))
    out[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return out


def measure(articles: Sequence[Article], file: Path, source: str, args: argparse.Namespace) -> dict[str, Any]:
    questions = evaluate.read_questions(file)
    questions = random.Random(0).sample(questions, min(args.limit, len(questions)))
    encoder, second = Encoder.load(args.encoder), Reranker.load(args.reranker)
    scores: dict[str, dict[str, np.ndarray]] = {}  # stage → question → a score a candidate
    took: dict[str, list[float]] = {"maxsim": [], "cross-encoder": []}
    candidates: dict[str, tuple[list[int], np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder, archive(articles, Path(folder), encoder, source) as store:
        index = VectorIndex.open(Path(folder) / "index", encoder)
        first = Searcher(store, index, encoder)
        reader = Searcher(store, index, encoder, second=second)
        judged = {question.id: evaluate.relevant(store, question) for question in questions}
        rows = store.rows("SELECT heading, text FROM passages")
        late = MaxSim(encoder, [f"{row['heading']}\n{row['text']}" for row in rows])
        for question in questions:
            hits = first.search(question.question, CANDIDATES)
            ids = [hit.passage.id for hit in hits]
            candidates[question.question] = ids, np.array([hit.score for hit in hits])
            for hit in hits:
                late.add(hit.passage)
            began = time.process_time()
            made = late.score(question.question, ids)
            took["maxsim"].append((time.process_time() - began) * 1000)
            began = time.process_time()
            made["cross-encoder"] = np.array([hit.second for hit in reader.read(question.question, hits)])
            took["cross-encoder"].append((time.process_time() - began) * 1000)
            for name, values in made.items():
                scores.setdefault(name, {})[question.question] = values

    def score(weights: dict[str, float], first: bool = True) -> dict[str, float]:
        """Recall of the candidates in the order of the first stage's scores and the ranks of these second stages."""

        def ranker(text: str) -> list[int]:
            ids, fused = candidates[text]
            total = fused * first
            for name, weight in weights.items():
                total = total + weight / (fusion.K + ranks(scores[name][text]))
            return [ids[i] for i in np.argsort(-total, kind="stable")]

        values = evaluate.evaluate(questions, judged, ranker)
        return {metric: float(np.mean(values[metric])) for metric in METRICS}

    own = {"cross-encoder": SECOND_WEIGHT}
    systems = {"no second stage": score({}), "cross-encoder alone": score(own, first=False)}
    systems[f"cross-encoder fused, weight {SECOND_WEIGHT:g}"] = score(own)
    for name in (name for name in scores if name not in own):
        systems[f"{name} alone"] = score({name: 1.0}, first=False)
        for label, beside in (("fused", {}), ("fused, cross-encoder too", own)):
            tried = {weight: score(beside | {name: weight}) for weight in GRID}
            best = max(tried, key=lambda weight: (tried[weight]["R@5"], tried[weight]["R@1"]))
            systems[f"{name} {label}, weight {best:g}"] = tried[best]
    ms = {name: {f"p{at}": float(np.percentile(times, at)) for at in (50, 95)} for name, times in took.items()}
    per_passage = late.tokens * encoder.dimension * 2 / len(late.stored)
    return {"questions": len(questions), "systems": systems, "ms": ms, "bytes_per_passage": per_passage}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wiki", type=Path, help="file of real wiki pages (title, facts, text)")
    parser.add_argument("--limit", type=int, default=300, help="questions of each set, drawn at random")
    parser.add_argument("--encoder", type=Path, default=Path("weights/encoder"))
    parser.add_argument("--reranker", type=Path, default=Path("weights/reranker"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    articles = [codex.parse_page(page) for page in codex.load(Path("corpus/codex"))]
    results = {"codex": measure(articles, Path("corpus/questions/dev.jsonl"), "codex", args)}
    if args.wiki:
        pages = [wiki_article(row) for row in read_zst(args.wiki)]
        results["wiki"] = measure(pages, QUESTIONS / "wiki-dev.jsonl", "wiki.example", args)
    for name, result in results.items():
        print(f"## {name}: {result['questions']} questions")
        for system, values in result["systems"].items():
            print(f"{system:52}" + "  ".join(f"{metric} {values[metric]:.3f}" for metric in METRICS))
        for stage, ms in result["ms"].items():
            print(f"{stage}: {ms['p50']:.0f} ms p50, {ms['p95']:.0f} ms p95 for {CANDIDATES} candidates")
        print(f"token vectors: {result['bytes_per_passage'] / 1000:.0f} kB a passage\n")
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
