"""Question → passage pairs for training retrieval, from articles and from question sets.

    python -m corpus.pairs --data DIR --out runs/pairs.jsonl [--wide runs/pairs-wide.jsonl]

Every line is ``{"query", "passage", "answers", "kind"}``, the passage as retrieval sees it: heading path, line break,
text; ``answers`` are aliases and evidence that make other passages right too, which ``retrieval.mine`` needs to know.
From an article come: its title and aliases → the lead; heading path → that section; an infobox row, asked in a few
ways → the passage that spells it out; a sentence without its subject's name → the passage it stands in.  From question
sets (SQuAD and the like): question → passage.  ``--wide`` writes more of the same from far more text, for a first stage
that is cheap enough to see it all: every other world, plain English, every question set whole.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from corpus import chunk, codex, infobox
from corpus.split import split_of
from corpus.types import Article, Fact, Passage, Section

# (file, questions at most): real search queries (qed_nq, nq_open_oracle) are few and weigh most; most SQuAD questions
# only make sense beside their passage, so a third of them is enough.
QUESTION_SETS = [
    ("qed_nq.train", None),
    ("qed_nq.dev", None),
    ("nq_open_oracle.dev", None),
    ("squad1.train", 30_000),
    ("fairytaleqa.train", None),
    ("narrativeqa_summaries.test", 5_000),
    ("hotpotqa.train", None),
    ("duorc.train", None),
    ("duorc_pairs.train", None),
    ("boolq.train", None),
    ("quoref.train", None),
]

WIDE_WORLDS = [  # (file in lore/, articles at most)
    ("got_wiki", None),
    ("lotr_wiki", None),
    ("gotdict", None),
    ("wookieepedia_full", 9_000),
    ("disney_wiki_fantasy", None),
    ("disney_wiki_other", 4_000),
    ("comics_wikipedia", None),
    ("starwars_wikipedia", None),
    ("pathfinder_srd", None),
    ("open5e_srd", None),
]
WIDE_GENERAL = [("simplewiki_2022", 60_000, 400), ("enwiki_core_2015", 12_000, 700)]  # (file, articles, words of each)
WIDE_SETS = [
    *("squad1.train", "squad1.dev", "qamr.dev", "qamr.test", "adversarialqa.train", "iirc.train", "quoref.train"),
    *("quoref.dev", "narrativeqa_summaries.dev", "fairytaleqa.dev", "fairytaleqa.test", "boolq.dev", "duorc.train"),
    "hotpotqa.train",
]

ASK = [
    "who is {title}'s {key}",
    "{title} {key}",
    "what is the {key} of {title}?",
    "{key} of {title}",
    "{title}: {key}?",
]


def read_zst(path: Path) -> Iterator[dict]:
    """Rows of a JSON-lines file under zstd."""
    import zstandard

    with path.open("rb") as raw:
        stream = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(raw)
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            yield json.loads(line)


def wiki_article(row: dict) -> Article:
    """An article from a ``{"title", "facts", "text"}`` row whose headings are Markdown's ``##``."""
    sections: list[Section] = []
    path: list[str] = []
    for part in re.split(r"(?m)^(?=#{2,6} )", row["text"]):
        heading = re.match(r"(#{2,6}) (.+)\n?", part)
        if heading:
            path = [*path[: len(heading[1]) - 2], heading[2].strip()]
            part = part[heading.end() :]
        if part.strip():
            sections.append(Section(path=tuple(path), text=part.strip()))
    facts = tuple(Fact(k, k.replace("_", " "), tuple(str(v).split("; "))) for k, v in (row.get("facts") or {}).items())
    return Article(row["title"], (*sections, *infobox.facts_section(row["title"], facts)), facts)


def typo(text: str, rng: random.Random) -> str:
    """One slip of the kind people make in names: two letters swapped, one doubled or one lost."""
    places = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    if not places:
        return text
    i = rng.choice(places)
    slips = (text[:i] + text[i + 1] + text[i] + text[i + 2 :], text[:i] + text[i] + text[i:], text[:i] + text[i + 1 :])
    return rng.choice(slips)


