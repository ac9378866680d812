"""Both rankings, fused into hits that say where they come from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from retrieval import fusion
from retrieval.index import VectorIndex, build
from retrieval.search import WEIGHTS, Searcher, distinct
from tests.retrieval.conftest import FakeEncoder


@pytest.fixture
def searcher(shelf, tmp_path):
    return lambda **options: open_searcher(shelf, tmp_path, **options)


def open_searcher(shelf, tmp_path, **options):
    encoder = FakeEncoder(dimension=256)
    build(shelf.store, encoder, tmp_path / "index")
    return Searcher(shelf.store, VectorIndex.open(tmp_path / "index", encoder), encoder, **options)


def test_hits_carry_every_stage(searcher):
    found = searcher().search_timed("Who raised Ciri?", k=5)
    assert found.hits[0].passage.heading == "Cirilla of Cintra › Childhood"
    assert len({hit.passage.id for hit in found.hits}) == len(found.hits) == 5
    for hit in found.hits:
        assert (hit.bm25 is None) == (hit.bm25_rank is None)
        assert hit.dense is not None and -1.001 <= hit.dense <= 1.001
        ranks = zip(WEIGHTS, (hit.bm25_rank, hit.dense_rank), strict=True)
        parts = [weight / (fusion.K + rank) for weight, rank in ranks if rank]
        assert hit.score == pytest.approx(sum(parts))
    assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
    assert set(found.timings) == {"lexical", "encode", "dense", "fuse", "total"}
    assert found.timings["total"] >= max(found.timings["lexical"], found.timings["encode"])


def test_same_question_same_answer(searcher):
    one, other = searcher(), searcher()
    assert one.search("forest of dryads") == other.search("forest of dryads") == one.search("forest of dryads")


def test_misspelt_names_reach_both_rankings(searcher):
    search = searcher()
    found = search.search_timed("What does yenefer smell of?", k=1)
    assert found.corrections == {"yenefer": "Yennefer"}
    assert found.hits == search.search("What does Yennefer smell of?", k=1)
    assert found.hits[0].passage.title == "Yennefer of Vengerberg"


@pytest.mark.parametrize("text", ["", "  \n ", "?!…", "\x00", "\ud800"])
def test_no_question_no_hits(searcher, text):
    assert searcher().search(text) == []


def test_question_words_alone_are_searched_by_meaning(searcher):
    hits = searcher().search("who is it?", k=3)
    assert len(hits) == 3 and all(hit.bm25 is None for hit in hits)


def test_a_hundred_thousand_characters(searcher):
    assert searcher().search("Who raised Ciri? " * 6_000, k=1)[0].passage.heading == "Cirilla of Cintra › Childhood"


def test_canon_holds_for_both_rankings(shelf, searcher):
    canons = {"Novels": "books", "Games": "games", "Series": "tv"}
    shelf.put("Roach", ("", "A mare."), ("Novels", "A chestnut mare on paper."), ("Games", "A mare on a roof."),
              ("Series", "A mare before the camera."), canons=canons)  # fmt: skip
    search = searcher()
    for heading, canon in canons.items():
        hits = search.search("the mare Roach", k=20, canon=canon)
        assert {hit.passage.canon for hit in hits} == {canon, ""}
        assert f"Roach › {heading}" in {hit.passage.heading for hit in hits[:2]}
    assert {hit.passage.canon for hit in search.search("the mare Roach", k=20)} == {"books", "games", "tv", ""}
    with pytest.raises(ValueError, match="canon"):
        search.search("mare", canon="radio")


def test_copies_are_left_out_and_replaced(shelf, searcher):
    text = "A noonwraith haunts the fields at midday and hates everyone who walks there without a shadow of his own."
    shelf.put("Noonwraith", ("", text))
    shelf.put("Noonwraith (game)", ("", text + " Beware!"))
    shelf.put("Midday", ("", "The hour of wraiths in open fields."))
    hits = searcher().search("Which wraith haunts the fields at midday?", k=3)
    assert len(hits) == 3
    assert sum("noonwraith" in hit.passage.text for hit in hits) == 1
    assert "Midday" in {hit.passage.title for hit in hits}
    passages = [hit.passage for hit in hits]
    assert distinct(passages + passages, 9) == passages


def test_texts_that_differ_in_what_matters_both_stay(shelf, searcher):
    text = "A blade of dwarven steel which takes two hands, is sold in Mahakam and adds {} to the damage of its owner."
    shelf.put("Steel blade", ("", text.format(14)))
    shelf.put("Fine steel blade", ("", text.format(19)))
    shelf.put("Sihil", ("Novels", text.format("much")), ("Games", text.format("little")),
              canons={"Novels": "books", "Games": "games"})  # fmt: skip
    hits = searcher().search("Which blade of dwarven steel is sold in Mahakam?", k=4)
    assert sorted(hit.passage.title for hit in hits) == ["Fine steel blade", "Sihil", "Sihil", "Steel blade"]


def test_passages_deleted_since_the_index_was_made_are_left_out(shelf, searcher):
    search = searcher()
    shelf.drop("Eithné")
    assert "Eithné" not in {hit.passage.title for hit in search.search("queen of the dryads of Brokilon", k=20)}


def test_weights_can_silence_a_ranking(searcher):
    hits = searcher(weights=(1.0, 0.0)).search("Who raised Ciri?", k=3)
    assert [hit.bm25_rank for hit in hits] == [1, 2, 3]


def test_threads_may_share_it(searcher):
    search = searcher()
    questions = ["Who raised Ciri?", "What is Scoia'tael?", "queen of the dryads", "Wild Hunt"] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(search.search, questions)) == [search.search(question) for question in questions]
