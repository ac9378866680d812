"""One miss of every stage, planted: the error report must find where each was lost, and show it on one safe page."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from app import commands, evaluate, misses, report
from app.answer import Answer, Citation, Sentence
from app.evidence import Evidence
from corpus.store import Store
from retrieval.search import Found, Hit
from tests.app.conftest import fill
from tests.app.test_commands import app, main, one_line  # noqa: F401


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "archive.sqlite") as store:
        fill(store)
        yield store


RAISED = "Orsolya was raised by the hermit Maruk in the Hollow Hills."
HEALED = "Orsolya healed Tobiah after the siege of Brennport because he had saved her life."
ROW = {"id": "q", "question": "Who raised her?", "answers": ["Maruk"], "type": "who", "canon": "books"}
EVIDENCE = {"article": "Orsolya", "evidence": [{"article": "Orsolya", "text": RAISED}]}


def hit(store, holding):
    row = store.rows("SELECT id FROM passages WHERE instr(text, ?)", [holding])[0]
    return Hit(store.passage(row["id"]), 1.0)


def quoting(store, quote, hits, text=None):
    """An answer that quotes ``quote`` out of the passage that holds it."""
    passage = hit(store, quote).passage
    start = passage.text.index(quote)
    cited = Citation(1, passage.title, passage.url, "", "", passage.text, quote, start, start + len(quote), 1.0)
    said = f"{text or quote} [1]"
    evidence = tuple(Evidence(hit(store, quote), 0, start, start + len(quote), 1, 1, 1, 1, 1, share=0.5) for _ in "a")
    return Answer(
        "?", "Who raised Orsolya?", said, False, 0.8, (cited,), {"total": 5.0}, "evidence", "",
        (Sentence(said, 1),), tuple(hits), evidence,
    )  # fmt: skip


def silence(hits=()):
    return Answer("?", "Who raised Orsolya?", "Nothing known.", True, 0.1, (), {"total": 5.0}, "evidence", hits=hits)


class Planted:
    """Answers what it was told, and finds in a deep search what it was told."""

    def __init__(self, store, *answers, deep=(), rewritten=None):
        self.store, self.answers, self.deep, self.rewritten = store, list(answers), list(deep), rewritten
        self.searches = []

    def ask(self, question, history=(), canon=None):
        if not self.answers:
            assert not history, "a rewrite stands alone"
            return self.rewritten
        return replace(self.answers.pop(0), question=question)

    def search(self, question, k=8, canon=None):
        self.searches.append((question, k))
        return Found(self.deep, {})


def look(pipeline, tmp_path, *rows):
    """The misses on a file of rows."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    outcomes = list(evaluate.run(pipeline, evaluate.read(path)))
    return misses.find(pipeline, outcomes), outcomes


def case(stage, store):
    """A pipeline and a question that it loses at ``stage``."""
    gold, other = hit(store, RAISED), hit(store, "harbour city")
    follow_up = {"question": "And who raised her?", "answers": ["Maruk"], "rewrite": "Who raised Orsolya?", **EVIDENCE}
    wrong = quoting(store, "Three lighthouses guard its bay.", [other])
    match stage:
        case "corpus":
            absent = {
                "article": "Orsolya",
                "evidence": [{"article": "Orsolya", "text": "Orsolya was raised by wolves."}],
            }
            return Planted(store, wrong), ROW | {"answers": ["wolves"]} | absent
        case "rewrite":
            opening = {"question": "Who is Orsolya?"}
            answered = quoting(store, RAISED, [gold])
            pipeline = Planted(store, answered, wrong, rewritten=answered)
            return pipeline, {"id": "q", "turns": [opening, follow_up], "type": "conversation"}
        case "search":
            return Planted(store, wrong, deep=[other]), ROW | EVIDENCE
        case "ranking":
            return Planted(store, wrong, deep=[other, gold]), ROW | EVIDENCE
        case "declined":
            return Planted(store, silence((other, gold))), ROW | EVIDENCE
        case "reading":
            return Planted(store, quoting(store, HEALED, [other, gold], "A friend did")), ROW | EVIDENCE
        case "wording":
            return Planted(store, quoting(store, RAISED, [gold], "She was raised")), ROW | EVIDENCE
        case "bluff":
            declined = {"id": "q", "question": "Who is Gandalf?", "decline": True, "reason": "another world"}
            return Planted(store, wrong), declined
    raise AssertionError(stage)


