"""Questions without any model: infobox rows, definitions, headings and sentences that a pattern understands.

Every candidate names the sentence it rests on.  What a pattern is not sure of is left out: these rows are many
anyway, and a wrong one teaches the reader to invent.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from corpus import chunk
from corpus.infobox import fact_line
from corpus.instruct_patterns import (
    AGENT,
    CANON,
    DEED,
    DEFINITION,
    HEADING,
    INFERRED,
    LINK,
    SWITCH,
    YEAR,
    Key,
    ask_of,
    tidy_question,
    typed,
)
from corpus.instruct_rows import STOPWORDS, Bank, Candidate, Row, Shape, assemble, telltales
from corpus.question_format import folded
from corpus.store import StoredPassage
from corpus.types import FACTS_PATH, Article, Fact

PER_ARTICLE = 16  # rows at most; long articles would drown the others
VALUE_WORDS = 40  # of an infobox value that is still read out
_VERBS = (
    "killed robbed slain murdered beheaded executed poisoned raised founded created cursed built forged written "
    "adopted trained rescued saved captured betrayed wounded hired freed healed destroyed conquered defeated crowned "
    "exiled banished imprisoned tortured abducted kidnapped hanged wed taught commissioned discovered"
)
_PASSIVE = re.compile(
    rf"^(?:was|were|is|has been|had been) (?:\w+ly |later |then |once )?({_VERBS.replace(' ', '|')}) by "
    r"(?:the |a |an )?([^\W\d_]\S*(?: (?:of |the )?[A-Z]\S*)*)"
)
_YEAR = re.compile(r"(?<![\d–-])(1[0-3]\d\d|19\d\d|20[0-2]\d)(?![\d–-])")
_IN_YEAR = re.compile(r"In \d{4},? ")
_YEAR_LAST = re.compile(r",? in \d{4}(?=[.]?$)")
_PRONOUN = re.compile(r"^(?:He|She|It|They)(?= )")
_TIMELESS = re.compile(r",|\b(?:is|are)\b")  # “when was it that X is …” is no question
_ARTICLE = re.compile(r"^ (?:the|an|a) ")
_IS = re.compile(r"\b(?:is|are|was|were)\b")


def candidates(page: int, bank: Bank, rng: random.Random) -> Iterator[Candidate]:
    """Everything that can be asked about one page."""
    article = bank.article(page)
    passages = bank.passages(page)
    yield from _facts(article, passages, bank, rng)
    yield from _definitions(article, page, passages, bank, rng)
    yield from _headings(article, passages, rng)
    yield from _sentences(article, page, passages, bank, rng)
    yield from _conversations(article, page, bank, rng)


def rows(bank: Bank, seed: int, shape: Shape, per_article: int = PER_ARTICLE) -> Iterator[Row]:
    """Rows of every page, by title.  The same archive, seed and shape always give the same rows."""
    for page, title in bank.titles.items():
        # A generator of its own for each page, so that a new page changes no other page's rows.
        rng = random.Random(f"{seed}\x1f{page}\x1f{title}")
        made = list(candidates(page, bank, rng))
        rng.shuffle(made)
        for candidate in made[:per_article]:
            if row := assemble(candidate, bank, rng, shape):
                yield row


def is_person(article: Article) -> bool:
    if article.kind:
        return article.kind.casefold() in ("character", "characters", "person", "people")
    return any(
        ask_of(fact.key)[1] in ("gender", "mother", "father", "parents", "eyes", "hair") for fact in article.facts
    )


def _joined(values: Sequence[str]) -> str:
    if any("," in value for value in values):
        return "; ".join(values)
    return values[0] if len(values) == 1 else ", ".join(values[:-1]) + " and " + values[-1]


def _fact_candidate(
    article: Article, fact: Fact, passages: Sequence[StoredPassage], bank: Bank, rng: random.Random
) -> tuple[Candidate, Key, str] | None:
    line = fact_line(article.title, fact)
    home = next((p for p in passages if p.path == FACTS_PATH and line in p.text), None)
    value = _joined(fact.values)
    if home is None or not folded(value).strip() or len(value.split()) > VALUE_WORDS:
        return None
    key, name = ask_of(fact.key)
    label = fact.label.strip().rstrip(":")
    label = label[:1].lower() + label[1:] if label[1:2].islower() else label
    # Two tellings of one row: which is meant has to be asked for; one telling alone may be.
    several = sum(ask_of(other.key)[1] == name for other in article.facts) > 1
    if several and not fact.canon:
        return None
    where = rng.choice(CANON[fact.canon]) if fact.canon and (several or rng.random() < 0.4) else ""
    asked = rng.choice(key.ask).format(t=article.title, k=label, v=value) + where
    form = key.answer if rng.random() < 0.6 and len(value.split()) <= 12 else "{v}"
    if len(fact.values) > 1:
        form = form.replace("{k} is {v}", "{k}: {v}")
    answer = form.format(t=article.title, k=label, v=value)
    # Item by item: a list of names and plain words is given away by either.
    items = [item for v in fact.values for item in re.split(r"[,;()]", v) if item.strip()]
    gives = tuple(dict.fromkeys(t for i in items for t in telltales(i, article.title, bank.other_names(i.strip()))))
    # “Milva's bow belongs to Milva”: the title gives it away wherever it stands.
    own = set(folded(article.title).split()) - STOPWORDS
    told = any(own & set(folded(item).split()) for item in items)
    made = Candidate(
        turns=(("user", typed(asked, rng)),),
        answer=answer[:1].upper() + answer[1:],
        evidence=(home,),
        anchors=(line,),
        kind="fact",
        query=tidy_question(asked),
        article=article.title,
        gives=gives,
        never_decline=told or name in INFERRED,
    )
    return made, key, label


def _facts(article: Article, passages: Sequence[StoredPassage], bank: Bank, rng: random.Random) -> Iterator[Candidate]:
    for fact in article.facts:
        if made := _fact_candidate(article, fact, passages, bank, rng):
            yield made[0]


def _definitions(
    article: Article, page: int, passages: Sequence[StoredPassage], bank: Bank, rng: random.Random
) -> Iterator[Candidate]:
    lead = next((p for p in passages if not p.path), None)
    if lead is None or not (spans := chunk.sentences(lead.text)):
        return
    first = lead.text[slice(*spans[0])]
    names = [name for name in bank.names(page) if folded(name) in folded(first)]
    if not names or not 5 <= len(first.split()) <= 45 or not _IS.search(first):
        return
    start = _ARTICLE.sub(" ", folded(first))
    if not any(start.startswith(_ARTICLE.sub(" ", folded(name))) for name in names):
        return  # the sentence is about something else
    person = is_person(article)
    asked_for = [article.title, *(name for name in names if name != article.title)][:2]
    for name in asked_for:
        asked = rng.choice(DEFINITION[person]).format(t=name)
        yield Candidate(
            turns=(("user", typed(asked, rng)),),
            answer=first,
            evidence=(lead,),
            anchors=(first,),
            kind="definition",
            query=tidy_question(asked),
            article=article.title,
            # Any passage that names the subject says something about it.
            gives=tuple(folded(n).strip() for n in bank.names(page) if folded(n).strip()),
        )


def _about(sentence: str, title: str, names: Sequence[str]) -> str:
    """The sentence with its subject named, or "" where its subject is not this article's."""
    if _PRONOUN.match(sentence):
        return _PRONOUN.sub(lambda _: title, sentence, count=1)
    start = folded(sentence)
    return sentence if any(start.startswith(folded(name)) for name in names if folded(name).strip()) else ""


