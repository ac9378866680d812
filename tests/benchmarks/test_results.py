"""The systems that are set side by side, and ``benchmarks.results`` from end to end, on an invented archive.

No peer is needed: its encoder counts words, and its language model says what it is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from app import evaluate
from benchmarks import lm, load, results, results_page, retrieval, spine, steps, systems
from benchmarks.peers import RULES, SILENT, chat_rules_first
from retrieval import evaluate as relevance
from tests.app.conftest import CountingEncoder

QUESTIONS = [
    {"id": "a", "question": "Who raised Orsolya?", "answers": ["Maruk"], "type": "who", "canon": "books"},
    {"id": "b", "question": "What is Orsolya's horse called?", "answers": ["Pebble"], "type": "what", "canon": ""},
    {"id": "c", "question": "Who is Gandalf?", "decline": True, "reason": "another world"},
    {
        "id": "d",
        "type": "conversation",
        "turns": [
            {"question": "Who is Orsolya?", "answers": ["sorceress"], "rewrite": "Who is Orsolya?"},
            {"question": "And her mother?", "answers": ["Ilvane"], "rewrite": "Who is the mother of Orsolya?"},
        ],
    },
]
EVIDENCE = {
    "a": "Orsolya was raised by the hermit Maruk in the Hollow Hills.",
    "b": "Orsolya — horse: Pebble.",
    "d0": "Orsolya was a sorceress of Brennport and the adviser of King Haldemar.",
    "d1": "Orsolya — mother: Queen Ilvane of Marn.",
}


def annotated() -> list[dict]:
    rows = json.loads(json.dumps(QUESTIONS))
    for row in rows:
        for at, turn in enumerate(row.get("turns", [row])):
            name = f"{row['id']}{at}" if "turns" in row else row["id"]
            if name in EVIDENCE:
                turn |= {"article": "Orsolya", "evidence": [{"article": "Orsolya", "text": EVIDENCE[name]}]}
    return rows


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in annotated()), encoding="utf-8")
    return path


class Says:
    """A language model that says the same of everything."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.read: list[tuple[str, str]] = []
        self.prompt = chat_rules_first

    def stream(self, question, passages, max_new_tokens=64) -> Iterator[str]:
        self.read = list(passages)
        yield from (self.text[at : at + 4] for at in range(0, len(self.text), 4))


# -- the systems ----------------------------------------------------------------------------------------------------


def test_the_time_to_the_first_word_is_at_most_the_whole(make):
    answer = systems.Timed(make()).ask("Who raised Orsolya?")
    assert "Maruk" in answer.answer
    assert 0 < answer.timings["first_word"] <= answer.timings["total"] * 1.5 + 5


def test_given_passages_are_all_that_is_read(make):
    pipeline = make()
    ids = {row["text"]: row["id"] for row in pipeline.store.rows("SELECT id, text FROM passages")}
    right = next(id for text, id in ids.items() if "Maruk" in text)
    wrong = next(id for text, id in ids.items() if "harbour city" in text)
    given = systems.Given(pipeline, [[right], [wrong], []])
    answer = given.ask("Who raised Orsolya?")
    assert "Maruk" in answer.answer and {hit.passage.id for hit in answer.hits} == {right}
    answer = given.ask("Who raised Orsolya?")
    assert "Maruk" not in answer.answer and {hit.passage.id for hit in answer.hits} == {wrong}
    assert given.ask("Who raised Orsolya?").abstained
    assert "Maruk" in pipeline.ask("Who raised Orsolya?").answer, "the pipeline itself searches as before"


def test_the_floor_quotes_the_sentence_with_most_of_the_question(make):
    pipeline = make()
    floor = systems.BestSentence(pipeline.store, relevance.stages(pipeline.searcher)["bm25"])
    answer = floor.ask("Who killed Tobiah?")
    assert answer.answer == "A wyvern killed Tobiah there. [1]" and answer.confidence == 1.0
    assert answer.citations[0].quote == "A wyvern killed Tobiah there."
    assert evaluate.groundedness(answer) == (1, 1)
    assert floor.ask("xylophone quux").abstained


def test_the_assembled_stack_is_scored_generously_and_not_blindly(make):
    pipeline = make()
    ranker = relevance.stages(pipeline.searcher)["bm25"]

    def ask(text):
        return systems.Assembled(pipeline.store, ranker, Says(text), "x").ask("Who raised Orsolya?")

    uncited = ask("Orsolya was raised by the hermit Maruk. Her brother was a baker from Vizima.")
    assert not uncited.abstained and evaluate.groundedness(uncited) == (2, 1)
    assert uncited.citations[0].title == "Orsolya" and uncited.timings["first_word"] <= uncited.timings["total"]
    for silent in (SILENT, "", "The passages do not mention who raised her."):
        assert ask(silent).abstained, silent
    assert len(ask("x").hits) <= evaluate.TOP


