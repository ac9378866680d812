"""Does search find the right passage?  Recall, MRR and nDCG for BM25, dense search, their fusion, the second stage.

    python -m retrieval.evaluate --questions FILE.jsonl [--json OUT] [--data DIR] [--encoder DIR] [--reranker DIR|none]

A row of the question file: ``{"id", "question", "answers": [aliases], "article": title or list of titles, "evidence":
sentence, list of them as in ``corpus/questions``, or null, "type"}``; turns of conversations count with their rewrites.
A passage is relevant when it belongs to a named article (by title or alias) and holds an evidence sentence or, without
one, an answer on word boundaries; both ignore case, accents, apostrophes, possessives and spacing.  Rows without an
article (to be declined) are passed over.  A question for which the archive holds no relevant passage counts as a miss
everywhere and is reported as ``without_passage``.

Metrics come from ir-measures (MacAvaney, Macdonald & Ounis, "Streamlining Evaluation with ir-measures", ECIR 2022):
R@k is the share of the relevant passages among the first k, Success@5 whether there is any.  Intervals are 95 %
percentile bootstraps over questions (Efron & Tibshirani 1993), seeded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from corpus.errors import CirillaError
from corpus.store import Store
from retrieval import lexical
from retrieval.errors import BadQuestions
from retrieval.search import Searcher
from retrieval.words import clean, key, plain, split

DEPTH = 20
METRICS = ("R@1", "R@5", "R@20", "RR@10", "nDCG@10", "Success@5")
RESAMPLES = 1000
SEED = 1272
NAMES = {"plain": "plain BM25", "bm25": "our BM25, with spelling and names"}
"""Systems of ``stages`` whose keys do not say what they are."""

Ranker = Callable[[str], Sequence[int]]
"""Question → passage ids, best first."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what answers it: aliases of the answer, titles of articles, sentences that are the evidence."""

    id: str
    question: str
    answers: tuple[str, ...]
    articles: tuple[str, ...]
    evidence: tuple[str, ...]
    type: str


@dataclass(frozen=True, slots=True)
class Score:
    """Mean over questions with its 95 % interval."""

    mean: float
    low: float
    high: float


def read_questions(path: str | Path) -> list[Question]:
    """Questions that name an article.  Raises ``BadQuestions`` with the line that is wrong."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadQuestions(f"Cannot read the questions in {path}: {error}.") from error
    questions: dict[str, Question] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "turns" in row:  # a conversation: its turns as stand-alone questions
                rows = [turn | {"id": f"{row['id']}-{at}"} for at, turn in enumerate(row["turns"])]
                made = [_question(turn | {"question": turn["rewrite"], "type": "conversation"}) for turn in rows]
            else:
                made = [_question(row)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadQuestions(f"{path}, line {number}: not a question ({type(error).__name__}: {error}).") from error
        for question in made:
            if question.id in questions:
                raise BadQuestions(f"{path}, line {number}: the id {question.id!r} was used before.")
            if question.articles:
                questions[question.id] = question
    if not questions:
        raise BadQuestions(f"{path} holds no question that names an article.")
    return list(questions.values())


def _question(row: dict[str, Any]) -> Question:
    articles = row.get("article") or []
    articles = [articles] if isinstance(articles, str) else list(articles)
    evidence = row.get("evidence") or []
    if isinstance(evidence, str):
        evidence = [evidence]
    elif articles:  # a question over two articles names both in its evidence
        articles = list(dict.fromkeys([*articles, *(e["article"] for e in evidence)]))
        evidence = [e["text"] for e in evidence]
    return Question(
        id=str(row["id"]),
        question=str(row["question"]),
        answers=tuple(map(str, row.get("answers") or [])),
        articles=tuple(map(str, articles)),
        evidence=tuple(map(str, evidence)),
        type=str(row.get("type") or "other"),
    )


def relevant(store: Store, question: Question) -> set[int]:
    """Ids of the passages that answer ``question``; see the module's docstring for the rule."""
    wanted = {key(title) for title in question.articles}
    named = store.rows(
        "SELECT id, title FROM pages UNION SELECT id, display_title FROM pages UNION SELECT page, alias FROM aliases"
    )
    pages = sorted({row["id"] for row in named if key(row["title"]) in wanted})
    phrases = [plain(part) for text in question.evidence or question.answers for part in text.split(" + ")]
    found: set[int] = set()
    for page in pages:
        for row in store.rows("SELECT id, text FROM passages WHERE page = ?", [page]):
            text = plain(row["text"])
            if any(phrase.strip() and phrase in text for phrase in phrases):
                found.add(row["id"])
    return found


