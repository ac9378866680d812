"""Crawls of a stub wiki: what is fetched, what the archive holds afterwards, and what a kill costs."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from corpus.crawl import CrawlReport, RichProgress, crawl, rebuild
from corpus.errors import StoreError, WikiBroken, WikiRefused
from corpus.mediawiki import MediaWiki
from corpus.store import Store, page_key
from corpus.types import Article, Page
from tests.corpus.stub_wiki import StubWiki, chunk, contents, parse, search

PLACES = ("Adder Mill", "Bleak Weir", "Crow Steps", "Drowned Oak", "Ember Court", "Fallow Gate")


@pytest.fixture
def stub() -> Iterator[StubWiki]:
    with StubWiki() as wiki:
        for name in PLACES:
            wiki.edit(name, f"<p>{name} lies on the river.</p><p>Few live at {name.split()[0]}.</p>", ("Places",))
        wiki.redirects = {"The Mill": "Adder Mill"}
        yield wiki


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "archive.sqlite") as store:
        yield store


def run(stub: StubWiki, store: Store, parse=parse, **options) -> CrawlReport:
    """One crawl; the stub's list of requests starts anew."""
    stub.requests.clear()
    with MediaWiki.discover(stub.url, sleep=lambda s: None, attempts=3) as wiki:
        return crawl(wiki, store, parse=parse, chunk=chunk, **options)


def summary(report: CrawlReport) -> tuple[int, int, int, int]:
    return report.fetched, report.unchanged, report.aliases, report.deleted


class Watch:
    def __init__(self) -> None:
        self.total = 0
        self.pages: list[str] = []
        self.notes: list[str] = []

    def start(self, total: int) -> None:
        self.total = total

    def page(self, title: str) -> None:
        self.pages.append(title)

    def note(self, line: str) -> None:
        self.notes.append(line)


def source(stub: StubWiki) -> str:
    return stub.url.removeprefix("http://")


# -- what is fetched -------------------------------------------------------------------------------------------


def test_a_first_crawl_stores_every_page_with_its_redirects(stub: StubWiki, store: Store) -> None:
    watch = Watch()
    report = run(stub, store, progress=watch)
    assert summary(report) == (6, 0, 0, 0) and report.complete and report.listed == 6
    assert store.titles() == sorted(PLACES)
    assert store.aliases() == {"The Mill": "Adder Mill"}
    assert len(search(store, "river")) == 6 and len(search(store, "the mill")) == 2
    assert (watch.total, sorted(watch.pages), watch.notes) == (6, sorted(PLACES), [])
    assert store.sources()[source(stub)].site_name == "Stub Wiki" and store.sources()[source(stub)].last_run


def test_a_second_crawl_renders_nothing(stub: StubWiki, store: Store) -> None:
    run(stub, store)
    before = contents(store)
    assert summary(run(stub, store)) == (0, 6, 0, 0)
    assert stub.asked("parse") == [] and contents(store) == before


def test_only_what_changed_is_fetched_and_what_is_gone_is_dropped(stub: StubWiki, store: Store) -> None:
    run(stub, store)
    edited = stub.edit("Crow Steps", "<p>Rooks have taken over.</p>")
    stub.edit("Gull Stairs", "<p>New and windy.</p>")
    gone = next(key for key, page in stub.pages.items() if page.title == "Bleak Weir")
    del stub.pages[gone]
    report = run(stub, store)
    assert summary(report) == (2, 4, 0, 1)
    assert {r.params["pageid"] for r in stub.asked("parse")} == {str(edited), str(max(stub.pages))}
    assert search(store, "rooks") and search(store, "windy") and not search(store, "weir")
    with Store(store.path.with_name("fresh.sqlite")) as fresh:
        run(stub, fresh)
        assert contents(fresh) == contents(store)