def _named(said: str, title: str, names: Sequence[str]) -> tuple[str, str]:
    """The sentence with its subject named, and the same without its year (“In 1267, …”, “… in 1267.”).

    ("", "") where its subject is not this article's.
    """
    head = _IN_YEAR.match(said)
    body = said[head.end() :] if head else said
    body = _about(body[:1].upper() + body[1:], title, names)
    return (f"{head[0] if head else ''}{body}", _YEAR_LAST.sub("", body)) if body else ("", "")


def _headings(article: Article, passages: Sequence[StoredPassage], rng: random.Random) -> Iterator[Candidate]:
    seen: set[int] = set()
    for passage in passages:
        if not passage.path or passage.path == FACTS_PATH or passage.section in seen:
            continue
        seen.add(passage.section)
        spans = chunk.sentences(passage.text)
        last = max((b for _, b in spans if len(passage.text[spans[0][0] : b].split()) <= 45), default=0)
        taken = passage.text[spans[0][0] : last] if last else ""
        if len(taken.split()) < 8 or "\n" in taken:
            continue
        heading = passage.path[-1]
        asked = rng.choice(HEADING).format(t=article.title, h=heading)
        yield Candidate(
            turns=(("user", typed(asked, rng)),),
            answer=taken,
            evidence=(passage,),
            anchors=(taken,),
            kind="heading",
            query=tidy_question(asked),
            article=article.title,
        )


