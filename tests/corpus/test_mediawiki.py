"""The client against a wiki that misbehaves: what is asked, how long we wait, what the user is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.utils import formatdate

import pytest

import corpus.mediawiki as mediawiki
from corpus.errors import CirillaError, NotAWiki, WikiBroken, WikiRefused, WikiUnreachable
from corpus.mediawiki import Listed, MediaWiki
from tests.corpus.stub_wiki import StubWiki

NOW = 1_900_000_000.0  # s since the epoch, on the tests' wall clock


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def options(self) -> dict:
        return {"sleep": self.sleep, "clock": lambda: self.now, "wall_clock": lambda: NOW + self.now}


@pytest.fixture
def stub() -> Iterator[StubWiki]:
    with StubWiki() as wiki:
        for name in ("Amber", "Birch", "Cedar", "Dill", "Elder"):
            wiki.edit(name, f"<p>About {name.lower()}.</p>", ("Green things",))
        yield wiki


@pytest.fixture
def clock() -> Clock:
    return Clock()


def find(stub: StubWiki, clock: Clock, path: str = "", **options) -> MediaWiki:
    return MediaWiki.discover(stub.url + path, **clock.options(), **options)


# -- discovery -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/api.php", "/api.php?action=query", "/wiki/Amber", "/wiki/Amber#Top"])
def test_any_address_of_the_wiki_leads_to_its_api(stub: StubWiki, clock: Clock, path: str) -> None:
    with find(stub, clock, path) as wiki:
        assert wiki.api == stub.url + "/api.php"


@pytest.mark.parametrize("script", ["/w/api.php", "/mediawiki/api.php", "/wiki/api.php", "/odd/place/api.php"])
@pytest.mark.parametrize("edit_uri", [True, False])
def test_the_api_is_found_where_it_is_advertised_or_usual(
    stub: StubWiki, clock: Clock, script: str, edit_uri: bool
) -> None:
    stub.script, stub.edit_uri = script, edit_uri
    if script.startswith("/odd") and not edit_uri:
        with pytest.raises(NotAWiki, match="No MediaWiki API found"):
            find(stub, clock)
    else:
        with find(stub, clock) as wiki:
            assert wiki.api == stub.url + script


def test_an_address_without_a_scheme_will_do(stub: StubWiki, clock: Clock) -> None:
    with MediaWiki.discover(stub.url.removeprefix("http://"), **clock.options()) as wiki:
        assert wiki.api == stub.url + "/api.php"


@pytest.mark.parametrize("url", ["", "   ", "ftp://example.org", "http://", "not a url", "http://[::1", "javascript:x"])
def test_what_is_no_web_address_is_said_so(url: str) -> None:
    with pytest.raises(NotAWiki, match="is not a web address"):
        MediaWiki.discover(url)


def test_an_unreachable_host_is_one_line_after_a_few_tries(clock: Clock) -> None:
    with pytest.raises(WikiUnreachable, match=r"Cannot reach 127\.0\.0\.1:9") as caught:
        MediaWiki.discover("http://127.0.0.1:9", **clock.options())
    assert len(clock.slept) == mediawiki.FIRST_ATTEMPTS - 1
    assert "\n" not in str(caught.value)


def test_a_site_that_refuses_everything_is_asked_once(stub: StubWiki, clock: Clock) -> None:
    stub.trouble("403", times=99, when="/")
    with pytest.raises(WikiRefused, match="HTTP 403"):
        find(stub, clock)
    assert len(stub.requests) == 1  # robots.txt itself


def test_a_wiki_that_refuses_pages_but_not_its_api_works(stub: StubWiki, clock: Clock) -> None:
    stub.trouble("403", when="/wiki/")
    with find(stub, clock, "/wiki/Amber") as wiki:
        assert wiki.api.endswith("/api.php")


def test_a_refused_page_and_no_api_is_a_refusal(stub: StubWiki, clock: Clock) -> None:
    stub.script = "/hidden/api.php"
    stub.trouble("403", when="/wiki/")
    with pytest.raises(WikiRefused, match="HTTP 403"):
        find(stub, clock, "/wiki/Amber")


def test_a_private_wiki_is_a_refusal(stub: StubWiki, clock: Clock) -> None:
    stub.trouble("error", when="siteinfo", code="readapidenied")
    with pytest.raises(WikiRefused, match="private"):
        find(stub, clock)


# -- manners ---------------------------------------------------------------------------------------------------


def test_every_request_says_who_asks_and_is_light(stub: StubWiki, clock: Clock) -> None:
    with find(stub, clock, contact="lore@example.org") as wiki:
        list(wiki.pages())
        wiki.redirects()
        wiki.render(next(iter(stub.pages)))
    for request in stub.requests:
        assert request.headers["user-agent"].startswith("Cirilla/0.1 (")
        assert "contact: lore@example.org" in request.headers["user-agent"]
        assert "Mozilla" not in request.headers["user-agent"]
        assert request.headers["accept-encoding"] == "gzip"
    api = [r for r in stub.asked("/api.php") if "prop" in r.params]
    assert api and all(r.params["maxlag"] == "5" and r.params["formatversion"] == "2" for r in api)


def test_requests_to_other_machines_start_a_second_apart(
    stub: StubWiki, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with find(stub, clock) as wiki:
        list(wiki.pages())
        wiki.source()
        assert clock.slept == []  # loopback: no pause
        monkeypatch.setattr(mediawiki, "_loopback", lambda host: False)
        for pageid in list(stub.pages)[:3]:
            wiki.render(pageid)
        clock.now += 0.75  # time that passes anyway counts
        wiki.render(next(iter(stub.pages)))
    assert clock.slept == pytest.approx([1.0, 1.0, 1.0, 0.25])


def test_a_longer_crawl_delay_is_followed(stub: StubWiki, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediawiki, "_loopback", lambda host: False)
    stub.robots = "User-agent: *\nCrawl-delay: 4\nAllow: /"
    with find(stub, clock, "/api.php", timeout=5.0) as wiki:
        wiki.source()
        wiki.render(next(iter(stub.pages)))
    assert clock.slept and all(seconds == pytest.approx(4.0) for seconds in clock.slept)


@pytest.mark.parametrize("rule", ["User-agent: *\nDisallow: /", "User-agent: Cirilla\nDisallow: /api.php"])
def test_robots_txt_is_obeyed_in_plain_words(stub: StubWiki, clock: Clock, rule: str) -> None:
    stub.robots = rule
    with pytest.raises(WikiRefused, match=r"robots\.txt of .* does not allow /api\.php"):
        find(stub, clock, "/api.php")
    assert [r.path for r in stub.requests] == ["/robots.txt"]


def test_rules_for_other_robots_are_not_ours(stub: StubWiki, clock: Clock) -> None:
    stub.robots = "User-agent: Elsebot\nDisallow: /\n\nUser-agent: *\nDisallow: /wiki/Special:"
    with find(stub, clock) as wiki:
        assert len(list(wiki.pages())) == 5
    assert len(stub.asked("/robots.txt")) == 1


# -- trouble that passes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["429", "500", "502", "503", "malformed", "html", "list", "truncated", "reset"])
def test_passing_trouble_is_waited_out_with_growing_pauses(stub: StubWiki, clock: Clock, kind: str) -> None:
    with find(stub, clock) as wiki:
        wiki.source()
        stub.trouble(kind, times=3, when="action=parse")
        page = wiki.render(next(iter(stub.pages)))
    assert page is not None and page.title == "Amber"
    assert len(stub.asked("parse")) == 4
    assert len(clock.slept) == 3
    for step, seconds in enumerate(clock.slept):
        assert 2.0 * 2**step <= seconds <= 2.0 * 2**step + 1.0  # exponential, with up to a second of jitter


def test_a_slow_answer_times_out_and_is_asked_again(stub: StubWiki, clock: Clock) -> None:
    with find(stub, clock, timeout=0.3) as wiki:
        wiki.source()
        stub.trouble("slow", when="action=parse")
        assert wiki.render(next(iter(stub.pages))) is not None
    assert len(stub.asked("parse")) == 2


@pytest.mark.parametrize("kind", ["429", "503"])
@pytest.mark.parametrize(("value", "seconds"), [("17", 17.0), ("0", 0.0), (formatdate(NOW + 42, usegmt=True), 42.0)])
def test_retry_after_is_honoured_in_both_forms(
    stub: StubWiki, clock: Clock, kind: str, value: str, seconds: float
) -> None:
    with find(stub, clock) as wiki:
        wiki.source()
        stub.trouble(kind, when="action=parse", Retry_After=value)
        assert wiki.render(next(iter(stub.pages))) is not None
    assert clock.slept == pytest.approx([seconds])


def test_a_senseless_retry_after_falls_back_to_backing_off(stub: StubWiki, clock: Clock) -> None:
    with find(stub, clock) as wiki:
        wiki.source()
        stub.trouble("503", when="action=parse", Retry_After="soon")
        assert wiki.render(next(iter(stub.pages))) is not None
    assert 2.0 <= clock.slept[0] <= 3.0


def test_a_wiki_that_wants_an_hour_is_left_alone(stub: StubWiki, clock: Clock) -> None:
    with find(stub, clock) as wiki:
        wiki.source()
        stub.trouble("429", when="action=parse", Retry_After="3600")
        with pytest.raises(WikiBroken, match="pause of 60 minutes"):
            wiki.render(next(iter(stub.pages)))
    assert clock.slept == [] and len(stub.asked("parse")) == 1


def test_maxlag_waits_as_told_and_the_caller_hears_why(stub: StubWiki, clock: Clock) -> None:
    heard: list[str] = []
    with find(stub, clock) as wiki:
        wiki.notice = heard.append
        wiki.source()
        stub.trouble("error", times=2, when="action=parse", code="maxlag", Retry_After="5")
        assert wiki.render(next(iter(stub.pages))) is not None
    assert clock.slept == [5.0, 5.0]
    assert len(heard) == 2 and "maxlag" in heard[0] and "Waiting 5 s" in heard[0]


# -- trouble that does not pass --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("403", WikiRefused, "HTTP 403"),
        ("401", WikiRefused, "HTTP 401"),
        ("404", WikiBroken, "no longer answers"),
        ("429", WikiRefused, "slow down"),
        ("500", WikiBroken, "HTTP 500"),
        ("malformed", WikiBroken, "something else where JSON was expected"),
        ("html", WikiBroken, "a web page where JSON was expected"),
        ("list", WikiBroken, "unknown shape"),
        ("truncated", WikiUnreachable, "Cannot reach"),
        ("reset", WikiUnreachable, "Cannot reach"),
        ("loop", WikiBroken, "redirects in circles"),
    ],
)
def test_lasting_trouble_is_one_line_after_a_bounded_number_of_tries(
    stub: StubWiki, clock: Clock, kind: str, error: type[CirillaError], words: str
) -> None:
    with find(stub, clock, attempts=4) as wiki:
        wiki.source()
        stub.trouble(kind, times=99, when="action=parse")
        with pytest.raises(error, match=words) as caught:
            wiki.render(next(iter(stub.pages)))
    assert "\n" not in str(caught.value)
    assert len(stub.asked("parse")) == {"401": 1, "403": 1, "404": 1, "loop": 6}.get(kind, 4)


def test_an_api_error_is_told_with_its_code(stub: StubWiki, clock: Clock) -> None:
    with find(stub, clock) as wiki:
        wiki.source()
        stub.trouble("error", when="action=parse", code="badtoken")
        with pytest.raises(WikiBroken, match=r"Because\. \(badtoken\)"):
            wiki.render(next(iter(stub.pages)))


def test_an_answer_too_big_to_hold_is_refused(stub: StubWiki, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediawiki, "MAX_BYTES", 2**20)
    with find(stub, clock) as wiki:
        wiki.source()
        stub.trouble("huge", when="action=parse")
        with pytest.raises(WikiBroken, match="more than 1 MB"):
            wiki.render(next(iter(stub.pages)))


# -- what comes back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("batch", [2, 500])
def test_batches_are_merged_until_they_are_complete(stub: StubWiki, clock: Clock, split: bool, batch: int) -> None:
    stub.split, stub.batch = split, batch
    with find(stub, clock) as wiki:
        listed = list(wiki.pages())
    assert [page.title for page in listed] == ["Amber", "Birch", "Cedar", "Dill", "Elder"]
    assert {page.pageid: page.revid for page in listed} == {key: page.revid for key, page in stub.pages.items()}
    assert [page.revised_at for page in listed[:2]] == ["2026-01-01T01:41:00+00:00", "2026-01-01T01:42:00+00:00"]
    assert len(stub.asked("info")) == (3 if batch == 2 else 1) * (2 if split else 1)


def test_a_listing_that_never_ends_is_noticed(stub: StubWiki, clock: Clock) -> None:
    stub.endless = True
    with find(stub, clock) as wiki, pytest.raises(WikiBroken, match="in circles"):
        list(wiki.pages())


@pytest.mark.parametrize("pages", [{"7": {"pageid": 7}}, ["Amber"]])
def test_a_listing_in_an_unknown_shape_is_not_an_empty_wiki(
    stub: StubWiki, clock: Clock, monkeypatch: pytest.MonkeyPatch, pages: object
) -> None:
    monkeypatch.setattr(stub, "_listing", lambda params: {"batchcomplete": "", "query": {"pages": pages}})
    with find(stub, clock) as wiki, pytest.raises(WikiBroken, match="in an unknown way"):
        list(wiki.pages())


@pytest.mark.parametrize(
    "revisions", [None, {}, [], ["x"], [{"revid": [1]}], [{"revid": 101}], [{"revid": 101, "timestamp": "yesterday"}],
                  [{"revid": 100, "timestamp": "2026-01-01T00:00:00Z"}]],
)  # fmt: skip
def test_a_revision_without_a_date_is_listed_without(
    stub: StubWiki, clock: Clock, monkeypatch: pytest.MonkeyPatch, revisions: object
) -> None:
    page = {"pageid": 7, "title": "Amber", "lastrevid": 101, "revisions": revisions}
    monkeypatch.setattr(stub, "_listing", lambda params: {"batchcomplete": True, "query": {"pages": [page]}})
    with find(stub, clock) as wiki:
        assert list(wiki.pages()) == [Listed(7, "Amber", 101, "")]


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_redirects_are_gathered_by_the_page_they_lead_to(stub: StubWiki, clock: Clock, batch: int) -> None:
    stub.batch = batch
    stub.redirects = {
        "Burnt stone": "Amber",
        "Ambre": "Amber",
        "Resin": "Amber",
        "Cèdre": "Cedar",
        "Twice": "Ambre",  # a redirect to a redirect
        "Leaf part": "Birch#Leaves",  # a section is not the page
        "Round": "About",
        "About": "Round",
        "Nowhere": "Missing page",
    }
    with find(stub, clock) as wiki:
        found = wiki.redirects()
    ids = {page.title: key for key, page in stub.pages.items()}
    assert found == {ids["Amber"]: ("Ambre", "Burnt stone", "Resin"), ids["Cedar"]: ("Cèdre",)}
    assert len(stub.asked("redirects")) == {1: 7, 2: 4, 500: 1}[batch]


def test_an_empty_wiki_lists_nothing(clock: Clock) -> None:
    with StubWiki() as empty, find(empty, clock) as wiki:
        assert list(wiki.pages()) == [] and wiki.redirects() == {}


def test_a_rendered_page_carries_revision_address_and_licence(stub: StubWiki, clock: Clock) -> None:
    pageid = stub.edit("Otter & Ford?", "<p>Wet \ud83e\udda6.</p>".encode("utf-16", "surrogatepass").decode("utf-16"))
    with find(stub, clock) as wiki:
        page = wiki.render(pageid)
        source = wiki.source()
    assert page is not None
    assert page.url == f"{stub.url}/wiki/Otter_%26_Ford%3F?oldid={stub.revision}"
    assert (page.revid, page.title, page.display_title) == (stub.revision, "Otter & Ford?", "Otter & Ford?")
    assert page.html == '<div class="mw-parser-output"><p>Wet 🦦.</p></div>'
    assert (page.rights, page.rights_url) == ("CC BY-SA 3.0", "https://creativecommons.org/licenses/by-sa/3.0/")
    assert page.categories == ()  # hidden categories are housekeeping
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", page.fetched_at)
    assert page.source == source.id == stub.url.removeprefix("http://")
    assert source.site_name == "Stub Wiki" and source.api == stub.url + "/api.php"
    request = stub.asked("parse")[0].params
    assert request["prop"] == "text|sections|categories|revid|displaytitle"
    assert request["disableeditsection"] == request["disabletoc"] == "1"


def test_categories_are_spelt_with_spaces(stub: StubWiki, clock: Clock) -> None:
    with find(stub, clock) as wiki:
        page = wiki.render(next(iter(stub.pages)))
    assert page is not None and page.categories == ("Green things",)


def test_a_page_that_vanished_is_none(stub: StubWiki, clock: Clock) -> None:
    with find(stub, clock) as wiki:
        assert wiki.render(987654) is None


@pytest.mark.parametrize(
    ("api", "source"),
    [
        ("https://witcher.fandom.com/api.php", "witcher.fandom.com"),
        ("https://witcher.fandom.com/pl/api.php", "witcher.fandom.com/pl"),
        ("https://example.org/w/api.php", "example.org"),
    ],
)
def test_wikis_that_share_a_host_are_kept_apart(api: str, source: str) -> None:
    assert mediawiki._source_id(api) == source


def test_addresses_that_a_wiki_names_are_web_addresses() -> None:
    api = "https://example.org/w/api.php"
    assert mediawiki._web(api, "javascript:alert(1)") == ""
    assert mediawiki._web(api, "/wiki/$1", "javascript:alert(1)") == "https://example.org/wiki/$1"
    assert mediawiki._web(api, "/wiki/$1", "//other.example") == "https://other.example/wiki/$1"


def test_half_a_surrogate_pair_does_no_harm() -> None:
    assert mediawiki._text("a\ud800b") == "a?b"
