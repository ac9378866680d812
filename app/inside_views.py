"""What "Look inside" says about one answer: for each chart its HTML (explanation, summary, table) and the figure.

Nothing here runs a model again; the one thing that is done twice is the check of the draft's sentences, to show why
each was kept or refused.  All that comes from outside goes through ``escape`` or ``charts.plain``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gradio.components.plot import PlotData

from app import charts, copied, support
from app.answer import SILENT, Answer
from app.charts import plain
from app.render import escape

if TYPE_CHECKING:
    from app.evidence import Evidence
    from retrieval.search import Hit

View = tuple[str, PlotData | None]
"""A section's HTML and its chart; no chart where there is nothing to draw."""

STAGES = {
    "rewrite": "understand the question", "search": "search", "second": "second stage", "evidence": "weigh sentences",
    "draft": "draft", "check": "check",
}  # fmt: skip
MOMENTS = ("first_token", "total")  # among an answer's timings these are points in time, not stages
NOTHING = "Ask something in the chat first; then this shows how that answer came about."


@dataclass(frozen=True, slots=True)
class Focus:
    """What stands out on the map: the question, and passages as (id, label, hover, state)."""

    question: str = ""
    passages: tuple[tuple[int, str, str, str], ...] = ()


# -- HTML ----------------------------------------------------------------------------------------------------------


def section(title: str, explanation: str) -> str:
    """A heading with the sentence or two that a newcomer needs; both are ours, not data."""
    return f"<h3>{title}</h3><p>{explanation}</p>"