def test_follow_ups_stand_alone_for_those_that_cannot_rewrite(file):
    items = systems.alone(evaluate.read(file))
    assert [turn.question for item in items for turn in item.turns][-1] == "Who is the mother of Orsolya?"
    assert items[0].turns[0].question == "Who raised Orsolya?"


# -- the whole ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pipeline(make):
    return make()


@pytest.fixture
def bench(pipeline, file, tmp_path, monkeypatch):
    """Runs ``benchmarks.results`` on the invented archive with scripted peers; gives what it wrote."""
    monkeypatch.setattr(steps.Pipeline, "open", lambda settings: pipeline)
    monkeypatch.setattr(steps, "ingest", lambda settings: None)
    encoder = CountingEncoder()
    both = (encoder.encode_queries, encoder.encode_queries)
    monkeypatch.setattr(retrieval, "minilm", lambda: both)
    monkeypatch.setattr(steps, "Peer", lambda key, threads: Says("The hermit Maruk raised Orsolya [1]."))
    monkeypatch.setattr(lm, "choose_prompt", lambda peer, questions: {})
    measured = {
        "index_of_the_codex": {"seconds": 24.0},
        "start_up": {"seconds": 5.5},
        "clean_and_chunk": {"kilobytes_a_page": 14.0, "pages_per_second": 174.0},
        "embedding": {
            "words_a_passage": 68.0, "passages_per_second": 246.0, "passages_of_180_words_per_second": 98.0,
        },
    }  # fmt: skip
    monkeypatch.setattr(spine, "measure", lambda pages: dict(measured))
    monkeypatch.setattr(load, "server", lambda *a, **k: pytest.fail("--quick starts no server"))

    def run(*more):
        out = tmp_path / "RESULTS.md"
        written = ["--work", str(tmp_path / "work"), "--out", str(out), "--pictures", str(tmp_path / "pictures")]
        results.main(["--questions", str(file), "--quick", *written, *more])
        return out.read_text(encoding="utf-8")

    return run


def line(text: str, start: str) -> list[str]:
    """The cells of the table row that begins so."""
    return next(row for row in text.splitlines() if row.startswith(f"| {start}")).strip("| ").split(" | ")


def test_one_command_writes_every_figure(bench, tmp_path, monkeypatch):
    assert "conversation, later turns" not in bench(), "one question is no group"
    monkeypatch.setattr(results_page, "FEW", 1)
    text = bench()
    about = json.loads((tmp_path / "work" / "about.json").read_text())
    for stated in ("revision", "date", "processor"):
        assert about[stated] and str(about[stated]) in text
    assert f"{about['cores']} cores" in text and "4 rows of `questions.jsonl`" in text
    assert "5 questions and turns, 1 of them to be declined" in text
    ours = line(text, "**Cirilla** |")
    assert ours[1].startswith("100.0 % of 4 [") and ours[2].startswith("100.0 % of 1 [") and ours[3].startswith("0.0 %")
    assert re.fullmatch(r"\d+\.\d\d s / \d+\.\d\d s", ours[6])
    assert line(text, "Cirilla, given the right passages |")[1].startswith("100.0 % of 4")
    assert line(text, "Cirilla, given no passages")[1:3] == ["0.0 % of 4 [0.0, 0.0]", "100.0 % of 1 [100.0, 100.0]"]
    # It says of everything that Maruk raised her: one of four, and it never declines.
    peer = line(text, "all-MiniLM-L6-v2 → SmolLM2")
    assert peer[1].startswith("25.0 % of 4") and peer[2].startswith("0.0 % of 1")
    assert "+75.0 points" in text
    assert line(text, "**fused, then second stage**")[1] == "not measured", "this archive has no second stage"
    assert line(text, "our BM25 + all-MiniLM-L6-v2 fused")[3].startswith("100.0 %"), "R@20 of a tiny archive"
    assert "conversation, later turns" in text and "Expected calibration error" in text
    assert "174" in text and "5.5 s" in text
    assert "- twenty chats at once (`--quick`)" in text and "- the long ingest (`--pages 0`)" in text
    for picture in ("risk-coverage.svg", "calibration.svg"):
        assert (tmp_path / "pictures" / picture).read_text().startswith("<?xml")
        assert f"](pictures/{picture})" in text


