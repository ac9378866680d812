"""The archive's tab: what is listed, found and read."""

from __future__ import annotations

import hashlib
import time
from types import SimpleNamespace

import gradio as gr
import torch

from app import archive as tab
from app.catalogue import OTHER, Catalogue, Filter, article_html, decoder_name, index_html
from app.settings import ROOT
from corpus.chunk import passages
from corpus.errors import StoreError
from corpus.store import Source, Store
from corpus.types import Article, Fact, Page, Quote, Section
from lm import files as lm_files
from lm.model import PRESETS, Cirilla
from lm.tokenizer import Tokenizer
from tests.app.test_chat import EVIL, Tags


def put(
    store: Store, title: str, text: str, *, pageid: int = 99, source: str = "other.example",
    url: str = "", revised_at: str = "2026-02-03T04:05:06+00:00", **changes,
) -> int:  # fmt: skip
    """One more article in the archive; its ``pages.id``."""
    page = Page(
        source, pageid, title, 12, url or f"https://{source}/?oldid=12", "<p/>", title, rights="CC BY-SA 3.0",
        rights_url="https://licence.example/", revised_at=revised_at, fetched_at="2026-03-01T10:00:00+00:00",
    )  # fmt: skip
    article = Article(**{"title": title, "sections": (Section((), text),)} | changes)
    store.replace_page(page, article, passages(article))
    return store.rows("SELECT id FROM pages WHERE source = ? AND pageid = ?", [source, pageid])[0]["id"]


def found(pipeline, **wanted) -> list[str]:
    catalogue = Catalogue.of(pipeline.store)
    return [each.entry.title for each in catalogue.find(Filter(**wanted), pipeline.store, pipeline.searcher.names)]


# -- browsing and searching ----------------------------------------------------------------------------------------


def test_articles_are_listed_by_title_and_filtered(make):
    pipeline = make()
    put(pipeline.store, "Élodie", "A singer.", kind="character", canon="books")
    put(pipeline.store, "7th Tower", "A tower.", pageid=100, kind="place")
    assert found(pipeline) == ["Brennport", "Élodie", "Orsolya", "Scoia'tarn", "Tobiah", "7th Tower"]
    assert found(pipeline, letter="E") == ["Élodie"] and found(pipeline, letter=OTHER) == ["7th Tower"]
    assert found(pipeline, kind="place") == ["7th Tower"] and found(pipeline, canon="books") == ["Élodie"]
    assert found(pipeline, source="other.example", letter="O") == []


def test_titles_come_before_aliases_and_these_before_the_text(make):
    pipeline = make()
    put(pipeline.store, "The Siege of Orsolya", "Nothing of note.", pageid=1)
    put(pipeline.store, "Marsh", "A fen.", pageid=2, aliases=("Orsinium",))
    assert found(pipeline, query="ors") == ["Orsolya", "Marsh", "The Siege of Orsolya"]
    catalogue = Catalogue.of(pipeline.store)
    listed = catalogue.find(Filter("orsinium"), pipeline.store, pipeline.searcher.names)
    assert [(each.entry.title, each.by) for each in listed][:1] == [("Marsh", "Orsinium")]
    by_text = catalogue.find(Filter("lighthouses"), pipeline.store, pipeline.searcher.names)
    assert [(each.entry.title, each.by) for each in by_text] == [("Brennport", "text")]
    assert found(pipeline, query="scoiatarn") == ["Scoia'tarn"]  # apostrophes and case do not matter
    assert found(pipeline, query='" OR *') == found(pipeline, query="zzzz") == []


