"""The chat as a reader meets it, in a real browser."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from app.feedback import Feedback
from tests.browser.conftest import settle

PAVETTA = "Who is Ciri's mother?"


def ask(page, question):
    """Ask, and wait until the answer is complete; its turn."""
    turns = page.locator(".turn").count()
    page.fill("#question textarea", question)
    page.keyboard.press("Enter")
    turn = page.locator(".turn").nth(turns)
    turn.locator(".foot").wait_for()
    return turn


def test_the_page_can_be_used_soon(chat, open_page, record_property):
    open_page()  # the browser itself starts only once
    began = time.perf_counter()
    page = open_page()
    page.locator(".welcome .ask").first.wait_for()
    seconds = chat.seconds + time.perf_counter() - began
    record_property("seconds until the page can be used", round(seconds, 2))
    # Three seconds are promised on a machine that does nothing else; twice that is still no error, and a machine that
    # is busy proves nothing.
    assert seconds <= (6 if os.getloadavg()[0] < (os.cpu_count() or 1) else 120)
    assert page.evaluate("document.activeElement.closest('#question') !== null")


def test_an_answer_grows_and_shows_its_source(chat, open_page):
    page = open_page()
    chat.pipeline.pause = 0.7
    page.fill("#question textarea", PAVETTA)
    page.keyboard.press("Enter")
    turn = page.locator(".turn.pending")
    turn.locator(".status").wait_for()
    assert page.locator(".stop-button").is_visible() and not page.locator(".submit-button").is_visible()
    turn.get_by_text("A first sentence, already checked.").wait_for()
    assert page.locator(".foot").count() == 0, "part of the answer stood there before all of it"
    page.locator(".turn .foot").wait_for()
    turn = page.locator(".turn")
    assert "Pavetta" in turn.locator(".text").inner_text()
    assert "A first sentence" not in turn.inner_text()
    assert re.search(r"(High|Fair) confidence · \d\d%", turn.locator(".chip").inner_text())
    assert page.locator(".submit-button").is_visible() and not page.locator(".stop-button").is_visible()
    assert "Pavetta" in page.locator(".conversation [role=status]").inner_text()


def test_a_citation_opens_its_quote_in_its_article(open_page):
    page = open_page()
    turn = ask(page, PAVETTA)
    for n in range(turn.locator(".cite").count()):
        cite = turn.locator(".cite").nth(n)
        cite.click()
        source = page.locator(f"[id='{cite.get_attribute('data-source')}']")
        quote = source.locator("mark").inner_text()
        assert source.get_attribute("open") is not None and "Pavetta" in quote
        assert source.locator("mark").is_visible()
        assert "Ciri" in source.locator(".where").inner_text()
        assert "CC BY 4.0" in source.locator(".origin").inner_text()
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        # The quote stands within what its box shows.
        assert source.evaluate(
            """(node) => { const box = node.querySelector('blockquote').getBoundingClientRect();
            const mark = node.querySelector('mark').getBoundingClientRect();
            return mark.top >= box.top - 1 && mark.bottom <= box.bottom + 1; }"""
        )
        source.locator(".whole").click()
        article = page.locator("#article")
        article.locator("mark").wait_for()
        assert article.locator("h2").inner_text().startswith("Ciri")
        assert article.locator("mark").inner_text() == quote and article.locator("h3").count() > 3
        assert article.locator("mark").evaluate(
            "m => { const r = m.getBoundingClientRect(); return r.top > 0 && r.bottom < innerHeight }"
        )
        page.keyboard.press("Escape")
        assert not article.is_visible()
        assert page.evaluate("document.activeElement.classList.contains('whole')"), "focus goes back to where it was"


def test_a_wiki_page_that_means_harm_is_shown_as_text(open_page):
    page = open_page()
    turn = ask(page, "What does the Zmorgulon feed on?")
    assert turn.locator(".source a").first.get_attribute("href") == "https://evil.example/?oldid=7"
    turn.locator(".whole").first.click()
    page.locator("#article .article").first.wait_for()
    for place in (turn, page.locator("#article")):
        text = place.inner_text()
        assert "<script>window.hacked = 1</script>" in text and "${window.hacked=3} {{#if x}}" in text
        assert "**[gold](javascript:window.hacked=4)**" in text
    assert page.locator(".conversation script, .conversation img, #article script, #article img").count() == 0
    page.keyboard.press("Escape")
    ask(page, "<img src=x onerror=window.hacked=5> ${window.hacked=6} {{x}}")
    ask(page, "`</script><svg onload=window.hacked=7>`")
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked") is None


def test_a_refusal_suggests_what_there_is(open_page):
    page = open_page()
    turn = ask(page, "Who is Gandalf?")
    assert "do not hold" in turn.locator(".text").inner_text() and turn.locator(".chip").count() == 0
    suggestion = turn.locator(".nearest .ask").first
    title = suggestion.inner_text().strip()
    assert title
    suggestion.click()
    page.locator(".turn").nth(1).locator(".foot").wait_for()
    assert title in page.locator(".turn").nth(1).locator(".question").inner_text()


def test_follow_up_canon_and_options(chat, open_page):
    page = open_page()
    ask(page, PAVETTA)
    turn = ask(page, "And her father?")
    assert "Emhyr" in turn.locator(".text").inner_text() and "Understood as" in turn.inner_text()
    page.get_by_text("Options").click()
    page.locator("#length").get_by_text("Short").click()
    page.locator("#canon").get_by_text("Games").click()
    ask(page, "Who is Triss Merigold?")
    assert chat.pipeline.asked[-1][1:] == ("games", {"length": "short"})
    badges = page.locator(".turn").last.locator(".badge").all_inner_texts()
    assert not set(badges) & {"Books", "Television"}
    ask(page, "Which deck of gwent has weather cards in The Witcher 3?")
    badges = page.locator(".turn").last.locator(".badge").all_inner_texts()
    assert badges and set(badges) == {"Games"}
    # One tab stop for the canons, and arrow keys between them.
    page.locator("#canon input:checked").focus()
    page.keyboard.press("ArrowLeft")
    ask(page, "Who is Triss?")
    assert chat.pipeline.asked[-1][1] == "books"


def test_opinions_are_kept(chat, open_page):
    page = open_page()
    turn = ask(page, "What is gwent?")
    turn.locator(".like").click()
    page.locator(".like[aria-pressed=true]").wait_for()
    opinions = Feedback(chat.settings, str)
    row = opinions.rows()[-1]
    assert (row["verdict"], row["question"]) == ("like", "What is gwent?") and row["index_version"]
    turn.locator(".dislike").click()
    turn.get_by_text("What it says is wrong").click()
    turn.locator("textarea").fill("It is <b>dwarven</b>; 'DROP TABLE feedback")
    turn.get_by_role("button", name="Send").click()
    page.locator(".dislike[aria-pressed=true]").wait_for()
    assert not turn.locator(".reasons").is_visible()
    changed = opinions.rows()[-1]
    assert (changed["id"], changed["verdict"], changed["reason"]) == (row["id"], "dislike", "wrong")
    assert "dwarven" in changed["comment"] and "127.0.0.1" not in json.dumps(opinions.rows())
    turn.locator(".dislike").click()  # taken back
    page.locator(".dislike[aria-pressed=false]").wait_for()
    assert row["id"] not in [each["id"] for each in opinions.rows()]


def test_a_conversation_becomes_a_file(open_page):
    page = open_page()
    ask(page, PAVETTA)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    assert re.fullmatch(r"cirilla-\d{4}-\d\d-\d\d\.md", download.value.suggested_filename)
    text = download.value.path().read_text(encoding="utf-8")
    assert "## Who is Ciri's mother?" in text and "Pavetta" in text and "CC BY 4.0" in text


def test_history_survives_a_reload_and_is_nobody_elses(open_page):
    page = open_page()
    ask(page, "What is Kelpie?")
    page.locator(".like").click()
    page.locator(".like[aria-pressed=true]").wait_for()
    page.reload()
    page.locator(".turn .foot").wait_for()
    assert page.locator(".turn").count() == 1 and page.locator(".like[aria-pressed=true]").count() == 1
    page.locator(".whole").first.click()
    page.locator("#article mark").wait_for()
    page.keyboard.press("Escape")
    turn = ask(page, "And who owned her?")
    assert "Kelpie" in turn.inner_text()
    assert open_page().locator(".turn").count() == 0, "another browser knows nothing of it"
    page.get_by_role("button", name="New conversation").click()
    page.locator(".welcome").wait_for()
    page.wait_for_timeout(500)
    page.reload()
    page.locator(".welcome .ask").first.wait_for()
    assert page.locator(".turn").count() == 0


def test_what_a_browser_kept_cannot_harm(open_page):
    page = open_page()
    ask(page, "What is Kelpie?")
    page.wait_for_timeout(500)
    # The value is encrypted with a key that every page carries, so anybody can write one: here, with rubbish for it.
    page.evaluate("localStorage.setItem('cirilla-conversation', '<img src=x onerror=window.hacked=1>')")
    page.reload()
    page.locator(".welcome .ask").first.wait_for()
    assert ask(page, PAVETTA).locator(".cite").count() and page.evaluate("window.hacked") is None


def test_a_shared_link_asks_its_question_once(open_page, chat):
    page = open_page("?q=What+is+Aerondight%3F&__theme=light")
    page.locator(".turn .foot").wait_for()
    assert "sword" in page.locator(".turn .text").inner_text()
    assert "q=" not in page.url
    page.reload()
    page.locator(".turn .foot").wait_for()
    assert page.locator(".turn").count() == 1
    page = open_page("?q=%3Cimg%20src%3Dx%20onerror%3Dwindow.hacked%3D1%3E%24%7Bwindow.hacked%3D2%7D")
    page.locator(".turn .foot").wait_for()
    assert page.evaluate("window.hacked") is None and page.locator(".conversation img").count() == 0


def test_copy_and_share_fill_the_clipboard(chat, open_page, chromium):
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    try:
        page = open_page(context=context)
        turn = ask(page, PAVETTA)
        turn.locator(".copy").click()
        turn.locator(".copy", has_text="Copied").wait_for()
        text = page.evaluate("navigator.clipboard.readText()")
        assert text.startswith(PAVETTA) and "\n[1] Ciri" in text
        turn.locator(".share").click()
        turn.locator(".share", has_text="Link copied").wait_for()
        link = page.evaluate("navigator.clipboard.readText()")
        assert link == f"{chat.url}?q=Who+is+Ciri%27s+mother%3F"
    finally:
        context.close()


def test_stop_retry_and_edit(chat, open_page):
    page = open_page()
    chat.pipeline.pause = 1.5
    page.fill("#question textarea", PAVETTA)
    page.keyboard.press("Enter")
    page.locator(".turn.pending .status").wait_for()
    page.locator(".stop-button").click()
    page.locator(".turn .problem").wait_for()
    assert page.locator(".turn .problem").inner_text() == "Stopped."
    chat.pipeline.pause = 0.0
    page.locator(".retry").click()
    page.locator(".turn .foot").wait_for()
    assert page.locator(".turn").count() == 1
    page.locator(".edit").click()
    page.wait_for_function("document.querySelector('#question textarea').value !== ''")
    assert page.locator("#question textarea").input_value() == PAVETTA
    assert "anew" in page.locator("#question").inner_text()
    page.locator("#question textarea").fill("Who is Ciri's father?")
    page.locator("#question textarea").press("Enter")
    page.get_by_text("Emhyr").first.wait_for()
    assert page.locator(".turn").count() == 1
    page.wait_for_function("document.querySelector('#question').innerText.includes('Your question')")


def test_a_failure_is_told_and_can_be_tried_again(open_page):
    page = open_page()
    page.fill("#question textarea", "Break, please.")
    page.keyboard.press("Enter")
    page.locator(".turn .problem").wait_for()
    assert "went wrong" in page.locator(".turn .problem").inner_text()
    assert page.locator(".retry").is_visible()
    assert "Pavetta" in ask(page, PAVETTA).inner_text()


def test_two_readers_do_not_mix(chat, open_page):
    one, other = open_page(), open_page()
    chat.pipeline.pause = 0.4
    one.fill("#question textarea", "What is gwent?")
    other.fill("#question textarea", "What is Aerondight?")
    one.keyboard.press("Enter")
    other.keyboard.press("Enter")
    for page, told in ((one, "card game"), (other, "sword")):
        page.locator(".turn .foot").wait_for()
        assert page.locator(".turn").count() == 1 and told in page.locator(".turn").inner_text()


def test_the_last_answer_can_be_looked_into(open_page):
    page = open_page()
    ask(page, PAVETTA)
    page.locator(".tool.inside").click()
    page.get_by_role("tab", name="Look inside", selected=True).wait_for()
    page.locator(".inside h3").first.wait_for()
    page.locator(".inside table", has_text="mother").first.wait_for(state="attached")
    for name in ("tokens-of-the-question", "candidates", "map-of-the-archive", "time-by-stage"):
        drawing = page.locator(f"#inside-{name} .js-plotly-plot")
        drawing.wait_for(state="attached")
        assert drawing.evaluate("plot => plot.data.length > 0 && plot.data.some(trace => trace.visible !== false)"), (
            name
        )
    # The map: zoomed by dragging, and coloured by what the reader chooses.
    box = page.locator("#inside-map-of-the-archive")
    box.scroll_into_view_if_needed()
    plot = box.locator(".js-plotly-plot")
    kinds = plot.evaluate("plot => plot.data.map(trace => trace.name)")
    axis = "plot => plot.layout.xaxis.range.slice()"
    whole = plot.evaluate(axis)
    area = box.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(area["x"] + area["width"] * 0.3, area["y"] + area["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] * 0.6, area["y"] + area["height"] * 0.6, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    near = plot.evaluate(axis)
    assert near[1] - near[0] < 0.8 * (whole[1] - whole[0]), "the map cannot be zoomed"
    page.get_by_label("Canon", exact=True).last.check()
    names = "document.querySelector('#inside-map-of-the-archive .js-plotly-plot').data.map(trace => trace.name)"
    page.wait_for_function(f"old => {names}.join() !== old", arg=",".join(kinds))


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(open_page, width):
    page = open_page(viewport={"width": width, "height": 740})
    ask(page, PAVETTA)
    ask(page, "x" * 1_500)
    for tab in ("Chat", "Look inside", "Archive", "About"):
        show(page, tab)
        page.wait_for_timeout(700)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab


def show(page, tab):
    """Open a tab, on a narrow screen perhaps from the menu of those that have no room."""
    button = page.get_by_role("tab", name=tab, exact=True)
    if not button.count() or not button.first.is_visible():
        page.get_by_label("More tabs").click()
        page.locator(".overflow-dropdown").get_by_text(tab, exact=True).click()
    else:
        button.first.click()
    settle(page)
