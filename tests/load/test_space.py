"""The files that a Space gets, started as a Space starts them: they answer, and write into the data folder only.

With ``CIRILLA_TEST_CLEAN_ENV=1`` it is done once more in an environment made from ``requirements.txt`` alone, with the
whole codex and a clock (minutes, most of them pip's; on Linux without an NVIDIA card, tell pip where CPU builds of
torch are, or it fetches gigabytes).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from app import deploy

ROOT = Path(__file__).resolve().parents[2]
COLD_START = 60.0  # seconds from `python app.py` to a served page, when everything is installed
ARTICLE = """---
title: {0}
kind: character
facts:
  mother: Queen Ilvane
---
{0} was a sorceress of Brennport. {0} was raised by the hermit Maruk in the Hollow Hills.
"""


@pytest.fixture
def space(tmp_path, monkeypatch):
    """A folder with the files of a Space."""
    monkeypatch.setattr(deploy, "_tracked", lambda root: None)  # those not yet in git too
    folder = tmp_path / "app"
    for file in deploy.files(ROOT):
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file.path, folder / file.path)
    return folder


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def served(python: str, folder: Path, tmp_path: Path, question: str, **environment: str) -> tuple[float, dict]:
    """Start the app, ask it, end it: seconds until the page was served, and the answer.

    Fails when anything was written outside ``folder/data``.
    """
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clean = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(temporary)}
    # What a Space sets, and another port.  Python's own caches are not the app's to decide about.
    clean |= {"SPACE_ID": "me/cirilla", "SYSTEM": "spaces", "GRADIO_SERVER_NAME": "0.0.0.0"}
    clean |= {"GRADIO_SERVER_PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    before = tree(folder)
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    began = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen([python, "app.py"], cwd=folder, env=clean, stdout=out, stderr=out)
        try:
            while True:
                try:
                    page = httpx.get(url, timeout=10)
                    page.raise_for_status()
                    break
                except httpx.HTTPError:
                    assert process.poll() is None, log.read_text()
                    assert time.perf_counter() - began < 300, log.read_text()
                    time.sleep(0.1)
            seconds = time.perf_counter() - began
            assert "Cirilla" in page.text
            called = httpx.post(f"{url}/gradio_api/call/ask", json={"data": [question, None, None]}, timeout=60).json()
            got = httpx.get(f"{url}/gradio_api/call/ask/{called['event_id']}", timeout=60).text
            last = got.strip().split("\n\n")[-1]
            assert last.startswith("event: complete\n"), got
            answer = json.loads(last.partition("data: ")[2])[0]
        except httpx.HTTPError as error:
            pytest.fail(f"{error!r}; exit status {process.poll()}; {log.read_text()}")
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    # On a Space, Gradio starts a thread for hot reloading with a package that Spaces alone bring.
    said = log.read_text()
    assert said.count("Traceback") == said.count("`spaces` package is required to run hot-reloading"), said
    written = {path for path in tree(folder) - before if path != "data" and not path.startswith("data/")}
    assert not written, f"written beside the data folder: {sorted(written)}"
    assert (folder / "data" / "archive.sqlite").exists()
    assert not tree(home), f"written to the home folder: {sorted(tree(home))}"
    assert not tree(temporary), f"left among temporary files: {sorted(tree(temporary))}"
    return seconds, answer


def test_a_space_answers_and_writes_into_its_data_folder_only(space, tmp_path):
    codex = tmp_path / "codex" / "character"
    codex.mkdir(parents=True)
    for name in ("Orsolya", "Tobias"):
        (codex / f"{name.lower()}.md").write_text(ARTICLE.format(name), encoding="utf-8")
    _, answer = served(
        sys.executable, space, tmp_path, "Who raised Orsolya?", CIRILLA_CODEX=str(codex.parent), OMP_NUM_THREADS="1"
    )
    assert "Maruk" in answer["answer"] and answer["citations"]


@pytest.mark.skipif(not os.environ.get("CIRILLA_TEST_CLEAN_ENV"), reason="minutes: set CIRILLA_TEST_CLEAN_ENV=1")
@pytest.mark.timeout(3_600)
def test_requirements_alone_are_enough_and_a_cold_start_is_quick(space, tmp_path):
    """``CIRILLA_TEST_CLEAN_ENV`` may also name a folder: an environment that was made so before."""
    made = Path(os.environ["CIRILLA_TEST_CLEAN_ENV"])
    if not (made / "bin" / "python").exists():
        made = tmp_path / "environment"
        subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
        pip = [str(made / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        began = time.perf_counter()
        subprocess.run([*pip, "-r", str(space / "requirements.txt")], check=True)
        print(f"installed in {time.perf_counter() - began:.0f} s")
    seconds, answer = served(str(made / "bin" / "python"), space, tmp_path, "Who is Ciri's mother?")
    print(f"cold start: {seconds:.1f} s")
    assert "Pavetta" in answer["answer"] and answer["citations"][0]["url"].startswith("codex:")
    assert seconds <= COLD_START
