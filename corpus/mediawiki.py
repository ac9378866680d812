"""A polite client for the API of any MediaWiki, Fandom included.

Politeness is built in, not an option: requests are strictly serial and start at least a second apart (loopback
hosts excepted), ask for gzip, say who is asking, carry ``maxlag``, honour ``Retry-After`` and robots.txt, and back off
exponentially with jitter.  A refusal is reported, never worked round.

Sources: https://www.mediawiki.org/wiki/API:Etiquette, …/API:Continue (copy the whole ``continue`` object; a batch is
whole once ``batchcomplete`` appears), …/API:Allpages, …/API:Parsing_wikitext, …/Manual:Maxlag_parameter.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self, TypeVar
from urllib.parse import quote, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import httpx
from bs4 import BeautifulSoup
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from corpus.errors import CorpusError, NotAWiki, WikiBroken, WikiRefused, WikiUnreachable
from corpus.store import Source
from corpus.types import Page

AGENT = "Cirilla/0.1 (reads wikis for a lore chat; contact: {contact})"
CONTACT = "the operator gave none"  # the caller should give an address that the wiki's owners can write to
DELAY = 1.0  # s between the starts of two requests to one host
MAX_CRAWL_DELAY = 30.0  # s; the most of a robots.txt Crawl-delay that we follow
MAX_RETRY_AFTER = 300.0  # s; a wiki that wants a longer pause is left alone until the next run
MAXLAG = "5"  # s of database lag above which the wiki is not to be bothered
ATTEMPTS = 8  # per request, once the wiki is known
FIRST_ATTEMPTS = 3  # while looking for it: a mistyped address should not take minutes
MAX_BYTES = 64 * 2**20  # of one answer, unpacked
TIMEOUT = httpx.Timeout(60.0, connect=15.0)
SCRIPT_PATHS = ("", "/w", "/mediawiki", "/wiki")  # where api.php usually lives
REFUSALS = {"readapidenied", "permissiondenied", "blocked", "autoblocked", "badaccess-groups"}
GONE = {"missingtitle", "nosuchpageid", "pagecannotexist", "missing"}
LISTING = {"generator": "allpages", "gapnamespace": "0", "gapfilterredir": "nonredirects", "gaplimit": "max"}

T = TypeVar("T")


class _TryAgain(Exception):
    """A passing trouble: wait ``after`` seconds (None: back off) and ask again; ``final`` is for when we give up."""

    def __init__(self, final: CorpusError, after: float | None = None) -> None:
        super().__init__(str(final))
        self.final, self.after = final, after


class _ApiError(WikiBroken):
    """The API's own ``error`` object."""

    def __init__(self, host: str, code: str, info: str) -> None:
        super().__init__(f"{host} answered with an error: {info or code} ({code}).")
        self.code = code


@dataclass(frozen=True, slots=True)
class Listed:
    """A page as the listing names it."""

    pageid: int
    title: str
    revid: int  # lastrevid: what decides whether the page is fetched
    revised_at: str = ""  # when that revision was saved: ISO 8601, UTC


@dataclass(frozen=True, slots=True)
class _Answer:
    url: str  # after redirects
    status: int
    headers: httpx.Headers
    text: str


