"""Look inside: what is drawn comes from the run, lies where it should, and is never anybody else's markup."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from itertools import pairwise

import gradio as gr
import numpy as np
import pytest

from app import charts, copied, inside, inside_views
from app import embedding_map as em
from lm.reader import TracedToken
from retrieval.search import Hit
from tests.app.conftest import CountingEncoder
from tests.app.test_chat import EVIL, Tags

QUESTION = "Why did Orsolya heal Tobiah?"
RAISED = "Orsolya was raised by the hermit Maruk"


def figure(plot):
    return json.loads(plot.plot)


def traced(text: str, **changes) -> tuple[TracedToken, ...]:
    """A draft as tokens of four letters."""
    return tuple(TracedToken(text[at : at + 4], 0.5, **changes) for at in range(0, len(text), 4))


@pytest.fixture
def answer(make):
    """An answer by quoted evidence, with a draft that the decoder wrote in vain."""
    asked = make("Orsolya healed a dragon [1].").ask(QUESTION)
    return replace(asked, tokens=traced("Orsolya healed a dragon [1]."))


# -- text that is not ours -----------------------------------------------------------------------------------------


def test_plotly_gets_no_markup_from_outside(answer):
    evil = f'<b>{EVIL}</b> <a href="javascript:alert(1)">x</a> &lt;i&gt; $\\alpha$ %{{x}}\n\0'
    hits = tuple(replace(hit, passage=replace(hit.passage, heading=evil, text=evil)) for hit in answer.hits)
    worse = replace(
        answer, hits=hits, read=hits[:2], excerpts=(evil, evil), standalone_question=evil,
        timings={evil: 3.0, "total": 3.0}, tokens=traced(evil, runners_up=((evil, 0.1),), experts=((0,), (1,))),
    )  # fmt: skip
    views = [
        inside_views.question_view(Letters(), worse),
        inside_views.candidate_view(worse),
        inside_views.draft_view(worse),
        inside_views.expert_view(worse),
        inside_views.timing_view(worse),
    ]
    lit = [charts.Lit(0, 0, evil, evil, "")]
    traces = charts.points(np.zeros((1, 2), np.int16), [evil], [evil])
    plots = [plot for _, plot in views] + [charts.embedding_map(traces, lit, (0, 0))]
    for plot in plots:
        for text in texts(figure(plot)):
            bare = text.replace("<br>", "")
            assert "<" not in bare and "$" not in bare and "%{" not in bare, text
    page = Tags("".join(html for html, _ in views))
    assert not {"script", "img", "a"} & set(page.tags) and "<script>alert(1)</script>" in page.text
    assert not any(set("${}`@") & set(html) for html, _ in views)  # nothing for Gradio's templates


def texts(value):
    """Every text in a figure that Plotly may read as its own small HTML."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "bdata":
                yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def test_plain_text_can_be_read_back():
    assert charts.plain("a < b & c > d $1") == "a &lt; b &amp; c &gt; d &#36;1"
    assert charts.plain("one two three", 7) == "one two<br>three" and charts.plain("", 7) == ""


# -- tokens --------------------------------------------------------------------------------------------------------


class Letters:
    """A byte-level tokenizer with a token a byte, spelt as GPT-2 spells them."""

    def encode(self, text, add_special_tokens=True):
        assert not add_special_tokens
        return type("Encoding", (), {"ids": list(text.encode())})

    def decode(self, ids, skip_special_tokens=True):
        return bytes(ids).decode(errors="replace")

    def id_to_token(self, id):
        return {0xC3: "Ã", 0xA9: "©"}.get(id, chr(id))


def test_tokens_of_the_question_with_their_numbers(answer):
    assert inside_views.pieces(Letters(), "é!") == [("‹C3›", 0xC3), ("‹A9›", 0xA9), ("!", 33)]
    html, plot = inside_views.question_view(Letters(), replace(answer, standalone_question="Hi you"))
    bars = figure(plot)["data"][0]
    assert bars["text"] == ["H", "i", "·", "y", "o", "u"] and "token 72" in bars["hovertext"][0]
    assert "6 tokens for 6 characters" in html and f"<td>{ord('H')}</td>" in html


def test_a_byte_of_the_real_vocabulary_is_shown_by_its_number():
    # GPT-2's table: 256 + the place among the bytes that have no letter of their own.
    assert inside_views._byte("Ġ") == 0x20 and inside_views._byte("Ċ") == 0x0A and inside_views._byte("ł") == 0xA0


def test_boxes_keep_their_order_and_never_overlap():
    boxes = [charts.Box("x" * n, "") for n in (3, 9, 1, 200, 2, 40, 38, 1, 1)]
    places = charts.rows_of(boxes)
    assert [row for row, _, _ in places] == sorted(row for row, _, _ in places)
    for (row, column, width), (below, after, _) in pairwise(places):
        assert below > row or after == column + width
    assert all(column + width <= charts.COLUMNS for _, column, width in places)