def evaluate(
    questions: Sequence[Question], judged: dict[str, set[int]], ranker: Ranker, depth: int = DEPTH
) -> dict[str, list[float]]:
    """Metric → one value per question, in their order.  ``judged``: question id → ids of relevant passages."""
    import ir_measures  # here, because only this program needs the [bench] extra

    runs = {question.id: list(dict.fromkeys(ranker(question.question)))[:depth] for question in questions}
    # trec_eval sorts by score, so the rank itself is the score; a question with nothing relevant gets one judgement
    # that no run can meet, or it would silently drop out of the mean.
    measures = [ir_measures.parse_measure(name) for name in METRICS]
    judgements = [
        ir_measures.Qrel(question.id, str(id), 1)
        for question in questions
        for id in sorted(judged.get(question.id) or {-1})
    ]
    scored = [
        ir_measures.ScoredDoc(id, str(passage), float(depth - rank))
        for id, run in runs.items()
        for rank, passage in enumerate(run)
    ]
    values: dict[tuple[str, str], float] = {
        (str(metric.measure), metric.query_id): float(metric.value)
        for metric in ir_measures.iter_calc(measures, judgements, scored)
    }
    return {
        name: [values.get((str(measure), question.id), 0.0) for question in questions]
        for name, measure in zip(METRICS, measures, strict=True)
    }


def bootstrap(values: Sequence[float], resamples: int = RESAMPLES, seed: int = SEED) -> Score:
    """Mean of ``values`` with the 2.5 and 97.5 percentiles of the means of ``resamples`` resamplings."""
    sample = np.asarray(values, dtype=np.float64)  # (n,)
    if not len(sample):
        return Score(0.0, 0.0, 0.0)
    picks = np.random.default_rng(seed).integers(0, len(sample), size=(resamples, len(sample)))
    low, high = np.percentile(sample[picks].mean(axis=1), [2.5, 97.5])
    return Score(float(sample.mean()), float(low), float(high))


def plain_bm25(store: Store, question: str, k: int = DEPTH) -> list[int]:
    """The baseline: FTS5's BM25 over heading and text, on the question's words without stop words.

    Nothing else: no spelling, no names, no bonuses, all columns of one weight.  Aliases match nothing; they count only
    towards a passage's length.
    """
    words = dict.fromkeys(word.text for word in split(clean(question)) if not word.stop)
    if not words:
        return []
    expression = " OR ".join(f'"{word}"' for word in words)  # letters and digits alone: nothing to escape
    rows = store.rows(
        """SELECT rowid AS id FROM passages_fts WHERE passages_fts MATCH ?
           ORDER BY bm25(passages_fts), rowid LIMIT ?""",
        [f"{{title heading body}} : ({expression})", k],
    )
    return [row["id"] for row in rows]


def stages(searcher: Searcher) -> dict[str, Ranker]:
    """Each stage of the search as a ranker, and before them the baseline."""
    store, names = searcher.store, searcher.names
    first = Searcher(store, searcher.index, searcher.encoder, depth=searcher.depth, weights=searcher.weights)
    systems: dict[str, Ranker] = {
        "plain": lambda text: plain_bm25(store, text),
        "bm25": lambda text: [id for id, _ in lexical.search(store, text, DEPTH, None, names)],
        "dense": lambda text: [id for id, _ in searcher.dense(text, DEPTH)],
        "fusion": lambda text: [hit.passage.id for hit in first.search(text, DEPTH)],
    }
    if searcher.second is not None:
        systems["second"] = lambda text: [hit.passage.id for hit in searcher.search(text, DEPTH)]
    return systems