class MediaWiki:
    """One wiki, reached through its ``api.php``.  Make it with ``discover``."""

    def __init__(
        self,
        api: str,
        *,
        contact: str = CONTACT,
        delay: float = DELAY,
        attempts: int = ATTEMPTS,
        timeout: httpx.Timeout | float = TIMEOUT,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.api = api
        self.attempts = attempts
        self.notice: Callable[[str], None] | None = None  # told why we are waiting
        self._agent = AGENT.format(contact=contact)
        self._delay, self._sleep, self._clock, self._wall_clock = delay, sleep, clock, wall_clock
        self._last: dict[str, float] = {}  # host → when our last request to it started
        self._robots: dict[str, RobotFileParser] = {}  # origin → its rules
        self._source: Source | None = None
        self._article_path = ""
        self._client = httpx.Client(
            headers={"User-Agent": self._agent, "Accept-Encoding": "gzip"},
            timeout=timeout,
            follow_redirects=True,
            max_redirects=5,
            trust_env=not _loopback(urlsplit(api).hostname),  # a proxy cannot reach our own machine
            event_hooks={"request": [self._take_turn]},  # called for every hop of a redirect too
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    # -- finding the API ---------------------------------------------------------------------------------------

    @classmethod
    def discover(cls, url: str, **options: Any) -> Self:
        """The wiki at ``url``: a site root, any of its pages, or its ``api.php``; options as for ``__init__``.

        Raises ``NotAWiki``, ``WikiUnreachable``, ``WikiRefused`` or ``WikiBroken``.
        """
        address = _address(url)
        wiki = cls(address, **options)
        try:
            attempts, wiki.attempts = wiki.attempts, min(FIRST_ATTEMPTS, wiki.attempts)
            wiki._discover(address)
            wiki.attempts = attempts
        except BaseException:
            wiki.close()
            raise
        return wiki

    def _discover(self, address: str) -> None:
        parts = urlsplit(address)
        refused: WikiRefused | None = None
        advertised: list[str] = []
        if not parts.path.endswith("/api.php"):
            try:
                advertised = self._advertised(address)
            except WikiRefused as error:  # some hosts keep robots off their pages and let them use the API
                refused = error
        for api in dict.fromkeys((*advertised, *_likely(address))):
            try:
                if self._probe(api):
                    return
            except WikiRefused as error:
                raise refused or error from None
        raise refused or NotAWiki(
            f"No MediaWiki API found at {address}: give the wiki's address or its api.php with --wiki."
        )

    def _advertised(self, address: str) -> list[str]:
        """What the page's ``<link rel="EditURI">`` (Really Simple Discovery) points to."""
        page = self._fetch(address)
        link = BeautifulSoup(page.text, "lxml").find("link", rel="EditURI", href=True)
        if link is None:
            return []
        target = urljoin(page.url, str(link["href"]))
        if urlsplit(target).path.endswith("/api.php"):
            return [target.split("?")[0]]
        named = re.search(r"""apiLink=["']([^"']+api\.php)""", self._fetch(target).text)
        return [urljoin(target, named[1])] if named else []

    def _probe(self, api: str) -> bool:
        """Whether ``api`` answers as MediaWiki does; if so it becomes this client's API."""
        answer = self._fetch(api, {"action": "query", "meta": "siteinfo", "format": "json"})
        try:
            data = json.loads(answer.text)
        except (ValueError, RecursionError):
            return False
        if not isinstance(data, dict) or answer.status >= 400:
            return False
        if isinstance(error := data.get("error"), dict) and error.get("code") in REFUSALS:
            raise WikiRefused(f"{_host(api)} keeps its pages private: choose another wiki with --wiki.")
        if "MediaWiki" not in str(_get(data, "query", "general", "generator")):
            return False
        self.api = answer.url.split("?")[0]  # after redirects, e.g. http → https
        return True

    # -- what the crawl asks -----------------------------------------------------------------------------------

    def source(self) -> Source:
        """Name, address and licence of the wiki (asked once)."""
        if self._source is None:
            data = self._api({"action": "query", "meta": "siteinfo", "siprop": "general|rightsinfo"})
            general, rights = _get(data, "query", "general"), _get(data, "query", "rightsinfo")
            if not isinstance(general, dict):
                raise WikiBroken(f"{_host(self.api)} does not describe itself (no siteinfo).")
            self._article_path = _web(self.api, str(general.get("articlepath") or "/wiki/$1"), general.get("server"))
            self._source = Source(
                id=_source_id(self.api),
                api=self.api,
                site_name=_text(general.get("sitename")),
                rights=_text(_get(rights, "text")),
                rights_url=_web(self.api, _text(_get(rights, "url"))),
                base_url=_web(self.api, _text(general.get("base"))),
                generator=_text(general.get("generator")),
            )
        return self._source

    def pages(self) -> Iterator[Listed]:
        """Every page of the main namespace that is not a redirect, with its latest revision and that one's date."""
        for page in self._query({**LISTING, "prop": "info|revisions", "rvprop": "ids|timestamp"}):
            if isinstance(pageid := page.get("pageid"), int) and isinstance(revid := page.get("lastrevid"), int):
                dates = (_get(row, "timestamp") for row in page.get("revisions") or [] if _get(row, "revid") == revid)
                yield Listed(pageid, _text(page.get("title")), revid, _moment(next(dates, "")))

    def redirects(self) -> dict[int, tuple[str, ...]]:
        """Page id → titles of the main namespace that redirect to it, sorted.

        ``prop=redirects`` answers with up to 500 of them at a time and names their target's id, so a big wiki takes
        few requests.  Left out: redirects into a section (they name a part of the page, not the page) and redirects
        to redirects, which MediaWiki does not follow either.
        """
        wanted = {"prop": "redirects", "rdprop": "title|fragment", "rdnamespace": "0", "rdlimit": "max"}
        found: dict[int, tuple[str, ...]] = {}
        for page in self._query({**LISTING, **wanted}):
            rows = [row for row in page.get("redirects") or [] if isinstance(row, dict) and not row.get("fragment")]
            if rows and isinstance(pageid := page.get("pageid"), int):
                found[pageid] = tuple(sorted({_text(row.get("title")) for row in rows}))
        return found

    def render(self, pageid: int) -> Page | None:
        """The page as HTML; None when it vanished since it was listed."""
        source = self.source()
        request = {"action": "parse", "pageid": str(pageid), "prop": "text|sections|categories|revid|displaytitle"}
        switches = {"disableeditsection": "1", "disabletoc": "1", "disablelimitreport": "1"}
        try:
            parsed = self._api({**request, **switches}).get("parse")
        except _ApiError as error:
            if error.code in GONE:
                return None
            raise
        if not (
            isinstance(parsed, dict) and isinstance(parsed.get("text"), str) and isinstance(parsed.get("revid"), int)
        ):
            raise WikiBroken(f"{_host(self.api)} did not render page {pageid}.")
        title = _text(parsed.get("title"))
        categories = [item for item in parsed.get("categories") or [] if isinstance(item, dict)]
        return Page(
            source=source.id,
            pageid=pageid,
            title=title,
            revid=parsed["revid"],
            url=self._permanent(title, parsed["revid"]),
            html=_text(parsed["text"]),
            display_title=BeautifulSoup(_text(parsed.get("displaytitle")), "lxml").get_text(" ", strip=True),
            categories=tuple(
                _text(item.get("category")).replace("_", " ") for item in categories if not item.get("hidden")
            ),
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
            rights=source.rights,
            rights_url=source.rights_url,
        )

    def _permanent(self, title: str, revid: int) -> str:
        page = self._article_path.replace("$1", quote(title.replace(" ", "_"), safe="/:@!$'()*,;~"))
        return f"{page}{'&' if '?' in page else '?'}oldid={revid}"

    # -- the API -----------------------------------------------------------------------------------------------

    def _query(self, request: dict[str, str]) -> Iterator[dict[str, Any]]:
        """The pages of a listing: the parts of a batch are merged until ``batchcomplete`` appears."""
        carry: dict[str, str] = {}
        batch: dict[Any, dict[str, Any]] = {}
        while True:
            data = self._api({"action": "query", **request, **carry})
            parts = _get(data, "query", "pages") or []
            if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
                raise WikiBroken(
                    f"{_host(self.api)} lists its pages in an unknown way: MediaWiki 1.25 or later is needed."
                )
            for part in parts:
                page = batch.setdefault(part.get("pageid"), {})
                for key, value in part.items():
                    page[key] = page.get(key, []) + value if isinstance(value, list) else value
            more = data.get("continue")
            if "batchcomplete" in data or not more:
                yield from batch.values()
                batch = {}
            if not more:
                return
            if not isinstance(more, dict) or more == carry:
                raise WikiBroken(f"{_host(self.api)} goes round in circles while listing its pages.")
            carry = {str(key): str(value) for key, value in more.items()}

    def _api(self, request: dict[str, str]) -> dict[str, Any]:
        """One API request, asked until it is answered; ``error`` objects become exceptions."""
        request = {**request, "format": "json", "formatversion": "2", "maxlag": MAXLAG}
        host = _host(self.api)

        def once() -> dict[str, Any]:
            answer = self._get(self.api, request)
            try:
                data = json.loads(answer.text)
            except (ValueError, RecursionError):
                html = answer.text.lstrip()[:1] == "<"
                if answer.status >= 400:
                    raise WikiBroken(f"{host} no longer answers at {self.api} (HTTP {answer.status}).") from None
                what = "a web page" if html else "something else"
                raise _TryAgain(WikiBroken(f"{host} answered with {what} where JSON was expected.")) from None
            if not isinstance(data, dict):
                raise _TryAgain(WikiBroken(f"{host} answered with JSON of an unknown shape."))
            if (error := data.get("error")) is None:
                return data
            code, info = str(_get(error, "code") or "unknown"), " ".join(str(_get(error, "info") or "").split())[:200]
            failure = _ApiError(host, code, info)
            if code in ("maxlag", "ratelimited", "readonly") or code.startswith("internal_api_error"):
                raise _TryAgain(failure, self._retry_after(answer.headers, host))
            if code in REFUSALS:
                raise WikiRefused(f"{host} does not let us read it: {info or code}.")
            raise failure

        return self._patiently(once)

    # -- one request -------------------------------------------------------------------------------------------

    def _fetch(self, url: str, params: dict[str, str] | None = None) -> _Answer:
        return self._patiently(lambda: self._get(url, params))

    def _patiently(self, ask: Callable[[], T]) -> T:
        try:
            return Retrying(
                stop=stop_after_attempt(self.attempts),
                wait=self._pause,
                retry=retry_if_exception_type(_TryAgain),
                sleep=self._sleep,
                before_sleep=self._tell,
                reraise=True,
            )(ask)
        except _TryAgain as error:
            raise error.final from error

    @staticmethod
    def _pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _TryAgain) and error.after is not None:
            return error.after
        return wait_exponential_jitter(multiplier=2.0, max=120.0, jitter=1.0)(state)

    def _tell(self, state: RetryCallState) -> None:
        if self.notice and state.outcome and state.next_action:
            self.notice(f"{state.outcome.exception()} Waiting {state.next_action.sleep:.0f} s.")

    def _get(self, url: str, params: dict[str, str] | None = None, *, robots: bool = True) -> _Answer:
        """One GET.  Raises ``_TryAgain`` for what may pass, a ``CorpusError`` for what will not."""
        host = _host(url)
        if robots:
            self._check_robots(url, params)
        try:
            with self._client.stream("GET", url, params=params) as response:
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > MAX_BYTES:
                        raise WikiBroken(f"{host} sent more than {MAX_BYTES >> 20} MB in one answer.")
        except httpx.TooManyRedirects:
            raise WikiBroken(f"{host} redirects in circles.") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise NotAWiki(f"{url} is not a web address that can be asked ({error}).") from error
        except httpx.TimeoutException:
            raise _TryAgain(WikiUnreachable(f"{host} did not answer in time.")) from None
        except httpx.DecodingError:
            raise _TryAgain(WikiBroken(f"{host} sent a damaged answer.")) from None
        except httpx.TransportError as error:
            raise _TryAgain(WikiUnreachable(f"Cannot reach {host} ({str(error) or type(error).__name__}).")) from error
        status = response.status_code
        if status == 429:
            line = f"{host} asks us to slow down (HTTP 429): try again later; what was fetched is kept."
            raise _TryAgain(WikiRefused(line), self._retry_after(response.headers, host))
        if status >= 500:
            line = f"{host} is in trouble (HTTP {status})."
            raise _TryAgain(WikiBroken(line), self._retry_after(response.headers, host))
        if status in (401, 403):
            raise WikiRefused(f"{host} refuses automatic reading (HTTP {status}): choose another wiki with --wiki.")
        return _Answer(
            str(response.url), status, response.headers, body.decode(response.encoding or "utf-8", "replace")
        )

    def _take_turn(self, request: httpx.Request) -> None:
        """Wait until a request to this host is due."""
        host = request.url.host
        if host in self._last and not _loopback(host):
            rules = self._robots.get(_origin(str(request.url)))
            asked = float((rules and rules.crawl_delay(self._agent)) or 0)
            due = self._last[host] + max(self._delay, min(asked, MAX_CRAWL_DELAY)) - self._clock()
            if due > 0:
                self._sleep(due)
        self._last[host] = self._clock()

    def _retry_after(self, headers: httpx.Headers, host: str) -> float | None:
        """Seconds that ``Retry-After`` asks for (a number or an HTTP date), None without one.

        Raises ``WikiBroken`` when that is longer than we are willing to sit and wait.
        """
        value = headers.get("Retry-After", "").strip()
        if value.isdigit():
            seconds = float(value)
        else:
            try:
                seconds = max(0.0, parsedate_to_datetime(value).timestamp() - self._wall_clock())
            except ValueError:
                return None
        if seconds > MAX_RETRY_AFTER:
            raise WikiBroken(f"{host} asks for a pause of {seconds / 60:.0f} minutes: run again then; nothing is lost.")
        return seconds

    def _check_robots(self, url: str, params: dict[str, str] | None) -> None:
        origin = _origin(url)
        if origin not in self._robots:
            rules = self._robots[origin] = RobotFileParser()
            try:
                answer = self._get(f"{origin}/robots.txt", robots=False)
            except WikiRefused:
                rules.parse(["User-agent: *", "Disallow: /"])  # so that nothing else is asked of this host
                raise
            except BaseException:
                del self._robots[origin]
                raise
            # 404 and the like: no rules.  An HTML page in its place has none either.
            rules.parse(answer.text.splitlines() if answer.status == 200 else [])
        asked = str(httpx.URL(url, params=params)) if params else url
        if not self._robots[origin].can_fetch(self._agent, asked):
            path = urlsplit(url).path or "/"
            raise WikiRefused(f"The robots.txt of {_host(url)} does not allow {path}: choose another wiki with --wiki.")


def _address(url: str) -> str:
    """``url`` with a scheme, or ``NotAWiki``."""
    url = url.strip()
    if "://" not in url:
        url = f"{'http' if _loopback(urlsplit(f'//{url}').hostname) else 'https'}://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(letter.isspace() for letter in url):
        raise NotAWiki(f"“{url[:200]}” is not a web address: give something like https://witcher.fandom.com.")
    return url.split("#")[0]


def _likely(address: str) -> Iterator[str]:
    """Where ``api.php`` usually lies, likeliest first."""
    parts = urlsplit(address)
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.path.endswith("/api.php"):
        yield f"{origin}{parts.path}"
    folder = parts.path.split("/wiki/")[0].split("/index.php")[0].removesuffix("/api.php").rstrip("/")
    for base in dict.fromkeys((folder, "")):
        for script in SCRIPT_PATHS:
            yield f"{origin}{base}{script}/api.php"


def _loopback(host: str | None) -> bool:
    if not host:
        return False
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _source_id(api: str) -> str:
    """The wiki's host, with the path where one host serves several wikis (``witcher.fandom.com/pl``)."""
    parts = urlsplit(api)
    path = parts.path.removesuffix("/api.php")
    return parts.netloc if path in SCRIPT_PATHS else f"{parts.netloc}{path}"


def _web(api: str, link: str, server: Any = None) -> str:
    """``link`` as an absolute http(s) address; anything else (``javascript:``) falls back to the API's own host."""
    base = urljoin(api, str(server)) if server else api
    if urlsplit(base).scheme not in ("http", "https"):
        base = api
    full = urljoin(base, link) if link else ""
    return full if urlsplit(full).scheme in ("http", "https") else ""


def _get(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _moment(value: Any) -> str:
    """A time as the API writes it (``2026-03-01T10:00:00Z``) as ISO 8601 in UTC; "" for anything else."""
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""


def _text(value: Any) -> str:
    """A string that can be written as UTF-8 (JSON may smuggle in half a surrogate pair)."""
    return str(value or "").encode("utf-8", "replace").decode()
