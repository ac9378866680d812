"""A folder of weights to the Hugging Face Hub and back.

    HF_TOKEN=hf_… python -m lm.hub push weights/cirilla USER/NAME [--public]
    python -m lm.hub pull USER/NAME [--revision COMMIT] [--to FOLDER]

Knows nothing of what is in the folder but this: safetensors, GGUF, JSON and Markdown travel, everything else stays.  So
no checkpoint goes out by mistake, and no pickle, which could run code when opened, comes in.

The token is read from ``HF_TOKEN`` (or from what ``hf auth login`` stored) and another Hub's address from
``HF_ENDPOINT``, both by ``huggingface_hub`` itself.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatch
from pathlib import Path

PATTERNS = ("*.safetensors", "*.gguf", "*.json", "*.md")


class HubError(Exception):
    """The Hub or the folder refuses; one line that says what to do."""


def push(
    folder: str | Path, repo_id: str, *, private: bool = True, revision: str = "main", message: str | None = None
) -> str:
    """Make the Hub's repository equal to ``folder``; it is created if need be.  Returns the commit's address.

    Files of earlier pushes that ``folder`` no longer has are deleted there: a model that was in three parts and is now
    in one must not keep the other two.

    Args:
        private: whether a new repository is hidden; one that exists stays as it is.

    Raises:
        HubError: there is no token, nothing to push, or the Hub refuses.
    """
    import huggingface_hub

    folder = Path(folder)
    files = [p for p in folder.rglob("*") if p.is_file() and any(fnmatch(p.name, pattern) for pattern in PATTERNS)]
    if not any(p.suffix in (".safetensors", ".gguf") for p in files):
        raise HubError(f"{folder} holds no weights (.safetensors or .gguf): nothing was pushed.")
    if huggingface_hub.get_token() is None:
        raise HubError("Set HF_TOKEN to a token with write access (huggingface.co/settings/tokens).")
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=message or f"Weights from {folder.name}",
            allow_patterns=list(PATTERNS),
            delete_patterns=list(PATTERNS),
        )
    except Exception as error:  # the library lets its HTTP client's errors through, whichever that is
        raise HubError(f"Pushing to {repo_id} failed: {line(error)}") from error
    return str(commit.commit_url)


def pull(repo_id: str, revision: str = "main", to: str | Path | None = None) -> Path:
    """Fetch a repository at a branch, tag or commit; returns the folder that holds it.

    Args:
        to: where the files go; by default into the library's cache, where they are fetched once.  Safetensors of an
            earlier release that lie there and that the repository lacks are deleted: beside the new ones they could be
            opened in their place.

    Raises:
        HubError: no such repository or revision, no weights in it, or no network.
    """
    import huggingface_hub

    there, commit = None, revision
    try:
        if to is not None:
            info = huggingface_hub.HfApi().model_info(repo_id, revision=revision)
            there = {file.rfilename for file in info.siblings or ()}
            commit = str(info.sha)  # with a branch's name, a push in between would bring other files than the list has
        path = huggingface_hub.snapshot_download(repo_id, revision=commit, local_dir=to, allow_patterns=list(PATTERNS))
    except Exception as error:
        raise HubError(f"Pulling {repo_id} at {revision} failed: {line(error)}") from error
    folder = Path(path)
    names = {str(file) for file in folder.rglob("*")} if there is None else there
    if not any(name.endswith((".safetensors", ".gguf")) for name in names):
        raise HubError(f"{repo_id} at {revision} holds no weights in safetensors or GGUF.")
    if there is not None:
        for old in (*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
            if old.name not in there:
                old.unlink()
    return folder


def line(error: Exception) -> str:
    """The first line of a message, which may run over many."""
    return next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pushing = commands.add_parser("push", help="folder → Hub")
    pushing.add_argument("folder", type=Path)
    pushing.add_argument("repo_id", metavar="USER/NAME")
    pushing.add_argument("--public", action="store_true", help="let everyone see a newly created repository")
    pushing.add_argument("--revision", default="main", help="branch to push to")
    pushing.add_argument("--message", help="what the commit is called")
    pulling = commands.add_parser("pull", help="Hub → folder")
    pulling.add_argument("repo_id", metavar="USER/NAME")
    pulling.add_argument("--revision", default="main", help="branch, tag or commit")
    pulling.add_argument("--to", type=Path, help="folder to fetch into (default: the library's cache)")
    args = parser.parse_args()
    try:
        if args.command == "push":
            private = not args.public
            print(push(args.folder, args.repo_id, private=private, revision=args.revision, message=args.message))
        else:
            print(pull(args.repo_id, args.revision, args.to))
    except HubError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
