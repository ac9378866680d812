"""Grounded conversations: every builder, and the whole recipe on invented articles and questions."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from corpus import grounded
from corpus.chunk import trim
from corpus.grounded_rows import DECLINE, Pool, Question, Shape, assemble, cite
from corpus.grounded_sources import conversations, copies, own_questions, questions, spoken, verbalise, yes_no
from corpus.split import split_of

PEOPLE = ["Orsolya", "Maruk", "Ilvane", "Tobiah", "Cosmin", "Dorrit", "Falk", "Grete", "Jorunn", "Lotte"]
PLACES = ["Marn", "Brennport", "Otterford", "Ravenmoor", "Saltwick"]


def facts(n: int) -> str:
    person, place = PEOPLE[n % len(PEOPLE)], PLACES[n % len(PLACES)]
    return (
        f"{person} was born in {place} and kept {n + 11} mules behind the mill. The neighbours liked the beasts. "
        f"In the year {900 + n} a flood took the bridge of {place}, and nobody rebuilt it. Since then people wade."
    )


def answerable(n: int) -> list[Question]:
    return [
        Question(
            "k",
            (("user", f"How many mules did {PEOPLE[i % len(PEOPLE)]} keep?"),),
            f"{i + 11} mules",
            ((f"T{i % 5}", facts(i)),),
            (f"{i + 11} mules",),
            (f"{i + 11} mules",),
        )
        for i in range(n)
    ]


def test_trimming_keeps_the_answer_and_whole_sentences_on_either_side():
    text = " ".join(f"Sentence number {n} speaks of lamp {n * 7}." for n in range(60))
    places = []
    for n in range(15, 45):
        answer = f"lamp {n * 7}"
        cut = trim(text, f"{answer}.", words=40)
        assert f"{answer}." in cut and len(cut.split()) <= 40 and cut in text and trim(text, f"{answer}.", 40) == cut
        assert cut.startswith("Sentence") and cut.endswith(".")
        places.append(cut.index(f"{answer}.") / len(cut))
    assert min(places) < 0.3 and max(places) > 0.7  # not always at the end


def test_unanswerable_rows_lack_the_answer_and_the_others_cite_it():
    made_of = answerable(60)
    pool = Pool(question.evidence[0] for question in made_of)
    rng = random.Random(0)
    rows = [(q, assemble(q, pool, rng, 0.2, Shape())) for q in made_of for _ in range(5)]
    declined, places, counts = 0, set(), set()
    for question, row in rows:
        assert row is not None
        holding = [n for n, (_, text) in enumerate(row["passages"], 1) if f" {question.answer} " in f" {text} "]
        counts.add(len(row["passages"]))
        if row["answer"] == DECLINE:
            declined += 1
            assert not holding and row["answers"] == row["gold"] == []
        else:
            assert row["answer"] == f"{question.answer} [{holding[0]}]." and holding == row["gold"]
            assert row["answers"] == [question.answer]
            places.add(holding[0])
    assert 0.1 < declined / len(rows) < 0.3
    assert places == {1, 2, 3, 4, 5} and counts == {2, 3, 4, 5}


def test_hard_distractors_are_those_that_the_question_finds():
    pool = Pool((f"T{n}", facts(n)) for n in range(40))
    question = answerable(1)[0]
    near = pool.near("How many mules did Orsolya keep?", 4)
    assert all("Orsolya" in text for _, text in near) and len(near) == 4
    shown = [t for seed in range(30) if (row := assemble(question, pool, random.Random(seed), 0, Shape()))
             for t in row["passages"]]  # fmt: skip
    share = sum("Orsolya" in text for _, text in shown) / len(shown)
    assert share > 0.5  # by chance alone it would be a tenth, and the evidence
    assert pool.near("who is it?", 3) == [] and Pool(()).near("mules", 3) == []


def test_rows_keep_to_their_room():
    long = [Question(q.kind, q.turns, q.answer, ((q.evidence[0][0], " ".join(facts(i) for i in range(n, n + 9))),),
                     (f"{n + 11} mules",), q.answers) for n, q in enumerate(answerable(20))]  # fmt: skip
    pool = Pool(question.evidence[0] for question in long)
    for seed, question in enumerate(long):
        if row := assemble(question, pool, random.Random(seed), 0.1, Shape(words=120, room=300)):
            assert sum(len(text.split()) for _, text in row["passages"]) <= 320
            assert row["answer"] == DECLINE or question.answer in row["passages"][row["gold"][0] - 1][1]


def test_near_rows_have_at_most_two_passages_that_do_not_answer():
    pool = Pool(passage for n in range(30) for question in answerable(n) for passage in question.evidence)
    rng = random.Random(0)
    rows = [assemble(q, pool, rng, 0.3, Shape(near=True)) for n in range(30) for q in answerable(n)]
    made = [row for row in rows if row]
    others = [len(row["passages"]) - len(row["gold"]) for row in made]
    assert {0, 1, 2} == {n for n, row in zip(others, made, strict=True) if row["gold"]}
    silent = [n for n, row in zip(others, made, strict=True) if row["answer"] == DECLINE]
    assert set(silent) == {1, 2, 3}  # where the evidence is taken away, another passage stands in its place


def test_every_sentence_cites_the_passage_it_shares_most_with():
    texts = ["Maruk kept bees on the hill.", "Ilvane ruled Marn."]
    assert cite("Maruk kept bees. Ilvane ruled Marn.", [3, 1], texts) == "Maruk kept bees [3]. Ilvane ruled Marn [1]."
    assert cite("Bees and Marn", [3, 1], texts, all_of_them=True) == "Bees and Marn [3][1]."
    assert cite("Is it Marn?", [2], texts[:1]) == "Is it Marn? [2]"


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("Who ruled Marn before the war?", "Ilvane", "Ilvane ruled Marn before the war."),
        ("Who was the king of Marn?", "Ilvane", "Ilvane was the king of Marn."),
        ("What is the capital of Temeria?", "Vizima", "The capital of Temeria is Vizima."),
        ("When was the bridge built?", "1260", "The bridge was built in 1260."),
        ("When was the bridge built?", "In 1260", "The bridge was built in 1260."),
        ("Where was the sword found?", "Near Marn", "The sword was found near Marn."),
        ("Where was the inn built?", "Inverness", "The inn was built in Inverness."),
        ("Who did Ilvane marry?", "Tobiah", "Tobiah"),
        ("What was the earthquake named?", "Marn's", "Marn's"),
        ("How many mules?", "eleven", "eleven"),
    ],
)
def test_short_answers_become_sentences_only_where_that_is_safe(question, answer, said):
    assert verbalise(question, answer) == said


def test_builders_read_what_their_sets_look_like():
    rng = random.Random(0)
    row = {"context": facts(3), "title": "T", "question": "Where was Tobiah born?", "answers": ["ravenmoor"]}
    (made,) = questions([row], "short", rng)
    assert made.anchors == ("Ravenmoor",) and made.answers == ("ravenmoor",)
    assert not list(questions([{**row, "answerable": False}, {**row, "context": ""}], "short", rng))
    (made,) = yes_no([{**row, "question": "Was Tobiah born in Ravenmoor?", "answers": ["Yes"]}], "yes/no", rng)
    assert made.answer.startswith("Yes: Tobiah was born in Ravenmoor")
    talk = {"passages": [f"Tobiah\n{facts(3)}", f"Orsolya\n{facts(0)}"], "history": ["Who?", "Tobiah."],
            "question": "Where was he born?", "answers": ["Tobiah was born in Ravenmoor."]}  # fmt: skip
    (made,) = conversations([{**talk, "answerability": "ANSWERABLE"}], "conversation", rng)
    assert [role for role, _ in made.turns] == ["user", "assistant", "user"] and made.evidence[0][0] == "Tobiah"
    (made,) = conversations([{**talk, "answerability": "UNANSWERABLE"}], "conversation", rng)
    assert made.answer == DECLINE and len(made.given or ()) == 2
    turns = [{"id": f"c-{n}", "topic": "Marn", "history": ["a", "b"] * n, "question": f"q{n}?", "short_answer": f"s{n}",
              "answers": [f"It is s{n}.", f"The thing is s{n}."]} for n in range(3)]  # fmt: skip
    spoke = list(spoken(turns, "conversation", rng))
    assert [len(q.turns) for q in spoke] == [1, 3, 5] and spoke[0].evidence == spoke[2].evidence
    assert spoke[1].answer == "It is s1." and "The thing is s1." in spoke[1].evidence[0][1]


def test_the_evidence_is_where_the_answer_is_about_the_question():
    early = "A network of two roads leads to Marn. " + "The neighbours liked the beasts very much indeed. " * 30
    text = early + "Tobiah kept two mules behind the mill. " + "People wade since then. " * 9
    row = {"context": text, "title": "T", "question": "How many mules did Tobiah keep?", "answers": ["two"]}
    (made,) = questions([row], "short", random.Random(0))
    assert made.anchors == ("Tobiah kept two mules behind the mill.",)
    got = assemble(made, Pool([("Bees", "Bees are kept.")]), random.Random(0), 0.0, Shape())
    assert got and "Tobiah kept two mules" in got["passages"][got["gold"][0] - 1][1]
    (made,) = questions([{**row, "question": "How many roads lead to Marn?"}], "short", random.Random(0))
    assert made.anchors == ("A network of two roads leads to Marn.",)  # “two” begins inside “network”


def test_copied_answers_stand_word_for_word_in_the_passage_they_cite():
    passages = [(PEOPLE[n % 10], facts(n).replace("the bridge", f"the old bridge of Xan{n}heim")) for n in range(40)]
    rows = list(copies(passages, 120, "copy", random.Random(0), Shape()))
    assert len(rows) > 60 and len({row["turns"][0][1].split()[0] for row in rows}) > 3
    for row in rows:
        said = re.sub(r" \[\d\]\.$", "", row["answer"])
        assert said in row["passages"][row["gold"][0] - 1][1]


def group(id: str, passages: list[tuple[str, str, int]]) -> dict[str, Any]:
    return {"id": id, "query": "q", "kind": "k", "passages": [
        {"heading": h, "text": t, "spans": [[0, len(t)]], "labels": [label]} for h, t, label in passages]}  # fmt: skip


def test_own_questions_stand_among_what_retrieval_brings(tmp_path: Path):
    one = {"id": "a", "question": "Who ruled Marn?", "answers": ["Ilvane"], "answer": "Ilvane ruled it."}
    talk = {"id": "t", "turns": [{**one, "rewrite": "Who ruled Marn?"},
                                 {**one, "question": "And who before her?", "rewrite": "Who ruled Marn before Ilvane?",
                                  "answer": "Maruk did.", "answers": ["Maruk"]}]}  # fmt: skip
    false = {"id": "f", "question": "Why did Ilvane burn Marn?", "decline": True, "reason": "false premise",
             "correction": "She did not: she ruled it."}  # fmt: skip
    silent = {"id": "s", "question": "Who shot first?", "decline": True, "reason": "other universe"}
    gold, other, maybe = ("Marn", "Ilvane ruled Marn.", 1), ("Bees", "Bees are kept.", 0), ("X", "Ilvane sang.", -1)
    both = {**one, "id": "b", "answers": ["Ilvane + Maruk"]}
    groups = [group(id, [other, gold, maybe]) for id in ("a", "t-0", "t-1", "f", "b")] + [group("s", [other])]
    for name, lines in (("q", [one, talk, false, silent, both, {**one, "id": "unknown"}]), ("g", groups)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = list(own_questions(tmp_path / "q", [tmp_path / "g"], "codex"))
    assert [len(q.turns) for q in made] == [1, 1, 3, 1, 1, 1, 1]
    assert made[6].answers == ("Ilvane + Maruk",)  # half of a list is not the answer
    assert made[3].turns == (("user", "Who ruled Marn before Ilvane?"),) and made[3].answer == made[2].answer
    assert made[4].answer == false["correction"] and not made[4].can_miss and made[4].evidence
    assert made[5].answer == DECLINE and not made[5].evidence
    row = assemble(made[0], Pool(()), random.Random(0), 0.0, Shape())
    assert row and sorted(h for h, _ in row["passages"]) == ["Bees", "Marn"]  # what may be right is no distractor
    assert re.fullmatch(r"Ilvane ruled it \[\d\]\.", row["answer"])


def write_zst(path: Path, rows: list[dict]) -> None:
    zstandard = pytest.importorskip("zstandard")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_the_whole_recipe_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = [{"id": f"i-{n}", "context": facts(n), "title": f"T{n % 4}", "answers": [PLACES[n % 5]], "topic": "T",
              "question": f"Where was {PEOPLE[n % 10]} born?", "answerable": n % 3 > 0, "answerability": "ANSWERABLE",
              "history": [], "passages": [f"T\n{facts(n)}"], "short_answer": PLACES[n % 5]}
             for n in range(12)]  # fmt: skip
    for part in grounded.MIXTURE:
        for name in part.files:
            rows = [{**row, "answers": ["Yes"]} for row in plain] if part.builder == "yes_no" else plain
            write_zst(tmp_path / f"data/qa/{name}.jsonl.zst", rows)
    articles = [{"title": f"{name} of {place}", "facts": {"home_town": place, "race": "human"},
                 "text": facts(n) + "\n\n## Life\n\n" + facts(n + 20)}
                for n, (name, place) in enumerate((a, b) for a in PEOPLE for b in PLACES)]  # fmt: skip
    for name in ("witcher/wiki_characters", "lore/got_wiki", "lore/lotr_wiki", "lore/wookieepedia_characters"):
        write_zst(tmp_path / f"data/{name}.jsonl.zst", articles[:25])
    folder = tmp_path / "codex" / "character"
    folder.mkdir(parents=True)
    name = next(person for person in PEOPLE if split_of(person) == "train")
    (folder / "one.md").write_text(
        f"---\ntitle: {name}\nkind: character\ncanon: [books]\nfacts:\n  race: human\nsources: [A Book]\n---\n"
        f"{name} was a healer.\n\n## Life\nMaruk raised her. She had a mule.\n",
        encoding="utf-8",
    )
    (tmp_path / "none.jsonl").write_text("")
    out = tmp_path / "out.jsonl"
    monkeypatch.setattr(sys, "argv", ["x", "--data", str(tmp_path / "data"), "--codex", str(tmp_path / "codex"),
                        "--questions", str(tmp_path / "none.jsonl"), "--share", "0.3", "--out", str(out)])  # fmt: skip
    grounded.main()
    made = [json.loads(line) for line in out.open(encoding="utf-8")]
    kinds = {row["kind"].split(":")[0] for row in made}
    assert kinds >= {"short", "sentence", "conversation", "yes/no", "decline", "copy", "rules"}
    for row in made:
        cited = {int(n) for n in re.findall(r"\[(\d+)\]", row["answer"])}
        assert cited <= set(range(1, len(row["passages"]) + 1)) and (cited or row["answer"] == DECLINE)
        assert row["turns"][-1][0] == "user"
        if row["kind"] == "copy":
            assert all(split_of(heading.split(" › ")[0]) == "train" for heading, _ in row["passages"])
        if row["kind"] == "yes/no":
            assert row["answers"] == ([] if row["answer"] == DECLINE else ["Yes"])


def test_the_decline_is_the_one_that_the_decoder_knows():
    from lm import chat

    assert grounded.DECLINE == chat.DECLINE == DECLINE
