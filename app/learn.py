"""What is learnt from the train questions without a search: writes ``app/learnt.json``.

    python -m app.learn [--data DIR] [--out app/learnt.json] [--keep yes premise]

1. **yes**: logistic regression of "the answer is yes" on ``app.verdict.features`` of the yes/no questions and their
   annotated evidence;
2. **premise**: the same for "what the question assumes is false", on ``app.verdict.premise_features`` of the questions
   with a false premise and their correction's evidence, against all others and theirs;
3. **carry**: a conditional logit over the names that a follow-up may leave out (``app.carry``), on the train
   conversations: right are those that its stand-alone form holds and the turn does not.

What they are worth on the dev questions, which they have not seen, is printed and written beside the weights.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app import carry, verdict
from app.carry import Names, Turn
from app.evidence import fact_line

QUESTIONS = Path(__file__).parents[1] / "corpus" / "questions"
L2 = 1.0  # on the weights, in units of a question
CARRY_L2 = 0.5

Rows = list[tuple[dict[str, float], bool]]


def matrix(rows: Sequence[dict[str, float]]) -> Tensor:
    """``(n, features)`` float64."""
    return torch.tensor([list(row.values()) for row in rows], dtype=torch.float64)


def minimise(loss: Callable[[], Tensor], *weights: Tensor) -> None:
    """Find the weights at which a convex loss is least (L-BFGS)."""
    optimizer = torch.optim.LBFGS(list(weights), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


# -- verdict and premise -------------------------------------------------------------------------------------------


def told(path: Path) -> tuple[Rows, Rows]:
    """Features and labels of the questions of a file of corpus/questions: for the verdict and for the premise."""
    verdicts, premises = [], []
    for row in _rows(path):
        if "turns" in row or not row.get("evidence"):
            continue
        text = " ".join(e["text"] for e in row["evidence"])
        about = row["question"], row["evidence"][0]["article"], text
        answer = (row.get("answers") or [""])[0].casefold()
        if row.get("type") == "yes/no" and answer in ("yes", "no"):
            verdicts.append((verdict.features(*about), answer == "yes"))
        elif row.get("type") != "yes/no":
            premises.append((verdict.premise_features(*about), bool(row.get("decline"))))
    return verdicts, premises


def fit(rows: Rows) -> dict[str, float]:
    """Weights of one of the curves of ``app.verdict``."""
    x = matrix([features for features, _ in rows])
    y = torch.tensor([float(is_so) for _, is_so in rows], dtype=torch.float64)
    w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        cost = torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y, reduction="sum")
        return cost + L2 * (w[1:] ** 2).sum()

    minimise(loss, w)
    return dict(zip(rows[0][0], w.tolist(), strict=True))


def judge(verdicts: Rows, premises: Rows, yes: dict[str, float], premise: dict[str, float]) -> dict[str, float]:
    """How often a verdict is given and how often it is then right; how many false premises are noticed, and how many of
    the other questions are wrongly taken for one."""
    said = [(verdict.probability(features, yes), is_yes) for features, is_yes in verdicts]
    given = [(p > 0.5) == is_yes for p, is_yes in said if max(p, 1 - p) >= verdict.SURE]
    doubted = [(verdict.doubted(f, premise), is_false) for f, is_false in premises]
    return {
        "verdicts_given": _share(len(given), len(said)),
        "verdicts_right": _share(sum(given), len(given)),
        "false_premises_noticed": _share(sum(d for d, is_false in doubted if is_false), sum(f for _, f in doubted)),
        "others_doubted": _share(sum(d for d, is_false in doubted if not is_false), sum(not f for _, f in doubted)),
    }


# -- carry ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Case:
    """A later turn of a conversation: features of every candidate and of none, and which are right."""

    names: list[dict[str, float]]
    none: dict[str, float]
    right: list[bool]  # the candidates, then none


def turns(path: Path, names: Names) -> list[Case]:
    """The later turns of the conversations of a file, each after the true turns before it."""
    cases = []
    for row in _rows(path):
        history: list[Turn] = []
        for turn in row.get("turns", []):
            whole = turn.get("rewrite") or turn["question"]
            evidence = turn.get("evidence") or []
            if history and turn.get("answers"):
                cases.append(_case(turn["question"], whole, history, names))
            quotes = " ".join(_said(e["text"], n) for n, e in enumerate(evidence[:2], 1))
            history.append(Turn(whole, quotes or turn.get("answer", ""), tuple(e["article"] for e in evidence[:2])))
    return cases


def _said(sentence: str, n: int) -> str:
    """A sentence as the answer gives it: of an infobox row the values alone, all else as a quote."""
    fact = fact_line(sentence)
    return f"{fact.values} [{n}]." if fact else f"“{sentence}” [{n}]"


def _case(question: str, whole: str, history: list[Turn], names: Names) -> Case:
    found = carry.candidates(question, history, names)
    wanted = names.pages(whole) - names.pages(question)
    right = [bool(c.pages & wanted) if c.pages else c.name.casefold() in whole.casefold() for c in found]
    return Case(
        [carry.features(c, question, history, names) for c in found],
        carry.none_features(question, names),
        [*right, not wanted and not any(right)],
    )


def fit_carry(cases: Sequence[Case]) -> carry.Weights:
    """Weights of names and of none; turns whose name stands nowhere before them teach nothing."""
    usable = [case for case in cases if any(case.right)]
    labels = next(case.names[0] for case in usable if case.names)
    w = torch.zeros(len(labels), dtype=torch.float64, requires_grad=True)
    b = torch.zeros(len(usable[0].none), dtype=torch.float64, requires_grad=True)
    tensors = [
        (matrix(case.names).reshape(-1, len(labels)), matrix([case.none])[0], torch.tensor(case.right))
        for case in usable
    ]

    def loss() -> Tensor:
        total = CARRY_L2 * ((w * w).sum() + (b * b).sum())
        for x, n, right in tensors:
            scores = torch.cat((x @ w, (n @ b)[None]))
            total = total + scores.logsumexp(0) - scores[right].logsumexp(0)
        return total

    minimise(loss, w, b)
    return carry.Weights(dict(zip(labels, w.tolist(), strict=True)), dict(zip(usable[0].none, b.tolist(), strict=True)))


def judge_carry(cases: Sequence[Case], weights: carry.Weights, among: int = 3) -> dict[str, float]:
    """How often a right name, or rightly none, comes first, and how often among the first ``among``."""
    first = within = 0
    for case in cases:
        scores = [carry.score(weights.name, values) for values in case.names]
        scores.append(carry.score(weights.none, case.none))
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        first += case.right[order[0]]
        within += any(case.right[i] for i in order[:among])
    return {"carried_right": _share(first, len(cases)), f"carried_among_{among}": _share(within, len(cases))}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def _share(part: int, whole: int) -> float:
    return round(part / whole, 3) if whole else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="data folder with an archive of the codex (default: as for app.py)")
    parser.add_argument("--out", type=Path, default=Path(carry.__file__).with_name("learnt.json"))
    parser.add_argument("--keep", nargs="*", choices=("yes", "premise"), default=(), help="what stays as it is in OUT")
    args = parser.parse_args()
    from app import settings
    from app.known import Known
    from corpus.store import Store
    from retrieval.names import Names as ArchiveNames

    store = Store(settings.load(data=args.data).archive)
    names = Known(store, ArchiveNames.of(store))
    kept = json.loads(args.out.read_text(encoding="utf-8")) if args.keep else {}
    parts = zip(("yes", "premise"), told(QUESTIONS / "train.jsonl"), strict=True)
    yes, premise = (kept[part] if part in args.keep else fit(rows) for part, rows in parts)
    carried = fit_carry(turns(QUESTIONS / "train.jsonl", names))
    judged = judge(*told(QUESTIONS / "dev.jsonl"), yes, premise)
    judged |= judge_carry(turns(QUESTIONS / "dev.jsonl", names), carried)
    weights = {"yes": yes, "premise": premise, "carry": carried.name, "carry_none": carried.none}
    learnt: dict[str, Any] = {
        kind: {name: round(value, 4) for name, value in values.items()} for kind, values in weights.items()
    }
    args.out.write_text(json.dumps(learnt | {"on_dev": judged}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(judged))


if __name__ == "__main__":
    main()
