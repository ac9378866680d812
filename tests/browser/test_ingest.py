"""A wiki fetched from the Archive tab: a real MediaWiki, the chat as ``python app.py`` starts it, a real browser.

Needs what ``tests/mediawiki_server.py`` and ``conftest.py`` name; without either the tests are skipped and say so, or
fail if ``CIRILLA_REQUIRE_MEDIAWIKI`` or ``CIRILLA_REQUIRE_BROWSER`` is set.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from app.settings import ROOT
from tests.browser.conftest import free_port, settle, visits
from tests.browser.test_accessibility import findings
from tests.browser.test_chat import ask, show
from tests.mediawiki_server import MediaWikiServer, mediawiki  # noqa: F401  (a fixture)

pytestmark = pytest.mark.mediawiki

LAMPS = 50
QUESTION = "Who lit the amber lantern of Brennmoor?"
PATIENCE = 300.0  # seconds; a busy machine is no error
PAGES = {
    "Amber lantern": "The '''amber lantern''' of Brennmoor was lit by [[Vessela of Ysk]] in the winter of 1268.\n\n"
    "== Making ==\nIts glass was blown in Ysk by two sisters.",
    "Vessela of Ysk": "'''Vessela of Ysk''' is a lamp keeper. She was born in Brennmoor.",
}


@pytest.fixture(scope="module")
def wiki(mediawiki: MediaWikiServer) -> Iterator[MediaWikiServer]:  # noqa: F811
    mediawiki.edit_many(PAGES | {f"Lamp {n}": f"Lamp {n} hangs over quay {n} of Brennmoor." for n in range(LAMPS)})
    mediawiki.pause(0.25)  # seconds; the page looks every two
    yield mediawiki
    mediawiki.pause(0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of a chat that knows two articles."""
    (tmp_path / "codex" / "character").mkdir(parents=True)
    for name in ("ciri", "calanthe"):
        shutil.copy(ROOT / "corpus" / "codex" / "character" / f"{name}.md", tmp_path / "codex" / "character")
    url = f"http://127.0.0.1:{(port := free_port())}/"
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CIRILLA_", "SPACE_"))}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--data", str(tmp_path / "data"), "--port", str(port)],
            env=own | {"CIRILLA_CODEX": str(tmp_path / "codex"), "CIRILLA_CACHED_ANSWERS": "9"},
            cwd=tmp_path, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            until = time.monotonic() + PATIENCE
            while True:
                try:
                    urlopen(url, timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
                    time.sleep(0.1)
            yield url, process
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def page(chromium: Any, served: tuple[str, subprocess.Popen[bytes]]) -> Iterator[Any]:
    with visits(chromium, served[0]) as opened:
        yield opened()


def start(page: Any, address: str) -> None:
    """Give the Archive tab the address of a wiki, and begin."""
    show(page, "Archive")
    if not page.get_by_label("Address of the wiki").is_visible():
        page.get_by_role("button", name="Ingest").click()
        settle(page)
    box = page.get_by_label("Address of the wiki")
    box.fill(address)
    settle(page)
    assert box.input_value() == address
    page.get_by_role("button", name="Start", exact=True).click()


def watch(page: Any, until: Callable[[str], Any]) -> str:
    """What the progress says once it says so, as a reader sees it."""
    deadline = time.monotonic() + PATIENCE
    while not until(text := page.locator("#ingest-progress").inner_text()):
        assert time.monotonic() < deadline, text
        page.wait_for_timeout(50)
    return text


def done(text: str) -> int:
    """Pages fetched so far, 0 before the first."""
    found = re.search(r"Fetching pages · (\d+) of \d+ · [\d,]+ passages in the archive", text)
    return int(found[1]) if found else 0


def articles(page: Any, words: str) -> list[str]:
    """What the Archive's search lists for some words."""
    box = page.get_by_label("Search articles")
    box.fill("")
    page.locator("#archive-list label").nth(1).wait_for()  # all of them
    box.fill(words)
    page.get_by_text(re.compile(r"^(No article fits\.|1 article ·.*)$")).wait_for()
    return [text.strip() for text in page.locator("#archive-list label").all_inner_texts()]


def renderings(wiki: MediaWikiServer) -> int:
    return sum("action=parse" in line for line in wiki.served())


def facts(page: Any) -> str:
    """The accordion about the archive, opened."""
    table = page.locator(".archive table").first
    if not table.is_visible():
        page.get_by_role("button", name="About this archive").click()
        table.wait_for()
    return "\n".join(page.locator(".archive table").all_inner_texts())


def test_a_wiki_is_fetched_from_the_page_and_answers_at_once(
    page: Any, wiki: MediaWikiServer, served: tuple[str, subprocess.Popen[bytes]]
) -> None:
    turn = ask(page, QUESTION)
    assert "do not hold" in turn.locator(".text").inner_text()
    show(page, "Archive")
    assert articles(page, "amber lantern") == []
    start(page, "ftp://wiki.example")
    watch(page, lambda text: "is not a web address" in text and "did not end well" in text)

    start(page, wiki.url)
    seen = [0]

    def ended(text: str) -> bool:
        seen.append(done(text))
        return "ended well" in text

    said = watch(page, ended)
    grown = sorted({each for each in seen if each})
    assert len(grown) >= 2 and [each for each in seen if each] == sorted(each for each in seen if each), seen
    total = len(PAGES) + LAMPS + 1  # and MediaWiki's own main page
    assert f"{total} pages listed, {total} fetched" in said and "0 failed" in said
    assert page.get_by_role("button", name="Stop", exact=True).is_disabled()

    # Found without anything being started anew, with revision, date and licence.
    page.get_by_text("1 article · page 1 of 1").wait_for()  # the list of what was searched for before follows
    assert served[1].poll() is None
    (found,) = articles(page, "amber lantern")
    assert found.startswith("Amber lantern") and wiki.url.removeprefix("http://") in found
    page.get_by_text(found, exact=True).click()
    footer = page.locator("#archive-article footer")
    footer.wait_for()
    today = {datetime.fromtimestamp(time.time() - back, UTC).strftime("%Y-%m-%d") for back in (0, 3600)}
    revision = footer.get_by_role("link", name=re.compile(r"^revision \d+ of "))
    assert revision.inner_text().split()[-1] in today
    licence = footer.get_by_role("link", name="Creative Commons Attribution-ShareAlike 3.0")
    assert licence.get_attribute("href") == "https://creativecommons.org/licenses/by-sa/3.0/"
    address = revision.get_attribute("href")
    assert "blown in Ysk by two sisters" in urlopen(address, timeout=60).read().decode(), "the revision itself"
    about = facts(page)
    assert "Test Wiki" in about and "newest revision" in about and any(day in about for day in today)

    show(page, "Chat")
    turn = ask(page, QUESTION)
    assert "Vessela" in turn.locator(".text").inner_text()
    origin = turn.locator(".source .origin").first
    assert origin.get_by_role("link", name="Read this revision").get_attribute("href") == address
    assert "ShareAlike" in origin.inner_text()


def test_an_ingest_is_stopped_and_goes_on_later(page: Any, wiki: MediaWikiServer) -> None:
    total, before = len(PAGES) + LAMPS + 1, renderings(wiki)
    start(page, wiki.url)
    watch(page, done)
    page.get_by_role("button", name="Stop", exact=True).click()
    said = watch(page, lambda text: "was stopped" in text)
    found = re.search(r"Fetching pages: stopped after (\d+) of (\d+); what was done is kept", said)
    assert found, said
    fetched = int(found[1])
    assert int(found[2]) == total and 0 < fetched < total and renderings(wiki) - before == fetched
    assert re.search(rf"Articles\s+{2 + fetched}\b", facts(page)), "the codex's two, and what was fetched"
    assert page.get_by_role("button", name="Stop", exact=True).is_disabled()
    assert any(text.startswith("Amber lantern") for text in articles(page, "amber lantern")), "the first by its title"
    assert not findings(page)

    start(page, wiki.url)
    said = watch(page, lambda text: "ended well" in text)
    assert f"{total} pages listed, {total - fetched} fetched" in said and f"{fetched} unchanged" in said
    assert renderings(wiki) - before == total, "no page was fetched twice"
