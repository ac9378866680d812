"""Question sets over a small invented codex: what is taken in, what is left out and why, and what a check finds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app import evaluate
from corpus import codex
from corpus.question_format import Library, folded, holds, tidy
from corpus.question_sets import MINIMUM, SPLITS, main
from corpus.split import split_of

ARTICLES = {
    "Halvor": (
        'aliases: ["Halvor the Grey"]\nfacts:\n  eyes (books): grey\n  eyes (games): brown\n  horse: Thistle\n',
        "Halvor was a smith of Saltmere’s old quarter, and the father of *Ilse*. Nobody taught him his trade.\n\n"
        "## The feud {canon=books}\n\nHalvor killed the miller   Tosk\nin a duel at dawn. He carried the signs of a "
        "hawk, an owl and a wren. Halvor slept badly. Tosk's brother Éamon swore revenge.\n\n## Later\n\n"
        "Halvor slept badly.\n",
    ),
    "Ilse": ("facts:\n  born: 1211\n", "Ilse kept two goats and a one-eyed cat. Her father was Halvor, a smith.\n"),
    "Tosk": ("facts:\n  race: human\n", "Tosk was a miller whom Halvor: The Opera calls a coward. He ground rye.\n"),
    "Halvor: The Opera": ("facts:\n  composer: Berit\n", "The opera about Halvor has three acts.\n"),
    "Vinna": ("facts:\n  race: human\n", "Vinna sold three sorts of honey at Brennick market. Vinna feared wasps.\n"),
    "Brennick": ("facts:\n  ruler: Jorun\n", "Brennick is a market town on the river Pell.\n"),
    "Quill": ("facts:\n  race: human\n", "Quill forged letters for the duke. Quill was hanged in spring.\n"),
}
HALVOR = "who fathered ilse? || Halvor; Halvor the Smith || the father of Ilse || Ilse's father was Halvor. || who"
HATED = "@ Halvor\nwho hated Halvor || Eamon; the brother || swore revenge || Eamon. || who\n"
GOATS = "Ilse? || Ilse? || Ilse || Ilse: two goats || She."
HONEY = "Vinna? || Vinna? || Vinna || Vinna: honey || She."
BIRTH = "birth? || Ilse's birth? || 1211 || Ilse: FACT born || 1211."
HOP = "how many goats had the smith's girl || two || old quarter && kept two goats || Two. || multi-hop"
DECLINES = (
    "= decline\nwho is Batman's butler? || other universe\n\nwho taught Vinna to swim? || False-premise || "
    "Nothing says that she swam; she sold honey. || Vinna: three sorts of honey\n"
)


def put(folder: Path, title: str, facts: str, body: str) -> Path:
    path = folder / "character" / f"{re.sub('[^a-z]+', '-', title.casefold())}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f'title: "{title}"\nkind: character\ncanon: [books, games]\nsources: [A Book]\n{facts}'
    path.write_text(f"---\n{head}---\n{body}", encoding="utf-8")
    return path


class Sets:
    """A folder of question sets over the invented codex, driven by the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.codex, self.out, self.capsys = folder, folder / "codex", folder / "sets", capsys
        for title, (facts, body) in ARTICLES.items():
            put(self.codex, title, facts, body)

    def run(self, command: str, *arguments: str) -> tuple[int, str, str]:
        status = main([command, *arguments, "--out", str(self.out), "--codex", str(self.codex)])
        return status, *self.capsys.readouterr()

    def take(self, text: str, *arguments: str) -> tuple[int, str]:
        """Import a text; exit status and output, the file's folder taken off."""
        path = self.folder / "in.txt"
        path.write_text(text, encoding="utf-8")
        status, out, _ = self.run("import", str(path), *arguments)
        return status, out.replace(f"{self.folder}/", "")

    def rows(self) -> list[dict[str, Any]]:
        return [row for split in SPLITS for row in self.of(split)]

    def of(self, split: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]

    def rewrite(self, split: str, *rows: Any) -> None:
        self.out.mkdir(exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (self.out / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def found(self, *arguments: str) -> list[str]:
        """Findings of a check, without the path."""
        _, out, _ = self.run("check", *arguments)
        return [m[1] for m in re.finditer(r"^(?:[^:\n]*/)?([^:/\n]+:\d+: (?:error|warning).*)", out, re.M)]

    def edit(self, title: str, old: str, new: str) -> None:
        facts, body = ARTICLES[title]
        assert old in body
        put(self.codex, title, facts, body.replace(old, new))


@pytest.fixture
def sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Sets:
    return Sets(tmp_path, capsys)


def test_the_invented_articles_are_in_the_splits_that_the_tests_need() -> None:
    splits = {title: split_of(title) for title in ARTICLES}
    assert splits == dict.fromkeys(ARTICLES, "train") | dict(Vinna="dev", Brennick="dev", Quill="test")


def test_a_pair_is_stored_with_the_whole_sentence_of_its_evidence(sets: Sets) -> None:
    assert sets.take(f"@ Halvor\n{HALVOR}\n") == (0, "1 rows added, 0 changed, 1 in all; 0 left out\n")
    (row,) = sets.of("train")
    sentence = "Halvor was a smith of Saltmere’s old quarter, and the father of Ilse."
    place = dict(article="Halvor", section=0, path=[], start=0, end=len(sentence), text=sentence)
    assert list(row) == ["id", "question", "answers", "answer", "article", "evidence", "type", "canon"]
    values = ["who fathered ilse?", ["Halvor", "Halvor the Smith"], "Ilse's father was Halvor.", "Halvor", [place]]
    assert list(row.values()) == [row["id"], *values, "who", ""]
    assert sets.of("dev") == sets.of("test") == []


@pytest.mark.parametrize(
    ("piece", "path", "text"),
    [
        ("killed  the miller Tosk in a duel", ["The feud"], "Halvor killed the miller Tosk in a duel at dawn."),
        ("*Ilse*. ", [], "Halvor was a smith of Saltmere’s old quarter, and the father of Ilse."),
        ("saltmere's old quarter", [], "Halvor was a smith of Saltmere’s old quarter, and the father of Ilse."),
        ("FACT horse", ["Facts"], "Halvor — horse: Thistle."),
        ("FACT eyes (games)", ["Facts"], "Halvor — eyes (games): brown."),
        ("horse: Thistle", ["Facts"], "Halvor — horse: Thistle."),
        ("Ilse: one-eyed cat", [], "Ilse kept two goats and a one-eyed cat."),
        ("Tosk: Halvor: The Opera calls", [], "Tosk was a miller whom Halvor: The Opera calls a coward."),
        ("Halvor: The Opera: has three acts", [], "The opera about Halvor has three acts."),
    ],
)
def test_evidence_is_found_where_it_stands(sets: Sets, piece: str, path: list[str], text: str) -> None:
    library = Library(sets.codex)
    (place,) = library.evidence(piece, "Halvor")
    assert (place["path"], place["text"]) == (path, text)
    page = next(page for page in codex.load(sets.codex) if page.title == place["article"])
    section = codex.parse_page(page).sections[place["section"]]
    assert list(section.path) == path and section.text[place["start"] : place["end"]] == text


def test_a_canon_chooses_between_facts_of_one_key(sets: Sets) -> None:
    status, _ = sets.take(
        "@ Halvor\nHalvor's eyes in the books? || grey || FACT eyes || Grey. || what || canon: books\n"
    )
    (row,) = sets.rows()
    assert (status, row["canon"], row["evidence"][0]["text"]) == (0, "books", "Halvor — eyes (books): grey.")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("who? || Halvor || the father of Ilse || Halvor.", "5 to 6 fields parted by '||' are needed"),
        ("who? || Halvor || || Halvor. || who", "5 to 6 fields parted by '||' are needed, none of them empty"),
        ("who? || ; || the father of Ilse || Halvor. || who", "there is no answer alias"),
        ("who? || – || the father of Ilse || Halvor. || who", "or one without letters and digits"),
        ("who? || Halvor || the mother of Ilse || Halvor. || who", "the evidence does not stand in 'Halvor'"),
        ("who? || Halvor || slept badly || Halvor. || who", "the evidence stands in 2 sentences of 'Halvor'"),
        ("who? || Halvor || of Ilse. Nobody taught || Halvor. || who", "runs over more than one sentence of 'Halvor'"),
        ("who? || Halvor || FACT sword || Halvor. || who", "'Halvor' has no fact 'sword'"),
        ("what? || grey || FACT eyes || Grey. || what", "write 'FACT eyes (books)' or 'FACT eyes (games)'"),
        ("who? || Ilsebil || the father of Ilse || Ilse. || who", "no alias of 'who?' stands in its evidence: Ilsebil"),
        ("what? || a hawk + a crow || signs of a hawk || These. || list", "stands in its evidence: a hawk + a crow"),
        ("who? || Halvor || the father of Ilse || Halvor. || whom", "unknown type 'whom'"),
        ("who? || Halvor || the father of Ilse || Halvor. || who || film", "unknown canon 'film'"),
        ("is he? || indeed || the father of Ilse || Yes. || yes/no", "is 'yes' or 'no'"),
        ("who? || Ilse || the father of Ilse || Ilse. || multi-hop", "has evidence from two articles"),
        ("who? || Ilse || the father of Ilse && his trade || Ilse. || multi-hop", "has evidence from two articles"),
        ("who? || Ilse || of Ilse && father of || Ilse. || who", "one sentence, or two different ones"),
        ("who? || Ilse || of Ilse && horse: && Tosk: rye || Ilse. || who", "one sentence, or two different ones"),
        ("who? || Ilse || of Ilse && Vinna: wasps || Ilse. || multi-hop", "splits: 'Vinna' in dev, 'Halvor' in train"),
    ],
)
def test_a_line_that_breaks_a_rule_is_left_out_and_reported(sets: Sets, line: str, reason: str) -> None:
    status, out = sets.take(f"@ Halvor\n\n{line}\n{HALVOR}\n")
    first, last = out.splitlines()
    assert status == 1 and first.startswith("in.txt:3: ") and reason in first
    assert last == "1 rows added, 0 changed, 1 in all; 1 left out"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (HALVOR, 1, "no '@ Title' above"),
        (f"@ Halvar\n{HALVOR}", 2, "there is no article 'Halvar'"),
        ("= poem", 1, "'= poem' is neither '= conversation' nor '= decline'"),
        ("= decline\nwho is Batman?", 2, "2 to 4 fields"),
        ("= decline\nwho is Batman? || comics", 2, "unknown reason 'comics'"),
        ("= decline\nwho shot Ilse? || false premise", 2, "a false premise needs its correction, with evidence"),
        ("= decline\nwho shot Ilse? || false premise || Nobody did.", 2, "a correction needs its evidence"),
        ("= decline\nwho shot Ilse? || false premise || No. || goats", 2, "must begin with an article's title"),
        ("= decline\nwho shot Ilse? || false premise || No. || Ilse: hens", 2, "the evidence does not stand in 'Ilse'"),
        (f"= conversation\n{GOATS}", 2, "a conversation has 2 to 4 turns, not 1"),
        (f"= conversation\n{GOATS}\n{HONEY}", 2, "its articles are in different splits"),
        (f"= conversation\n{GOATS}\n{BIRTH.replace('1211', '1210')}", 2, "no alias of 'birth?' stands in its"),
        (f"= conversation\n{GOATS}\n{BIRTH.replace('Ilse:', 'Ilse')}", 3, "with an article's title and a colon"),
        (f"= conversation\n{GOATS}\n{BIRTH[:-8]}", 3, "there are 4 (its conversation is left out)"),
    ],
)
def test_declines_and_conversations_are_held_to_rules_too(sets: Sets, text: str, line: int, reason: str) -> None:
    status, out = sets.take(f"{text}\n")
    first, last = out.splitlines()
    assert status == 1 and first.startswith(f"in.txt:{line}: ") and reason in first
    assert last == "0 rows added, 0 changed, 0 in all; 1 left out"


