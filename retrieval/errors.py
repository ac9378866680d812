"""What can go wrong with an index, each said in one line that names the remedy."""

from __future__ import annotations

from corpus.errors import CirillaError

REMEDY = "run `python app.py --ingest` to rebuild it"


class RetrievalError(CirillaError):
    """Base of the errors of this room."""


class IndexMissing(RetrievalError):
    """There is no index where one was looked for."""


class IndexMismatch(RetrievalError):
    """The index is sound but belongs to another encoder or another version of Cirilla."""


class IndexDamaged(RetrievalError):
    """The manifest or the FAISS file is truncated, unreadable or not what the manifest promises."""


class IndexUnwritable(RetrievalError):
    """The new index cannot be written; the one before it is still in place."""


class BadQuestions(RetrievalError):
    """A question file for evaluation cannot be read."""
