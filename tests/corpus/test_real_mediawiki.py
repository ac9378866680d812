"""Against a real MediaWiki: crawl, change the wiki, crawl again, kill, resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corpus.crawl import CrawlReport, crawl, rebuild
from corpus.mediawiki import MediaWiki
from corpus.store import Store, page_key
from tests.corpus.stub_wiki import contents, search
from tests.mediawiki_server import MediaWikiServer, mediawiki  # noqa: F401  (a fixture)

pytestmark = pytest.mark.mediawiki

INFOBOX = """{| class="infobox"
! colspan="2" | %s
|-
! Trade
| %s
|-
! Home
| [[Heron Reach]]
|}
"""
PAGES = {
    "Heron Reach": "'''Heron Reach''' is a fishing village on stilts.<ref>Harbour roll, leaf 2.</ref>\n\n"
    "== History ==\nIt was raised after the second flood by three quarrelling brothers.\n\n"
    "=== The salt year ===\nNobody bought fish for a year, and the village ate well.\n\n[[Category:Villages]]",
    "Odalia Brenn": INFOBOX
    % ("Odalia Brenn", "net mender")
    + "'''Odalia Brenn''' mends nets and remembers every debt.\n\n"
    "<blockquote>A knot is a promise that holds.</blockquote>\n\n"
    "== Youth ==\nShe learned her trade from a blind uncle.\n\n[[Category:Villagers]]",
    "Tamsin Łęcki": INFOBOX % ("Tamsin Łęcki", "ferryman")
    + "'''Tamsin Łęcki''' rows the ferry at dawn and at dusk.\n\n== Ferry ==\nThe ferry is called ''Slow Nettle''.",
    "Slow Nettle": "''Slow Nettle'' is a ferry with a patched hull & a bell from Ys'terra.",
    "Mud lantern": "A '''mud lantern''' is a light that eel catchers fear.\n\n== Sightings ==\nThree in one winter.",
}


def run(server: MediaWikiServer, store: Store, **options) -> CrawlReport:
    with MediaWiki.discover(server.url) as wiki:
        return crawl(wiki, store, **options)


def renderings(server: MediaWikiServer) -> int:
    return sum("action=parse" in line for line in server.served())


def test_a_wiki_is_crawled_edited_and_crawled_again(mediawiki: MediaWikiServer, tmp_path: Path) -> None:  # noqa: F811
    began = datetime.now(UTC).replace(microsecond=0)
    for title, text in PAGES.items():
        mediawiki.edit(title, text)
    mediawiki.redirect("The Reach", "Heron Reach")
    mediawiki.redirect("Salt year", "Heron Reach#The salt year")
    total = len(PAGES) + 1  # MediaWiki's own main page
    with Store(tmp_path / "archive.sqlite") as store:
        before = renderings(mediawiki)
        first = run(mediawiki, store)
        assert (first.fetched, first.unchanged, first.deleted, first.failed) == (total, 0, 0, [])
        assert renderings(mediawiki) - before == total
        assert store.aliases()["The Reach"] == "Heron Reach" and "Salt year" not in store.aliases()

        # What came back is what was written, with revision, address and licence.
        source = store.sources()[mediawiki.url.removeprefix("http://")]
        assert source.site_name == "Test Wiki" and source.generator.startswith("MediaWiki 1.")
        assert source.rights_url == "https://creativecommons.org/licenses/by-sa/3.0/"
        page = next(page for page in store.iter_raw_pages() if page.title == "Heron Reach")
        assert page.categories == ("Villages",) and page.aliases == ("The Reach",) and page.revid > 0
        assert page.url.startswith(mediawiki.url) and page.url.endswith(f"?oldid={page.revid}")
        saved = datetime.fromisoformat(page.revised_at)
        assert began <= saved <= datetime.fromisoformat(page.fetched_at), "it was saved in this test"
        article = store.article(page_key(page.source, page.pageid))
        assert article is not None and ("History", "The salt year") in [part.path for part in article.sections]
        assert any("quarrelling" in part.text for part in article.sections)
        for words, title in (("lecki", "Tamsin Łęcki"), ("ysterra", "Slow Nettle"), ("ferryman", "Tamsin Łęcki")):
            assert title in {found.title for found in store.passages(search(store, words))}, words

        # Nothing changed: nothing is rendered, nothing moves.
        snapshot, before = contents(store), renderings(mediawiki)
        again = run(mediawiki, store)
        assert (again.fetched, again.unchanged, again.deleted) == (0, total, 0)
        assert renderings(mediawiki) == before and contents(store) == snapshot

        # Edit one, delete one, redirect one: one page is rendered.
        mediawiki.edit("Odalia Brenn", PAGES["Odalia Brenn"].replace("blind uncle", "one-eyed aunt"))
        mediawiki.delete("Mud lantern")
        mediawiki.redirect("Nettle", "Slow Nettle")
        third = run(mediawiki, store)
        assert (third.fetched, third.unchanged, third.aliases, third.deleted) == (1, total - 3, 1, 1)
        assert renderings(mediawiki) == before + 1
        assert search(store, "aunt") and not search(store, "uncle") and not search(store, "lantern")
        assert store.aliases()["Nettle"] == "Slow Nettle" and search(store, "aliases:nettle")
        assert "Mud lantern" not in store.titles()

        # The archive equals one made from scratch, and rebuilding from its raw pages changes nothing.
        with Store(tmp_path / "fresh.sqlite") as fresh:
            run(mediawiki, fresh)
            assert contents(fresh) == contents(store)
        before = renderings(mediawiki)
        snapshot = contents(store)
        assert rebuild(store).failed == [] and contents(store) == snapshot and renderings(mediawiki) == before


@pytest.mark.parametrize("path", ["/", "/index.php/Main_Page", "/api.php", "/index.php?title=Main_Page"])
def test_the_api_is_found_from_any_address(mediawiki: MediaWikiServer, path: str) -> None:  # noqa: F811
    with MediaWiki.discover(mediawiki.url + path) as wiki:
        assert wiki.api == f"{mediawiki.url}/api.php"


def test_the_permanent_address_shows_that_very_revision(mediawiki: MediaWikiServer) -> None:  # noqa: F811
    mediawiki.edit("Bell & Rope?", "The bell is cracked.")
    with MediaWiki.discover(mediawiki.url) as wiki:
        listed = next(page for page in wiki.pages() if page.title == "Bell & Rope?")
        page = wiki.render(listed.pageid)
        mediawiki.edit("Bell & Rope?", "The bell was mended.")
        assert page is not None and page.revid == listed.revid
        assert "The bell is cracked." in wiki._client.get(page.url).text
        assert wiki.render(99999) is None
    mediawiki.delete("Bell & Rope?")


def test_small_batches_list_the_same_as_large_ones(mediawiki: MediaWikiServer) -> None:  # noqa: F811
    for title in ("Quay", "Wharf", "Jetty"):
        mediawiki.edit(title, f"Where boats wait: the {title.lower()}.")
        mediawiki.redirect(f"Old {title}", title)
        mediawiki.redirect(f"The {title}", title)

    class Small(MediaWiki):
        """Asks for one or two rows at a time, so that every answer has to be continued."""

        answers = 0

        def _api(self, request: dict[str, str]) -> dict:
            self.answers += 1
            limits = {"gaplimit": "2", "rdlimit": "1"}
            return super()._api({key: limits.get(key, value) for key, value in request.items()})

    with MediaWiki.discover(mediawiki.url) as large, Small.discover(mediawiki.url) as small:
        assert isinstance(small, Small)
        assert set(small.pages()) == set(large.pages()) and small.answers >= 2
        small.answers = 0
        redirects = large.redirects()
        assert small.redirects() == redirects and small.answers >= 6
    assert {("Old Quay", "The Quay"), ("Old Jetty", "The Jetty")} <= set(redirects.values())


def test_killed_and_resumed_equals_uninterrupted(mediawiki: MediaWikiServer, tmp_path: Path) -> None:  # noqa: F811
    mediawiki.edit_many(
        {
            f"Verse {n:02}": f"'''Verse {n:02}''' is sung when the eels run.\n\n== Words ==\nThe {n}th lamp is out."
            for n in range(25)
        }
    )
    mediawiki.redirect("Last verse", "Verse 24")
    archive = tmp_path / "killed.sqlite"
    command = [sys.executable, "-m", "tests.corpus.stub_wiki", mediawiki.url, str(archive), "--real-parser"]
    stored = 0
    for more in (2, 6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if archive.exists():
                with Store(archive) as store:
                    if store.counts()["pages"] >= stored + more:
                        break
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the crawl ended before it could be killed"
        with Store(archive) as store:
            stored = store.counts()["pages"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    fetched, unchanged, deleted = map(int, done.stdout.split())
    assert (unchanged, deleted) == (stored, 0) and fetched > 0
    with Store(archive) as killed, Store(tmp_path / "whole.sqlite") as whole:
        assert run(mediawiki, whole).fetched == fetched + unchanged
        assert contents(killed) == contents(whole)
        assert killed.aliases() == whole.aliases() and killed.aliases()["Last verse"] == "Verse 24"
        for words in ("eels", "lamp", "title:verse", "aliases:last"):
            assert search(killed, words) == search(whole, words) != []
