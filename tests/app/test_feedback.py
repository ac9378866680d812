"""Opinions about answers: kept once each, without a trace of who gave them."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import feedback, live
from app.feedback import Feedback
from app.turns import Turn
from tests.app.test_chat import EVIL, answered


def test_an_opinion_is_kept_changed_and_taken_back(make, settings):
    pipeline = make()
    opinions, turn = Feedback(settings, lambda: live.version(pipeline)), answered()
    assert opinions.save(turn, "like", comment="praise has no comment")
    row = opinions.rows()[0]
    assert (row["verdict"], row["question"], row["comment"]) == ("like", EVIL, "")
    manifest = pipeline.searcher.index.manifest
    assert row["index_version"] == f"{manifest.created} {manifest.sha256[:12]}"
    assert row["at"] and "wiki.example" in row["sources"]
    assert opinions.save(turn, "dislike", "wrong", "'; DROP TABLE feedback; --")
    assert [each["verdict"] for each in opinions.rows()] == ["dislike"]
    assert opinions.rows()[0]["comment"] == "'; DROP TABLE feedback; --"
    assert opinions.save(turn, "")
    assert opinions.rows() == []


def test_nothing_tells_who_it_was(settings):
    opinions = Feedback(settings, str)
    opinions.save(answered(), "like")
    assert set(opinions.rows()[0]) == {
        "id", "at", "verdict", "reason", "comment", "question", "standalone_question", "answer", "abstained",
        "confidence", "sources", "generator", "index_version",
    }  # fmt: skip


@pytest.mark.parametrize("verdict, reason", [("love", ""), ("dislike", "because"), ("like", "<script>")])
def test_what_makes_no_sense_is_not_kept(settings, verdict, reason):
    opinions = Feedback(settings, str)
    assert not opinions.save(answered(), verdict, reason)
    assert not opinions.save(Turn("No answer yet"), "like")
    assert opinions.rows() == []


def test_the_file_cannot_grow_for_ever(settings, monkeypatch):
    monkeypatch.setattr(feedback, "MOST", 3)
    opinions = Feedback(settings, str)
    turns = [answered() for _ in range(5)]
    for turn in turns:
        opinions.save(turn, "dislike", "other", "x" * 5_000)
    rows = opinions.rows()
    assert len(rows) == 3 and turns[-1].id in {row["id"] for row in rows}
    assert max(len(row["comment"]) for row in rows) == feedback.COMMENT_LIMIT


def test_many_readers_at_once(settings):
    opinions = Feedback(settings, str)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda turn: opinions.save(turn, "like"), [answered() for _ in range(24)]))
    assert len(opinions.rows()) == 24
    assert sqlite3.connect(settings.data / feedback.FILE).execute("PRAGMA integrity_check").fetchone() == ("ok",)
