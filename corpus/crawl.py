"""Bring the archive level with a wiki, and re-read the archive without the network.

What makes a crawl safe to kill: the archive itself is the only state.  A page is stored in one transaction, and the
next run compares the wiki's listing with the revisions it finds there, so it goes on where the last one stopped.
``corpus.lock.ingest_lock`` keeps two crawls apart; take it before calling.

A page counts as changed when its ``lastrevid`` did.  An edited template changes pages without a new revision of their
own; such pages are fetched again only when they are next edited.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from corpus.errors import WikiBroken
from corpus.mediawiki import Listed, MediaWiki
from corpus.store import Store, page_key
from corpus.types import Article, Page, Passage

GIVE_UP_AFTER = 5  # pages in a row that the wiki could not render: then the wiki is broken, not the pages

Parse = Callable[[Page], Article]
Chunk = Callable[[Article], Sequence[Passage]]


@dataclass(frozen=True, slots=True)
class Failure:
    """A page that was left as it was, and why."""

    title: str
    reason: str


@dataclass(slots=True)
class CrawlReport:
    """What a crawl did, in pages."""

    source: str
    listed: int = 0
    fetched: int = 0
    unchanged: int = 0
    aliases: int = 0  # unchanged themselves, stored again because their redirects changed
    deleted: int = 0
    vanished: int = 0  # gone between the listing and their turn; a later run deletes what is left of them
    failed: list[Failure] = field(default_factory=list)
    complete: bool = False  # the whole wiki was listed (no limit), so deletions were possible
    seconds: float = 0.0


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild did, in pages."""

    rebuilt: int = 0
    failed: list[Failure] = field(default_factory=list)
    seconds: float = 0.0


class Watcher(Protocol):
    """What a caller may pass as ``progress``."""

    def start(self, total: int) -> None:
        """``total`` pages are due; called once, before the first ``page``."""

    def page(self, title: str) -> None:
        """One page is done, whatever came of it."""

    def note(self, line: str) -> None:
        """Something worth a line: a wait, a page that failed."""


def crawl(
    wiki: MediaWiki,
    store: Store,
    *,
    limit: int | None = None,
    progress: Watcher | None = None,
    parse: Parse | None = None,
    chunk: Chunk | None = None,
) -> CrawlReport:
    """Fetch what changed, drop what is gone.  ``limit`` stops the listing after so many pages (and deletes nothing).

    Raises ``WikiUnreachable``, ``WikiRefused``, ``WikiBroken`` or ``StoreError``; what was stored until then stays.
    """
    began = time.monotonic()
    watch, parse, chunk = progress or _Silent(), parse or _parser(), chunk or _chunker()
    wiki.notice = watch.note
    source = wiki.source()
    earlier = store.sources().get(source.id)
    store.set_source(replace(source, last_run=earlier.last_run if earlier else ""))
    report = CrawlReport(source.id)

    listing, report.complete = _list(wiki, limit)
    report.listed = len(listing)
    redirects = wiki.redirects()
    revisions, aliases = store.revisions(source.id), store.redirects(source.id)
    if report.complete:
        gone = revisions.keys() - {listed.pageid for listed in listing}
        if gone and not listing:
            raise WikiBroken(f"{source.id} suddenly lists no pages at all; nothing was deleted.")
        for pageid in sorted(gone):
            report.deleted += store.delete_page(source.id, pageid)

    store.date_revisions(source.id, {(each.pageid, each.revid): each.revised_at for each in listing})
    due = []
    for listed in listing:
        same = revisions.get(listed.pageid) == listed.revid
        if same and aliases.get(listed.pageid, set()) == set(redirects.get(listed.pageid, ())):
            report.unchanged += 1
        else:
            due.append((listed, same))
    watch.start(len(due))
    broken = 0
    for listed, same in due:
        page: Page | None
        try:
            page = store.raw_page(page_key(source.id, listed.pageid)) if same else wiki.render(listed.pageid)
            broken = 0
        except WikiBroken as error:
            broken += 1
            if broken >= GIVE_UP_AFTER:
                raise
            _fail(report, watch, listed.title, str(error))
            watch.page(listed.title)
            continue
        if page is None:
            report.vanished += 1
        elif _keep(store, _complete(page, listed, redirects.get(page.pageid, ())), parse, chunk, report, watch):
            report.aliases += same
            report.fetched += not same
        watch.page(listed.title)

    if report.complete:
        store.set_source(replace(source, last_run=datetime.now(UTC).isoformat(timespec="seconds")))
    report.seconds = time.monotonic() - began
    return report


