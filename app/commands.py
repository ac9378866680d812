"""What each option of ``app.py`` does, and how errors reach the user: one line and an exit status of their own."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import textwrap
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import AppError, BadQuestionFile, PortInUse, SettingsError
from corpus.errors import CirillaError, CorpusError, Locked, NotAWiki, WikiBroken, WikiRefused, WikiUnreachable

if TYPE_CHECKING:
    from app.answer import Answer
    from app.pipeline import Pipeline
    from app.settings import Settings

OTHER, USAGE, ARCHIVE, WEIGHTS, WIKI, LOCKED, PORT, QUESTIONS, DEPLOY, INTERRUPTED = 1, 2, 3, 4, 5, 6, 7, 8, 9, 130
"""Exit statuses; ``app.py --help`` lists them."""


def exit_status(error: BaseException) -> int | None:
    """The exit status of an error that is the user's to know about; None for a bug of ours."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    for kinds, status in (
        ((SettingsError,), USAGE),
        ((PortInUse,), PORT),
        ((BadQuestionFile,), QUESTIONS),
        ((Locked,), LOCKED),
        ((WikiUnreachable, WikiRefused, WikiBroken, NotAWiki), WIKI),
    ):
        if isinstance(error, kinds):
            return status
    if isinstance(error, CirillaError):
        from app.deploy import DeployError
        from app.errors import NothingIndexed
        from retrieval.errors import RetrievalError

        if isinstance(error, DeployError):
            return DEPLOY
        return ARCHIVE if isinstance(error, CorpusError | RetrievalError | NothingIndexed) else OTHER
    # The models' rooms know nothing of ours, so their errors share no base; they are loaded if one was raised.
    for room, name in (("encoder.errors", "EncoderError"), ("lm.errors", "LMError")):
        kind = getattr(sys.modules.get(room), name, None)
        if kind is not None and isinstance(error, kind):
            return WEIGHTS
    return None


def run(args: argparse.Namespace) -> int:
    """Do what the parsed arguments ask for; returns the exit status.  A bug of ours shows its traceback."""
    try:
        from app import settings

        chosen = settings.load(data=args.data, host=args.host, port=args.port)
        command: Callable[[argparse.Namespace, Settings], int] = chat
        if args.ingest:
            command = ingest
        elif args.ask is not None:
            command = ask
        elif args.search is not None:
            command = search
        elif args.evaluate is not None:
            command = evaluate
        elif args.deploy is not None:
            command = deploy
        status = command(args, chosen)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output has gone, as in "… | head"
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        known = exit_status(error)
        if known is None:
            raise
        complain("Interrupted." if isinstance(error, KeyboardInterrupt) else str(error))
        return known


def complain(message: str) -> None:
    """One line on standard error, whatever the message holds."""
    print(f"cirilla: {' '.join(message.split())}", file=sys.stderr)


def open_pipeline(settings: Settings) -> Pipeline:
    """The pipeline, on an index that is built from the codex if there is none yet."""
    from app.ingest import ensure_index
    from app.pipeline import Pipeline

    ensure_index(settings)
    return Pipeline.open(settings)


def chat(args: argparse.Namespace, settings: Settings) -> int:
    """Serve the chat until Ctrl-C."""
    from app.serve import check_port, keep_files_in

    check_port(settings.host, settings.port)  # first: it takes no time, loading does
    keep_files_in(settings.data)  # before Gradio is imported
    pipeline = open_pipeline(settings)
    from app import api
    from app.chat import build
    from app.limits import Guarded
    from app.serve import serve

    answers = Guarded(pipeline, settings)
    page = build(answers, settings)
    with page:
        api.add(answers, settings)
    serve(page, settings)
    return 0


def deploy(args: argparse.Namespace, settings: Settings) -> int:
    """Upload what a Hugging Face Space needs, or with ``--dry-run`` only list it."""
    from app import deploy as dp
    from app.settings import ROOT

    space = dp.checked_name(args.deploy)
    files = dp.files(ROOT)
    for file in files:
        print(f"{file.size:>12,}  {file.path}")
    print(f"{sum(file.size for file in files):>12,}  bytes in {len(files)} files, for the Space {space}")
    if args.dry_run:
        print("Nothing was uploaded.")
        return 0
    sys.stdout.flush()
    print(f"The Space is at {dp.upload(ROOT, space, files, os.environ.get('HF_TOKEN', ''))}")
    return 0


def ingest(args: argparse.Namespace, settings: Settings) -> int:
    """Codex, wiki, index; the last lines are counts.  A wiki that fails leaves its line and a status of its own."""
    from app.ingest import ingest as run_ingest

    wiki = None if args.codex_only or args.rebuild else args.wiki or settings.wiki
    report = run_ingest(settings, wiki=wiki, limit=args.limit, rebuild=args.rebuild)
    for line in report.lines:
        print(line)
    if report.error is not None:
        sys.stdout.flush()
        raise report.error
    return 0


