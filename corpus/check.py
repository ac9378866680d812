"""Checks the codex against its house rules: ``python -m corpus.check``.

Every article is read by itself (front matter, headings, length, wording), then all of them together (titles, aliases,
links, facts that contradict each other), then against reference pages whose wording must not have been carried over.
The reference pages are no part of the project; without ``--wiki`` that last check is skipped, and says so.
"""

from __future__ import annotations

import argparse
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from corpus import canon, codex
from corpus.chunk import sentences
from corpus.errors import CorpusError
from corpus.overlap import fold, reference_pages, shared_runs

REQUIRED = ("title", "kind", "canon", "facts", "sources")
KNOWN_FIELDS = {*REQUIRED, "aliases", "related"}
SHORTEST = 80  # words of an article's body
# The keys of corpus/codex/README.md, and what follows from them.
_KEYS = """race, gender, born, died, age, eyes, hair, title, profession, affiliation, mother, father, parents, children,
siblings, husband, wife, lovers, grandmother, horse, swords, first appearance, actor, voice, location, capital, ruler,
language, founded, founder, members, leader, headquarters, weakness, oil, sign, bomb, susceptibility, class, occurrence,
creator, author, published, released, developer, publisher, platforms, composer, ingredients, effect, duration,
toxicity, brewed from, giver, region, level, reward, outcome, date, victor, belligerents, commanders, cast, roles,
owner, spouse, grandfather"""
FACT_KEYS = frozenset(" ".join(key.split()) for key in _KEYS.split(","))
FILLER = re.compile(
    r"\bin the (?:world|universe) of the witcher\b|\bthe witcher (?:universe|franchise|world)\b|\bfans? of the\b"
    r"|\bit is (?:worth noting|important to note)\b|\bworth (?:noting|mentioning)\b|\bneedless to say\b|\biconic\b"
    r"|\bbeloved by (?:fans|readers|players)\b|\brich tapestry\b|\bplays an? (?:crucial|pivotal|vital|key) role\b",
    re.I,
)
AMERICAN = re.compile(
    r"\b(?:colors?|colored|colorful|honor(?:s|ed|able)?|armor(?:s|ed)?|favorites?|gray|center(?:s|ed)?|defense|offense"
    r"|travel(?:ed|er|ers|ing)|jewelry|neighbor(?:s|ing)?|rumors?|theater|skillful|harbors?|behavior|marvelous|plow"
    r"|practiced|canceled|leveled|labeled|counselors?)\b"
)
_PRONOUN = re.compile(r"(?:He|She|It|They|His|Her|Its|Their)\b")
_LOOSELY = re.compile(r"\b(?:adopt|foster|step|half|claim|alleged|false|possibl|former|later)", re.I)


@dataclass(order=True)
class Finding:
    """One thing to mend; ``error`` findings fail the check."""

    path: str
    line: int
    error: bool = field(compare=False)
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'error' if self.error else 'warning'}: {self.message}"


@dataclass(slots=True)
class Entry:
    """An article as the checks see it."""

    path: str
    kind: str  # its folder
    matter: codex.FrontMatter
    parts: list[codex.Part]
    title: str
    facts: dict[str, list[tuple[str, int, str]]]  # key → (value, line, canon)

    @property
    def paragraphs(self) -> Iterator[tuple[int, str]]:
        """(line, plain text) of every block of the body."""
        for part in self.parts:
            for block in part.blocks:
                yield block.line, codex.plain(" ".join(block.lines))

    @property
    def words(self) -> int:
        return sum(len(text.split()) for _, text in self.paragraphs)


def slug(title: str) -> str:
    """File name that a title asks for: lower-case ASCII with hyphens, apostrophes dropped."""
    plain = unicodedata.normalize("NFKD", title.replace("ł", "l").replace("Ł", "L")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"['’]", "", plain.casefold())).strip("-")


