#!/usr/bin/env python3
"""Cirilla's command line.  It only parses arguments; ``app.commands`` does the work and reports errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

EPILOG = """\
exit status: 0 fine, 1 other errors, 2 wrong options or settings, 3 archive or index missing or damaged, 4 weights
missing or broken, 5 the wiki cannot be read, 6 another ingest is running, 7 port in use, 8 bad question file,
9 the Space cannot be deployed, 130 interrupted.  Options can also be set in the environment or a .env file as
CIRILLA_DATA, CIRILLA_PORT, …
"""


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive whole number"  # what argparse says in "invalid … value"


def parser() -> argparse.ArgumentParser:
    """The options; help texts are the documentation."""
    out = argparse.ArgumentParser(
        prog="app.py",
        description="Answers questions about the world of the Witcher and shows where every sentence comes from.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = out.add_argument_group("what to do (without any of these: serve the chat)").add_mutually_exclusive_group()
    what.add_argument("--ask", metavar="QUESTION", help="answer one question and exit")
    what.add_argument("--search", metavar="QUERY", help="list the passages found, with every stage's score, and exit")
    what.add_argument("--evaluate", metavar="FILE", help="ask the questions of a .jsonl file and report the scores")
    what.add_argument("--ingest", action="store_true", help="load the codex, fetch a wiki, and rebuild the index")
    what.add_argument(
        "--deploy", metavar="USER/SPACE", help="upload the chat to a Hugging Face Space (token: HF_TOKEN)"
    )
    out.add_argument(
        "--json",
        metavar="OUT",
        nargs="?",
        const="-",
        help="with --ask, --search or --evaluate: JSON, to the file OUT or to standard output; "
        "with --evaluate it holds every question too",
    )
    out.add_argument(
        "--report",
        metavar="OUT.html",
        help="with --evaluate: a page with every miss and the stage of the pipeline that lost it",
    )
    out.add_argument("--canon", choices=("books", "games", "tv"), help="keep to one telling (for --ask and --search)")
    out.add_argument("--data", metavar="DIR", help="folder of everything that is written (default: data)")
    chat = out.add_argument_group("chat")
    chat.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    chat.add_argument("--port", help="port to listen on (default: 7860)")
    ingest = out.add_argument_group("ingest")
    ingest.add_argument(
        "--wiki", metavar="URL", help="MediaWiki to fetch: site root or api.php (default: https://witcher.fandom.com)"
    )
    ingest.add_argument("--limit", metavar="N", type=_positive, help="fetch at most N pages, and delete none")
    ingest.add_argument("--codex-only", action="store_true", help="no wiki: the codex and the index, without network")
    ingest.add_argument("--rebuild", action="store_true", help="no network: read every stored page again, then index")
    out.add_argument_group("deploy").add_argument(
        "--dry-run", action="store_true", help="list what --deploy would upload, and upload nothing"
    )
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Parse ``argv`` and run; returns the exit status.  Wrong options leave through argparse with status 2."""
    options = parser()
    args = options.parse_args(argv)
    for name in ("wiki", "limit", "codex_only", "rebuild"):
        if getattr(args, name) and not args.ingest:
            options.error(f"--{name.replace('_', '-')} needs --ingest")
    if args.dry_run and args.deploy is None:
        options.error("--dry-run needs --deploy")
    if (args.wiki or args.limit) and (args.codex_only or args.rebuild):
        options.error("--codex-only and --rebuild use no network: leave out --wiki and --limit")
    if args.json and args.ask is None and args.search is None and args.evaluate is None:
        options.error("--json needs --ask, --search or --evaluate")
    if args.report is not None and args.evaluate is None:
        options.error("--report needs --evaluate")
    if args.canon and args.ask is None and args.search is None:
        options.error("--canon needs --ask or --search; the chat has a choice of its own")

    from app.commands import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
