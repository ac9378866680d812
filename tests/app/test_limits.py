"""Many askers at once: places, limits, memory, and that nobody gets another's answer or holds the model for ever."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from app import limits
from app import settings as app_settings
from app.answer import Answer, Draft, Final, Status
from app.limits import Allowance, Guarded, Memory, Refused, Turnstile, client_of
from retrieval.search import Found

PATIENCE = 10.0  # seconds after which a test that waits has failed


def answer(question, text="", generator="cirilla", abstained=False):
    return Answer(question, question, text or f"About {question}.", abstained, 0.9, (), {"total": 1.0}, generator)


class Slow:
    """A pipeline that goes on when it is told to, and notes how many it serves at a time."""

    def __init__(self, held=False):
        self.gate = threading.Semaphore(0 if held else 1_000_000)
        self.asked, self.options, self.most, self._now = [], [], 0, 0
        self.searcher = "first"
        self._lock = threading.Lock()

    def stream(self, question, history=(), canon=None, **options):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.asked.append(question)
            self.options.append(options)
        try:
            assert self.gate.acquire(timeout=PATIENCE)
            yield Status("Searching")
            yield Draft(f"About {question}.")
            yield Final(answer(question))
        finally:
            with self._lock:
                self._now -= 1

    def search(self, question, k=8, canon=None):
        self.asked.append(question)
        return Found([], {"total": 1.0}, {"asked": question})


def start(function, *arguments):
    """Run a function in a thread; its result is in the list that is returned with it."""
    out = []

    def run():
        try:
            out.append(function(*arguments))
        except BaseException as error:
            out.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, out


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def queued(stile, gate, works):
    """The threads that asked for ``works``, one after the other, once the gate has let all of them through."""
    threads = []
    for number, work in enumerate(works, 1):
        threads.append(start(lambda work=work: list(stile.run(work))))
        until(lambda number=number: len(stile) == number)
    gate.release(len(threads))
    for thread, _ in threads:
        thread.join(PATIENCE)
    return threads


@pytest.fixture
def guard(tmp_path, monkeypatch):
    """``guard(pipeline, **settings)``"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPACE_ID", raising=False)
    return lambda pipeline, **chosen: Guarded(pipeline, app_settings.load(data=tmp_path / "data", **chosen))


# --- the turnstile


def test_places_are_told_and_kept_first_come_first_served():
    stile, order = Turnstile(), []
    gate = threading.Semaphore(0)

    def work(name):
        def steps():
            assert gate.acquire(timeout=PATIENCE)
            order.append(name)
            yield name

        return steps

    threads = queued(stile, gate, [work(number) for number in range(4)])
    assert order == [0, 1, 2, 3]
    said = [[e.text if isinstance(e, Status) else e for e in out[0]] for _, out in threads]
    assert said[0] == [0]
    assert said[1] == ["1 question before yours", 1]
    assert said[3] == ["3 questions before yours", "2 questions before yours", "1 question before yours", 3]
    assert len(stile) == 0


def test_far_back_only_some_places_are_told():
    stile, gate = Turnstile(), threading.Semaphore(0)

    def steps():
        assert gate.acquire(timeout=PATIENCE)
        yield "done"

    threads = queued(stile, gate, [steps] * 14)
    told = [int(item.text.split()[0]) for item in threads[-1][1][0][:-1]]
    assert told == [13, 10, 5, 3, 2, 1]


def test_two_workers_serve_two_and_the_third_waits():
    stile, gate = Turnstile(workers=2), threading.Semaphore(0)

    def steps():
        assert gate.acquire(timeout=PATIENCE)
        yield "done"

    threads = queued(stile, gate, [steps] * 3)
    assert [out[0] for _, out in threads] == [["done"], ["done"], [Status("2 questions before yours"), "done"]]


def test_a_full_queue_refuses():
    stile, gate = Turnstile(waiting=1), threading.Semaphore(0)

    def steps():
        assert gate.acquire(timeout=PATIENCE)
        yield 1

    first, _ = start(lambda: list(stile.run(steps)))
    until(lambda: len(stile) == 1)
    second, _ = start(lambda: list(stile.run(steps)))
    until(lambda: len(stile) == 2)
    with pytest.raises(Refused, match="waiting"):
        next(stile.run(steps))
    gate.release(2)
    first.join(PATIENCE)
    second.join(PATIENCE)
    assert list(stile.run(lambda: iter([3]))) == [3]