def test_a_conversation_keeps_its_turns_together_and_ends_at_a_blank_line(sets: Sets) -> None:
    status, out = sets.take(
        "@ Halvor\n= conversation\n"
        "what pets did ilse have? || what pets did ilse have? || two goats || Ilse: two goats || Goats and a cat.\n"
        "and why did her dad fight? || why did Halvor fight Tosk? || a quarrel || Halvor: in a duel || A quarrel.\n\n"
        f"{HALVOR}\n"
    )
    assert status == 0, out
    pair, talk = sets.of("train")
    assert pair["question"] == "who fathered ilse?"
    assert list(talk) == ["id", "turns", "type"] and talk["type"] == "conversation"
    assert list(talk["turns"][1]) == ["question", "rewrite", "answers", "answer", "article", "evidence"]
    assert [turn["article"] for turn in talk["turns"]] == ["Ilse", "Halvor"]


def test_declines_are_split_by_their_article_or_else_by_their_wording(sets: Sets) -> None:
    assert sets.take(DECLINES)[0] == 0
    corrected = next(row for row in sets.of("dev") if "correction" in row)
    assert list(corrected) == ["id", "question", "decline", "reason", "correction", "evidence"]
    assert (corrected["decline"], corrected["reason"]) == (True, "false premise")
    plain = next(row for row in sets.of(split_of("who is Batman's butler?")) if "correction" not in row)
    assert list(plain) == ["id", "question", "decline", "reason"]


