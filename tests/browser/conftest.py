"""A running chat on the real codex, and a browser that may talk to nobody else.

The index is built once for all tests, in a temporary data folder.  Pages of a wiki that means harm are put beside the
codex, and the pipeline is slowed a little, so that a test can see an answer while it grows.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from app.answer import Draft, Event, Final
from app.carry import Turn
from app.pipeline import Pipeline
from app.settings import Settings

BROWSER = shutil.which("chromium") or "/usr/bin/chromium"
EVIL = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
EVIL_TEXT = (
    f"The Zmorgulon is a beast of the Amell swamps. {EVIL} The Zmorgulon feeds on "
    "${window.hacked=3} {{#if x}}lanterns{{/if}} and **[gold](javascript:window.hacked=4)**. `x` @children "
    "</blockquote>"
)


def _missing() -> str:
    try:
        import axe_playwright_python  # noqa: F401
        import playwright  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed: pip install -e '.[dev]'"
    return "" if Path(BROWSER).exists() else "there is no Chromium: apt install chromium"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is a browser test; without a browser it is skipped, aloud."""
    here = [item for item in items if Path(item.path).parent == Path(__file__).parent]
    why = _missing() if here else ""
    if why and os.environ.get("CIRILLA_REQUIRE_BROWSER") == "1":
        pytest.fail(f"CIRILLA_REQUIRE_BROWSER=1, but {why}", pytrace=False)
    for item in here:
        item.add_marker(pytest.mark.browser)
        if why:
            item.add_marker(pytest.mark.skip(reason=f"No browser test ran: {why}"))


class Paced(Pipeline):
    """The pipeline, with a breath before each event as long as ``pause`` says; it remembers what it was asked."""

    pause = 0.0

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []

    def stream(
        self, question: str, history: Sequence[Turn] = (), canon: str | None = None, **options: Any
    ) -> Iterator[Event]:
        self.asked.append((question, canon, options))
        if question == "Break, please.":
            raise RuntimeError("on purpose")
        for event in super().stream(question, history, canon, **options):
            if self.pause and isinstance(event, Final):
                yield Draft("A first sentence, already checked.")  # with these weights, drafts are rare
                time.sleep(self.pause)
            yield event
            time.sleep(self.pause)


@dataclass
class Chat:
    """The server under test."""

    url: str
    settings: Settings
    pipeline: Paced
    seconds: float  # from the call of serve() to the first page


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="package")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    """The chat as ``python app.py`` serves it, its index built from the codex and a harmful wiki."""
    # CIRILLA_BROWSER_DATA names a folder that is kept from run to run, for those who work on the page.
    data = Path(os.environ.get("CIRILLA_BROWSER_DATA") or tmp_path_factory.mktemp("browser") / "data")
    from app.serve import keep_files_in

    keep_files_in(data)
    from app import api
    from app import settings as app_settings
    from app.chat import build
    from app.ingest import ensure_index
    from app.ingest import ingest as run_ingest
    from app.limits import Guarded
    from app.serve import serve
    from corpus.chunk import passages
    from corpus.store import Store
    from corpus.types import Article, Page, Section

    settings = app_settings.load(data=data, port=free_port(), rate_limit=0, cached_answers=0)
    if not settings.archive.exists():
        with Store(settings.archive) as store:
            title = "Zmorgulon"
            page = Page(
                "evil.example", 1, title, 7, "https://evil.example/?oldid=7", "<p/>", title, rights="CC BY-SA 3.0"
            )
            article = Article(title, (Section((), EVIL_TEXT), Section((f"Habits {EVIL}",), f"It sleeps. {EVIL}")))
            store.replace_page(page, article, passages(article))
        run_ingest(settings)
    ensure_index(settings)
    pipeline = Paced.open(settings)
    assert isinstance(pipeline, Paced)
    answers = Guarded(pipeline, settings)
    blocks = build(answers, settings)
    with blocks:
        api.add(answers, settings)
    began = time.perf_counter()
    threading.Thread(target=serve, args=(blocks, settings), daemon=True).start()
    url = f"http://127.0.0.1:{settings.port}/"
    while True:
        try:
            with urlopen(url, timeout=1) as reply:
                assert reply.status == 200
            break
        except OSError:
            assert time.perf_counter() - began < 60, "the server did not start"
            time.sleep(0.05)
    yield Chat(url, settings, pipeline, time.perf_counter() - began)
    blocks.close(verbose=False)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """One browser for this folder only: while it lives an event loop runs, and no other test could start its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chat: Chat, chromium: Any) -> Iterator[Callable[..., Any]]:
    """``open_page(path="", **context)``: a page of a new reader, see ``visits``."""
    chat.pipeline.pause = 0.0
    with visits(chromium, chat.url) as opened:
        yield opened


def settle(page: Any) -> None:
    """Wait until what has just appeared is whole.

    For some tens of milliseconds after Gradio shows a field for the first time, it may put the field's first value back
    over what is typed; a person is never that fast.
    """
    page.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => requestIdleCallback(done))))"
    )
    page.wait_for_timeout(200)


@contextmanager
def visits(chromium: Any, url: str) -> Iterator[Callable[..., Any]]:
    """``opened(path="", **context)``: a page of a new reader of the chat at ``url``.

    The test fails if the page asked any other server for anything, or if one of its scripts failed.
    """
    contexts: list[Any] = []
    strangers: list[str] = []
    errors: list[str] = []

    def opened(path: str = "", context: Any = None, **options: Any) -> Any:
        if context is None:
            options.setdefault("viewport", {"width": 1280, "height": 900})
            context = chromium.new_context(**options)
            contexts.append(context)
        context.set_default_timeout(90_000)  # a busy machine is no error
        page = context.new_page()

        def check(request: Any) -> None:
            if not request.url.startswith((url, "data:", "blob:")):
                strangers.append(request.url)

        page.on("request", check)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url + path)
        page.locator("#question textarea").wait_for()
        settle(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not strangers, f"requests to other servers: {strangers}"
    assert not errors, f"errors in the page's scripts: {errors}"
