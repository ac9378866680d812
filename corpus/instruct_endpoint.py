"""A client for any server that speaks OpenAI's chat completions: Ollama, vLLM, llama.cpp and the like.

Structured output is asked for in the strictest way the server takes: ``json_schema``, else ``json_object`` (with a
schema, without one), else by words alone.  What may pass (no connection, a timeout, 429, 5xx) is tried again with
growing pauses or after the ``Retry-After`` that the server names; what will not (401, an unknown model) ends the run
with one line.

Source: https://platform.openai.com/docs/api-reference/chat and the servers' own pages on ``response_format``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from corpus.instruct_rows import InstructError

KEY_VARIABLE = "CIRILLA_INSTRUCT_KEY"
ATTEMPTS = 5  # per request
MAX_PAUSE = 300.0  # s; a server that wants a longer rest is left alone until the next run
MAX_BYTES = 4 * 2**20  # of one answer
Mode = Literal["json_schema", "json_object with schema", "json_object", "text"]
MODES: tuple[Mode, ...] = ("json_schema", "json_object with schema", "json_object", "text")


class Unreachable(InstructError):
    """Nobody answers at the address."""


class Refused(InstructError):
    """The server answers and will not serve us: the key, the model, the address."""


class Broken(InstructError):
    """The server answers, but not sensibly, after every attempt; another passage may fare better."""


class _TryAgain(Exception):
    def __init__(self, final: InstructError, after: float | None = None) -> None:
        super().__init__(str(final))
        self.final, self.after = final, after


class _Rejected(Exception):
    """HTTP 400, 422 or a telling 500: perhaps only the ``response_format``."""


class Endpoint:
    """One model behind one address.  Use as an async context manager.

    ``per_minute`` bounds the starts of requests (0: no bound), ``timeout`` (seconds) one whole answer, ``backoff``
    (seconds) the first pause before another attempt.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        *,
        timeout: float = 120.0,
        per_minute: float = 0.0,
        attempts: int = ATTEMPTS,
        backoff: float = 1.0,
        max_tokens: int = 1200,
        temperature: float = 0.7,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InstructError(f"{url} is no web address: give one like http://127.0.0.1:8080/v1 with --url.")
        if parts.username or parts.password:
            raise InstructError(f"Put the key into {KEY_VARIABLE}, not into the address.")
        self.host = parts.netloc
        self.model, self.mode = model, MODES[0]
        self.url = url.rstrip("/").removesuffix("/chat/completions")
        self._key, self._timeout, self._attempts, self._backoff = key, timeout, attempts, backoff
        self._options = {"max_tokens": max_tokens, "temperature": temperature}
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._due = 0.0
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=min(15.0, timeout)),
            trust_env=not _loopback(parts.hostname),  # a proxy cannot reach our own machine
        )

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.aclose()

    async def check(self) -> None:
        """See that somebody answers and knows the model.  Raises Unreachable or Refused.

        A server without ``/models`` passes: then the first question tells.
        """
        status, data = await self._patiently("GET", "/models", None, attempts=min(2, self._attempts))
        listed = data.get("data") if status == 200 and isinstance(data, dict) else None
        names = [str(m["id"]) for m in listed if isinstance(m, dict) and "id" in m] if isinstance(listed, list) else []
        if names and self.model not in names and f"{self.model}:latest" not in names:
            some = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
            raise Refused(self._clean(f"{self.host} has no model '{self.model}'; it has {some}: choose with --model."))

    async def ask(self, messages: list[dict[str, str]], schema: dict[str, Any], seed: int) -> tuple[str, bool]:
        """The text of the model's answer, and whether it was cut off for length.

        Raises Unreachable, Refused or Broken.
        """
        while True:
            mode = self.mode
            body: dict[str, Any] = {"model": self.model, "messages": messages, "seed": seed, **self._options}
            if mode == "json_schema":
                wrapped = {"name": "answer", "strict": True, "schema": schema}
                body["response_format"] = {"type": mode, "json_schema": wrapped}
            elif mode == "json_object with schema":  # llama-cpp-python's way
                body["response_format"] = {"type": "json_object", "schema": schema}
            elif mode == "json_object":
                body["response_format"] = {"type": mode}
            try:
                _, data = await self._patiently("POST", "/chat/completions", body)
            except _Rejected as error:
                if mode == "text":
                    raise Broken(self._clean(f"{self.host} rejects the question: {error}")) from None
                # Another request may have stepped down meanwhile.
                if self.mode == mode:
                    self.mode = MODES[MODES.index(mode) + 1]
                continue
            try:
                choice = data["choices"][0]
                text = choice["message"]["content"]
            except (KeyError, IndexError, TypeError):
                raise Broken(f"{self.host} does not answer like a chat completions server.") from None
            return (text if isinstance(text, str) else ""), choice.get("finish_reason") == "length"

    # -- one request -------------------------------------------------------------------------------------------

    async def _patiently(self, method: str, path: str, body: Any, attempts: int = 0) -> tuple[int, Any]:
        try:
            async for attempt in AsyncRetrying(
                stop=stop_after_attempt(attempts or self._attempts),
                wait=self._pause,
                retry=retry_if_exception_type(_TryAgain),
                reraise=True,
            ):
                with attempt:
                    return await self._once(method, path, body)
        except _TryAgain as error:
            raise error.final from None
        raise AssertionError("tenacity returns or raises")

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _TryAgain) and error.after is not None:
            return error.after
        return wait_exponential_jitter(multiplier=self._backoff, max=60.0 * self._backoff, jitter=self._backoff)(state)

    async def _once(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        await self._take_turn()
        try:
            # httpx's own timeouts bound each read; a server that drips would otherwise hold us for ever.
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream(method, self.url + path, json=body) as answer,
            ):
                raw = bytearray()
                async for piece in answer.aiter_bytes():
                    raw += piece
                    if len(raw) > MAX_BYTES:
                        raise Broken(f"{self.host} sent more than {MAX_BYTES >> 20} MB in one answer.")
        except (TimeoutError, httpx.TimeoutException):
            line = f"{self.host} did not answer within {self._timeout:g} s: a longer --timeout may help."
            raise _TryAgain(Unreachable(line)) from None
        except httpx.TransportError as error:
            reason = self._clean(str(error) or type(error).__name__)
            raise _TryAgain(Unreachable(f"Cannot reach {self.host} ({reason}): is the server running?")) from None
        try:
            data = json.loads(raw.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            data = None
        self._judge(answer, path, data)
        if data is None and path != "/models":
            raise _TryAgain(Broken(f"{self.host} answered with something else than JSON."))
        return answer.status_code, data

    def _judge(self, answer: httpx.Response, path: str, data: Any) -> None:
        """Raises for every status that is no answer."""
        status, said = answer.status_code, self._clean(_message(data))
        told = f": {said}" if said else ""
        if status in (401, 403):
            raise Refused(f"{self.host} refuses the key (HTTP {status}): set {KEY_VARIABLE} to one that it takes.")
        if status == 404 and path != "/models":
            if re.search(r"model", said, re.I):
                raise Refused(f"{self.host} has no model '{self.model}'{told}")
            raise Refused(f"{self.host} has no chat completions at {self.url}: does --url need /v1 at its end?")
        if status == 429:
            line = f"{self.host} asks us to slow down (HTTP 429): run again later, or with a lower --per-minute."
            raise _TryAgain(Broken(line), self._retry_after(answer.headers))
        if status >= 500 and self.mode != "text" and re.search(r"response_format|json_schema|grammar", said, re.I):
            raise _Rejected(said)  # llama-cpp-python tells of a wrong request with a 500
        if status >= 500:
            raise _TryAgain(
                Broken(f"{self.host} is in trouble (HTTP {status}){told}"), self._retry_after(answer.headers)
            )
        if status in (400, 422) and path != "/models":
            if re.search(r"model\b.*(?:not found|does not exist|unknown|not exist)", said, re.I):
                raise Refused(f"{self.host} has no model '{self.model}'{told}")
            raise _Rejected(said or f"HTTP {status}")
        if status >= 300 and path != "/models":
            raise Refused(f"{self.host} answers with HTTP {status}{told}")

    async def _take_turn(self) -> None:
        if self._gap:
            now = time.monotonic()
            self._due = max(self._due, now) + self._gap
            await asyncio.sleep(self._due - self._gap - now)

    def _retry_after(self, headers: httpx.Headers) -> float | None:
        """Seconds that ``Retry-After`` asks for (a number or an HTTP date), None without one."""
        value = headers.get("Retry-After", "").strip()
        try:
            seconds = float(value) if value[:1].isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
        if seconds > MAX_PAUSE:
            raise Refused(f"{self.host} asks for a pause of {seconds / 60:.0f} minutes: run again then; all is kept.")
        return max(0.0, seconds)

    def _clean(self, text: str) -> str:
        """A line of the server's for our own: one line, short, without the key."""
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return (text.replace(self._key, "…") if self._key else text)[:200]


def _message(data: Any) -> str:
    """What servers put into an error: {"error": {"message"}}, {"error": "…"}, {"detail": …}, {"message": …}."""
    if not isinstance(data, dict):
        return ""
    error = data.get("error", data.get("detail", data.get("message", "")))
    if isinstance(error, dict):
        error = error.get("message", "")
    return error if isinstance(error, str) else json.dumps(error)


def _loopback(host: str | None) -> bool:
    if host in (None, "localhost"):
        return host == "localhost"
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
