"""Building the archive and its index: codex, wiki, vectors, in that order and under one lock.

Each stage leaves what it finished.  When the wiki fails, or somebody presses Ctrl-C or Stop, everything stored until
then is still indexed, so the chat goes on with what there is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from app.progress import Both, Note, Stopped, noting
from app.settings import Settings
from corpus import chunk, codex, crawl
from corpus.errors import CorpusError, StoreError
from corpus.lock import ingest_lock
from corpus.mediawiki import MediaWiki
from corpus.store import Source, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from encoder import Encoder
    from retrieval.index import IndexReport

CODEX = "codex"


@dataclass(slots=True)
class IngestReport:
    """What an ingest did; ``lines`` is what the user reads at the end."""

    lines: list[str] = field(default_factory=list)
    error: CorpusError | KeyboardInterrupt | None = None  # what broke the wiki's part off
    stopped: bool = False  # a stage ended early because somebody asked for it: nothing is wrong


@dataclass(slots=True)
class CodexReport:
    """Articles of the codex, by what became of them."""

    stored: int = 0
    unchanged: int = 0
    deleted: int = 0


def load_codex(store: Store, settings: Settings) -> CodexReport:
    """Bring the archive's codex level with its folder; articles whose text is the same are not touched.

    Raises:
        CodexError: naming file and line, before anything is written.
        StoreError: when the archive cannot be written.
    """
    report = CodexReport()
    pages = list(codex.load(settings.codex))
    articles = [codex.parse_page(page) for page in pages]  # all are read first: a mistake in one changes nothing
    held = {row["pageid"]: row["sha"] for row in store.rows("SELECT pageid, sha FROM pages WHERE source = ?", [CODEX])}
    if pages:
        store.set_source(Source(CODEX, site_name="The codex", rights=pages[0].rights, rights_url=pages[0].rights_url))
    for page, article in zip(pages, articles, strict=True):
        if held.pop(page.pageid, None) == page.sha:
            report.unchanged += 1
            continue
        store.replace_page(page, article, chunk.passages(article))
        report.stored += 1
    for pageid in held:
        report.deleted += store.delete_page(CODEX, pageid)
    return report


def ingest(
    settings: Settings, *, wiki: str | None = None, limit: int | None = None, rebuild: bool = False
) -> IngestReport:
    """Codex, then ``wiki`` if one is given (at most ``limit`` pages), then the index.

    ``rebuild`` reads every stored page again first, without the network.  A wiki that fails, or Ctrl-C while it is
    read, ends up in ``report.error`` after the index has been built; everything else raises: ``Locked``,
    ``StoreError``, ``CodexError``, ``EncoderError``, ``IndexUnwritable``.

    ``progress.ask_to_stop`` ends the reading after the page at hand, and what was read is indexed; asked once more
    while that goes on, it leaves the index as it was.
    """
    console = Console(stderr=True)
    report = IngestReport()
    with ingest_lock(settings.data), noting(settings.data) as note, Store(settings.archive) as store:
        note.passages = lambda: int(store.rows("SELECT count(*) AS n FROM passages")[0]["n"])
        note.step("Reading the codex")
        encoder = _encoder(settings)  # first: missing weights should not be found out after an hour of fetching
        done = load_codex(store, settings)
        report.lines.append(
            f"Codex: {done.stored} articles stored, {done.unchanged} unchanged, {done.deleted} deleted."
        )
        with _until_stopped(report, note):
            if rebuild:
                note.step("Reading stored pages again")
                with crawl.RichProgress("Reading again", console) as bar:
                    again = crawl.rebuild(store, progress=Both(bar, note))
                report.lines.append(f"Rebuilt: {again.rebuilt} pages, {len(again.failed)} failed.")
            if wiki:
                try:
                    report.lines.append(_crawl(settings, store, wiki, limit, console, note))
                except StoreError:
                    raise  # what cannot be written to cannot be indexed either
                except (CorpusError, KeyboardInterrupt) as error:
                    report.error = error
                    report.lines.append("The wiki's part was cut short; what was fetched is kept and indexed.")
        note.step("Embedding passages")
        with _until_stopped(report, note):
            built = build_index(settings, store, encoder, console, note)
            counts = store.counts()
            report.lines.append(
                f"Index: {built.total} passages of {counts['pages']} pages "
                f"({built.added} added, {built.removed} removed, {built.embedded} embedded) in {built.seconds:.1f} s."
            )
        note.finish(tuple(report.lines), report.error, report.stopped)
    return report


@contextmanager
def _until_stopped(report: IngestReport, note: Note) -> Iterator[None]:
    """A part that ends early, and well, when somebody asks for it."""
    try:
        yield
    except Stopped:
        report.stopped = True
        now = note.now
        came = f" after {now.done:,} of {now.total:,}" if now.total is not None else ""
        report.lines.append(f"{now.step}: stopped{came}; what was done is kept. Start again to go on.")
    finally:
        note.heard()


def build_index(settings: Settings, store: Store, encoder: Encoder, console: Console, note: Note) -> IndexReport:
    """Embed what is new and swap the index in, with a progress bar."""
    from retrieval import index

    with _bar("Embedding passages", console) as progress:

        def tell(done: int, total: int) -> None:
            progress(done, total)
            note.at(done, total)

        return index.build(store, encoder, settings.index, tell)


def ensure_index(settings: Settings) -> None:
    """Build what is missing for a first start: the codex's archive and index, without the network.  Does nothing when
    there is an index, whatever its state: a damaged one is for the user to decide about."""
    from retrieval.index import MANIFEST

    if (settings.index / MANIFEST).exists():
        return
    print("No index yet: building it from the codex (no network needed).", file=sys.stderr)
    for line in ingest(settings).lines:
        print(line, file=sys.stderr)


def _encoder(settings: Settings) -> Encoder:
    from encoder import Encoder

    return Encoder.load(settings.encoder_weights)


def _crawl(settings: Settings, store: Store, address: str, limit: int | None, console: Console, note: Note) -> str:
    options = {"contact": settings.contact} if settings.contact else {}
    note.step("Asking the wiki what it holds")
    wiki = MediaWiki.discover(address, sleep=note.rest, **options)
    try:
        with crawl.RichProgress("Fetching", console) as bar:
            done = crawl.crawl(wiki, store, limit=limit, progress=Both(bar, _Fetching(note)))
    finally:
        wiki.close()
    rate = done.fetched / done.seconds if done.seconds else 0.0
    return (
        f"{done.source}: {done.listed} pages listed, {done.fetched} fetched ({rate:.1f} pages/s), "
        f"{done.unchanged} unchanged, {done.deleted} deleted, {len(done.failed)} failed."
    )


class _Fetching:
    """Passes a crawl on to a note, and says when listing has become fetching."""

    def __init__(self, note: Note) -> None:
        self.page, self.note, self._note = note.page, note.note, note

    def start(self, total: int) -> None:
        self._note.step("Fetching pages", total)


@contextmanager
def _bar(label: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a callback of (done, total)."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("ETA"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
