"""Push and pull against a small Hub of our own, which speaks as much of the protocol as the client asks for."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import torch

from lm import Reader, files, hub, quantize
from lm.model import PRESETS, Cirilla
from lm.tokenizer import Tokenizer
from tests.lm.test_model import make

constants = pytest.importorskip("huggingface_hub.constants")
TOKEN = "hf_of_the_test"


@dataclass
class Repo:
    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)  # (hash, files), oldest first

    def commit(self, contents: dict[str, bytes]) -> str:
        sha = hashlib.sha1(str((len(self.commits), sorted(contents))).encode()).hexdigest()
        self.commits.append((sha, contents))
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((c for c in self.commits if c[0] == revision), None)


class Hub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}  # LFS objects by SHA-256
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args) -> None:
        pass

    def answer(self, status: int, body: object = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str, text: str) -> None:
        self.answer(status, {"error": text}, X_Error_Code=code, X_Error_Message=text)

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(p) for p in urlparse(self.path).path.strip("/").split("/")]
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if parts[:2] == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        if self.command == "PUT" and parts[0] == "large":
            assert hashlib.sha256(body).hexdigest() == parts[1]
            self.server.large[parts[1]] = body
            return self.answer(200, {})
        if self.command == "POST" and not known:
            return self.refuse(401, "", "Invalid username or password.")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            status = 409 if name in self.server.repos else 200
            if status == 200:
                self.server.repos[name] = Repo(asked.get("visibility") == "private")
                self.server.repos[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
            return self.answer(status, {"url": f"{self.server.url}/{name}", "error": "exists"})
        name = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2]).removesuffix(".git")
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and not known):
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if parts[:2] == ["api", "models"]:
            return self.api(repo, name, parts[4:], body)
        if self.command == "POST" and parts[2:] == ["info", "lfs", "objects", "batch"]:
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.server.url}/large/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if parts[2] == "resolve" and (found := repo.at(parts[3])) and "/".join(parts[4:]) in found[1]:
            data = found[1]["/".join(parts[4:])]
            etag = hashlib.sha256(data).hexdigest()
            return self.answer(200, data, ETag=f'"{etag}"', X_Repo_Commit=found[0], Content_Length=str(len(data)))
        return self.refuse(404, "EntryNotFound", "Entry not found")

    def api(self, repo: Repo, name: str, parts: list[str], body: bytes) -> None:
        action = parts[0] if parts else ""
        revision = parts[1] if len(parts) > 1 else "main"
        found = repo.at(revision)
        if found is None:
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        if action == "preupload":
            large = [(f["path"], f["path"].endswith(".safetensors")) for f in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "lfs" if is_ else "regular", "shouldIgnore": False} for p, is_ in large]
            return self.answer(200, {"files": modes})
        if action == "commit":
            contents = dict(repo.commits[-1][1])
            for row in map(json.loads, body.splitlines()):
                value = row["value"]
                if row["key"] == "file":
                    contents[value["path"]] = b64decode(value["content"])
                elif row["key"] == "lfsFile":
                    contents[value["path"]] = self.server.large[value["oid"]]
                elif row["key"] == "deletedFile":
                    del contents[value["path"]]
            sha = repo.commit(contents)
            return self.answer(
                200, {"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}"}
            )
        if action == "tree":
            rows = [
                {"type": "file", "path": p, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for p, d in found[1].items()
            ]
            return self.answer(200, rows)
        siblings = [{"rfilename": path} for path in found[1]]
        return self.answer(200, {"id": name, "sha": found[0], "private": repo.private, "siblings": siblings})

    do_GET = do_POST = do_PUT = do_HEAD = handle_any


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The library reads its environment when it is imported; the last test starts afresh with a real environment.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model in parts, and around it what must stay at home."""
    folder = tmp_path / "cirilla"
    model, tokenizer = make(PRESETS["cirilla-tiny"]), Tokenizer.load("weights/tokenizer.json")
    files.save(model, tokenizer, folder, dtype=torch.float32, shard_bytes=200_000)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "checkpoint.pt").write_bytes(b"pickled")
    (folder / "log.jsonl").write_text("{}\n")
    return folder


def test_what_is_pushed_comes_back(server, folder, tmp_path):
    address = hub.push(folder, "somebody/cirilla")
    repo = server.repos["somebody/cirilla"]
    assert repo.private and address == f"{server.url}/somebody/cirilla/commit/{repo.commits[-1][0]}"
    there = set(repo.commits[-1][1])
    assert not there & {"checkpoint.pt", "log.jsonl"}
    assert {"README.md", "config.json", "1_Pooling/config.json", files.INDEX} <= there
    ids = torch.arange(40)[None] + 100
    with torch.no_grad():
        for back in (hub.pull("somebody/cirilla"), hub.pull("somebody/cirilla", to=tmp_path / "here")):
            assert torch.equal(files.load(back)[0](ids), files.load(folder)[0](ids))
    assert (tmp_path / "here" / "1_Pooling" / "config.json").is_file()