def test_runs_are_the_longest_that_a_passage_holds():
    passages = ["Orsolya healed Tobiah after the siege.", "The hermit healed Tobiah after the siege of Brennport."]
    draft = "Orsolya healed Tobiah, after the siege of Brennport. The dragon"
    found = [(draft[run.start : run.end], run.passage, run.words) for run in copied.runs(draft, passages)]
    # Greedy from the left: the first passage's run is cut where it ends; "The" alone says nothing, "dragon" is new.
    assert found == [("Orsolya healed Tobiah, after the siege", 1, 6), ("of Brennport", 2, 2)]
    assert copied.runs("", passages) == [] and copied.runs("the", passages) == []


def test_pieces_of_a_word_share_its_run():
    pieces = ["Or", "soly", "a", " healed", " a", " drag", "on", "."]
    found = copied.of_pieces(pieces, ["Orsolya healed Tobiah."])
    assert [run.passage if run else 0 for run in found] == [1, 1, 1, 1, 0, 0, 0, 0]


def test_the_draft_is_shown_with_probabilities_sources_and_marks(answer):
    tokens = (
        TracedToken("Orsolya", 0.9, (("Tobiah", 0.05),)),
        TracedToken(" healed", 0.2, speculated=True),
        TracedToken(" dragons", 0.1),
    )
    html, plot = inside_views.draft_view(replace(answer, tokens=tokens))
    boxes, strips, *_ = figure(plot)["data"]
    assert boxes["marker"]["color"] == [0.9, 0.2, 0.1] and boxes["marker"]["pattern"]["shape"] == ["", "/", ""]
    assert "“Tobiah” 5.0%" in boxes["hovertext"][0] and "copied from passage" in boxes["hovertext"][0]
    assert "speculated" in boxes["hovertext"][1] and "copied" not in boxes["hovertext"][2]
    assert len(strips["base"]) == 2
    assert "2 of them stand in words that were copied" in html and "1 were speculated" in html


def test_only_what_was_read_is_called_a_source(answer):
    tokens = (TracedToken("Orsolya healed Tobiah", 0.9),)
    unread = tuple("Nothing of it." for _ in answer.read)
    html, _ = inside_views.draft_view(replace(answer, tokens=tokens, excerpts=unread))
    assert "0 of them stand in words that were copied" in html


def test_every_stage_has_a_name(answer):
    assert set(answer.timings) - set(inside_views.MOMENTS) <= set(inside_views.STAGES)
    assert {"search", "second", "evidence", "total"} <= set(answer.timings)


def test_a_refused_draft_is_said_and_shown_with_the_reason(answer):
    html, _ = inside_views.draft_view(answer)
    assert answer.generator == "evidence" and "did not pass the check" in html
    assert "<q>Orsolya healed a dragon [1].</q>" in html and "“dragon” is not in the passage" in html


def test_silence_of_the_decoder_is_told_apart_from_a_refused_draft(answer):
    html, _ = inside_views.draft_view(replace(answer, tokens=traced("The archives do not say.")))
    assert "wrote that the archives do not say" in html and "did not pass" not in html


def test_a_kept_draft_is_not_called_refused(make):
    kept = make(lambda passages: f"{RAISED} [1].").ask("Who raised Orsolya?")
    html, _ = inside_views.draft_view(replace(kept, tokens=traced(f"{RAISED} [1].")))
    assert kept.generator == "cirilla" and "<td>kept</td>" in html and "did not pass" not in html


def test_without_a_draft_the_reason_is_given(make):
    quoted = make().ask(QUESTION)
    assert "no decoder was asked" in inside_views.draft_view(quoted)[0]
    silent = make("x").ask("Who is Gandalf?")
    html, plot = inside_views.draft_view(silent)
    assert silent.abstained and plot is None and "declined before the decoder was asked" in html
    assert f"{silent.confidence:.0%}" in html


def test_experts_are_counted_by_layer(answer):
    tokens = (TracedToken("a", 1.0, experts=((0,), (1, 2))), TracedToken("b", 1.0, experts=((3,), (1, 0))))
    html, plot = inside_views.expert_view(replace(answer, tokens=tokens))
    z = figure(plot)["data"][0]["z"]
    counts = np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]).reshape(2, 4)
    assert counts.tolist() == [[1, 0, 0, 1], [1, 2, 1, 0]] and "layer 1: expert 1, 2 tokens" in html
    assert inside_views.expert_view(answer) == ("", None)


# -- candidates and time -------------------------------------------------------------------------------------------


