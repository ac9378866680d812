"""What readers think of answers, in a SQLite file of its own below the data folder.

Nothing in it tells who the reader was: no address, no cookie, no session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from app.settings import Settings
from app.turns import Turn

FILE = "feedback.sqlite"
REASONS = {
    "off-topic": "It does not answer my question",
    "wrong": "What it says is wrong",
    "unsupported": "The source does not say that",
    "incomplete": "Something is missing",
    "other": "Something else",
}
"""What a dislike may be put down to."""
COMMENT_LIMIT = 1_000  # characters
MOST = 100_000  # opinions kept; the oldest go, so that the file cannot fill the disk


class Feedback:
    """The opinions, one row an answer: whoever changes his mind changes the row.  Safe to share between threads."""

    def __init__(self, settings: Settings, index_version: Callable[[], str]) -> None:
        """``index_version``: which index answers just now, see ``app.live.version``."""
        self.path: Path = settings.data / FILE
        self._settings, self._index_version = settings, index_version
        self._lock = threading.Lock()

    def save(self, turn: Turn, verdict: str, reason: str = "", comment: str = "") -> bool:
        """Keep a "like" or a "dislike" of a turn's answer, or with "" take it back; False when that makes no sense."""
        if turn.answer is None or verdict not in ("like", "dislike", "") or reason not in ("", *REASONS):
            return False
        with self._lock, closing(self._open()) as db:
            table = db.table("feedback")
            if not verdict:
                table.delete_where("id = ?", [turn.id])
                return True
            table.upsert(self._row(turn, verdict, reason, comment), pk="id")
            if table.count > MOST:
                table.delete_where("id NOT IN (SELECT id FROM feedback ORDER BY at DESC LIMIT ?)", [MOST])
        return True

    def rows(self) -> list[dict[str, Any]]:
        """Every opinion, oldest first."""
        with self._lock, closing(self._open()) as db:
            return list(db.table("feedback").rows_where(order_by="at, id"))

    def _open(self) -> Database:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = Database(self.path)
        columns: dict[str, Any] = dict.fromkeys(
            ("id", "at", "verdict", "reason", "comment", "question", "standalone_question", "answer"), str
        )
        columns |= {"abstained": int, "confidence": float, "sources": str, "generator": str, "index_version": str}
        db.table("feedback").create(columns, pk="id", if_not_exists=True)
        return db

    def _row(self, turn: Turn, verdict: str, reason: str, comment: str) -> dict[str, Any]:
        assert turn.answer is not None
        answer = turn.answer
        return {
            "id": turn.id,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "verdict": verdict,
            "reason": reason if verdict == "dislike" else "",
            "comment": comment.strip()[:COMMENT_LIMIT] if verdict == "dislike" else "",
            "question": turn.question[: self._settings.question_limit],
            "standalone_question": answer["standalone_question"],
            "answer": answer["answer"],
            "abstained": int(answer["abstained"]),
            "confidence": answer["confidence"],
            "sources": "\n".join(f"{c['title']} › {c['section']} {c['url']}" for c in answer["citations"]),
            "generator": answer["generator"],
            "index_version": self._index_version(),
        }
