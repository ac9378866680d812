"""The dense index: passage vectors in a FAISS file, with a manifest that says what they are.

Below ``IVF_FROM`` vectors the index is flat: searched exactly, in about 6 ms for 100,000 vectors of 256 numbers.
Beyond, it is an inverted file (Sivic & Zisserman 2003; Jégou, Douze & Schmid 2011): k-means cells, of which a query
looks into the nearest ones, and vectors in float16, as the archive has them.  ``benchmarks.ann`` measured it against a
graph (HNSW): as good at a slightly longer search, built in a fraction of the time, and able to forget a vector, so that
both kinds follow the archive without being built anew.

The folder holds ``manifest.json`` and the one file that it names.  A new index is written beside the old one under a
name of its own; replacing the manifest is the single step that makes it the index.  Whoever opens the folder
therefore sees the old one or the new one, whole, wherever a crash falls.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import faiss as _faiss
import numpy as np

from corpus.store import Store
from retrieval.errors import REMEDY, IndexDamaged, IndexMismatch, IndexMissing, IndexUnwritable, RetrievalError

faiss: Any = _faiss  # its type stubs know half of it

FORMAT = 1
MANIFEST = "manifest.json"
METRIC = "inner_product"  # of unit vectors, so it is the cosine
IVF_FROM = 200_000
IVF = "IVF{cells},SQfp16"  # FAISS's name for it; cells as in ``cells_for``
IVF_SAMPLE = 64  # vectors a cell that k-means is given
PROBES = 128  # cells that a query looks into: 99 % of the exact first 50 among a million vectors
BATCH_SIZE = 256
WINDOW = 16  # batches that are sorted by length together

Progress = Callable[[int, int], None]
"""Called with (passages embedded so far, passages to embed)."""


class PassageEncoder(Protocol):
    """What this module needs of ``encoder.Encoder``."""

    @property
    def dimension(self) -> int: ...
    @property
    def model_hash(self) -> str: ...
    def encode_passages(self, passages: Sequence[tuple[str, str]]) -> np.ndarray: ...  # (n, dimension), unit length


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a build changed, against the index that was there before; all of it when that could not be used."""

    added: int
    removed: int
    total: int
    seconds: float
    embedded: int = 0  # passages that went through the encoder


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the FAISS file beside it holds."""

    format: int
    file: str
    kind: str  # "flat" or "ivf"
    model_hash: str
    dimension: int
    metric: str
    count: int
    bytes: int
    sha256: str
    created: str  # ISO 8601, UTC

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises ``IndexMissing`` without a manifest, ``IndexDamaged`` for one that makes no sense."""
        try:
            row = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise IndexMissing(f"There is no index in {folder}: {REMEDY.replace('rebuild', 'build')}.") from None
        except OSError as error:
            raise IndexDamaged(f"Cannot read the index in {folder} ({error.strerror}): {REMEDY}.") from error
        except ValueError as error:
            raise IndexDamaged(f"The index manifest in {folder} is not JSON: {REMEDY}.") from error
        if isinstance(row, dict) and row.get("format", FORMAT) != FORMAT:
            raise IndexMismatch(f"The index in {folder} was written by another version of Cirilla: {REMEDY}.")
        kinds = {field.name: int if field.type == "int" else str for field in fields(cls)}
        if (
            not isinstance(row, dict)
            or any(type(row.get(name)) is not kind for name, kind in kinds.items())
            or Path(row["file"]).name != row["file"]
        ):
            raise IndexDamaged(f"The index manifest in {folder} is incomplete: {REMEDY}.")
        return cls(**{name: row[name] for name in kinds})


def build(
    store: Store,
    encoder: PassageEncoder,
    folder: str | Path,
    progress: Progress | None = None,
    batch_size: int = BATCH_SIZE,
) -> IndexReport:
    """Bring the index in ``folder`` in line with the passages of ``store``.

    Passages without a vector of this encoder are embedded, ``batch_size`` at a time, each batch committed, so a kill
    costs one batch at most.  An index of the same encoder is then updated in place of being rebuilt; either way it
    holds exactly the vectors of the store.  Nothing that is in use changes before the new index is complete.
    Raises ``IndexUnwritable`` when the disk refuses and ``StoreError`` when the archive does.
    """
    began = time.perf_counter()
    folder = Path(folder)
    embedded = _embed_missing(store, encoder, batch_size, progress)
    wanted = _ids(store, encoder.model_hash)
    old, held = _usable(folder, encoder)
    gone, new = np.setdiff1d(held, wanted), np.setdiff1d(wanted, held)
    if old is None or len(gone) or len(new):
        kind = "ivf" if len(wanted) >= IVF_FROM else "flat"
        if old is not None and _kind(old) == kind and _fits(old, len(wanted)):
            index, missing = old, new
            if len(gone):
                index.remove_ids(faiss.IDSelectorBatch(gone))
        else:
            index, missing = _empty(store, encoder, kind, wanted), wanted
        for ids, vectors in _vectors(store, encoder, missing):
            index.add_with_ids(vectors, ids)
        _swap_in(index, kind, encoder, folder)
    store.drop_stale_vectors(encoder.model_hash)  # only now: until the swap they were what a rebuild would need
    return IndexReport(len(new), len(gone), len(wanted), time.perf_counter() - began, embedded)


