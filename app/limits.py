"""Many people, one model: a fair queue that tells everyone their place, a limit for each client, remembered answers.

``Guarded`` stands in front of the pipeline and looks like it, so the page and the API need not know that others ask at
the same time.  All work is done by the turnstile's own threads: whoever leaves half-way, or never comes back for the
rest of an answer, cannot hold the model.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from app.answer import Answer, Event, Final, Status
from app.carry import Turn
from app.errors import AppError
from app.settings import Settings
from retrieval.search import Found

HEARTBEAT = 2.0
"""Seconds between two signs of life of a waiting question: Gradio can end a generator only where it yields."""
NEARLY = 3
"""Questions before one's own from which every step is told; further back only every fifth.  Telling each of twenty of
every step made the slowest of them wait a second longer for the first word (95 % within 14.2 instead of 13.1 s)."""
WINDOW = 60.0
"""Seconds over which a client's questions are counted."""
CLIENTS = 10_000
"""Clients that are remembered; beyond, those not seen for longest are forgotten."""

T = TypeVar("T")


class Refused(AppError):
    """A question is turned away: too many wait already, or one client asks too often."""


class Answers(Protocol):
    """What is guarded: ``app.pipeline.Pipeline``, or what a test puts in its place."""

    @property
    def stream(self) -> Callable[..., Iterator[Event]]:
        """``(question, history, canon, **options)``; the options are the pipeline's own affair and only passed on."""
        ...

    def search(self, question: str, k: int = 8, canon: str | None = None) -> Found: ...


@dataclass(eq=False, slots=True)
class _Ticket:
    """One question in the queue, and what became of it so far."""

    work: Callable[[], Iterator[Any]]
    out: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    told: int = 0  # the last number of questions before it that was told
    gone: bool = False  # nobody waits for it any more


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


class Turnstile:
    """First come, first served, ``workers`` at a time; those who wait are told how many are before them."""

    def __init__(self, workers: int = 1, waiting: int = 64) -> None:
        self.workers, self.room = workers, waiting
        self._waiting: deque[_Ticket] = deque()
        self._running: set[_Ticket] = set()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def run(self, work: Callable[[], Iterator[T]]) -> Generator[T | Status, None, None]:
        """What ``work()`` yields, after a ``Status`` for the place in the queue, again and again.

        Every ``HEARTBEAT`` seconds without news the last ``Status`` is given again.  Closing the iterator gives the
        place up; what already runs ends at its next step.

        Raises:
            Refused: the queue is full.
            Whatever ``work`` raises.
        """
        ticket = self._join(work)
        last: Status | None = None
        try:
            while True:
                try:
                    item = ticket.out.get(timeout=HEARTBEAT)
                except queue.Empty:
                    if last is not None:
                        yield last
                    continue
                if item is _END:
                    return
                if isinstance(item, _Failure):
                    raise item.error
                if isinstance(item, Status):
                    last = item
                yield item
        finally:
            self._leave(ticket)

    def __len__(self) -> int:
        """Questions that wait or run."""
        with self._changed:
            return len(self._waiting) + len(self._running)

    def close(self) -> None:
        """Let the threads end once nothing waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _join(self, work: Callable[[], Iterator[Any]]) -> _Ticket:
        with self._changed:
            # Those for whom a thread is free do not wait, even if it has not woken up yet.
            free = self.workers - len(self._running)
            if len(self._waiting) - free >= self.room:
                raise Refused("Too many questions are waiting just now. Please try again in a minute.")
            if len(self._threads) < self.workers:
                # Daemons: an answer that nobody will read must not keep the program from ending.
                thread = threading.Thread(target=self._serve, name=f"answers-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            ticket = _Ticket(work)
            self._waiting.append(ticket)
            self._tell()
            self._changed.notify()
            return ticket

    def _leave(self, ticket: _Ticket) -> None:
        with self._changed:
            ticket.gone = True
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self._tell()

    def _tell(self) -> None:
        """Send a ``Status`` to those whose place has changed, if it is a place to tell; the lock is held."""
        free = self.workers - len(self._running)
        for at, ticket in enumerate(self._waiting):
            before = 0 if at < free else at + len(self._running)
            if before and before != ticket.told and (not ticket.told or before <= NEARLY or before % 5 == 0):
                ticket.out.put(Status("1 question before yours" if before == 1 else f"{before} questions before yours"))
                ticket.told = before

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                ticket = self._waiting.popleft()
                self._running.add(ticket)
                self._tell()
            try:
                steps = ticket.work()
                for item in steps:
                    if ticket.gone:
                        break
                    ticket.out.put(item)
                if hasattr(steps, "close"):
                    steps.close()
            except BaseException as error:  # whoever waits must hear of it, and the thread go on
                ticket.out.put(_Failure(error))
            finally:
                ticket.out.put(_END)
                with self._changed:
                    self._running.discard(ticket)
                    self._tell()


class Allowance:
    """How many questions each client may still ask within ``seconds``."""

    def __init__(self, most: int, seconds: float = WINDOW, clock: Callable[[], float] = time.monotonic) -> None:
        self.most, self.seconds, self._clock = most, seconds, clock
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()  # client → times, the client seen last at the end
        self._lock = threading.Lock()

    def take(self, client: str) -> float:
        """Count one question; the seconds to wait if it is one too many (it is not counted then), else 0.0."""
        now = self._clock()
        with self._lock:
            times = self._asked.setdefault(client, deque())
            self._asked.move_to_end(client)
            while len(self._asked) > CLIENTS:
                self._asked.popitem(last=False)
            while times and times[0] <= now - self.seconds:
                times.popleft()
            if len(times) >= self.most:
                return times[0] + self.seconds - now
            times.append(now)
            return 0.0


class Memory:
    """The last answers, by question; the one not used for longest goes first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Answer | None:
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None:
                self._answers.move_to_end(key)
            return answer

    def put(self, key: str, answer: Answer) -> None:
        with self._lock:
            self._answers[key] = answer
            self._answers.move_to_end(key)
            while len(self._answers) > self.size:
                self._answers.popitem(last=False)

    def __len__(self) -> int:
        return len(self._answers)


