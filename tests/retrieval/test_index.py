"""The index follows the archive, survives crashes, and says what is wrong with it."""

from __future__ import annotations

import json
import os

import faiss
import numpy as np
import pytest

from corpus.errors import CirillaError
from retrieval import index as module
from retrieval.errors import IndexDamaged, IndexMismatch, IndexMissing, IndexUnwritable
from retrieval.index import MANIFEST, Manifest, VectorIndex, build
from tests.retrieval.conftest import FakeEncoder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "index"


def contents(folder, encoder) -> dict[int, bytes]:
    index = VectorIndex.open(folder, encoder)
    return {int(id): index._index.reconstruct(int(id)).tobytes() for id in index.ids()}


def data_file(folder):
    return folder / Manifest.read(folder).file


def test_first_build_holds_every_passage(shelf, folder):
    encoder, seen = FakeEncoder(), []
    report = build(shelf.store, encoder, folder, lambda done, total: seen.append((done, total)), batch_size=4)
    count = shelf.store.counts()["passages"]
    assert (report.added, report.removed, report.total, report.embedded) == (count, 0, count, count)
    assert seen[-1] == (count, count) and len(seen) == -(-count // 4)
    index = VectorIndex.open(folder, encoder)
    assert index.ids().tolist() == [row["id"] for row in shelf.store.rows("SELECT id FROM passages ORDER BY id")]
    for id in index.ids():
        assert np.linalg.norm(index._index.reconstruct(int(id))) == pytest.approx(1, abs=1e-6)
    passage = shelf.store.passages(index.ids()[:1])[0]
    cosines, ids = index.search(encoder.encode_passages([(passage.heading, passage.text)]), 3)
    assert ids[0, 0] == passage.id and cosines[0, 0] == pytest.approx(1, abs=1e-3)  # stored as float16


def test_a_second_build_does_nothing(shelf, folder):
    encoder = FakeEncoder()
    build(shelf.store, encoder, folder)
    before, calls = {path: path.stat().st_mtime_ns for path in folder.iterdir()}, encoder.calls
    report = build(shelf.store, encoder, folder)
    assert (report.added, report.removed, report.embedded) == (0, 0, 0) and encoder.calls == calls
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_adding_and_removing_equals_building_from_scratch(shelf, folder, tmp_path):
    encoder = FakeEncoder()
    build(shelf.store, encoder, folder)
    shelf.drop("Iorveth")
    shelf.put("Eithné", ("", "A queen who is spoken of in quite other words now."))
    shelf.put("Vesemir", ("", "The oldest witcher."), ("Death", "He fell at the keep."))
    report = build(shelf.store, encoder, folder)
    assert (report.added, report.removed, report.embedded) == (3, 2, 3)
    fresh = build(shelf.store, FakeEncoder(), tmp_path / "fresh")
    assert fresh.embedded == 0 and fresh.added == fresh.total == report.total
    assert contents(folder, encoder) == contents(tmp_path / "fresh", encoder)
    assert len(list(folder.iterdir())) == 2  # the file before was removed


def test_killed_embedding_goes_on_where_it_stopped(shelf, folder, tmp_path):
    total = shelf.store.counts()["passages"]
    with pytest.raises(KeyboardInterrupt):
        build(shelf.store, FakeEncoder(fail_after=6), folder, batch_size=3)
    assert shelf.store.counts()["vectors"] == 6
    assert not folder.exists()
    encoder = FakeEncoder()
    assert build(shelf.store, encoder, folder, batch_size=3).embedded == encoder.calls == total - 6
    assert contents(folder, encoder).keys() == {row["id"] for row in shelf.store.rows("SELECT id FROM passages")}


@pytest.mark.parametrize("step", ["write", "sync", "name", "manifest"])
def test_a_crash_before_the_swap_leaves_the_old_index(shelf, folder, monkeypatch, step):
    encoder = FakeEncoder()
    build(shelf.store, encoder, folder)
    before = contents(folder, encoder)
    shelf.put("Vesemir", ("", "The oldest witcher."))

    def crash(*args):
        raise KeyboardInterrupt

    replace = os.replace
    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr(faiss, "write_index", crash)
        elif step == "sync":
            patch.setattr(module, "_sync", crash)
        else:
            name = MANIFEST if step == "manifest" else ".faiss"
            patch.setattr(os, "replace", lambda a, b: crash() if str(b).endswith(name) else replace(a, b))
        with pytest.raises(KeyboardInterrupt):
            build(shelf.store, encoder, folder)
    assert contents(folder, encoder) == before
    assert build(shelf.store, encoder, folder).added == 1
    assert len(contents(folder, encoder)) == len(before) + 1
    assert len(list(folder.iterdir())) == 2  # nothing is left lying about


def test_a_full_disk_is_one_line_and_keeps_the_old_index(shelf, folder, monkeypatch):
    encoder = FakeEncoder()
    build(shelf.store, encoder, folder)
    before = contents(folder, encoder)
    shelf.put("Vesemir", ("", "The oldest witcher."))

    def full(*args):
        raise RuntimeError("Error in write: 'ret == size' failed: write error (No space left on device)")

    with monkeypatch.context() as patch:
        patch.setattr(faiss, "write_index", full)
        with pytest.raises(IndexUnwritable, match="free some space"):
            build(shelf.store, encoder, folder)
    assert contents(folder, encoder) == before


def test_another_encoder_replaces_everything(shelf, folder):
    build(shelf.store, FakeEncoder("old"), folder)
    new = FakeEncoder("new", dimension=32)
    with pytest.raises(IndexMismatch, match="--ingest"):
        VectorIndex.open(folder, new)
    report = build(shelf.store, new, folder)
    assert report.embedded == report.added == report.total
    assert VectorIndex.open(folder, new).manifest.dimension == 32
    assert shelf.store.counts()["vectors"] == report.total  # those of the old encoder went
    with pytest.raises(IndexMismatch):
        VectorIndex.open(folder, FakeEncoder("old"))


def truncate(folder):
    data_file(folder).write_bytes(data_file(folder).read_bytes()[:-100])


def alter(folder):
    data = bytearray(data_file(folder).read_bytes())
    data[len(data) // 2] ^= 255
    data_file(folder).write_bytes(data)


def edit(**changes):
    def apply(folder):
        path = folder / MANIFEST
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


DAMAGE = [
    ("truncated", truncate, IndexDamaged),
    ("altered", alter, IndexDamaged),
    ("file gone", lambda folder: data_file(folder).unlink(), IndexDamaged),
    ("garbage", lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe{"), IndexDamaged),
    ("not JSON", lambda folder: (folder / MANIFEST).write_text('{"format": 1,'), IndexDamaged),
    ("a list", lambda folder: (folder / MANIFEST).write_text("[1]"), IndexDamaged),
    ("empty", lambda folder: (folder / MANIFEST).write_text(""), IndexDamaged),
    ("incomplete", lambda folder: (folder / MANIFEST).write_text('{"format": 1}'), IndexDamaged),
    ("count", edit(count=3), IndexDamaged),
    ("path", edit(file="../archive.sqlite"), IndexDamaged),
    ("type", edit(count="16"), IndexDamaged),
    ("dimension", edit(dimension=8), IndexDamaged),
    ("format", edit(format=99), IndexMismatch),
    ("model", edit(model_hash="other"), IndexMismatch),
    ("missing", lambda folder: (folder / MANIFEST).unlink(), IndexMissing),
]


@pytest.mark.parametrize(("harm", "error"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_damage_is_found_named_and_mended(shelf, folder, harm, error):
    encoder = FakeEncoder()
    build(shelf.store, encoder, folder)
    before = contents(folder, encoder)
    harm(folder)
    with pytest.raises(error) as caught:
        VectorIndex.open(folder, encoder)
    assert isinstance(caught.value, CirillaError)
    assert "python app.py --ingest" in str(caught.value) and "\n" not in str(caught.value)
    assert build(shelf.store, encoder, folder).embedded == 0  # the remedy works, and costs no embedding
    assert contents(folder, encoder) == before


def test_no_folder(tmp_path):
    with pytest.raises(IndexMissing, match="--ingest"):
        VectorIndex.open(tmp_path / "nowhere", FakeEncoder())


def test_an_empty_archive_gives_an_empty_index(store, folder):
    encoder = FakeEncoder()
    assert build(store, encoder, folder).total == 0
    cosines, ids = VectorIndex.open(folder, encoder).search(encoder.encode_queries(["ciri"]), 5)
    assert cosines.shape == ids.shape == (1, 0)


@pytest.fixture(params=["flat", "ivf"])
def kind(request, monkeypatch):
    if request.param == "ivf":
        monkeypatch.setattr(module, "IVF_FROM", 1)
    return request.param


def test_search_agrees_with_brute_force_in_every_kind_of_index(shelf, folder, kind):
    encoder = FakeEncoder()
    build(shelf.store, encoder, folder)
    shelf.drop("Iorveth")
    build(shelf.store, encoder, folder)
    index = VectorIndex.open(folder, encoder)
    assert index.manifest.kind == kind
    queries = encoder.encode_queries(["the forest of the dryads", "a witcher with a horse"])
    [(stored, halves)] = shelf.store.iter_vectors(encoder.model_hash)
    assert index.ids().tolist() == stored.tolist()
    rows = halves.astype(np.float32)  # (n, d)
    for allowed in (None, index.ids()[::2]):
        mask = np.ones(len(rows), bool) if allowed is None else np.isin(index.ids(), allowed)
        cosines, ids = index.search(queries, 4, allowed)
        expected = np.where(mask, queries @ rows.T, -9)
        order = np.argsort(-expected, axis=1, kind="stable")[:, :4]
        assert ids.tolist() == index.ids()[order].tolist()
        assert cosines == pytest.approx(np.take_along_axis(expected, order, 1), abs=2e-3)


def test_an_inverted_file_follows_the_archive_and_is_made_anew_when_it_outgrew_its_cells(shelf, folder, monkeypatch):
    monkeypatch.setattr(module, "IVF_FROM", 1)
    encoder = FakeEncoder()
    build(shelf.store, encoder, folder)
    before = VectorIndex.open(folder, encoder)._index
    shelf.drop("Iorveth")
    shelf.put("Vesemir", ("", "The oldest witcher."), ("Death", "He fell at the keep."))
    report = build(shelf.store, encoder, folder)
    index = VectorIndex.open(folder, encoder)
    assert (report.added, report.removed, report.total) == (2, 1, len(index)) == (2, 1, len(index.ids()))
    assert index.ids().tolist() == [row["id"] for row in shelf.store.rows("SELECT id FROM passages ORDER BY id")]
    assert index._index.nlist == before.nlist
    assert np.array_equal(index._index.quantizer.reconstruct_n(), before.quantizer.reconstruct_n()), "cells stayed"
    for number in range(5 * len(index)):
        shelf.put(f"Hamlet {number}", ("", f"A hamlet of {number} huts by the river."))
    build(shelf.store, encoder, folder)
    grown = VectorIndex.open(folder, encoder)
    assert len(grown) == 6 * len(index) and grown._index.nlist > 2 * before.nlist


class Vectors:
    """As much of a store as making an inverted file takes; ids count from 1,000."""

    def __init__(self, rows: np.ndarray) -> None:
        self.ids, self.rows = np.arange(1_000, 1_000 + len(rows)), rows.astype(np.float16)

    def iter_vectors(self, model: str):
        yield self.ids, self.rows


def test_an_inverted_file_finds_nearly_all_and_under_a_narrow_filter_all(monkeypatch):
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.standard_normal((80, 16)), 50, axis=0) + 0.5 * rng.standard_normal((4_000, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = rows[::100].astype(np.float32)  # (40, 16)
    store, encoder = Vectors(rows), FakeEncoder(dimension=16)
    made = module._empty(store, encoder, "ivf", store.ids)  # type: ignore[arg-type]
    made.add_with_ids(rows.astype(np.float32), store.ids)
    manifest = Manifest(1, "", "ivf", "fake", 16, module.METRIC, len(rows), 0, "", "")
    index = VectorIndex(made, manifest)
    exact = store.ids[np.argsort(-queries @ rows.T, axis=1)[:, :10]]

    def recall(probes: int) -> float:
        monkeypatch.setattr(module, "PROBES", probes)
        found = index.search(queries, 10)[1]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)]))

    assert recall(1) < 0.95 < recall(16), "127 cells"
    monkeypatch.setattr(module, "PROBES", 1)
    allowed = rng.choice(store.ids, 12, replace=False)
    for row in index.search(queries, 12, allowed)[1]:
        assert sorted(row) == sorted(allowed)


def test_search_asks_for_no_more_than_there_is(shelf, folder):
    encoder = FakeEncoder()
    build(shelf.store, encoder, folder)
    index, query = VectorIndex.open(folder, encoder), encoder.encode_queries(["ciri"])
    assert index.search(query, 1000)[1].shape == (1, len(index))
    assert index.search(query, 5, np.array([], dtype=np.int64))[1].shape == (1, 0)
    known = index.ids()[:1]
    assert index.search(query, 5, np.array([known[0], 12345]))[1].tolist() == [[known[0], -1]]