class VectorIndex:
    """An index in memory.  Searching is safe from several threads; it does not notice a later build."""

    def __init__(self, index: Any, manifest: Manifest) -> None:
        self._index, self.manifest = index, manifest

    def __len__(self) -> int:
        return self.manifest.count

    @classmethod
    def open(cls, folder: str | Path, encoder: PassageEncoder) -> VectorIndex:
        """Load and check the index of ``encoder``.

        Raises ``IndexMissing``, ``IndexMismatch`` (other weights, other dimension, other format) or ``IndexDamaged``
        (truncated, altered, unreadable), each naming the remedy.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        try:
            index = _load(folder, manifest)
        except IndexDamaged:
            # A build may have swapped its index in between our two reads; then the manifest has changed.
            manifest, before = Manifest.read(folder), manifest
            if manifest == before:
                raise
            index = _load(folder, manifest)
        if (manifest.model_hash, manifest.dimension) != (encoder.model_hash, encoder.dimension):
            raise IndexMismatch(f"The index in {folder} was made with other encoder weights: {REMEDY}.")
        return cls(index, manifest)

    def ids(self) -> np.ndarray:
        """Ids of the passages in the index, int64, sorted."""
        return np.sort(_ids_in(self._index))

    def search(
        self, vectors: np.ndarray, k: int, allowed_ids: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nearest passages of each query: cosines (n, k) float32 and ids (n, k) int64, best first.

        Only ``allowed_ids`` are returned when given.  Where there are fewer than ``k``, rows end in -inf and -1.
        Equal cosines are ordered by id.
        """
        queries = np.ascontiguousarray(np.atleast_2d(vectors), dtype=np.float32)  # (n, d)
        k = max(0, min(k, len(self) if allowed_ids is None else len(allowed_ids)))
        if not k:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        selector = None if allowed_ids is None else faiss.IDSelectorBatch(np.asarray(allowed_ids, dtype=np.int64))
        if _kind(self._index) == "ivf":
            # A filter thins the cells out, so more of them are looked into.
            probes = PROBES * (1 if allowed_ids is None else len(self) / len(allowed_ids))
            parameters = faiss.SearchParametersIVF(nprobe=min(self._index.nlist, round(probes)), sel=selector)
        else:
            parameters = faiss.SearchParameters(sel=selector)
        scores, ids = self._index.search(queries, k, params=parameters)
        scores[ids < 0] = -np.inf
        order = np.lexsort((ids, -scores))  # by cosine, then by id
        return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)


# -- building ------------------------------------------------------------------------------------------------------


def _embed_missing(store: Store, encoder: PassageEncoder, batch_size: int, progress: Progress | None) -> int:
    model = encoder.model_hash
    total = store.rows(
        """SELECT count(*) AS n FROM passages WHERE NOT EXISTS
           (SELECT 1 FROM vectors WHERE passage = passages.id AND model = ?)""",
        [model],
    )[0]["n"]
    done = 0
    for window in _windows(store.passages_without_vector(model), batch_size * WINDOW):
        window.sort(key=lambda row: len(row[2]))  # alike lengths share a batch, so little is spent on padding
        for at in range(0, len(window), batch_size):
            batch = window[at : at + batch_size]
            vectors = encoder.encode_passages([(heading, text) for _, heading, text in batch])  # (n, d)
            store.add_vectors(model, [id for id, _, _ in batch], vectors)
            done += len(batch)
            if progress:
                progress(done, total)
    return done


def _windows(rows: Iterator[tuple[int, str, str]], size: int) -> Iterator[list[tuple[int, str, str]]]:
    window: list[tuple[int, str, str]] = []
    for row in rows:
        window.append(row)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _ids(store: Store, model: str) -> np.ndarray:
    rows = store.rows("SELECT passage FROM vectors WHERE model = ? ORDER BY passage", [model])
    return np.array([row["passage"] for row in rows], dtype=np.int64)