def test_every_stage_stands_beside_the_others_with_its_rank(answer):
    html, plot = inside_views.candidate_view(answer)
    data = figure(plot)["data"]
    assert len(data) == 3  # no second stage in this run
    for bars, score, rank in ((data[0], "bm25", "bm25_rank"), (data[1], "dense", "dense_rank")):
        assert bars["x"] == [getattr(hit, score) or 0.0 for hit in answer.hits]
        assert bars["text"] == [f"#{getattr(hit, rank)}" if getattr(hit, rank) else "" for hit in answer.hits]
    cited = [colour == charts.STATES["cited"] for colour in data[0]["marker"]["color"]]
    assert cited == [any(c.passage == hit.passage.text for c in answer.citations) for hit in answer.hits]
    assert any(cited) and f"<mark>{answer.citations[0].quote}</mark>" in html


def test_a_second_stage_gets_a_column_of_its_own(answer):
    @dataclass(frozen=True, slots=True)
    class Again(Hit):
        second: float | None = None

    scores = [0.1, 0.9, *[None] * (len(answer.hits) - 2)]
    hits = tuple(
        Again(h.passage, h.score, h.bm25, h.bm25_rank, h.dense, h.dense_rank, second=score)
        for h, score in zip(answer.hits, scores, strict=True)
    )
    html, plot = inside_views.candidate_view(replace(answer, hits=hits))
    data = figure(plot)["data"]
    assert len(data) == 4 and data[2]["text"][:2] == ["#2", "#1"] and set(data[2]["text"][2:]) == {""}
    assert 'scope="col">second stage' in html


def test_times_add_up_to_the_total(answer):
    timings = {"rewrite": 1.0, "search": 10.0, "first_token": 15.0, "draft": 20.0, "total": 40.0}
    html, plot = inside_views.timing_view(replace(answer, timings=timings))
    bars = figure(plot)["data"]
    assert [bar["name"] for bar in bars] == ["understand the question", "search", "draft", "other"]
    assert sum(bar["x"][0] for bar in bars) == 40.0
    assert figure(plot)["layout"]["shapes"][0]["x0"] == 15.0 and "most of them for “draft”" in html


# -- the map -------------------------------------------------------------------------------------------------------


