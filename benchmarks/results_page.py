"""``RESULTS.md`` out of the figures that ``benchmarks.results`` measured: tables, pictures, and what they mean."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from app.evaluate import percentile
from benchmarks import plots
from benchmarks import scores as sc
from benchmarks.scores import Row, Share
from retrieval.evaluate import NAMES

SYSTEMS = {
    "ours": "**Cirilla**",
    "floor": "our BM25, sentence with most of the question's words",
    "oracle": "Cirilla, given the right passages",
    "bold": "Cirilla, given the right passages, never declining",
    "nothing": "Cirilla, given no passages",
    "minilm": "all-MiniLM-L6-v2 → SmolLM2-135M-Instruct",
    "fused": "our BM25 + all-MiniLM-L6-v2 → SmolLM2-135M-Instruct",
}
PEERS = ("minilm", "fused")
RANKERS = {
    **NAMES,
    "dense": "our encoder",
    "fusion": "both fused",
    "second": "**fused, then second stage**",
    "minilm": "all-MiniLM-L6-v2",
    "minilm+bm25": "our BM25 + all-MiniLM-L6-v2 fused",
}
METRICS = ("R@1", "R@5", "R@20", "RR@10", "nDCG@10")
PLAIN = ("Success@5", "RR@10", "nDCG@10")  # a plain question is answered in many places: one of them will do
MARKS = ("first_token", "first_word")  # moments among the timings, not stages
FEW = 5  # groups of fewer questions are not shown


def page(figures: dict[str, Any], pictures: Path, base: Path) -> str:
    """The whole file.  Writes the pictures too.

    Args:
        figures: by step, as ``benchmarks.results.measure`` gives them.
        pictures: folder for the pictures.
        base: folder of the page, from which the pictures are linked.
    """
    parts = [
        _head(figures),
        "## Answers",
        _answers(figures),
        _against(figures),
        _later(figures),
        "### By type of question",
        _by(figures, "type"),
        "### By canon",
        _by(figures, "canon"),
        "## Confidence",
        _confidence(figures, pictures, base),
        "## Retrieval",
        _retrieval(figures),
        "## Speed and size",
        _speed(figures),
        _left_out(figures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(figures: dict[str, Any]) -> str:
    about = figures["about"]
    changed = " with changes that were not committed" if about["changed"] else ""
    command = f"python -m benchmarks.results {about['options']}".strip()
    split = (
        "Test questions, which nothing was tuned on."
        if about["split"] == "test"
        else "Dev questions, which the project was tuned on; `--split test` reports on others."
    )
    return (
        f"# Results\n\nWritten by `{command}`; not to be edited by hand.\n\n"
        f"Measured on {about['date']} at revision `{about['revision']}`{changed}, on {about['processor']}, "
        f"{about['cores']} cores ({about['threads']} threads in use, load {about['load']} when it began), Python "
        f"{about['python']}, torch {about['torch']}.\n\n"
        f"**Questions.** {about['rows']:,} rows of `{about['file']}`, drawn with a fixed seed: "
        f"{about['turns']:,} questions and turns, {about['declines']:,} of them to be declined. {split} SmolLM2 takes "
        f"seconds a question and was asked {about['peer_rows']:,} of the rows; where it appears, ours stands beside it "
        "on the same ones. Brackets hold 95 % intervals by bootstrap over rows, conversations kept whole. An answer is "
        "right when it holds an expected name, number or phrase; a question to be declined counts as declined only "
        "when nothing was answered."
    )


# -- answers --------------------------------------------------------------------------------------------------------


def _rows(figures: dict[str, Any], system: str) -> list[Row] | None:
    """What a system was asked; None where it was not run."""
    return figures.get(system, {}).get("rows")


def _answers(figures: dict[str, Any]) -> str:
    ours = _rows(figures, "ours") or []
    asked = {(row["item"], row["turn"]) for row in _rows(figures, "minilm") or _rows(figures, "fused") or []}
    lines = [_answer_row(name, _rows(figures, system)) for system, name in SYSTEMS.items() if system not in PEERS]
    if asked:
        lines.append(_answer_row("**Cirilla**, only what SmolLM2 was asked", _only(ours, asked)))
        floor = _only(_rows(figures, "floor") or [], asked)
        lines.append(_answer_row("our BM25, best sentence, only what SmolLM2 was asked", floor))
    lines += [_answer_row(SYSTEMS[system], _rows(figures, system)) for system in PEERS]
    heads = (
        "", "right, of the answerable", "declined, of those to be", "declined, of the answerable",
        "sentences that a passage bears", "a passage of the first 5 holds the answer", "first word p50 / p95",
        "whole answer p50 / p95",
    )  # fmt: skip
    return (
        f"{_table(heads, lines)}\n\n"
        "SmolLM2 and BM25 get follow-ups as their file rewrites them; Cirilla rewrites them itself. A sentence of "
        "SmolLM2's counts as borne when any of its passages bears it, cited or not. Times are of the whole way, search "
        "included, one question at a time. The rows with given passages are bounds: what evidence and answer make of a "
        "perfect search (the confidence, fitted on a full list of candidates, is lower when there are few), what they "
        "would make of it if they always answered, and whether they keep silent when there is nothing."
    )


def _only(rows: Iterable[Row], asked: set[tuple[str, int]]) -> list[Row]:
    return [row for row in rows if (row["item"], row["turn"]) in asked]


def _answer_row(name: str, rows: list[Row] | None) -> list[str]:
    if rows is None:
        return [name, "not measured", *["–"] * 6]
    return [
        name,
        _cell(sc.share(rows, sc.right), count=True),
        _cell(sc.share(rows, sc.held_back), count=True),
        _cell(sc.share(rows, sc.shy)),
        _cell(sc.share(rows, _borne, lambda row: row["sentences"])),
        _cell(sc.share(rows, lambda row: None if row["decline"] else float(row["found"]))),
        _times(rows, "first_ms"),
        _times(rows, "ms"),
    ]


def _borne(row: Row) -> float | None:
    return row["supported"] / row["sentences"] if row["sentences"] else None


def _times(rows: Sequence[Row], key: str) -> str:
    ordered = sorted(row[key] for row in rows)
    return " / ".join(_seconds(percentile(ordered, part)) for part in (0.5, 0.95))


def _seconds(ms: float | None) -> str:
    return "–" if ms is None else f"{ms / 1000:.2f} s"


def _against(figures: dict[str, Any]) -> str:
    """How many points ours is ahead, question by question."""
    ours = _rows(figures, "ours") or []
    told = []
    for system in ("floor", *PEERS):
        gap = sc.difference(ours, _rows(figures, system) or [], sc.right)
        if gap:
            told.append(
                f"{100 * gap.mean:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}] against "
                f"{SYSTEMS[system]} ({gap.count} questions)"
            )
    return f"Right answers, ours minus theirs on the same questions: {'; '.join(told)}." if told else ""


def _later(figures: dict[str, Any]) -> str:
    rows = _rows(figures, "ours") or []
    later = sc.share([row for row in rows if row["turn"]], sc.right)
    told = [f"Later turns of conversations, which mean little without those before: {_cell(later, count=True)} right."]
    either = sc.share(rows, lambda row: float(row["abstained"] or row["corrected"]) if row["decline"] else None)
    told.append(
        "Questions to be declined that were declined, or answered with the very sentence that corrects their false "
        f"premise: {_cell(either, count=True)}."
    )
    return "\n\n".join(told)


def _by(figures: dict[str, Any], group: str) -> str:
    systems = [system for system in ("ours", "floor", "oracle", "bold", *PEERS) if _rows(figures, system)]
    counts = Counter(row[group] for row in _rows(figures, "ours") or [] if not row["decline"])
    lines = []
    for name, count in counts.most_common():
        if count < FEW:
            continue
        cells = []
        for system in systems:
            share = sc.share([row for row in _rows(figures, system) or [] if row[group] == name], sc.right)
            cells.append(_cell(share, count=system in PEERS) if share and share.count >= FEW else "–")
        mine = [row for row in _rows(figures, "ours") or [] if row[group] == name]
        lines.append([name, str(count), *cells, _cell(sc.share(mine, sc.shy))])
    heads = ("right answers", "questions", *(SYSTEMS[system] for system in systems), "Cirilla declined")
    return _table(heads, lines)


# -- confidence -----------------------------------------------------------------------------------------------------


def _confidence(figures: dict[str, Any], pictures: Path, base: Path) -> str:
    would = figures["ours"]["would"]
    curve = sc.risk_coverage(would)
    curves = {"Cirilla": curve}
    if floor := _rows(figures, "floor"):
        curves["our BM25, best sentence"] = sc.risk_coverage(floor)
    points = {SYSTEMS[system]: point for system in PEERS if (point := _point(_rows(figures, system)))}
    risk, reliability = pictures / "risk-coverage.svg", pictures / "calibration.svg"
    plots.risk_coverage(curves, points, figures["about"]["threshold"], risk)
    error = sc.calibration_error(would)
    plots.calibration(sc.calibration(would), error, reliability)
    at = ", ".join(f"{100 * curve.coverage_at(most):.0f} % with at most {100 * most:.0f} %" for most in (0.1, 0.2, 0.3))
    return (
        "Every question is answered here, whatever the confidence, the ones to be declined too: those are wrong "
        "whenever they are answered. The surest answers first, this is what one risks:\n\n"
        f"![Share of wrong answers against share of questions answered]({_link(risk, base)})\n\n"
        f"Of all questions, {at} of the answers wrong; mean risk over the curve {curve.area:.3f}.\n\n"
        "And this is what the confidence that readers see is worth:\n\n"
        f"![Share of right answers against stated confidence]({_link(reliability, base)})\n\n"
        f"Expected calibration error {error:.3f} over {len(would)} questions in ten bins."
    )


def _point(rows: list[Row] | None) -> tuple[float, float] | None:
    """Coverage and risk of a system that only answers or declines."""
    answered = [row for row in rows or [] if not row["abstained"]]
    if not rows or not answered:
        return None
    wrong = sum(row["decline"] or not row["right"] for row in answered)
    return len(answered) / len(rows), wrong / len(answered)


def _link(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base)).as_posix()


# -- retrieval ------------------------------------------------------------------------------------------------------


def _retrieval(figures: dict[str, Any]) -> str:
    search = figures["search"]
    split = figures["about"]["split"]
    parts = [_ranked(f"Codex, {split} questions", search["drawn"])]
    if "weight" in search:
        over = "codex and wiki pages" if "wiki" in figures else "the codex"
        parts.append(
            f"MiniLM's weight in the fusion is {search['weight']}, the best of a grid on dev questions over {over} "
            "(our BM25: 1). Plain BM25 is FTS5's over heading and text; ours knows names and misspellings besides. "
            "R@k: share of the annotated passages among the first k. Two articles often say the same and only one of "
            "them is annotated, so these figures understate. Success@5: whether any is among the first five. Groups of "
            f"fewer than {FEW} questions are not shown."
        )
    for group in ("type", "canon"):
        parts.append(_ranked_by(search["drawn"], group))
    parts.append(_ranked("Codex, fifty plain questions", search["fifty"], PLAIN))
    if "drawn" in figures.get("wiki", {}):
        parts.append(_ranked("Real wiki pages, dev questions", figures["wiki"]["drawn"]))
    return "\n\n".join(parts)


def _ranked(title: str, ranked: dict[str, Any], metrics: Sequence[str] = METRICS) -> str:
    lines = []
    for system, name in RANKERS.items():
        measured = ranked["systems"].get(system)
        if measured is None:
            lines.append([name, "not measured", *["–"] * len(metrics)])
            continue
        cells = [_cell(sc.share(measured["rows"], _metric(metric))) for metric in metrics]
        lines.append([name, *cells, f"{measured['ms']:.0f} ms"])
    questions = len(next(iter(ranked["systems"].values()))["rows"])
    heads = (f"{title}: {questions:,}, over {ranked['passages']:,} passages", *metrics, "p50")
    return _table(heads, lines)


def _ranked_by(ranked: dict[str, Any], group: str) -> str:
    systems = [system for system in RANKERS if system in ranked["systems"]]
    counts = Counter(row[group] for row in ranked["systems"][systems[0]]["rows"])
    lines = []
    for name, count in counts.most_common():
        if count >= FEW:
            shares = (
                sc.share([row for row in ranked["systems"][s]["rows"] if row[group] == name], _metric("R@5"))
                for s in systems
            )
            lines.append([name, str(count), *map(_cell, shares)])
    return _table((f"R@5 by {group}", "questions", *(RANKERS[system] for system in systems)), lines)


def _metric(name: str) -> Callable[[Row], float]:
    return lambda row: row[name]


# -- speed ----------------------------------------------------------------------------------------------------------


def _speed(figures: dict[str, Any]) -> str:
    """What ``benchmarks.spine`` and ``benchmarks.load`` measured, and the encoders' speeds."""
    spine, crowd = figures["speed"], figures.get("crowd", {})
    clean, embedding = spine["clean_and_chunk"], spine["embedding"]
    lines = [
        ["index of the codex, from nothing", f"{spine['index_of_the_codex']['seconds']:.0f} s"],
        ["`python app.py` to a page that answers", f"{spine['start_up']['seconds']:.1f} s"],
        [f"pages cleaned and chunked a second ({clean['kilobytes_a_page']:.0f} kB each), one core",
         f"{clean['pages_per_second']:.0f}"],
        [f"passages embedded a second ({embedding['words_a_passage']:.0f} words each)",
         f"{embedding['passages_per_second']:.0f}"],
        ["passages of 180 words embedded a second", f"{embedding['passages_of_180_words_per_second']:.0f}"],
    ]  # fmt: skip
    for name, rate in figures["search"]["speed"].items():
        lines.append([f"passages of the codex a second, {name}", f"{rate:.0f}"])
    if many := spine.get("ingest"):
        lines.append(
            [
                f"{many['pages']:,} pages ({many['passages']:,} passages) cleaned, stored, embedded, indexed",
                f"{many['stored_pages_per_second']:.0f} pages/s, then {many['indexed_passages_per_second']:.0f} "
                f"passages/s; {many['peak_memory_mb'] / 1000:.2f} GB at most",
            ]
        )
    if "chats" in crowd:
        lines.append(
            [
                f"{crowd['chats']} chats at once, {crowd['questions_at_once']} questions",
                f"{crowd['errors']} errors, {crowd['mixed_up']} mixed up; first word p50 "
                f"{crowd['first_word_p50_s']:.1f} s, p95 {crowd['first_word_p95_s']:.1f} s; "
                f"{crowd['peak_memory_mb'] / 1000:.2f} GB at most",
            ]
        )
    stages = _stages(figures)
    return _table(("", "measured"), lines) + (f"\n\n{stages}" if stages else "")


def _stages(figures: dict[str, Any]) -> str:
    medians = figures["ours"].get("stages") or {}
    told = ", ".join(f"{name} {ms:.0f} ms" for name, ms in medians.items() if name not in MARKS)
    return f"Where the time of an answer goes (medians): {told}." if told else ""


def _left_out(figures: dict[str, Any]) -> str:
    reasons = [figures[step]["skipped"] for step in figures if "skipped" in figures[step]]
    absent = [f"- {reason}" for reason in dict.fromkeys(reasons)]
    if "crowd" not in figures:
        absent.append("- twenty chats at once (`--quick`)")
    if "ingest" not in figures["speed"]:
        absent.append("- the long ingest (`--pages 0`)")
    if "wiki" not in figures:
        absent.append("- retrieval over real wiki pages, which are not ours to ship (`--wiki FILE`)")
    return "## Left out\n\n" + "\n".join(absent) if absent else ""


# -- Markdown -------------------------------------------------------------------------------------------------------


def _cell(share: Share | None, count: bool = False) -> str:
    """A share in per cent with its interval, and if wanted of how many."""
    if share is None:
        return "–"
    of = f" of {share.count:,}" if count else ""
    return f"{100 * share.mean:.1f} %{of} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