class Checker:
    """Collects findings over a folder of articles."""

    def __init__(self, folder: Path, strict: bool = False) -> None:
        self.folder = folder
        self.strict = strict
        self.findings: list[Finding] = []
        self.entries: list[Entry] = []
        self.names: dict[str, Entry] = {}  # folded title or alias → its article
        self._read = 0

    def add(self, path: str, line: int, message: str, error: bool = True) -> None:
        self.findings.append(Finding(path, line, error, message))

    def run(self) -> None:
        """Every check that needs nothing but the codex."""
        paths = codex.files(self.folder)
        if not paths:
            self.add(str(self.folder), 1, "no articles found")
        for path in paths:
            try:
                page = codex.read(path)
                matter, body, line = codex.split(page.html, str(path))
                parts = codex.parts(body, line, str(path))
            except codex.CodexError as problem:
                self.add(problem.where, problem.line, problem.problem)
                continue
            facts: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
            for written, value in matter.facts:
                key, tag = codex.fact_key(written)
                facts[key] += [(codex.plain(item), value.line, tag) for item in value.items]
            self.entries.append(Entry(str(path), path.parent.name, matter, parts, page.title, dict(facts)))
        for entry in self.entries:
            self._front_matter(entry)
            self._body(entry)
        self._names()
        for entry in self.entries:
            self._related(entry)
            self._relations(entry)

    def _front_matter(self, entry: Entry) -> None:
        matter = entry.matter
        for name in REQUIRED:
            if name not in matter.fields or not (matter.many(name) or (name == "facts" and matter.facts)):
                self.add(entry.path, matter.fields[name].line if name in matter.fields else 1, f"'{name}' is missing")
        for name, value in matter.fields.items():
            if name not in KNOWN_FIELDS:
                self.add(entry.path, value.line, f"unknown field '{name}'", error=False)
        kind, line = matter.one("kind"), matter.fields["kind"].line if "kind" in matter.fields else 1
        if kind and kind not in codex.KINDS:
            self.add(entry.path, line, f"unknown kind '{kind}'; it is one of {', '.join(codex.KINDS)}")
        elif kind and kind != entry.kind:
            self.add(entry.path, line, f"kind '{kind}' in the folder '{entry.kind}'")
        for tag in matter.many("canon"):
            if tag not in codex.CANONS:
                self.add(entry.path, matter.fields["canon"].line, f"unknown canon '{tag}'")
        if Path(entry.path).stem != slug(entry.title):
            self.add(entry.path, 1, f"the file should be named '{slug(entry.title)}.md'", error=False)
        for written, value in matter.facts:
            key, _ = codex.fact_key(written)
            if key not in FACT_KEYS:
                self.add(entry.path, value.line, f"unusual fact key '{written}'", error=False)
            if not value.items:
                self.add(entry.path, value.line, f"the fact '{written}' has no value")
            for item in value.items:
                if len(item.split()) > 30:
                    self.add(entry.path, value.line, f"the fact '{written}' is long; facts are short", error=False)

    def _body(self, entry: Entry) -> None:
        covers = entry.matter.many("canon")
        if entry.words < SHORTEST:
            self.add(entry.path, entry.parts[0].line, f"only {entry.words} words; an article has at least {SHORTEST}")
        lead = entry.parts[0]
        if not lead.blocks:
            self.add(entry.path, lead.line, "no lead before the first heading")
        elif sum(len(sentences(codex.plain(" ".join(b.lines)))) for b in lead.blocks) > 4 and len(entry.parts) > 1:
            self.add(entry.path, lead.line, "the lead has more than three or four sentences", error=False)
        level = 1
        for part in entry.parts[1:]:
            if part.level == 1 or (level == 1 and part.level != 2):
                self.add(entry.path, part.line, f"headings start at '##': {part.heading!r}")
            elif part.level > level + 1:
                self.add(entry.path, part.line, f"heading {part.heading!r} skips a level", error=False)
            level = max(part.level, 2)
            if part.canon and covers and part.canon not in covers:
                self.add(entry.path, part.line, f"the heading's canon '{part.canon}' is not among the article's")
            implied = canon.of_heading(part.heading)
            if implied and part.canon is None and len(covers) > 1 and part.level == 2:
                message = f"heading {part.heading!r} looks like '{implied}' but has no {{canon={implied}}}"
                self.add(entry.path, part.line, message, error=False)
        headed: list[codex.Part | None] = [*entry.parts[1:], None]
        for each, following in pairwise(headed):
            if each and not each.blocks and (following is None or following.level <= each.level):
                self.add(entry.path, each.line, f"nothing under the heading {each.heading!r}")
        for line, text in entry.paragraphs:
            if match := FILLER.search(text):
                self.add(
                    entry.path, line, f"filler: {match[0]!r}", error=match[0].casefold().endswith("of the witcher")
                )
            if match := AMERICAN.search(text):
                self.add(entry.path, line, f"American spelling: {match[0]!r}", error=False)
            if match := _PRONOUN.match(text):
                self.add(entry.path, line, f"a paragraph begins with {match[0]!r}: name its subject", error=False)

    def _names(self) -> None:
        titles: dict[str, Entry] = {}
        for entry in self.entries:
            # A bracket tells articles of one name apart ("The Witcher (game)"), so titles are compared with it.
            name = fold(entry.title.replace("(", " ").replace(")", " "))
            if name in titles:
                self.add(entry.path, 1, f"the title '{entry.title}' is also that of {titles[name].path}")
            titles.setdefault(name, entry)
        aliases: dict[str, Entry] = {}
        for entry in self.entries:
            own = set()
            for alias in entry.matter.many("aliases"):
                name, line = fold(alias.replace("(", " ").replace(")", " ")), entry.matter.fields["aliases"].line
                if titles.get(name) is entry or name in own:
                    if alias.casefold() == entry.title.casefold() or name in own:
                        self.add(entry.path, line, f"the alias '{alias}' says nothing new", error=False)
                elif name in titles:
                    self.add(entry.path, line, f"the alias '{alias}' is the title of {titles[name].path}")
                elif name in aliases:
                    self.add(entry.path, line, f"the alias '{alias}' is also one of {aliases[name].path}")
                own.add(name)
                aliases.setdefault(name, entry)
        self.names = {**aliases, **titles}

    def find(self, name: str) -> Entry | None:
        """The article that a fact's value names, with or without its remarks: "Ciri (adopted)", "Duny, later Emhyr"."""
        whole = fold(name.replace("(", " ").replace(")", " "))
        return self.names.get(whole) or self.names.get(fold(name)) or self.names.get(fold(re.split(r"[,;]", name)[0]))

    def _related(self, entry: Entry) -> None:
        for title in entry.matter.many("related"):
            line, other = entry.matter.fields["related"].line, self.find(title)
            if other is None:
                self.add(entry.path, line, f"related: there is no article '{title}'", error=self.strict)
            elif other is entry:
                self.add(entry.path, line, "related: an article is not related to itself", error=False)
            elif other.title != title:
                self.add(entry.path, line, f"related: '{title}' is titled '{other.title}'", error=False)

    def _relations(self, entry: Entry) -> None:
        """Compare what this article says of another with what that one says of it, in the same canon."""
        for key, backs in RELATIONS.items():
            for value, line, tag in entry.facts.get(key, ()):
                other = self.find(value)
                if other is None or other is entry:
                    continue
                expected = backs
                if key == "children":
                    # Only the parent of this sex is contradicted by another name under 'father' or 'mother'.
                    gender = " ".join(v for v, _, _ in entry.facts.get("gender", ())).casefold()
                    expected = {"male": ("father", "parents"), "female": ("mother", "parents")}.get(gender, backs)
                stated = [
                    (v, n) for back in expected for v, n, t in other.facts.get(back, ()) if not (t and tag and t != tag)
                ]
                if any(self.find(v) is entry or fold(v) == fold(entry.title) for v, _ in stated):
                    continue
                names = "/".join(expected)
                # Without a gender, one parent named by the child may well be the other one.
                unsure = key == "lovers" or (key == "children" and expected is backs and len(stated) < 2)
                if stated and not unsure and not _LOOSELY.search(value):
                    said = ", ".join(f"'{v}'" for v, _ in stated)
                    message = f"{key}: '{value}', but {other.path}:{stated[0][1]} gives {names} as {said}"
                    self.add(entry.path, line, message)
                elif key not in ONE_WAY:
                    message = f"{key}: '{value}', but {other.path} has no {names} saying so"
                    self.add(entry.path, line, message, error=False)

    def wording(self, pages: Iterable[dict[str, Any]]) -> int:
        """Add an error for every run of words that an article shares with a page; how many pages were compared."""
        texts = []
        for entry in self.entries:
            texts += [(entry.path, line, text) for line, text in entry.paragraphs]
            texts += [(entry.path, line, value) for values in entry.facts.values() for value, line, _ in values]
        found, count = shared_runs([text for _, _, text in texts], pages, set(self.names))
        for number, run, title in found:
            path, line, _ = texts[number]
            self.add(path, line, f"{len(run)} words shared with '{title}': {' '.join(run)!r}")
        return count


