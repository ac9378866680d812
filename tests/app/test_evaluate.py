"""The figures of --evaluate on files and answers made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app import evaluate
from app.answer import Answer, Citation, Sentence
from app.carry import Turn
from app.errors import BadQuestionFile


def answer(question: str, text: str, passage: str = "", *, ms: float = 100.0, generator: str = "evidence") -> Answer:
    """An answer that quotes ``passage``; without one, a refusal."""
    if not passage:
        return Answer(question, question, text, True, 0.1, (), {"total": ms}, generator)
    citation = Citation(1, "Title", "https://x.example", "", "", passage, passage, 0, len(passage), 0.5)
    sentence = Sentence(f"{text} [1]", 1)
    return Answer(
        question, question, sentence.text, False, 0.9, (citation,), {"search": ms / 2, "total": ms}, generator, "",
        (sentence,),
    )  # fmt: skip


class Canned:
    """Answers from a table, and notes the history that each question came with."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = {a.question: a for a in answers}
        self.histories: list[list[tuple[str, str]]] = []

    def ask(self, question, history=(), canon=None):
        self.histories.append(list(history))
        return self.answers[question]


def write(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_figures_on_a_hand_made_file(tmp_path):
    path = write(
        tmp_path,
        {"id": "right", "question": "a", "answers": ["Éithne", "queen of Brokilon"], "type": "person"},
        "",
        {"id": "wrong", "question": "b", "answers": ["Vizima"]},
        {"id": "shy", "question": "c", "answers": ["Roach"]},
        {"id": "declined", "question": "d", "decline": True},
        {"id": "bluff", "question": "e", "decline": True},
        {"id": 7, "turns": [{"question": "f"}, {"question": "g", "answers": ["Scoia’tael"]}]},
    )
    asks = Canned(
        answer("a", "eithne's realm", "Eithné ruled.", ms=100, generator="cirilla"),
        answer("b", "Vizimar", "Vizima is the capital.", ms=200),  # no word boundary in the answer, alias in passage
        answer("c", "silent", ms=300),
        answer("d", "silent", ms=400),
        answer("e", "made up things of mine", "Something else.", ms=500),
        answer("f", "elves", "elves", ms=600),
        answer("g", "the SCOIA'TAEL", "The Scoia'tael are elves.", ms=700),
    )
    outcomes = list(evaluate.run(asks, evaluate.read(path)))
    figures = evaluate.summary(outcomes)
    assert figures["questions"] == 6 and figures["answerable"] == 4 and figures["must_decline"] == 2
    assert figures["answer_accuracy"] == 0.5
    assert figures["followup_accuracy"] == 1.0
    assert figures["retrieval_cited"] == 0.75
    assert figures["decline_recall"] == 0.5
    assert figures["false_declines"] == 0.25
    assert figures["latency_p50_ms"] == 300 and figures["latency_p95_ms"] == 700
    assert figures["p50_search_ms"] == 100
    assert figures["by_decoder"] == 0.25
    assert asks.histories[-1] == [Turn("f", "elves [1]", ("Title",))]
    assert outcomes[0].extra == {"type": "person"}
    report = json.loads(json.dumps(evaluate.to_json(outcomes)))
    assert [row["id"] for row in report["questions"]] == ["right", "wrong", "shy", "declined", "bluff", "7"]
    assert report["questions"][0]["answer"]["citations"][0]["quote"] == "Eithné ruled."


def test_groundedness_counts_sentences_that_their_citation_bears():
    good = answer("a", "Vizima is the capital", "Vizima is the capital of Temeria.")
    bad = answer("a", "Vizima is the capital of Mars", "Vizima is the capital of Temeria.")
    assert evaluate.groundedness(good) == (1, 1)
    assert evaluate.groundedness(bad) == (1, 0)
    # Function words alone make a name, too.
    assert evaluate.groundedness(answer("a", "She-Who-Knows", "Crones — mother: She-Who-Knows.")) == (1, 1)


@pytest.mark.parametrize(
    ("text", "alias", "expected"),
    [
        ("Queen Calanthe [1].", "calanthe", True),
        ("Ciri's horse", "Ciri", True),
        ("Cirilla", "Ciri", False),
        ("in 1268.", "1268", True),
        ("in 12680", "1268", False),
        ("Yennefer of  Vengerberg", "yennefer of vengerberg", True),
        ("the Scoiatael", "Scoia'tael", True),
        ("", "a", False),
        ("Igni and Aard", "Aard + Igni", True),
        ("Igni and Quen", "Aard + Igni", False),
    ],
)
def test_aliases_match_on_word_boundaries(text, alias, expected):
    assert evaluate.says(text, [alias]) is expected


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{not json", "line 2: not JSON"),
        ("[]", "line 2: a row must be an object"),
        ({"question": "q", "answers": ["a"]}, "line 2: “id” is missing"),
        ({"id": "x", "answers": ["a"]}, "line 2: “question” is missing"),
        ({"id": "x", "question": "q"}, "line 2: either “answers” or"),
        ({"id": "x", "question": "q", "answers": "a"}, "line 2: “answers” must be a list"),
        ({"id": "x", "question": "q", "answers": [" "]}, "line 2: “answers” must be"),
        ({"id": "x", "question": "q", "answers": ["a"], "decline": True}, "line 2: “answers” and “decline”"),
        ({"id": "x", "turns": []}, "line 2: “turns” must be"),
        ({"id": "ok", "question": "q", "answers": ["a"]}, "line 2: the id 'ok' was used before"),
    ],
)
def test_a_malformed_file_names_its_line(tmp_path, row, said):
    path = write(tmp_path, {"id": "ok", "question": "q", "answers": ["a"]}, row)
    with pytest.raises(BadQuestionFile, match="line 2") as caught:
        evaluate.read(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_empty_and_missing_files_say_so(tmp_path):
    with pytest.raises(BadQuestionFile, match="no questions"):
        evaluate.read(write(tmp_path, ""))
    with pytest.raises(BadQuestionFile, match="cannot be read"):
        evaluate.read(tmp_path / "none.jsonl")


def test_percentiles_are_nearest_rank():
    assert [evaluate.percentile(list(range(1, n + 1)), 0.95) for n in (1, 2, 20, 100)] == [1, 2, 19, 95]
    assert [evaluate.percentile(list(range(1, n + 1)), 0.5) for n in (1, 2, 3, 100)] == [1, 1, 2, 50]
    assert evaluate.percentile([], 0.5) is None


def test_a_real_pipeline_can_be_evaluated(make, tmp_path):
    path = write(
        tmp_path,
        {"id": 1, "question": "Who raised Orsolya?", "answers": ["Maruk"]},
        {"id": 2, "question": "Who is Gandalf?", "decline": True},
        {"id": 3, "turns": [{"question": "Who is Orsolya?"}, {"question": "And her mother?", "answers": ["Ilvane"]}]},
    )
    figures = evaluate.summary(list(evaluate.run(make(), evaluate.read(path))))
    assert figures["answer_accuracy"] == figures["decline_recall"] == figures["groundedness"] == 1.0
    assert figures["retrieval_top5"] == 1.0 and figures["p50_search_ms"] is not None
