"""Fit how evidence is weighed: writes ``app/calibration.json``.

    python -m app.calibrate [--questions corpus/questions/dev.jsonl] [--data DIR] [--out app/calibration.json]

Two fits over the dev questions, on an index of the codex:

1. **sentences**: a softmax over all sentences of a question's candidates and "none of them" (a conditional logit,
   McFadden 1974); right are the sentences annotated as evidence, or silence where the question is to be declined.
   Sentences that hold an answer without being the evidence take no part;
2. **confidence**: logistic regression of "the best sentence holds an answer" on what stands in
   ``app.evidence.confidence_features`` (Platt 1999).

Both are small (two dozen numbers on a thousand questions) and lightly regularised; five-fold cross-validation tells
what they are worth on questions they have not seen, and the figures are written beside the weights.  The threshold that
goes with them is ``app.settings.Settings.threshold``: the printed table says what each value would cost.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app import evidence as ev
from app.evaluate import says
from app.learn import matrix, minimise
from app.pipeline import Pipeline
from app.question import Question
from corpus.question_format import Row
from retrieval.candidates import label, questions

FOLDS = 5
SENTENCE_L2, CONFIDENCE_L2 = 1e-3, 1e-3


@dataclass(slots=True)
class Case:
    """One dev question with all its sentences."""

    question: Question
    found: list[ev.Evidence]
    labels: list[int]  # 1 evidence, 0 not, -1 holds an answer all the same
    holds: list[bool]  # whether quoting it would be a right answer
    decline: bool


def collect(pipeline: Pipeline, rows: Sequence[Row]) -> list[Case]:
    """Run the first half of the pipeline over the questions."""
    cases = []
    for row in rows:
        question, hits = pipeline.understand(row["query"], None)
        found = ev.find(question, hits, pipeline.encoder)
        if not found:
            continue
        labelled: dict[int, dict[tuple[int, int], int]] = {}
        for e in found:
            if e.passage.id not in labelled:
                labelled[e.passage.id] = dict(zip(*label(e.passage, row), strict=True))
        labels = [labelled[e.passage.id][(e.start, e.end)] for e in found]
        holds = [bool(row["answers"]) and says(f"{e.passage.title} {e.text}", row["answers"]) for e in found]
        cases.append(Case(question, found, labels, holds, row["kind"] == "decline"))
    return cases


def fit_sentences(cases: Sequence[Case]) -> tuple[dict[str, float], dict[str, float]]:
    """Weights of sentences and of silence."""
    sentences = [matrix([ev.features(e) for e in case.found]) for case in cases]
    silences = [matrix([ev.silence_features(case.question)])[0] for case in cases]
    labels = [torch.tensor(case.labels) for case in cases]
    w = torch.zeros(sentences[0].shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(silences[0].shape[0], dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        total = SENTENCE_L2 * len(cases) * ((w * w).sum() + (b * b).sum())
        for x, n, y in zip(sentences, silences, labels, strict=True):
            scores = torch.cat((x @ w, (n @ b)[None]))
            right = torch.cat((y == 1, torch.tensor([not (y == 1).any()])))
            counted = torch.cat((y >= 0, torch.tensor([True])))
            total = total + scores[counted].logsumexp(0) - scores[right].logsumexp(0)
        return total / len(cases)

    minimise(loss, w, b)
    first = cases[0]
    return (
        dict(zip(ev.features(first.found[0]), w.tolist(), strict=True)),
        dict(zip(ev.silence_features(first.question), b.tolist(), strict=True)),
    )


def rescored(case: Case, calibration: ev.Calibration) -> Case:
    """The case with its sentences ranked by other weights."""
    ranked = ev.ranked(case.question, case.found, calibration)
    place = {(e.passage.id, e.start): i for i, e in enumerate(case.found)}
    order = [place[e.passage.id, e.start] for e in ranked]
    return Case(case.question, ranked, [case.labels[i] for i in order], [case.holds[i] for i in order], case.decline)


def fit_confidence(cases: Sequence[Case], calibration: ev.Calibration) -> dict[str, float]:
    """Weights of the confidence, over cases ranked by ``calibration``."""
    x, y = _confidence_rows(cases, calibration)
    w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        fit = torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y)
        return fit + CONFIDENCE_L2 * (w * w).sum()

    minimise(loss, w)
    names = ev.confidence_features(cases[0].question, cases[0].found, calibration)
    return dict(zip(names, w.tolist(), strict=True))


def _confidence_rows(cases: Sequence[Case], calibration: ev.Calibration) -> tuple[Tensor, Tensor]:
    x = matrix([ev.confidence_features(case.question, case.found, calibration) for case in cases])
    return x, torch.tensor([float(case.holds[0]) for case in cases], dtype=torch.float64)


def fit(cases: Sequence[Case]) -> ev.Calibration:
    """Both fits."""
    sentence, silence = fit_sentences(cases)
    calibration = ev.Calibration(sentence, silence, {})
    ranked = [rescored(case, calibration) for case in cases]
    return ev.Calibration(sentence, silence, fit_confidence(ranked, calibration))


def judge(cases: Sequence[Case], folds: int = FOLDS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cross-validated: confidence, whether the best sentence is right, whether to decline; ``(n,)`` each.

    It is the fitted curve alone: ``evidence.UNKNOWN_NAME``, the factor that the app puts on questions with an unknown
    name, is left out here and in ``thresholds``, so that the app declines a little more often than the table says.
    """
    sure, right = np.zeros(len(cases)), np.zeros(len(cases), dtype=bool)
    for fold in range(folds):
        calibration = fit([case for i, case in enumerate(cases) if i % folds != fold])
        held = [i for i in range(len(cases)) if i % folds == fold]
        ranked = [rescored(cases[i], calibration) for i in held]
        x, _ = _confidence_rows(ranked, calibration)
        w = torch.tensor(list(calibration.confidence.values()), dtype=torch.float64)
        sure[held] = torch.sigmoid(x @ w).numpy()
        right[held] = [case.holds[0] for case in ranked]
    return sure, right, np.array([case.decline for case in cases])


