"""Where grounded conversations come from: one builder for each form of source, each giving questions with evidence.

What the public question sets look like is told in their manifest; :data:`BUILDERS` names the builders for
``corpus.grounded``'s table.  Copying, the codex's own questions and rows by patterns have functions of their own.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from corpus import chunk
from corpus.chunk import trim
from corpus.grounded_rows import DECLINE, Question, Row, Shape, Text, best_sentence, cite, overlap, stands_in
from corpus.types import Article, Page

HISTORY = 0.08  # share of public questions asked after another one about the same passage

# -- short answers as sentences ----------------------------------------------------------------------------------

_SUBJECT = re.compile(r"^(who) (\w+(?:ed|s|t|w|k|d|n|g)) (.+?)\?$", re.I)
_AUXILIARIES = "did does do is are was were has have had can could will would should must might this that"
_AUXILIARY = frozenset(_AUXILIARIES.split())
_PREDICATE = re.compile(r"^(who|what) (is|was|are|were) (the .+?|a .+?|an .+?)\?$", re.I)
_PASSIVE = re.compile(r"^(when|where) (was|were) (.{3,60}?) (\w+ed|born|built|held|found|made|written)\?$", re.I)
_PREPOSITION = re.compile(
    r"(?:in|on|at|by|near|around|about|during|before|after|since|until|between|from|within|inside|outside|under)\b",
    re.I,
)
_LOOSE_END = re.compile(r"\b(?:\w+ed|named|known|from|in|of|to|for|by|with|about|on|at|as|like|than|under)$", re.I)


def verbalise(question: str, answer: str) -> str:
    """A short answer as a sentence, where the question's form allows it; else the answer as it is.

    Only three forms, of which we are sure: “Who ruled Marn?”, “What was the name of the king?”, “When was it built?”.
    """
    if len(answer.split()) > 8 or answer.endswith("."):
        return answer
    capital = answer[:1].upper() + answer[1:]
    if (m := _PREDICATE.match(question)) and not _LOOSE_END.search(m[3]) and " that " not in m[3]:
        if m[1].casefold() == "who":
            return f"{capital} {m[2].lower()} {m[3]}."
        return f"{m[3][:1].upper()}{m[3][1:]} {m[2].lower()} {answer}."
    if m := _PASSIVE.match(question):
        preposition = "in " if re.fullmatch(r"\d{4}|[A-Z][\w' -]+", answer) and not answer.startswith("The") else ""
        if _PREPOSITION.match(answer):
            preposition, answer = "", answer[0].lower() + answer[1:]
        return f"{m[3][:1].upper()}{m[3][1:]} {m[2].lower()} {m[4]} {preposition}{answer}."
    if (m := _SUBJECT.match(question)) and m[2].casefold() not in _AUXILIARY:
        return f"{capital} {m[2]} {m[3]}."
    return answer


# -- builders: a file's rows → questions -------------------------------------------------------------------------

Builder = Callable[[list[Row], str, random.Random], Iterator[Question]]


def passage_of(row: Row) -> Text:
    """Heading and context of a row; markup and odd spacing aside."""
    text = "\n".join(" ".join(line.split()) for line in row["context"].split("\n") if line.strip())
    return row.get("title") or "", text


def anchor_of(text: str, answer: str, question: str) -> str:
    """What trimming must leave of ``text``: the answer where it stands in the sentence that is most about the question.

    “2008” or “two” often stands earlier in another sense.  Trimming looks for an anchor's first place: where that is
    another one, the sentence is the anchor.
    """
    spans = chunk.sentences(text)
    anchor, most = answer, -1.0
    for match in re.finditer(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.I):
        around = [(start, end) for start, end in spans if start < match.end() and match.start() < end]
        said = text[around[0][0] : around[-1][1]] if around else match[0]
        if (shared := overlap(question, said)) > most:
            anchor, most = match[0] if text.find(match[0]) == match.start() else said, shared
    return anchor


def questions(rows: list[Row], kind: str, rng: random.Random) -> Iterator[Question]:
    """Questions with a passage and answers that stand in it, or that are sentences over all of a short one."""
    earlier: dict[str, tuple[str, str]] = {}
    for row in rows:
        if not row.get("answerable", True) or not row.get("context") or not row.get("answers"):
            continue
        passage = passage_of(row)
        answer = row["answers"][0].strip()
        if not 0 < len(answer.split()) <= 45 or "<" in passage[1]:
            continue
        spelt = stands_in(passage[1], answer.rstrip("."))
        if not spelt and len(passage[1].split()) > 230:
            continue
        # An answer in other words may rest on any of it: nothing is cut.
        anchor = anchor_of(passage[1], spelt, row["question"]) if spelt else passage[1]
        said = answer if kind == "sentence" or rng.random() < 0.3 else verbalise(row["question"], answer)
        turns: tuple[tuple[str, str], ...] = (("user", row["question"]),)
        if passage[1] in earlier and rng.random() < HISTORY:
            before = earlier[passage[1]]
            turns = (("user", before[0]), ("assistant", before[1]), *turns)
        earlier[passage[1]] = row["question"], said
        said = said[:1].upper() + said[1:]
        yield Question(kind, turns, said, (passage,), (anchor,), tuple(a.strip() for a in row["answers"]))


def yes_no(rows: list[Row], kind: str, rng: random.Random) -> Iterator[Question]:
    """Yes or no, and the sentence of the passage that is most about the question."""
    for row in rows:
        passage = passage_of(row)
        reason = best_sentence(passage[1], row["question"])
        if overlap(row["question"], reason) < 0.6 or not 4 <= len(reason.split()) <= 40:
            continue
        answer = row["answers"][0].strip().rstrip(".").capitalize()
        if answer in ("Yes", "No"):
            said = f"{answer}: {reason}"
            yield Question(kind, (("user", row["question"]),), said, (passage,), (reason,), (answer, reason))


def unanswerable(rows: list[Row], kind: str, rng: random.Random) -> Iterator[Question]:
    """Questions that the passage they come with does not answer: it stays, as the hardest of the distractors."""
    for row in rows:
        if row.get("answerable", True) or not row.get("context") or "<" in row["context"]:
            continue
        history = row.get("history") or []
        if len(history) % 2:
            continue
        roles = ("user", "assistant")
        turns = [(roles[i % 2], text) for i, text in enumerate(history[-4:]) if text.strip()]
        if len(turns) % 2 == 0:
            asked = (*turns, ("user", row["question"]))
            yield Question(kind, asked, DECLINE, can_miss=False, given=(passage_of(row),))


def conversations(rows: list[Row], kind: str, rng: random.Random) -> Iterator[Question]:
    """mtRAG: several turns, several passages, and sentences for answers."""
    for row in rows:
        history = [" ".join(text.split()) for text in row.get("history") or []]
        if len(history) % 2 or not all(history):
            continue
        roles = ("user", "assistant")
        turns = (*((roles[i % 2], text) for i, text in enumerate(history[-4:])), ("user", row["question"]))
        texts: list[Text] = []
        for passage in row.get("passages") or []:
            heading, _, body = passage.partition("\n")
            if body and "<" not in body:
                texts.append((heading.strip(), " ".join(body.split())))
        if row["answerability"] == "UNANSWERABLE" and texts:
            yield Question(kind, turns, DECLINE, can_miss=False, given=tuple(texts))
        elif row["answerability"] == "ANSWERABLE" and texts:
            answer = " ".join(row["answers"][0].split())
            if len(answer.split()) > 60:
                continue
            home = max(texts, key=lambda text: overlap(answer, text[1]))
            anchor = best_sentence(home[1], answer)
            # What a long answer says beyond its best sentence may have been trimmed away: then it is not used.
            if overlap(answer, f"{home[0]} {anchor}") >= 0.6:
                others = tuple(text for text in texts if text != home)
                yield Question(kind, turns, answer, (home,), (anchor,), (answer,), given=others or None)


def spoken(rows: list[Row], kind: str, rng: random.Random) -> Iterator[Question]:
    """Verbal-ConvQuestions: the answers of a conversation, worded the other way, are the passage it rests on."""
    talks: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        talks[row["id"].rpartition("-")[0]].append(row)
    for talk in talks.values():
        talk.sort(key=lambda row: int(row["id"].rpartition("-")[2]))
        text = " ".join(row["answers"][-1].strip() for row in talk)
        passage = (talk[0].get("topic") or "", text)
        for row in talk:
            history = row.get("history") or []
            if len(history) % 2 or not row.get("answer_contains_short", True):
                continue
            roles = ("user", "assistant")
            turns = (*((roles[i % 2], said) for i, said in enumerate(history)), ("user", row["question"]))
            aliases = (row["short_answer"],) if row.get("short_answer") else (row["answers"][0],)
            yield Question(kind, turns, row["answers"][0].strip(), (passage,), (text,), aliases)


def verbalised(rows: list[Row], kind: str, rng: random.Random) -> Iterator[Question]:
    """VQuAnDa: a question about facts and the sentence that answers it; three such sentences make a passage."""
    said = [row["answers"][0].strip() for row in rows if row.get("answers")]
    for row in rows:
        if not row.get("answers"):
            continue
        answer = row["answers"][0].strip()
        sentences = [answer, *rng.sample(said, min(2, len(said)))]
        rng.shuffle(sentences)
        text = " ".join(dict.fromkeys(sentences))
        aliases = (row["short_answer"],) if row.get("short_answer") else (answer,)
        yield Question(kind, (("user", row["question"]),), answer, (("", text),), (answer,), aliases)


BUILDERS: dict[str, Builder] = {
    "questions": questions,
    "yes_no": yes_no,
    "unanswerable": unanswerable,
    "conversations": conversations,
    "spoken": spoken,
    "verbalised": verbalised,
}


# -- copying -----------------------------------------------------------------------------------------------------

_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w'’-]{3,}")
COPY = (
    "Quote the sentence that mentions {name}.",
    "Which sentence names {name}?",
    "What is written about {name}?",
    "quote what it says about {name}",
)


def copies(passages: Sequence[Text], count: int, kind: str, rng: random.Random, shape: Shape) -> Iterator[Row]:
    """Questions whose answer is a sentence of a passage word for word: the plainest reading there is.

    Small models do not find out by themselves that it pays to look at the passages (induction heads, Olsson et al.
    2022, form late where little text repeats itself); these rows leave no other way to be right.
    """
    for _ in range(count if passages else 0):
        shown = []
        size = rng.randint(2, 5)
        for heading, text in rng.sample(passages, min(size, len(passages))):
            spans = chunk.sentences(text)
            if spans:
                start, end = rng.choice(spans)
                shown.append(
                    [heading, trim(text, text[start:end], rng.randint(25, max(25, min(90, shape.room // size))))]
                )
        sentences = [(n, text[a:b]) for n, (_, text) in enumerate(shown, 1) for a, b in chunk.sentences(text)]
        sentences = [(n, said) for n, said in sentences if 5 <= len(said.split()) <= 35]
        names = Counter(name for _, said in sentences for name in set(_NAME.findall(said)))
        everything = " ".join(f"{heading} {text}" for heading, text in shown)
        single = [(n, said, name) for n, said in sentences for name in _NAME.findall(said)
                  if names[name] == 1 and everything.count(name) == 1]  # fmt: skip
        if not sentences:
            continue
        draw = rng.random()
        if draw < 0.55 and single:
            number, said, name = rng.choice(single)
            asked = rng.choice(COPY).format(name=name)
        elif draw < 0.8:
            number, said = rng.choice(sentences)
            opening = " ".join(said.split()[:4])
            if everything.count(opening) != 1:
                continue
            asked = rng.choice(("Which sentence begins with “{}”?", "Continue: “{} …”")).format(opening)
        else:
            number = rng.randint(1, len(shown))
            said = next((s for n, s in sentences if n == number), "")
            if not said or not shown[number - 1][1].startswith(said):
                continue
            asked = f"What does passage {number} begin with?"
        yield {"passages": shown, "turns": [["user", asked]], "answer": cite(said, [number], [said]), "kind": kind,
               "answers": [said.rstrip(".")], "gold": [number]}  # fmt: skip


# -- the codex's questions and the articles' facts ---------------------------------------------------------------


def own_questions(path: Path, groups: Sequence[Path], kind: str) -> Iterator[Question]:
    """Our own questions among what retrieval brings for them; a follow-up also as it stands alone.

    A passage that holds an answer without being the evidence is left out: it would be wrong to call it a distractor.
    """
    found: dict[str, Row] = {}
    for name in groups:
        with name.open(encoding="utf-8") as lines:
            for line in lines:
                group = json.loads(line)
                found[group["id"]] = group
    for line in path.open(encoding="utf-8"):
        row = json.loads(line)
        turns: list[tuple[str, str]] = []
        for number, turn in enumerate(row.get("turns") or [row]):
            group = found.get(f"{row['id']}-{number}" if "turns" in row else row["id"], {})
            declines = bool(row.get("decline"))
            answer = turn.get("correction") or (DECLINE if declines else turn["answer"])
            evidence, anchors, others = [], [], []
            for passage in group.get("passages", []):
                text = passage["text"]
                spans = [tuple(s) for s, label in zip(passage["spans"], passage["labels"], strict=True) if label == 1]
                if spans:
                    evidence.append((passage["heading"], text))
                    anchors.append(text[spans[0][0] : spans[-1][1]])
                elif -1 not in passage["labels"]:
                    others.append((passage["heading"], text))
            history = tuple(turns)
            turns += [("user", turn["question"]), ("assistant", answer)]
            # Evidence that retrieval knows nothing of has been rewritten since: its question waits for new groups.
            if not group or bool(evidence) == (answer == DECLINE):
                continue
            question = Question(
                kind=kind,
                turns=(*history, ("user", turn["question"])),
                answer=answer,
                evidence=tuple(evidence),
                anchors=tuple(anchors),
                answers=tuple(turn.get("answers", [answer])),
                all_cited=len(evidence) > 1,
                can_miss=not declines,
                given=tuple(others[:8]),
            )
            yield question
            if history:
                yield replace(question, turns=(("user", turn["rewrite"]),))


def article_rows(
    articles: Iterable[tuple[str, Article]], questions_file: Path | None, per_article: int, seed: int, shape: Shape
) -> Iterator[Row]:
    """Rows by the patterns of ``corpus.instruct rules`` over any articles, and with ``questions_file`` the codex's
    questions among BM25's passages.

    Args:
        articles: (source, article) pairs; only those of the train split are used.
    """
    from corpus import instruct_merge, instruct_rows, instruct_rules
    from corpus.split import split_of
    from corpus.store import Store

    with (
        tempfile.TemporaryDirectory(prefix="cirilla-grounded-") as scratch,
        Store(Path(scratch) / "archive.sqlite") as store,
    ):
        store.db.execute("PRAGMA synchronous = OFF")  # thrown away at the end
        for number, (source, article) in enumerate(articles):
            if split_of(article.title) == "train":
                page = Page(source, number, article.title, 0, "", "")
                store.replace_page(page, article, chunk.passages(article))
        bank = instruct_rows.Bank(store)
        if not bank.titles:
            return
        form = instruct_rows.Shape(words=min(shape.words, shape.room // 5), distractors=1 if shape.near else 4)
        if questions_file:
            dropped = instruct_rows.Tally()
            yield from instruct_merge.question_rows(questions_file, bank, seed, form, dropped)
        else:
            yield from instruct_rules.rows(bank, seed, form, per_article)