def test_wiki_pages_have_a_table_of_their_own_and_a_say_in_the_weight(bench, tmp_path, monkeypatch):
    pages = [{"title": "Wenna", "text": "Wenna was a healer of Ostra. Wenna's mule is called Thistle."}]
    monkeypatch.setattr(steps, "read_zst", lambda file: pages)
    monkeypatch.setattr(steps.Encoder, "load", lambda folder: CountingEncoder())
    monkeypatch.setattr(steps.Reranker, "load", lambda folder: None)
    asked = {"id": "w", "question": "What is Wenna's mule called?", "answers": ["Thistle"], "article": "Wenna"}
    monkeypatch.setattr(steps, "WIKI_QUESTIONS", tmp_path / "wiki.jsonl")
    steps.WIKI_QUESTIONS.write_text(json.dumps(asked), encoding="utf-8")
    monkeypatch.setattr(retrieval, "best_weight", lambda recalls: {1: 0.1, 2: 0.5}[len(recalls)])
    text = bench("--wiki", "pages.jsonl.zst")
    assert "fusion is 0.5, the best of a grid on dev questions over codex and wiki pages" in text
    table = text[text.index("| Real wiki pages, dev questions: 1, over 1 passages") :]
    for system in ("plain BM25", "our BM25, with spelling and names", "our BM25 + all-MiniLM-L6-v2 fused"):
        assert line(table, system)[1].startswith("100.0 %"), system


def test_missing_peers_are_left_out_loudly(bench, monkeypatch, capsys):
    def absent(*arguments):
        raise ImportError("No module named 'llama_cpp'")

    monkeypatch.setattr(steps, "Peer", absent)
    text = bench()
    assert line(text, "all-MiniLM-L6-v2 → SmolLM2")[1] == "not measured"
    assert line(text, "all-MiniLM-L6-v2 |")[1] != "not measured", "what is installed is measured"
    assert "## Left out" in text and "No module named 'llama_cpp'" in text
    assert "LEFT OUT" in capsys.readouterr().err
    monkeypatch.setattr(retrieval, "minilm", absent)
    assert line(bench(), "all-MiniLM-L6-v2 |")[1] == "not measured"


def test_a_run_that_was_cut_off_goes_on(bench, monkeypatch, tmp_path):
    def cut(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "search", cut)
        with pytest.raises(KeyboardInterrupt):
            bench()
    before = json.loads((tmp_path / "work" / "ours.json").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(steps, "peer", cut)
        with pytest.raises(KeyboardInterrupt):
            bench("--resume")
    with monkeypatch.context() as patch:
        encode = CountingEncoder().encode_queries

        def forgotten(texts):
            return pytest.fail("were encoded before") if len(texts) > 1 else encode(texts)

        patch.setattr(retrieval, "minilm", lambda: (encode, forgotten))
        patch.setattr(steps, "ours", lambda bench: pytest.fail("was done before"))
        patch.setattr(steps, "floor", lambda bench: pytest.fail("was done before"))
        text = bench("--resume")
    assert "+75.0 points" in text
    with pytest.raises(SystemExit, match="differs in options"):
        bench("--resume", "--split", "test")
    after = json.loads((tmp_path / "work" / "ours.json").read_text())
    assert after == before, "what is there is left alone when it cannot be gone on with"


def test_a_sample_is_the_same_every_time_and_peers_get_its_beginning(file):
    items = evaluate.read(file)
    assert steps.drawn(items, 2) == steps.drawn(items, 2)
    assert len(steps.drawn(items, 0)) == len(items) == len(steps.drawn(items, 99))
    assert [steps.place(item, at) for item in items for at in range(len(item.turns))] == ["a", "b", "c", "d-0", "d-1"]


def test_what_would_have_been_said_is_known_for_what_was_declined(bench, tmp_path, pipeline):
    """With a threshold that nothing passes, the curve is that of the answers behind the refusals."""
    pipeline.settings = pipeline.settings.model_copy(update={"threshold": 1.0})
    bench()
    kept = json.loads((tmp_path / "work" / "ours.json").read_text())
    assert all(row["abstained"] for row in kept["rows"])
    text = (tmp_path / "RESULTS.md").read_text()
    assert line(text, "Cirilla, given the right passages |")[1].startswith("0.0 % of 4")
    assert line(text, "Cirilla, given the right passages, never")[1].startswith("100.0 % of 4")
    told = {(row["item"], row["turn"]): row["right"] for row in kept["would"]}
    assert told[("a", 0)] and told[("b", 0)] and not told[("c", 0)]


def test_peers_are_told_when_to_keep_silent():
    assert SILENT in RULES and lm._SILENT.search(SILENT)