def report(store: Store, systems: dict[str, Ranker], questions: Sequence[Question]) -> dict[str, Any]:
    """Every system's metrics, over all questions and by type, with the time that a question takes."""
    judged = {question.id: relevant(store, question) for question in questions}
    types: dict[str, list[int]] = defaultdict(list)
    for at, question in enumerate(questions):
        types["all"].append(at)
        types[question.type].append(at)
    results: dict[str, Any] = {}
    for name, ranker in systems.items():
        took: list[float] = []
        values = evaluate(questions, judged, timed(ranker, took))
        results[name] = {
            "by_type": {
                kind: {metric: asdict(bootstrap([values[metric][at] for at in rows])) for metric in METRICS}
                for kind, rows in types.items()
            },
            "ms": percentiles(took),
        }
    return {
        "questions": {kind: len(rows) for kind, rows in types.items()},
        "without_passage": sorted(id for id, ids in judged.items() if not ids),
        "passages": store.counts()["passages"],
        "systems": results,
    }


def timed(ranker: Ranker, took: list[float]) -> Ranker:
    """The same ranker; ``took`` gets the milliseconds of every question."""

    def clocked(question: str) -> Sequence[int]:
        began = time.perf_counter()
        ranking = ranker(question)
        took.append((time.perf_counter() - began) * 1000)
        return ranking

    return clocked


def percentiles(took: Sequence[float]) -> dict[str, float]:
    """``p50`` and ``p95`` of at least one time, in its unit."""
    return {f"p{part}": float(np.percentile(took, part)) for part in (50, 95)}


def table(result: dict[str, Any]) -> str:
    """The report as text, one line a system and type."""
    systems = {NAMES.get(key, key): system for key, system in result["systems"].items()}
    kinds = [f"{kind} ({count})" for kind, count in result["questions"].items()]
    left, right = max(map(len, kinds)) + 2, max(map(len, systems)) + 2
    lines = [" " * (left + right) + "".join(f"{metric:>22}" for metric in METRICS)]
    for kind, heading in zip(result["questions"], kinds, strict=True):
        for name, system in systems.items():
            cells = (system["by_type"][kind][metric] for metric in METRICS)
            shown = "".join(f"{cell['mean']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]".rjust(22) for cell in cells)
            lines.append(f"{heading:{left}}{name:{right}}{shown}")
    for name, system in systems.items():
        lines.append(f"{name}: {system['ms']['p50']:.1f} ms p50, {system['ms']['p95']:.1f} ms p95")
    missing = result["without_passage"]
    if missing:
        shown = ", ".join(missing[:10]) + (", …" if len(missing) > 10 else "")
        lines.append(f"No passage in the archive answers {len(missing)} of the questions: {shown}")
    return "\n".join(lines)


def main(arguments: Iterable[str] | None = None) -> int:
    """The command; gives its exit status, 1 for whatever it says on standard error in one line."""
    parser = argparse.ArgumentParser(prog="python -m retrieval.evaluate", description="Score retrieval on questions.")
    parser.add_argument("--questions", required=True, metavar="FILE.jsonl", help="questions with article and evidence")
    parser.add_argument("--json", metavar="OUT", help="write the whole report there")
    parser.add_argument(
        "--data", default=os.environ.get("CIRILLA_DATA", "data"), metavar="DIR", help="data folder (default: data)"
    )
    parser.add_argument(
        "--encoder", default="weights/encoder", metavar="DIR", help="encoder weights (default: weights/encoder)"
    )
    parser.add_argument(
        "--reranker", default="weights/reranker", metavar="DIR", help="second stage; none: leave it out"
    )
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    # Here, so that --help and a mistyped option answer at once: importing the encoder imports torch.
    from encoder import Encoder, EncoderError, Reranker
    from retrieval.index import VectorIndex

    if find_spec("ir_measures") is None:
        print("The metrics need ir-measures: pip install -e '.[dev]'", file=sys.stderr)
        return 1
    try:
        questions = read_questions(options.questions)
        encoder = Encoder.load(options.encoder)
        folder = Path(options.data)
        index = VectorIndex.open(folder / "index", encoder)
        with Store(folder / "archive.sqlite") as store:
            second = Reranker.load(options.reranker) if options.reranker != "none" else None
            result = report(store, stages(Searcher(store, index, encoder, second=second)), questions)
    except (CirillaError, EncoderError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(result))
    if options.json:
        try:
            Path(options.json).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            print(f"Cannot write the report to {options.json}: {error.strerror}.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
