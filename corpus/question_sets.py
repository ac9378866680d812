"""The questions over the codex, ``corpus/questions/{train,dev,test}.jsonl``: imported, checked, sampled.

    python -m corpus.question_sets import FILE…       take in questions written in the compact format
    python -m corpus.question_sets check [--strict]   every rule that a question set must keep
    python -m corpus.question_sets check --fix        … and follow evidence that moved within its article
    python -m corpus.question_sets sample             random rows with their evidence, for a second pair of eyes

``corpus/question_format.py`` describes the rows, and the compact format that they are written in by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rapidfuzz import fuzz, process

from corpus import codex, question_format
from corpus.check import Finding
from corpus.errors import CorpusError
from corpus.question_format import Evidence, Library, Rejected, Row, folded, holds, parse_row
from corpus.split import Split, split_of

FOLDER = Path(__file__).parent / "questions"
SPLITS: tuple[Split, ...] = get_args(Split)
TYPES = (
    *("who", "what", "where", "when", "why", "how", "how many", "list", "yes/no", "comparison", "multi-hop"),
    *("definition", "relation"),
)
OPEN_TYPES = frozenset(["yes/no", "why", "how", "comparison"])  # their answers need not stand in the evidence
REASONS = ("other universe", "real world", "nonsense", "false premise", "injection", "personal", "unanswerable")
MINIMUM = {"pairs": 6000, "conversations": 500, "declines": 900}
TURNS = range(2, 5)  # of a conversation
ALIKE = 95  # rapidfuzz's score from which two wordings are one question

_OPEN_QUESTION = re.compile(r"\bwhy\b|\bhow\b(?! (?:many|much|old|tall|big|long|far|often)\b)|\bcompar|\bdiffer", re.I)
_DANGLING = re.compile(
    r"(?:(?:and|but|so|then|ok|also)\W+)*"
    r"(?:(?:who|what|where|when|why|how|which|is|was|are|were|do|does|did|has|have|had|can|could|will|would)"
    r"(?:['’]s)?\s+)*"
    r"(?:he|she|it(?! (?:true|possible|worth|safe|better)\b)|they|him|her|them|his|hers|its|their|this|these)\b",
    re.I,
)


def kind_of(row: Row) -> str:
    """A row's heading in ``MINIMUM``."""
    return "conversations" if "turns" in row else "declines" if row.get("decline") else "pairs"


def evidences(row: Row) -> list[Evidence]:
    return [one for part in row.get("turns", [row]) for one in part.get("evidence", [])]


def split_for(row: Row) -> Split:
    """The split that a row belongs to.  Raises Rejected where its articles are in different ones."""
    named = {part["article"] for part in row.get("turns", [row]) if "article" in part}
    named |= {one["article"] for one in evidences(row)}
    splits = {split_of(title): title for title in sorted(named)} or {split_of(row["question"]): ""}
    if len(splits) > 1:
        told = ", ".join(f"'{title}' in {split}" for split, title in sorted(splits.items()))
        raise Rejected(f"its articles are in different splits: {told}")
    return next(iter(splits))


def faults(row: Row) -> Iterator[str]:
    """What is wrong with a row by itself, its evidence taken as given."""
    if "turns" in row:
        if len(row["turns"]) not in TURNS:
            yield f"a conversation has {TURNS[0]} to {TURNS[-1]} turns, not {len(row['turns'])}"
        for turn in row["turns"]:
            free = turn["answers"][:1] in (["yes"], ["no"]) or _OPEN_QUESTION.search(turn["rewrite"])
            yield from _answer_faults(turn, bool(free))
    elif row.get("decline"):
        if row["reason"] not in REASONS:
            yield f"unknown reason '{row['reason']}'; it is one of {', '.join(REASONS)}"
        if row["reason"] == "false premise" and "correction" not in row:
            yield "a false premise needs its correction, with evidence"
        if not row["question"].strip() or not row.get("correction", "-").strip():
            yield "the question or its correction is empty"
    else:
        if row["type"] not in TYPES:
            yield f"unknown type '{row['type']}'; it is one of {', '.join(TYPES)}"
        if row["canon"] not in ("", *codex.CANONS):
            yield f"unknown canon '{row['canon']}'; it is one of {', '.join(codex.CANONS)}"
        if row["type"] == "yes/no" and row["answers"][:1] not in (["yes"], ["no"]):
            yield "the first alias of a yes/no question is 'yes' or 'no'"
        if row["type"] == "multi-hop" and len({one["article"] for one in row["evidence"]}) != 2:
            yield "a multi-hop question has evidence from two articles"
        yield from _answer_faults(row, row["type"] in OPEN_TYPES)
    try:
        split_for(row)
    except Rejected as error:
        yield str(error)


