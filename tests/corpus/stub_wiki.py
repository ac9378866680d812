"""A small MediaWiki of our own: it speaks the part of the API that the crawl uses, and can be told to misbehave.

    with StubWiki() as wiki:
        wiki.edit("Otter Ford", "<p>Text.</p>")
        wiki.trouble("500", times=2, when="parse")
        MediaWiki.discover(wiki.url)

``python -m tests.corpus.stub_wiki URL ARCHIVE`` crawls a wiki once, for the tests that kill a process.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from corpus.crawl import crawl
from corpus.mediawiki import MediaWiki
from corpus.store import Store
from corpus.types import Article, Page, Passage, Section

SITE = {
    "general": {
        "sitename": "Stub Wiki",
        "generator": "MediaWiki 1.39.0",
        "base": "/wiki/Main",
        "articlepath": "/wiki/$1",
        "script": "/index.php",
        "server": "",
    },
    "rightsinfo": {"url": "https://creativecommons.org/licenses/by-sa/3.0/", "text": "CC BY-SA 3.0"},
}


@dataclass
class Request:
    path: str
    params: dict[str, str]
    headers: dict[str, str]


@dataclass
class Trouble:
    kind: str
    times: int
    when: str  # substring of the request's path and query
    headers: dict[str, str]
    code: str


@dataclass
class StubPage:
    title: str
    revid: int
    html: str
    categories: list[str]

    @property
    def saved(self) -> str:
        """When its revision was saved, as the API writes it: a minute after the one before."""
        return f"{datetime(2026, 1, 1) + timedelta(minutes=self.revid):%Y-%m-%dT%H:%M:%SZ}"


@dataclass
class StubWiki:
    """State is plain attributes; the tests change them between crawls."""

    pages: dict[int, StubPage] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)  # title → target, "Target#Section" for a section
    requests: list[Request] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    robots: str | None = None
    batch: int = 500
    split: bool = False  # answer each batch of the listing in two parts
    endless: bool = False  # never end the listing
    script: str = "/api.php"
    edit_uri: bool = True
    pause: float = 0.0  # s before each rendering
    revision: int = 100

    def __enter__(self) -> StubWiki:
        handler = type("Handler", (_Handler,), {"wiki": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def edit(self, title: str, html: str, categories: tuple[str, ...] = ()) -> int:
        """Make or change a page; returns its id."""
        self.revision += 1
        pageid = next((key for key, page in self.pages.items() if page.title == title), len(self.pages) + self.revision)
        self.pages[pageid] = StubPage(title, self.revision, html, list(categories))
        return pageid

    def trouble(self, kind: str, times: int = 1, when: str = "", code: str = "", **headers: str) -> None:
        """Answer the next ``times`` requests that contain ``when`` wrongly.

        Kinds: an HTTP status, ``malformed``, ``html``, ``list``, ``truncated``, ``reset``, ``slow``, ``loop``,
        ``huge``, ``error`` (API error ``code``).
        """
        self.troubles.append(Trouble(kind, times, when, {k.replace("_", "-"): v for k, v in headers.items()}, code))

    def asked(self, what: str) -> list[Request]:
        """Requests so far whose action, path or one of whose properties is ``what``."""
        return [
            r for r in self.requests if what in (r.params.get("action"), r.path, *r.params.get("prop", "").split("|"))
        ]

    # -- answers -----------------------------------------------------------------------------------------------

    def answer(self, params: dict[str, str]) -> dict[str, Any]:
        if params.get("action") == "parse":
            time.sleep(self.pause)
            return self._parse(int(params["pageid"]))
        if params.get("meta") == "siteinfo":
            return {"batchcomplete": True, "query": SITE}
        if params.get("gapfilterredir") == "nonredirects" and params.get("prop") == "info|revisions":
            return self._listing(params)
        if params.get("gapfilterredir") == "nonredirects" and params.get("prop") == "redirects":
            return self._redirects(params)
        return {"error": {"code": "badvalue", "info": "The stub does not know this request."}}

    def _parse(self, pageid: int) -> dict[str, Any]:
        page = self.pages.get(pageid)
        if page is None:
            return {"error": {"code": "nosuchpageid", "info": f"There is no page with ID {pageid}."}}
        text = f'<div class="mw-parser-output">{page.html}</div>'
        categories = [{"sortkey": "", "category": name.replace(" ", "_")} for name in page.categories]
        categories.append({"sortkey": "", "category": "Pages_with_broken_files", "hidden": True})  # type: ignore[dict-item]
        return {
            "parse": {
                "title": page.title,
                "pageid": pageid,
                "revid": page.revid,
                "text": text,
                "sections": [],
                "categories": categories,
                "displaytitle": f'<span class="mw-page-title-main"><i>{page.title}</i></span>',
            }
        }

    def _listing(self, params: dict[str, str]) -> dict[str, Any]:
        at = int(params.get("gapcontinue", "0"))
        ids = sorted(self.pages, key=lambda key: self.pages[key].title)
        batch = ids[at : at + self.batch]
        half = len(batch) // 2 if self.split else len(batch)
        second = params.get("incontinue") == "half"
        pages = []
        for place, pageid in enumerate(batch):
            row: dict[str, Any] = {"pageid": pageid, "ns": 0, "title": self.pages[pageid].title}
            if second == (place >= half):
                row["lastrevid"] = self.pages[pageid].revid
                row["revisions"] = [{"revid": row["lastrevid"], "timestamp": self.pages[pageid].saved}]
            pages.append(row)
        answer: dict[str, Any] = {"query": {"pages": pages}} if pages else {}
        if self.split and not second:
            answer["continue"] = {"incontinue": "half", "gapcontinue": str(at), "continue": "gapcontinue||"}
            return answer
        answer["batchcomplete"] = True
        if at + self.batch < len(ids) or self.endless:
            answer["continue"] = {
                "gapcontinue": str(at if self.endless else at + self.batch),
                "continue": "gapcontinue||",
            }
        return answer

    def _redirects(self, params: dict[str, str]) -> dict[str, Any]:
        """Batches of pages, each answered in parts of at most ``batch`` redirects, as the real API does."""
        at, skip = int(params.get("gapcontinue", "0")), int(params.get("rdcontinue", "0"))
        ids = sorted(self.pages, key=lambda key: self.pages[key].title)
        pages: dict[int, dict[str, Any]] = {}
        rows: list[tuple[int, dict[str, str]]] = []
        for pageid in ids[at : at + self.batch]:
            pages[pageid] = {"pageid": pageid, "ns": 0, "title": self.pages[pageid].title}
            for alias, target in sorted(self.redirects.items()):
                title, _, fragment = target.partition("#")
                if title == self.pages[pageid].title:
                    rows.append((pageid, {"title": alias, **({"fragment": fragment} if fragment else {})}))
        for pageid, row in rows[skip : skip + self.batch]:
            pages[pageid].setdefault("redirects", []).append(row)
        answer: dict[str, Any] = {"query": {"pages": list(pages.values())}} if pages else {}
        if skip + self.batch < len(rows):
            after = {"rdcontinue": str(skip + self.batch), "continue": "||"}
            answer["continue"] = {**after, **({"gapcontinue": str(at)} if at else {})}
            return answer
        answer["batchcomplete"] = True
        if at + self.batch < len(ids):
            answer["continue"] = {"gapcontinue": str(at + self.batch), "continue": "gapcontinue||"}
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up, and the connections we cut ourselves, are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    wiki: StubWiki
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body go out together, at once: else each answer waits for a delayed acknowledgement
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        wiki, parts = self.wiki, urlsplit(self.path)
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        wiki.requests.append(Request(parts.path, params, {k.lower(): v for k, v in self.headers.items()}))
        for trouble in wiki.troubles:
            if trouble.times and trouble.when in self.path and (trouble.when or parts.path != "/robots.txt"):
                trouble.times -= 1
                return self._misbehave(trouble)
        if parts.path == wiki.script:
            return self._send(200, json.dumps(wiki.answer(params)), "application/json; charset=utf-8")
        if parts.path == "/robots.txt" and wiki.robots is not None:
            return self._send(200, wiki.robots, "text/plain")
        if parts.path == "/" or parts.path.startswith("/wiki/"):
            link = f'<link rel="EditURI" type="application/rsd+xml" href="{wiki.script}?action=rsd"/>'
            return self._send(200, f"<html><head>{link if wiki.edit_uri else ''}</head><body>Hello</body></html>")
        self._send(404, "<html>Not here</html>")

    def _send(self, status: int, body: str, kind: str = "text/html", **headers: str) -> None:
        raw = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(raw)
        except OSError:
            self.close_connection = True

    def _misbehave(self, trouble: Trouble) -> None:
        js = "application/json"
        if trouble.kind.isdigit():
            self._send(int(trouble.kind), "<html>Trouble</html>", **trouble.headers)
        elif trouble.kind == "error":
            self._send(200, json.dumps({"error": {"code": trouble.code, "info": "Because."}}), js, **trouble.headers)
        elif trouble.kind == "malformed":
            self._send(200, '{"query": {"pages": [', js)
        elif trouble.kind == "list":
            self._send(200, "[1, 2]", js)
        elif trouble.kind == "html":
            self._send(200, "<!DOCTYPE html><html>Just a moment…</html>")
        elif trouble.kind == "loop":
            self._send(302, "", Location=self.path)
        elif trouble.kind == "huge":
            self._send(200, json.dumps({"parse": "x" * 3_000_000}), js)
        elif trouble.kind == "slow":
            time.sleep(1.0)
            self._send(200, "{}", js)
        elif trouble.kind == "truncated":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"parse": {')
            self.close_connection = True
        else:  # reset
            self.close_connection = True
            self.connection.close()


def parse(page: Page) -> Article:
    """A parser for tests: each paragraph is a section."""
    if "CRASH" in page.html:
        raise ValueError("this page cannot be read")
    texts = re.findall(r"<p>(.*?)</p>", page.html, flags=re.S)
    sections = tuple(Section((f"Part {n}",) if n else (), text) for n, text in enumerate(texts))
    return Article(page.title, sections, categories=page.categories)


def chunk(article: Article) -> list[Passage]:
    """A chunker for tests: each section is a passage."""
    return [
        Passage(article.title, part.path, part.text, 0, len(part.text), section=n, aliases=article.aliases)
        for n, part in enumerate(article.sections)
    ]


def contents(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All that a crawl must reproduce: everything except the times of fetching, in a fixed order."""
    queries = {
        "pages": "SELECT id, source, pageid, title, display_title, revid, revised_at, url, sha, html, categories, "
        "canon FROM pages",
        "aliases": "SELECT * FROM aliases",
        "sections": "SELECT * FROM sections",
        "facts": "SELECT * FROM facts",
        "quotes": "SELECT * FROM quotes",
        "passages": "SELECT * FROM passages",
        "fts": "SELECT rowid, * FROM passages_fts",
    }
    found = {name: store.rows(sql) for name, sql in queries.items()}
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def search(store: Store, words: str) -> list[int]:
    """Ids of the passages that match, sorted."""
    rows = store.rows("SELECT rowid AS id FROM passages_fts WHERE passages_fts MATCH ? ORDER BY rowid", [words])
    return [row["id"] for row in rows]


if __name__ == "__main__":
    own = "--real-parser" not in sys.argv
    with MediaWiki.discover(sys.argv[1]) as client, Store(sys.argv[2]) as archive:
        done = crawl(client, archive, parse=parse if own else None, chunk=chunk if own else None)
    print(done.fetched, done.unchanged, done.deleted)