def test_every_revision_has_its_date(stub: StubWiki, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def dates(archive: Store = store) -> dict[str, str]:
        return {row["title"]: row["revised_at"] for row in archive.rows("SELECT title, revised_at FROM pages")}

    run(stub, store)
    expected = {page.title: page.saved.replace("Z", "+00:00") for page in stub.pages.values()}
    assert dates() == expected and len(set(expected.values())) == 6

    # Edited between the listing and its turn: fetched with a revision whose date only the next listing tells.
    rendered = MediaWiki.render

    def edited_meanwhile(wiki: MediaWiki, pageid: int) -> Page | None:
        stub.edit("Crow Steps", "<p>Changed again.</p>")
        return rendered(wiki, pageid)

    stub.edit("Crow Steps", "<p>Changed.</p>")
    monkeypatch.setattr(MediaWiki, "render", edited_meanwhile)
    assert summary(run(stub, store)) == (1, 5, 0, 0) and dates() == expected | {"Crow Steps": ""}
    monkeypatch.undo()
    assert summary(run(stub, store)) == (0, 6, 0, 0)
    assert dates() == {page.title: page.saved.replace("Z", "+00:00") for page in stub.pages.values()}


def test_an_archive_from_before_the_dates_learns_them_without_fetching(stub: StubWiki, store: Store) -> None:
    run(stub, store)
    before = contents(store)
    store.db.execute("UPDATE pages SET revised_at = ''")
    assert summary(run(stub, store)) == (0, 6, 0, 0)
    assert stub.asked("parse") == [] and contents(store) == before
    stub.redirects = {}  # stored again for its aliases, a page keeps its date
    assert summary(run(stub, store)) == (0, 5, 1, 0)
    assert contents(store)["pages"] == before["pages"]


def test_redirects_come_and_go_without_fetching_their_pages(stub: StubWiki, store: Store) -> None:
    run(stub, store)
    stub.redirects = {"Court of Cinders": "Ember Court"}
    assert summary(run(stub, store)) == (0, 4, 2, 0)
    assert stub.asked("parse") == []
    assert store.aliases() == {"Court of Cinders": "Ember Court"}
    assert len(search(store, "cinders")) == 2 and search(store, "aliases:mill") == []
    with Store(store.path.with_name("fresh.sqlite")) as fresh:
        run(stub, fresh)
        assert contents(fresh) == contents(store)


def test_a_page_that_becomes_a_redirect_is_dropped_and_becomes_an_alias(stub: StubWiki, store: Store) -> None:
    run(stub, store)
    del stub.pages[next(key for key, page in stub.pages.items() if page.title == "Fallow Gate")]
    stub.redirects["Fallow Gate"] = "Ember Court"
    assert summary(run(stub, store)) == (0, 4, 1, 1)
    assert store.aliases()["Fallow Gate"] == "Ember Court"


def test_a_limit_takes_the_first_pages_and_deletes_nothing(stub: StubWiki, store: Store) -> None:
    assert summary(run(stub, store, limit=2)) == (2, 0, 0, 0)
    assert store.titles() == ["Adder Mill", "Bleak Weir"] and not store.sources()[source(stub)].last_run
    run(stub, store)
    del stub.pages[next(key for key, page in stub.pages.items() if page.title == "Fallow Gate")]
    report = run(stub, store, limit=3)
    assert summary(report) == (0, 3, 0, 0) and not report.complete
    assert store.counts()["pages"] == 6


# -- trouble ---------------------------------------------------------------------------------------------------


def test_a_listing_that_breaks_off_deletes_nothing(stub: StubWiki, store: Store) -> None:
    run(stub, store)
    stub.batch = 2
    stub.trouble("500", times=99, when="gapcontinue")
    with pytest.raises(WikiBroken, match="HTTP 500"):
        run(stub, store)
    assert store.counts()["pages"] == 6


def test_a_wiki_that_suddenly_lists_nothing_deletes_nothing(stub: StubWiki, store: Store) -> None:
    run(stub, store)
    stub.pages.clear()
    with pytest.raises(WikiBroken, match="no pages at all; nothing was deleted"):
        run(stub, store)
    assert store.counts()["pages"] == 6


def test_a_page_that_vanishes_after_the_listing_is_skipped(stub: StubWiki, store: Store) -> None:
    stub.trouble("error", when="action=parse", code="nosuchpageid")
    report = run(stub, store)
    assert (report.fetched, report.vanished, report.failed) == (5, 1, [])


def test_a_page_that_cannot_be_read_is_reported_and_tried_again(stub: StubWiki, store: Store) -> None:
    stub.edit("Crow Steps", "<p>CRASH</p>")
    watch = Watch()
    report = run(stub, store, progress=watch)
    assert summary(report) == (5, 0, 0, 0)
    assert [(f.title, f.reason) for f in report.failed] == [("Crow Steps", "ValueError: this page cannot be read")]
    assert watch.notes == ["Skipped “Crow Steps”: ValueError: this page cannot be read"] and len(watch.pages) == 6
    assert summary(run(stub, store)) == (0, 5, 0, 0)
    assert len(stub.asked("parse")) == 1
    stub.edit("Crow Steps", "<p>Mended.</p>")
    assert summary(run(stub, store)) == (1, 5, 0, 0)


def test_a_revision_that_cannot_be_read_leaves_the_one_before(stub: StubWiki, store: Store) -> None:
    run(stub, store)
    before = contents(store)
    stub.edit("Crow Steps", "<p>CRASH</p>")
    assert len(run(stub, store).failed) == 1
    assert contents(store) == before


def test_a_page_that_the_wiki_cannot_render_is_passed_over(stub: StubWiki, store: Store) -> None:
    bad = next(key for key, page in stub.pages.items() if page.title == "Drowned Oak")
    stub.trouble("500", times=99, when=f"pageid={bad}")
    report = run(stub, store)
    assert report.fetched == 5 and [f.title for f in report.failed] == ["Drowned Oak"]


def test_a_wiki_that_renders_nothing_ends_the_crawl(stub: StubWiki, store: Store) -> None:
    stub.trouble("500", times=999, when="action=parse")
    with pytest.raises(WikiBroken, match="HTTP 500"):
        run(stub, store)
    assert len(stub.asked("parse")) == 5 * 3  # five pages, three attempts each: not all six


def test_a_refusal_midway_keeps_what_was_fetched(stub: StubWiki, store: Store) -> None:
    pages = sorted(stub.pages, key=lambda key: stub.pages[key].title)
    stub.trouble("403", when=f"pageid={pages[3]}")
    with pytest.raises(WikiRefused):
        run(stub, store)
    assert store.counts()["pages"] == 3
    assert summary(run(stub, store)) == (3, 3, 0, 0)


def test_a_full_disk_keeps_what_was_stored(stub: StubWiki, store: Store) -> None:
    run(stub, store, limit=2)
    before = contents(store)
    stub.pages[next(iter(sorted(stub.pages)[2:]))].html = "<p>" + "".join(map(chr, range(0x4E00, 0x9E00))) + "</p>"
    store.db.execute(f"PRAGMA max_page_count = {store.db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StoreError, match="disk is full"):
        run(stub, store)
    assert contents(store) == before
    store.db.execute("PRAGMA max_page_count = 1073741823")
    assert run(stub, store).fetched == 4


# -- kill -9 ---------------------------------------------------------------------------------------------------


def test_killed_again_and_again_a_crawl_ends_as_if_undisturbed(tmp_path: Path) -> None:
    with StubWiki(pause=0.03, batch=7) as stub:
        for number in range(24):
            text = "".join(f"<p>Verse {n} of song {number}, sung at dusk.</p>" for n in range(8))
            stub.edit(f"Song {number:02}", text, ("Songs",))
        stub.redirects = {f"Tune {number}": f"Song {number:02}" for number in range(0, 24, 3)}
        archive = tmp_path / "killed.sqlite"
        command = [sys.executable, "-m", "tests.corpus.stub_wiki", stub.url, str(archive)]
        stored = 0
        for kill_after in (1, 5, 9):
            stub.requests.clear()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            deadline = time.monotonic() + 60
            while len(stub.asked("parse")) <= kill_after and time.monotonic() < deadline:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            with Store(archive) as store:
                pages = store.counts()["pages"]
            asked = len(stub.asked("parse"))
            assert asked - 1 <= pages - stored <= asked  # at most the page in flight is lost
            stored = pages
        assert 0 < stored < 24
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split() == [str(24 - stored), str(stored), "0"]
        with Store(archive) as killed, Store(tmp_path / "whole.sqlite") as whole:
            run(stub, whole)
            assert contents(killed) == contents(whole)
            for words in ("dusk", "tune", "verse 3", "title:song"):
                assert search(killed, words) == search(whole, words) != []
            assert killed.aliases() == whole.aliases()


# -- rebuilding ------------------------------------------------------------------------------------------------


def test_a_rebuild_needs_no_network_and_follows_the_new_parser(stub: StubWiki, store: Store) -> None:
    run(stub, store)
    before = contents(store)
    stub.requests.clear()
    watch = Watch()
    report = rebuild(store, parse=parse, chunk=chunk, progress=watch)
    assert (report.rebuilt, report.failed, watch.total, len(watch.pages)) == (6, [], 6, 6)
    assert contents(store) == before and stub.requests == []

    def shouting(page: Page) -> Article:
        if page.title == "Crow Steps":
            raise ValueError("not this one")
        return parse(Page(page.source, page.pageid, page.title, page.revid, page.url, page.html.upper()))

    report = rebuild(store, source=source(stub), parse=lambda page: shouting(page), chunk=chunk)
    assert (report.rebuilt, [f.title for f in report.failed]) == (5, ["Crow Steps"])
    assert store.aliases() == {"The Mill": "Adder Mill"}
    article = store.article(page_key(source(stub), min(stub.pages)))
    assert article is not None and rebuild(store, source="nobody", parse=parse, chunk=chunk).rebuilt == 0


# -- progress --------------------------------------------------------------------------------------------------


def test_the_progress_bar_shows_rate_and_what_is_left(stub: StubWiki, store: Store) -> None:
    stub.edit("Crow Steps", "<p>CRASH</p>")
    out = io.StringIO()
    with RichProgress("Reading", Console(file=out, width=120, force_terminal=True)) as progress:
        run(stub, store, progress=progress)
    shown = out.getvalue()
    assert "Reading" in shown and "6/6" in shown and "pages/s" in shown and "ETA" in shown
    assert "Skipped “Crow Steps”: ValueError" in shown
