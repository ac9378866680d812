"""The archive: what goes in comes out, in one piece or not at all."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corpus.errors import CirillaError, Locked, StoreError
from corpus.lock import ingest_lock, is_locked
from corpus.schema import SCHEMA_VERSION
from corpus.store import Source, Store, fold, page_key
from corpus.types import Article, Fact, Page, Passage, Quote, Section
from tests.corpus.stub_wiki import chunk, contents, search

LEAD = "Marta Jagiełło keeps the toll at Otter Ford, where Scoia’tael archers once stood."


def record(pageid: int = 1, title: str = "Marta Jagiełło", revid: int = 7) -> tuple[Page, Article, list[Passage]]:
    page = Page(
        source="wiki.example",
        pageid=pageid,
        title=title,
        revid=revid,
        url=f"https://wiki.example/{pageid}?oldid={revid}",
        html=f"<p>{LEAD}</p>" * 50,
        display_title=title.upper(),
        categories=("Toll keepers",),
        aliases=("Marta of the Ford", "Old Marta"),
        revised_at="2025-12-31T23:59:59+00:00",
        fetched_at="2026-01-02T03:04:05+00:00",
        rights="CC BY-SA 3.0",
        rights_url="https://creativecommons.org/licenses/by-sa/3.0/",
    )
    sections = (
        Section((), LEAD, canon="books", quotes=(Quote("Pay or swim.", "Marta"), Quote("Swim, then."))),
        Section(("Life", "Youth"), "She was born beside Eithné’s well.", references=("Ledger, p. 3",)),
        Section(("Empty",), ""),
    )
    facts = (Fact("job", "Occupation", ("toll keeper", "ferrier"), "games"), Fact("hair", "Hair", ("grey",)))
    article = Article(title, sections, facts, page.categories, ("Old Marta", "The Ford Witch"), "books", "character")
    return page, article, chunk(article)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "archive.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as store:
        yield store


# -- in and out ------------------------------------------------------------------------------------------------


def test_a_page_and_its_article_come_back_as_they_went_in(store: Store) -> None:
    page, article, passages = record()
    store.replace_page(page, article, passages)
    key = page_key("wiki.example", 1)
    assert store.raw_page(key) == page
    assert store.article(key) == article
    assert store.section(key, 1) == article.sections[1]
    assert store.section(key, 9) is None and store.raw_page(5) is None and store.article(5) is None
    assert store.revisions("wiki.example") == {1: 7} and store.revisions("elsewhere") == {}
    assert store.redirects("wiki.example") == {1: {"Marta of the Ford", "Old Marta"}}
    assert store.titles() == [page.title]
    assert store.aliases() == dict.fromkeys(("Marta of the Ford", "Old Marta", "The Ford Witch"), page.title)
    assert list(store.iter_raw_pages()) == list(store.iter_raw_pages("wiki.example")) == [page]
    assert list(store.iter_raw_pages("elsewhere")) == []


def test_a_passage_comes_back_with_all_that_a_citation_needs(store: Store) -> None:
    page, article, passages = record()
    store.replace_page(page, article, passages)
    found = store.passage(passages[1].key(page.source, page.pageid))
    assert found is not None
    assert found.text == article.sections[found.section].text[found.start : found.end]
    assert (found.title, found.path, found.heading) == (page.title, ("Life", "Youth"), passages[1].heading)
    assert (found.url, found.revid, found.rights, found.rights_url) == (
        page.url, page.revid, page.rights, page.rights_url
    )  # fmt: skip
    assert found.display_title == page.display_title and found.source == page.source
    assert store.passage(12345) is None


def test_passages_come_in_the_order_asked_for(store: Store) -> None:
    for pageid in range(1, 401):
        store.replace_page(*record(pageid, f"Page {pageid}"))
    ids = [row["id"] for row in store.rows("SELECT id FROM passages ORDER BY text, id")]
    assert len(ids) == 1200
    assert [found.id for found in store.passages([*ids[::-1], 5])] == ids[::-1]
    assert store.passages([]) == []


def test_replacing_a_page_leaves_nothing_of_the_old_one(store: Store) -> None:
    page, article, passages = record()
    store.replace_page(page, article, passages)
    store.replace_page(*record(2, "Bystander"))
    before = contents(store)
    changed = replace(page, revid=8, aliases=("Toll Marta",))
    text = "Nothing but a heron lives here now."
    thin = Article(page.title, (Section((), text),))
    store.replace_page(changed, thin, chunk(thin))
    assert store.article(page_key(page.source, 1)) == replace(thin, categories=page.categories)
    assert len(search(store, "heron")) == 1
    assert len(search(store, "archer")) == len(search(store, "eithne")) == 1  # the bystander's
    assert "Old Marta" not in store.redirects(page.source)[1]
    store.replace_page(page, article, passages)
    assert contents(store) == before


def test_deleting_a_page_deletes_everything_that_hangs_on_it(store: Store) -> None:
    page, article, passages = record()
    store.replace_page(page, article, passages)
    store.add_vectors("m", [p.key(page.source, 1) for p in passages], np.ones((3, 4)))
    assert store.counts() == {
        "sources": 1, "pages": 1, "aliases": 3, "sections": 3, "facts": 2, "quotes": 2, "passages": 3, "vectors": 3
    }  # fmt: skip
    assert store.delete_page(page.source, 1) is True
    assert store.delete_page(page.source, 1) is False
    assert {name: n for name, n in store.counts().items() if n} == {"sources": 1}
    assert search(store, "toll") == [] and store.rows("SELECT * FROM passages_fts") == []


def test_sources_are_remembered_and_overwritten(store: Store) -> None:
    first = Source("wiki.example", "https://wiki.example/api.php", "A wiki", "CC0", "https://cc0.example")
    store.set_source(first)
    store.replace_page(*record())
    assert store.sources() == {"wiki.example": first}  # a page does not overwrite what the wiki said of itself
    store.set_source(replace(first, last_run="2026-01-01T00:00:00+00:00"))
    assert store.sources()["wiki.example"].last_run == "2026-01-01T00:00:00+00:00"
    assert store.counts()["pages"] == 1


def test_the_raw_pages_stream_while_being_replaced(store: Store) -> None:
    for pageid in range(1, 31):
        store.replace_page(*record(pageid, f"Page {pageid}"))
    seen = []
    for page in store.iter_raw_pages():
        seen.append(page.pageid)
        store.replace_page(page, Article(page.title, ()), [])
    assert seen == list(range(1, 31))
    assert store.counts()["passages"] == 0


# -- full text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    ["Scoia'tael", "scoiatael", "Scoia’tael", "Jagiełło", "jagiello", "Eithné", "Eithne", "EITHNE’S", "archer",
     "The Ford Witch", "Marta of the Ford", "youth"],
)  # fmt: skip
def test_spelling_does_not_stand_between_a_reader_and_a_page(store: Store, query: str) -> None:
    store.replace_page(*record())
    assert search(store, " ".join(f'"{word}"' for word in fold(query).split()))


def test_folding_leaves_the_rest_alone() -> None:
    assert fold("Łódź d’Or, straße, Ærø, ﬁn") == "Lódź dOr, strasse, AEro, fin"
    assert fold("Zero\u200bwidth so\u00adft") == "Zerowidth soft"
    assert fold("") == ""


# -- vectors ---------------------------------------------------------------------------------------------------


def test_vectors_come_back_and_follow_their_passages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpus.store.BATCH", 2)  # so that streaming has to turn a page
    page, article, passages = record()
    store.replace_page(page, article, passages)
    store.replace_page(*record(2, "Bystander"))
    waiting = list(store.passages_without_vector("m"))
    assert len(waiting) == 6 and waiting == sorted(waiting)
    ids = [id for id, _, _ in waiting]
    matrix = np.arange(24, dtype=np.float16).reshape(6, 4) / 7
    assert store.add_vectors("m", [*ids, 99], np.vstack([matrix, matrix[:1]])) == 6  # 99 is gone
    assert list(store.passages_without_vector("m")) == [] and len(list(store.passages_without_vector("other"))) == 6
    got = list(store.iter_vectors("m"))
    assert [len(part) for part, _ in got] == [2, 2, 2]
    assert np.concatenate([part for part, _ in got]).tolist() == ids
    np.testing.assert_array_equal(np.vstack([rows for _, rows in got]), matrix)
    assert got[0][1].dtype == np.float16 and got[0][0].dtype == np.int64

    # A new revision that changes one section keeps the vectors of the others.
    sections = (replace(article.sections[0], text="Rewritten."), *article.sections[1:])
    edited = replace(article, sections=sections)
    store.replace_page(replace(page, revid=8), edited, chunk(edited))
    assert [text for _, _, text in store.passages_without_vector("m")] == ["Rewritten."]
    assert store.counts()["vectors"] == 5

    store.add_vectors("other", ids[:1], matrix[:1])
    assert store.drop_stale_vectors("m") in (0, 1)  # ids[0] may have been the rewritten one
    assert {row["model"] for row in store.rows("SELECT DISTINCT model FROM vectors")} == {"m"}
    with pytest.raises(ValueError, match="2 ids for 1 vectors"):
        store.add_vectors("m", ids[:2], matrix[:1])


# -- threads and processes -------------------------------------------------------------------------------------


def test_threads_read_while_one_writes(store: Store) -> None:
    store.replace_page(*record())
    done, errors = threading.Event(), []

    def read() -> None:
        try:
            while not done.is_set():
                rows = store.rows("SELECT page, count(*) AS n FROM passages GROUP BY page")
                assert all(row["n"] == 3 for row in rows)  # a page is seen whole or not at all
                assert search(store, "toll")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for pageid in range(2, 60):
        store.replace_page(*record(pageid, f"Page {pageid}"))
        store.replace_page(*record(pageid, f"Page {pageid}", revid=8))
    done.set()
    for thread in threads:
        thread.join()
    assert errors == [] and store.counts()["pages"] == 59


def test_closing_closes_every_threads_connection(path: Path) -> None:
    store = Store(path)
    thread = threading.Thread(target=store.counts)
    thread.start()
    thread.join()
    store.close()
    with pytest.raises(StoreError, match="was closed"):
        store.counts()


def test_two_processes_can_open_a_new_archive_at_once(path: Path) -> None:
    line = f"from corpus.store import Store; Store({str(path)!r}).counts()"
    both = [subprocess.Popen([sys.executable, "-c", line], stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=60)[1] for process in both] == [b"", b""]
    assert Store(path).counts()["pages"] == 0


def test_a_second_ingest_is_turned_away_and_kill_9_frees_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from corpus.lock import ingest_lock\n"
        f"with ingest_lock({str(tmp_path)!r}):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert not is_locked(tmp_path / "nowhere")
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert is_locked(tmp_path) and is_locked(tmp_path)
        with pytest.raises(Locked, match=rf"process {holder.pid}\)") as caught, ingest_lock(tmp_path):
            pass
        assert isinstance(caught.value, CirillaError) and "\n" not in str(caught.value)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert not is_locked(tmp_path)  # though the file is there
        with ingest_lock(tmp_path):
            pass
        with ingest_lock(tmp_path):  # and it can be taken again after a normal end
            assert (tmp_path / "ingest.lock").read_text() == f"{os.getpid()}\n"
    finally:
        holder.kill()
        holder.wait()


# -- bad files and full disks ----------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing(store: Store) -> None:
    store.replace_page(*record())
    before = contents(store)
    size = store.db.execute("PRAGMA page_count").fetchone()[0]
    store.db.execute(f"PRAGMA max_page_count = {size + 2}")
    page, article, passages = record(2, "Too much")
    noise = np.random.default_rng(0).integers(32, 0x2FF, 200_000)
    with pytest.raises(StoreError, match="disk is full") as caught:
        store.replace_page(replace(page, html="".join(map(chr, noise))), article, passages)
    assert "\n" not in str(caught.value)
    assert contents(store) == before
    store.db.execute("PRAGMA max_page_count = 1073741823")
    store.replace_page(page, article, passages)
    assert store.counts()["pages"] == 2


def test_what_is_no_database_is_said_so_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"These are not the pages you are looking for. " * 100)
    with pytest.raises(StoreError, match=r"is damaged .* delete it and run") as caught:
        Store(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes().startswith(b"These are not")


def test_a_damaged_archive_is_said_so(path: Path) -> None:
    with Store(path) as store:
        for pageid in range(1, 40):
            store.replace_page(*record(pageid, f"Page {pageid}"))
        store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)  # all but the page that holds the header and the schema
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="is damaged"), Store(path) as store:
        store.counts()
        list(store.iter_raw_pages())


def test_a_truncated_archive_is_said_so(path: Path) -> None:
    with Store(path) as store:
        for pageid in range(1, 40):
            store.replace_page(*record(pageid, f"Page {pageid}"))
        store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match="is damaged"), Store(path) as store:
        list(store.iter_raw_pages())
        contents(store)


def test_a_page_whose_text_rotted_is_said_so(store: Store) -> None:
    store.replace_page(*record())
    store.db.execute("UPDATE pages SET html = ?", [zlib.compress(b"\xff\xfe")])
    with pytest.raises(StoreError, match="damaged"):
        list(store.iter_raw_pages())


def test_another_programs_database_is_not_touched(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (soup TEXT)")
    with pytest.raises(StoreError, match="another program"):
        Store(path)
    tables = sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("recipes",)]


def test_an_older_archive_is_brought_up_to_date(path: Path) -> None:
    page, article, passages = record()
    with Store(path) as store:
        store.replace_page(page, article, passages)
        before, schema = contents(store), store.rows("PRAGMA table_info(pages)")
        for statement in (
            "DROP INDEX pages_revised", "ALTER TABLE pages DROP COLUMN revised_at", "PRAGMA user_version = 1"
        ):  # fmt: skip
            store.db.execute(statement)
    line = f"from corpus.store import Store; Store({str(path)!r}).counts()"
    both = [subprocess.Popen([sys.executable, "-c", line], stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=60)[1] for process in both] == [b"", b""]
    with Store(path) as store:
        assert store.rows("PRAGMA user_version") == [{"user_version": SCHEMA_VERSION}]
        assert store.rows("PRAGMA table_info(pages)") == schema
        assert store.raw_page(page_key(page.source, 1)) == replace(page, revised_at="")
        assert store.date_revisions(page.source, {(1, 6): "x", (2, 7): "x"}) == 0  # of other revisions and pages
        assert store.date_revisions(page.source, {(1, 7): page.revised_at}) == 1
        assert contents(store) == before
        assert store.date_revisions(page.source, {(1, 7): "later"}) == 0 and contents(store) == before


def test_the_newest_revision_is_found_without_reading_the_pages(store: Store) -> None:
    plan = "EXPLAIN QUERY PLAN SELECT max(revised_at) FROM pages WHERE source = 'wiki.example'"
    assert "COVERING INDEX pages_revised" in store.rows(plan)[0]["detail"]


def test_a_newer_archive_asks_for_an_update(path: Path) -> None:
    with Store(path) as store:
        store.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="newer Cirilla"):
        Store(path)


def test_a_folder_that_cannot_be_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot create the data folder"):
        Store(tmp_path / "file" / "archive.sqlite")
    with pytest.raises(StoreError, match="Cannot write to the data folder"), ingest_lock(tmp_path / "file"):
        pass
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(StoreError, match="Cannot open or write"):
        Store(tmp_path / "folder.sqlite")
