"""What axe-core says about every tab, in light and dark, on phone and desktop; and pictures for the README."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.browser.test_chat import PAVETTA, ask, show

TABS = ("Chat", "Look inside", "Archive", "About")
HOLD = 0.95


def findings(page) -> list[str]:
    """Serious and critical findings of axe-core, one line each; and one when fewer of its rules hold than ``HOLD``.

    Lighthouse's score for accessibility is the share of axe's rules that hold, weighed in a way of its own.
    """
    from axe_playwright_python.sync_playwright import Axe

    response = Axe().run(page).response
    lines = [
        f"{each['impact']} {each['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
        for each in response["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
    broken, held = len(response["violations"]), len(response["passes"])
    if held < HOLD * (held + broken):
        lines.append(f"{held} of {held + broken} rules hold: {[each['id'] for each in response['violations']]}")
    return lines


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, scheme, width):
    viewport = {"width": width, "height": 740 if width < 600 else 900}
    page = open_page(color_scheme=scheme, reduced_motion="reduce", viewport=viewport, has_touch=width < 600)
    assert not findings(page), "empty page"
    ask(page, "Who is Gandalf?")
    ask(page, PAVETTA)
    page.locator(".dislike").last.click()
    page.get_by_text("Options").click()
    for tab in TABS:
        show(page, tab)
        page.wait_for_timeout(1_500)
        assert not findings(page), tab
    show(page, "Chat")
    page.locator(".whole").first.click()
    page.locator("#article mark").wait_for()
    assert not findings(page), "article"


def test_the_page_is_walked_through_in_order(open_page):
    page = open_page()
    ask(page, PAVETTA)
    page.locator(".cite").first.focus()
    order = []
    for _ in range(40):
        named = page.evaluate(
            "[document.activeElement.ariaLabel, document.activeElement.id, document.activeElement.tagName]"
        )
        order.append(next(filter(None, named)))
        page.keyboard.press("Tab")
    text = "\n".join(order)
    places = [text.find(name) for name in ("Show source 1", "Good answer", "Copy", "Passage of source 1")]
    assert -1 not in places and places == sorted(places), text


@pytest.mark.skipif(not os.environ.get("CIRILLA_SCREENSHOTS"), reason="CIRILLA_SCREENSHOTS names no folder")
def test_pictures_for_the_readme(open_page):
    folder = Path(os.environ["CIRILLA_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    page = open_page(viewport={"width": 1280, "height": 940}, reduced_motion="reduce")
    ask(page, "who is ciris grandmother?")
    ask(page, "Who is Gandalf?")
    page.locator(".cite").nth(1).click()
    page.wait_for_timeout(500)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)
    page.screenshot(path=folder / "chat.png")
    page.locator(".source.lit .whole").click()
    page.locator("#article mark").wait_for()
    page.wait_for_timeout(300)
    page.screenshot(path=folder / "article.png")
    page.keyboard.press("Escape")
    for tab, name in (("Look inside", "look-inside"), ("Archive", "archive")):
        if tab == "Look inside":
            show(page, "Chat")
            ask(page, "Who raised Ciri?")
        show(page, tab)
        if tab == "Look inside":
            page.locator(".inside table", has_text="Ciri").first.wait_for(state="attached")
        else:
            page.locator("label", has_text="Aard").first.click()
        page.wait_for_timeout(4_000)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=folder / f"{name}.png", full_page=tab == "Look inside")
    dark = open_page(viewport={"width": 1280, "height": 900}, color_scheme="dark", reduced_motion="reduce")
    ask(dark, "What is the Conjunction of the Spheres?")
    dark.wait_for_timeout(300)
    dark.evaluate("scrollTo(0, 0)")
    dark.screenshot(path=folder / "dark.png")
    phone = open_page(viewport={"width": 360, "height": 740}, device_scale_factor=2, reduced_motion="reduce")
    ask(phone, "who is ciris grandmother?")
    phone.wait_for_timeout(300)
    phone.evaluate("scrollTo(0, 0)")
    phone.screenshot(path=folder / "phone.png")
