"""Many chats at once with a running server: errors, answers that went to the wrong reader, waiting times, memory.

    python -m benchmarks.load [--chats 20] [--turns 3] [--url http://…] [--data DIR] [--out FILE.json]

Each chat asks questions of its own, one after another, with its own history.  First every chat is held alone, which
says what it must be answered; then all are held at once, every turn asked at the same moment, the worst that many
readers can do.  Without ``--url`` a server is started for it, on this machine, whose memory is measured and which
remembers no answers.  Nothing but that server is called, and no more than chats × turns × 2 questions are asked.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = ROOT / "corpus" / "questions" / "dev.jsonl"
GOALS = {"errors": 0, "mixed_up": 0, "first_word_p95_s": 15.0, "peak_memory_mb": 2_000}
"""The most that is allowed of each figure."""
START = 300.0  # seconds that the server may take to start, its first index included
PATIENCE = 120.0  # seconds that one answer may take


@dataclass(slots=True)
class Reply:
    """What one question came to; times in seconds from the moment it was asked."""

    question: str
    answer: dict[str, Any] = field(default_factory=dict)
    first_word: float = 0.0
    total: float = 0.0
    waited: int = 0  # the most questions that were said to be before it
    error: str = ""

    def says(self) -> tuple[Any, ...]:
        """What must be the same whoever asks besides: everything but the timings."""
        return tuple(json.dumps(value, sort_keys=True) for key, value in self.answer.items() if key != "timings")


def scripts(chats: int, turns: int, questions: Path = QUESTIONS) -> list[list[str]]:
    """For each chat its questions; no question is asked in two chats."""
    asked: dict[str, None] = {}
    for line in questions.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if isinstance(row.get("question"), str):
            asked.setdefault(row["question"])
    plenty = list(asked)
    if len(plenty) < chats * turns:
        raise SystemExit(f"{questions} holds {len(plenty)} questions; {chats * turns} are needed.")
    step = len(plenty) // (chats * turns)
    chosen = plenty[:: max(step, 1)]
    return [chosen[chat * turns : (chat + 1) * turns] for chat in range(chats)]


def ask(client: Any, question: str, history: list[list[str]]) -> Reply:
    """One question, as it is answered."""
    reply = Reply(question)
    began = time.perf_counter()
    try:
        for step in client.submit(question=question, history=history, api_name="/stream"):
            now = time.perf_counter() - began
            if step["event"] == "status":
                number = step["value"].partition(" question")[0]
                reply.waited = max(reply.waited, int(number) if number.isdigit() else 0)
            else:
                reply.first_word = reply.first_word or now
            if step["event"] == "answer":
                reply.answer, reply.total = step["value"], now
            if now > PATIENCE:
                reply.error = "no end"
                break
    except Exception as error:  # whatever it is, it is one failed question
        reply.error = f"{type(error).__name__}: {error}"
    if not reply.answer and not reply.error:
        reply.error = "no answer"
    return reply


def chat(url: str, number: int, questions: Sequence[str], together: threading.Barrier | None) -> list[Reply]:
    """One chat, from an address of its own as far as the server can tell, since it stands where a proxy would."""
    from gradio_client import Client

    client = Client(url, verbose=False, headers={"X-Forwarded-For": f"192.0.2.{number + 1}"}, download_files=False)
    history: list[list[str]] = []
    replies = []
    for question in questions:
        if together is not None:
            together.wait(PATIENCE)
        reply = ask(client, question, history)
        replies.append(reply)
        if reply.answer and not reply.answer["abstained"]:
            history.append([reply.answer["standalone_question"], reply.answer["answer"]])
    return replies


def at_once(url: str, plan: Sequence[Sequence[str]]) -> list[list[Reply]]:
    """All chats at once; a chat that fails as a whole counts all its questions as errors."""
    together = threading.Barrier(len(plan))
    out: list[list[Reply]] = [[] for _ in plan]

    def hold(number: int) -> None:
        try:
            out[number] = chat(url, number, plan[number], together)
        except Exception as error:
            together.abort()
            out[number] = [Reply(question, error=repr(error)) for question in plan[number]]

    threads = [threading.Thread(target=hold, args=[number], daemon=True) for number in range(len(plan))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def mixed_up(alone: Sequence[Reply], crowded: Sequence[Reply]) -> list[str]:
    """Questions that were answered otherwise among others than alone."""
    return [
        b.question for a, b in zip(alone, crowded, strict=True) if not (a.error or b.error) and a.says() != b.says()
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of them do not exceed (nearest rank); 0.0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 100) * len(ordered) // 100) - 1))] if ordered else 0.0


def memory_mb(pid: int, peak: bool = True) -> float:
    """Resident memory of a process in MB (10⁶ bytes), at its peak or now; 0.0 where there is no /proc."""
    name = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name)), 0.0)


@contextmanager
def server(data: Path, **environment: str) -> Iterator[tuple[str, int, float]]:
    """A server of this project on a free port: its address, process id, and the seconds until its page was served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--data", str(data)]
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                httpx.get(url, timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                if process.poll() is not None or time.perf_counter() - began > START:
                    raise SystemExit("The server did not start.") from None
                time.sleep(0.1)
        yield url, process.pid, time.perf_counter() - began
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(url: str, plan: Sequence[Sequence[str]], pid: int = 0) -> dict[str, Any]:
    """Hold the chats of ``plan``, alone and then at once; the figures."""
    alone = [reply for number, questions in enumerate(plan) for reply in chat(url, number, questions, None)]
    resting = memory_mb(pid, peak=False)
    began = time.perf_counter()
    crowded = [reply for replies in at_once(url, plan) for reply in replies]
    seconds = time.perf_counter() - began
    good = [reply for reply in crowded if not reply.error]
    errors = [f"{reply.question}: {reply.error}" for reply in [*alone, *crowded] if reply.error]
    strangers = [reply.question for reply in good if reply.answer["question"] != reply.question.strip()]
    return {
        "chats": len(plan),
        "questions_at_once": len(crowded),
        "errors": len(errors),
        "mixed_up": len(set(mixed_up(alone, crowded)) | set(strangers)),
        "alone_p50_s": round(percentile([reply.total for reply in alone], 0.5), 2),
        "first_word_p50_s": round(percentile([reply.first_word for reply in good], 0.5), 2),
        "first_word_p95_s": round(percentile([reply.first_word for reply in good], 0.95), 2),
        "total_p95_s": round(percentile([reply.total for reply in good], 0.95), 2),
        "longest_queue": max((reply.waited for reply in crowded), default=0),
        "questions_a_second": round(len(good) / seconds, 2),
        "memory_before_mb": round(resting),
        "peak_memory_mb": round(memory_mb(pid)),
        "first_errors": errors[:3],
    }


def main() -> int:
    """Print the figures; the exit status is 1 when a goal is missed."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--chats", type=int, default=20)
    options.add_argument("--turns", type=int, default=3, help="questions in each chat")
    options.add_argument("--url", help="a server that runs already; its memory cannot be measured")
    options.add_argument("--data", type=Path, help="data folder of the server that is started (default: a new one)")
    options.add_argument("--out", type=Path, help="write the figures there as JSON")
    args = options.parse_args()
    plan = scripts(args.chats, args.turns)
    if args.url:
        figures = measure(args.url, plan)
    else:
        with (
            tempfile.TemporaryDirectory() as folder,
            server(args.data or Path(folder), CIRILLA_CACHED_ANSWERS="0") as (url, pid, seconds),
        ):
            figures = {"started_s": round(seconds, 1)} | measure(url, plan, pid)
    missed = [name for name, most in GOALS.items() if figures[name] > most]
    for name, value in figures.items():
        goal = f"(goal: ≤ {GOALS[name]:g}{', missed' if name in missed else ''})" if name in GOALS else ""
        print(f"{name:<20} {value} {goal}")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
