"""A decoder behind an address: what is sent to it, and that nothing it does can harm the answer."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app import remote
from app import settings as app_settings
from app.answer import Final
from app.errors import SettingsError
from app.pipeline import Pipeline, Reader
from app.remote import RemoteReader, completions
from lm.reader import Reader as Cirilla

PASSAGES = [("Orsolya › Biography", "Orsolya was raised by the hermit Maruk."), ("Tobiah", "A knight of Marn.")]
KEY = "sk-very-secret"


def event(text, finish=None):
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}, 'finish_reason': finish}]})}\n\n"


class Server:
    """Stands in for vLLM or llama.cpp; ``modes`` says what it does at each call, the last one from then on."""

    def __init__(self):
        self.modes: list[str | int] = ["good"]
        self.says = "Orsolya was raised by Maruk [1]."
        self.seen: list[tuple[str, dict]] = []
        self.headers: list[dict[str, str]] = []
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_POST(self):
                outer.seen.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
                outer.headers.append(dict(self.headers))
                mode = outer.modes.pop(0) if len(outer.modes) > 1 else outer.modes[0]
                with contextlib.suppress(OSError):  # the reader may go
                    outer.reply(self, mode)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def reply(self, handler, mode):
        if isinstance(mode, int):
            handler.send_response(mode)
            handler.send_header("location", "/elsewhere")
            handler.end_headers()
            handler.wfile.write(f"<h1>{mode}: your key {KEY} is bad</h1>".encode())
            return
        if mode == "hang":
            self.over.wait(20)
            return
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()

        def send(text):
            handler.wfile.write(text.encode("utf-8"))
            handler.wfile.flush()

        half = len(self.says) // 2
        match mode:
            case "good":
                send(": hello\n\n")
                send("data: " + json.dumps({"choices": [{"delta": {"role": "assistant"}}]}) + "\n\n")
                for at in range(0, len(self.says), 3):
                    send(event(self.says[at : at + 3]))
                send(event("", "stop") + 'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n')
            case "completions":
                for at in range(0, len(self.says), 3):
                    choice = {"index": 0, "text": self.says[at : at + 3], "finish_reason": None}
                    send(f"data: {json.dumps({'choices': [choice]})}\n\n")
                send('data: {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n')
            case "garbage":
                send("\x00\xff<html>no stream</html>\n" * 10)
            case "not json":
                send(event("Maruk") + "data: {nonsense\n\n")
            case "other json":
                send('data: {"choices": 5}\n\ndata: [1]\n\n')
            case "error":
                send('data: {"error": {"message": "out of memory"}}\n\n')
            case "close early":
                send(event(self.says[:half]))
            case "stop half-way":
                send(event(self.says[:half]))
                self.over.wait(20)
            case "endless":
                while not self.over.is_set():
                    send(event("Maruk and " * 100))
            case "endless line":
                while not self.over.is_set():
                    send("data: " + "x" * 10_000)
            case "drip":
                while not self.over.is_set():
                    send(event("x"))
                    time.sleep(0.02)

    def close(self):
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    out = Server()
    yield out
    out.close()


@pytest.fixture
def reader(server, monkeypatch):
    monkeypatch.setattr(remote, "SILENCE", 0.5)
    out = RemoteReader(server.url, "tiny", KEY, seconds=3.0)
    out.pause = 0.01
    yield out
    out.close()


def draft(reader):
    return "".join(reader.stream("Who raised Orsolya?", PASSAGES, [("user", "Hello"), ("assistant", "Yes?")], 40))


def test_a_draft_arrives_in_pieces(server, reader):
    pieces = list(reader.stream("Who raised Orsolya?", PASSAGES))
    assert "".join(pieces) == server.says and len(pieces) > 5
    assert isinstance(reader, Reader) and reader.name == "tiny"


def test_what_is_sent(server, reader):
    draft(reader)
    path, body = server.seen[0]
    assert path == "/v1/chat/completions" and server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["stream"], body["max_tokens"], body["temperature"]) == ("tiny", True, 40, 0)
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    last = body["messages"][-1]["content"]
    assert "[1] Orsolya › Biography\nOrsolya was raised" in last and "[2] Tobiah" in last
    assert last.endswith("Question: Who raised Orsolya?")


def test_an_export_of_ours_gets_the_prompt_that_it_was_tuned_on(server, settings):
    from lm import chat
    from lm.tokenizer import Tokenizer

    server.modes = ["completions"]
    reader = RemoteReader.of(settings.model_copy(update={"lm_url": server.url, "lm_model": "me/Cirilla-GGUF"}))
    history = [("user", "Hello"), ("assistant", "Yes?")]
    said = "".join(reader.stream("Who raised Orsolya?", PASSAGES, history, 40))
    reader.close()
    assert said == server.says and reader.room == Cirilla.room
    path, body = server.seen[0]
    assert path == "/v1/completions" and "messages" not in body
    tokenizer = Tokenizer.load(settings.lm_weights / "tokenizer.json")
    turns = [*history, ("user", "Who raised Orsolya?")]
    assert body["prompt"] == chat.render(tokenizer, PASSAGES, turns, budget=1_024)


@pytest.mark.parametrize(
    "url", ["http://h", "http://h/", "http://h/v1", "http://h/v1/", "http://h/v1/chat/completions"]
)
def test_addresses(url):
    assert completions(url) == "http://h/v1/chat/completions"
    assert completions(url, chat=False) == "http://h/v1/completions"


@pytest.mark.parametrize("mode", [500, 503, 429])
def test_a_busy_server_is_asked_again(server, reader, mode):
    server.modes = [mode, mode, "good"]
    assert draft(reader) == server.says and len(server.seen) == 3


def test_a_server_that_stays_down_is_given_up_and_left_alone_for_a_while(server, reader):
    server.modes = [500]
    assert draft(reader) == "" and len(server.seen) == remote.TRIES
    server.modes = ["good"]
    assert draft(reader) == "" and len(server.seen) == remote.TRIES  # not asked: it would delay everybody
    reader._rests_until = 0.0
    assert draft(reader) == server.says


@pytest.mark.parametrize("mode", [400, 401, 404, 302, "garbage", "other json", "error", "endless line"])
def test_what_another_try_would_not_mend_is_tried_once(server, reader, mode):
    server.modes = [mode]
    assert draft(reader) == "" and len(server.seen) == 1
    server.modes = ["good"]
    assert draft(reader) == server.says  # nor is the server thought dead


@pytest.mark.parametrize("mode", ["close early", "not json", "stop half-way"])
def test_what_arrived_before_a_failure_stays(server, reader, mode):
    server.modes = [mode]
    began = time.monotonic()
    assert draft(reader) in (server.says[: len(server.says) // 2], "Maruk")
    assert len(server.seen) == 1 and time.monotonic() - began < 10


@pytest.mark.parametrize("mode", ["hang", "drip", "endless"])
def test_a_server_cannot_hold_an_answer_up(server, reader, mode):
    server.modes, reader.seconds = [mode], 1.0
    began = time.monotonic()
    assert len(draft(reader)) <= remote.LONGEST
    assert time.monotonic() - began < 10  # it would hang for twenty


def test_nobody_listens():
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        url = f"http://127.0.0.1:{free.server_port}"
    reader = RemoteReader(url, "tiny", seconds=2.0)
    reader.pause = 0.01
    assert draft(reader) == ""


def test_the_key_is_never_logged(server, reader, caplog):
    caplog.set_level(logging.DEBUG)
    for mode in (401, 500, "garbage", "hang"):
        server.modes, reader._rests_until = [mode], 0.0
        draft(reader)
    ours = [record for record in caplog.records if record.name == "cirilla.remote"]
    assert len(ours) == 4 and KEY not in caplog.text
    assert KEY not in repr(app_settings.load(lm_key=KEY))


# --- in the pipeline


def test_its_sentences_are_checked_like_cirillas(make, server, reader):
    pipeline = make()
    pipeline.reader = reader
    server.says = "Orsolya was raised by the hermit Maruk in the Hollow Hills [1]."
    # The passages that it is shown are numbered by the pipeline: cite the one that says so.
    answer = pipeline.ask("Who raised Orsolya, and where?")
    number = next(n for n, (_, text) in enumerate(_shown(server), 1) if "hermit Maruk" in text)
    server.says = server.says.replace("[1]", f"[{number}]")
    answer = pipeline.ask("Who raised Orsolya, and where?")
    assert answer.generator == "tiny" and "Maruk in the Hollow Hills" in answer.answer
    server.says = f"Orsolya was raised by a dragon named HACKED [{number}]."
    answer = pipeline.ask("Who raised Orsolya, and where?")
    assert answer.generator == "evidence" and "HACKED" not in answer.answer and "Maruk" in answer.answer


@pytest.mark.parametrize("mode", [500, "garbage", "hang", "close early"])
def test_when_it_fails_the_evidence_is_quoted(make, server, reader, mode):
    pipeline = make()
    pipeline.reader = reader
    server.modes, server.says = [mode], "It was a dragon who raised her [1]."
    answer = next(e.answer for e in pipeline.stream("Who raised Orsolya, and where?") if isinstance(e, Final))
    assert answer.generator == "evidence" and "Maruk" in answer.answer and server.seen


def _shown(server):
    text = server.seen[-1][1]["messages"][-1]["content"].removeprefix("Passages:\n\n").rpartition("\n\nQuestion:")[0]
    return [part.split("\n", 1) for part in text.split("\n\n[")]


def test_one_setting_puts_it_in_cirillas_place(make, settings, server, monkeypatch):
    make().store.close()  # the archive and index are there now
    monkeypatch.setattr("encoder.Encoder.load", lambda folder: type(make().encoder)())
    monkeypatch.setattr(Cirilla, "load", lambda folder: pytest.fail("Cirilla is not needed"))
    monkeypatch.setenv("CIRILLA_LM_URL", server.url)
    monkeypatch.setenv("CIRILLA_LM_MODEL", "tiny")
    monkeypatch.setenv("CIRILLA_LM_KEY", KEY)
    chosen = app_settings.load(data=settings.data)
    pipeline = Pipeline.open(chosen)
    pipeline.ask("Who raised Orsolya, and where?")
    assert isinstance(pipeline.reader, RemoteReader) and server.seen[0][1]["model"] == "tiny"
    with pytest.raises(SettingsError, match="LM_URL"):
        monkeypatch.setenv("CIRILLA_LM_URL", "localhost:8000")
        app_settings.load()