def clusters(groups: int = 12, each: int = 40, d: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around random centres, and the centre of each."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(groups, d))
    of = np.repeat(np.arange(groups), each)
    vectors = centres[of] + rng.normal(scale=0.6, size=(len(of), d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), of


def alike(y: np.ndarray, of: np.ndarray, k: int = 10) -> float:
    """Share of each point's nearest ``k`` that belong to its group."""
    distances = ((y[:, None] - y[None]) ** 2).sum(axis=2)
    nearest = np.argsort(distances, axis=1)[:, 1 : k + 1]
    return float((of[nearest] == of[:, None]).mean())


def test_neighbours_stay_together_better_than_in_two_components():
    vectors, of = clusters()
    y = em.neighbour_embedding(vectors)
    assert np.isfinite(y).all() and alike(y, of) > 0.9 > alike(em.components(vectors), of)
    assert np.array_equal(y, em.neighbour_embedding(vectors))  # the same map every time


@pytest.mark.parametrize("n", [0, 1, 2, 5, em.NEIGHBOURS + 1])
def test_tiny_archives_have_a_map_too(n):
    y = em.neighbour_embedding(np.eye(max(n, 1), 8, dtype=np.float32)[:n])
    assert y.shape == (n, 2) and np.isfinite(y).all()
    assert em._whole(y).dtype == np.int16


def test_copies_of_one_passage_do_not_break_the_map():
    y = em.neighbour_embedding(np.tile(np.eye(1, 8, dtype=np.float32), (60, 1)))
    assert np.isfinite(y).all()


def test_the_map_is_made_once_and_kept(make, tmp_path, monkeypatch):
    pipeline = make()
    index, model = pipeline.searcher.index, CountingEncoder.model_hash
    maps = em.Maps(tmp_path / "map")
    first = maps.layout(pipeline.store, index, model)
    assert first.method in ("components", "neighbours") and len(first.ids) == first.total == len(index)
    maps.wait()
    kept = maps.layout(pipeline.store, index, model)
    assert kept.method == "neighbours" and np.array_equal(kept.ids, index.ids())

    def never(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(em, "neighbour_embedding", never)
    monkeypatch.setattr(em, "components", never)
    again = em.Maps(tmp_path / "map").layout(pipeline.store, index, model)
    assert np.array_equal(again.xy, kept.xy) and again.method == "neighbours"


def test_a_damaged_or_outdated_map_is_made_again(make, tmp_path):
    pipeline = make()
    folder = tmp_path / "map"
    folder.mkdir()
    version = pipeline.searcher.index.manifest.sha256[:16]
    (folder / f"map-{em.FORMAT}-{version}.npz").write_bytes(b"PK\x03\x04 broken")
    (folder / "map-1-older.npz").write_bytes(b"")
    maps = em.Maps(folder)
    maps.layout(pipeline.store, pipeline.searcher.index, CountingEncoder.model_hash)
    maps.wait()
    assert [path.name for path in folder.iterdir()] == [f"map-{em.FORMAT}-{version}.npz"]
    fresh = em.Maps(folder).layout(pipeline.store, pipeline.searcher.index, CountingEncoder.model_hash)
    assert fresh.method == "neighbours"


def test_a_folder_that_cannot_be_written_costs_only_the_file(make, tmp_path):
    pipeline = make()
    (tmp_path / "map").write_text("a file where the folder should be")
    maps = em.Maps(tmp_path / "map")
    maps.layout(pipeline.store, pipeline.searcher.index, CountingEncoder.model_hash)
    maps.wait()
    assert maps.layout(pipeline.store, pipeline.searcher.index, "counting").method == "neighbours"


def test_a_large_archive_is_sampled_and_its_other_passages_still_have_a_place(make, tmp_path, monkeypatch):
    monkeypatch.setattr(em, "SAMPLE_ABOVE", 4)
    monkeypatch.setattr(em, "SAMPLE", 3)
    pipeline = make()
    index = pipeline.searcher.index
    layout = em.Maps(tmp_path).layout(pipeline.store, index, CountingEncoder.model_hash)
    assert len(layout.ids) == 3 and layout.total == len(index) > 4
    missing = next(int(id) for id in index.ids() if id not in layout.ids)
    assert layout.of(missing) is None
    passage = pipeline.store.passage(missing)
    place = layout.place(pipeline.encoder.encode_passages([(passage.heading, passage.text)])[0], index)
    low, high = layout.xy.min(axis=0), layout.xy.max(axis=0)
    assert place is not None and (low <= place).all() and (place <= high).all()


def test_the_seven_largest_groups_have_a_colour_and_the_rest_share_one():
    groups = [f"g{at}" for at in range(9) for _ in range(20 - at)]
    traces = charts.points(np.zeros((len(groups), 2), np.int16), groups, groups)
    assert [trace["name"] for trace in traces] == [*(f"g{at}" for at in range(7)), "other"]
    assert len({trace["marker"]["color"] for trace in traces}) == 8
    assert sum(len(trace["hovertext"]) for trace in traces) == len(groups)
    many = charts.points(np.zeros((charts.SVG_POINTS + 1, 2), np.int16), ["h"] * 9999, ["g"] * (charts.SVG_POINTS + 1))
    assert {trace["type"] for trace in traces} == {"scatter"} and {trace["type"] for trace in many} == {"scattergl"}


def test_a_map_of_ten_thousand_passages_stays_light():
    rng = np.random.default_rng(1)
    xy = rng.integers(-9999, 9999, (10_000, 2)).astype(np.int16)
    plot = charts.embedding_map(charts.points(xy, ["Article › Section of it"] * 10_000, ["kind"] * 10_000), [], None)
    assert len(plot.plot) < 500_000


# -- the tab -------------------------------------------------------------------------------------------------------


def test_the_tab_draws_an_answer_and_its_absence(make):
    pipeline = make("Orsolya healed a dragon [1].")
    with gr.Blocks():
        look = inside.tab(pipeline)
    for answer in (None, pipeline.ask(QUESTION), pipeline.ask("Who is Gandalf?"), pipeline.ask("?")):
        values = look.draw(answer)
        assert len(values) == len(look.outputs)
        for component, value in zip(look.outputs, values, strict=True):
            if isinstance(component, gr.HTML):
                assert isinstance(value, str)
    look.maps.wait()


def test_question_and_passages_are_lit_where_they_lie(make):
    pipeline = make()
    look = inside.Inside(pipeline)
    answer = pipeline.ask(QUESTION)
    _, plot = look.map_view(inside_views.focus_of(answer))
    look.maps.wait()
    html, plot = look.map_view(inside_views.focus_of(answer), "canon")
    layout = look.maps.layout(pipeline.store, pipeline.searcher.index, CountingEncoder.model_hash)
    traces = {trace["name"]: trace for trace in figure(plot)["data"]}
    cited = next(hit for hit in answer.hits if inside_views.cited_in(hit, answer))
    assert (traces["cited"]["x"][0], traces["cited"]["y"][0]) == layout.of(cited.passage.id)
    assert traces["cited"]["text"][0] == "[1]" and "your question" in traces and "any telling" in traces
    assert f"[1] {cited.passage.heading}" in html
