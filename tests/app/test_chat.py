"""The page: what is shown, and that nothing of it is ever markup of somebody else's."""

from __future__ import annotations

import copy
import json
from html.parser import HTMLParser

import pytest

from app import chat, turns
from app.limits import Guarded
from app.render import attribute, cited, conversation, escape, link
from app.theme import CSS, theme
from app.turns import Place, Turn

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


def answered(nearest=(), **changes):
    answer = {
        "question": EVIL, "standalone_question": f"{EVIL}?", "answer": f"{EVIL} [1]. And [2] no.", "abstained": False,
        "confidence": 0.83, "citations": [citation()], "timings": {"total": 1234.0}, "generator": "evidence",
    } | changes  # fmt: skip
    return Turn(EVIL, answer=answer, nearest=list(nearest))


def test_foreign_text_is_only_ever_text():
    evil = answered(abstained=True, nearest=[EVIL])
    evil.places = {1: Place(7, EVIL, "javascript:alert(1)")}
    page = conversation([answered(), evil, Turn(EVIL, status=EVIL, draft=[EVIL])], said=EVIL)
    page += conversation([Turn(EVIL, problem=EVIL)]) + conversation([], examples=[EVIL])
    seen = Tags(page)
    assert not {"script", "img"} & set(seen.tags)
    assert not any(name.startswith("on") for name, _ in seen.attributes)
    assert not any((value or "").startswith("javascript") for name, value in seen.attributes if name == "href")
    assert seen.text.count("<script>alert(1)</script>") >= 12  # everywhere it was put, as it was put
    assert not set("${}`@") & set(page)  # nothing for Gradio's templates to fill in


def test_the_quote_is_marked_where_it_stands():
    turn = answered(citations=[citation(passage="A b. C d. E", quote="C d.", start=5, end=9)])
    assert "A b. <mark>C d.</mark> E" in conversation([turn])


def test_citations_become_buttons_of_sources_that_exist():
    turn = answered()
    page = conversation([turn])
    assert page.count('class="cite"') == 1
    assert f'data-source="source-{turn.id}-1"' in page and f'id="source-{turn.id}-1"' in page
    assert "And [2] no." in page
    assert "83%" in page and "Books" in page and "Understood as" in page and "1.2 s" in page
    assert cited("A [1]. B” [1] [3].", "t", frozenset({1})).startswith("A.<sup>")


def test_only_web_addresses_become_links():
    assert 'href="https://a.example/"' in link("https://a.example/", "x")
    for address in ("javascript:alert(1)", "codex:character/ciri", "data:text/html,x", "//a.example", "http://[", ""):
        assert link(address, "x") == ""
    assert '"' not in link('https://a.example/" onclick="x', "y").split("href=")[1].split(" target")[0].strip('"')


def test_a_refusal_has_no_chip_and_no_sources_but_suggestions():
    text = "The archives do not hold an answer. The nearest articles: Roach, Kelpie."
    page = conversation([answered(abstained=True, citations=[], answer=text, nearest=["Roach", "Kelpie"])])
    assert "confidence" not in page and "<aside" not in page and "silent" in page
    assert page.count('class="ask"') == 2 and "Tell me about Kelpie." in page
    assert "nearest articles:" not in page.split('class="text"')[1].split("</p>")[0]


def test_line_breaks_survive():
    assert escape("a\nb") == "a<br>b" and attribute('a\n"b"') == "a&#10;&quot;b&quot;"


def run(pipeline, question, before=(), canon="", **options):
    """The turns and the page after every event."""
    now = chat.begin(question, before)
    return now, [conversation(now) for _ in chat.reply(pipeline, now, canon, **options)]


def test_reply_streams_status_drafts_and_the_answer(make):
    pipeline = make(lambda passages: "Orsolya was raised by the hermit Maruk [1]. Maruk was a dragon [1].")
    now, pages = run(pipeline, "Who raised Orsolya?")
    assert "Searching" in pages[0] and "Maruk" in pages[-1] and "dragon" not in "".join(pages)
    assert chat.history_of(now)[0][0] == "Who raised Orsolya?"
    assert "https://test.example/?oldid=1" in pages[-1] and now[0].places[1].passage
    later, pages = run(pipeline, "Who is her mother?", now)
    assert "Ilvane" in pages[-1] and len(later) == 2 and len(now) == 1  # sessions do not share lists


def test_of_refusals_the_question_is_left_and_of_small_talk_nothing():
    refused = chat.history_of([answered(abstained=True), Turn("x")])
    assert [(turn.question, turn.answer) for turn in refused] == [(refused[0].question, "")]
    thanks = Turn("Thanks!", answer=answered(abstained=True).answer)
    assert chat.history_of([thanks]) == []
    assert chat.history_of([answered()])[0].titles


def test_one_question_at_a_time():
    waiting = chat.begin("a", [])
    assert chat.begin("b", waiting) == waiting and chat.begin("  ", []) == []
    chat.end(waiting)
    assert waiting[0].problem == chat.STOPPED
    assert [turn.question for turn in chat.begin("b", waiting, replace=True)] == ["b"]
    assert [turn.question for turn in chat.begin("b", waiting)] == ["a", "b"]