class Guarded:
    """A pipeline for many: queue, limits and memory around it, with the same ``stream``, ``ask`` and ``search``.

    Answers are remembered for as long as the pipeline keeps the index that they came from (``app.live`` puts another in
    its place); what lies on disk meanwhile does not matter.
    """

    def __init__(self, pipeline: Answers, settings: Settings) -> None:
        self.pipeline, self.settings = pipeline, settings
        self.turnstile = Turnstile(settings.workers, settings.waiting)
        self.allowance = Allowance(settings.rate_limit)
        self._memory: tuple[object, Memory] | None = None
        self._lock = threading.Lock()

    @property
    def memory(self) -> Memory:
        """Answers from the index in use: whoever takes this before an answer begins never puts an old one in a new."""
        with self._lock:
            held = getattr(self.pipeline, "searcher", None)  # a reload puts another one there
            if self._memory is None or self._memory[0] is not held:
                self._memory = (held, Memory(self.settings.cached_answers))
            return self._memory[1]

    def stream(
        self,
        question: str,
        history: Sequence[Turn] = (),
        canon: str | None = None,
        *,
        client: str = "",
        fresh: bool = False,
        **options: Any,
    ) -> Iterator[Event]:
        """As ``events``, for people: a refusal is a polite sentence in the answer's place."""
        try:
            yield from self.events(question, history, canon, client=client, fresh=fresh, **options)
        except Refused as refusal:
            yield Final(Answer(question, question, str(refusal), True, 0.0, (), {"total": 0.0}, "evidence"))

    def events(
        self,
        question: str,
        history: Sequence[Turn] = (),
        canon: str | None = None,
        *,
        client: str = "",
        fresh: bool = False,
        **options: Any,
    ) -> Iterator[Event]:
        """``Status`` with the place in the queue, then what the pipeline yields.

        An answer that is remembered comes at once, with the timings of the run that made it.

        Args:
            client: who asks, see ``client_of``; "" is not counted.
            fresh: do not look whether the answer is remembered ("retry").
            options: passed on to the pipeline's ``stream``.

        Raises:
            Refused: the client asks too often, or the queue is full.
        """
        self.admit(client)
        key = _key(question, history, canon, options)
        if not fresh and (known := self.memory.get(key)) is not None:
            yield Final(known)
            return

        def work() -> Iterator[Event]:
            # Once more: it may have been asked by somebody else who stood before us in the queue.
            memory = self.memory
            if not fresh and (known := memory.get(key)) is not None:
                yield Final(known)
                return
            for event in self.pipeline.stream(question, history, canon, **options):
                if isinstance(event, Final) and self._worth_keeping(event.answer):
                    memory.put(key, event.answer)
                yield event

        with closing(self.turnstile.run(work)) as events:
            yield from events

    def ask(
        self,
        question: str,
        history: Sequence[Turn] = (),
        canon: str | None = None,
        *,
        client: str = "",
        **options: Any,
    ) -> Answer:
        """The answer alone.

        Raises:
            Refused: the client asks too often, or the queue is full.
        """
        for event in self.events(question, history, canon, client=client, **options):
            if isinstance(event, Final):
                return event.answer
        raise AssertionError("a stream ends with its answer")

    def search(self, question: str, k: int = 8, canon: str | None = None, *, client: str = "") -> Found:
        """Ranked passages; waits its turn like a question, for the encoder works for it too.

        Raises:
            Refused: the client asks too often, or the queue is full.
        """
        self.admit(client)

        def work() -> Iterator[Found]:
            yield self.pipeline.search(question, k, canon)

        for item in self.turnstile.run(work):
            if not isinstance(item, Status):
                return item
        raise AssertionError("a search ends with what it found")

    def admit(self, client: str) -> None:
        """Count one question of a client.

        Raises:
            Refused: that was one too many; the message says when to come back.
        """
        if not client or not self.settings.rate_limit:
            return
        seconds = self.allowance.take(client)
        if seconds > 0:
            raise Refused(
                f"You have asked {self.settings.rate_limit} questions within a minute, which is all that one reader "
                f"may. Please try again in {int(seconds) + 1} s."
            )

    def _worth_keeping(self, answer: Answer) -> bool:
        # A server that fails leaves quoted evidence in place of its draft: that should not outlast the failure.
        return not self.settings.lm_url or answer.abstained or answer.generator != "evidence"


def _key(question: str, history: Sequence[Turn], canon: str | None, options: dict[str, Any]) -> str:
    """What an answer depends on, but for the index."""
    parts = [question.strip(), [list(turn) for turn in history], canon, options]
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def client_of(request: Any, settings: Settings) -> str:
    """Who sends a ``gr.Request``: an address to count questions by, or "" when it cannot be told.

    X-Forwarded-For is anybody's to write, so it counts only behind a proxy that sets it itself.  A household or a
    company has one IPv4 address but 2⁶⁴ IPv6 addresses, so of the latter only the network's half counts.
    """
    if request is None:
        return ""
    host = str(getattr(getattr(request, "client", None), "host", "") or "")
    if settings.behind_proxy:
        forwarded = str(dict(request.headers).get("x-forwarded-for", ""))
        host = forwarded.split(",")[0].strip() or host
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