@pytest.mark.parametrize("stage", misses.STAGES)
def test_every_stage_is_found(stage, store, tmp_path):
    pipeline, row = case(stage, store)
    found, outcomes = look(pipeline, tmp_path, row)
    assert [miss.stage for miss in found] == [stage]
    assert len(outcomes) == 1 and found[0].outcome is outcomes[0]
    if stage in ("search", "ranking"):
        assert pipeline.searches == [("Who raised Orsolya?", misses.DEPTH)]


def test_a_right_answer_is_no_miss(store, tmp_path):
    pipeline = Planted(store, quoting(store, RAISED, [hit(store, RAISED)]))
    assert look(pipeline, tmp_path, ROW | EVIDENCE)[0] == []


def test_a_follow_up_that_fails_as_rewritten_too_was_lost_elsewhere(store, tmp_path):
    pipeline, row = case("rewrite", store)
    pipeline.rewritten = silence()
    pipeline.deep = [hit(store, RAISED)]
    [miss], _ = look(pipeline, tmp_path, row)
    assert miss.stage == "ranking"
    assert any("Who raised Orsolya?" in note and "Nothing known." in note for note in miss.notes)


def test_without_evidence_an_alias_in_the_archive_counts(store, tmp_path):
    """An archive without the named sentence may hold the answer all the same; one that lacks the alias does not."""
    gold = hit(store, RAISED)
    assert look(Planted(store, silence((gold,))), tmp_path, ROW)[0][0].stage == "declined"
    assert look(Planted(store, silence((gold,))), tmp_path, ROW | {"article": "Orsolya"})[0][0].stage == "declined"
    assert look(Planted(store, silence((gold,))), tmp_path, ROW | {"article": "Tobiah"})[0][0].stage == "corpus"
    assert look(Planted(store, silence((gold,))), tmp_path, ROW | {"answers": ["Mar"]})[0][0].stage == "corpus"
    both = ROW | {"answers": ["Maruk + Hollow Hills"]}
    assert look(Planted(store, silence((gold,))), tmp_path, both)[0][0].stage == "declined"


def test_both_halves_of_the_evidence_are_needed(store, tmp_path):
    pieces = {"Orsolya": RAISED, "Brennport": "Three lighthouses guard its bay."}
    two = ROW | {"article": "Orsolya", "evidence": [{"article": a, "text": text} for a, text in pieces.items()]}
    gold, other = hit(store, RAISED), hit(store, "harbour city")
    assert look(Planted(store, silence((gold,))), tmp_path, two)[0][0].stage == "search"
    assert look(Planted(store, silence((gold,)), deep=[other]), tmp_path, two)[0][0].stage == "ranking"
    assert look(Planted(store, silence((gold, other))), tmp_path, two)[0][0].stage == "declined"


def test_a_corrected_premise_is_said_to_be_one(store, tmp_path):
    row = {"id": "q", "question": "Which dragon raised Orsolya?", "decline": True, "correction": "A hermit did."}
    row["evidence"] = [{"article": "Orsolya", "text": RAISED}]
    [miss], outcomes = look(Planted(store, quoting(store, RAISED, [])), tmp_path, row)
    assert miss.stage == "bluff" and any("corrects" in note for note in miss.notes)
    figures = evaluate.summary(outcomes)
    assert figures["decline_recall"] == 0.0 and figures["declined_or_corrected"] == 1.0
    elsewhere = quoting(store, "Three lighthouses guard its bay.", [])
    _, outcomes = look(Planted(store, elsewhere), tmp_path, row)
    assert evaluate.summary(outcomes)["declined_or_corrected"] == 0.0
    answerable = ROW | {"correction": "A hermit did.", "evidence": row["evidence"]}
    _, outcomes = look(Planted(store, quoting(store, RAISED, [])), tmp_path, answerable)
    assert outcomes[0].right and not outcomes[0].corrected


