"""Whether simultaneous questions should be answered in batches: each stage for several at once, and one after another.

    python -m benchmarks.batching [--data DIR] [--questions 24] [--rounds 5] [--threads 1 2] [--json FILE]

Three stages could be batched: the query's vector, the second stage and the decoder's draft.  Questions of the dev set
are taken in groups of two and of four.  Each group goes through each stage both ways, in turns, and the quickest of
``--rounds`` counts, so that what else the machine does weighs on both alike.  Processor time is told beside the time
that passed: on a busy machine it is the truer one, with one thread.  What comes out is compared too: scores must agree
to 0.05 logits (bfloat16, with other neighbours) and drafts word for word.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app import settings as app_settings
from app.commands import open_pipeline
from app.pipeline import Pipeline
from benchmarks.load import scripts
from corpus.chunk import sentences
from encoder import Candidate, Reranker
from encoder.reranker import examples
from lm import chat, generate
from lm.reader import Reader
from retrieval.search import CANDIDATES, Searcher

GROUPS = (2, 4)
TOLERANCE = 0.05  # logits


@dataclass(frozen=True, slots=True)
class Case:
    """A question with what the stages are given for it."""

    question: str
    candidates: list[Candidate]
    prompt: list[int]


@dataclass(slots=True)
class Row:
    """One stage with groups of one size; milliseconds a question, (one after another, at once)."""

    stage: str
    threads: int
    group: int
    wall: tuple[float, float]
    cpu: tuple[float, float]


def cases(pipeline: Pipeline, questions: Sequence[str], new: int) -> list[Case]:
    """The candidates that the first stage brings, and the prompt of the best four."""
    found, reader = pipeline.searcher, pipeline.reader
    assert isinstance(found, Searcher) and isinstance(reader, Reader)
    first = Searcher(found.store, found.index, found.encoder)
    out = []
    for question in questions:
        passages = [hit.passage for hit in first.search(question, CANDIDATES)]
        out.append(
            Case(
                question,
                [Candidate(p.heading, p.text, sentences(p.text)) for p in passages],
                chat.render(
                    reader.tokenizer,
                    [(p.heading, p.text) for p in passages[:4]],
                    [("user", question)],
                    budget=reader.model.config.max_length - new,
                ),
            )
        )
    return out


def score_together(stage: Reranker, group: Sequence[Case]) -> list[np.ndarray]:
    """What ``Reranker.score`` gives for each question, candidates of all of them sharing the passes."""
    made = [e for case in group for e in examples(stage.tokenizer, case.question, case.candidates, stage.length)]
    return stage.score_examples(made, [len(candidate.spans) for case in group for candidate in case.candidates])


def stages(pipeline: Pipeline, new: int) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """For each stage a group of cases one after another, and at once; both give the same."""
    encoder, searcher, reader = pipeline.encoder, pipeline.searcher, pipeline.reader
    assert isinstance(searcher, Searcher) and isinstance(searcher.second, Reranker) and isinstance(reader, Reader)
    second = searcher.second

    def draft(case: Case) -> list[int]:
        tokens = generate.stream(
            reader.model, case.prompt, max_new_tokens=new, stop=reader.stop, lookup=reader.lookup
        )  # fmt: skip
        return [token.id for token in tokens if token.id not in reader.stop]

    return {
        "query vector": (
            lambda group: [encoder.encode_queries([case.question])[0] for case in group],
            lambda group: list(encoder.encode_queries([case.question for case in group])),
        ),
        "second stage": (
            lambda group: [row for case in group for row in second.score(case.question, case.candidates)],
            lambda group: score_together(second, group),
        ),
        "draft": (
            lambda group: [draft(case) for case in group],
            lambda group: generate.batch(
                reader.model, [case.prompt for case in group], max_new_tokens=new, stop=reader.stop
            ),
        ),
    }


def same(one: Any, other: Any) -> bool:
    """Whether two results of a stage agree."""
    if isinstance(one, np.ndarray):
        finite = np.isfinite(one)
        return bool((finite == np.isfinite(other)).all() and np.allclose(one[finite], other[finite], atol=TOLERANCE))
    return bool(one == other)


def measure(pipeline: Pipeline, taken: Sequence[Case], threads: int, rounds: int, new: int) -> tuple[list[Row], int]:
    """Rows of every stage and group size, and how many results differed between the two ways."""
    torch.set_num_threads(threads)
    rows, differ = [], 0
    for stage, (alone, together) in stages(pipeline, new).items():
        for size in GROUPS:
            best = np.full((len(taken) // size, 2, 2), np.inf)  # (groups, ways, clocks), seconds
            for turn in range(rounds + 1):  # the first is for warming up, and for looking at what comes out
                for at in range(len(best)):
                    group, results = taken[at * size : (at + 1) * size], [None, None]
                    for way in (0, 1) if turn % 2 else (1, 0):
                        began = np.array([time.perf_counter(), time.process_time()])
                        results[way] = (alone, together)[way](group)
                        spent = np.array([time.perf_counter(), time.process_time()]) - began
                        if turn:
                            best[at, way] = np.minimum(best[at, way], spent)
                    if not turn:
                        differ += sum(not same(a, b) for a, b in zip(*results, strict=True))
            wall, cpu = (best.sum(0).T / (len(best) * size) * 1000).tolist()  # ms a question
            rows.append(Row(stage, threads, size, tuple(wall), tuple(cpu)))
            print(line(rows[-1]), flush=True)
    return rows, differ


def line(row: Row) -> str:
    """A row for people: what is saved is a share of the time one after another."""
    said = (f"{name} {a:7.1f} → {b:7.1f} ms ({1 - b / a:6.1%} saved)" for name, (a, b) in
            (("passed", row.wall), ("processor", row.cpu)))  # fmt: skip
    return f"{row.stage:<13} threads {row.threads}  questions {row.group}  {'  '.join(said)}"


def total(rows: Sequence[Row]) -> Row:
    """All stages of one size together."""
    wall, cpu = ([sum(getattr(row, clock)[way] for row in rows) for way in (0, 1)] for clock in ("wall", "cpu"))
    return Row("all three", rows[0].threads, rows[0].group, (wall[0], wall[1]), (cpu[0], cpu[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pipeline = open_pipeline(app_settings.load(data=args.data, generator="cirilla"))
    new = pipeline.settings.max_new_tokens
    taken = cases(pipeline, [turns[0] for turns in scripts(args.questions, 1)], new)
    rows: list[Row] = []
    for threads in args.threads:
        more, differ = measure(pipeline, taken, threads, args.rounds, new)
        rows += more
        for size in GROUPS:
            print(line(total([row for row in more if row.group == size])))
        print(f"{differ} results differed", flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
