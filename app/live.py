"""Letting a running chat answer from an index that was built after it started.

Models stay as they are.  What depends on the index (the searcher, the names, the vocabulary, the lists over articles)
is opened afresh and put in place of the old in one step.  A question that is being answered at that moment goes on with
what it holds; the old index is freed when the last one has let go of it.  The archive needs no reopening: it is the
same SQLite file, and its readers see what was written.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from app.known import Known
from app.question import Vocabulary
from app.roster import Roster
from retrieval.index import Manifest, VectorIndex
from retrieval.search import Searcher

if TYPE_CHECKING:
    from app.pipeline import Pipeline

_reloading = threading.Lock()


def version(pipeline: Pipeline) -> str:
    """When the index that a pipeline answers from was built, and the beginning of its hash; "" when it has none."""
    index = getattr(pipeline.searcher, "index", None)
    return _named(index.manifest) if index is not None else ""


def _named(manifest: Manifest) -> str:
    return f"{manifest.created} {manifest.sha256[:12]}"


def is_stale(pipeline: Pipeline) -> bool:
    """Whether the data folder holds another index than the one in use.  Raises as ``Manifest.read``."""
    return _named(Manifest.read(pipeline.settings.index)) != version(pipeline)


def reload(pipeline: Pipeline, force: bool = False) -> bool:
    """Answer from the newest index from now on; whether anything was reopened.

    Without ``force`` only when there is a newer index: an ingest that changed no passage may still have brought
    redirects, which are names to search by.
    Safe to call from any thread while questions are being answered.  Raises ``IndexMissing``, ``IndexMismatch``,
    ``IndexDamaged`` or ``StoreError``, and then everything stays as it was.
    """
    with _reloading:
        if not force and not is_stale(pipeline):
            return False
        old = pipeline.searcher
        assert isinstance(old, Searcher)
        index = VectorIndex.open(pipeline.settings.index, old.encoder)
        searcher = Searcher(pipeline.store, index, old.encoder, depth=old.depth, weights=old.weights, second=old.second)
        # One call, so that nobody who copies the pipeline's attributes sees the new searcher with the old vocabulary.
        store = pipeline.store
        pipeline.__dict__.update(
            searcher=searcher,
            vocabulary=Vocabulary.of(store),
            known=Known(store, searcher.names),
            roster=Roster(store),
        )
        return True