def test_every_article_is_in_one_split_and_the_evaluation_reads_all_files(sets: Sets) -> None:
    vinna = "@ Vinna\nWhat did Vinna fear? || wasps || Vinna feared wasps || Wasps. || what\n"
    quill = "@ Quill\nWhat became of Quill? || hanged || was hanged in spring || Quill was hanged. || what\n"
    assert sets.take(f"# a remark\n@ Halvor\n{HALVOR}\n+ Ilse\n{HOP}\n{vinna}{quill}{DECLINES}")[0] == 0
    hops = next(row for row in sets.of("train") if row["type"] == "multi-hop")
    assert [one["article"] for one in hops["evidence"]] == ["Halvor", "Ilse"]
    where = {split: {one["article"] for row in sets.of(split) for one in row.get("evidence", [])} for split in SPLITS}
    assert where == {"train": {"Halvor", "Ilse"}, "dev": {"Vinna"}, "test": {"Quill"}}
    read = [item for split in SPLITS for item in evaluate.read(sets.out / f"{split}.jsonl")]
    assert sorted(item.id for item in read) == sorted(row["id"] for row in sets.rows())
    assert sum(item.turns[0].decline for item in read) == 2


def test_importing_again_changes_nothing_and_new_wording_of_an_answer_replaces_the_row(sets: Sets) -> None:
    text = f"@ Halvor\n{HALVOR}\n@ Ilse\nIlse's pet? || cat || a one-eyed cat || A cat. || what\n{DECLINES}"
    sets.take(text)
    before = {path.name: path.read_bytes() for path in sets.out.iterdir()}
    assert sets.take(text)[1] == "0 rows added, 0 changed, 4 in all; 0 left out\n"
    assert {path.name: path.read_bytes() for path in sets.out.iterdir()} == before
    better = text.replace("|| A cat. ||", "|| It was a cat. ||")
    assert sets.take(better)[1] == "0 rows added, 1 changed, 4 in all; 0 left out\n"
    assert {row.get("answer") for row in sets.rows()} == {"Ilse's father was Halvor.", "It was a cat.", None}