def thresholds(sure: np.ndarray, right: np.ndarray, decline: np.ndarray) -> list[dict[str, float]]:
    """What each threshold would cost."""
    rows = []
    for threshold in np.arange(0.0, 0.75, 0.05):
        answered = sure >= threshold
        rows.append(
            {
                "threshold": round(float(threshold), 2),
                "right": round(float((answered & right)[~decline].mean()), 3),
                "wrongly_declined": round(float((~answered)[~decline].mean()), 3),
                "rightly_declined": round(float((~answered)[decline].mean()), 3),
                "precision": round(float(right[answered].mean()), 3) if answered.any() else 1.0,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, default=Path("corpus/questions/dev.jsonl"))
    parser.add_argument("--data", help="data folder with an index of the codex (default: as for app.py)")
    parser.add_argument("--out", type=Path, default=Path(ev.__file__).with_name("calibration.json"))
    args = parser.parse_args()
    from app import settings
    from app.commands import open_pipeline

    pipeline = open_pipeline(settings.load(data=args.data, generator="evidence"))
    rows = list(questions(args.questions))
    random.Random(0).shuffle(rows)
    write(collect(pipeline, rows), args.out)


def write(cases: Sequence[Case], path: Path) -> None:
    """Fit, judge, print and keep."""
    sure, right, decline = judge(cases)
    table = thresholds(sure, right, decline)
    for row in table:
        print("  ".join(f"{name} {value:5.3f}" for name, value in row.items()))
    final = fit(cases)

    def rounded(weights: dict[str, float]) -> dict[str, float]:
        return {name: round(value, 4) for name, value in weights.items()}

    out = {
        "sentence": rounded(final.sentence),
        "silence": rounded(final.silence),
        "confidence": rounded(final.confidence),
        "fitted_on": {"questions": len(cases), "to_decline": int(decline.sum())},
        "cross_validated": {
            "best_sentence_right": round(float(right[~decline].mean()), 4),
            "brier": round(float(((sure - right) ** 2).mean()), 4),
            "thresholds": table,
        },
    }
    path.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    print(f"best sentence right {right[~decline].mean():.3f}; wrote {path}")


if __name__ == "__main__":
    main()
