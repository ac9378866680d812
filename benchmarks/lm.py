"""Cirilla against small models of others: the table of the decoder's figures, measured in one run.

    python -m benchmarks.lm [--peers smollm2,gemma3] [--limit N] [--data DIR] [--json OUT] [--samples 30 --to FILE.md]

Every model reads the same passages: the one that holds the answer among four that BM25 likes best and that do not, in
random order; and again with five that do not.  All decode greedily.  ``--data`` is the folder with
``witcher/wiki_characters.jsonl.zst``, for the questions over a real wiki.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from app import support
from app.evaluate import says
from benchmarks.peers import NAMES, PROMPTS, Peer, Timing
from corpus import chunk, codex
from corpus.store import StoredPassage, fold
from corpus.types import Passage
from lm.chat import DECLINE
from retrieval.words import split

if TYPE_CHECKING:
    from lm.model import Config

ROOT = Path(__file__).resolve().parent.parent
CODEX = "codex dev"
PASSAGES = 5
NEW_TOKENS = 64  # of an answer, for everybody

_SOURCE = r"\b(?:passages?|texts?|archives?|context|excerpts?)\b"
_NOTHING = (
    r"\b(?:(?:do|does|did)(?: not|n.t) (?:say|mention|specify|state|contain|provide|include|answer|tell|give|hold|have)"
    r"|(?:is|are|was|were)(?: not|n.t) (?:mentioned|specified|stated|provided|given|clear|known|answered)"
    r"|no (?:information|mention|answer)|cannot (?:be )?(?:answer|determine)|not enough information|unclear"
    r"|not (?:mentioned|specified|stated|given))"
)
# “It is not known” may be the right answer: what is silent must be named near by, in the same sentence.
_SILENT = re.compile(
    rf"{_SOURCE}[^.!?]{{0,40}}{_NOTHING}|{_NOTHING}[^.!?]{{0,60}}{_SOURCE}|^i (?:do not|don.t) know\b"
    rf"|^\W*(?:there is )?{_NOTHING}\w*\W*$",
    re.I,
)


class Model(Protocol):
    """Anything that answers from passages."""

    name: str

    def stream(
        self, question: str, passages: Sequence[tuple[str, str]], *, max_new_tokens: int = NEW_TOKENS
    ) -> Iterator[str]: ...


@dataclass(frozen=True)
class Question:
    """One question with what is put before the models."""

    id: str
    question: str
    answers: tuple[str, ...]
    gold: int  # which of ``passages`` holds the answer, from 0
    passages: tuple[Passage, ...]
    silent: tuple[Passage, ...]  # the same number of others, none of which does


class Library:
    """Passages, searchable by BM25 (SQLite's FTS5, in memory)."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = list(passages)
        self.db = sqlite3.connect(":memory:")
        self.db.execute("CREATE VIRTUAL TABLE p USING fts5(heading, body, tokenize='porter unicode61')")
        rows = ((n, fold(p.heading), fold(p.text)) for n, p in enumerate(self.passages))
        self.db.executemany("INSERT INTO p (rowid, heading, body) VALUES (?, ?, ?)", rows)

    def search(self, question: str, limit: int = 60) -> list[Passage]:
        """Best first."""
        words = {word.text.replace('"', "") for word in split(question) if not word.stop}
        match = " OR ".join(f'"{word}"' for word in sorted(words) if word)
        if not match:
            return []
        rows = self.db.execute(
            "SELECT rowid FROM p WHERE p MATCH ? ORDER BY bm25(p, 2.0, 1.0), rowid LIMIT ?", (match, limit)
        )
        return [self.passages[n] for (n,) in rows]


def holds(passage: Passage, answers: Sequence[str]) -> bool:
    return says(f"{passage.heading} {passage.text}", answers)


def put(row: dict[str, Any], gold: Passage, library: Library, rng: random.Random) -> Question | None:
    """A question with its passages; None where too few others are free of the answer."""
    answers = tuple(row["answers"])
    # The gold passage need not spell an alias: “yes”, or an answer in other words.
    others = [p for p in library.search(row["question"]) if p != gold and not holds(p, answers)]
    if len(others) < PASSAGES:
        spare = rng.sample(library.passages, min(len(library.passages), 40))
        others += [p for p in spare if p != gold and p not in others and not holds(p, answers)]
    if len(others) < PASSAGES:
        return None
    shown = others[: PASSAGES - 1]
    at = rng.randrange(PASSAGES)
    silent = others[:PASSAGES]
    rng.shuffle(shown)
    rng.shuffle(silent)
    return Question(str(row["id"]), row["question"], answers, at, (*shown[:at], gold, *shown[at:]), tuple(silent))


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row.get("answers") and "turns" not in row and not row.get("decline"):
                yield row


def draw(
    rows: Iterable[dict[str, Any]],
    gold_of: Callable[[dict[str, Any]], Passage | None],
    library: Library,
    limit: int,
    seed: int,
) -> list[Question]:
    """At most ``limit`` questions in random order; ``gold_of`` tells the passage that answers, if any does."""
    rng = random.Random(seed)
    mixed = list(rows)
    rng.shuffle(mixed)
    questions: list[Question] = []
    for row in mixed:
        if len(questions) >= limit:
            break
        gold = gold_of(row)
        question = None if gold is None else put(row, gold, library, rng)
        if question is not None:
            questions.append(question)
    return questions


def codex_questions(path: Path, limit: int, seed: int = 0) -> list[Question]:
    """Answerable single questions over the codex whose evidence lies in one passage, in random order."""
    articles = {}
    for page in codex.load():
        article = codex.parse_page(page)
        articles[article.title] = chunk.passages(article)
    library = Library([p for passages in articles.values() for p in passages])

    def gold_of(row: dict[str, Any]) -> Passage | None:
        golds = [
            p
            for e in row["evidence"]
            for p in articles.get(e["article"], ())
            if p.section == e["section"] and p.start <= e["start"] < p.end
        ]
        return golds[0] if golds and all(p is golds[0] for p in golds) else None

    return draw(rows_of(path), gold_of, library, limit, seed)


def wiki_questions(path: Path, data: Path, limit: int, seed: int = 0) -> list[Question]:
    """Questions over the pages of a real wiki; the gold passage is the page's best match that holds an alias."""
    from corpus.pairs import read_zst, wiki_article

    articles = {}
    for row in read_zst(data / "witcher" / "wiki_characters.jsonl.zst"):
        article = wiki_article({**row, "facts": row.get("facts") or {}})
        articles[article.title] = chunk.passages(article)
    library = Library([p for passages in articles.values() for p in passages])

    def gold_of(row: dict[str, Any]) -> Passage | None:
        bearing = [p for p in articles.get(row.get("article") or row.get("page", ""), ()) if holds(p, row["answers"])]
        if not bearing:
            return None
        ranked = Library(bearing).search(row["question"], limit=1)
        return ranked[0] if ranked else bearing[0]

    return draw(rows_of(path), gold_of, library, limit, seed)


@dataclass(frozen=True)
class Outcome:
    """What a model made of one question."""

    id: str
    question: str
    answers: tuple[str, ...]
    gold: int  # -1 where the evidence was removed
    passages: tuple[tuple[str, str], ...]
    answer: str
    right: bool
    declined: bool
    sentences: int
    supported: int  # by the passage that they cite
    borne: int  # by any of the passages
    seconds: float


def as_stored(passage: Passage) -> StoredPassage:
    return StoredPassage(
        id=0, page=0, source="", title=passage.title, display_title=passage.title, path=passage.path,
        heading=passage.heading, text=passage.text, start=0, end=len(passage.text), section=0, canon=passage.canon,
        url="", revid=0, rights="", rights_url="",
    )  # fmt: skip


def ask(model: Model, question: Question, evidence: bool) -> Outcome:
    """Put one question, with or without its evidence."""
    passages = question.passages if evidence else question.silent
    read = tuple((p.heading, p.text) for p in passages)
    began = time.perf_counter()
    answer = "".join(model.stream(question.question, read, max_new_tokens=NEW_TOKENS)).strip()
    seconds = time.perf_counter() - began
    declined = not answer or answer == DECLINE or (not isinstance(model, Ours) and bool(_SILENT.search(answer)))
    stored = [as_stored(p) for p in passages]
    sentences = [] if declined else [s for s in support.split(answer)[0] if support.has_words(s)]
    supported = sum(support.check(sentence, stored).ok for sentence in sentences)
    borne = sum(any(support.supported(support.claim_of(s), p).ok for p in stored) for s in sentences)
    return Outcome(
        question.id, question.question, question.answers, question.gold if evidence else -1, read, answer,
        not declined and says(answer, question.answers), declined, len(sentences), supported, borne, seconds,
    )  # fmt: skip


def share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def figures(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    """Shares of the outcomes of one model on one set of questions."""
    there = [o for o in outcomes if o.gold >= 0]
    gone = [o for o in outcomes if o.gold < 0]
    sentences = sum(o.sentences for o in there)
    return {
        "questions": len(there),
        "accuracy": share(sum(o.right for o in there), len(there)),
        "declines, evidence removed": share(sum(o.declined for o in gone), len(gone)),
        "declines, evidence there": share(sum(o.declined for o in there), len(there)),
        "sentences supported by their citation": share(sum(o.supported for o in there), sentences),
        "sentences supported by any passage": share(sum(o.borne for o in there), sentences),
        "seconds an answer": round(sum(o.seconds for o in there) / len(there), 2) if there else None,
    }


def parameters(config: Config) -> int:
    """How many a model has, counted without memory for them."""
    import torch

    from lm.model import Cirilla

    with torch.device("meta"):
        return sum(p.numel() for p in Cirilla(config).parameters())


class Ours:
    """Cirilla as the app runs it, or another size of it with random weights, for its speed alone."""

    def __init__(self, folder: Path, preset: str = "", int8: bool = True) -> None:
        import torch

        from lm import files, quantize
        from lm.model import PRESETS, Cirilla
        from lm.reader import Reader
        from lm.tokenizer import Tokenizer

        if preset:
            torch.manual_seed(0)
            model = Cirilla(PRESETS[preset]).eval()
            self.reader = Reader(quantize.to_int8(model) if int8 else model, Tokenizer.load(folder / files.TOKENIZER))
        else:
            self.reader = Reader.load(folder, int8=int8)
        size = parameters(self.reader.model.config) / 1e6
        kind = "int8" if int8 else "float32"
        self.name = f"Cirilla {size:.1f} M {kind}" + (", random weights" if preset else "")
        self.preset = preset

    def stream(
        self, question: str, passages: Sequence[tuple[str, str]], *, max_new_tokens: int = NEW_TOKENS
    ) -> Iterator[str]:
        return self.reader.stream(question, passages, max_new_tokens=max_new_tokens)

    def time(self, text: str, prompt: int, new: int) -> Timing:
        """As :meth:`benchmarks.peers.Peer.time`: from nothing, and without speculation."""
        from lm import generate

        model, tokenizer = self.reader.model, self.reader.tokenizer
        ids = tokenizer.encode(text)[:prompt]
        began = time.perf_counter()
        tokens = generate.stream(model, ids, max_new_tokens=min(new + 1, model.config.max_length - len(ids)))
        next(tokens)
        first = time.perf_counter()
        count = sum(1 for _ in tokens)
        return Timing(first - began, count / (time.perf_counter() - first))

    def copying(self, questions: Sequence[Question]) -> dict[str, float | None]:
        """Tokens a second while answering for real, with and without prompt-lookup speculation."""
        from lm import chat, generate

        model, tokenizer, out = self.reader.model, self.reader.tokenizer, {}
        drafted = total = 0
        for name, lookup in (("plain", 0), ("speculative", generate.LONGEST_DRAFT)):
            count, seconds = 0, 0.0
            for question in questions:
                read = [(p.heading, p.text) for p in question.passages]
                budget = model.config.max_length - NEW_TOKENS
                prompt = chat.render(tokenizer, read, [("user", question.question)], budget=budget)
                tokens = generate.stream(model, prompt, max_new_tokens=NEW_TOKENS, stop=self.reader.stop, lookup=lookup)
                if next(tokens, None) is None:
                    continue
                began = time.perf_counter()
                rest = list(tokens)
                seconds += time.perf_counter() - began
                count += len(rest)
                if lookup:
                    drafted, total = drafted + sum(t.speculated for t in rest), total + len(rest)
            out[f"{name} tokens/s"] = round(count / seconds, 1) if count else None
        return out | {"share speculated": share(drafted, total)}


def best(runs: Sequence[Timing]) -> dict[str, float]:
    """The best of several runs: whatever else the machine does can only slow one down."""
    return {
        "first token, ms": round(1000 * min(run.first for run in runs), 1),
        "tokens/s": round(max(run.rate for run in runs), 1),
    }


def timings(models: Sequence[Ours | Peer], text: str, repeats: int, prompt: int, new: int) -> dict[str, dict]:
    """First token and tokens a second of all models, taken in turns so that a busy minute hits all of them."""
    runs: dict[str, list[Timing]] = {model.name: [] for model in models}
    for _ in range(repeats):
        for model in models:
            runs[model.name].append(model.time(text, prompt, new))
    return {name: best(timed) for name, timed in runs.items()}


def choose_prompt(peer: Peer, questions: Sequence[Question]) -> dict[str, float | None]:
    """Set the peer's best prompt; the accuracy of each."""
    scores: dict[str, float | None] = {}
    for prompt in PROMPTS[peer.key]:
        peer.prompt = prompt
        outcomes = [ask(peer, question, evidence=True) for question in questions]
        scores[prompt.__name__] = figures(outcomes)["accuracy"]
        progress(f"{peer.name}, {prompt.__name__}: {scores[prompt.__name__]}")
    peer.prompt = max(PROMPTS[peer.key], key=lambda prompt: scores[prompt.__name__] or 0.0)
    return scores


def highest_memory() -> float:
    """The most memory that this process has had resident at any time, in megabytes."""
    status = Path("/proc/self/status")
    if status.exists():  # the other way counts, in a new process, the memory of the one that started it
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return round(int(found[1]) * 1024 / 1e6, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def peak_memory(folder: Path, questions: Sequence[Question]) -> float:
    """Megabytes that a fresh process of its own needs at most to load the reader and answer a few questions."""
    tell = (
        "import json, sys\n"
        "from benchmarks.lm import highest_memory\n"
        "from lm.reader import Reader\n"
        "reader = Reader.load(sys.argv[1])\n"
        "for question, passages in json.load(sys.stdin):\n"
        "    ''.join(reader.stream(question, passages))\n"
        "print(highest_memory())\n"
    )
    asked = [(q.question, [(p.heading, p.text) for p in q.passages]) for q in questions]
    command = [sys.executable, "-c", tell, str(folder)]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout)


@dataclass
class Report:
    """Everything measured, as it goes into the JSON file."""

    threads: int
    speed: dict[str, dict] = field(default_factory=dict)
    answers: dict[str, dict[str, dict]] = field(default_factory=dict)  # set, model, figures
    prompts: dict[str, dict] = field(default_factory=dict)  # accuracy of the prompts that a peer could choose from
    peak_memory_mb: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, dict[str, list[dict]]] = field(default_factory=dict)


def table(report: Report) -> str:
    """The report for a reader, in Markdown."""
    lines: list[str] = []
    names = list(dict.fromkeys(name for row in report.speed.values() for name in row))
    if names:
        lines += [f"**Speed**, {report.threads} threads", ""]
        lines += ["| model | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for model, row in report.speed.items():
        lines.append(f"| {model} | " + " | ".join(str(row.get(name, "–")) for name in names) + " |")
    for title, by_model in report.answers.items():
        columns = list(next(iter(by_model.values()), {}))
        lines += [
            "",
            f"**{title}**",
            "",
            "| model | " + " | ".join(columns) + " |",
            "| --- |" + " ---: |" * len(columns),
        ]
        for model, row in by_model.items():
            lines.append(f"| {model} | " + " | ".join(shown(name, row[name]) for name in columns) + " |")
    for what, megabytes in report.peak_memory_mb.items():
        lines += ["", f"Peak memory, {what}: {megabytes:,.0f} MB"]
    return "\n".join(lines)


def shown(name: str, value: Any) -> str:
    if value is None:
        return "–"
    return str(value) if name in ("questions", "seconds an answer") else f"{100 * value:.1f} %"


def samples(outcomes: Sequence[Outcome]) -> str:
    """Unedited questions, passages and answers for the model card, in Markdown."""
    parts = []
    for number, o in enumerate(outcomes, 1):
        verdict = "right" if o.right else "declined" if o.declined else "wrong"
        wanted = "to decline" if o.gold < 0 else o.answers[0]
        if o.gold < 0:
            verdict = "right" if o.declined else "wrong"
        parts.append(f"### {number}. {o.question}\n\n**{o.answer or '(nothing)'}**\n\n{verdict}; expected: {wanted}\n")
        for n, (heading, text) in enumerate(o.passages, 1):
            mark = " (holds the answer)" if n - 1 == o.gold else ""
            parts.append(f"> [{n}] *{heading}*{mark}: {' '.join(text.split())}\n>")
        parts[-1] = parts[-1].removesuffix("\n>") + "\n"
    return "\n".join(parts)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "cirilla")
    parser.add_argument("--preset", default="", help="time this size with random weights too, e.g. cirilla")
    parser.add_argument("--peers", default=",".join(NAMES), help="comma-separated; empty: none")
    parser.add_argument("--questions", type=Path, default=ROOT / "corpus/questions/dev.jsonl")
    parser.add_argument("--wiki", type=Path, default=ROOT / "benchmarks/questions/wiki-dev.jsonl")
    parser.add_argument("--data", type=Path, help="folder with witcher/; without it there are no wiki questions")
    parser.add_argument("--limit", type=int, default=300, help="questions of each kind")
    parser.add_argument("--choose", type=int, default=20, help="training questions to choose a peer's prompt with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="timings, of which the best counts")
    parser.add_argument("--prompt-tokens", type=int, default=800)
    parser.add_argument("--skip", default="", help="what to leave out: speed, answers, removed, memory, ours")
    parser.add_argument("--samples", type=int, default=0, help="write so many questions, passages and answers")
    parser.add_argument("--to", type=Path, default=Path("runs/samples.md"), help="where the samples go")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    skip = set(args.skip.split(","))

    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    import torch

    torch.set_num_threads(args.threads)
    report = Report(args.threads)
    sets: dict[str, list[Question]] = {}
    if args.limit and args.questions.exists():
        sets[CODEX] = codex_questions(args.questions, args.limit)
    if args.limit and args.data and args.wiki.exists():
        sets["wiki dev"] = wiki_questions(args.wiki, args.data, args.limit)
    every = [question for questions in sets.values() for question in questions]
    models: list[Ours | Peer] = [] if "ours" in skip else [Ours(args.weights)]
    models += [Peer(key, args.threads) for key in args.peers.split(",") if key]

    if "speed" not in skip:
        sized = [Ours(args.weights, args.preset)] if args.preset else []
        text = "\n\n".join(page.html for _, page in zip(range(20), codex.load(), strict=False))
        report.speed = timings([*models, *sized], text, args.repeats, args.prompt_tokens, NEW_TOKENS)
        for model in models:
            if isinstance(model, Ours) and every:
                report.speed[model.name] |= model.copying(every[:20])
        progress(table(report))
    if "memory" not in skip and "ours" not in skip and every:
        report.peak_memory_mb["a process that loads Cirilla and answers"] = peak_memory(args.weights, every[:5])
        report.peak_memory_mb["this process, with all models"] = highest_memory()

    if "answers" not in skip:
        practice = codex_questions(ROOT / "corpus/questions/train.jsonl", args.choose, seed=1)
        for model in models:
            if isinstance(model, Peer) and practice:
                report.prompts[model.name] = choose_prompt(model, practice)
    kept: list[Outcome] = []
    for title, questions in sets.items() if "answers" not in skip else ():
        report.answers[title], report.outcomes[title] = {}, {}
        for model in models:
            outcomes = []
            for number, question in enumerate(questions, 1):
                outcomes.append(ask(model, question, evidence=True))
                if "removed" not in skip:
                    outcomes.append(ask(model, question, evidence=False))
                if number % 25 == 0:
                    progress(f"{title}, {model.name}: {number} of {len(questions)}, {figures(outcomes)}")
            report.answers[title][model.name] = figures(outcomes)
            report.outcomes[title][model.name] = [asdict(o) | {"passages": None} for o in outcomes]
            # Samples are published: of the codex, which is ours, and of no other wiki's passages.
            if isinstance(model, Ours) and title == CODEX:
                kept += outcomes
    print(table(report))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if args.samples:
        # Some of every kind, by chance and not by merit; one in five without evidence.
        rng = random.Random(0)
        there, gone = [o for o in kept if o.gold >= 0], [o for o in kept if o.gold < 0]
        without = min(len(gone), args.samples // 5)
        drawn = rng.sample(there, min(len(there), args.samples - without)) + rng.sample(gone, without)
        args.to.parent.mkdir(parents=True, exist_ok=True)
        args.to.write_text(samples(drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