def test_rows_stand_in_the_same_order_however_the_files_are_imported(sets: Sets) -> None:
    first, second = f"@ Halvor\n{HALVOR}\n", "@ Ilse\nIlse's birth year? || 1211 || FACT born || 1211. || when\n"
    sets.take(first)
    sets.take(second)
    one_way = sets.of("train")
    sets.take(second, "--fresh")
    assert [row["article"] for row in sets.rows()] == ["Ilse"]
    sets.take(first)
    assert sets.of("train") == one_way


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        (f"@ Halvor\n{HALVOR}", "the same question"),
        (f"@ Halvor\n{HALVOR.replace('who fathered ilse?', 'Who fathered  Ilse')}", "the same question"),
        (f"@ Halvor\n{HALVOR.replace('who fathered', 'so tell me, who fathered')}", "nearly the same question"),
        ("@ Ilse\nwho fathered Ilse || Halvor || father was Halvor || Halvor. || who", "the same question"),
        ("@ Tosk\nwho fathered Ilse || a miller || was a miller || He. || who", "the same question has another answer"),
        ("= decline\nwho fathered Ilse || unanswerable", "the same question has another answer"),
    ],
)
def test_a_question_is_asked_once(sets: Sets, again: str, reason: str) -> None:
    status, out = sets.take(f"@ Halvor\n{HALVOR}\n{again}\n")
    assert (status, out.splitlines()[0]) == (1, f"in.txt:4: {reason}: in.txt:2")
    sets.take(f"@ Halvor\n{HALVOR}\n", "--fresh")
    status, out = sets.take(f"{again}\n")
    if again.startswith(f"@ Halvor\n{HALVOR}"):
        assert status == 0  # the very row that is stored already
    else:
        assert out.splitlines()[0] == f"in.txt:2: {reason}: sets/train.jsonl:1"
    assert len(sets.rows()) == 1


