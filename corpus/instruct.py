"""Training conversations from any wiki or from the codex.

    python -m corpus.instruct rules --out runs/rules.jsonl [--data DIR]          without any other model
    python -m corpus.instruct ask --url http://127.0.0.1:8080/v1 --model NAME --out runs/asked.jsonl
    python -m corpus.instruct merge runs/rules.jsonl runs/asked.jsonl --out runs/instruct.jsonl --pairs runs/pairs.jsonl

``rules`` and ``ask`` read the archive under ``--data`` (made by ``python app.py --ingest``), or without it the codex.
Only articles of the train split are used.  ``lm.tune --data`` reads every file; ``encoder.contrastive --pairs`` reads
what ``merge --pairs`` writes.  ``ask`` takes its key from the environment variable CIRILLA_INSTRUCT_KEY, can be stopped
at any time and goes on where it was when the same command is run again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from pathlib import Path
from typing import get_args

from rich.console import Console

from corpus import codex, instruct_ask, instruct_merge, instruct_rules
from corpus.errors import CirillaError
from corpus.grounded import DECLINE
from corpus.instruct_check import TASKS, Task
from corpus.instruct_endpoint import KEY_VARIABLE, Endpoint
from corpus.instruct_rows import DEFAULT, InstructError, Row, Shape, Tally, open_bank

QUESTIONS = Path(__file__).parent / "questions" / "train.jsonl"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return share


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate < 1e6:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return rate


def _tasks(text: str) -> tuple[Task, ...]:
    chosen = tuple(part.strip() for part in text.split(",") if part.strip())
    if not chosen or set(chosen) - set(TASKS):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(get_args(Task))}, parted by commas")
    return tuple(task for task in TASKS if task in chosen)


def parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--seed", type=int, default=0, help="another seed gives other wordings and distractors")
    shared.add_argument("--words", type=_positive, default=DEFAULT.words, help="words of a passage at most")
    shared.add_argument("--distractors", type=int, choices=range(9), default=DEFAULT.distractors, help="at most, a row")
    shared.add_argument(
        "--codex", type=Path, default=codex.FOLDER, metavar="DIR", help="folder of the codex's articles"
    )
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("--data", type=Path, metavar="DIR", help="data folder of an ingest; without it, the codex")
    source.add_argument(
        "--unanswerable", type=_share, default=DEFAULT.unanswerable, help="share of rows whose evidence is taken away"
    )
    main = argparse.ArgumentParser(
        prog="python -m corpus.instruct", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = main.add_subparsers(dest="command", required=True)

    rules = commands.add_parser("rules", parents=[source, shared], help="rows by patterns, without any other model")
    rules.add_argument("--out", type=Path, required=True, metavar="FILE")
    rules.add_argument(
        "--per-article", type=_positive, default=instruct_rules.PER_ARTICLE, help="rows of one article at most"
    )

    ask = commands.add_parser("ask", parents=[source, shared], help="rows from an OpenAI-compatible server")
    ask.add_argument("--out", type=Path, required=True, metavar="FILE", help="rows; FILE.ledger says what is done")
    ask.add_argument("--url", required=True, help="address of the API, e.g. http://127.0.0.1:8080/v1")
    ask.add_argument("--model", required=True, help="the model's name on that server")
    ask.add_argument("--tasks", type=_tasks, default=TASKS, help=f"any of {','.join(TASKS)} (all)")
    ask.add_argument("--limit", type=_positive, help="passages at most")
    ask.add_argument("--questions", type=_positive, default=3, help="single questions asked for, a passage")
    ask.add_argument("--concurrency", type=_positive, default=1, help="requests at the same time")
    ask.add_argument("--per-minute", type=_rate, default=0.0, help="requests a minute at most; 0 for no bound")
    ask.add_argument("--timeout", type=_seconds, default=120.0, help="seconds that one answer may take")
    ask.add_argument("--attempts", type=_positive, default=5, help="per request, with growing pauses")
    ask.add_argument("--max-tokens", type=_positive, default=1200, help="of one answer")
    ask.add_argument("--temperature", type=_rate, default=0.7)

    merge = commands.add_parser("merge", parents=[shared], help="one file out of many, without near-duplicates")
    merge.add_argument("files", type=Path, nargs="*", metavar="FILE", help="written by rules, ask or corpus.grounded")
    merge.add_argument("--out", type=Path, required=True, metavar="FILE")
    merge.add_argument("--pairs", type=Path, metavar="FILE", help="also write question-passage pairs for the encoder")
    merge.add_argument(
        "--questions", type=Path, metavar="FILE", help="the codex's train questions (the project's own where present)"
    )
    merge.add_argument("--no-questions", action="store_true", help="leave the codex's questions out")
    merge.add_argument("--reasoning", type=int, default=0, metavar="N", help="rows of reasoning-gym to mix in")
    return main


def _shape(args: argparse.Namespace) -> Shape:
    return Shape(args.words, args.distractors, getattr(args, "unanswerable", 0.0))


def run_rules(args: argparse.Namespace, console: Console) -> None:
    kinds = Tally()

    def counted() -> list[Row]:
        with open_bank(args.data, args.codex) as bank, console.status("Writing questions"):
            found = list(instruct_rules.rows(bank, args.seed, _shape(args), args.per_article))
        for row in found:
            kinds.add("unanswerable" if row["answer"] == DECLINE else row["kind"])
        return found

    count = instruct_merge.write(args.out, counted())
    if not count:
        raise InstructError("The articles gave no question at all.")
    print(f"{args.out}: {count:,} rows ({kinds})")


async def _ask(args: argparse.Namespace, console: Console) -> None:
    async with Endpoint(
        args.url,
        args.model,
        os.environ.get(KEY_VARIABLE, ""),
        timeout=args.timeout,
        per_minute=args.per_minute,
        attempts=args.attempts,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
    ) as endpoint:
        with open_bank(args.data, args.codex) as bank, instruct_ask.Ledger(args.out) as ledger:
            todo = instruct_ask.units(bank, args.tasks, args.limit)
            failed = 0
            try:
                with instruct_ask.bar(console) as progress:
                    failed = await instruct_ask.run(
                        bank,
                        endpoint,
                        ledger,
                        todo,
                        seed=args.seed,
                        n=args.questions,
                        shape=_shape(args),
                        concurrency=args.concurrency,
                        progress=progress,
                    )
            finally:
                done = sum(unit.id in ledger.done for unit in todo)
                print(f"{args.out}: {done:,} of {len(todo):,} done, {instruct_ask.counts(ledger, failed)}")
    if failed:
        raise InstructError(f"{failed} requests were not answered: run the same command again for them.")


def run_merge(args: argparse.Namespace, console: Console) -> None:
    dropped = Tally()
    rows: list[Row] = [row for path in args.files for row in instruct_merge.read(path, dropped)]
    questions = args.questions or (QUESTIONS if QUESTIONS.exists() else None)
    if questions and not args.no_questions:
        with open_bank(None, args.codex) as bank, console.status("Reading the codex's questions"):
            rows += instruct_merge.question_rows(questions, bank, args.seed, _shape(args), dropped)
    if args.reasoning > 0:
        rows += instruct_merge.reasoning_rows(args.reasoning, args.seed)
    if not rows:
        raise InstructError("There is nothing to merge: give files, --questions or --reasoning.")
    with console.status("Looking for near-duplicates"):
        kept = list(instruct_merge.distinct(rows, dropped))
    random.Random(args.seed).shuffle(kept)  # lm.tune measures on the first rows
    kinds = Tally()
    for row in kept:
        kinds.add("unanswerable" if row["answer"] == DECLINE else row["kind"])
    count = instruct_merge.write(args.out, kept)
    print(f"{args.out}: {count:,} rows ({kinds}); left out {dropped.total:,}{f' ({dropped})' if dropped.total else ''}")
    if args.pairs:
        print(f"{args.pairs}: {instruct_merge.write(args.pairs, instruct_merge.pairs(kept)):,} pairs")


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when all went well, 1 with one line on standard error, 130 after Ctrl-C."""
    args = parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        if args.command == "rules":
            run_rules(args, console)
        elif args.command == "ask":
            asyncio.run(_ask(args, console))
        else:
            run_merge(args, console)
    except CirillaError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; run the same command to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
