"""Ingests started, watched and stopped from the chat: who may, what the page shows, and that the chat follows."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app import archive as tab
from app import fetching, live, progress
from app.catalogue import Catalogues
from app.errors import AppError
from app.fetching import CODEX, SECRET, WIKI, Ingests, Refused, is_off, needs_secret
from app.ingest import ingest
from app.pipeline import Pipeline
from app.settings import ROOT
from corpus.errors import Locked, WikiUnreachable
from corpus.lock import ingest_lock
from corpus.store import Store
from encoder import Encoder
from retrieval.errors import IndexDamaged
from retrieval.index import Manifest, VectorIndex, build
from tests.app.conftest import CountingEncoder
from tests.app.test_archive import put
from tests.app.test_chat import EVIL, Tags
from tests.corpus.stub_wiki import StubWiki

# -- who may start an ingest ---------------------------------------------------------------------------------------


@pytest.fixture
def ingests(make, settings, monkeypatch) -> Ingests:
    for name in (SECRET, "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    return Ingests(make(), settings)


def test_on_ones_own_machine_no_secret_is_needed(ingests):
    assert not needs_secret(ingests.settings)
    ingests.allow("")


@pytest.mark.parametrize("where", ["space", "network"])
def test_elsewhere_ingests_are_off_without_a_secret(ingests, monkeypatch, where):
    if where == "space":
        monkeypatch.setenv("SPACE_ID", "somebody/cirilla")
    else:
        ingests.settings = ingests.settings.model_copy(update={"host": "0.0.0.0"})
    assert is_off(ingests.settings)
    for given in ("", "None", "anything"):
        with pytest.raises(Refused, match="off here"):
            ingests.allow(given)


def test_the_secret_opens_and_nothing_else_does(ingests, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/cirilla")
    monkeypatch.setenv(SECRET, "wölfe")
    ingests.allow("wölfe")
    with pytest.raises(Refused, match="not the secret"):
        ingests.allow("wölf")
    with pytest.raises(Refused, match="Wait"):
        ingests.allow("wölfe")  # no guessing at full speed, not even rightly
    monkeypatch.setattr(fetching, "PATIENCE", 0.0)
    ingests._next_try = 0.0
    with pytest.raises(Refused, match="not the secret"):
        ingests.allow("")
    ingests.allow("wölfe")


def test_a_page_without_the_right_has_no_start_button(make, settings, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/cirilla")
    with gr.Blocks() as page:
        tab.tab(make(), settings)
    handlers = {getattr(fn.fn, "__name__", "") for fn in page.fns.values()}
    assert "watch" in handlers and not {"start", "stop"} & handlers


def test_a_visitors_address_is_never_an_option(ingests, monkeypatch):
    calls: list[tuple[list[str], dict[str, str]]] = []

    class Ended:
        pid = 0
        returncode = 0

        def __init__(self, command, env, **_):
            calls.append((command, env))

        def wait(self):
            return 0

        def poll(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Ended)
    monkeypatch.setenv(SECRET, "wolves")
    ingests.start(WIKI, "--rebuild\0 --data /", 5)
    assert ingests.wait(10)
    command, environment = calls[0]
    assert command[3:] == [f"--data={ingests.settings.data}", "--wiki=--rebuild--data/", "--limit=5"]
    assert SECRET not in environment and "wolves" not in environment.values()
    with pytest.raises(Refused, match="1 or more"):
        ingests.start(WIKI, "https://a.example", -3)


# -- progress ------------------------------------------------------------------------------------------------------


def test_progress_is_written_whole_and_seldom(tmp_path, monkeypatch):
    with ingest_lock(tmp_path), progress.noting(tmp_path) as note:
        note.passages = lambda: 7
        monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)  # no time passes: no page is worth a write
        note.step("Fetching pages", 1_000)
        for _ in range(400):
            note.page("x")
        assert json.loads((tmp_path / progress.NAME).read_text())["done"] == 0
        note.note("Waiting\n  for the wiki")
        state = progress.read(tmp_path)
        assert state is not None and state.alive and (state.done, state.total, state.passages) == (400, 1_000, 7)
        assert state.notes == ("Waiting for the wiki",)
        note.finish(("Index: 7 passages.",))
    state = progress.read(tmp_path)
    assert state is not None and not state.alive and state.lines == ("Index: 7 passages.",)
    assert {path.name for path in tmp_path.iterdir()} == {progress.NAME, "ingest.lock"}


def test_an_error_is_the_end_and_one_line(tmp_path):
    with pytest.raises(WikiUnreachable), progress.noting(tmp_path):
        raise WikiUnreachable("Cannot reach\nthe wiki.")
    state = progress.read(tmp_path)
    assert state is not None and state.state == progress.FAILED and state.error == "Cannot reach the wiki."
    html = tab.progress_html(state, False, state.error)
    assert "did not end well" in html and html.count("Cannot reach the wiki.") == 1


def test_a_killed_ingest_is_not_taken_for_a_running_one(tmp_path):
    # The process id proves nothing: in two containers it may be the same.
    (tmp_path / progress.NAME).write_text(
        json.dumps({"state": "running", "pid": os.getpid(), "step": "Fetching pages"})
    )
    state = progress.read(tmp_path)
    assert state is not None and not state.alive and "broken off" in tab.progress_html(state, False, "")
    with ingest_lock(tmp_path):
        assert (state := progress.read(tmp_path)) is not None and state.alive
    for odd in ("", "[]", '{"pid": "x"}', '{"notes": 3}', "null"):
        (tmp_path / progress.NAME).write_text(odd)
        assert progress.read(tmp_path) is None


def test_progress_reads_like_progress_and_brings_no_markup():
    state = progress.State(pid=os.getpid(), step="Fetching pages", done=250, total=1_000, passages=5_000, notes=(EVIL,))
    seen = Tags(tab.progress_html(state, True, ""))
    assert "Fetching pages · 250 of 1,000 · 5,000 passages" in seen.text and ("value", "250") in seen.attributes
    assert "img" not in seen.tags and EVIL.split("$")[0] in seen.text
    assert "Stopping" not in seen.text and "Stopping" in tab.progress_html(state, True, "", stopping=True)
    assert "Starting" in tab.progress_html(None, True, "") and "recorded" in tab.progress_html(None, False, "")
    stopped = progress.State(state=progress.STOPPED, lines=("Fetching pages: stopped after 3 of 9.",))
    assert "was stopped" in tab.progress_html(stopped, False, "") and "3 of 9" in tab.progress_html(stopped, False, "")


def test_a_wish_to_stop_reaches_the_ingest_that_it_names_and_no_other(tmp_path):
    with progress.noting(tmp_path) as note:
        progress.ask_to_stop(tmp_path, os.getpid() + 1)
        note.at(1, 3)
        note.rest(0)
        note.heard()
        assert progress.asked_to_stop(tmp_path, os.getpid() + 1)
        progress.ask_to_stop(tmp_path, os.getpid())
        note.at(3, 3)  # nothing is left that could be stopped
        with pytest.raises(progress.Stopped):
            note.at(2, 3)
        began = time.monotonic()
        with pytest.raises(progress.Stopped):
            note.rest(60)
        assert time.monotonic() - began < 30
    assert not (tmp_path / progress.STOP).exists()  # the next ingest may have the same number


def test_stopping_needs_the_secret_too(ingests, make, monkeypatch):
    archive = tab.Archive(make(), ingests.settings)
    monkeypatch.setenv(SECRET, "wolves")
    folder = Path(ingests.settings.data)
    with ingest_lock(folder), progress.noting(folder) as note:
        note.step("Fetching pages", 10)
        why, said, timer, button = archive.stop("sheep")
        assert "not the secret" in why and not archive.ingests.stopping() and button["interactive"]
        assert "Wait a moment" in archive.start(WIKI, "https://a.example", 0, "wolves")[0]
        monkeypatch.setattr(archive.ingests, "_next_try", 0.0)
        why, said, timer, button = archive.stop("wolves")
        assert why == "" and "Stopping" in said and timer["active"] and not button["interactive"]
        with pytest.raises(progress.Stopped):
            note.page("A page")


# -- ingests and the chat that goes on -----------------------------------------------------------------------------


@pytest.fixture
def small(settings, tmp_path):
    """Settings with a codex of two articles, and the folder that it lies in."""
    folder = tmp_path / "codex" / "character"
    folder.mkdir(parents=True)
    for name in ("ciri", "calanthe"):
        shutil.copy(ROOT / "corpus" / "codex" / "character" / f"{name}.md", folder)
    return settings.model_copy(update={"codex": tmp_path / "codex", "generator": "evidence", "second_stage": False})


def test_an_ingest_tells_how_far_it_is_and_ends_with_its_report(small, monkeypatch):
    monkeypatch.setattr("app.ingest._encoder", lambda _: CountingEncoder())
    steps: list[str] = []
    step = progress.Note.step

    def remember(note: progress.Note, name: str, total: int | None = None) -> None:
        steps.append(name)
        step(note, name, total)

    monkeypatch.setattr(progress.Note, "step", remember)
    report = ingest(small, rebuild=True)
    assert steps == ["Reading the codex", "Reading stored pages again", "Embedding passages"]
    state = progress.read(small.data)
    assert state is not None and state.state == progress.DONE and list(state.lines) == report.lines
    assert (state.done, state.total) == (state.passages, state.passages) != (0, 0)


@pytest.fixture
def wiki() -> Iterator[StubWiki]:
    """A wiki of ten pages that calls ``wiki.rendered(n)`` when it has been asked for the nth of them."""

    class Counting(StubWiki):
        renderings = 0
        rendered = staticmethod(lambda n: None)

        def _parse(self, pageid: int) -> dict[str, Any]:
            self.renderings += 1
            self.rendered(self.renderings)
            return super()._parse(pageid)

    with Counting() as stub:
        for n in range(10):
            stub.edit(f"Lamp {n}", f"<p>Lamp {n} was lit by keeper {n} of Ysk.</p>")
        yield stub


def test_a_stopped_ingest_keeps_what_it_fetched_and_goes_on_later(small, wiki, monkeypatch):
    monkeypatch.setattr("app.ingest._encoder", lambda _: CountingEncoder())
    wiki.rendered = lambda n: progress.ask_to_stop(small.data, os.getpid()) if n == 4 else None
    report = ingest(small, wiki=wiki.url)
    assert report.stopped and report.error is None and wiki.renderings == 4, "the page at hand is the last"
    assert report.lines[1] == "Fetching pages: stopped after 4 of 10; what was done is kept. Start again to go on."
    state = progress.read(small.data)
    assert state is not None and state.state == progress.STOPPED and list(state.lines) == report.lines
    assert state.error == "" and not (small.data / progress.STOP).exists()
    source = wiki.url.removeprefix("http://")
    with Store(small.archive) as store:
        assert len(store.revisions(source)) == 4 and not store.sources()[source].last_run
        held = VectorIndex.open(small.index, CountingEncoder()).ids().tolist()
        assert held == sorted(row["id"] for row in store.rows("SELECT id FROM passages"))
        report = ingest(small, wiki=wiki.url)
        assert not report.stopped and wiki.renderings == 10 and "6 fetched" in report.lines[1]
        assert len(store.revisions(source)) == 10 and store.sources()[source].last_run


def test_a_wait_is_no_reason_to_go_on(small, wiki, monkeypatch):
    """A wiki that wants to be left alone for minutes does not keep the reader from stopping."""
    monkeypatch.setattr("app.ingest._encoder", lambda _: CountingEncoder())
    wiki.trouble("429", when=f"pageid={max(wiki.pages)}", Retry_After="240")
    note = progress.Note.note

    def stop_when_told(self: progress.Note, line: str) -> None:
        note(self, line)
        progress.ask_to_stop(small.data, os.getpid())

    monkeypatch.setattr(progress.Note, "note", stop_when_told)
    began = time.monotonic()
    report = ingest(small, wiki=wiki.url)
    assert time.monotonic() - began < 60 and report.stopped and "stopped after 9 of 10" in report.lines[1]
    state = progress.read(small.data)
    assert state is not None and "Waiting 240 s" in state.notes[0]


def test_embedding_can_be_stopped_too(small, wiki, monkeypatch):
    class Asking(CountingEncoder):
        def encode_passages(self, passages):
            progress.ask_to_stop(small.data, os.getpid())
            return super().encode_passages(passages)

    monkeypatch.setattr("retrieval.index.build", functools.partial(build, batch_size=1))
    monkeypatch.setattr("app.ingest._encoder", lambda _: CountingEncoder())
    ingest(small)
    manifest = Manifest.read(small.index)
    monkeypatch.setattr("app.ingest._encoder", lambda _: Asking())
    report = ingest(small, wiki=wiki.url)
    assert report.stopped and "10 fetched" in report.lines[1]
    assert report.lines[2].startswith("Embedding passages: stopped after 1 of 10;")
    assert Manifest.read(small.index) == manifest, "half an index was put in place"
    monkeypatch.setattr("app.ingest._encoder", lambda _: CountingEncoder())
    assert "(10 added, 0 removed, 9 embedded)" in ingest(small).lines[-1]


def test_an_ingest_that_was_started_elsewhere_can_be_stopped_here(small, wiki, monkeypatch):
    """By a person in another terminal, or by a chat that has died since."""
    for name in (SECRET, "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    encoder = Encoder.load(small.encoder_weights)
    monkeypatch.setattr("app.ingest._encoder", lambda _: encoder)
    ingest(small)
    pipeline = Pipeline.open(small)
    archive = tab.Archive(pipeline, small)
    wiki.pause = 0.5
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py"), "--ingest", f"--data={small.data}", f"--wiki={wiki.url}"],
        env=os.environ | {"CIRILLA_CODEX": str(small.codex)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    while wiki.renderings < 2 and process.poll() is None:
        time.sleep(0.05)
    said, timer, button = archive.watch()
    assert "Fetching pages" in said and "of 10" in said and timer["active"] and button["interactive"]
    archive.stop()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and b"Fetching pages: stopped after" in out and wiki.renderings < 10, out
    said, timer, button = archive.watch()
    assert "was stopped" in said and not timer["active"] and not button["interactive"]
    assert "keeper 0" in pipeline.ask("Who lit Lamp 0?").answer, "the chat knows what was fetched"
    pipeline.store.close()


def test_a_locked_out_ingest_leaves_the_running_ones_progress_alone(small):
    with ingest_lock(small.data), progress.noting(small.data) as note:
        note.step("Fetching pages", 10)
        with pytest.raises(Locked):
            ingest(small)
        state = progress.read(small.data)
        assert state is not None and state.alive and state.step == "Fetching pages"


def test_the_chat_answers_from_a_new_index_once_it_is_reloaded(make, settings):
    pipeline = make()
    catalogues = Catalogues(pipeline)
    asked = "Who lit the amber lantern?"
    before, listed = live.version(pipeline), catalogues.get()
    assert pipeline.ask(asked).abstained and not live.reload(pipeline)
    put(pipeline.store, "Amber lantern", "The amber lantern was lit by Vessela of Ysk.", aliases=("Glowstone",))
    build(pipeline.store, pipeline.encoder, settings.index)
    assert live.is_stale(pipeline) and live.reload(pipeline) and live.version(pipeline) != before
    answer = pipeline.ask(asked)
    assert "Vessela" in answer.answer and any(hit.dense for hit in answer.hits if hit.passage.title == "Amber lantern")
    assert pipeline.searcher.names.mentions is not None and not live.reload(pipeline)
    assert catalogues.get() is not listed and "Amber lantern" in catalogues.get().values("title")


def test_names_and_lists_of_articles_are_of_the_new_index_too(make, settings):
    pipeline = make()
    assert pipeline.roster.find("list all lanterns") is None and not pipeline.known.pages("Who lit Glowstone?")
    for number, title in enumerate(("Amber lantern", "Blue lantern", "Grey lantern"), 90):
        aliases = ("Glowstone",) if title.startswith("Amber") else ()
        put(pipeline.store, title, f"The {title} is a lantern of Ysk.", pageid=number, aliases=aliases)
    build(pipeline.store, pipeline.encoder, settings.index)
    assert live.reload(pipeline)
    assert pipeline.ask("list all lanterns").answer == "- Amber lantern [1]\n- Blue lantern [2]\n- Grey lantern [3]"
    assert pipeline.known.pages("Who lit Glowstone?")


def test_the_lists_follow_a_new_index_and_rest_otherwise(make, settings):
    pipeline = make()
    archive = tab.Archive(pipeline, settings)
    seen, everything = live.version(pipeline), ("", "", "", "", "")
    assert archive.catch_up(seen, 0, *everything) == (gr.skip(),) * 8
    put(pipeline.store, "Amber lantern", "The amber lantern was lit by Vessela of Ysk.")
    assert archive.catch_up(seen, 0, *everything) == (gr.skip(),) * 8, "not indexed yet"
    build(pipeline.store, pipeline.encoder, settings.index)
    archive.watch()
    now, sources, _, page, listing, *_ = archive.catch_up(seen, 0, *everything)
    assert now == live.version(pipeline) != seen and page == 0
    assert ("other.example", "other.example") in sources["choices"]
    assert any(title.startswith("Amber lantern") for title, _ in listing["choices"])


def test_a_damaged_new_index_leaves_the_old_one_in_use(make, settings):
    pipeline = make()
    searcher = pipeline.searcher
    put(pipeline.store, "Lamp", "A lamp.")
    build(pipeline.store, pipeline.encoder, settings.index)
    next(settings.index.glob("vectors-*")).write_bytes(b"broken")
    with pytest.raises(IndexDamaged):
        live.reload(pipeline)
    assert pipeline.searcher is searcher and not pipeline.ask("Who raised Orsolya?").abstained
    ingests = Ingests(pipeline, settings)
    assert not ingests.catch_up() and "truncated or altered" in ingests.error


def test_an_ingest_started_here_runs_beside_the_chat_which_then_knows_more(small, monkeypatch):
    """The whole way, with the released encoder and the real command."""
    for name in (SECRET, "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    encoder = Encoder.load(small.encoder_weights)
    with Store(small.archive) as store:
        monkeypatch.setattr("app.ingest._encoder", lambda _: encoder)
        ingest(small)
        pipeline = Pipeline.open(small)
        assert pipeline.ask("Who is Mousesack?").abstained
        shutil.copy(ROOT / "corpus" / "codex" / "character" / "mousesack.md", small.codex / "character")
        ingests = Ingests(pipeline, small)
        with ingest_lock(small.data):  # another program holds the lock: its line is what the page shows
            ingests.start(CODEX)
            assert ingests.running()
            with pytest.raises(AppError, match="running already"):
                ingests.start(CODEX)
            assert ingests.wait(120) and "Another ingest (process" in ingests.error and "\n" not in ingests.error
        ingests.start(CODEX)
        assert ingests.wait(240), "the ingest did not end"
        assert ingests.error == "" and not ingests.running()
        assert not pipeline.ask("Who is Mousesack?").abstained
        assert store.rows("SELECT count(*) AS n FROM pages")[0]["n"] == 3
        state = progress.read(Path(small.data))
        assert state is not None and state.pid != os.getpid() and "1 articles stored" in state.lines[0]
    pipeline.store.close()