def note(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A closed table; cells are HTML, already escaped."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<details><summary>{caption}</summary><div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


# -- the question --------------------------------------------------------------------------------------------------


def pieces(tokenizer: Any, text: str) -> list[tuple[str, int]]:
    """(text, id) of each token; a token that is only a part of a character is shown by its bytes."""
    out = []
    for id in tokenizer.encode(text, add_special_tokens=False).ids:
        shown = tokenizer.decode([id], skip_special_tokens=False)
        if "\ufffd" in shown:
            shown = "".join(f"‹{_byte(letter):02X}›" for letter in tokenizer.id_to_token(id) or "")
        out.append((shown, id))
    return out


def _byte(letter: str) -> int:
    """The byte that a letter of a byte-level vocabulary stands for (GPT-2's table)."""
    code = ord(letter)
    if code < 256:
        return code
    hidden = [b for b in range(256) if not (33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255)]
    return hidden[code - 256] if code - 256 < len(hidden) else 0


def question_view(tokenizer: Any | None, answer: Answer | None) -> View:
    """The question in tokens."""
    head = section(
        "Tokens of the question",
        "Models do not read letters or words but tokens: frequent pieces of text, each with a number. Both of ours "
        "share one vocabulary of byte pairs, learned from their own training text, so <i>Yennefer</i> takes few "
        "tokens. A dot stands for a space.",
    )
    if answer is None:
        return head + note(NOTHING), None
    if tokenizer is None:
        return head + note("The encoder in use shows no tokens."), None
    text = answer.standalone_question
    cut = pieces(tokenizer, text)
    if not cut:
        return head + note("The question is empty."), None
    said = f"{len(cut)} tokens for {len(text)} characters."
    if text != answer.question:
        said += f" The question was understood as: {text}"
    rows = [[escape(charts.visible(shown)), str(id)] for shown, id in cut]
    boxes = [charts.Box(shown, f"“{plain(shown, 60)}”<br>token {id}") for shown, id in cut]
    return head + note(said) + table("The tokens as a table", ("token", "number"), rows), charts.tokens(boxes)


# -- candidates ----------------------------------------------------------------------------------------------------


def cited_in(hit: Hit, answer: Answer) -> list[int]:
    """Numbers of the citations that quote this passage."""
    name = hit.passage.display_title or hit.passage.title
    return [c.n for c in answer.citations if c.passage == hit.passage.text and c.title == name]


def state_of(hit: Hit, answer: Answer) -> str:
    """ "cited", "read" by the decoder, or "" for a passage that was merely found."""
    if cited_in(hit, answer):
        return "cited"
    return "read" if any(other.passage.id == hit.passage.id for other in answer.read) else ""


def second_of(hit: Hit) -> float | None:
    """The second stage's score; None where it has not read the passage, or found no sentence in it."""
    return hit.second if hit.second is not None and math.isfinite(hit.second) else None


def ranks(values: Sequence[float | None]) -> list[int | None]:
    """Rank of each value from 1, highest first; None where there is none."""
    order = sorted((v for v in values if v is not None), reverse=True)
    return [None if v is None else order.index(v) + 1 for v in values]


def best_of(hit: Hit, answer: Answer) -> Evidence | None:
    """The sentence of a passage that was thought the best evidence: a cited one where there is one."""
    these = [e for e in answer.evidence if e.passage.id == hit.passage.id]
    quoted = [e for e in these if any(c.passage == e.passage.text and c.start <= e.start and e.end <= c.end
                                      for c in answer.citations)]  # fmt: skip
    return next(iter([*quoted, *these]), None)


def candidate_view(answer: Answer | None) -> View:
    """Every stage's opinion of the passages found."""
    head = section(
        "Candidates",
        "<b>BM25</b> counts shared words, rare ones most; <b>dense</b> compares meanings as the cosine of two vectors; "
        "<b>fused</b> adds up the rankings, so a passage that all like wins. Where there is a <b>second stage</b>, "
        "it reads question and passage together. Then the best sentence of each passage is chosen.",
    )
    if answer is None:
        return head + note(NOTHING), None
    hits = answer.hits
    if not hits:
        return head + note("Nothing was searched for, or nothing was found."), None
    second = [second_of(hit) for hit in hits]
    fused = ranks([hit.score if hit.bm25_rank or hit.dense_rank else None for hit in hits])
    stages = ["BM25", "dense", *(["second stage"] if any(v is not None for v in second) else []), "fused"]
    bars, rows = [], []
    for hit, again, again_rank, rank in zip(hits, second, ranks(second), fused, strict=True):
        scores: list[tuple[float | None, int | None]] = [(hit.bm25, hit.bm25_rank), (hit.dense, hit.dense_rank)]
        if len(stages) == 4:
            scores.append((again, again_rank))
        scores.append((hit.score if rank else None, rank))
        state, numbers = state_of(hit, answer), cited_in(hit, answer)
        sentence = best_of(hit, answer)
        bars.append(charts.Bar(hit.passage.heading, tuple(scores), state))
        why = "".join(f" [{n}]" for n in numbers) or (" (read)" if state == "read" else "")
        if not rank:
            why += " (added, as the question names the article)"
        chosen = f"<mark>{escape(sentence.text)}</mark>" if sentence and state == "cited" else ""
        chosen = chosen or (escape(sentence.text) if sentence else "–")
        shown = [f"{value:.3f} (#{place})" if value is not None and place else "–" for value, place in scores]
        rows.append([escape(hit.passage.heading + why), *shown, chosen, f"{sentence.share:.0%}" if sentence else "–"])
    said = (
        f"{len(hits)} passages: {sum(bar.state == 'cited' for bar in bars)} cited (orange), "
        f"{sum(bar.state == 'read' for bar in bars)} more read by the decoder (blue), the others only found (grey). "
        "The bar is the score, the number behind it the rank in that stage; the table has the figures."
    )
    numbered = [[str(at), *row] for at, row in enumerate(rows, 1)]
    listing = table(
        "Scores and chosen sentences as a table",
        ("", "passage", *stages, "best sentence", "its share of the evidence"),
        numbered,
    )
    return head + note(said) + listing, charts.candidates(stages, bars)


def focus_of(answer: Answer | None) -> Focus:
    """What of an answer is lit on the map."""
    if answer is None or not answer.hits:
        return Focus()
    lit = []
    for at, hit in enumerate(answer.hits, 1):
        if not (hit.bm25_rank or hit.dense_rank) and not cited_in(hit, answer):
            continue
        numbers = cited_in(hit, answer)
        label = "".join(f"[{n}]" for n in numbers) or str(at)
        lit.append((hit.passage.id, label, hit.passage.heading, state_of(hit, answer)))
    lit.sort(key=lambda each: ("cited", "read", "").index(each[3]))  # the most telling first in the summary
    return Focus(answer.standalone_question, tuple(lit))


# -- the draft -----------------------------------------------------------------------------------------------------


def draft_view(answer: Answer | None) -> View:
    """The decoder's tokens, kept or not."""
    head = section(
        "The draft, token by token",
        "The decoder writes one token at a time. The colour is the probability that it gave the token it chose: light "
        "is sure, dark is a guess. The strip below shows which passage a run of words was copied from.",
    )
    if answer is None:
        return head + note(NOTHING), None
    if not answer.tokens:
        return head + note(_why_no_draft(answer)), None
    texts = [f"{hit.passage.heading}\n{text}" for hit, text in zip(answer.read, answer.excerpts, strict=True)]
    runs = copied.of_pieces([token.text for token in answer.tokens], texts)
    boxes, rows = [], []
    for token, run in zip(answer.tokens, runs, strict=True):
        others = ", ".join(f"“{text}” {p:.1%}" for text, p in token.runners_up)
        source = f"passage {run.passage}, {answer.read[run.passage - 1].passage.heading}" if run else ""
        routed = "; ".join(f"layer {at}: {', '.join(map(str, chosen))}" for at, chosen in enumerate(token.experts))
        lines = [f"“{token.text}” {token.probability:.1%}"]
        lines += [f"runners-up: {others}"] if others else []
        lines += [f"copied from {source} ({run.words} words in a row)"] if run else []
        lines += ["speculated: proposed from the prompt, then verified"] if token.speculated else []
        lines += [f"experts: {routed}"] if routed else []
        hover = "<br>".join(plain(line, 64) for line in lines)
        strip = run.passage if run else 0
        boxes.append(charts.Box(token.text, hover, token.probability, strip, token.speculated))
        rows.append([escape(charts.visible(token.text)), f"{token.probability:.1%}", escape(others) or "–",
                     escape(source) or "–", "yes" if token.speculated else "–"])  # fmt: skip
    html = head + _fate(answer) + note(_summary(answer, runs))
    columns = ("token", "probability", "runners-up", "copied from", "speculated")
    return html + _verdicts(answer) + table("The tokens as a table", columns, rows), charts.tokens(boxes, scale=True)


def _why_no_draft(answer: Answer) -> str:
    if answer.abstained:
        return (
            f"There is no draft: the best evidence gave a confidence of {answer.confidence:.0%}, which is too little, "
            "so the chat declined before the decoder was asked."
        )
    if answer.generator != "evidence":
        return f"The draft was written by {answer.generator}, which tells nothing about its single tokens."
    return "There is no draft: the answer is evidence quoted as it stands in the archive, and no decoder was asked."


def draft_of(answer: Answer) -> str:
    return "".join(token.text for token in answer.tokens).strip()


def _fate(answer: Answer) -> str:
    """What became of the draft, plainly."""
    draft = draft_of(answer)
    if support.claim_of(draft) == SILENT:
        said = "The decoder wrote that the archives do not say. The evidence says they do, so it is quoted instead:"
    elif answer.generator == "evidence":
        said = "The answer is quoted evidence. The decoder's draft did not pass the check, or was a guess:"
    else:
        return ""
    return f"<p><b>{said}</b> <q>{escape(draft)}</q></p>"


def _verdicts(answer: Answer) -> str:
    """Each sentence of the draft with what the check said."""
    kept = {_bare(sentence.text) for sentence in answer.sentences}
    passages = [hit.passage for hit in answer.read]
    rows = []
    for sentence in support.split(draft_of(answer))[0]:
        verdict = support.check(sentence, passages)
        fate = (
            "kept"
            if _bare(sentence) in kept
            else "borne by its passage, but too much of a guess, beside the point or said before"
        )
        rows.append([escape(sentence), fate if verdict.ok else f"refused: {escape(verdict.reason)}"])
    return table("The check, sentence by sentence", ("sentence of the draft", "verdict"), rows) if rows else ""


def _bare(sentence: str) -> str:
    return support.claim_of(sentence).rstrip(".!? ")


def _summary(answer: Answer, runs: Sequence[copied.Run | None]) -> str:
    tokens = answer.tokens
    mean = sum(token.probability for token in tokens) / len(tokens)
    unsure = min(tokens, key=lambda token: token.probability)
    said = (
        f"{len(tokens)} tokens, {mean:.0%} probable on average; the least sure was “{unsure.text}” with "
        f"{unsure.probability:.1%}. {sum(run is not None for run in runs)} of them stand in words that were copied."
    )
    hatched = sum(token.speculated for token in tokens)
    return said + (f" {hatched} were speculated (hatched)." if hatched else "")


def expert_view(answer: Answer | None) -> View:
    """Which experts the tokens were sent to; nothing at all for a model without experts."""
    routed = [token.experts for token in answer.tokens if token.experts] if answer else []
    if not routed:
        return "", None
    layers = max(len(each) for each in routed)
    number = 1 + max((expert for each in routed for layer in each for expert in layer), default=0)
    counts = np.zeros((layers, number), dtype=np.int64)
    for each in routed:
        for layer, chosen in enumerate(each):
            for expert in chosen:
                counts[layer, expert] += 1
    busiest = [int(row.argmax()) for row in counts]
    head = section(
        "Experts",
        "In a layer with experts a small router sends each token to a few of several networks, so that the model can "
        "know more than it computes. Lighter cells got more tokens.",
    )
    said = "; ".join(f"layer {at}: expert {expert}, {int(counts[at, expert])} tokens"
                     for at, expert in enumerate(busiest))  # fmt: skip
    return head + note(f"The busiest: {said}."), charts.experts(counts)


# -- time ----------------------------------------------------------------------------------------------------------


def timing_view(answer: Answer | None) -> View:
    """Milliseconds by stage."""
    head = section("Time", "Where the time between question and answer went.")
    if answer is None:
        return head + note(NOTHING), None
    parts = [(STAGES.get(name, name), ms) for name, ms in answer.timings.items() if name not in MOMENTS]
    total = answer.timings.get("total", 0.0)
    rest = total - sum(ms for _, ms in parts)
    if rest >= 1:
        parts.append(("other", rest))
    if not parts:
        return head + note("No stage was timed."), None
    slowest = max(parts, key=lambda part: part[1])
    first = answer.timings.get("first_token")
    said = f"{total:.0f} ms in all, most of them for “{slowest[0]}” ({slowest[1]:.0f} ms)."
    if first is not None:
        said += f" The decoder's first token came after {first:.0f} ms."
    rows = [[escape(name), f"{ms:.1f}"] for name, ms in parts]
    return head + note(said) + table("The stages as a table", ("stage", "ms"), rows), charts.timings(parts, first)
