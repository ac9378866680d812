"""A conversation as Markdown: complete, and never more than text."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from app import export
from app.turns import Place, Turn
from tests.app.test_chat import EVIL, answered, citation

AT = datetime(2026, 3, 4, 5, 6)


def rendered(text: str) -> str:
    """What a renderer that allows HTML and turns addresses into links makes of it."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(text)


def test_everything_is_there():
    turn = answered(answer="Pavetta [1].", citations=[citation(passage="Her mother was Pavetta.", quote="was Pavetta.",
                    start=11, end=23, title="Ciri", section="Family", canon="books")])  # fmt: skip
    turn.question, turn.places = "Who is Ciri's mother?", {1: Place(5, "CC BY-SA 3.0")}
    text = export.markdown([turn, Turn("Not answered")], AT)
    for part in ("4 March 2026", "## Who is Ciri's mother?", "Pavetta \\[1\\].", "**\\[1\\] Ciri › Family**",
                 "> was Pavetta.", "CC BY-SA 3.0", "books", "(<https://wiki.example/?oldid=1>)", "83%"):  # fmt: skip
        assert part in text
    assert "Not answered" not in text


def test_foreign_text_stays_text():
    html = rendered(export.markdown([answered(nearest=[])], AT))
    assert "<script" not in html and "<img" not in html and "<strong>b</strong>" not in html
    assert html.count("<a ") == 1 and "https://wiki.example/?oldid=1" in html
    assert "alert(1)" in html


@given(st.text(max_size=200))
def test_no_text_becomes_markup(text):
    html = rendered(export.escape(text))
    assert set(_tags(html)) <= {"<p>", "</p>", "<br />"} or not text.strip() or "    " in text or "\t" in text
    assert "<a " not in html and "<script" not in html


def _tags(html: str) -> list[str]:
    import re

    return re.findall(r"<[^>]*>", html)


def test_only_web_addresses_become_links():
    assert export.link("https://a.example/w (x)>y", "z") == "[z](<https://a.example/w%20%28x%29%3Ey>)"
    for address in ("javascript:alert(1)", "codex:ciri", "http://[", "//a.example", ""):
        assert export.link(address, "z") == ""


def test_plain_text_names_its_sources():
    text = export.plain(answered())
    assert text.startswith(EVIL) and "https://wiki.example/?oldid=1" in text
    assert export.plain(Turn("Only asked")) == "Only asked"