def test_a_push_replaces_and_a_pull_finds_what_was(server, folder, tmp_path):
    hub.push(folder, "somebody/cirilla", private=False)
    repo = server.repos["somebody/cirilla"]
    first = repo.commits[-1]
    assert not repo.private
    model, tokenizer = files.load(folder)
    files.save(model, tokenizer, folder)  # now in one part
    hub.push(folder, "somebody/cirilla")
    weights = {p for p in repo.commits[-1][1] if p.endswith(".safetensors")}
    assert weights == {files.WEIGHTS} and files.INDEX not in repo.commits[-1][1]
    assert ".gitattributes" in repo.commits[-1][1] and not repo.private
    old, new = hub.pull("somebody/cirilla", revision=first[0]), hub.pull("somebody/cirilla")
    assert (old / files.INDEX).exists() and not (new / files.INDEX).exists()


def test_a_pull_into_a_folder_leaves_no_weights_of_an_earlier_release(server, folder, tmp_path):
    hub.push(folder, "somebody/cirilla")  # in parts
    here = tmp_path / "here"
    (here / "2_Dense").mkdir(parents=True)
    files.save(Cirilla(PRESETS["cirilla-tiny"]), Tokenizer.load("weights/tokenizer.json"), here)  # in one
    for own in (here / "notes.md", here / "2_Dense" / "model.safetensors"):
        own.write_text("mine")
    hub.pull("somebody/cirilla", to=here)
    ids = torch.arange(40)[None] + 100
    with torch.no_grad():
        assert torch.equal(files.load(here)[0](ids), files.load(folder)[0](ids))
    assert (here / "notes.md").exists() and (here / "2_Dense" / "model.safetensors").exists()
    model, tokenizer = files.load(folder)
    files.save(model, tokenizer, folder)  # now in one part
    hub.push(folder, "somebody/cirilla")
    hub.pull("somebody/cirilla", to=here)
    assert {p.name for p in here.glob("model*")} == {files.WEIGHTS}
    # A repository without weights is refused, and takes none away.
    server.repos["somebody/cirilla"].commit({"config.json": b"{}"})
    with pytest.raises(hub.HubError, match="no weights"):
        hub.pull("somebody/cirilla", to=here)
    assert (here / files.WEIGHTS).exists()


def test_int8_weights_travel_and_replace_floats(server, folder):
    hub.push(folder, "somebody/cirilla")
    model, tokenizer = files.load(folder)
    files.save(model, tokenizer, folder, dtype=torch.int8)
    hub.push(folder, "somebody/cirilla")
    there = {p for p in server.repos["somebody/cirilla"].commits[-1][1] if "safetensors" in p}
    assert there == {quantize.WEIGHTS}
    back = Reader.load(hub.pull("somebody/cirilla")).model
    ids = torch.arange(16, 48)[None]
    with torch.inference_mode():
        assert torch.equal(back(ids), quantize.to_int8(model)(ids))


def test_pickles_are_left_where_they_are(server, folder):
    hub.push(folder, "somebody/cirilla")
    repo = server.repos["somebody/cirilla"]
    repo.commit(repo.commits[-1][1] | {"pytorch_model.bin": b"pickled", "code.py": b"evil()"})
    assert not {"pytorch_model.bin", "code.py"} & {p.name for p in hub.pull("somebody/cirilla").iterdir()}
    repo.commit({"pytorch_model.bin": b"pickled"})
    with pytest.raises(hub.HubError, match="no weights"):
        hub.pull("somebody/cirilla")


def test_refusals_are_one_line(server, folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    cases = [
        ("no weights", lambda: hub.push(tmp_path / "empty", "somebody/cirilla")),
        ("nobody/nothing", lambda: hub.pull("nobody/nothing")),
        ("not-a-repository", lambda: hub.pull("not-a-repository/at/all")),
    ]
    hub.push(folder, "somebody/cirilla")
    cases.append(("v9", lambda: hub.pull("somebody/cirilla", revision="v9")))
    for said, action in cases:
        with pytest.raises(hub.HubError, match=said) as caught:
            action()
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(hub.HubError, match="somebody/cirilla"):
        hub.push(folder, "somebody/cirilla")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(hub.HubError, match="HF_TOKEN"):
        hub.push(folder, "somebody/cirilla")
    with pytest.raises(hub.HubError):  # a private repository is not for strangers
        hub.pull("somebody/cirilla", to=tmp_path / "stolen")


def test_the_command_line_says_what_is_wrong(server, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lm.hub", "pull", "nobody/nothing"])
    with pytest.raises(SystemExit, match="nobody/nothing"):
        hub.main()


def test_the_command_line_takes_its_settings_from_the_environment(server, folder, tmp_path):
    environment = {
        **os.environ, "HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    for arguments in (["push", str(folder), "somebody/cirilla", "--public"], ["pull", "somebody/cirilla"]):
        command = [sys.executable, "-m", "lm.hub", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and TOKEN not in done.stderr, done.stderr
    assert not server.repos["somebody/cirilla"].private
    back = Path(done.stdout.strip())
    assert back.is_relative_to(tmp_path / "home")
    assert files.load(back)[0].config == PRESETS["cirilla-tiny"]
