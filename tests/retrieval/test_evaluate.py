"""Evaluation against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import pytest

pytest.importorskip("ir_measures", reason="needs the [bench] extra")

from retrieval import candidates, evaluate
from retrieval.errors import BadQuestions
from retrieval.evaluate import Question, bootstrap, read_questions, relevant
from retrieval.index import VectorIndex, build
from retrieval.search import Searcher
from retrieval.words import plain
from tests.retrieval.conftest import FakeEncoder


def ask(id="q", question="?", answers=(), articles=(), evidence="", type="other"):
    return Question(id, question, tuple(answers), tuple(articles), (evidence,) if evidence else (), type)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_metrics_by_hand():
    judged = {"first": {1}, "third": {3}, "two": {2, 9}, "never": set(), "empty": {5}}
    ranked = {"first": [1, 2, 3], "third": [1, 2, 3], "two": [1, 2, 3, 4, 5, 6, 9], "never": [1, 2], "empty": []}
    got = evaluate.evaluate([ask(id, question=id) for id in judged], judged, lambda text: ranked[text])
    assert got["R@1"] == [1, 0, 0, 0, 0]
    assert got["R@5"] == [1, 1, 0.5, 0, 0]
    assert got["R@20"] == [1, 1, 1, 0, 0]
    assert got["Success@5"] == [1, 1, 1, 0, 0]
    assert got["RR@10"] == pytest.approx([1, 1 / 3, 1 / 2, 0, 0])
    gain = [1 / math.log2(rank + 1) for rank in range(1, 11)]
    assert got["nDCG@10"] == pytest.approx([1, gain[2], (gain[1] + gain[6]) / (gain[0] + gain[1]), 0, 0])


def test_only_the_depth_counts():
    got = evaluate.evaluate([ask("q")], {"q": {40}}, lambda text: list(range(50)))
    assert got["R@20"] == [0]


def test_bootstrap_is_seeded_and_brackets_the_mean():
    values = [1.0] * 30 + [0.0] * 10
    score = bootstrap(values)
    assert score == bootstrap(values)
    assert score.mean == 0.75 and 0.55 < score.low < 0.68 and 0.82 < score.high < 0.92
    assert bootstrap([1.0, 1.0]) == evaluate.Score(1, 1, 1)


def test_relevance_needs_the_article_and_the_evidence(shelf):
    store = shelf.store

    def headings(**row):
        return sorted(passage.heading for passage in store.passages(relevant(store, ask(**row))))

    evidence = "ciri was later raised by  Vesemir, and the other wolves"
    assert headings(articles=["Cirilla of Cintra"], evidence=evidence) == ["Cirilla of Cintra › Childhood"]
    assert headings(articles=["Ciri"], evidence=evidence) == ["Cirilla of Cintra › Childhood"]  # by alias
    assert headings(articles=["Geralt of Rivia"], evidence=evidence) == []
    assert headings(articles=["ciri", "geralt of rivia"], answers=["ROACH", "vesemir"]) == [
        "Cirilla of Cintra › Childhood",
        "Geralt of Rivia › Horses",
    ]
    assert headings(articles=["Ciri"], answers=["Vese", "city was"]) == []  # word boundaries
    assert headings(articles=["Eithne"], answers=["silver-eyed queen"]) == ["Eithné"]
    assert headings(articles=["Ciri"], answers=[]) == []


@pytest.mark.parametrize(
    ("text", "aliases", "held"),
    [
        ("Scoia’tael, of the  North", ["scoiatael of"], True),
        ("Eithné's eyes", ["EITHNE"], True),
        ("Eithne waits", ["EITHNÉ’S"], True),
        ("The Scoia’tael’s bows", ["scoiatael"], True),
        ("Swords", ["sword"], False),  # a plural is another word
        ("Eithné waits", ["EITHNE"], True),
        ("Vesemir", ["Vese"], False),
        ("Roach and Vesemir", ["vesemir + roach"], True),
        ("Roach alone", ["vesemir + roach"], False),
        ("Roach", ["…", ""], False),  # no word at all is in no text
    ],
)
def test_candidates_and_figures_agree_on_what_a_text_holds(text, aliases, held):
    assert candidates.holds(plain(text), aliases) is held


def test_questions_to_decline_are_passed_over(tmp_path):
    rows = [
        {"id": 1, "question": "Who raised Ciri?", "answers": ["Vesemir"], "article": "Ciri", "type": "who"},
        {"id": "2", "question": "Who won the cup?", "decline": True},
        {"id": "3", "question": "?", "article": ["A", "B"], "evidence": None},
    ]
    first, third = read_questions(write(tmp_path / "q.jsonl", rows))
    assert first == ask("1", "Who raised Ciri?", ["Vesemir"], ["Ciri"], "", "who")
    assert (third.articles, third.evidence, third.type) == (("A", "B"), (), "other")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 1}', '{"id": 1, "question": "?", "article": 5}',
                                  '{"id": 1, "question": "?", "article": "A"}\n' * 2])  # fmt: skip
def test_bad_question_files(tmp_path, text):
    (tmp_path / "q.jsonl").write_text(text)
    with pytest.raises(BadQuestions) as caught:
        read_questions(tmp_path / "q.jsonl")
    assert "q.jsonl" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BadQuestions):
        read_questions(tmp_path / "nowhere.jsonl")


def test_report_by_system_and_type(shelf, tmp_path):
    encoder = FakeEncoder(dimension=256)
    build(shelf.store, encoder, tmp_path / "index")
    searcher = Searcher(shelf.store, VectorIndex.open(tmp_path / "index", encoder), encoder)
    questions = [
        ask("a", "Who raised Ciri?", ["Vesemir"], ["Ciri"], type="who"),
        ask("b", "Who is the queen of the dryads?", ["queen"], ["Eithne"], type="who"),
        ask("c", "Where is the treasure?", ["nowhere"], ["Eithne"], type="where"),
    ]
    result = evaluate.report(searcher.store, evaluate.stages(searcher), questions)
    assert result["questions"] == {"all": 3, "who": 2, "where": 1}
    assert result["without_passage"] == ["c"]
    assert set(result["systems"]) == {"plain", "bm25", "dense", "fusion"}
    fusion = result["systems"]["fusion"]["by_type"]
    assert fusion["who"]["R@1"] == {"mean": 1, "low": 1, "high": 1}
    assert fusion["all"]["R@20"]["mean"] == pytest.approx(2 / 3)
    text = evaluate.table(result)
    assert "plain BM25" in text and "our BM25, with spelling and names" in text and "1 of the questions: c" in text
    heads, *rows = text.splitlines()[: 1 + 3 * 4]
    assert {len(row) for row in rows} == {len(heads)}, "long names shift nothing"
    json.dumps(result)


def test_the_baseline_knows_neither_spelling_nor_aliases(shelf):
    def first(question):
        return [passage.heading for passage in shelf.store.passages(evaluate.plain_bm25(shelf.store, question, 1))]

    assert first("Which elven archer lost an eye?") == ["Iorveth"]
    assert first("Iorvet") == [] and first("Gwynbleidd") == [] and first("who is the") == first('") OR (') == []
    assert first("Horses of Geralt of Rivia") == ["Geralt of Rivia › Horses"], "titles and headings are text too"


def test_an_unwritable_report_is_one_line(shelf, tmp_path, monkeypatch, capsys):
    encoder = FakeEncoder(dimension=256)
    build(shelf.store, encoder, tmp_path / "index")
    monkeypatch.setattr("encoder.Encoder.load", lambda folder: encoder)
    row = {"id": 1, "question": "Who raised Ciri?", "answers": ["Vesemir"], "article": "Ciri"}
    file = write(tmp_path / "q.jsonl", [row])
    options = ["--questions", str(file), "--data", str(tmp_path), "--reranker", "none", "--json"]
    assert evaluate.main([*options, str(tmp_path / "report.json")]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["questions"] == {"all": 1, "other": 1}
    capsys.readouterr()
    assert evaluate.main([*options, str(tmp_path / "nowhere" / "report.json")]) == 1
    error = capsys.readouterr().err
    assert "report.json" in error and error.count("\n") == 1


def test_command_line_says_what_is_wrong(tmp_path, capsys):
    assert evaluate.main(["--questions", str(tmp_path / "none.jsonl"), "--data", str(tmp_path)]) == 1
    assert "none.jsonl" in capsys.readouterr().err
