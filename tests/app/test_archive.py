"""The archive's tab: what is listed, found and read; who may start an ingest; and that the chat follows a new index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import gradio as gr
import pytest

from app import archive as tab
from app import fetching, live, progress
from app.catalogue import OTHER, Catalogue, Catalogues, Filter, article_html, index_html
from app.errors import AppError
from app.fetching import CODEX, SECRET, WIKI, Ingests, Refused, is_off, needs_secret
from app.ingest import ingest
from app.pipeline import Pipeline
from app.settings import ROOT
from corpus.chunk import passages
from corpus.errors import Locked, StoreError, WikiUnreachable
from corpus.store import Source, Store, ingest_lock
from corpus.types import Article, Fact, Page, Quote, Section
from encoder import Encoder
from retrieval.errors import IndexDamaged
from retrieval.index import build
from tests.app.conftest import CountingEncoder
from tests.app.test_chat import EVIL, Tags


def put(store: Store, title: str, text: str, *, pageid: int = 99, source: str = "other.example", **changes) -> int:
    """One more article in the archive; its ``pages.id``."""
    page = Page(
        source, pageid, title, 12, f"https://{source}/?oldid=12", "<p/>", title, rights="CC BY-SA 3.0",
        rights_url="https://licence.example/", fetched_at="2026-03-01T10:00:00+00:00",
    )  # fmt: skip
    article = Article(**{"title": title, "sections": (Section((), text),)} | changes)
    store.replace_page(page, article, passages(article))
    return store.rows("SELECT id FROM pages WHERE source = ? AND pageid = ?", [source, pageid])[0]["id"]


def found(pipeline, **wanted) -> list[str]:
    catalogue = Catalogue.of(pipeline.store)
    return [each.entry.title for each in catalogue.find(Filter(**wanted), pipeline.store, pipeline.searcher.names)]


# -- browsing and searching ----------------------------------------------------------------------------------------


def test_articles_are_listed_by_title_and_filtered(make):
    pipeline = make()
    put(pipeline.store, "Élodie", "A singer.", kind="character", canon="books")
    put(pipeline.store, "7th Tower", "A tower.", pageid=100, kind="place")
    assert found(pipeline) == ["Brennport", "Élodie", "Orsolya", "Scoia'tarn", "Tobiah", "7th Tower"]
    assert found(pipeline, letter="E") == ["Élodie"] and found(pipeline, letter=OTHER) == ["7th Tower"]
    assert found(pipeline, kind="place") == ["7th Tower"] and found(pipeline, canon="books") == ["Élodie"]
    assert found(pipeline, source="other.example", letter="O") == []


def test_titles_come_before_aliases_and_these_before_the_text(make):
    pipeline = make()
    put(pipeline.store, "The Siege of Orsolya", "Nothing of note.", pageid=1)
    put(pipeline.store, "Marsh", "A fen.", pageid=2, aliases=("Orsinium",))
    assert found(pipeline, query="ors") == ["Orsolya", "Marsh", "The Siege of Orsolya"]
    catalogue = Catalogue.of(pipeline.store)
    listed = catalogue.find(Filter("orsinium"), pipeline.store, pipeline.searcher.names)
    assert [(each.entry.title, each.by) for each in listed][:1] == [("Marsh", "Orsinium")]
    by_text = catalogue.find(Filter("lighthouses"), pipeline.store, pipeline.searcher.names)
    assert [(each.entry.title, each.by) for each in by_text] == [("Brennport", "text")]
    assert found(pipeline, query="scoiatarn") == ["Scoia'tarn"]  # apostrophes and case do not matter
    assert found(pipeline, query='" OR *') == found(pipeline, query="zzzz") == []


def test_pages_of_the_list_do_not_overlap_and_stay_within_it(make, settings):
    pipeline = make()
    for n in range(60):
        put(pipeline.store, f"Lamp {n:02}", "A lamp.", pageid=200 + n)
    archive = tab.Archive(pipeline, settings)
    everything = ("", "", "", "", "")
    seen = []
    for page in range(3):
        at, listing, said, previous, following = archive.browse(page, *everything)
        seen += [title for title, _ in listing["choices"]]
        assert at == page and f"page {page + 1} of 3" in said and "64 articles" in said
        assert previous["interactive"] is (page > 0) and following["interactive"] is (page < 2)
    assert len(seen) == len(set(seen)) == 64
    assert archive.browse(99, *everything)[0] == 2 and archive.browse(-1, *everything)[0] == 0
    assert "No article fits" in archive.browse(0, "zzzz", "", "", "", "")[2]
    # An id has 63 bits, more than a browser's numbers: it must travel as text, and come back to the same article.
    title, chosen = archive.browse(0, "Lamp 07", "", "", "", "")[1]["choices"][0]
    assert isinstance(chosen, str) and title.startswith("Lamp 07") and "Lamp 07" in archive.read(chosen)


def test_eight_thousand_articles_are_found_at_once(make):
    pipeline = make()
    with pipeline.store.transaction() as db:
        one = db.execute("SELECT id FROM pages WHERE title = 'Tobiah'").fetchone()[0]
        db.conn.executemany(
            "INSERT INTO pages SELECT ?, source, ?, ?, '', revid, url, fetched_at, sha, html, categories, canon, kind "
            "FROM pages WHERE id = ?",
            [(n, n + 50, f"Page {n}", one) for n in range(8_000)],
        )
    catalogue = Catalogue.of(pipeline.store)
    began = time.process_time()
    assert len(catalogue.find(Filter("page 79"), pipeline.store, pipeline.searcher.names)) == 111
    assert time.process_time() - began < 0.5


# -- reading -------------------------------------------------------------------------------------------------------


def test_an_article_is_shown_whole_with_its_origin(make):
    store = make().store
    page = put(
        store, "Lamp", "Its light is old.", kind="gear", canon="games", aliases=("Lantern",),
        facts=(Fact("owner", "Owner", ("Orsolya", "Maruk"), "games"),),
        sections=(Section((), "Its light is old.\n\nIt burns."),
                  Section(("Making", "Glass"), "Blown.", "books", (Quote("Let it shine.", "Maruk"),), ("Book 3",))),
    )  # fmt: skip
    html = article_html(store, page)
    seen = Tags(html)
    for part in ("Lamp", "Lantern", "Owner", "Orsolya; Maruk", "It burns.", "Glass", "Let it shine.", "Book 3", "gear",
                 "Books", "Games", "revision 12", "fetched 2026-03-01", "CC BY-SA 3.0"):  # fmt: skip
        assert part in seen.text, part
    assert ("href", "https://other.example/?oldid=12") in seen.attributes
    assert ("href", "https://licence.example/") in seen.attributes and "h5" in seen.tags
    assert "no longer in the archive" in article_html(store, 4711)


def test_a_foreign_article_brings_no_markup(make):
    store = make().store
    page = put(
        store, EVIL, EVIL, kind=EVIL, aliases=(EVIL,), facts=(Fact(EVIL, EVIL, (EVIL,)),),
        sections=(Section((EVIL,), EVIL, "", (Quote(EVIL, EVIL),), (EVIL,)),),
    )  # fmt: skip
    html = article_html(store, page)
    seen = Tags(html)
    assert not {"script", "img"} & set(seen.tags) and seen.text.count("<script>alert(1)</script>") >= 9
    assert not any(name.startswith("on") for name, _ in seen.attributes) and not set("${}`@") & set(html)


def test_facts_about_the_index(make, settings):
    pipeline = make()
    put(pipeline.store, "Lamp", "A lamp.")
    pipeline.store.set_source(
        Source("other.example", site_name="Other", base_url="javascript:alert(1)", rights="CC BY-SA 3.0",
               last_run="2026-03-02T00:00:00+00:00")
    )  # fmt: skip
    seen = Tags(index_html(pipeline))
    manifest = pipeline.searcher.index.manifest
    for part in (manifest.sha256[:16], "counting", "2026-03-01", "2026-03-02", "CC BY-SA 3.0", "evidence is quoted",
                 f"{manifest.count} of 128 dimensions"):  # fmt: skip
        assert part in seen.text, part
    assert not any("javascript" in (value or "") for _, value in seen.attributes)


def test_a_damaged_archive_is_a_sentence(make, settings, monkeypatch):
    pipeline = make()
    archive = tab.Archive(pipeline, settings)

    def broken(*_):
        raise StoreError("The archive is damaged <b>.")

    monkeypatch.setattr(Store, "rows", broken)
    said = [archive.read("1"), archive.facts(), archive.browse(0, "", "", "", "", "")[2]]
    assert all("The archive is damaged &lt;b&gt;." in each for each in said)
    assert archive.choices() == (gr.update(), gr.update()) and archive.read("abc") == tab.WELCOME


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
    with progress.noting(tmp_path) as note:
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
    assert [path.name for path in tmp_path.iterdir()] == [progress.NAME]


def test_an_error_is_the_end_and_one_line(tmp_path):
    with pytest.raises(WikiUnreachable), progress.noting(tmp_path):
        raise WikiUnreachable("Cannot reach\nthe wiki.")
    state = progress.read(tmp_path)
    assert state is not None and state.state == progress.FAILED and state.error == "Cannot reach the wiki."
    html = tab.progress_html(state, False, state.error)
    assert "did not end well" in html and html.count("Cannot reach the wiki.") == 1


def test_a_killed_ingest_is_not_taken_for_a_running_one(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / progress.NAME).write_text(json.dumps({"state": "running", "pid": gone.pid, "step": "Fetching pages"}))
    state = progress.read(tmp_path)
    assert state is not None and not state.alive and "broken off" in tab.progress_html(state, False, "")
    for odd in ("", "[]", '{"pid": "x"}', '{"notes": 3}', "null"):
        (tmp_path / progress.NAME).write_text(odd)
        assert progress.read(tmp_path) is None


def test_progress_reads_like_progress_and_brings_no_markup():
    state = progress.State(pid=os.getpid(), step="Fetching pages", done=250, total=1_000, passages=5_000, notes=(EVIL,))
    seen = Tags(tab.progress_html(state, True, ""))
    assert "Fetching pages · 250 of 1,000 · 5,000 passages" in seen.text and ("value", "250") in seen.attributes
    assert "img" not in seen.tags and EVIL.split("$")[0] in seen.text
    assert "Starting" in tab.progress_html(None, True, "") and "recorded" in tab.progress_html(None, False, "")


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