# fact → the facts of the other article that must name this one
RELATIONS: dict[str, tuple[str, ...]] = {
    "father": ("children",),
    "mother": ("children",),
    "parents": ("children",),
    "children": ("father", "mother", "parents"),
    "siblings": ("siblings",),
    "husband": ("wife", "spouse", "husband"),
    "wife": ("husband", "spouse", "wife"),
    "spouse": ("spouse", "husband", "wife"),
    "swords": ("owner",),
    "horse": ("owner",),
    "actor": ("roles",),
    "roles": ("actor", "voice"),
    "lovers": ("lovers", "husband", "wife", "spouse"),
}
ONE_WAY = frozenset(["swords", "horse", "actor", "roles"])  # where the other side often goes without saying


def summary(checker: Checker) -> str:
    """Articles and words per kind, and in all."""
    rows = defaultdict(list)
    for entry in checker.entries:
        rows[entry.kind].append(entry.words)
    lines = [f"{kind:<10} {len(rows[kind]):>5} articles {sum(rows[kind]):>8,} words" for kind in sorted(rows)]
    every = [count for counts in rows.values() for count in counts]
    return "\n".join([*lines, f"{'total':<10} {len(every):>5} articles {sum(every):>8,} words"])


def main(arguments: list[str] | None = None) -> int:
    """Run the checks and print findings and summary; 0 if there was no error, 1 if there was, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m corpus.check", description="Check the codex's articles.")
    parser.add_argument("--folder", type=Path, default=codex.FOLDER, help="folder of articles (default: the codex)")
    parser.add_argument(
        "--wiki",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="reference pages (JSON lines, .zst or plain) whose wording must not recur",
    )
    parser.add_argument("--strict", action="store_true", help="links to articles that do not exist are errors")
    parser.add_argument("--errors-only", action="store_true", help="do not list warnings")
    options = parser.parse_args(arguments)
    folder = options.folder
    if folder.is_absolute() and folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())  # shorter to read, and clickable
    checker = Checker(folder, options.strict)
    try:
        checker.run()
        compared = checker.wording(reference_pages(options.wiki)) if options.wiki else 0
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 2
    for finding in sorted(checker.findings):
        if finding.error or not options.errors_only:
            print(finding)
    errors = sum(finding.error for finding in checker.findings)
    print(summary(checker))
    if options.wiki:
        print(f"wording compared with {compared} reference pages")
    else:
        print("SKIPPED: wording was not compared with any reference pages (give them with --wiki FILE)")
    print(f"{errors} errors, {len(checker.findings) - errors} warnings")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
