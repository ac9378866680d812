"""The endpoints, called as programs call them: ``gradio_client`` and bare HTTP against a real server."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from app import api, chat, serve
from app import settings as app_settings
from app.api import BadRequest, checked_canon, checked_history, checked_question
from app.carry import Turn
from app.limits import Guarded
from tests.app.conftest import cite

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"question", "standalone_question", "answer", "abstained", "confidence", "citations", "timings", "generator"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def served(make, settings, monkeypatch):
    """``served(says, **settings)``: the page with its API on a port of its own; gives its address."""
    monkeypatch.delenv("SPACE_ID", raising=False)
    pages = []

    def start(says=None, **chosen):
        mine = app_settings.load(data=settings.data, port=free_port(), **chosen)
        answers = Guarded(make(says), mine)
        page = chat.build(answers, mine)
        if "ask" not in {fn.api_name for fn in page.fns.values()}:
            with page:
                api.add(answers, mine)
        serve.launch(page, mine)
        pages.append(page)
        return f"http://127.0.0.1:{mine.port}", answers

    yield start
    for page in pages:
        page.close(verbose=False)


def call(url, name, data, **options):
    """One call by bare HTTP as docs/api.md shows it: the last event's name and value."""
    posted = httpx.post(f"{url}/gradio_api/call/{name}", json={"data": data}, timeout=30, **options)
    posted.raise_for_status()
    got = httpx.get(f"{url}/gradio_api/call/{name}/{posted.json()['event_id']}", timeout=30).text
    *_, last = got.strip().split("\n\n")
    event, _, data = last.partition("\n")
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_ask_search_and_stream(served):
    url, _ = served(lambda passages: f"Orsolya was raised by the hermit Maruk [{cite(passages, 'hermit Maruk')}].")
    client = Client(url, verbose=False)

    value = client.predict(question="Who raised Orsolya, and where?", api_name="/ask")
    assert set(value) == KEYS and "Maruk" in value["answer"] and value["abstained"] is False
    citation = value["citations"][0]
    assert citation["passage"][citation["start"] : citation["end"]] == citation["quote"]

    history = [["Who is Tobiah's mother?", "Hanneke [1]."]]
    value = client.predict(question="Where did he die?", canon="books", history=history, api_name="/ask")
    assert "Tobiah" in value["standalone_question"]

    value = client.predict(query="Orsola hermit", limit=2, api_name="/search")
    assert value["passages"][0]["title"] == "Orsolya" and len(value["passages"]) <= 2
    assert {"bm25", "bm25_rank", "dense", "dense_rank", "score", "url"} <= set(value["passages"][0])

    job = client.submit(question="Who raised Orsolya, and where?", api_name="/stream")
    assert job.result(timeout=30)["event"] == "answer"
    job = client.submit(question="Who healed Tobiah, and why?", api_name="/stream")
    job.result(timeout=30)
    said = job.outputs()
    assert said[0]["event"] == "status" and said[-1]["event"] == "answer"
    assert set(said[-1]["value"]) == KEYS


def test_curl_sees_the_same(served):
    url, _ = served()
    event, value = call(url, "ask", ["Who is Orsolya's mother?", None, None])
    assert event == "complete" and value[0]["answer"].startswith("Queen Ilvane")
    named = httpx.post(f"{url}/gradio_api/call/v2/ask", json={"question": "Who is Orsolya's mother?"}, timeout=30)
    assert named.status_code == 200 and "event_id" in named.json()