def _vectors(store: Store, encoder: PassageEncoder, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of (ids, float32 unit vectors) of the ``wanted`` (sorted) ids; the store keeps them as float16."""
    if not len(wanted):
        return
    for ids, halves in store.iter_vectors(encoder.model_hash):
        if halves.shape[1] != encoder.dimension:
            raise IndexMismatch(
                f"The archive {store.path} holds vectors of {halves.shape[1]} dimensions for an encoder of "
                f"{encoder.dimension}: delete it and run `python app.py --ingest` again."
            )
        keep = np.isin(ids, wanted, assume_unique=True)
        vectors = np.ascontiguousarray(halves[keep], dtype=np.float32)
        faiss.normalize_L2(vectors)  # rounding to float16 cost up to a thousandth of the length
        yield ids[keep], vectors


def _usable(folder: Path, encoder: PassageEncoder) -> tuple[Any, np.ndarray]:
    """The FAISS index to update and its ids, or None and no ids when there is none that fits."""
    try:
        index = VectorIndex.open(folder, encoder)._index
    except RetrievalError:
        return None, np.zeros(0, dtype=np.int64)
    return index, _ids_in(index)


def _swap_in(index: Any, kind: str, encoder: PassageEncoder, folder: Path) -> None:
    """Write the index under a name of its own, then replace the manifest, then remove what nothing names."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / "vectors.tmp"
        faiss.write_index(index, str(draft))
        _sync(draft)
        digest = _sha256(draft)
        manifest = Manifest(
            format=FORMAT,
            file=f"vectors-{digest[:16]}.faiss",
            kind=kind,
            model_hash=encoder.model_hash,
            dimension=encoder.dimension,
            metric=METRIC,
            count=index.ntotal,
            bytes=draft.stat().st_size,
            sha256=digest,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        os.replace(draft, folder / manifest.file)
        note = folder / f"{MANIFEST}.tmp"
        note.write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
        _sync(note)
        _sync(folder)  # the index file's name must be on disk before the manifest that speaks of it
        os.replace(note, folder / MANIFEST)
        _sync(folder)
    except (OSError, RuntimeError) as error:  # FAISS reports a full disk as a RuntimeError
        (folder / "vectors.tmp").unlink(missing_ok=True)
        reason = (isinstance(error, OSError) and error.strerror) or "disk full or not writable"
        raise IndexUnwritable(
            f"Cannot write the index to {folder} ({reason}): the one before is kept; free some space and run again."
        ) from error
    for path in folder.glob("vectors*"):
        if path.name != manifest.file:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- FAISS ---------------------------------------------------------------------------------------------------------


def cells_for(count: int) -> int:
    """Cells of an inverted file of ``count`` vectors: 2 √count."""
    return round(2 * count**0.5)


def _empty(store: Store, encoder: PassageEncoder, kind: str, wanted: np.ndarray) -> Any:
    """The one place that makes an index.  Ids are the passages' own, 63 bits."""
    if kind == "flat":
        return faiss.IndexIDMap2(faiss.IndexFlatIP(encoder.dimension))
    cells = cells_for(len(wanted))
    index = faiss.index_factory(encoder.dimension, IVF.format(cells=cells), faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # otherwise it prints a warning about a small archive
    sample = np.random.default_rng(0).permutation(wanted)[: IVF_SAMPLE * cells]
    index.train(np.concatenate([vectors for _, vectors in _vectors(store, encoder, np.sort(sample))]))
    return index


def _fits(index: Any, count: int) -> bool:
    """Whether ``count`` vectors are still about as many as the cells were made for."""
    return _kind(index) == "flat" or index.nlist / 2 <= cells_for(count) <= index.nlist * 2


def _kind(index: Any) -> str:
    return "ivf" if isinstance(index, faiss.IndexIVF) else "flat"


def _ids_in(index: Any) -> np.ndarray:
    if _kind(index) == "flat":
        return faiss.vector_to_array(index.id_map).astype(np.int64)
    lists = index.invlists
    cells = [cell for cell in range(index.nlist) if lists.list_size(cell)]
    parts = [faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell)).astype(np.int64) for cell in cells]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _load(folder: Path, manifest: Manifest) -> Any:
    """The FAISS index that ``manifest`` describes.  Raises ``IndexDamaged`` when the file is anything else."""
    path = folder / manifest.file
    try:
        if path.stat().st_size != manifest.bytes or _sha256(path) != manifest.sha256:
            raise IndexDamaged(f"The index file {path} is truncated or altered: {REMEDY}.")
        index = faiss.read_index(str(path))
    except FileNotFoundError:
        raise IndexDamaged(f"The index file {path} is missing: {REMEDY}.") from None
    except (OSError, RuntimeError) as error:
        raise IndexDamaged(f"The index file {path} cannot be read: {REMEDY}.") from error
    if (
        not isinstance(index, faiss.IndexIDMap2 | faiss.IndexIVF)
        or (index.ntotal, index.d) != (manifest.count, manifest.dimension)
        or (_kind(index), manifest.metric) != (manifest.kind, METRIC)
    ):
        raise IndexDamaged(f"The index file {path} does not hold what its manifest says: {REMEDY}.")
    return index


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