def test_whoever_leaves_gives_the_place_up(monkeypatch):
    monkeypatch.setattr(limits, "HEARTBEAT", 0.01)
    stile, gate, closed = Turnstile(), threading.Semaphore(0), threading.Event()

    def endless():
        try:
            while True:
                assert gate.acquire(timeout=PATIENCE)
                yield "step"
        finally:
            closed.set()

    running = stile.run(endless)
    gate.release()
    assert next(running) == "step"
    waiting = stile.run(lambda: iter(["never"]))
    assert next(waiting) == next(waiting) == Status("1 question before yours")  # the second is a sign of life
    last, out = start(lambda: list(stile.run(lambda: iter(["mine"]))))
    until(lambda: len(stile) == 3)
    waiting.close()
    assert len(stile) == 2
    running.close()
    gate.release()  # its next step is its last
    last.join(PATIENCE)
    assert closed.wait(PATIENCE) and out[0][-1] == "mine"
    assert Status("2 questions before yours") in out[0] and Status("1 question before yours") in out[0]


def test_an_iterator_that_is_never_read_to_its_end_holds_nobody_up():
    stile = Turnstile()
    abandoned = stile.run(lambda: iter(range(1000)))
    assert next(abandoned) == 0
    assert list(stile.run(lambda: iter("x")))[-1] == "x"
    del abandoned


def test_an_error_reaches_who_asked_and_nobody_else():
    stile = Turnstile()

    def broken():
        yield 1
        raise ZeroDivisionError("mine")

    steps = stile.run(broken)
    assert next(steps) == 1
    with pytest.raises(ZeroDivisionError, match="mine"):
        next(steps)
    assert list(stile.run(lambda: iter([2]))) == [2]


# --- the guarded pipeline


def test_many_askers_each_get_their_own_answer(guard):
    pipeline = Slow()
    guarded = guard(pipeline)
    threads = [start(lambda n=n: list(guarded.stream(f"question {n}"))) for n in range(40)]
    for n, (thread, out) in enumerate(threads):
        thread.join(PATIENCE)
        events = [event for event in out[0] if not (isinstance(event, Status) and "before yours" in event.text)]
        assert events == [Status("Searching"), Draft(f"About question {n}."), Final(answer(f"question {n}"))]
    assert pipeline.most == 1  # one model, one question at a time


def test_answers_are_remembered_by_everything_that_matters(guard):
    pipeline = Slow()
    guarded = guard(pipeline)
    asked = lambda: len(pipeline.asked)  # noqa: E731
    assert guarded.ask("Who?").answer == guarded.ask(" Who? ").answer and asked() == 1
    guarded.ask("who?")
    guarded.ask("Who?", [("Before?", "Yes.")])
    guarded.ask("Who?", canon="books")
    guarded.ask("Who?", passages=2)
    assert asked() == 5 and pipeline.options[-1] == {"passages": 2}
    guarded.ask("Who?", passages=2)
    assert asked() == 5
    guarded.ask("Who?", fresh=True)
    assert asked() == 6


def test_an_answer_is_remembered_no_longer_than_the_index_it_came_from(guard, tmp_path):
    pipeline = Slow()
    guarded = guard(pipeline)
    guarded.ask("Who?")
    # An ingest has ended and the reload is to come: the pipeline still holds the index of before.
    (tmp_path / "data" / "index").mkdir(parents=True)
    (tmp_path / "data" / "index" / "manifest.json").write_text('{"file": "new"}')
    guarded.ask("Who?")
    guarded.ask("Where?")
    assert pipeline.asked == ["Who?", "Where?"]
    pipeline.searcher = "reloaded"
    guarded.ask("Who?")
    guarded.ask("Where?")  # what the old index said after the new one was written is no more known than the rest
    guarded.ask("Who?")
    assert pipeline.asked == ["Who?", "Where?"] * 2


def test_what_a_reload_overtakes_is_not_remembered_for_the_new_index(guard):
    pipeline = Slow(held=True)
    guarded = guard(pipeline)
    running, _ = start(guarded.ask, "Who?")
    until(lambda: pipeline.asked == ["Who?"])
    waiting, _ = start(guarded.ask, "Where?")
    until(lambda: len(guarded.turnstile) == 2)
    pipeline.searcher = "reloaded"
    pipeline.gate.release(9)
    running.join(PATIENCE)
    waiting.join(PATIENCE)
    guarded.ask("Who?")
    guarded.ask("Where?")  # it began after the reload, so that it is known
    assert pipeline.asked == ["Who?", "Where?", "Who?"]