def test_the_endpoints_are_documented(served):
    url, _ = served()
    info = httpx.get(f"{url}/gradio_api/info", timeout=30).json()["named_endpoints"]
    assert set(info) == {"/ask", "/search", "/stream"}  # the page's own events are nobody's business
    names = {name: [row["parameter_name"] for row in info[name]["parameters"]] for name in info}
    assert names["/ask"] == names["/stream"] == ["question", "canon", "history"]
    assert names["/search"] == ["query", "canon", "limit"]
    optional = [row["parameter_has_default"] for row in info["/ask"]["parameters"]]
    assert optional == [False, True, True] and "archives" in info["/ask"]["description"]
    described = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in described for name in info)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("ask", ["", None, None], "question: it is empty"),
        ("ask", ["x" * 3_000, None, None], "2,000 are the most"),
        ("ask", [None, None, None], "not null"),
        ("ask", [{"a": 1}, None, None], "not an object"),
        ("ask", ["Who?", "comics", None], "books, games, tv"),
        ("ask", ["Who?", None, "yesterday"], "a list of [question, answer] pairs"),
        ("ask", ["Who?", None, [["only one"]]], "turn 1 is not"),
        ("ask", ["Who?", None, [["a", "x" * 60_000]]], "50,000 are the most"),
        ("stream", [" ", None, None], "question: it is empty"),
        ("search", ["Who?", None, 0], "from 1 to 50"),
        ("search", ["Who?", None, "many"], "from 1 to 50"),
    ],
)
def test_mistakes_are_told(served, capsys, name, data, said):
    url, _ = served()
    event, value = call(url, name, data)
    assert event == "error" and said in value["error"]
    with pytest.raises(AppError, match=said.replace("[", r"\[")):
        Client(url, verbose=False).predict(*data, api_name=f"/{name}")
    assert "Traceback" not in capsys.readouterr().err


def test_a_client_that_asks_too_often_is_told(served, monkeypatch):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.1")  # uvicorn would believe what this machine says of itself
    url, _ = served(rate_limit=2)
    for n in range(2):
        assert call(url, "ask", [f"Who is Orsolya? {n}", None, None])[0] == "complete"
    # It is the connection that counts: a header that anybody can write changes nothing.
    event, value = call(url, "ask", ["Who is Orsolya?", None, None], headers={"x-forwarded-for": "1.2.3.4"})
    assert event == "error" and "try again in" in value["error"]


def test_behind_a_proxy_each_reader_counts_alone(served, monkeypatch):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "192.0.2.1")
    url, _ = served(rate_limit=1, trusted_proxy=True)
    outcomes = [
        call(url, "ask", [f"Who is Orsolya? {n}", None, None], headers={"x-forwarded-for": f"{address}, 10.0.0.1"})[0]
        for n, address in enumerate(("1.2.3.4", "1.2.3.5", "1.2.3.4"))
    ]
    assert outcomes == ["complete", "complete", "error"]


def test_large_requests_are_refused(served):
    url, _ = served(request_limit=20_000)
    big = json.dumps({"data": ["x" * 30_000, None, None]})
    assert httpx.post(f"{url}/gradio_api/call/ask", content=big, timeout=30).status_code == 413
    chunks = (big[at : at + 1000].encode() for at in range(0, len(big), 1000))  # a length is not told
    assert httpx.post(f"{url}/gradio_api/call/ask", content=chunks, timeout=30).status_code in (400, 413)
    assert call(url, "ask", ["Who is Orsolya's mother?", None, None])[0] == "complete"


def test_six_chats_at_once_are_not_mixed_up(served):
    """A small load test; the large one is ``python -m benchmarks.load``."""
    url, answers = served(
        lambda passages: f"{passages[0][1].split('.')[0]} [1].", rate_limit=0, cached_answers=0, workers=1
    )
    questions = {
        "Who raised Orsolya?": "Maruk",
        "Where did Tobiah fall?": "Ysk",
        "What guards the bay of Brennport?": "lighthouses",
        "Who is Tobiah's mother?": "Hanneke",
        "What is Orsolya's horse?": "Pebble",
        "Who killed Tobiah?": "wyvern",
    }
    outcomes: dict[str, list] = {}

    def ask(question):
        try:
            client = Client(url, verbose=False)
            outcomes[question] = [client.predict(question=question, api_name="/ask") for _ in range(3)]
        except Exception as error:
            outcomes[question] = [error]

    threads = [threading.Thread(target=ask, args=[question]) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for question, word in questions.items():
        for value in outcomes[question]:
            assert isinstance(value, dict), (question, value)
            assert value["question"] == question
            assert word in json.dumps(value["citations"]), (question, value["answer"])
    assert len(answers.turnstile) == 0


def test_what_is_checked(settings):
    assert checked_question("Who?", settings) == "Who?"
    assert checked_canon("") is None and checked_canon("tv") == "tv"
    assert checked_history([["a", "b"]], settings) == [Turn("a", "b")] and checked_history(None, settings) == []
    mistakes: list[object] = [5, {}, [1], [["a", None]], [["a", "b", "c"]]]
    for bad in mistakes:
        with pytest.raises(BadRequest):
            checked_history(bad, settings)
    with pytest.raises(BadRequest):
        checked_canon(["books"])
