"""Approximate nearest neighbours: what each FAISS index costs and what it misses, by number of passages.

    python -m benchmarks.ann --wiki FILE.jsonl.zst [--sizes N …] [--specs NAME …] [--out FILE.json]

An archive of a million passages does not exist here, so its vectors are drawn.  The codex and the wiki pages are
embedded as they are; every further vector is one of these moved by a random combination of the directions to its
nearest neighbours, as far as a passage lies from its nearest neighbour at the median (interpolation between neighbours
is SMOTE's idea, Chawla et al. 2002).  So they keep the clusters and the local dimensions of real passages.
Queries are the dev questions over both, as our encoder sees them.

For each index: seconds to build, bytes it takes, share of the exact first 10 and 50 that it finds, and milliseconds for
one query alone (median), for several widths of the search.  Times are processor time of the one thread that is used, so
other work on the machine changes them little.  ``retrieval.index`` takes its choice from here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np

from benchmarks.retrieval import QUESTIONS, codex_articles
from corpus import chunk
from corpus.pairs import read_zst, wiki_article
from encoder import Encoder
from retrieval.evaluate import read_questions
from retrieval.index import IVF, IVF_SAMPLE, cells_for

faiss: Any = _faiss  # its type stubs know half of it

SIZES = (10_000, 100_000, 1_000_000)
DEPTHS = (10, 50)
NEIGHBOURS = 16

# Name → FAISS factory string, {cells} being 2 √n, and the widths of search to try.
SPECS: dict[str, tuple[str, dict[str, int], Sequence[int]]] = {
    "flat": ("Flat", {}, (0,)),
    "hnsw32, efConstruction 40": ("HNSW32,Flat", {"efConstruction": 40}, (64, 128, 256)),
    "hnsw32, efConstruction 128": ("HNSW32,Flat", {"efConstruction": 128}, (64, 128, 256)),
    "ivf flat": ("IVF{cells},Flat", {}, (8, 32, 128)),
    "ivf fp16": (IVF, {}, (8, 32, 128)),
    "ivf sq8": ("IVF{cells},SQ8", {}, (8, 32, 128)),
    "ivf pq64": ("IVF{cells},PQ64", {}, (8, 32, 128)),
}


def passage_vectors(encoder: Encoder, wiki: Path | None) -> np.ndarray:
    """Vectors of the codex's passages and the wiki's, ``(n, d)``."""
    articles = codex_articles()
    articles += [wiki_article(row) for row in read_zst(wiki)] if wiki else []
    passages = [passage for article in articles for passage in chunk.passages(article)]
    return encoder.encode_passages([(passage.heading, passage.text) for passage in passages])


def question_vectors(encoder: Encoder, limit: int) -> np.ndarray:
    """Vectors of dev questions over the codex and the wiki, ``(limit, d)`` at most."""
    files = (Path("corpus/questions/dev.jsonl"), QUESTIONS / "wiki-dev.jsonl")
    texts = [question.question for file in files for question in read_questions(file)]
    picked = np.random.default_rng(0).permutation(len(texts))[:limit]
    return encoder.encode_queries([texts[i] for i in picked])


def more(base: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """``count`` unit vectors that lie as those of ``base`` do; the first ones are ``base`` itself, ``(count, d)``."""
    rng = np.random.default_rng(seed)
    search = faiss.IndexFlatIP(base.shape[1])
    search.add(base)
    cosines, near = search.search(base, NEIGHBOURS + 1)  # a vector's nearest is itself
    reach = float(np.median(np.sqrt(np.maximum(0, 2 - 2 * cosines[:, 1]))))
    out = np.empty((count, base.shape[1]), dtype=np.float32)
    out[: len(base)] = base[:count]
    for at in range(len(base), count, 20_000):
        rows = rng.integers(len(base), size=min(20_000, count - at))
        towards = base[near[rows, 1:]] - base[rows, None]  # (n, NEIGHBOURS, d)
        weights = rng.standard_normal((len(rows), NEIGHBOURS)).astype(np.float32)
        step = np.einsum("nk,nkd->nd", weights, towards)
        step *= reach / np.linalg.norm(step, axis=1, keepdims=True)
        out[at : at + len(rows)] = base[rows] + step
    faiss.normalize_L2(out)
    return out


def build(spec: str, options: dict[str, int], vectors: np.ndarray) -> Any:
    """A trained FAISS index that holds ``vectors`` ``(n, d)``, for the inner product.

    ``spec`` and ``options`` as in ``SPECS``.  Raises RuntimeError for a factory string that FAISS does not know.
    """
    index = faiss.index_factory(
        vectors.shape[1], spec.format(cells=cells_for(len(vectors))), faiss.METRIC_INNER_PRODUCT
    )
    if "efConstruction" in options:
        index.hnsw.efConstruction = options["efConstruction"]
    if not index.is_trained:
        index.cp.max_points_per_centroid = IVF_SAMPLE
        index.train(vectors)
    index.add(vectors)
    return index


def parameters(index: Any, width: int) -> Any:
    """How wide to search: ``efSearch`` of a graph, cells of an inverted file, None for a flat index (``width`` 0)."""
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=width)
    return faiss.SearchParametersIVF(nprobe=width) if width else None


def measure(index: Any, width: int, queries: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Recall against ``exact`` ``(queries, 50)`` and the time of one query alone."""
    how, found, took = parameters(index, width), [], []
    for query in queries:
        began = time.process_time()
        _, ids = index.search(query[None], max(DEPTHS), params=how)
        took.append((time.process_time() - began) * 1000)
        found.append(ids[0])
    recall = {
        f"recall@{k}": float(np.mean([len(set(a[:k]) & set(b[:k])) / k for a, b in zip(found, exact, strict=True)]))
        for k in DEPTHS
    }
    return recall | {"ms": float(np.median(took))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wiki", type=Path, help="file of real wiki pages, for more vectors than the codex has")
    parser.add_argument("--encoder", type=Path, default=Path("weights/encoder"))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--specs", nargs="+", choices=SPECS, default=list(SPECS))
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--out", type=Path, help="JSON; what another run left there is kept")
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    encoder = Encoder.load(args.encoder)
    base, queries = passage_vectors(encoder, args.wiki), question_vectors(encoder, args.queries)
    print(f"{len(base):,} passages, {len(queries)} questions, {base.shape[1]} numbers a vector")
    rows = json.loads(args.out.read_text(encoding="utf-8")) if args.out and args.out.exists() else []
    for size in args.sizes:
        vectors = more(base, size)
        flat = build("Flat", {}, vectors)
        exact = flat.search(queries, max(DEPTHS))[1]
        for name in args.specs:
            spec, options, widths = SPECS[name]
            began = time.process_time()
            index = build(spec, options, vectors)
            seconds = time.process_time() - began
            size_bytes = len(faiss.serialize_index(index))
            for width in widths:
                row = {"passages": size, "index": name, "width": width, "build_s": seconds, "bytes": size_bytes}
                rows.append(row | measure(index, width, queries, exact))
                r = rows[-1]
                print(
                    f"{size:>9,} {name:28} {width:>4} {r['recall@10']:.3f} {r['recall@50']:.3f} {r['ms']:8.2f} ms "
                    f"{seconds:8.1f} s to build {size_bytes / 1e6:8.0f} MB",
                    flush=True,
                )
            if args.out:
                args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
