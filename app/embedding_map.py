"""The map of the corpus: every passage's vector laid out on a plane, so that what is alike lies together.

Two ways to get from hundreds of dimensions to two.  *Principal components* take a fraction of a second and keep the
largest differences, but pile most passages up in the middle.  *Neighbour embedding* starts from there, pulls each
passage towards its nearest neighbours and pushes random pairs apart; this is UMAP's and LargeVis's scheme with t-SNE's
kernel (Tang et al. 2016, McInnes et al. 2018; Damrich et al., "From t-SNE to UMAP with contrastive learning", ICLR
2023).  It keeps neighbourhoods far better; the distance between two far-off islands means little.

The layout is a property of the index.  It is computed once per index version, in the background, and kept in the data
folder; until it is there, the principal components stand in for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import faiss as _faiss
import numpy as np

from corpus.store import Store
from retrieval.index import Manifest

faiss: Any = _faiss  # its type stubs know half of it

FORMAT = 1  # of the cached file; raise it when the layout changes, and old files are made again
SAMPLE = 8_000  # passages on the map at most; a browser stays quick with that many points
SAMPLE_ABOVE = 10_000
NEIGHBOURS = 15
EPOCHS = 150
CHUNKS = 8  # parts of an epoch: points move after each, which keeps a step small
REPELLED = 5  # random pairs that are pushed apart, for each pair that is pulled together
EXTENT = 10_000  # coordinates are whole numbers up to this: two bytes each on their way to the browser
PLACED_BY = 5  # passages on the map that say where a text that is not on it belongs


class Index(Protocol):
    """What this module needs of ``retrieval.index.VectorIndex``."""

    manifest: Manifest

    def ids(self) -> np.ndarray: ...
    def search(
        self, vectors: np.ndarray, k: int, allowed_ids: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Layout:
    """Where passages lie: ``xy[i]`` (int16, within ±``EXTENT``) is the place of passage ``ids[i]``; ids are sorted."""

    ids: np.ndarray  # (n,) int64
    xy: np.ndarray  # (n, 2) int16
    method: Literal["neighbours", "components"]
    total: int  # passages in the index, of which these may be a sample

    def of(self, passage: int) -> tuple[int, int] | None:
        """The place of a passage, None when it is not among the sample."""
        at = int(np.searchsorted(self.ids, passage))
        if at < len(self.ids) and self.ids[at] == passage:
            return int(self.xy[at, 0]), int(self.xy[at, 1])
        return None

    def place(self, vector: np.ndarray, index: Index) -> tuple[int, int] | None:
        """A place for a vector (d,) that is not on the map: the middle of the passages on it that are nearest,
        each weighed by its cosine.  None on an empty map."""
        cosines, ids = index.search(vector, PLACED_BY, self.ids)
        places = [(max(float(c), 1e-3), self.of(int(id))) for c, id in zip(cosines[0], ids[0], strict=True) if id >= 0]
        known = [(weight, place) for weight, place in places if place is not None]
        if not known:
            return None
        middle = np.average([place for _, place in known], axis=0, weights=[weight for weight, _ in known])
        return int(middle[0]), int(middle[1])


class Maps:
    """The layouts of one data folder.  Safe to share between threads; nobody ever waits for the slow one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._held: dict[str, Layout] = {}  # of the newest index version alone
        self._working: dict[str, threading.Thread] = {}

    def layout(self, store: Store, index: Index, model: str) -> Layout:
        """The best layout there is for ``index``.  Without a finished one the principal components come back and
        the neighbour embedding is begun in the background.  Raises ``StoreError`` for a damaged archive."""
        version = index.manifest.sha256[:16]
        with self._lock:
            held = self._held.get(version)
        if held is not None:
            return held
        found = self._read(version, index)
        if found is None:
            ids, vectors = sample(store, index, model)
            found = Layout(ids, _whole(components(vectors)), "components", index.manifest.count)
            self._begin(version, ids, vectors, index.manifest.count)
        with self._lock:
            newer = self._held.get(version, found)  # the background may have been quicker than we were
            self._held = {version: newer if newer.method == "neighbours" else found}
            return self._held[version]

    def wait(self, seconds: float = 60.0) -> None:
        """Wait for what is being computed; for tests and for whoever has the time."""
        for thread in list(self._working.values()):
            thread.join(seconds)

    def _begin(self, version: str, ids: np.ndarray, vectors: np.ndarray, total: int) -> None:
        def work() -> None:
            done = Layout(ids, _whole(neighbour_embedding(vectors)), "neighbours", total)
            with self._lock:
                self._held = {version: done}
            self._write(version, done)
            self._working.pop(version, None)

        with self._lock:
            if version in self._working:
                return
            self._working[version] = threading.Thread(target=work, name="embedding-map", daemon=True)
            self._working[version].start()

    def _path(self, version: str) -> Path:
        return self.folder / f"map-{FORMAT}-{version}.npz"

    def _read(self, version: str, index: Index) -> Layout | None:
        try:
            with np.load(self._path(version), allow_pickle=False) as held:
                ids, xy = held["ids"], held["xy"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # missing or damaged: it is made again
        if ids.ndim != 1 or ids.dtype != np.int64 or xy.shape != (len(ids), 2) or xy.dtype != np.int16:
            return None
        return Layout(ids, xy, "neighbours", index.manifest.count)

    def _write(self, version: str, layout: Layout) -> None:
        """Keep a layout and drop those of earlier versions.  A disk that refuses only costs the time next start."""
        path = self._path(version)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                np.savez(file, ids=layout.ids, xy=layout.xy)
            os.replace(draft, path)
            for old in self.folder.glob("map-*.npz"):
                if old != path:
                    old.unlink(missing_ok=True)


def sample(store: Store, index: Index, model: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n,), sorted, and float32 vectors (n, d) of the passages that the map shows: all of the index, or an even
    and repeatable sample of a large one."""
    ids = index.ids()
    if len(ids) > SAMPLE_ABOVE:
        ids = np.sort(np.random.default_rng(1272).choice(ids, SAMPLE, replace=False))
    kept, rows = [np.zeros(0, np.int64)], []
    for batch, vectors in store.iter_vectors(model):  # from the archive, which also serves an index without originals
        keep = np.isin(batch, ids, assume_unique=True)
        kept.append(batch[keep])
        rows.append(vectors[keep].astype(np.float32))
    return np.concatenate(kept), np.concatenate(rows) if rows else np.zeros((0, index.manifest.dimension), np.float32)


def components(vectors: np.ndarray) -> np.ndarray:
    """First two principal components, (n, d) → (n, 2) float32.  Signs are fixed, so a map never flips."""
    if len(vectors) < 3:
        return np.zeros((len(vectors), 2), np.float32)
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    axes = axes[:, :-3:-1]  # (d, 2)
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return (centred @ axes).astype(np.float32)


def neighbour_embedding(vectors: np.ndarray, epochs: int = EPOCHS, seed: int = 1272) -> np.ndarray:
    """Lay unit vectors out so that neighbours stay neighbours, (n, d) → (n, 2) float32; the same every time.

    Gradient descent on  Σ over neighbours −log q_ij − Σ over random pairs log(1 − q_ij),  q = 1 / (1 + distance²).
    """
    n = len(vectors)
    start = components(vectors)
    if n <= NEIGHBOURS + 1:
        return start
    graph = faiss.IndexFlatIP(vectors.shape[1])
    graph.add(np.ascontiguousarray(vectors, dtype=np.float32))
    _, nearest = graph.search(np.ascontiguousarray(vectors, dtype=np.float32), NEIGHBOURS + 1)  # itself included
    left = np.repeat(np.arange(n), NEIGHBOURS + 1)
    right = nearest.ravel()
    pairs = np.stack([left, right])[:, (left != right) & (right >= 0)]  # (2, e)
    rng = np.random.default_rng(seed)
    y = start / (start.std() or 1.0) + rng.normal(0, 1e-3, start.shape)  # copies of a passage must be able to part
    for epoch in range(epochs):
        step = 0.5 * (1 - epoch / epochs)
        for part in np.array_split(rng.permutation(pairs.shape[1]), CHUNKS):
            a, b = pairs[:, part]
            move = np.zeros_like(y)
            _push(move, a, b, y, attract=True)
            far_a = np.repeat(a, REPELLED)
            _push(move, far_a, rng.integers(0, n, len(far_a)), y, attract=False)
            y += step * move
    return y.astype(np.float32)


def _push(move: np.ndarray, a: np.ndarray, b: np.ndarray, y: np.ndarray, attract: bool) -> None:
    """Add to ``move`` (n, 2) what pairs (a, b) do to both of their ends."""
    gap = y[a] - y[b]  # (e, 2)
    square = (gap**2).sum(axis=1, keepdims=True)
    pull = -1.0 / (1.0 + square) if attract else 1.0 / ((0.05 + square) * (1.0 + square))
    force = np.clip(pull * gap, -1.0, 1.0)
    for axis in (0, 1):  # bincount adds up repeated rows, and is many times quicker than np.add.at
        move[:, axis] += np.bincount(a, force[:, axis], len(y)) - np.bincount(b, force[:, axis], len(y))


def _whole(y: np.ndarray) -> np.ndarray:
    """Coordinates centred and scaled to whole numbers within ±EXTENT, (n, 2) int16."""
    if not len(y):
        return np.zeros((0, 2), np.int16)
    y = y - np.median(y, axis=0)
    return np.round(y * (EXTENT / (np.abs(y).max() or 1.0))).astype(np.int16)


def facts(store: Store, ids: Sequence[int]) -> list[tuple[str, str, str]]:
    """(heading, kind, canon) of each passage, in this order; ("", "", "") for one that is gone."""
    known: dict[int, tuple[str, str, str]] = {}
    pages = {row["id"]: row["kind"] for row in store.rows("SELECT id, kind FROM pages")}
    wanted = [int(id) for id in ids]
    for at in range(0, len(wanted), 1_000):
        part = wanted[at : at + 1_000]
        marks = ",".join("?" * len(part))
        for row in store.rows(f"SELECT id, page, heading, canon FROM passages WHERE id IN ({marks})", part):
            known[row["id"]] = (row["heading"], pages.get(row["page"], ""), row["canon"])
    return [known.get(id, ("", "", "")) for id in wanted]