def test_pages_of_the_list_do_not_overlap_and_stay_within_it(make, settings):
    pipeline = make()
    for n in range(60):
        put(pipeline.store, f"Lamp {n:02}", "A lamp.", pageid=200 + n)
    archive = tab.Archive(pipeline, settings)
    everything = ("", "", "", "", "")
    seen = []
    for page in range(3):
        at, listing, said, previous, following = archive.browse(page, *everything)
        seen += [title for title, _ in listing["choices"]]
        assert at == page and f"page {page + 1} of 3" in said and "64 articles" in said
        assert previous["interactive"] is (page > 0) and following["interactive"] is (page < 2)
    assert len(seen) == len(set(seen)) == 64
    assert archive.browse(99, *everything)[0] == 2 and archive.browse(-1, *everything)[0] == 0
    assert "No article fits" in archive.browse(0, "zzzz", "", "", "", "")[2]
    # An id has 63 bits, more than a browser's numbers: it must travel as text, and come back to the same article.
    title, chosen = archive.browse(0, "Lamp 07", "", "", "", "")[1]["choices"][0]
    assert isinstance(chosen, str) and title.startswith("Lamp 07") and "Lamp 07" in archive.read(chosen)


def test_eight_thousand_articles_are_found_at_once(make):
    pipeline = make()
    with pipeline.store.transaction() as db:
        one = db.execute("SELECT id FROM pages WHERE title = 'Tobiah'").fetchone()[0]
        db.conn.executemany(
            "INSERT INTO pages SELECT ?, source, ?, ?, '', revid, url, fetched_at, sha, html, categories, canon, kind, "
            "revised_at FROM pages WHERE id = ?",
            [(n, n + 50, f"Page {n}", one) for n in range(8_000)],
        )
    catalogue = Catalogue.of(pipeline.store)
    began = time.process_time()
    assert len(catalogue.find(Filter("page 79"), pipeline.store, pipeline.searcher.names)) == 111
    assert time.process_time() - began < 0.5


# -- reading -------------------------------------------------------------------------------------------------------


def test_an_article_is_shown_whole_with_its_origin(make):
    store = make().store
    page = put(
        store, "Lamp", "Its light is old.", kind="gear", canon="games", aliases=("Lantern",),
        facts=(Fact("owner", "Owner", ("Orsolya", "Maruk"), "games"),),
        sections=(Section((), "Its light is old.\n\nIt burns."),
                  Section(("Making", "Glass"), "Blown.", "books", (Quote("Let it shine.", "Maruk"),), ("Book 3",))),
    )  # fmt: skip
    html = article_html(store, page)
    seen = Tags(html)
    for part in ("Lamp", "Lantern", "Owner", "Orsolya; Maruk", "It burns.", "Glass", "Let it shine.", "Book 3", "gear",
                 "Books", "Games", "revision 12 of 2026-02-03", "fetched 2026-03-01", "CC BY-SA 3.0"):  # fmt: skip
        assert part in seen.text, part
    assert ("href", "https://other.example/?oldid=12") in seen.attributes
    assert ("href", "https://licence.example/") in seen.attributes and "h5" in seen.tags
    undated = article_html(store, put(store, "Old lamp", "It is dark.", pageid=7, revised_at=""))
    assert "revision 12<" in undated
    own = Tags(article_html(store, put(store, "Wick", "It is short.", source="codex", url="codex:wick", revised_at="")))
    assert "part of this project" in own.text and "revision" not in own.text
    assert "no longer in the archive" in article_html(store, 4711)


def test_a_quote_is_marked_in_every_paragraph_that_it_touches(make):
    store = make().store
    text = "It is old.\n\nIt burns.\n\nIt is dark."
    sections = (
        Section(("Facts",), "Lamp — owner: Orsolya. Lamp — age: 9."),
        Section(("Making",), text, quotes=(Quote("Let it shine."),), references=("Book 3",)),
    )
    page = put(store, "Lamp", text, facts=(Fact("owner", "Owner", ("Orsolya",)),), sections=sections)

    def shown(section, start, end):
        return article_html(store, page, (section, start, end))

    both = shown(1, text.index("old"), text.index("."))
    assert "<p>It is <mark>old</mark>.</p><p>It burns.</p>" in both
    assert '<h2 id="article-title">Lamp</h2>' in both and "Let it shine." in both and "Book 3" in both
    assert "<p>It is <mark>old.</mark></p><p><mark>It burns.</mark></p><p>It is dark.</p>" in shown(
        1, text.index("old"), text.index("\n\nIt is dark") + 2
    )
    place = text.index("It burns")
    assert shown(1, place, place).count("<mark>") == 1 and "<p><mark></mark>It burns.</p>" in shown(1, place, place)
    # Facts are a table, or the sentences of which one is quoted, never both.
    assert "<table>" in both and "Lamp — owner" not in both
    facts = shown(0, 0, len("Lamp — owner: Orsolya."))
    assert "<mark>Lamp — owner: Orsolya.</mark> Lamp — age" in facts and "<table>" not in facts
    assert "<mark>" not in article_html(store, page) and 'id="article-title"' not in article_html(store, page)


