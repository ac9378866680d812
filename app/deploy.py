"""``--deploy``: what a Hugging Face Space needs of this project, and nothing else, uploaded in one commit.

What is needed is found out, not listed by hand: ``app/`` with its files, every module of ours that is imported from
there, the codex and the weights.  Questions, training, tests and whatever lies in the folder besides stay here.  The
Hub stores large files (safetensors) out of git by itself: it tells ``huggingface_hub`` which, before the upload.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from app.errors import AppError, SettingsError
from app.settings import Settings

TOP = ("app.py", "requirements.txt", "README.md", "LICENSE")
"""Files of the root that a Space needs; README.md holds its configuration."""
ROOMS = ("app", "corpus", "encoder", "lm", "retrieval")
"""Packages of ours that may be imported."""
WHOLE = re.compile(r"app/|corpus/codex/|weights/[^/]+/")
"""Folders that are taken as they are; what lies in weights/ itself is for training."""
PICTURE = re.compile(r"\bdocs/[\w./-]+\.(?:png|svg)\b")
"""A picture that README.md shows."""
NEVER = re.compile(r"(?:^|/)(?:\.[^/]*|__pycache__|tests|data|runs|[^/]*\.(?:py[cod]|sqlite.*|log|key|pem|tmp))(?:/|$)")
"""Paths that are never sent, wherever they lie: hidden files (.env, .git), caches, and what runs and tests leave."""
WEIGHTS = ("model.int8.safetensors", "model.safetensors.index.json", "model.safetensors")
"""What may lie in a folder of weights; ``lm.files`` says what each is."""
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9])?")
MESSAGE = "Deploy Cirilla"


class DeployError(AppError):
    """The Space cannot be deployed; the message says why, in one line and without the token."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to upload: its path below the root, with ``/``, and its size in bytes."""

    path: str
    size: int


def checked_name(name: str) -> str:
    """``USER/SPACE`` if it can be the name of a Space.

    Raises:
        SettingsError: it cannot.
    """
    parts = name.split("/")
    if len(parts) != 2 or not all(NAME.fullmatch(part) and "--" not in part and ".." not in part for part in parts):
        raise SettingsError(f"--deploy: the name of a Space looks like USER/SPACE, not {name[:100]!r}.")
    return name


def files(root: Path) -> list[File]:
    """Everything that the Space needs, by path.

    Raises:
        DeployError: something that it needs is missing, not in git, or a link.
    """
    tracked = _tracked(root)
    present = set(tracked if tracked is not None else _walk(root))
    needed = reachable(root)
    chosen = {path for path in present if path in TOP or path in needed or WHOLE.match(path)}
    # Beside its modules a package may keep what they read: tables, templates, word lists.
    used = {str(PurePosixPath(path).parent) for path in needed} - {"."}
    chosen |= {
        path for path in present if str(PurePosixPath(path).parent) in used and not path.endswith((".py", ".md"))
    }
    # README.md is the Space's page about itself.
    readme = root / "README.md"
    shown = set(PICTURE.findall(readme.read_text(encoding="utf-8"))) if readme.exists() else set()
    chosen |= shown & present
    chosen = {path for path in chosen if not NEVER.search(path)}
    if lost := sorted({*needed, *TOP, *models(root)} - chosen):
        why = "is not in git; add it first" if tracked is not None and (root / lost[0]).exists() else "is missing"
        raise DeployError(f"The Space needs {lost[0]}, which {why}.")
    out = []
    for path in sorted(chosen):
        if (root / path).is_symlink():
            raise DeployError(f"{path} is a link; only plain files are uploaded.")
        if (root / path).is_file():  # deleted files stay in git's list until their removal is committed
            out.append(File(path, (root / path).stat().st_size))
    return out


def models(root: Path) -> list[str]:
    """The file of each model, below the root, without which the app could not open it when nothing else is chosen."""
    folders = [field.default for name, field in Settings.model_fields.items() if name.endswith("_weights")]
    here = Path(__file__).resolve().parent.parent
    paths = [folder.relative_to(here) for folder in folders]
    found = [next((name for name in WEIGHTS if (root / path / name).exists()), WEIGHTS[-1]) for path in paths]
    return [(path / name).as_posix() for path, name in zip(paths, found, strict=True)]


