"""The misses of an evaluation as one HTML page that needs nothing else: ``--evaluate FILE --report OUT.html``.

The choice of a stage is made of radio buttons and style rules, so the page runs no script and loads nothing.  Whatever
comes from questions, answers and passages goes through ``escape``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from app.evaluate import Outcome
from app.misses import STAGES, Miss
from app.render import escape
from corpus.store import StoredPassage

CSS = """
:root { color-scheme: light dark; --ground: #faf9f7; --card: #fff; --text: #292524; --soft: #57534e; --line: #d9d4cd;
  --accent: #0f766e; --mark: #fde68a; --bad: #a8321a; }
@media (prefers-color-scheme: dark) { :root { --ground: #171513; --card: #211e1c; --text: #e7e5e4; --soft: #b5afa9;
  --line: #4a4541; --accent: #5eead4; --mark: #fcd34d; --bad: #fca5a5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 1rem/1.55 ui-sans-serif, system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .2rem 0; } h2 { font-size: 1.2rem; margin: 1.6rem 0 .4rem; }
h3 { font-size: 1.05rem; margin: .4rem 0; }
.quiet { color: var(--soft); font-size: .9rem; } .bad { color: var(--bad); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; } thead th { vertical-align: bottom; white-space: normal; }
th .quiet { display: block; font-weight: normal; white-space: normal; }
input[name=stage] { position: absolute; opacity: 0; }
nav { display: flex; flex-wrap: wrap; gap: .4rem; position: sticky; top: 0; padding: .5rem 0; background: var(--ground);
  margin-top: 1.2rem; }
nav label { border: 1px solid var(--line); border-radius: 1rem; padding: .3rem .8rem; background: var(--card);
  cursor: pointer; font-size: .9rem; }
.miss { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: .7rem .9rem;
  margin: .8rem 0; }
.miss p, .miss ul { margin: .35rem 0; } .miss ul { padding-left: 1.2rem; }
.chips { display: flex; flex-wrap: wrap; gap: .3rem .5rem; font-size: .8rem; color: var(--soft); }
.chips .stage { color: var(--accent); font-weight: 600; }
dl { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr); gap: .2rem .6rem; margin: .4rem 0; }
dt { color: var(--soft); font-size: .9rem; } dd { margin: 0; }
summary { cursor: pointer; padding: .3rem 0; } mark { background: var(--mark); color: #1c1917; }
blockquote { margin: .3rem 0 .8rem; padding-left: .8rem; border-left: 3px solid var(--line); white-space: pre-line; }
blockquote.bears { border-color: var(--accent); }
@media (max-width: 30rem) { body { padding: .6rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; } nav { position: static; } }
"""


def kind(outcome: Outcome) -> str:
    """The type of a question as its file calls it; what must be declined is a type of its own."""
    return "to be declined" if outcome.decline else str(outcome.extra.get("type") or "no type")


def telling(outcome: Outcome) -> str:
    return str(outcome.extra.get("canon") or "any canon")


def page(misses: Sequence[Miss], outcomes: Sequence[Outcome], title: str, made: str) -> str:
    """The whole page.

    Args:
        misses: as ``app.misses.find`` gives them.
        outcomes: all of the evaluation, right ones too; the shares are of these.
        title: what was asked, such as the file's name.
        made: when, in words.
    """
    stages = Counter(miss.stage for miss in misses)
    used = [stage for stage in STAGES if stages[stage]]
    declined = sum(miss.outcome.answer["abstained"] for miss in misses)
    head = (
        f"<h1>What was missed</h1><p class='quiet'>{escape(title)} · {escape(made)}</p><p>{_count(outcomes)} asked, "
        f"<strong>{len(misses)} missed</strong> ({len(misses) / max(1, len(outcomes)):.0%}): {declined} wrongly "
        f"declined, {len(misses) - declined} answered wrongly.</p>"
    )
    inputs = "".join(
        f'<input type="radio" name="stage" id="show-{name}"{" checked" if name == "all" else ""}>'
        for name in ("all", *used)
    )
    labels = f'<label for="show-all">All {len(misses)}</label>' + "".join(
        f'<label for="show-{stage}">{escape(STAGES[stage][0])} {stages[stage]}</label>' for stage in used
    )
    earlier = {(o.id, o.turn): o for o in outcomes}
    body = "".join(_miss(miss, earlier) for miss in misses) or "<p>Nothing was missed.</p>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>What was missed: {escape(title)}</title><style>{CSS}{_rules(used)}</style></head><body>"
        f"<header>{head}</header>{_by_stage(misses)}"
        f"{_by(misses, outcomes, 'type', kind)}{_by(misses, outcomes, 'canon', telling)}"
        f'<h2 id="misses">The misses</h2>{inputs}<nav aria-label="Show the misses of one stage">{labels}</nav>'
        f"<main>{body}</main></body></html>\n"
    )


def _count(outcomes: Sequence[Outcome]) -> str:
    return f"{len(outcomes)} question{'' if len(outcomes) == 1 else 's'}"


def _rules(stages: Sequence[str]) -> str:
    """What each choice hides, and how the chosen one looks."""
    rules = [f"#show-{stage}:checked ~ main .miss:not(.{stage}) {{ display: none; }}" for stage in stages]
    for name in ("all", *stages):
        label = f"~ nav label[for=show-{name}]"
        rules.append(f"#show-{name}:checked {label} {{ border-color: var(--accent); color: var(--accent); }}")
        rules.append(f"#show-{name}:focus-visible {label} {{ outline: 2px solid var(--accent); }}")
    return "\n".join(rules)


def _by_stage(misses: Sequence[Miss]) -> str:
    """Every stage with its misses, empty ones too: that nothing was lost there is worth knowing."""
    rows = ""
    for stage, (name, meaning) in STAGES.items():
        lost = [miss for miss in misses if miss.stage == stage]
        declined = sum(miss.outcome.answer["abstained"] for miss in lost)
        rows += (
            f'<tr><th scope="row">{escape(name)}<span class="quiet">{escape(meaning)}</span></th><td>{len(lost)}</td>'
            f"<td>{len(lost) / max(1, len(misses)):.0%}</td><td>{declined}</td></tr>"
        )
    return (
        '<h2>By the stage that lost it</h2><div class="scroll" tabindex="0" role="region" aria-label="By stage">'
        "<table><thead><tr><th>stage</th><th>misses</th><th>share</th><th>of them declined</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _by(misses: Sequence[Miss], outcomes: Sequence[Outcome], what: str, key: Callable[[Outcome], str]) -> str:
    """How many questions of each type or canon were asked and missed, and where they were lost."""
    used = [stage for stage in STAGES if any(miss.stage == stage for miss in misses)]
    asked = Counter(map(key, outcomes))
    rows = ""
    for name, count in asked.most_common():
        lost = [miss for miss in misses if key(miss.outcome) == name]
        stages = Counter(miss.stage for miss in lost)
        cells = "".join(f"<td>{stages[stage] or '·'}</td>" for stage in used)
        rows += f'<tr><th scope="row">{escape(name)}</th><td>{count}</td><td>{len(lost)}</td>{cells}</tr>'
    heads = "".join(f"<th>{escape(STAGES[stage][0])}</th>" for stage in used)
    return (
        f'<h2>By {what}</h2><div class="scroll" tabindex="0" role="region" aria-label="By {what}"><table><thead><tr>'
        f"<th>{what}</th><th>asked</th><th>missed</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _miss(miss: Miss, earlier: dict[tuple[str, int], Outcome]) -> str:
    outcome, answer = miss.outcome, miss.outcome.answer
    what = "declined" if answer["abstained"] else "answered"
    chips = [f'<span class="stage">{escape(STAGES[miss.stage][0])}</span>']
    chips += [f"<span>{escape(text)}</span>" for text in (kind(outcome), telling(outcome), what)]
    chips += [f"<span>confidence {answer['confidence']:.2f}</span>", f"<span>{escape(outcome.id)}</span>"]
    told = []
    for turn in range(outcome.turn):
        if before := earlier.get((outcome.id, turn)):
            told.append(("Before", f"{escape(before.question)} → {escape(_short(before.answer['answer']))}"))
    if answer["standalone_question"] != outcome.question:
        told.append(("Understood", escape(answer["standalone_question"])))
    told.append(("Expected", _expected(outcome)))
    told += [("Evidence", f"{escape(text)}") for text in miss.wanted if text not in outcome.expected]
    told.append(("Answer", f'<span class="bad">{escape(answer["answer"])}</span>'))
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in told)
    notes = "".join(f"<li>{escape(note)}</li>" for note in miss.notes)
    return (
        f'<article class="miss {miss.stage}" id="miss-{escape(outcome.id)}-{outcome.turn}">'
        f'<div class="chips">{"".join(chips)}</div><h3>{escape(outcome.question)}</h3><dl>{listed}</dl>'
        f"{f'<ul>{notes}</ul>' if notes else ''}{_passages(miss)}</article>"
    )


def _expected(outcome: Outcome) -> str:
    if not outcome.decline:
        return escape(" · ".join(outcome.expected))
    correction = outcome.extra.get("correction")
    return "to be declined" + (f", or corrected: {escape(correction)}" if isinstance(correction, str) else "")


def _passages(miss: Miss) -> str:
    """What the search brought, folded away, and the passage that was wanted where it is not among it."""
    shown = [(str(at), passage, passage.id in miss.bearing) for at, passage in enumerate(miss.found, 1)]
    if miss.source is not None and miss.source.id not in miss.bearing & {p.id for p in miss.found}:
        shown.insert(0, ("wanted", miss.source, True))
    if not shown:
        return '<p class="quiet">The search brought nothing.</p>'
    parts = "".join(_passage(label, passage, bears, miss) for label, passage, bears in shown)
    return f"<details><summary>Passages ({len(shown)})</summary>{parts}</details>"


def _passage(label: str, passage: StoredPassage, bears: bool, miss: Miss) -> str:
    canon = f" ({passage.canon})" if passage.canon else ""
    phrases = miss.wanted if bears else miss.outcome.expected
    told = " · holds the answer" if bears else ""
    return (
        f'<p class="quiet">{label}. {escape(passage.heading)}{escape(canon)}{told}</p>'
        f'<blockquote class="{"bears" if bears else ""}">{_marked(passage.text, phrases)}</blockquote>'
    )


def _marked(text: str, phrases: Sequence[str]) -> str:
    """Text with the phrases in it highlighted, where they stand as they are written."""
    wanted = sorted({part for phrase in phrases for part in phrase.split(" + ") if part.strip()}, key=len, reverse=True)
    if not wanted:
        return escape(text)
    parts = re.split(rf"(?<!\w)({'|'.join(map(re.escape, wanted))})(?!\w)", text, flags=re.I)
    return "".join(f"<mark>{escape(part)}</mark>" if at % 2 else escape(part) for at, part in enumerate(parts))


def _short(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"