def rebuild(
    store: Store,
    *,
    source: str | None = None,
    progress: Watcher | None = None,
    parse: Parse | None = None,
    chunk: Chunk | None = None,
) -> RebuildReport:
    """Read every stored page (of one ``source``) again, without the network: after the parser or chunker changed.

    ``parse`` replaces the parser of every source; by default wiki pages go through ``corpus.clean`` and the codex
    through ``corpus.codex``.
    """
    began = time.monotonic()
    watch, chunk = progress or _Silent(), chunk or _chunker()
    parsers: dict[bool, Parse] = {}
    report = RebuildReport()
    watch.start(len(store.revisions(source)) if source is not None else store.counts()["pages"])
    for page in store.iter_raw_pages(source):
        codex = page.source == "codex"
        if codex not in parsers:
            parsers[codex] = parse or _parser(codex)
        report.rebuilt += _keep(store, page, parsers[codex], chunk, report, watch)
        watch.page(page.title)
    report.seconds = time.monotonic() - began
    return report


def _list(wiki: MediaWiki, limit: int | None) -> tuple[list[Listed], bool]:
    """The wiki's pages, and whether that is all of them."""
    listing: list[Listed] = []
    for listed in wiki.pages():
        if limit is not None and len(listing) >= limit:
            return listing, False
        listing.append(listed)
    return listing, True


def _complete(page: Page, listed: Listed, aliases: tuple[str, ...]) -> Page:
    """The page with what only the listings tell: its redirects, and the date of its revision.

    A page edited since it was listed has a newer revision; the next crawl's listing tells its date.
    """
    return replace(page, aliases=aliases, revised_at=listed.revised_at if listed.revid == page.revid else "")


def _keep(
    store: Store, page: Page, parse: Parse, chunk: Chunk, report: CrawlReport | RebuildReport, watch: Watcher
) -> bool:
    """Parse, chunk and store one page; a page that cannot be read is reported and left as it was."""
    try:
        article = parse(page)
        passages = chunk(article)
    except Exception as error:  # one odd page must not end a run of thousands; the next run tries it again
        _fail(report, watch, page.title, f"{type(error).__name__}: {error}")
        return False
    store.replace_page(page, article, passages)
    return True


def _fail(report: CrawlReport | RebuildReport, watch: Watcher, title: str, reason: str) -> None:
    report.failed.append(Failure(title, reason))
    watch.note(f"Skipped “{title}”: {reason}")


def _parser(codex: bool = False) -> Parse:
    # Imported when needed: the parsers bring lxml, which a chat that only reads the archive does without.
    if codex:
        from corpus.codex import parse_page as parse_codex

        return parse_codex
    from corpus.clean import parse_page

    return parse_page


def _chunker() -> Chunk:
    from corpus.chunk import passages

    return passages


class _Silent:
    def start(self, total: int) -> None: ...

    def page(self, title: str) -> None: ...

    def note(self, line: str) -> None: ...


class _Rate(ProgressColumn):
    """Pages per second; rich's own speed column counts bytes."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} pages/s" if speed else "– pages/s", style="progress.data.speed")


class RichProgress:
    """A ``Watcher`` for terminals: bar, count, pages/s and the time that is left.  Use it in a ``with``."""

    def __init__(self, label: str = "Pages", console: Console | None = None) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=60.0,  # a polite crawl does about a page a second
        )
        self._task = self._bar.add_task(label, total=None)

    def __enter__(self) -> RichProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def start(self, total: int) -> None:
        self._bar.update(self._task, total=total)

    def page(self, title: str) -> None:
        self._bar.advance(self._task)

    def note(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)
