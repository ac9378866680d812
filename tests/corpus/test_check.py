"""The codex's check: every rule reported with file and line, and nothing reported without reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpus import check
from corpus.overlap import fold, is_names, shared_runs

FILL = " ".join(f"Fact {i} about the place is told here." for i in range(12))


def put(
    folder: Path,
    title: str,
    facts: str = "race: human",
    *,
    kind: str = "character",
    extra: str = "",
    body: str = FILL,
    canon: str = "[books, games]",
) -> Path:
    """Write an article that is in order unless the arguments say otherwise."""
    path = folder / kind / f"{check.slug(title)}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = "".join(f"  {line}\n" for line in facts.split("\n"))
    head = f'title: "{title}"\nkind: {kind}\ncanon: {canon}\nsources: ["A Book"]\n{extra}facts:\n{facts}'
    path.write_text(f"---\n{head}---\n{body}\n", encoding="utf-8")
    return path


def findings(folder: Path, strict: bool = False) -> list[tuple[str, int, bool, str]]:
    checker = check.Checker(folder, strict)
    checker.run()
    return [(Path(f.path).stem, f.line, f.error, f.message) for f in sorted(checker.findings)]


def messages(folder: Path, error: bool, strict: bool = False) -> list[str]:
    return [f"{stem}: {message}" for stem, _, bad, message in findings(folder, strict) if bad == error]


def test_articles_in_order_give_no_findings(tmp_path: Path) -> None:
    put(tmp_path, "Halvor Brennick", "gender: male\nchildren: [Ilse]\nwife: Marit", extra="related: [Ilse]\n")
    put(tmp_path, "Marit", "gender: female\nhusband: Halvor Brennick\nchildren: Ilse")
    put(tmp_path, "Ilse", "father: Halvor Brennick (smith)\nmother: Marit", extra="aliases: [Ilse of the Ford]\n")
    assert findings(tmp_path) == []


def test_missing_fields(tmp_path: Path) -> None:
    path = put(tmp_path, "Halvor")
    path.write_text(f"---\ntitle: Halvor\nkind:\ncanon: []\n---\n{FILL}\n", encoding="utf-8")
    assert findings(tmp_path) == [
        ("halvor", 1, True, "'facts' is missing"),
        ("halvor", 1, True, "'sources' is missing"),
        ("halvor", 3, True, "'kind' is missing"),
        ("halvor", 4, True, "'canon' is missing"),
    ]


def test_unreadable_articles_are_reported_and_the_others_still_checked(tmp_path: Path) -> None:
    put(tmp_path, "Halvor").write_text("---\ntitle: [\n---\n", encoding="utf-8")
    put(tmp_path, "Ilse", body="Too short.")
    found = messages(tmp_path, error=True)
    assert found[0].startswith("halvor: the front matter is no valid YAML")
    assert found[1] == "ilse: only 2 words; an article has at least 80"


@pytest.mark.parametrize(
    ("change", "line", "error", "message"),
    [
        (("kind: character", "kind: place"), 3, True, "kind 'place' in the folder 'character'"),
        (("kind: character", "kind: hero"), 3, True, "unknown kind 'hero'"),
        (("[books, games]", "[books, film]"), 4, True, "unknown canon 'film'"),
        (("race: human", "shoe size: 9"), 7, False, "unusual fact key 'shoe size'"),
        (("race: human", "race:"), 7, True, "the fact 'race' has no value"),
        (("race: human", f"race: {'long ' * 31}"), 7, False, "the fact 'race' is long"),
        (("kind: character", "kind: character\nmood: grim"), 4, False, "unknown field 'mood'"),
        (('"Halvor"', '"Halvor the Elder"'), 1, False, "should be named 'halvor-the-elder.md'"),
        ((FILL, f"## Life\n{FILL}"), 9, True, "no lead"),
        ((FILL, f"Lead.\n\n# Life\n{FILL}"), 11, True, "headings start at '##'"),
        ((FILL, f"Lead.\n\n### Life\n{FILL}"), 11, True, "headings start at '##'"),
        ((FILL, f"Lead.\n\n## Life\n{FILL}\n\n#### Youth\nYoung."), 14, False, "skips a level"),
        ((FILL, f"{FILL}\n\n## Life\n\n## Death\nDead."), 11, True, "nothing under the heading 'Life'"),
        ((FILL, f"Lead.\n\n## Life {{canon=tv}}\n{FILL}"), 11, True, "'tv' is not among the article's"),
        ((FILL, f"Lead.\n\n## In the video games\n{FILL}"), 11, False, "looks like 'games' but has no {canon=games}"),
        ((FILL, f"Lead.\n\n## Life\n{FILL}"), 9, False, ""),
        ((FILL, f"{FILL}\n\nHalvor lived in the world of the Witcher."), 11, True, "filler"),
        ((FILL, f"{FILL}\n\nHalvor wore gray."), 11, False, "American spelling: 'gray'"),
        ((FILL, f"{FILL}\n\nHe wore grey."), 11, False, "a paragraph begins with 'He'"),
        ((FILL, f"{FILL}\n\n## Life\n{FILL}"), 9, False, "the lead has more than"),
    ],
)
def test_rules_of_one_article(tmp_path: Path, change: tuple[str, str], line: int, error: bool, message: str) -> None:
    path = put(tmp_path, "Halvor")
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    found = findings(tmp_path)
    if message:
        assert any(message in said and bad == error for _, _, bad, said in found), found
        assert [at for _, at, _, said in found if message in said] == [line]
    else:
        assert found == []


def test_titles_and_aliases_belong_to_one_article(tmp_path: Path) -> None:
    put(tmp_path, "Halvor", extra="aliases: [The Smith, Ilse]\n")
    put(tmp_path, "Ilse", extra="aliases: ['the smith', Íse]\n")
    put(tmp_path, "Halvor", kind="place")
    put(tmp_path, "The Ford (song)", kind="culture")
    put(tmp_path, "The Ford (inn)", kind="place")
    found = messages(tmp_path, error=True)
    assert [message.split(str(tmp_path))[0] for message in found] == [
        "halvor: the alias 'Ilse' is the title of ",
        "ilse: the alias 'the smith' is also one of ",
        "halvor: the title 'Halvor' is also that of ",
    ]


def test_links_to_nothing_are_errors_only_when_strict(tmp_path: Path) -> None:
    put(tmp_path, "Halvor", extra="related: [Ilse, the ford-girl, Nobody]\n")
    put(tmp_path, "Ilse", extra="aliases: [The Ford-Girl]\n")
    nothing, alias = (
        "halvor: related: there is no article 'Nobody'",
        "halvor: related: 'the ford-girl' is titled 'Ilse'",
    )
    assert messages(tmp_path, error=False) == [alias, nothing]
    assert (messages(tmp_path, True, strict=True), messages(tmp_path, False, strict=True)) == ([nothing], [alias])


@pytest.mark.parametrize(
    ("here", "there", "error", "warning"),
    [
        ("father: Ilse", "children: [Joren]", "father: 'Ilse'", ""),
        ("father: Ilse", "race: human", "", "has no children"),
        ("father: Ilse", "children: [Halvor]", "", ""),
        ("father: Ilse", "children: ['Halvor (adopted)', Joren]", "", ""),
        ("father: Ilse (adoptive)", "children: [Joren]", "", "has no children"),
        ("father (tv): Ilse", "children (books): [Joren]", "", "has no children"),
        ("gender: male\nchildren: [Ilse]", "father: Joren", "children: 'Ilse'", ""),
        ("gender: female\nchildren: [Ilse]", "father: Joren", "", "has no mother/parents"),
        ("children: [Ilse]", "mother: Marit", "", "has no father/mother/parents"),
        ("children: [Ilse]", "mother: Marit\nfather: Joren", "children: 'Ilse'", ""),
        ("wife: Ilse", "husband: Joren", "wife: 'Ilse'", ""),
        ("wife: Ilse", "husband: [Joren, Halvor]", "", ""),
        ("siblings: [Ilse]", "siblings: [Joren]", "siblings: 'Ilse'", ""),
        ("siblings: [Ilse]", "race: human", "", "has no siblings"),
        ("lovers: [Ilse]", "lovers: [Joren]", "", "has no lovers"),
        ("swords: [Ilse]", "owner: Joren", "swords: 'Ilse'", ""),
        ("swords: [Ilse]", "race: human", "", ""),
        ("actor: Ilse", "roles: [Joren]", "actor: 'Ilse'", ""),
    ],
)
def test_relations_are_compared_both_ways(tmp_path: Path, here: str, there: str, error: str, warning: str) -> None:
    put(tmp_path, "Halvor", here)
    put(tmp_path, "Ilse", there)
    errors = [m for m in messages(tmp_path, error=True) if m.startswith("halvor")]
    warnings = [m for m in messages(tmp_path, error=False) if m.startswith("halvor")]
    assert len(errors) == bool(error) and len(warnings) == bool(warning), (errors, warnings)
    assert error in "".join(errors) and warning in "".join(warnings)


PAGE = {
    "title": "Old Halvor",
    "text": "Intro.\n\nThe heron stood on one leg beside the cold grey water all morning, and left.",
    "facts": {"note": "never trust a smith who will not sell you nails"},
}


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("A heron stood on one leg beside the cold, grey water.", "heron stood on one leg beside the cold grey water"),
        ("Héron stood ON one leg beside the cold!", "Héron stood ON one leg beside the cold"),
        ("Heron stood on one leg beside the warm grey water.", ""),
        ("Never trust a smith who will not sell.", "Never trust a smith who will not sell"),
    ],
)
def test_runs_of_eight_words(text: str, run: str) -> None:
    found, pages = shared_runs(["Other words entirely.", text], [PAGE], set())
    assert pages == 1
    assert [(number, " ".join(words), title) for number, words, title in found] == (
        [(1, run, "Old Halvor")] if run else []
    )


def test_two_runs_in_one_text_are_two_findings() -> None:
    text = f"{PAGE['facts']['note']}, yet {PAGE['text'][8:]}"  # type: ignore[index]
    assert len(shared_runs([text], [PAGE], set())[0]) == 2


def test_names_and_titles_are_set_aside() -> None:
    assert is_names(["the", "Battle", "of", "Sodden", "Hill", "and", "the", "Battle"], set())
    assert is_names(["the", "king", "under", "the", "hill", "said", "to", "Joren"], {"the king under the hill"})
    assert not is_names(["the", "king", "under", "the", "hill", "said", "to", "Joren"], set())
    assert not is_names(["Halvor", "went", "to", "the", "ford", "and", "saw", "Ilse"], set())
    names = {"title": "x", "text": "By Ada Holt, Ben Karr, Cid Lorn and Dana Moss."}
    assert shared_runs(["Ada Holt, Ben Karr, Cid Lorn and Dana Moss"], [names], set())[0] == []


def test_fold_and_slug() -> None:
    assert fold("Íthlinne's (elder)") == "ithlinnes"
    assert check.slug("Yennefer's Elixir: Ełk & Co") == "yennefers-elixir-elk-co"


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "Halvor", body=f"{FILL}\n\nThere a heron stood on one leg beside the cold grey pond.")
    assert check.main(["--folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "SKIPPED" in out and "character      1 articles      108 words" in out and "0 errors, 0 warnings" in out

    wiki = tmp_path / "wiki.jsonl"
    wiki.write_text(json.dumps(PAGE) + "\n", encoding="utf-8")
    assert check.main(["--folder", str(tmp_path), "--wiki", str(wiki)]) == 1
    out = capsys.readouterr().out
    assert "halvor.md:11: error: 9 words shared with 'Old Halvor': 'heron stood on one leg beside the cold grey'" in out
    assert "SKIPPED" not in out and "compared with 1 reference pages" in out

    (tmp_path / "character" / "halvor.md").unlink()
    assert check.main(["--folder", str(tmp_path)]) == 1
    assert "no articles found" in capsys.readouterr().out


def test_compressed_reference_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zstandard = pytest.importorskip("zstandard")
    put(tmp_path, "Halvor", body=f"{FILL}\n\nA heron stood on one leg beside the cold pond.")
    wiki = tmp_path / "wiki.jsonl.zst"
    wiki.write_bytes(zstandard.ZstdCompressor().compress(json.dumps(PAGE).encode()))
    assert check.main(["--folder", str(tmp_path), "--wiki", str(wiki)]) == 1
    assert "8 words shared" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "content"), [("w.jsonl", b"{"), ("w.jsonl.zst", b"nothing"), ("w.jsonl", None)])
def test_bad_reference_files_give_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None
) -> None:
    put(tmp_path, "Halvor")
    if name.endswith("zst"):
        pytest.importorskip("zstandard")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert check.main(["--folder", str(tmp_path), "--wiki", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and name in captured.err