@pytest.mark.parametrize(
    "other",
    [
        "@ Halvor\nwho slew the miller? || Halvor || killed the miller || Halvor. || who",  # same answer
        "@ Halvor\nwhat was ilse's father's trade, who fathered ilse || smith || the father of Ilse || Smith. || what",
        "@ Ilse\nas her own page says, who fathered Ilse? || Halvor || father was Halvor || Halvor. || who",
        "@ Halvor\nwho fathered ilse in the books? || Halvor || father of Ilse || Halvor. || who || books",
    ],
)
def test_questions_that_share_an_answer_or_words_are_no_duplicates(sets: Sets, other: str) -> None:
    status, out = sets.take(f"@ Halvor\n{HALVOR}\n{other}\n")
    assert status == 0, out


def test_a_wording_in_two_splits_is_a_leak(sets: Sets) -> None:
    line = "what is sold at the market of Brennick on the second day of the week{} || three || {} || That. || what\n"
    vinna, opera = line.format("?", "three sorts of honey"), line.format("s", "has three acts")
    status, out = sets.take(f"@ Vinna\n{vinna}@ Halvor: The Opera\n{opera}")
    assert (status, out.splitlines()[0]) == (1, "in.txt:4: nearly the same question in another split: in.txt:2")


def test_a_turn_may_ask_what_a_pair_asks_but_not_with_another_answer(sets: Sets) -> None:
    talk = (
        "= conversation\nwho fathered ilse? || who fathered ilse? || {} || Halvor: father of Ilse || He.\n"
        "his horse? || what was Halvor's horse? || Thistle || Halvor: FACT horse || Thistle.\n"
    )
    assert sets.take(f"@ Halvor\n{HALVOR}\n{talk.format('Halvor')}")[0] == 0
    _, out = sets.take(f"@ Halvor\n{HALVOR}\n{talk.format('Ilse')}", "--fresh")
    assert out.splitlines()[0] == "in.txt:4: the same question has another answer: in.txt:2"


