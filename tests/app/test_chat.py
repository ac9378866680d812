"""The page: what is shown, and that nothing of it is ever markup of somebody else's."""

from __future__ import annotations

from html.parser import HTMLParser

from app import chat
from app.render import Turn, conversation, escape, link
from app.theme import CSS, theme

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> ${alert(3)} {{x}} `y` @children [link](javascript:a) **b**"
)


class Tags(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def citation(**changes):
    passage = f"Before. {EVIL} is the quote. After."
    quote = f"{EVIL} is the quote."
    start = passage.index(quote)
    return {
        "n": 1, "title": EVIL, "url": "https://wiki.example/?oldid=1", "section": EVIL, "canon": "books",
        "passage": passage, "quote": quote, "start": start, "end": start + len(quote), "score": 1.0,
    } | changes  # fmt: skip


def answered(**changes):
    answer = {
        "question": EVIL, "standalone_question": f"{EVIL}?", "answer": f"{EVIL} [1]. And [2] no.", "abstained": False,
        "confidence": 0.83, "citations": [citation()], "timings": {"total": 1234.0}, "generator": "evidence",
    } | changes  # fmt: skip
    return Turn(EVIL, answer=answer)


def test_foreign_text_is_only_ever_text():
    page = conversation([answered(), Turn(EVIL, status=EVIL, draft=[EVIL])])
    seen = Tags(page)
    assert not {"script", "img"} & set(seen.tags)
    assert not any(name.startswith("on") for name, _ in seen.attributes)
    assert seen.text.count("<script>alert(1)</script>") >= 7  # everywhere it was put, as it was put
    assert not set("${}`@") & set(page)  # nothing for Gradio's templates to fill in


def test_the_quote_is_marked_where_it_stands():
    turn = answered(citations=[citation(passage="A b. C d. E", quote="C d.", start=5, end=9)])
    assert "A b. <mark>C d.</mark> E" in conversation([turn])


def test_citations_become_buttons_of_sources_that_exist():
    page = conversation([answered()])
    assert page.count('class="cite"') == 1 and 'data-source="source-0-1"' in page and 'id="source-0-1"' in page
    assert "And [2] no." in page
    assert "83%" in page and "Books" in page and "Understood as" in page and "1.2 s" in page


def test_only_web_addresses_become_links():
    assert 'href="https://a.example/"' in link("https://a.example/", "x")
    for address in ("javascript:alert(1)", "codex:character/ciri", "data:text/html,x", "//a.example", "http://[", ""):
        assert link(address, "x") == ""
    assert '"' not in link('https://a.example/" onclick="x', "y").split("href=")[1].split(" target")[0].strip('"')


def test_a_refusal_has_no_chip_and_no_sources():
    page = conversation([answered(abstained=True, citations=[], answer="The archives do not hold an answer.")])
    assert "confidence" not in page and "<aside" not in page and "silent" in page


def test_line_breaks_survive():
    assert escape("a\nb") == "a<br>b"


def test_reply_streams_status_drafts_and_the_answer(make):
    pipeline = make(lambda passages: "Orsolya was raised by the hermit Maruk [1]. Maruk was a dragon [1].")
    states = list(chat.reply(pipeline, "Who raised Orsolya?", "", []))
    pages = [page for _, page in states]
    assert "Searching" in pages[0] and "Maruk" in pages[-1] and "dragon" not in "".join(pages)
    turns = states[-1][0]
    assert chat.history_of(turns)[0][0] == "Who raised Orsolya?"
    follow = list(chat.reply(pipeline, "Who is her mother?", "", turns))[-1]
    assert "Ilvane" in follow[1] and len(follow[0]) == 2 and len(turns) == 1  # sessions do not share lists


def test_refusals_leave_no_history():
    assert chat.history_of([answered(abstained=True), Turn("x")]) == []


def test_a_page_can_be_built_without_telemetry_or_foreign_addresses(make, settings):
    page = chat.build(make(), settings)
    assert page.analytics_enabled is False
    # Buttons and box share one place in the queue, so that one question at a time uses the models.
    assert {fn.concurrency_id for fn in page.fns.values() if fn.queue and fn.fn and fn.types_generator} == {"answer"}
    assert theme()._stylesheets == [] and "http" not in CSS and "@import" not in CSS
