"""Negatives look right to BM25 and are wrong: never a passage that answers."""

import json
import random
import sys

import pytest

from corpus import pairs
from retrieval import mine
from retrieval.words import plain

BELLS = "Bell founding\nThe bells of Marn were cast by the smith Tobias in a pit behind his forge."
COPY = "Bell founding › Marn\nthe bells of Marn were cast by the smith Tobias in a pit behind his forge, people say."
OTHER = "Tobias\nTobias the smith of Marn shod horses and cast bells for half the coast."
WRONG = "Marn › Bells\nThe bells of Marn ring for fishermen, and nobody knows who cast the oldest of them."
FAR = "Bees\nWenna keeps bees on the eastern slope, where heather grows until the first snow."
CLOZE = "Bell founding\nThe bells of Marn stood in a pit behind his forge. It was dug in the spring of that year."
WHOLE = f"{CLOZE} Tobias cast them there."


def row(query: str, passage: str, answers: tuple[str, ...] = (), kind: str = "set") -> dict:
    return {"query": query, "passage": passage, "answers": list(answers), "kind": kind}


def mined(rows: list[dict], others: list[str], folder, negatives: int = 1, seed: int = 0) -> list[dict]:
    pool = mine.Pool([*(r["passage"] for r in rows), *others], folder)
    return list(mine.mine(rows, pool, negatives, random.Random(seed)))


@pytest.mark.parametrize("seed", range(5))
def test_the_best_match_that_does_not_answer_is_taken(tmp_path, seed):
    asked = row("Who cast the bells of Marn?", BELLS, ("Tobias", "The bells of Marn were cast by the smith Tobias"))
    [made] = mined([asked], [COPY, OTHER, WRONG, FAR], tmp_path, seed=seed)
    assert made["negatives"] == [WRONG] and made["mined"] == 1


def test_where_the_search_finds_too_few_chance_fills_up(tmp_path):
    asked = row("Who cast the bells of Marn?", BELLS, ("Tobias",))
    [made] = mined([asked], [COPY, OTHER, WRONG, FAR], tmp_path, negatives=2)
    assert made["negatives"] == [WRONG, FAR] and made["mined"] == 1
    assert mined([asked], [COPY, OTHER], tmp_path / "small") == [], "no wrong passage, no row"


def test_the_same_question_elsewhere_in_the_file_lends_its_passages(tmp_path):
    rows = [row("who cast the bells of marn", WRONG), row("Who cast the bells of Marn?", BELLS, ("Tobias",))]
    for made in mined(rows, [COPY, OTHER, FAR], tmp_path):
        assert made["negatives"] == [FAR] or "Tobias" not in made["answers"]
        assert not {WRONG, BELLS, COPY} & set(made["negatives"])


def test_a_neighbour_cut_from_the_same_text_is_no_negative(tmp_path):
    for passage, neighbour in ((CLOZE, WHOLE), (WHOLE, CLOZE)):
        [made] = mined(
            [row("bells pit forge spring", passage, ("nothing",))], [neighbour, WRONG], tmp_path / plain(passage)
        )
        assert made["negatives"] == [WRONG]


def test_without_known_answers_no_passage_of_the_article(tmp_path):
    same = "Marn › Harbour\nMarn has a harbour with two moles."
    [made] = mined([row("what is Marn?", "Marn\nMarn is a town on the coast.")], [same, WRONG, OTHER], tmp_path)
    assert made["negatives"] == [OTHER]


ROWS = [
    {
        "title": name,
        "facts": {"home_town": town, "race": "human"},
        "text": f"{name} was a healer of {town} who never turned a patient away from her door, rich or poor.\n\n"
        f"## Life\n\n{name} was raised by the hermit Maruk in the Hollow Hills, far from any road. A mule was all that "
        f"{name} took along when the hermit died and the hills were given to the crown of {town}.\n\n"
        f"## Legacy\n\nA well in {town} bears the name of {name}, and its water is said to taste of iron and mint.",
    }
    for name, town in (("Orsolya", "Marn"), ("Wenna", "Brennport"), ("Ilsa", "Ostra"), ("Tarja", "Marn"))
]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_pairs_no_negative_answers(tmp_path, seed):
    rng = random.Random(seed)
    rows = [pair for r in ROWS for _ in range(3) for pair in pairs.article_pairs(pairs.wiki_article(r), rng)]
    positives: dict[str, set[str]] = {}
    for pair in rows:
        positives.setdefault(plain(pair["query"]), set()).add(pair["passage"])
    made = mined(rows, [FAR, WRONG, OTHER], tmp_path, negatives=2, seed=seed)
    assert len(made) > 0.9 * len(rows) and sum(r["mined"] for r in made) > len(made)
    for r in made:
        assert len(set(r["negatives"])) == 2
        for negative in r["negatives"]:
            assert negative not in positives[plain(r["query"])]
            assert not any(plain(answer) in plain(negative) for answer in r["answers"])
            assert not any(mine.alike(negative, passage) for passage in positives[plain(r["query"])])


def test_the_command(tmp_path, monkeypatch, capsys):
    source, out = tmp_path / "pairs.jsonl", tmp_path / "mined.jsonl"
    rows = [
        row("Who cast the bells of Marn?", BELLS, ("Tobias",)),
        row("ring fishermen", WRONG, ("nobody",)),
        row("b", FAR),
    ]
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.setattr(sys, "argv", ["mine", "--pairs", str(source), "--out", str(out)])
    mine.main()
    written = [json.loads(line) for line in out.open()]
    assert [r["query"] for r in written] == [r["query"] for r in rows]
    assert written[0]["negatives"] in ([WRONG], [FAR])
    assert "3 of 3 pairs" in capsys.readouterr().out
    rows[1]["kind"] = "title"
    source.write_text("".join(json.dumps(r) + "\n" for r in rows))
    monkeypatch.setattr(sys, "argv", ["mine", "--pairs", str(source), "--out", str(out), "--kinds", "title"])
    mine.main()
    (written_one,) = [json.loads(line) for line in out.open()]
    assert written_one["query"] == rows[1]["query"] and written_one["negatives"][0] in (BELLS, FAR), "of all passages"
    monkeypatch.setattr(sys, "argv", ["mine", "--pairs", str(source), "--out", str(out)])
    source.write_text(json.dumps({"query": "q", "passage": "p", "kind": "old"}) + "\n")
    with pytest.raises(SystemExit, match=r"corpus\.pairs"):
        mine.main()