def article_pairs(article: Article, rng: random.Random) -> Iterator[dict]:
    """Pairs from one article, about two a passage."""

    def pair(query: str, passage: Passage, kind: str, answers: Iterable[str] = ()) -> dict:
        if rng.random() < 0.3:
            query = query.lower()
        if rng.random() < 0.1:
            query = typo(query, rng)
        text = f"{passage.heading}\n{passage.text}"
        return {"query": query, "passage": text, "answers": list(answers), "kind": kind}

    passages = chunk.passages(article)
    if not passages:
        return
    for name in (article.title, *article.aliases):
        query = rng.choice(["who is {}?", "what is {}?", "{}", "tell me about {}"]).format(name)
        yield pair(query, passages[0], "title")
    for passage in passages:
        if passage.path == ("Facts",):
            for fact in article.facts:
                if any(value in passage.text for value in fact.values):
                    query = rng.choice(ASK).format(title=article.title, key=fact.label.lower())
                    yield pair(query, passage, "fact", fact.values)
            continue
        if passage.path:
            yield pair(f"{article.title} {passage.path[-1]}", passage, "heading")
        spans = [s for s in chunk.sentences(passage.text) if 40 < s[1] - s[0] < 200]
        for start, end in rng.sample(spans, min(len(spans), 2)):
            # Half of a sentence's words, in order: overlap enough to be findable, too little to match by words alone.
            tokens = passage.text[start:end].split()
            query = " ".join(w for w in tokens if rng.random() < 0.5)
            if len(query.split()) >= 4:
                rest = (passage.text[:start] + passage.text[end:]).strip()
                evidence = [passage.text[start:end]]
                if len(rest) > 80 and rng.random() < 0.5:  # inverse cloze task (Lee et al. 2019): the sentence is gone
                    yield {**pair(query, passage, "cloze", evidence), "passage": f"{passage.heading}\n{rest}"}
                else:
                    yield pair(query, passage, "sentence", evidence)


def question_pairs(folder: Path, name: str, limit: int | None, rng: random.Random) -> list[dict]:
    rows = [r for r in read_zst(folder / f"{name}.jsonl.zst") if r.get("answerable", True) and r.get("context")]
    rng.shuffle(rows)
    pairs = []
    for row in rows[:limit]:
        text = " ".join(row["context"].split()[:200])
        title = row.get("title") or ""
        query = row["question"].lower() if rng.random() < 0.3 else row["question"]
        answers = [a for a in row.get("answers") or [] if a.lower() not in ("yes", "no")]  # those stand everywhere
        passage = f"{title}\n{text}" if title else text
        pairs.append({"query": query, "passage": passage, "answers": answers, "kind": name})
    return pairs


def codex_question_pairs(questions: Path, folder: Path, rng: random.Random) -> list[dict]:
    """Train questions over the codex, each with the passages that hold its evidence; few and ours, so three times."""
    by_place: dict[str, list[Passage]] = {}
    for page in codex.load(folder):
        article = codex.parse_page(page)
        by_place[article.title] = chunk.passages(article)
    pairs = []
    for line in questions.open(encoding="utf-8"):
        row = json.loads(line)
        turns = row.get("turns") or [row]
        for turn in turns:
            answers = [*turn.get("answers", []), *(e["text"] for e in turn.get("evidence", []))]
            for e in turn.get("evidence", []):
                for p in by_place.get(e["article"], []):
                    if p.section == e["section"] and p.start <= e["start"] < p.end:
                        query, text = turn.get("rewrite") or turn["question"], f"{p.heading}\n{p.text}"
                        pairs.append({"query": query, "passage": text, "answers": answers, "kind": "codex questions"})
    return pairs * 3


def wiki_evidence(page: dict, article: Article, evidence: dict) -> str:
    """What a question's evidence says: offsets ``{"start", "end"}`` in the page's text, or ``{"fact": key}``."""
    if "fact" in evidence:
        return infobox.fact_line(article.title, next(f for f in article.facts if f.key == evidence["fact"]))
    return page["text"][evidence["start"] : evidence["end"]].strip()