def _question(text: str, option: str, limit: int) -> str:
    """The text of a question from the command line, where a mistake should stop a script, unlike in the chat.

    Raises:
        SettingsError: it is empty or longer than ``limit`` characters.
    """
    if not text.strip():
        raise SettingsError(f"{option}: the question is empty.")
    if len(text) > limit:
        raise SettingsError(f"{option}: the question has {len(text):,} characters; {limit:,} are the most.")
    return text


def ask(args: argparse.Namespace, settings: Settings) -> int:
    """Answer one question."""
    _question(args.ask, "--ask", settings.question_limit)
    answer = open_pipeline(settings).ask(args.ask, canon=args.canon)
    if args.json:
        if answer.note:
            complain(answer.note)
        _write(answer.to_json(), args.json)
    else:
        print(_as_text(answer))
    return 0


def search(args: argparse.Namespace, settings: Settings) -> int:
    """List the passages that a query brings."""
    _question(args.search, "--search", settings.question_limit)
    from app.api import search_json

    found = open_pipeline(settings.model_copy(update={"generator": "evidence"})).search(
        args.search, settings.candidates, args.canon
    )
    if args.json:
        _write(search_json(args.search, found), args.json)
        return 0
    for old, new in found.corrections.items():
        print(f"Searched for {new} instead of {old}.")
    if not found.hits:
        print("Nothing found.")
    for number, hit in enumerate(found.hits, 1):
        canon = f" ({hit.passage.canon})" if hit.passage.canon else ""
        print(f"{number}. {hit.passage.heading}{canon}  {hit.passage.url}")
        print(
            f"   fused {hit.score:.4f} · BM25 {_stage(hit.bm25, hit.bm25_rank)} · dense "
            f"{_stage(hit.dense, hit.dense_rank)} · second stage {_stage(hit.second, hit.second_rank)}"
        )
        print(textwrap.indent(textwrap.shorten(hit.passage.text, 240, placeholder=" …"), "   "))
    return 0


def evaluate(args: argparse.Namespace, settings: Settings) -> int:
    """Ask the questions of a file and print the figures; with ``--report``, look into every miss."""
    from app import evaluate as ev

    items = ev.read(Path(args.evaluate))
    for out in (Path(name) for name in (args.json, args.report) if name and name != "-"):
        if not out.parent.is_dir():  # before the minutes of work, not after
            raise AppError(f"There is no folder {out.parent} to write {out.name} to.")
    pipeline = open_pipeline(settings)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Asking", total=sum(len(item.turns) for item in items))
        outcomes = list(ev.run(pipeline, items, lambda done: bar.update(task, completed=done)))
    if args.json:
        _write(ev.to_json(outcomes), args.json)
    if args.json != "-":
        for name, value in ev.summary(outcomes).items():
            print(f"{name:<22} {'–' if value is None else value}")
    if args.report:
        from app import misses, report

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("Looking into misses", total=sum(not outcome.right for outcome in outcomes))
            found = misses.find(pipeline, outcomes, lambda done: bar.update(task, completed=done))
        now = datetime.now()
        made = f"{now.day} {now:%B %Y}, {now:%H:%M}"
        _write_text(report.page(found, outcomes, Path(args.evaluate).name, made), args.report)
        if args.json != "-":
            for stage, (name, _) in misses.STAGES.items():
                print(f"{name:<22} {sum(miss.stage == stage for miss in found)}")
    return 0


def _write(value: dict[str, Any], where: str) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if where == "-":
        print(text)
    else:
        _write_text(text + "\n", where)


def _write_text(text: str, where: str) -> None:
    try:
        Path(where).write_text(text, encoding="utf-8")
    except OSError as error:
        raise AppError(f"Cannot write {where}: {error.strerror}.") from error


def _as_text(answer: Answer) -> str:
    lines = [answer.answer]
    for citation in answer.citations:
        place = " › ".join(part for part in (citation.title, citation.section) if part)
        canon = f" ({citation.canon})" if citation.canon else ""
        lines += ["", f"[{citation.n}] {place}{canon}  {citation.url}"]
        lines += [textwrap.fill(f"“{citation.quote}”", 100, initial_indent="    ", subsequent_indent="    ")]
    if answer.note:
        lines += ["", f"({answer.note})"]
    lines += ["", f"confidence {answer.confidence:.2f} · {answer.timings['total']:.0f} ms · {answer.generator}"]
    return "\n".join(lines)


def _stage(score: float | None, rank: int | None) -> str:
    return "–" if score is None else f"{score:.3f} (#{rank})"
