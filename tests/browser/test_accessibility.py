"""What axe-core says about every tab, in light and dark, on phone and desktop; and pictures for the README."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.browser.test_chat import PAVETTA, ask, show

TABS = ("Chat", "Look inside", "Archive", "About")


def findings(page) -> list[str]:
    """Serious and critical findings of axe-core, one line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['impact']} {each['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:300]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, scheme):
    page = open_page(color_scheme=scheme, reduced_motion="reduce")
    assert not findings(page), "empty page"
    ask(page, PAVETTA)
    ask(page, "Who is Gandalf?")
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


def test_axe_finds_nothing_serious_on_a_phone(open_page):
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True)
    ask(page, PAVETTA)
    assert not findings(page)


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