def reachable(root: Path) -> set[str]:
    """Paths of our modules that ``app.py`` can come to import, directly or not, at once or later.

    Raises:
        DeployError: a module cannot be read.
    """
    found: set[str] = set()
    todo = ["app.py"]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        try:
            tree = ast.parse((root / path).read_bytes(), filename=path)
        except (OSError, SyntaxError, ValueError) as error:
            raise DeployError(f"Cannot read {path}: {error}.") from None
        todo += _modules(root, _imported(tree, path))
    return found


def _imported(tree: ast.AST, path: str) -> Iterator[str]:
    """Dotted names in the import statements of a module, those inside functions too."""
    package = path.removesuffix(".py").removesuffix("/__init__").split("/")
    if not path.endswith("/__init__.py"):
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *(node.module.split(".") if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _modules(root: Path, names: Iterable[str]) -> Iterator[str]:
    """The files that an import of these names reads, the packages above them included."""
    for name in names:
        parts = name.split(".")
        if parts[0] not in ROOMS:
            continue
        for end in range(1, len(parts) + 1):
            place = "/".join(parts[:end])
            for path in (f"{place}/__init__.py", f"{place}.py"):
                if path != "app.py" and (root / path).is_file():
                    yield path


def _tracked(root: Path) -> list[str] | None:
    """What git has of ``root``; None without git, or when ``root`` is not the top of a checkout."""
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [path for path in done.stdout.decode("utf-8", "surrogateescape").split("\0") if path]


def _walk(root: Path) -> Iterator[str]:
    """Files of ``root`` that could be meant at all, for a copy without git."""
    for name in TOP:
        if (root / name).exists():
            yield name
    for room in (*ROOMS, "weights", "docs"):
        for folder, inside, names in os.walk(root / room):
            here = Path(folder).relative_to(root).as_posix()
            inside[:] = [name for name in inside if not NEVER.search(f"{here}/{name}")]
            yield from (f"{here}/{name}" for name in names)


def upload(root: Path, space: str, chosen: Sequence[File], token: str) -> str:
    """Create the Space if there is none, and make its files those chosen, in one commit; the Space's address.

    Files of an earlier deployment that are no longer needed are deleted; nothing else of the Space is touched.

    Raises:
        DeployError: no token, or the Hub refuses, fails, or is not reached.
    """
    token = token.strip()
    if not token:
        raise DeployError("Set HF_TOKEN to a token of yours that may write (huggingface.co, Settings, Access Tokens).")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    try:
        address = api.create_repo(space, repo_type="space", space_sdk="gradio", exist_ok=True)
        ours = {file.path for file in chosen}
        there = [path for path in api.list_repo_files(space, repo_type="space") if path.startswith(tuple(_folders()))]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(file.path, root / file.path) for file in chosen
        ]
        operations += [CommitOperationDelete(path) for path in there if path not in ours]
        api.create_commit(space, operations, commit_message=MESSAGE, repo_type="space")
    except Exception as error:  # of many kinds: HTTP errors, LFS and Xet errors, sockets
        raise DeployError(_in_words(error, space, token)) from None
    return str(address)


def _folders() -> list[str]:
    return [f"{name}/" for name in (*ROOMS, "weights")]


def _in_words(error: BaseException, space: str, token: str) -> str:
    """One line for people, without the token wherever the library may have put it."""
    from huggingface_hub.errors import HfHubHTTPError

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) and cause.response is not None else 0
        if status == 401:
            return "The Hub does not know this HF_TOKEN: it is wrong or has expired."
        if status == 403:
            return f"The Hub refuses: this HF_TOKEN may not write to {space}."
        if status == 404:
            return f"The Hub finds no {space} that this HF_TOKEN may write to."
        if status == 429:
            return "The Hub has had too many requests from you: try again later."
        if status >= 500:
            return f"The Hub fails with status {status}: try again later."
        # The library chooses its HTTP client, and so whose errors these are.
        if isinstance(cause, ConnectionError | TimeoutError) or any(
            kind.__name__ == "TransportError" for kind in type(cause).__mro__
        ):
            return f"The Hub cannot be reached ({type(cause).__name__}): check the network."
    said = " ".join(str(error).split()).replace(token, "…")
    return f"The Hub did not take the upload: {said[:300] or type(error).__name__}."