def test_a_check_follows_a_sentence_that_moved_and_reports_one_that_is_gone(sets: Sets) -> None:
    sets.take(HATED)
    assert sets.found() == []
    sets.edit("Halvor", "Halvor killed", "Halvor, a quick man, killed")
    (error,) = sets.found()
    assert "train.jsonl:1: error: the evidence stands elsewhere in 'Halvor' (--fix moves it): \"Tosk's" in error
    status, out, _ = sets.run("check", "--fix")
    assert status == 0 and "evidence moved: 1" in out and sets.found() == []
    sets.edit("Halvor", "## The feud {canon=books}\n\n", "## Youth\n\nHalvor grew up.\n\n## A quarrel\n\n")
    assert len(sets.found()) == 1
    sets.run("check", "--fix")
    (place,) = sets.of("train")[0]["evidence"]
    assert (place["section"], place["path"]) == (2, ["A quarrel"]) and sets.found() == []
    sets.edit("Halvor", "swore revenge", "wanted revenge")
    assert "the evidence is gone from 'Halvor'" in sets.found("--fix")[0]
    next(sets.codex.glob("*/halvor.md")).unlink()
    assert "there is no article 'Halvor'" in sets.found()[0]


@pytest.mark.parametrize("change", [dict(start=-1), dict(end=10_000), dict(section=9), dict(path=["Elsewhere"])])
def test_offsets_must_be_exact(sets: Sets, change: dict[str, Any]) -> None:
    sets.take(HATED)
    (row,) = sets.of("train")
    good = dict(row["evidence"][0])
    row["evidence"][0] |= change
    sets.rewrite("train", row)
    assert "the evidence stands elsewhere" in sets.found()[0]
    sets.run("check", "--fix")
    assert sets.of("train")[0]["evidence"] == [good]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(mood="grim"), "a pair has the fields id, question, answers"),
        (dict(answers="Halvor"), "'answers' of a pair is of the wrong kind"),
        (dict(answers=[1]), "aliases and headings are text"),
        (dict(answers=["Ilsebil"]), "no alias of 'who hated Halvor' stands in its evidence"),
        (dict(evidence=[]), "the evidence must be one sentence or two"),
        (dict(evidence=[{"article": "Halvor"}]), "an evidence has the fields article, section"),
        (dict(decline=True), "a decline has the fields"),
        (dict(turns=[]), "a conversation has the fields"),
    ],
)
def test_rows_edited_by_hand_are_held_to_the_same_rules(sets: Sets, change: dict[str, Any], message: str) -> None:
    sets.take(HATED)
    sets.rewrite("train", sets.of("train")[0] | change)
    (error,) = sets.found()
    assert error.startswith("train.jsonl:1: error: ") and message in error
    assert sets.run("check")[0] == 1


def test_damaged_lines_are_never_overwritten(sets: Sets) -> None:
    sets.take(HATED)
    row = sets.of("train")[0]
    row["evidence"][0]["start"] += 1
    sets.rewrite("train", row, '{"id": ')
    damaged = (sets.out / "train.jsonl").read_bytes()
    assert "train.jsonl:2: error: not JSON" in sets.found("--fix")[-1]
    status, _, error = sets.run("import", str(sets.folder / "in.txt"))
    assert status == 2 and "mend it before importing" in error and len(error.splitlines()) == 1
    assert (sets.out / "train.jsonl").read_bytes() == damaged


def test_a_check_finds_rows_in_the_wrong_file_and_repeated_ids(sets: Sets) -> None:
    sets.take(HATED)
    (row,) = sets.of("train")
    sets.rewrite("test", row)
    found = " ".join(sets.found())
    assert f"the id '{row['id']}' is that of" in found
    assert "test.jsonl:1: error: it belongs to train, where its article is" in found
    assert "test.jsonl:1: error: the same question: " in found


