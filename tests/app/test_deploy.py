"""A Space's files, its configuration, and their way to the Hub, against a stand-in for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from app import commands, deploy
from app import settings as app_settings
from app.deploy import DeployError, checked_name, files, reachable
from app.errors import SettingsError
from lm import files as lm_files
from lm import quantize
from tests.hub_server import Hub

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_very_secret_token"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(scope="module")
def needed():
    """What the project as it lies there would upload, whether it is in git yet or not."""
    tracked = deploy._tracked
    deploy._tracked = lambda root: None
    try:
        return files(ROOT)
    finally:
        deploy._tracked = tracked


@pytest.fixture(scope="module")
def copy(needed, tmp_path_factory):
    """A folder that holds those files and nothing else, as the Space does."""
    folder = tmp_path_factory.mktemp("space")
    for file in needed:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file.path, folder / file.path)
    return folder


@pytest.fixture
def hub():
    out = Hub(TOKEN)
    yield out
    out.close()


def run(folder, *arguments, timeout=300, **environment):
    """``python app.py …`` in a copy of the project; the home folder of this run is its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CIRILLA_", "HF_", "SPACE"))}
    # Xet is a protocol of its own, with native code at both ends; without it the same files go by plain HTTP.
    clean |= {"HF_HUB_DISABLE_XET": "1", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [sys.executable, "app.py", *map(str, arguments)],
        cwd=folder, env=clean, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


# --- which files


def test_a_space_gets_what_it_needs_and_nothing_else(needed):
    paths = {file.path for file in needed}
    assert {*deploy.TOP, *deploy.models(ROOT), "app/chat.py", "corpus/codex.py", "retrieval/search.py"} <= paths
    assert sum(path.startswith("corpus/codex/") for path in paths) > 1_000
    for path in paths:
        assert not path.startswith(("tests/", "data/", "runs/", "benchmarks/", ".")), path
        assert not path.startswith("docs/") or path.startswith("docs/pictures/"), path
        assert not path.startswith("corpus/questions/") and "__pycache__" not in path, path
    for trained in ("corpus/instruct.py", "corpus/pairs.py", "encoder/pretrain.py", "lm/tune.py"):
        assert (ROOT / trained).exists() and trained not in paths
    assert all(file.size == (ROOT / file.path).stat().st_size for file in needed)


def test_those_files_alone_answer(copy, tmp_path):
    done = run(copy, "--data", tmp_path / "d", "--ask", "What is a witcher?", CIRILLA_CODEX=str(_small_codex(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert "monster hunter" in done.stdout


def _small_codex(tmp_path):
    folder = tmp_path / "codex" / "culture"
    folder.mkdir(parents=True)
    text = "---\ntitle: Witcher\nkind: culture\n---\nA witcher is a monster hunter for hire.\n"
    (folder / "witcher.md").write_text(text, encoding="utf-8")
    return folder.parent


def project(folder: Path) -> Path:
    """A tiny project of the same shape."""
    texts = {
        "app.py": "def f():\n    from app.one import x\n",
        "app/__init__.py": "",
        "app/one.py": "import os\nimport lm.model as m\nfrom corpus import store\nfrom . import two\n",
        "app/two.py": "",
        "app/page.css": "body {}",
        "app/.secret": "",
        "corpus/__init__.py": "",
        "corpus/store.py": "",
        "corpus/training.py": "",
        "corpus/words.txt": "a",
        "corpus/codex/place/x.md": "text",
        "corpus/questions/dev.jsonl": "",
        "lm/__init__.py": "from lm.late import y",
        "lm/late.py": "",
        "lm/model.py": "import torch",
        "lm/__pycache__/model.cpython-311.pyc": "",
        "encoder/__init__.py": "",
        "weights/tokenizer.json": "",
        **{path: f"weights {n}" for n, path in enumerate(deploy.models(ROOT))},
        "tests/test_x.py": "",
        "data/archive.sqlite": "",
        "runs/log": "",
        ".env": "HF_TOKEN=x",
        "notes.txt": "",
        **dict.fromkeys(("requirements.txt", "LICENSE"), "x"),
        "README.md": "---\nsdk: gradio\n---\n![the chat](docs/pictures/chat.png)\n",
        "docs/pictures/chat.png": "shown",
        "docs/pictures/other.png": "not shown",
        "docs/deploy.md": "",
    }
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def test_weights_may_be_int8_or_in_parts(tmp_path):
    assert set(deploy.WEIGHTS) == {quantize.WEIGHTS, lm_files.INDEX, lm_files.WEIGHTS}
    plain = deploy.models(tmp_path)
    assert "weights/cirilla/model.safetensors" in plain
    (tmp_path / "weights/cirilla").mkdir(parents=True)
    for name in (lm_files.INDEX, quantize.WEIGHTS):
        (tmp_path / "weights/cirilla" / name).write_bytes(b"")
        assert set(deploy.models(tmp_path)) - set(plain) == {f"weights/cirilla/{name}"}


EXPECTED = [
    "LICENSE", "README.md", "app.py", "app/__init__.py", "app/one.py", "app/page.css", "app/two.py",
    "corpus/__init__.py", "corpus/codex/place/x.md", "corpus/store.py", "corpus/words.txt", "docs/pictures/chat.png",
    "lm/__init__.py",
    "lm/late.py", "lm/model.py", "requirements.txt", *sorted(deploy.models(ROOT)),
]  # fmt: skip


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_without_git_a_fixed_set_of_places_is_looked_through(tmp_path):
    assert [file.path for file in files(project(tmp_path))] == EXPECTED


def test_with_git_only_what_it_knows_is_sent(tmp_path):
    project(tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    (tmp_path / "app" / "draft.html").write_text("not in git")
    assert [file.path for file in files(tmp_path)] == EXPECTED
    git(tmp_path, "rm", "-q", "--cached", "app/two.py")
    with pytest.raises(DeployError, match=r"app/two\.py, which is not in git"):
        files(tmp_path)
    (tmp_path / "app" / "two.py").unlink()
    (tmp_path / "app" / "one.py").write_text("")
    assert "corpus/store.py" not in [file.path for file in files(tmp_path)]


def test_what_is_missing_or_a_link_is_told(tmp_path):
    project(tmp_path)
    (tmp_path / "LICENSE").unlink()
    with pytest.raises(DeployError, match="LICENSE, which is missing"):
        files(tmp_path)
    (tmp_path / "LICENSE").write_text("")
    (tmp_path / "app" / "page.css").unlink()
    (tmp_path / "app" / "page.css").symlink_to("/etc/hostname")
    with pytest.raises(DeployError, match=r"page\.css is a link"):
        files(tmp_path)


def test_imports_are_followed(tmp_path):
    project(tmp_path)
    assert "corpus/training.py" not in reachable(tmp_path) and "lm/late.py" in reachable(tmp_path)
    (tmp_path / "app" / "two.py").write_text("import (")
    with pytest.raises(DeployError, match=r"app/two\.py"):
        reachable(tmp_path)


@pytest.mark.parametrize("name", ["me/cirilla", "me/Cirilla-2.0_x", "a/b"])
def test_names_of_spaces(name):
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "me", "me/", "/x", "a/b/c", "me/a b", "me/../x", "me/a--b", "https://x/y", "me/-x", "me/x.", "a/" * 99]
)
def test_names_that_no_space_can_have(name):
    with pytest.raises(SettingsError, match="USER/SPACE"):
        checked_name(name)


# --- the configuration in README.md


def test_the_front_matter_is_a_spaces_configuration():
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(ROOT / "README.md").data.to_dict()
    requirements = (ROOT / "requirements.txt").read_text()
    assert card["sdk"] == "gradio" and f"gradio=={card['sdk_version']}\n" in requirements
    assert (ROOT / card["app_file"]).exists() and card["license"] == "mit" and card["pinned"] is False
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert isinstance(card["python_version"], str), "3.10 without quotes would be read as 3.1"
    assert tuple(map(int, card["python_version"].split("."))) >= tuple(map(int, least.split(".")))
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert card["title"] and 0 < len(card["short_description"]) <= 60 and len(card["emoji"]) <= 2
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", name) for name in card["datasets"])
    raw = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert raw == card  # nothing that the Hub does not know how to read


def test_a_space_listens_where_its_proxy_looks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("SPACE_ID", "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert (app_settings.load().host, app_settings.load().port) == ("127.0.0.1", 7860)
    assert not app_settings.load().behind_proxy
    monkeypatch.setenv("SPACE_ID", "me/cirilla")
    assert (app_settings.load().host, app_settings.load().port) == ("0.0.0.0", 7860)
    assert app_settings.load().behind_proxy
    assert app_settings.load(host="127.0.0.1").host == "127.0.0.1"
    monkeypatch.setenv("GRADIO_SERVER_NAME", "::")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "9000")
    assert (app_settings.load().host, app_settings.load().port) == ("::", 9000)
    assert app_settings.load(port="7861").port == 7861
    monkeypatch.setenv("GRADIO_SERVER_PORT", "x")
    with pytest.raises(SettingsError):
        app_settings.load()


# --- the way to the Hub


def test_a_dry_run_lists_and_asks_nobody(copy, hub, needed):
    done = run(copy, "--deploy", "me/cirilla", "--dry-run", HF_ENDPOINT=hub.url)
    assert done.returncode == 0 and hub.requests == [], done.stderr
    rows = done.stdout.splitlines()
    assert rows[0].split() == ["1,076", "LICENSE"] and rows[-1] == "Nothing was uploaded."
    total = sum(file.size for file in needed)
    assert rows[-2].split() == f"{total:,} bytes in {len(needed)} files, for the Space me/cirilla".split()
    assert len(rows) == len(needed) + 2


def test_an_upload_arrives_whole(copy, hub, needed):
    done = run(copy, "--deploy", "me/cirilla", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"The Space is at {hub.url}/spaces/me/cirilla"
    assert hub.spaces == {"me/cirilla": "gradio"} and hub.commits == [deploy.MESSAGE]
    assert set(hub.files) == {".gitattributes", *(file.path for file in needed)}
    for path in ("app.py", *deploy.models(ROOT)):
        assert hub.files[path] == (copy / path).read_bytes()
    assert hub.large == {path for path in hub.files if path.endswith(".safetensors")}
    assert TOKEN not in done.stdout + done.stderr


def test_a_second_upload_removes_what_is_no_longer_needed(tmp_path, hub, monkeypatch):
    hub.spaces["me/x"] = "gradio"
    hub.files |= {"app/old.py": b"", "banner.png": b"the owner's", ".gitattributes": b""}
    done = run_small(tmp_path, "me/x", hub)
    assert done.returncode == 0, done.stderr
    assert "app/old.py" not in hub.files and {"banner.png", "app/two.py"} <= set(hub.files)


def run_small(folder, space, hub, token=TOKEN, **environment):
    """``--deploy`` of the tiny project by this project's code, in a process of its own."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from app import settings, commands\n"
        "settings.ROOT = Path(sys.argv[2])\n"
        "import argparse; a = dict.fromkeys('ask search evaluate ingest data host port json canon'.split())\n"
        "sys.exit(commands.run(argparse.Namespace(**a, deploy=sys.argv[3], dry_run=False)))"
    )
    small = project(folder / "project")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CIRILLA_", "HF_", "SPACE"))}
    clean |= {"HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url} | environment
    if token is not None:
        clean["HF_TOKEN"] = token
    return subprocess.run(
        [sys.executable, "-c", code, str(ROOT), str(small), space],
        cwd=folder, env=clean, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("space", "token", "failing", "said"),
    [
        ("me/x", None, 0, "Set HF_TOKEN"),
        ("me/x", "  ", 0, "Set HF_TOKEN"),
        ("me/x", "hf_wrong_secret", 0, "does not know this HF_TOKEN"),
        ("you/x", TOKEN, 0, "may not write to you/x"),
        ("me/x", TOKEN, 404, "finds no me/x"),
        ("me/x", TOKEN, 500, "fails with status 500"),
    ],
)
def test_refusals_are_one_line_without_the_token(tmp_path, hub, space, token, failing, said):
    hub.failing = failing
    done = run_small(tmp_path, space, hub, token)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == commands.DEPLOY and last.startswith("cirilla: ") and said in last
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr and "hf_wrong_secret" not in done.stdout + done.stderr
    assert hub.commits == []


def test_a_hub_that_is_not_there(tmp_path):
    done = run_small(tmp_path, "me/x", "http://127.0.0.1:1")
    assert done.returncode == commands.DEPLOY and "cannot be reached" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_name_that_cannot_be_is_a_wrong_option(copy):
    done = run(copy, "--deploy", "cirilla", "--dry-run")
    assert done.returncode == commands.USAGE and "USER/SPACE" in done.stderr


def test_errors_of_other_kinds_lose_the_token_too():
    said = deploy._in_words(ValueError(f"bad {TOKEN}\nand more"), "me/x", TOKEN)
    assert TOKEN not in said and "\n" not in said and "and more" in said


def test_the_dockerfile_copies_what_a_space_gets(needed):
    copied = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    sources = {source for line in copied for source in line}
    assert all((ROOT / source).exists() for source in sources)
    assert {file.path.split("/")[0] for file in needed} - {"docs"} == sources  # README.md is shown on Spaces alone
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert shown == sources