def test_whoever_stops_gets_no_answer_any_more(make):
    now = chat.begin("Who raised Orsolya?", [])
    events = chat.reply(make(), now, "")
    next(events)
    chat.end(now)
    assert list(events) == [] and now[0].answer is None


def test_a_bug_is_told_in_one_sentence():
    class Broken:
        def stream(self, *args, **options):
            raise RuntimeError("secret")
            yield

    _, pages = run(Broken(), "Why?")
    assert chat.BROKEN in pages[-1] and "secret" not in pages[-1] and "pending" not in pages[-1]


def test_options_reach_the_pipeline():
    asked = []

    class Listening:
        def stream(self, question, history=(), canon=None, **options):
            asked.append((canon, options))
            return iter(())

    run(Listening(), "Why?", canon="tv", length="long", passages=7)
    assert asked == [("tv", {"length": "long", "passages": 7})]


def test_what_the_browser_keeps_comes_back():
    turn = answered(nearest=["Roach"])
    turn.places, turn.verdict = {1: Place(2**62, "CC BY", "https://a.example/")}, "like"
    kept = json.loads(json.dumps(turns.keep([turn, Turn("unanswered")])))
    (back,) = turns.restore(kept)
    assert turns.keep([back]) == kept and back.places == turn.places
    assert chat.history_of([back]) == chat.history_of([turn])
    assert turns.keep([answered(citations=[citation() for _ in range(1)]) for _ in range(99)]).__len__() == turns.SHOWN


@pytest.mark.parametrize(
    "change",
    [
        {"id": "source-1\" onclick=x"}, {"question": 5}, {"answer": None}, {"confidence": float("nan")},
        {"confidence": 7}, {"verdict": "<b>"}, {"nearest": "Roach"}, {"citations": {}}, {"citations": [{}]},
        {"total": -1.0}, {"abstained": "no"}, {"question": "x" * 20_001}, {"nearest": [["x"]]},
    ],
)  # fmt: skip
def test_what_a_browser_made_up_is_left_out(change):
    good = turns.keep([answered()])[0]
    assert turns.restore([good | change]) == [] and len(turns.restore([good | change, good])) == 1


@pytest.mark.parametrize(
    "change", [{"n": "1"}, {"canon": 'x" y'}, {"start": 9_999_999}, {"end": -1}, {"place": "1; --"}, {"passage": 3}]
)
def test_citations_that_a_browser_made_up_are_left_out(change):
    bad = copy.deepcopy(turns.keep([answered()])[0])
    bad["citations"][0] |= change
    assert turns.restore([bad]) == []


@pytest.mark.parametrize("kept", [None, 3, "x", {}, [None], [[[]]], [{"id": 1}]])
def test_rubbish_restores_to_nothing(kept):
    assert turns.restore(kept) == []


def test_an_article_shows_its_quote(make):
    pipeline = make()
    now, _ = run(pipeline, "Who raised Orsolya?")
    (place, *_), citation = now[0].places.values(), now[0].answer["citations"][0]
    wanted = {"passage": str(place.passage), "start": citation["start"], "end": citation["end"]}
    page = chat.article_html(pipeline.store, wanted)
    assert escape(citation["quote"]) in page.split("<mark>")[1].split("</mark>")[0]
    assert "Brennport" in page and "Biography" in page and "https://test.example/?oldid=1" in page
    bads: tuple[dict[str, object], ...] = (
        {"start": -1},
        {"end": 10**9},
        {"start": "0"},
        {"start": None},
        {"end": True, "start": 5},
    )
    for bad in bads:
        assert "<mark></mark>" in chat.article_html(pipeline.store, wanted | bad)
    strange: list[object] = [None, [], {}, {"passage": "x"}, {"passage": "٣"}, {"passage": "9" * 30}, {"passage": "1"}]
    for each in strange:
        assert "no longer" in chat.article_html(pipeline.store, each)


def test_an_article_is_only_ever_text(make):
    store = make().store
    (row,) = store.rows("SELECT id FROM passages WHERE text LIKE '%script%'")
    page = chat.article_html(store, {"passage": str(row["id"]), "start": 10, "end": 60})
    assert "script" not in Tags(page).tags and "<script>" in Tags(page).text


def test_examples_change():
    assert len({tuple(chat.draw_examples()) for _ in range(30)}) > 1
    assert len(set(chat.EXAMPLES)) == len(chat.EXAMPLES) >= 20


def test_a_page_can_be_built_without_telemetry_or_foreign_addresses(make, settings):
    page = chat.build(Guarded(make(), settings), settings)
    assert page.analytics_enabled is False
    # Questions wait in app.limits, all in one place; nothing of the page is an endpoint for programs.
    assert {fn.concurrency_limit for fn in page.fns.values() if fn.types_generator} <= {None, 1}
    assert not [fn for fn in page.fns.values() if fn.api_visibility == "public"]
    assert theme()._stylesheets == [] and "http" not in CSS and "@import" not in CSS
