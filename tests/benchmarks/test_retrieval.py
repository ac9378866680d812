"""``benchmarks.retrieval`` on two tiny archives with an invented peer, which counts words as our encoder does here."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("ir_measures", reason="needs the [bench] extra")
pytest.importorskip("zstandard", reason="needs the [bench] extra")

import zstandard

from benchmarks import retrieval
from corpus.pairs import wiki_article
from tests.retrieval.conftest import FakeEncoder

CODEX = {
    "Orsolya": "Orsolya was a sorceress of Brennport.\n\n## Youth\n\nOrsolya was raised by the hermit Maruk.",
    "Tobiah": "Tobiah was a knight of Marn.\n\n## Death\n\nA wyvern killed Tobiah at the ford of Ysk.",
}
WIKI = {"Ilvane": "Ilvane was the queen of Marn. Ilvane's horse is called Pebble.", "Haldemar": "Haldemar was a king."}


class Second:
    """A second stage to which every sentence is worth the same."""

    def score(self, question, candidates):
        return [np.zeros(len(each.spans)) for each in candidates]


def question(id, text, answer, article, type="who"):
    return {"id": id, "question": text, "answers": [answer], "article": article, "type": type}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What the invented peer was asked to encode, by text; archives, weights and questions are tiny ones."""
    monkeypatch.chdir(tmp_path)
    counted: Counter[str] = Counter()
    encoder = FakeEncoder(name="peer", dimension=256)

    def queries(texts):
        counted.update(texts)
        return encoder.encode_queries(texts)

    monkeypatch.setattr(retrieval, "PEERS", {"words": lambda: (queries, encoder.encode_queries), "absent": absent})
    monkeypatch.setattr(retrieval.Encoder, "load", lambda folder: FakeEncoder(dimension=256))
    monkeypatch.setattr(retrieval.Reranker, "load", lambda folder: Second())
    articles = [wiki_article({"title": title, "text": text}) for title, text in CODEX.items()]
    monkeypatch.setattr(retrieval, "codex_articles", lambda: articles)
    monkeypatch.setattr(retrieval, "QUESTIONS", tmp_path)
    raised, killed = ("Who raised Orsolya?", "Maruk", "Orsolya"), ("What killed Tobiah?", "wyvern", "Tobiah", "what")
    write(tmp_path / "corpus/questions/dev.jsonl", [question("a", *raised), question("b", *killed)])
    write(tmp_path / "corpus/questions/test.jsonl", [question("t", "Where did Tobiah fall?", "Ysk", "Tobiah", "where")])
    write(tmp_path / "wiki-dev.jsonl", [question("w", "Whose horse is Pebble?", "Ilvane", "Ilvane")])
    pages = "".join(json.dumps({"title": title, "text": text}) + "\n" for title, text in WIKI.items())
    (tmp_path / "wiki.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(pages.encode()))
    return counted


def absent():
    raise ImportError("No module named 'absent'")


def test_the_whole_table(asked, tmp_path, capsys):
    retrieval.main(["--wiki", "wiki.jsonl.zst", "--out", "out.json"])
    shown, errors = capsys.readouterr()
    assert "absent is not installed here and is left out" in errors
    results = json.loads((tmp_path / "out.json").read_text())
    assert {name: result["passages"] for name, result in results.items()} == {"codex": 4, "wiki": 2}
    for result in results.values():
        systems = result["systems"]
        assert list(systems) == ["plain", "bm25", "dense", "fusion", "second", "words", "words+bm25"]
        assert set(result["speed"]) == {"ours", "words"} and result["peer_weights"]["words"] in retrieval.GRID
        assert not result["without_passage"]
        assert all(system["by_type"]["all"]["R@20"]["mean"] == 1 for name, system in systems.items())
    assert results["codex"]["questions"] == {"all": 2, "who": 1, "what": 1}
    assert "## wiki: 2 passages" in shown and "what (1)" in shown and "plain BM25" in shown


def test_queries_are_kept_while_a_weight_is_chosen_and_not_while_times_are_taken(asked):
    retrieval.main(["--wiki", "wiki.jsonl.zst", "--peers", "words"])
    # Once for all weights of the grid, then once for the peer alone and once for the fusion.
    assert {asked[text] for text in ("Who raised Orsolya?", "What killed Tobiah?", "Whose horse is Pebble?")} == {3}


def test_test_questions_are_reported_on_and_dev_questions_tuned_on(asked, tmp_path):
    retrieval.main(["--split", "test", "--peers", "words", "--out", "out.json"])
    assert json.loads((tmp_path / "out.json").read_text())["codex"]["questions"] == {"all": 1, "where": 1}
    assert asked["Who raised Orsolya?"] == 1 and asked["Where did Tobiah fall?"] == 2


def test_the_weight_is_the_best_over_all_archives():
    codex, wiki = np.zeros((2, len(retrieval.GRID)))
    codex[[1, 3]], wiki[[3, 5]] = [0.9, 0.8], [0.7, 1.0]
    assert retrieval.best_weight([codex]) == retrieval.GRID[1]
    assert retrieval.best_weight([codex, wiki]) == retrieval.GRID[3]


def test_latency_over_a_larger_archive(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(retrieval, "LARGE", 5)
    retrieval.main(["--large", "wiki.jsonl.zst", "--out", "out.json"])
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["passages"], result["questions"]) == (5, 2), "no more pages than it takes"
    assert all(0 < result["ms"][name]["p50"] <= result["ms"][name]["p95"] for name in ("fusion", "second"))
    assert "2 questions over 5 passages" in capsys.readouterr().out
