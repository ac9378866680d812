"""Builders of training data, on invented articles and questions."""

import json
import random

import pytest
import zstandard

from corpus import pairs
from corpus.chunk import passages
from corpus.types import FACTS_PATH

ROW = {
    "title": "Orsolya",
    "facts": {"home_town": "Marn; Brennport", "race": "human"},
    "text": "Orsolya was a healer of Marn who never turned a patient away from her door, rich or poor.\n\n"
    "## Life\n\nOrsolya was raised by the hermit Maruk in the Hollow Hills, far from any road.\n\n"
    "### The siege\n\nDuring the siege of Brennport she nursed the wounded of both armies in one cellar.\n\n"
    "## Legacy\n\nA well in Marn bears her name, and its water is said to taste of iron and mint.",
}


def test_markdown_headings_become_paths_and_facts_a_section():
    article = pairs.wiki_article(ROW)
    assert [s.path for s in article.sections] == [(), ("Life",), ("Life", "The siege"), ("Legacy",), FACTS_PATH]
    assert "Orsolya — home town: Marn, Brennport." in article.sections[-1].text


def test_every_pair_holds_a_passage_of_the_article_or_all_but_a_sentence_of_it():
    article = pairs.wiki_article(ROW)
    whole = {f"{p.heading}\n{p.text}" for p in passages(article)}
    made = [pair for seed in range(30) for pair in pairs.article_pairs(article, random.Random(seed))]
    assert {pair["kind"] for pair in made} >= {"title", "heading", "fact", "sentence"}
    for pair in made:
        assert pair["query"].strip()
        assert pair["passage"] in whole or pair["kind"] == "cloze"
        assert bool(pair["answers"]) == (pair["kind"] not in ("title", "heading"))
        assert (pair["kind"] == "cloze") == any(a not in pair["passage"] for a in pair["answers"] if len(a) > 40)
    facts = {pair["passage"] for pair in made if pair["kind"] == "fact"}
    assert len(facts) == 1 and "home town" in facts.pop()


@pytest.mark.parametrize("seed", range(20))
def test_a_typo_is_one_slip(seed):
    slip = pairs.typo("yennefer", random.Random(seed))
    assert slip[0] == "y" and abs(len(slip) - 8) <= 1
    assert sorted(slip) == sorted("yennefer") or len(slip) != 8
    assert pairs.typo("a 1", random.Random(seed)) == "a 1"


def test_questions_are_paired_with_the_passage_of_their_evidence(tmp_path):
    folder = tmp_path / "codex" / "character"
    folder.mkdir(parents=True)
    (folder / "orsolya.md").write_text(
        "---\ntitle: Orsolya\nkind: character\ncanon: [books]\nfacts:\n  race: human\nsources: [A Book]\n---\n"
        "Orsolya was a healer.\n\n## Life\nMaruk raised her. She had a mule.\n",
        encoding="utf-8",
    )
    start = len("Maruk raised her. ")
    evidence = {"article": "Orsolya", "section": 1, "start": start, "end": start + 15, "text": "She had a mule."}
    row = {"question": "What animal did Orsolya keep?", "answers": ["mule"], "evidence": [evidence]}
    turn = {"question": "And hers?", "rewrite": "Which animal was Orsolya's?", "evidence": [evidence]}
    questions = tmp_path / "train.jsonl"
    questions.write_text(json.dumps(row) + "\n" + json.dumps({"turns": [turn]}) + "\n", encoding="utf-8")
    made = pairs.codex_question_pairs(questions, tmp_path / "codex", random.Random(0))
    assert {pair["query"] for pair in made} == {"What animal did Orsolya keep?", "Which animal was Orsolya's?"}
    assert {pair["passage"] for pair in made} == {"Orsolya › Life\nMaruk raised her. She had a mule."}
    assert {tuple(pair["answers"]) for pair in made} == {("mule", "She had a mule."), ("She had a mule.",)}


def test_questions_over_wiki_pages_find_their_passage_by_offsets_or_by_fact(tmp_path):
    start = str(ROW["text"]).index("Orsolya was raised")
    told = {"article": "Orsolya", "evidence": [{"start": start, "end": start + 41}], "answers": ["Maruk"]}
    fact = {"article": "Orsolya", "evidence": [{"fact": "race"}], "answers": ["human"]}
    declined = {"article": "Orsolya", "question": "Who was her wife?", "decline": True}
    questions = tmp_path / "wiki-train.jsonl"
    rows = [told | {"question": "Who raised Orsolya?"}, fact | {"question": "Of what race?"}, declined]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = pairs.wiki_question_pairs(questions, [{**ROW, "title": "Another"}, ROW])
    by_query = {pair["query"]: pair for pair in made}
    assert by_query.keys() == {"Who raised Orsolya?", "Of what race?"} and len(made) == 6
    assert by_query["Who raised Orsolya?"]["passage"].startswith("Orsolya › Life\n")
    assert "Orsolya was raised by the hermit Maruk in" in by_query["Who raised Orsolya?"]["answers"]
    assert by_query["Of what race?"]["passage"].startswith("Orsolya › Facts\n")


def test_wide_pairs_come_from_every_world_plain_english_and_every_question_set(tmp_path, monkeypatch):
    def put(name: str, *rows: dict) -> None:
        path = tmp_path / f"{name}.jsonl.zst"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zstandard.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))

    for number, (name, _) in enumerate(pairs.WIDE_WORLDS):
        put(f"lore/{name}", {"title": f"World {number}", "text": ROW["text"]}, {"text": "An entry without a name."})
    for name, _, _ in pairs.WIDE_GENERAL:
        put(
            f"general/{name}",
            {"text": f"{name}\n\n{ROW['text']}"},
            {"text": "Title alone"},
            {"text": "T" * 100 + "\n\nx"},
        )
    for name in pairs.WIDE_SETS:
        put(f"qa/{name}", {"question": f"In {name}?", "context": "It is told here.", "answers": ["here"]})
    made = list(pairs.wide_pairs(tmp_path, random.Random(0)))
    titles = {pair["passage"].partition("\n")[0].split(" › ")[0] for pair in made if pair["kind"] == "title"}
    assert titles == {f"World {n}" for n in range(len(pairs.WIDE_WORLDS))} | {name for name, *_ in pairs.WIDE_GENERAL}
    assert {pair["kind"] for pair in made} >= set(pairs.WIDE_SETS)
    with monkeypatch.context() as patch:
        patch.setattr(pairs, "WIDE_WORLDS", [("got_wiki", 1)])
        patch.setattr(pairs, "WIDE_GENERAL", [("simplewiki_2022", 0, 9)])
        patch.setattr(pairs, "WIDE_SETS", [])
        put("lore/got_wiki", *({"title": f"House {n}", "text": ROW["text"]} for n in range(5)))
        few = list(pairs.wide_pairs(tmp_path, random.Random(0)))
    assert len({pair["passage"].partition("\n")[0].split(" › ")[0] for pair in few}) == 1