def _answer_faults(part: Row, free: bool) -> Iterator[str]:
    texts = [one["text"] for one in part["evidence"]]
    if not all(part.get(name, "-").strip() for name in ("question", "rewrite", "answer")):
        yield "the question, its rewrite or its answer is empty"
    if not part["answers"] or not all(folded(alias).strip() for alias in part["answers"]):
        yield "there is no answer alias, or one without letters and digits"
    elif not free and not any(holds(texts, alias) for alias in part["answers"]):
        yield f"no alias of {part['question']!r} stands in its evidence: {'; '.join(part['answers'])} – {texts}"


@dataclass(slots=True)
class Entry:
    """A row with the place it was read from, and the split it belongs to."""

    path: str
    line: int
    split: Split
    row: Row

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Ask:
    """A stand-alone wording with its answers, for finding questions that were asked before."""

    entry: int
    kind: str
    split: Split
    words: str
    answers: frozenset[str]
    article: str
    canon: str


def _asks(number: int, entry: Entry) -> Iterator[Ask]:
    kind = kind_of(entry.row)
    for part in entry.row.get("turns", [entry.row]):
        # Declining is an answer too, the same for all: folded aliases are never empty.
        answers = frozenset(map(folded, part.get("answers", []))) or frozenset([""])
        words = folded(part.get("rewrite", part["question"]))
        yield Ask(number, kind, entry.split, words, answers, part.get("article", ""), part.get("canon", ""))


def _alike(asks: list[Ask], scorer: Any) -> Iterator[tuple[Ask, Ask]]:
    if len(asks) > 1:
        words = [ask.words for ask in asks]
        scores = process.cdist(words, words, scorer=scorer, score_cutoff=ALIKE, dtype=np.uint8)
        for a, b in np.argwhere(np.triu(scores, 1)).tolist():
            yield asks[a], asks[b]


def clashes(entries: list[Entry]) -> list[tuple[int, int, str]]:
    """Rows that ask what an earlier one asks: (index of the later, of the earlier, what is wrong), in order.

    A turn of a conversation may ask what a pair asks, if it gets the same answer and is in the same split.
    """
    asks = [ask for number, entry in enumerate(entries) for ask in _asks(number, entry)]
    found: dict[tuple[int, int], str] = {}

    def add(a: Ask, b: Ask, message: str) -> None:
        if a.entry != b.entry:
            found.setdefault((max(a.entry, b.entry), min(a.entry, b.entry)), message)

    same: dict[str, list[Ask]] = defaultdict(list)
    within: dict[tuple[str, str, str], list[Ask]] = defaultdict(list)
    answered: dict[str, list[Ask]] = defaultdict(list)
    for ask in asks:
        for other in same[ask.words]:
            if not ask.answers & other.answers:
                add(ask, other, "the same question has another answer")
            elif "conversations" not in (ask.kind, other.kind):
                add(ask, other, "the same question")
        same[ask.words].append(ask)
        for alias in ask.answers:
            answered[alias].append(ask)
            if ask.kind == "pairs":
                within[ask.article, ask.canon, alias].append(ask)
    # Within an article a question is repeated by saying more or less of it, which token_set sees; between splits that
    # would take every short question for part of a longer one, so there the whole wording must agree.
    for block in within.values():
        for a, b in _alike(block, fuzz.token_set_ratio):
            add(a, b, "nearly the same question")
    for block in answered.values():
        for a, b in _alike(block, fuzz.token_sort_ratio):
            if a.split != b.split:
                add(a, b, "nearly the same question in another split")
            elif a.kind == b.kind == "declines":
                add(a, b, "nearly the same question")
    return [(later, earlier, message) for (later, earlier), message in sorted(found.items())]