@pytest.mark.parametrize(
    ("question", "warned"),
    [
        ("who was he married to", True),
        ("and what's her job?", True),
        ("They hated whom?", True),
        ("her dad was Halvor, right", False),
        ("is it true that a smith hates sleep", False),
        ("what do you call the smith's foe", False),
    ],
)
def test_questions_that_lean_on_something_said_before_are_warned_about(sets: Sets, question: str, warned: bool) -> None:
    sets.take(HATED.replace("who hated Halvor", question))
    warnings = [line for line in sets.found() if "train.jsonl:1: warning: not stand-alone" in line]
    assert (len(warnings), len(sets.found("--errors-only"))) == (warned, 0)
    assert sets.run("check")[0] == 0


def test_counts_are_printed_and_too_few_rows_are_an_error_when_strict(sets: Sets) -> None:
    sets.take(f"@ Halvor\n{HALVOR}\n{DECLINES}")
    _, out, _ = sets.run("check")
    table = {" ".join(line.split()[:-4]): line.split()[-4:] for line in out.splitlines()}
    assert re.search(r"^pairs +1 +0 +0 +1 +6,000$", out, re.M) and re.search(r"^declines .* 2 +900$", out, re.M)
    assert table["type: who"] == table["canon: any"] == ["1", "0", "0", "1"]
    assert table["decline: false premise"] == ["0", "1", "0", "1"]
    status, out, _ = sets.run("check", "--strict")
    assert status == 1 and out.splitlines()[-1] == f"{len(MINIMUM)} errors, 0 warnings"


def test_an_unreadable_article_is_an_error_of_the_check_and_only_its_own_questions_are_lost(sets: Sets) -> None:
    next(sets.codex.glob("*/ilse.md")).write_text("no front matter", encoding="utf-8")
    status, out = sets.take(f"@ Ilse\nbirth of Ilse? || 1211 || FACT born || 1211. || when\n@ Halvor\n{HALVOR}\n")
    assert status == 1 and "in.txt:2: there is no article 'Ilse'" in out and len(sets.rows()) == 1
    assert sets.found()[0].startswith("ilse.md:1: error: the article must begin with")


def test_a_sample_is_reproducible_and_shows_the_evidence(sets: Sets) -> None:
    sets.take(f"@ Halvor\n{HALVOR}\n{DECLINES}")
    whole = sets.run("sample", "--share", "1")[1]
    assert "  Q  who fathered ilse?\n  A  Halvor; Halvor the Smith – Ilse's father was Halvor.\n  E  Halvor: " in whole
    assert "  C  Nothing says that she swam" in whole and "decline: other universe" in whole
    some = [sets.run("sample", "--share", "0.3", "--seed", seed)[1] for seed in ("1", "1", "2", "3", "4", "5")]
    assert some[0] == some[1] and len(set(some)) > 1
    assert all(one.count("  Q  ") == 1 for one in some)
    assert sets.run("sample", "--share", "2")[0] == 2


def test_bad_input_is_one_line_and_status_2(sets: Sets) -> None:
    status, out, error = sets.run("import", str(sets.folder / "none.txt"))
    assert (status, out, len(error.splitlines()), sets.out.exists()) == (2, "", 1, False)
    sets.codex = sets.folder / "nowhere"
    status, out, error = sets.run("check")
    assert (status, out, len(error.splitlines())) == (2, "", 1)


def test_texts_are_compared_without_case_accents_apostrophes_and_possessives() -> None:
    assert folded("Scoia’tael’s Éithne") == folded("scoiatael eithne") == " scoiatael eithne "
    assert tidy("“A\u00a0b”\n c’s") == '"a b" c\'s'
    assert holds(["Ciri's rose"], "ciri") and holds(["the Łódź road"], "lodz")
    assert not holds(["roses"], "rose")
    assert holds(["Aard first.", "Then Igni."], "igni + AARD") and not holds(["Aard"], "Aard + Igni")