def test_the_notes_say_how_far_it_came(store, tmp_path):
    gold, other = hit(store, RAISED), hit(store, "harbour city")
    [miss], _ = look(Planted(store, silence((other, gold))), tmp_path, ROW | EVIDENCE)
    assert "The passage was 2nd of 2 that were weighed." in miss.notes
    assert miss.bearing == {gold.passage.id} and miss.source == gold.passage
    [miss], _ = look(Planted(store, quoting(store, RAISED, [gold], "She was")), tmp_path, ROW | EVIDENCE)
    assert "Its sentence was 1st of 1 by evidence, with a share of 0.50." in miss.notes
    assert [misses._th(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]
    )


def test_the_page_counts_marks_and_escapes(store, tmp_path):
    found, outcomes = [], []
    for number, stage in enumerate(misses.STAGES):
        pipeline, row = case(stage, store)
        lost, asked = look(pipeline, tmp_path, row | {"id": f"<b>{number}</b>"})
        found += lost
        outcomes += asked
    evil = ROW | EVIDENCE | {"id": "x", "question": "<script>alert(1)</script> & who?", "type": '"><img src=x>'}
    lost, asked = look(Planted(store, silence((hit(store, "<script>"),))), tmp_path, evil)
    page = report.page(found + lost, outcomes + asked, "a<b>.jsonl", "today")
    assert page.count('<article class="miss ') == 9
    assert "<script" not in page and "<img" not in page and "<b>" not in page and "alert(1)" in page
    soup = BeautifulSoup(page, "lxml")
    assert not soup.select("[src], [href], link, script, [onclick]"), "it must need nothing else"
    assert not re.search(r"url\(|@import", soup.select("style")[0].text)
    assert '<meta name="viewport"' in page
    assert f"<mark>{RAISED}</mark>" in page
    for stage in misses.STAGES:
        assert f'class="miss {stage}"' in page
        assert f"#show-{stage}:checked ~ main .miss:not(.{stage})" in page
        assert f'<input type="radio" name="stage" id="show-{stage}">' in page
    assert "9 questions asked, <strong>9 missed</strong> (100%): 2 wrongly declined, 7 answered wrongly." in page
    row = re.search(r'<tr><th scope="row">who</th>(.*?)</tr>', page)
    assert row and row[1].startswith("<td>6</td><td>6</td>")


def test_a_page_without_misses(store):
    assert "Nothing was missed." in report.page([], [], "none.jsonl", "today")


def test_the_option_writes_the_page(main, tmp_path, capsys):  # noqa: F811
    rows = tmp_path / "q.jsonl"
    rows.write_text(
        '{"id": 1, "question": "Who raised Orsolya?", "answers": ["Maruk"]}\n'
        '{"id": 2, "question": "Who raised Orsolya?", "answers": ["Ilvane"]}\n'
        '{"id": 3, "question": "Who raised Orsolya?", "answers": ["Vizimir"]}\n',
        encoding="utf-8",
    )
    out = tmp_path / "out.html"
    assert main("--data", tmp_path / "d", "--evaluate", rows, "--report", out) == 0
    said = capsys.readouterr().out
    assert re.search(r"^not in the corpus\s+1$", said, re.M) and re.search(r"^not read\s+1$", said, re.M)
    page = out.read_text(encoding="utf-8")
    assert page.count("<article") == 2 and "q.jsonl" in page
    assert main("--data", tmp_path / "d", "--evaluate", rows, "--report", tmp_path / "no" / "r.html") == commands.OTHER
    assert "There is no folder" in one_line(capsys)
    assert main("--report", out) == commands.USAGE
    assert "--report needs --evaluate" in capsys.readouterr().err
    assert main("--data", tmp_path / "d", "--evaluate", rows, "--report", out, "--json") == 0
    assert capsys.readouterr().out.lstrip().startswith("{"), "nothing but JSON"


def test_extra_keys_of_rows_and_turns_are_kept_and_reports_stay_json(store, tmp_path):
    pipeline, row = case("rewrite", store)
    _, outcomes = look(pipeline, tmp_path, row)
    written = evaluate.to_json(outcomes)["questions"][0]
    assert written["extra"]["rewrite"] == "Who raised Orsolya?" and written["extra"]["type"] == "conversation"
    assert "reply" not in written
    for odd in ({"evidence": 3}, {"evidence": [None, {"x": 1}, ""]}, {"evidence": "a"}, {}):
        assert evaluate.evidence_of(odd) == (["a"] if odd.get("evidence") == "a" else [])