def wiki_question_pairs(questions: Path, pages: Iterable[dict]) -> list[dict]:
    """Train questions over wiki pages, each with the passages that hold its evidence; three times, like the codex's."""
    asked: dict[str, list[dict]] = {}
    for line in questions.open(encoding="utf-8"):
        row = json.loads(line)
        asked.setdefault(row["article"], []).append(row)
    pairs = []
    for page in pages:
        article = wiki_article(page)
        passages = chunk.passages(article) if page["title"] in asked else []
        for row in asked.get(page["title"], []):
            texts = [wiki_evidence(page, article, e) for e in row.get("evidence") or []]
            answers = [*row.get("answers", []), *texts]
            for p in passages:
                if any(text in p.text for text in texts):
                    text = f"{p.heading}\n{p.text}"
                    pairs.append(
                        {"query": row["question"], "passage": text, "answers": answers, "kind": "wiki questions"}
                    )
    return pairs * 3


def wide_pairs(data: Path, rng: random.Random) -> Iterator[dict]:
    """Pairs from far more text than the lore: see ``WIDE_WORLDS``, ``WIDE_GENERAL`` and ``WIDE_SETS``."""
    for name, most in WIDE_WORLDS:
        rows = [row for row in read_zst(data / f"lore/{name}.jsonl.zst") if row.get("title")]
        for row in rows if most is None or most >= len(rows) else rng.sample(rows, most):
            yield from article_pairs(wiki_article(row), rng)
    for name, most, words in WIDE_GENERAL:
        for row in itertools.islice(read_zst(data / f"general/{name}.jsonl.zst"), most):
            title, _, text = row["text"].partition("\n\n")
            text = " ".join(text.split(" ")[:words])
            if text.strip() and len(title) < 100:
                yield from article_pairs(wiki_article({"title": title, "text": text}), rng)
    for name in WIDE_SETS:
        yield from question_pairs(data / "qa", name, None, rng)


def write(pairs: list[dict], path: Path, rng: random.Random) -> None:
    """The pairs in random order, one a line, and on the screen how many there are of each kind."""
    rng.shuffle(pairs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as f:
        f.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    print(json.dumps(Counter(pair["kind"] for pair in pairs), indent=1), f"{len(pairs):,} pairs in {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with witcher/, lore/ and qa/")
    parser.add_argument("--codex", type=Path, default=Path("corpus/codex"))
    parser.add_argument("--questions", type=Path, default=Path("corpus/questions/train.jsonl"))
    parser.add_argument("--lore", type=int, default=4_000, help="articles of each other world at most")
    parser.add_argument("--out", type=Path, default=Path("runs/pairs.jsonl"))
    parser.add_argument("--wide", type=Path, help="where to write pairs from far more text, too")
    args = parser.parse_args()
    rng = random.Random(0)
    pairs: list[dict] = []
    for page in codex.load(args.codex):
        pairs += article_pairs(codex.parse_page(page), rng)
    # The other pages are asked about in benchmarks/questions/wiki-dev.jsonl.
    wiki = [
        row for row in read_zst(args.data / "witcher/wiki_characters.jsonl.zst") if split_of(row["title"]) == "train"
    ]
    for page_row in wiki:
        pairs += article_pairs(wiki_article(page_row), rng)
    for name in ("got_wiki", "lotr_wiki", "wookieepedia_characters"):
        rows = list(read_zst(args.data / f"lore/{name}.jsonl.zst"))
        for row in rng.sample(rows, min(len(rows), args.lore)):
            pairs += article_pairs(wiki_article({**row, "facts": row.get("facts") or {}}), rng)
    if args.questions.exists():
        pairs += codex_question_pairs(args.questions, args.codex, rng)
    for path in sorted(args.questions.parent.glob("wiki-train*.jsonl")):
        pairs += wiki_question_pairs(path, wiki)
    for name, limit in QUESTION_SETS:
        pairs += question_pairs(args.data / "qa", name, limit, rng)
    write(pairs, args.out, rng)
    if args.wide:
        write(list(wide_pairs(args.data, rng)), args.wide, rng)


if __name__ == "__main__":
    main()