def load(folder: Path) -> tuple[list[Entry], list[Finding]]:
    """The rows of the three files, and a finding for every line that is none.  A file that is missing has no rows.

    Raises CorpusError if a file cannot be read.
    """
    entries, findings = [], []
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise CorpusError(f"{path}: cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    entries.append(Entry(str(path), number, split, parse_row(line)))
            except Rejected as error:
                findings.append(Finding(str(path), number, True, str(error)))
    return entries, findings


def save(folder: Path, entries: Iterable[Entry]) -> None:
    """Write the three files, each pairs first, then conversations, then declines, by article and id."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[tuple[int, str, str, str]]] = {split: [] for split in SPLITS}
    for entry in entries:
        order = list(MINIMUM).index(kind_of(entry.row))
        article = next((one["article"] for one in [entry.row, *evidences(entry.row)] if "article" in one), "")
        text = json.dumps(entry.row, ensure_ascii=False)
        rows[entry.split].append((order, article, entry.row["id"], text))
    for split, lines in rows.items():
        part = folder / f"{split}.jsonl.part"
        part.write_text("".join(f"{line[-1]}\n" for line in sorted(lines)), encoding="utf-8")
        part.replace(folder / f"{split}.jsonl")


def merge(kept: list[Entry], new: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """Stored rows with new ones added, or put in the place of those with the same id; and what was left out, and why.

    A new question that was asked before, in other words or in these, is left out.
    """
    entries, rejected = list(kept), []
    place = {entry.row["id"]: number for number, entry in enumerate(entries)}
    taken: set[int] = set()
    for entry in new:
        number = place.setdefault(entry.row["id"], len(entries))
        if number in taken:
            rejected.append(f"{entry.where}: the same question: {entries[number].where}")
            continue
        taken.add(number)
        entries[number : number + 1] = [entry]
    dropped: set[int] = set()
    for later, earlier, message in clashes(entries):
        if later in taken and not {later, earlier} & dropped:
            dropped.add(later)
            rejected.append(f"{entries[later].where}: {message}: {entries[earlier].where}")
    return [entry for number, entry in enumerate(entries) if number not in dropped], rejected


def import_files(files: Iterable[Path], folder: Path, library: Library, fresh: bool = False) -> tuple[str, list[str]]:
    """Take files of the compact format into the three files; a summary, and a line for everything left out.

    Raises CorpusError if a file cannot be read, or if stored rows are damaged, before anything is written.
    """
    kept, damaged = ([], []) if fresh else load(folder)
    if damaged:
        raise CorpusError(f"{damaged[0]}; mend it before importing, or start again with --fresh")
    new, rejected = [], []
    for path in files:
        for number, row in question_format.read(path, library):
            wrong = row if isinstance(row, str) else next(faults(row), "")
            if isinstance(row, str) or wrong:
                rejected.append(f"{path}:{number}: {wrong}")
            else:
                new.append(Entry(str(path), number, split_for(row), row))
    before = {entry.row["id"]: entry.row for entry in kept}
    entries, repeated = merge(kept, new)
    rejected += repeated
    save(folder, entries)
    added = sum(entry.row["id"] not in before for entry in entries)
    changed = sum(before.get(entry.row["id"], entry.row) != entry.row for entry in entries)
    return f"{added} rows added, {changed} changed, {len(entries)} in all; {len(rejected)} left out", rejected


def check(folder: Path, library: Library, fix: bool = False) -> tuple[list[Entry], list[Finding], int]:
    """The rows, what is wrong with them, and how many pieces of evidence were moved to their new place (``fix``)."""
    entries, findings = load(folder)
    fix = fix and not findings  # saving would lose the lines that are no rows
    findings += [Finding(problem.where, problem.line, True, problem.problem) for problem in library.problems]
    moved = 0
    ids: dict[str, Entry] = {}

    def add(entry: Entry, message: str, error: bool = True) -> None:
        findings.append(Finding(entry.path, entry.line, error, message))

    for entry in entries:
        row = entry.row
        if (first := ids.setdefault(row["id"], entry)) is not entry:
            add(entry, f"the id '{row['id']}' is that of {first.where}")
        for one in evidences(row):
            try:
                now = library.now(one)
            except Rejected as error:
                add(entry, str(error))
                continue
            if now is None:
                add(entry, f"the evidence is gone from '{one['article']}': {one['text']!r}")
            elif now is not one and not fix:
                add(entry, f"the evidence stands elsewhere in '{one['article']}' (--fix moves it): {one['text']!r}")
            elif now is not one:
                one.update(now)
                moved += 1
        wrong = list(faults(row))
        for fault in wrong:
            add(entry, fault)
        if not wrong and split_for(row) != entry.split:
            add(entry, f"it belongs to {split_for(row)}, where its article is")
        for text in [turn["rewrite"] for turn in row.get("turns", ())] or [row["question"]] * ("answers" in row):
            if _dangles(text, library):
                add(entry, f"not stand-alone: {text!r}", error=False)
    for later, earlier, message in clashes(entries):
        add(entries[later], f"{message}: {entries[earlier].where}")
    if moved:
        save(folder, entries)
    return entries, findings, moved


def _dangles(question: str, library: Library) -> bool:
    if not _DANGLING.match(question):
        return False
    named = any(word[0].isupper() and word not in ("I", "I'm") for word in question.split()[1:])
    return not named and not library.names & set(folded(question).split())


def counts(entries: list[Entry]) -> tuple[str, list[str]]:
    """A table of the rows by kind, type, canon and reason over the splits; and which minimum is not reached."""
    tally: dict[str, Counter[str]] = {name: Counter() for name in MINIMUM}
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        row, kind = entry.row, kind_of(entry.row)
        tally[kind][entry.split] += 1
        if kind == "conversations":
            kinds["  turns"][entry.split] += len(row["turns"])
        elif kind == "declines":
            kinds[f"  decline: {row['reason']}"][entry.split] += 1
        else:
            kinds[f"  canon: {row['canon'] or 'any'}"][entry.split] += 1
            kinds[f"  type: {row['type']}"][entry.split] += 1
    lines = [f"{'':<26}{''.join(f'{name:>8}' for name in (*SPLITS, 'total'))}  at least"]
    for name, numbers in [*tally.items(), *sorted(kinds.items())]:
        cells = "".join(f"{numbers[split]:>8,}" for split in SPLITS)
        least = f"{MINIMUM[name]:>10,}" if name in MINIMUM else ""
        lines.append(f"{name:<26}{cells}{numbers.total():>8,}{least}")
    short = [f"{tally[n].total():,} {n}; at least {least:,} are asked for" for n, least in MINIMUM.items()]
    return "\n".join(lines), [line for line, n in zip(short, MINIMUM, strict=True) if tally[n].total() < MINIMUM[n]]


def sample(entries: list[Entry], share: float, seed: int) -> str:
    """A random share of the rows, spelt out with their evidence; the same for the same rows and seed."""
    pool = sorted(entries, key=lambda entry: entry.row["id"])
    blocks = []
    for entry in random.Random(seed).sample(pool, math.ceil(share * len(pool))):
        row = entry.row
        label = row.get("type") or f"decline: {row['reason']}"
        lines = [f"{entry.where}  {row['id']}  {label}{' ' * bool(row.get('canon'))}{row.get('canon', '')}"]
        for part in row.get("turns", [row]):
            lines.append(f"  Q  {part['question']}")
            if "rewrite" in part:
                lines.append(f"     = {part['rewrite']}")
            if "answers" in part:
                lines.append(f"  A  {'; '.join(part['answers'])} – {part['answer']}")
            if "correction" in part:
                lines.append(f"  C  {part['correction']}")
            for one in part.get("evidence", []):
                lines.append(f"  E  {' › '.join([one['article'], *one['path']])}: {one['text']}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 if all is well, 1 if a line was left out or a rule is broken, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m corpus.question_sets", description="Questions over the codex.")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="folder of train, dev and test.jsonl")
    shared.add_argument("--codex", type=Path, default=codex.FOLDER, metavar="DIR", help="folder of articles")
    take = commands.add_parser("import", parents=[shared], help="take in files of the compact format")
    take.add_argument("files", type=Path, nargs="+", metavar="FILE")
    take.add_argument("--fresh", action="store_true", help="forget the stored rows: the files given are all there is")
    look = commands.add_parser("check", parents=[shared], help="report every broken rule, and counts")
    look.add_argument("--strict", action="store_true", help="too few rows is an error")
    look.add_argument("--fix", action="store_true", help="follow evidence that moved within its article")
    look.add_argument("--errors-only", action="store_true", help="do not list warnings")
    some = commands.add_parser("sample", parents=[shared], help="print random rows with their evidence")
    some.add_argument("--share", type=float, default=0.05, help="share of the rows, from 0 to 1 (default: 0.05)")
    some.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    folder = options.out
    if folder.is_absolute() and folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())  # shorter to read, and clickable
    try:
        if options.command == "sample":
            if not 0 <= options.share <= 1:
                raise CorpusError("--share is a number from 0 to 1")
            print(sample(load(folder)[0], options.share, options.seed))
            return 0
        library = Library(options.codex)
        if options.command == "import":
            for problem in library.problems:
                print(f"{problem} (the article is passed over)", file=sys.stderr)
            summary, rejected = import_files(options.files, folder, library, options.fresh)
            print(*rejected, summary, sep="\n")
            return 1 if rejected else 0
        entries, findings, moved = check(folder, library, options.fix)
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 2
    for finding in sorted(findings):
        if finding.error or not options.errors_only:
            print(finding)
    table, short = counts(entries)
    print(table)
    if options.fix:
        print(f"evidence moved: {moved}")
    for line in short:
        print(f"{'error' if options.strict else 'warning'}: {line}")
    errors = sum(finding.error for finding in findings) + (len(short) if options.strict else 0)
    print(f"{errors} errors, {len(findings) + len(short) - errors} warnings")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