def test_the_same_question_asked_by_two_at_once_is_answered_once(guard):
    pipeline = Slow(held=True)
    guarded = guard(pipeline)
    threads = [start(guarded.ask, "Who?") for _ in range(3)]
    until(lambda: len(guarded.turnstile) == 3)
    pipeline.gate.release()
    for thread, out in threads:
        thread.join(PATIENCE)
        assert out == [answer("Who?")]
    assert pipeline.asked == ["Who?"]


def test_what_a_failing_server_left_is_not_remembered(guard):
    class Quoting(Slow):
        def stream(self, question, history=(), canon=None, **options):
            self.asked.append(question)
            yield Final(answer(question, generator="evidence", abstained="no" in question))

    pipeline = Quoting()
    guarded = guard(pipeline, lm_url="http://127.0.0.1:1")
    for question in ("Who?", "Who?", "no", "no"):
        guarded.ask(question)
    assert pipeline.asked == ["Who?", "Who?", "no"]


def test_memory_forgets_what_was_not_used_for_longest():
    memory = Memory(2)
    for name in "ab":
        memory.put(name, answer(name))
    assert memory.get("a") is not None
    memory.put("c", answer("c"))
    assert memory.get("b") is None and memory.get("a") is not None and len(memory) == 2
    none = Memory(0)
    none.put("a", answer("a"))
    assert none.get("a") is None


def test_a_client_that_asks_too_often_is_told_so_politely(guard):
    guarded = guard(Slow(), rate_limit=2)
    for n in range(2):
        assert isinstance(list(guarded.stream(f"q{n}", client="10.0.0.1"))[-1], Final)
    (refusal,) = guarded.stream("q3", client="10.0.0.1")
    assert isinstance(refusal, Final) and refusal.answer.abstained and "try again in" in refusal.answer.answer
    with pytest.raises(Refused):
        guarded.ask("q3", client="10.0.0.1")
    with pytest.raises(Refused):
        guarded.search("q3", client="10.0.0.1")
    assert guarded.ask("q3", client="10.0.0.2").answer == "About q3."
    assert guarded.ask("q4").answer == "About q4."  # a call that comes from nowhere, as in tests
    assert guard(Slow(), rate_limit=0).ask("q", client="10.0.0.1").answer == "About q."


def test_the_allowance_comes_back_and_clients_are_forgotten(monkeypatch):
    now = [0.0]
    allowance = Allowance(2, 60.0, lambda: now[0])
    assert allowance.take("a") == 0
    now[0] = 10
    assert allowance.take("a") == 0 and allowance.take("a") == 50
    now[0] = 60
    assert allowance.take("a") == 0 and allowance.take("a") == 10
    monkeypatch.setattr(limits, "CLIENTS", 3)
    for name in "bcd":
        allowance.take(name)
    assert len(allowance._asked) == 3


def test_search_waits_its_turn_too(guard):
    pipeline = Slow(held=True)
    guarded = guard(pipeline)
    first, _ = start(guarded.ask, "Who?")
    until(lambda: len(guarded.turnstile) == 1)
    second, out = start(guarded.search, "words")
    until(lambda: len(guarded.turnstile) == 2)
    assert pipeline.asked == ["Who?"]
    pipeline.gate.release()
    first.join(PATIENCE)
    second.join(PATIENCE)
    assert out[0].corrections == {"asked": "words"}


# --- who asks


@pytest.mark.parametrize(
    ("space", "trusted", "forwarded", "expected"),
    [
        (False, False, "1.2.3.4", "10.0.0.9"),  # anybody may write that header
        (True, False, "1.2.3.4, 10.0.0.1", "1.2.3.4"),
        (False, True, "1.2.3.4", "1.2.3.4"),
        (True, False, "", "10.0.0.9"),
        (True, False, "::ffff:1.2.3.4", "1.2.3.4"),
        (True, False, "2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        (True, False, "2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        (True, False, "x" * 500, "x" * 64),
    ],
)
def test_clients(monkeypatch, tmp_path, space, trusted, forwarded, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPACE_ID", "me/cirilla" if space else "")
    chosen = app_settings.load(trusted_proxy=trusted)
    request = SimpleNamespace(client=SimpleNamespace(host="10.0.0.9"), headers={"x-forwarded-for": forwarded})
    assert client_of(request, chosen) == expected


def test_a_request_without_an_address_is_nobodys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert client_of(None, app_settings.load()) == ""
    assert client_of(SimpleNamespace(client=None, headers={}), app_settings.load()) == ""
