"""The command line: documentation, output, and one clear line for every mistake."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app import commands, ingest, settings
from app.errors import PortInUse, SettingsError
from app.serve import check_port
from corpus.errors import Locked, WikiUnreachable
from corpus.lock import ingest_lock
from corpus.store import Store
from tests.app.conftest import CountingEncoder

ROOT = Path(__file__).resolve().parents[2]
ARTICLE = """---
title: {title}
kind: character
facts:
  mother: Queen Ilvane
---
{title} was a sorceress of Brennport. {title} was raised by the hermit Maruk.
"""


@pytest.fixture(scope="module")
def app():
    """``app.py`` as a module; its name belongs to the package."""
    spec = importlib.util.spec_from_file_location("app_command_line", ROOT / "app.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def main(app, tmp_path, monkeypatch):
    """Runs ``main`` on a codex of two articles, without models; gives the exit status."""
    codex = tmp_path / "codex" / "character"
    codex.mkdir(parents=True)
    for title in ("Orsolya", "Tobias"):
        (codex / f"{title.lower()}.md").write_text(ARTICLE.format(title=title), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIRILLA_CODEX", str(tmp_path / "codex"))
    monkeypatch.setenv("CIRILLA_GENERATOR", "evidence")
    monkeypatch.setenv("CIRILLA_SECOND_STAGE", "false")
    monkeypatch.setattr("encoder.Encoder.load", lambda folder: CountingEncoder())

    def run(*arguments):
        try:
            return app.main([str(argument) for argument in arguments])
        except SystemExit as error:
            return error.code

    return run


def one_line(capsys):
    """What was said on standard error, which must be a single line and no traceback."""
    said = capsys.readouterr().err.strip().split("\n")
    assert len(said) == 1 and said[0].startswith("cirilla: "), said
    return said[0]


def test_help_documents_every_option_and_setting(app):
    text = " ".join(app.parser().format_help().split())
    for action in app.parser()._actions:
        assert action.help, action.option_strings
        assert all(option in text for option in action.option_strings)
    for name in ("host", "port", "wiki", "data"):
        assert str(settings.Settings.model_fields[name].default) in text
    for status in (
        commands.USAGE,
        commands.ARCHIVE,
        commands.WEIGHTS,
        commands.WIKI,
        commands.LOCKED,
        commands.PORT,
        commands.DEPLOY,
    ):
        assert f"{status} " in text
    assert len({1, commands.USAGE, commands.ARCHIVE, commands.WEIGHTS, commands.WIKI, commands.LOCKED, commands.PORT,
                commands.QUESTIONS, commands.DEPLOY, commands.INTERRUPTED}) == 10  # fmt: skip


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = "import sys, runpy; sys.argv=['app.py','--help']\ntry: runpy.run_path('app.py', run_name='__main__')\n"
    code += "except SystemExit: pass\nprint(sorted({'torch','gradio','pydantic','numpy'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("[]") and "usage: app.py" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--limit", "3"], ["--ingest", "--limit", "0"], ["--ingest", "--limit", "x"], ["--wiki", "http://x"],
        ["--ask", "a", "--ingest"], ["--json"], ["--canon", "comics", "--ask", "x"], ["--canon", "books"],
        ["--ingest", "--codex-only", "--wiki", "http://x"], ["--nonsense"], ["question"],
        ["--dry-run"], ["--deploy", "me/x", "--ask", "y"], ["--deploy"],
    ],
)  # fmt: skip
def test_wrong_options_are_refused(main, arguments, capsys):
    assert main(*arguments) == commands.USAGE
    assert "error:" in capsys.readouterr().err


def test_ask_builds_the_codex_first_and_prints_one_json_object(main, tmp_path, capsys):
    assert main("--data", tmp_path / "d", "--ask", "Who raised Orsolya?", "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert "Maruk" in value["answer"] and value["citations"][0]["url"].startswith("codex:")
    assert main("--data", tmp_path / "d", "--ask", "Who is Tobias's mother?") == 0
    said = capsys.readouterr()
    assert said.out.startswith("Queen Ilvane [1].") and "confidence" in said.out and "Building" not in said.err
    assert main("--data", tmp_path / "d", "--ask", "Orsolya?", "--json", tmp_path / "out.json") == 0
    assert json.loads((tmp_path / "out.json").read_text())["question"].startswith("Orsolya")


def test_search_shows_every_stage(main, tmp_path, capsys):
    assert main("--data", tmp_path / "d", "--search", "Orsolya hermit", "--json") == 0
    first = json.loads(capsys.readouterr().out)["passages"][0]
    assert first["title"] == "Orsolya" and first["bm25_rank"] == 1 and first["dense"] is not None
    assert main("--data", tmp_path / "d", "--search", "Orsolya hermit") == 0
    assert "BM25" in capsys.readouterr().out
    assert main("--data", tmp_path / "d", "--search", "!!!") == 0
    assert "Nothing found." in capsys.readouterr().out


def test_evaluate_prints_and_writes_its_figures(main, tmp_path, capsys):
    rows = tmp_path / "q.jsonl"
    rows.write_text('{"id": 1, "question": "Who raised Orsolya?", "answers": ["Maruk"]}\n', encoding="utf-8")
    assert main("--data", tmp_path / "d", "--evaluate", rows, "--json", tmp_path / "r.json") == 0
    assert "answer_accuracy        1.0" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["questions"][0]["right"] is True
    rows.write_text("nonsense", encoding="utf-8")
    assert main("--data", tmp_path / "d", "--evaluate", rows) == commands.QUESTIONS
    assert "line 1" in one_line(capsys)
    rows.write_text('{"id": 1, "question": "Who?", "answers": ["Maruk"]}\n', encoding="utf-8")
    assert main("--data", tmp_path / "d", "--evaluate", rows, "--json", tmp_path / "no" / "r.json") == commands.OTHER


def test_ingest_leaves_unchanged_articles_alone(main, tmp_path, capsys):
    assert main("--data", tmp_path / "d", "--ingest", "--codex-only") == 0
    assert "Codex: 2 articles stored, 0 unchanged, 0 deleted." in capsys.readouterr().out
    (tmp_path / "codex" / "character" / "tobias.md").unlink()
    assert main("--data", tmp_path / "d", "--ingest", "--codex-only") == 0
    assert "Codex: 0 articles stored, 1 unchanged, 1 deleted." in capsys.readouterr().out
    assert main("--data", tmp_path / "d", "--ingest", "--rebuild") == 0
    assert "Rebuilt: 1 pages, 0 failed." in capsys.readouterr().out


def test_a_failing_wiki_leaves_the_codex_indexed(main, tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert main("--data", tmp_path / "d", "--ingest", "--wiki", address) == commands.WIKI
    said = capsys.readouterr()
    assert "Index: " in said.out and "cut short" in said.out
    assert said.err.strip().split("\n")[-1].startswith("cirilla: ") and "Traceback" not in said.err
    assert main("--data", tmp_path / "d", "--ask", "Who raised Orsolya?") == 0


@pytest.mark.parametrize(("error", "status"), [(WikiUnreachable("gone"), 5), (KeyboardInterrupt(), 130)])
def test_what_stops_the_wiki_is_reported_after_indexing(main, tmp_path, capsys, monkeypatch, error, status):
    def crawl(*arguments):
        raise error

    monkeypatch.setattr(ingest, "_crawl", crawl)
    assert main("--data", tmp_path / "d", "--ingest") == status
    assert "Index: " in capsys.readouterr().out


def test_two_ingests_at_once(main, tmp_path, capsys):
    with ingest_lock(tmp_path / "d"):
        assert main("--data", tmp_path / "d", "--ingest", "--codex-only") == commands.LOCKED
    assert "Another ingest" in one_line(capsys)


def test_damaged_archive_and_index(main, tmp_path, capsys):
    data = tmp_path / "d"
    assert main("--data", data, "--ingest", "--codex-only") == 0
    capsys.readouterr()
    manifest = data / "index" / "manifest.json"
    good = manifest.read_text()
    manifest.write_text(good[: len(good) // 2])
    assert main("--data", data, "--ask", "x") == commands.ARCHIVE
    assert "--ingest" in one_line(capsys)
    manifest.write_text(good)
    (data / "archive.sqlite").write_bytes(b"nonsense " * 1000)
    for leftover in data.glob("archive.sqlite-*"):
        leftover.unlink()
    assert main("--data", data, "--ask", "x") == commands.ARCHIVE
    assert "archive" in one_line(capsys)
    (data / "archive.sqlite").unlink()
    assert main("--data", data, "--ask", "x") == commands.ARCHIVE
    assert "no archive" in one_line(capsys)


def test_a_data_folder_that_cannot_be(main, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main("--data", tmp_path / "file", "--ask", "x") == commands.ARCHIVE
    assert capsys.readouterr().err.strip().split("\n")[-1].startswith("cirilla: ")


def test_missing_weights(app, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIRILLA_ENCODER_WEIGHTS", str(tmp_path / "none"))
    assert app.main(["--data", str(tmp_path / "d"), "--ingest", "--codex-only"]) == commands.WEIGHTS
    one_line(capsys)


def test_missing_decoder_weights(main, tmp_path, capsys, monkeypatch):
    assert main("--data", tmp_path / "d", "--ingest", "--codex-only") == 0
    capsys.readouterr()
    monkeypatch.setenv("CIRILLA_GENERATOR", "cirilla")
    monkeypatch.setenv("CIRILLA_LM_WEIGHTS", str(tmp_path / "none"))
    assert main("--data", tmp_path / "d", "--ask", "Who raised Orsolya?") == commands.WEIGHTS
    one_line(capsys)


@pytest.mark.parametrize(("name", "value"), [("PORT", "70000"), ("THRESHOLD", "2"), ("GENERATOR", "gpt")])
def test_settings_that_cannot_be(main, tmp_path, capsys, monkeypatch, name, value):
    monkeypatch.setenv(f"CIRILLA_{name}", value)
    assert main("--data", tmp_path / "d", "--ask", "x") == commands.USAGE
    assert f"CIRILLA_{name}" in one_line(capsys)


def test_settings_come_from_arguments_then_environment_then_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("CIRILLA_PORT=1111\nCIRILLA_HOST=0.0.0.0\nCIRILLA_CONTACT=a@b.example\nOTHER=1\n")
    monkeypatch.setenv("CIRILLA_PORT", "2222")
    assert (settings.load().port, settings.load().host, settings.load().contact) == (2222, "0.0.0.0", "a@b.example")
    assert settings.load(port="3333", host=None).port == 3333
    with pytest.raises(SettingsError, match="--port"):
        settings.load(port="x")
    assert settings.load(data="x").archive == Path("x/archive.sqlite")


def test_a_port_in_use_is_found_before_anything_is_loaded(main, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "open_pipeline", lambda settings: pytest.fail("loaded too early"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main("--port", taken.getsockname()[1]) == commands.PORT
        assert "in use" in one_line(capsys)
        with pytest.raises(PortInUse):
            check_port("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(SettingsError):
        check_port("203.0.113.1", 7860)  # nobody's address, by RFC 5737
    with pytest.raises(SettingsError):
        check_port("no such host", 7860)


def test_bugs_show_their_traceback(main, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "ask", lambda args, settings: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main("--ask", "x")


def test_statuses_of_errors():
    assert commands.exit_status(Locked("x")) == commands.LOCKED
    assert commands.exit_status(ValueError("x")) is None


def test_a_message_is_always_one_line(capsys):
    commands.complain("a\nb\n  c")
    assert capsys.readouterr().err == "cirilla: a b c\n"


def run_app(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "app.py"), *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env=os.environ | environment,
    )  # fmt: skip


def test_the_real_program_says_one_line_and_no_traceback(tmp_path):
    (tmp_path / "archive.sqlite").write_bytes(b"not a database, whatever its name says " * 200)
    done = run_app("--data", tmp_path, "--ask", "x", CIRILLA_ENCODER_WEIGHTS=str(tmp_path / "none"))
    assert done.returncode in (commands.ARCHIVE, commands.WEIGHTS)
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.strip().split("\n")[-1].startswith("cirilla: ")


SERVE = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # the shell may have told us to ignore it
import sys; sys.path.insert(0, {root!r})
from app import settings
from app.chat import build
from app.pipeline import Pipeline
from app.serve import serve
from corpus.store import Store
from retrieval import index
from retrieval.search import Searcher
from tests.app.conftest import CountingEncoder, fill
chosen = settings.load(port={port})
store, encoder = Store(chosen.archive), CountingEncoder()
fill(store)
index.build(store, encoder, chosen.index)
searcher = Searcher(store, index.VectorIndex.open(chosen.index, encoder), encoder)
serve(build(Pipeline(chosen, store, searcher, encoder, None), chosen), chosen)
"""


def test_the_chat_is_served_and_ctrl_c_ends_it(tmp_path):
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = SERVE.format(root=str(ROOT), port=port)
    server = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip() == f"Cirilla is at http://127.0.0.1:{port} (Ctrl-C stops it)."
        page = httpx.get(f"http://127.0.0.1:{port}/", timeout=30).text
        assert "Cirilla" in page and "fonts.googleapis" not in page and "cdn" not in page.casefold()
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()
        server.wait()


def test_an_archive_without_passages_says_what_to_do(main, tmp_path, capsys):
    for file in (tmp_path / "codex" / "character").iterdir():
        file.unlink()
    with Store(tmp_path / "d" / "archive.sqlite"):
        pass
    assert main("--data", tmp_path / "d", "--ask", "x") == commands.ARCHIVE
    assert "empty" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--ask", "--search"])
@pytest.mark.parametrize("text", ["", " \n ", "x" * 100_000], ids=["empty", "blank", "endless"])
def test_questions_that_are_none_stop_before_anything_is_loaded(main, tmp_path, capsys, option, text):
    assert main("--data", tmp_path / "d", option, text) == commands.USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and option in said and len(said) < 200
    assert not (tmp_path / "d").exists()
