"""How good the whole is, by one command: measures, and writes ``RESULTS.md`` with its two pictures.

    python -m benchmarks.results [--split dev|test] [--limit 300] [--peer-limit 60] [--quick] [--resume]

Questions are drawn from ``corpus/questions`` with a fixed seed and asked, in this process and over the same passages,
of the pipeline, of the stack that people would assemble in its place (all-MiniLM-L6-v2 and SmolLM2-135M-Instruct, the
``[bench]`` extra), of a floor without any model, and of the pipeline given the right passages or none.  SmolLM2 takes
seconds a question, so it is asked fewer; the table says how many, and sets ours beside it on the same ones.  Then
retrieval by itself, and speed and size (``benchmarks.spine``, ``benchmarks.load``).

Every step leaves its figures in ``--work``; ``--resume`` goes on with those after the run was cut off.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from app import settings
from benchmarks import results_page, steps
from benchmarks.kept import Kept, say
from benchmarks.steps import ROOT, Bench

TUNE = 100  # dev questions of each archive on which MiniLM's weight in the fusion is chosen, as ours was on all
CHOOSE = 10  # train questions on which SmolLM2's prompt is chosen


def about(args: argparse.Namespace) -> dict[str, Any]:
    """What was measured, where and when."""
    import torch

    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    return {
        "options": given(args),
        "split": args.split,
        "file": args.questions.name if args.questions else f"corpus/questions/{args.split}.jsonl",
        "limit": args.limit,
        "peer_limit": args.peer_limit,
        "revision": git("rev-parse", "--short", "HEAD") or "unknown",
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        "date": f"{date.today():%Y-%m-%d}",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threshold": settings.load().threshold,
    }


def given(args: argparse.Namespace) -> str:
    """The options that decide what is measured, where they are not the default; of files the name alone."""
    out, default = [], parser().get_default
    for name in ("split", "questions", "limit", "peer_limit", "choose", "tune", "pages", "wiki"):
        value = getattr(args, name)
        if value != default(name):
            out.append(f"--{name.replace('_', '-')} {value.name if isinstance(value, Path) else value}")
    return " ".join(out)


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (named[0] if named else "") or platform.processor() or platform.machine()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures, by step."""
    kept = Kept(args.work, args.resume)
    bench = Bench(args, kept)
    plan: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
        ("ours", partial(steps.ours, bench), ""),
        ("floor", partial(steps.floor, bench), ""),
        ("oracle", partial(steps.oracle, bench, False), ""),
        ("bold", partial(steps.oracle, bench, True), ""),
        ("nothing", partial(steps.nothing, bench), ""),
        ("search", partial(steps.search, bench), ""),
        ("minilm", partial(steps.peer, bench, False), "all-MiniLM-L6-v2 with SmolLM2"),
        ("fused", partial(steps.peer, bench, True), "BM25, all-MiniLM-L6-v2 with SmolLM2"),
        ("speed", partial(steps.speed, bench), ""),
    ]
    if not args.quick:
        plan.append(("crowd", partial(steps.crowd, bench), ""))
    if args.wiki:
        plan.append(("wiki", partial(steps.wiki, bench), ""))
    asked = [turn for item in bench.items for turn in item.turns if turn.answers or turn.decline]
    out: dict[str, Any] = {
        "about": kept.begin(about(args), [*(name for name, _, _ in plan), *steps.CHOICES])
        | {"rows": len(bench.items), "turns": len(asked), "declines": sum(turn.decline for turn in asked)}
        | {"peer_rows": len(bench.peer_items)}
    }
    for name, make, optional in plan:
        out[name] = kept.do(name, make, optional)
    return out


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--split", choices=("dev", "test"), default="dev", help="test only to report on it")
    options.add_argument("--questions", type=Path, help="another file of such questions, over what --data holds")
    options.add_argument("--limit", type=int, default=300, help="rows of the question file, drawn at random; 0: all")
    options.add_argument("--peer-limit", type=int, default=60, help="of them, those that SmolLM2 is asked too")
    options.add_argument("--choose", type=int, default=CHOOSE, help="train questions to choose SmolLM2's prompt with")
    options.add_argument("--tune", type=int, default=TUNE, help="dev questions of each archive for MiniLM's weight")
    options.add_argument("--pages", type=int, default=8_000, help="pages of the long ingest; 0 leaves it out")
    options.add_argument("--wiki", type=Path, help="file of real wiki pages (title, facts, text), .jsonl.zst")
    options.add_argument("--quick", action="store_true", help="40 rows, 6 for SmolLM2, no long ingest, no crowd")
    options.add_argument("--resume", action="store_true", help="go on with the run that left its figures in --work")
    options.add_argument("--data", type=Path, help="folder of archive and index (default: one in --work)")
    options.add_argument("--work", type=Path, default=ROOT / "data" / "bench", help="where the steps leave figures")
    options.add_argument("--out", type=Path, default=ROOT / "RESULTS.md")
    options.add_argument("--pictures", type=Path, default=ROOT / "docs" / "pictures")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.quick:
        args.limit, args.peer_limit, args.choose, args.tune, args.pages = 40, 6, 2, 20, 0
    os.chdir(ROOT)
    figures = measure(args)
    args.out.write_text(results_page.page(figures, args.pictures, args.out.parent), encoding="utf-8")
    say(f"Wrote {args.out}.")


if __name__ == "__main__":
    main()
