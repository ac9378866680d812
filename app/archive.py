"""The "Archive" tab: articles to browse, search and read, facts about the index, and ingests to start or watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from app import live
from app.catalogue import OTHER, PER_PAGE, Catalogues, Filter, Listed, article_html, index_html
from app.fetching import AGAIN, CODEX, WIKI, Ingests, is_off, needs_secret
from app.progress import DONE, STOPPED, State
from app.render import CANONS, escape
from app.settings import Settings
from corpus.errors import CirillaError

if TYPE_CHECKING:
    from app.pipeline import Pipeline

WATCHED_EVERY = 2.0  # seconds
LETTERS = [("Any", ""), *((letter, letter) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), ("0–9 and others", OTHER)]
WELCOME = '<p class="quiet">Choose an article from the list to read it here.</p>'
STEPS = (("Fetch a wiki", WIKI), ("Codex only, no network", CODEX), ("Read stored pages again, no network", AGAIN))

STYLE = """<style>
.archive table { border-collapse: collapse; width: 100%; font-size: .875rem; margin-bottom: .8rem; }
.archive caption { text-align: left; font-weight: 600; padding: .3rem .5rem; }
.archive th, .archive td { text-align: left; padding: .25rem .5rem; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary); }
.archive .scroll { overflow-x: auto; } .archive progress { width: 100%; height: .8rem; accent-color: #0f766e; }
.archive ul { list-style: disc; padding-left: 1.4rem; }
.archive a { text-decoration: underline; }
.archive .wrong { border-left: 3px solid #b3391f; padding-left: .6rem; }
#archive-list .wrap { flex-direction: column; flex-wrap: nowrap; }
#archive-list label { width: 100%; }
</style>"""

# On a phone the article opens below the list: bring it into view.  A wide page shows both, and moving would startle.
TO_ARTICLE = """() => { if (window.innerWidth < 768)
  document.querySelector('#archive-article')?.scrollIntoView({ behavior: 'smooth', block: 'start' }); }"""


class Archive:
    """What the tab's events do; every method returns values for components and shows errors as sentences."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self.pipeline, self.settings = pipeline, settings
        self.catalogues = Catalogues(pipeline)
        self.ingests = Ingests(pipeline, settings)

    def choices(self) -> tuple[Any, Any]:
        """Sources and kinds that there are, for their lists."""
        try:
            catalogue = self.catalogues.get()
            names = {id: source.site_name or id for id, source in self.pipeline.store.sources().items()}
        except CirillaError:
            return gr.update(), gr.update()
        sources = [("All", ""), *((names.get(id, id), id) for id in catalogue.values("source"))]
        kinds = [("All", ""), *((kind.capitalize(), kind) for kind in catalogue.values("kind"))]
        return gr.update(choices=sources), gr.update(choices=kinds)

    def browse(self, page: int, *wanted: str) -> tuple[Any, ...]:
        """One page (from 0) of the list: (page, list, its heading, "previous", "next")."""
        try:
            catalogue = self.catalogues.get()
            names = getattr(self.pipeline.searcher, "names", None)
            found = catalogue.find(Filter(*(each or "" for each in wanted)), self.pipeline.store, names)
        except CirillaError as error:
            return 0, gr.update(choices=[], value=None), _said(str(error)), *_buttons(0, 1)
        pages = max(1, -(-len(found) // PER_PAGE))
        page = min(max(0, page), pages - 1)
        shown = found[page * PER_PAGE : (page + 1) * PER_PAGE]
        several = len(set(entry.source for entry in catalogue.entries)) > 1
        listing = gr.update(choices=[(label(each, several), str(each.entry.id)) for each in shown], value=None)
        count = f"{len(found):,} article{'' if len(found) == 1 else 's'}"
        said = f"{count} · page {page + 1:,} of {pages:,}" if found else "No article fits."
        return page, listing, _said(said), *_buttons(page, pages)

    def catch_up(self, seen: str, page: int, *wanted: str) -> tuple[Any, ...]:
        """The lists of a new index: (its version, sources, kinds, as ``browse``); nothing changes while ``seen`` is in
        use, for somebody may be choosing from them."""
        now = live.version(self.pipeline)
        if now == seen:
            return (gr.skip(),) * 8
        return now, *self.choices(), *self.browse(page, *wanted)

    def read(self, chosen: str | None) -> str:
        """The chosen article as HTML."""
        try:
            return article_html(self.pipeline.store, int(chosen)) if chosen else WELCOME
        except ValueError:
            return WELCOME
        except CirillaError as error:
            return _said(str(error))

    def facts(self) -> str:
        try:
            return index_html(self.pipeline)
        except CirillaError as error:
            return _said(str(error))

    def start(self, what: str, wiki: str, limit: float | None, secret: str = "") -> tuple[Any, ...]:
        """Begin an ingest: (why not, progress, timer, "stop", the secret's box emptied)."""
        pages = int(limit) if limit else None
        return self._try(secret, lambda: self.ingests.start(what, wiki or "", pages)), *self.watch(), ""

    def stop(self, secret: str = "") -> tuple[Any, ...]:
        """Ask a running ingest to end: (why not, progress, timer, "stop")."""
        return self._try(secret, self.ingests.stop), *self.watch()

    def _try(self, secret: str, do: Callable[[], None]) -> str:
        """Do what needs the secret; why it was refused, "" if it was not."""
        try:
            self.ingests.allow(secret or "")
            do()
        except CirillaError as error:
            return f'<div class="archive"><p class="wrong" role="alert">{escape(str(error))}</p></div>'
        return ""

    def watch(self) -> tuple[Any, ...]:
        """How far an ingest has come: (progress, timer, "stop")."""
        running = self.ingests.running()
        if not running:
            self.ingests.catch_up()
        stopping = self.ingests.stopping()
        return (
            progress_html(self.ingests.state(), running, self.ingests.error, stopping),
            gr.update(active=running),
            gr.update(interactive=running and not stopping),
        )


def label(listed: Listed, several: bool) -> str:
    """An article in the list: title, kind, canon, its source where there are several, and what it was found by."""
    entry = listed.entry
    about = [part for part in (entry.kind, CANONS.get(entry.canon, ""), entry.source if several else "") if part]
    found = {"": "", "text": " — in its text"}.get(listed.by, f" — also “{listed.by}”")
    return f"{entry.title}{found}" + (f" ({', '.join(about)})" if about else "")


def progress_html(state: State | None, running: bool, error: str, stopping: bool = False) -> str:
    """An ingest for people; ``error`` is one line, "" when all went well."""
    if running and (state is None or not state.alive):
        said = '<p role="status">Starting…</p>'  # or reloading: the process is there before or after its file
    elif state is None:
        said = '<p class="quiet">No ingest has been recorded here yet.</p>'
    elif state.alive:
        count = f"{state.done:,} of {state.total:,}" if state.total is not None else ""
        bar = ""
        if state.total:
            share = state.done / state.total
            bar = (
                f'<progress max="{state.total}" value="{state.done}" aria-label="{escape(state.step)}">'
                f"{share:.0%}</progress>"
            )
        said = (
            f"<p>{escape(state.step)} {f'· {count} ' if count else ''}· {state.passages:,} passages in the archive</p>"
            f"{bar}"
        )
    else:
        ended = "did not end well" if state.error else "was broken off"
        ended = {DONE: "ended well", STOPPED: "was stopped"}.get(state.state, ended)
        said = f"<p>The last ingest {ended}; it began {escape(_when(state.started))}.</p>" + _lines(state.lines)
    if running and stopping:
        said += '<p role="status">Stopping as soon as the page at hand is done.</p>'
    notes = _lines(state.notes) if state is not None and running else ""
    wrong = f'<p class="wrong" role="alert">{escape(error)}</p>' if error and not running else ""
    return f'<div class="archive">{wrong}{said}{notes}</div>'


def _when(stamp: str) -> str:
    return stamp.replace("T", " ").replace("+00:00", " UTC") or "at an unknown time"


def _lines(lines: tuple[str, ...]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _said(text: str) -> str:
    return f'<p role="status">{escape(text)}</p>'


def _buttons(page: int, pages: int) -> tuple[Any, Any]:
    return gr.update(interactive=page > 0), gr.update(interactive=page < pages - 1)


def tab(pipeline: Pipeline, settings: Settings) -> None:
    """Build the tab, inside ``with gr.Tab(…)``."""
    archive = Archive(pipeline, settings)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    free: dict[str, Any] = {"queue": False, **quiet}  # reads of a few milliseconds: they need not wait for an answer

    gr.HTML(STYLE, apply_default_css=False)
    with gr.Row():
        query = gr.Textbox(label="Search articles", placeholder="A title, another name, or words of the text", scale=3)
        letter = gr.Dropdown(LETTERS, value="", label="First letter", scale=1, min_width=120)
    with gr.Row():
        source = gr.Dropdown([("All", "")], value="", label="Source", min_width=140)
        kind = gr.Dropdown([("All", "")], value="", label="Kind", min_width=140)
        canon = gr.Dropdown([("All", ""), *((name, id) for id, name in CANONS.items())], value="", label="Canon",
                            min_width=140)  # fmt: skip
    page, version = gr.State(0), gr.State(live.version(pipeline))
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            heading = gr.HTML(apply_default_css=False)
            listing = gr.Radio([], label="Articles", elem_id="archive-list")
            with gr.Row():
                previous = gr.Button("Previous page", size="sm", min_width=100, interactive=False)
                following = gr.Button("Next page", size="sm", min_width=100, interactive=False)
        with gr.Column(scale=3, min_width=320):
            article = gr.HTML(WELCOME, apply_default_css=False, elem_id="archive-article")

    wanted = [query, source, kind, canon, letter]
    listed = [page, listing, heading, previous, following]
    gr.on(None, lambda *asked: archive.browse(0, *asked), wanted, listed, trigger_mode="always_last", **free)
    gr.on(None, archive.choices, None, [source, kind], **free)
    previous.click(lambda at, *asked: archive.browse(at - 1, *asked), [page, *wanted], listed, **free)
    following.click(lambda at, *asked: archive.browse(at + 1, *asked), [page, *wanted], listed, **free)
    listing.input(archive.read, listing, article, **free).then(None, js=TO_ARTICLE, api_visibility="private")

    with gr.Accordion("About this archive", open=False):
        facts = gr.HTML(apply_default_css=False)
    gr.on(None, archive.facts, None, facts, **free)
    with gr.Accordion("Ingest", open=False):
        tick = _ingest(archive, settings, free)
    told = tick.then(archive.facts, None, facts, **free)
    told.then(archive.catch_up, [version, page, *wanted], [version, source, kind, *listed], **free)


def _ingest(archive: Archive, settings: Settings, free: dict[str, Any]) -> Any:
    """The part of the tab that starts and watches ingests; the event that comes again and again while one runs."""
    off = is_off(settings)
    if off:
        gr.HTML(
            '<p class="quiet">Ingests cannot be started from this page: its owner has not set a secret for it. '
            "One that runs can be watched.</p>",
            apply_default_css=False,
        )
    refused = gr.HTML(apply_default_css=False)  # of its own, for the timer writes the progress anew
    progress = gr.HTML(apply_default_css=False, elem_id="ingest-progress")
    timer = gr.Timer(WATCHED_EVERY, active=False)
    what = gr.Radio(STEPS, value=WIKI, label="What to do", visible=not off)
    with gr.Row(visible=not off):
        wiki = gr.Textbox(settings.wiki, label="Address of the wiki", scale=3, max_length=500)
        limit = gr.Number(0, label="Pages at most", info="0: all of them", precision=0, minimum=0, scale=1)
    secret = gr.Textbox(label="Secret", type="password", visible=not off and needs_secret(settings), max_length=500)
    with gr.Row(visible=not off):
        start = gr.Button("Start", variant="primary", min_width=100)
        stop = gr.Button("Stop", interactive=False, min_width=100)
    shown = [progress, timer, stop]
    gr.on(None, archive.watch, None, shown, **free)
    if not off:
        start.click(archive.start, [what, wiki, limit, secret], [refused, *shown, secret], **free)
        stop.click(archive.stop, secret, [refused, *shown], **free)
    return timer.tick(archive.watch, None, shown, **free)