def _sentences(
    article: Article, page: int, passages: Sequence[StoredPassage], bank: Bank, rng: random.Random
) -> Iterator[Candidate]:
    names, title = bank.names(page), article.title
    for passage in passages:
        if passage.path == FACTS_PATH:
            continue
        for start, end in chunk.sentences(passage.text):
            said = passage.text[start:end]
            if not 6 <= len(said.split()) <= 35 or "“" in said or '"' in said:
                continue
            whole, bare = _named(said, title, names)
            if not whole:
                continue
            for asked, gives, kind in _questions(bare, whole, title, page, names, bank, rng):
                answer = f"In {gives[0]}" if kind == "year" and rng.random() < 0.5 else whole
                yield Candidate(
                    turns=(("user", typed(asked, rng)),),
                    answer=answer,
                    evidence=(passage,),
                    anchors=(said,),
                    kind=kind,
                    query=tidy_question(asked),
                    article=title,
                    gives=gives,
                )


def _questions(
    bare: str, whole: str, title: str, page: int, names: Sequence[str], bank: Bank,
    rng: random.Random,
) -> Iterator[tuple[str, tuple[str, ...], str]]:  # fmt: skip
    """(question, what gives its answer away, kind) for a sentence whose subject is the article's."""
    subject = max((n for n in names if bare.casefold().startswith(n.casefold())), key=len, default="")
    rest = bare[len(subject) :].strip()
    if subject and (done := _PASSIVE.match(rest)):
        agent = done[2].rstrip(".,;:")
        asked = rng.choice(AGENT).format(t=title, verb=done[1])
        yield asked, telltales(agent, title, bank.other_names(agent)), "agent"
    years = _YEAR.findall(whole)
    if bare != whole and len(years) == 1 and 4 <= len(bare.split()) <= 16 and not _TIMELESS.search(bare):
        asked = rng.choice(YEAR).format(s=bare.rstrip("."))
        yield asked, (years[0],), "year"
    elif len(years) == 1 and rng.random() < 0.5:
        yield rng.choice(DEED).format(t=title, y=years[0]), (years[0],), "deed"
    others = []
    for match in re.finditer(r"[A-Z][\w'’-]*(?: (?:of |the |an |aep )*[A-Z][\w'’-]*)*", rest):
        other = bank.page_of.get(folded(match[0]))
        if other is not None and other != page and folded(match[0]) not in folded(title):
            others.append((match[0], other))
    if others:
        name, other = rng.choice(others)
        asked = rng.choice(LINK).format(t=title, o=name)
        yield asked, telltales(name, title, bank.names(other)), "link"


def _conversations(article: Article, page: int, bank: Bank, rng: random.Random) -> Iterator[Candidate]:
    """Two or three turns: further rows of the same infobox by pronoun or ellipsis, or the same row of another."""
    passages = bank.passages(page)
    made = [m for fact in article.facts if (m := _fact_candidate(article, fact, passages, bank, rng))]
    if not made:
        return
    if len(made) >= 2:
        gender = next((f.values[0].casefold() for f in article.facts if ask_of(f.key)[1] == "gender"), "")
        his = {"male": "his", "female": "her", "man": "his", "woman": "her"}.get(gender.split()[0] if gender else "")
        his = his or ("their" if is_person(article) else "its")
        picked = rng.sample(made, min(len(made), rng.choice((2, 2, 3))))
        turns: list[tuple[str, str]] = [*picked[0][0].turns]
        for before, (candidate, key, label) in pairwise(picked):
            turns.append(("assistant", before[0].answer.rstrip(".") + "."))
            follow = rng.choice(key.follow).format(t=_short(article.title), his=his, k=label)
            turns.append(("user", typed(follow, rng)))
            last = candidate
        yield replace(last, turns=tuple(turns), kind="conversation")
    if switch := _switched(rng.choice(made), page, bank, rng):
        yield switch


def _switched(first: tuple[Candidate, Key, str], page: int, bank: Bank, rng: random.Random) -> Candidate | None:
    """“And Y?” after a row of X: the same row of another page that BM25 finds near."""
    candidate, _, label = first
    for passage in bank.search(f"{label} {candidate.answer}", 12):
        if passage.page == page or passage.path != FACTS_PATH:
            continue
        article = bank.article(passage.page)
        fact = next((f for f in article.facts if f.label.casefold() == label.casefold() and not f.canon), None)
        other = fact and _fact_candidate(article, fact, bank.passages(passage.page), bank, rng)
        if other:
            asked = rng.choice(SWITCH).format(o=article.title)
            said = candidate.answer.rstrip(".") + "."
            turns = (*candidate.turns, ("assistant", said), ("user", typed(asked, rng)))
            return replace(other[0], turns=turns, kind="conversation")
    return None


def _short(title: str) -> str:
    """A name as one says it the second time: “Geralt” for “Geralt of Rivia”."""
    return title.split(" of ")[0].split(" (")[0]