def test_the_decoder_is_named_by_its_weights_whatever_their_kind(make, settings, tmp_path):
    pipeline = make()
    pipeline.reader = SimpleNamespace(name="cirilla")

    def name(folder):
        pipeline.settings = settings.model_copy(update={"lm_weights": folder})
        return decoder_name(pipeline)

    model, tokenizer = Cirilla(PRESETS["cirilla-tiny"]), Tokenizer.load(ROOT / "weights" / "tokenizer.json")
    names = []
    for at, dtype in enumerate((torch.float32, torch.int8)):
        folder = tmp_path / str(at)
        lm_files.save(model, tokenizer, folder, dtype=dtype)
        files = [*folder.glob("model*"), folder / "config.json", folder / "tokenizer.json"]
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files))
        assert name(folder) == digest.hexdigest()[:16]
        names.append(name(folder))
    assert len(set(names)) == 2
    assert name(tmp_path / "nowhere") == "cirilla"


def test_a_foreign_article_brings_no_markup(make):
    store = make().store
    page = put(
        store, EVIL, EVIL, kind=EVIL, aliases=(EVIL,), facts=(Fact(EVIL, EVIL, (EVIL,)),),
        sections=(Section((EVIL,), EVIL, "", (Quote(EVIL, EVIL),), (EVIL,)),),
    )  # fmt: skip
    html = article_html(store, page)
    seen = Tags(html)
    assert not {"script", "img"} & set(seen.tags) and seen.text.count("<script>alert(1)</script>") >= 9
    assert not any(name.startswith("on") for name, _ in seen.attributes) and not set("${}`@") & set(html)


def test_facts_about_the_index(make, settings):
    pipeline = make()
    put(pipeline.store, "Lamp", "A lamp.")
    put(pipeline.store, "Wick", "A wick.", pageid=100, revised_at="2025-12-24T00:00:00+00:00")
    pipeline.store.set_source(
        Source("other.example", site_name="Other", base_url="javascript:alert(1)", rights="CC BY-SA 3.0",
               last_run="2026-03-02T00:00:00+00:00")
    )  # fmt: skip
    seen = Tags(index_html(pipeline))
    manifest = pipeline.searcher.index.manifest
    for part in (manifest.sha256[:16], "counting", "2025-12-24", "2026-02-03", "2026-03-01", "2026-03-02",
                 "CC BY-SA 3.0", "evidence is quoted", f"{manifest.count} of 128 dimensions"):  # fmt: skip
        assert part in seen.text, part
    assert seen.attributes.count(("href", "https://other.example/?oldid=12")) == 2  # to the two revisions
    assert not any("javascript" in (value or "") for _, value in seen.attributes)


def test_a_damaged_archive_is_a_sentence(make, settings, monkeypatch):
    pipeline = make()
    archive = tab.Archive(pipeline, settings)

    def broken(*_):
        raise StoreError("The archive is damaged <b>.")

    monkeypatch.setattr(Store, "rows", broken)
    said = [archive.read("1"), archive.facts(), archive.browse(0, "", "", "", "", "")[2]]
    assert all("The archive is damaged &lt;b&gt;." in each for each in said)
    assert archive.choices() == (gr.update(), gr.update()) and archive.read("abc") == tab.WELCOME
