"""Training text: which files, how often, tokenised once into shards, packed into rows.

    python -m lm.data --data DIR --out runs/tokens          # tokenise everything the mix names

A data folder holds JSON lines under zstd in ``witcher/``, ``lore/`` and ``general/``; each line has ``text`` and
usually ``title``.  A shard is a flat ``uint16`` file in which every document starts with ``<|bos|>``, and a ``.json``
beside it counts documents, tokens and bytes (bytes turn a loss into bits per byte).
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from lm.errors import LMError
from lm.tokenizer import Tokenizer

# (file pattern, repeats, documents at most): the vocabulary should know the domain's names, so lore weighs more here
# than its size; three quarters of all general text would only teach the same common words again.
TOKENIZER_MIX = [
    ("codex", 8, None),
    ("witcher/*", 8, None),
    ("lore/got*", 1, None),
    ("lore/lotr*", 2, None),
    ("lore/myth*", 1, None),
    ("lore/pathfinder*", 1, None),
    ("lore/open5e*", 1, None),
    ("lore/critical*", 1, None),
    ("lore/wookieepedia_full*", 1, 3_000),
    ("general/simplewiki*", 1, 20_000),
    ("general/gutenberg*", 1, 1_500),
    ("general/standardebooks*", 1, 800),
]

# Share of pretraining tokens by source.  The domain and its neighbours in kind come round more often than their size,
# but in a billion tokens no source more than some forty times: past that, repeats teach nothing (Muennighoff et al.
# 2023).  Star Wars is a third of all lore and is held to a tenth of the mix, cartoon trivia to a fiftieth.
PRETRAIN_MIX = {
    "codex": 0.012,
    "witcher/*": 0.012,
    "lore/got*": 0.09,
    "lore/lotr*": 0.015,
    "lore/myth*": 0.08,
    "lore/mahabharata*": 0.01,
    "lore/wookieepedia_full*": 0.10,
    "lore/comics*": 0.05,
    "lore/pathfinder*": 0.02,
    "lore/open5e*": 0.01,
    "lore/critical*": 0.01,
    "lore/cairn*": 0.003,
    "lore/fairytaleqa*": 0.02,
    "lore/disney_wiki_fantasy*": 0.02,
    "general/enwiki*": 0.25,
    "general/simplewiki*": 0.163,
    "general/gutenberg*": 0.08,
    "general/standardebooks*": 0.04,
    "general/wikipedia_film*": 0.01,
    "general/children*": 0.005,
}


def documents(data: Path, pattern: str, codex: Path = Path("corpus/codex")) -> Iterator[str]:
    """Texts of every file under ``data`` that matches ``pattern``, in a fixed order, each with its title on top.

    ``pattern`` "codex" reads the project's own articles instead, without their front matter.

    Raises:
        LMError: nothing matches.
    """
    if pattern == "codex":
        articles = sorted(codex.glob("*/*.md"))
        if not articles:
            raise LMError(f"No article of the codex is in {codex}.")
        for path in articles:
            head, _, body = path.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
            title = next((line[7:].strip(" \"'") for line in head.splitlines() if line.startswith("title: ")), "")
            yield f"{title}\n\n{body.strip()}"
        return
    import zstandard

    paths = sorted(data.glob(pattern + (".jsonl.zst" if not pattern.endswith("zst") else "")))
    if not paths:
        raise LMError(f"No training file matches {data / pattern}.")
    for path in paths:
        with path.open("rb") as raw:
            stream = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(raw)
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                row = json.loads(line)
                text, title = row["text"].strip(), row.get("title", "")
                if text:
                    yield f"{title}\n\n{text}" if title and not text.startswith(title + "\n") else text


def shard_name(pattern: str) -> str:
    return pattern.replace("/", "-").replace("*", "")


def write_shard(texts: Iterator[str], tokenizer: Tokenizer, out: Path, *, holdout_every: int = 100) -> dict[str, int]:
    """Tokenise ``texts`` into ``out.bin`` and, every ``holdout_every``-th document, into ``out.heldout.bin``.

    Returns the counts that are also written to ``out.json``.
    """
    counts = {"documents": 0, "tokens": 0, "bytes": 0, "heldout_tokens": 0, "heldout_bytes": 0}
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{out}.bin.part", "wb") as train_file, open(f"{out}.heldout.bin.part", "wb") as held_file:
        batch: list[str] = []

        def flush() -> None:
            for text, ids in zip(batch, tokenizer.encode_batch(batch), strict=True):
                held = counts["documents"] % holdout_every == holdout_every - 1
                array = np.array([tokenizer.bos, *ids], dtype=np.uint16)
                array.tofile(held_file if held else train_file)
                counts["documents"] += 1
                counts["heldout_tokens" if held else "tokens"] += len(array)
                counts["heldout_bytes" if held else "bytes"] += len(text.encode())
            batch.clear()

        for text in texts:
            batch.append(text)
            if len(batch) == 512:
                flush()
        flush()
    for kind in ("bin", "heldout.bin"):
        Path(f"{out}.{kind}.part").replace(f"{out}.{kind}")
    Path(f"{out}.json").write_text(json.dumps(counts, indent=1))
    return counts


class Shard:
    """One tokenised source: a memory-mapped array of tokens, and where its documents begin and how long they are."""

    def __init__(self, tokens: np.ndarray, bos: int) -> None:
        self.tokens = tokens
        self.starts = np.flatnonzero(tokens == bos)
        self.sizes = np.diff(self.starts, append=len(tokens))

    @classmethod
    def open(cls, path: Path, bos: int) -> Shard:
        """The shard in a ``.bin`` file of ``uint16`` tokens, in which ``bos`` begins a document; an empty one too.

        Raises:
            OSError: there is no such file.
        """
        return cls(np.memmap(path, dtype=np.uint16, mode="r") if path.stat().st_size else np.zeros(0, np.uint16), bos)

    def __len__(self) -> int:
        return len(self.starts)

    def document(self, i: int) -> np.ndarray:
        """Tokens of the ``i``-th document, ``(its size,)`` uint16, ``<|bos|>`` first."""
        return self.tokens[self.starts[i] : self.starts[i] + self.sizes[i]]


class PackedRows:
    """Rows of ``length + 1`` tokens drawn from weighted shards by best-fit packing.

    A row takes, again and again, the longest document in a buffer that still fits, and when none fits, crops one to
    fill up: no padding, no row that goes on with what the row before broke off, and far fewer documents cut than by
    concatenating and slicing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling").  Every piece begins
    with ``<|bos|>``, a piece from the middle of a long document too: so ``(ids == bos).cumsum(1)`` numbers the
    documents of a row.

    Which documents a row takes is settled without reading a token.  So several processes can share one stream, each
    reading its own rows and passing over the others', and the stream does not depend on how many they are.  Its state
    is the random generator and the buffer: ``state_dict`` resumes exactly.
    """

    def __init__(self, shards: list[Shard], weights: list[float], length: int, seed: int, buffer: int = 1024) -> None:
        keep = [i for i, shard in enumerate(shards) if len(shard) and weights[i] > 0]
        if not keep:
            raise LMError("There is no training text: every source is empty or weighs nothing.")
        self.shards = [shards[i] for i in keep]
        self.bos = int(self.shards[0].tokens[0])
        # Weights are shares of *tokens*; a document is drawn with a chance of share / mean length of its pieces.
        mean = np.array([np.minimum(s.sizes, length + 1).mean() for s in self.shards])
        chance = np.array([weights[i] for i in keep]) / mean
        self.edges = np.cumsum(chance / chance.sum())
        self.length = length
        self.random = np.random.default_rng(seed)
        self.buffer = np.zeros((buffer, 4), np.int64)  # shard, document, offset, tokens from there; 0 tokens: empty

    def _draw(self) -> tuple[int, int, int, int]:
        shard = min(int(np.searchsorted(self.edges, self.random.random(), side="right")), len(self.shards) - 1)
        document = int(self.random.integers(len(self.shards[shard])))
        size = int(self.shards[shard].sizes[document])
        # A document longer than a row enters at a random place, or its tail would never be seen.
        offset = int(self.random.integers(size - self.length)) if size > self.length + 1 else 0
        return shard, document, offset, min(size - offset, self.length + 1)

    def _plan(self) -> list[tuple[int, int, int, int]]:
        """The pieces of the next row."""
        pieces: list[tuple[int, int, int, int]] = []
        room = self.length + 1
        while room:
            for empty in np.flatnonzero(self.buffer[:, 3] == 0):
                self.buffer[empty] = self._draw()
            sizes = self.buffer[:, 3]
            i = int(np.argmax(np.where(sizes <= room, sizes, 0)))
            if sizes[i] > room:  # nothing fits: crop the shortest, it loses the least
                i = int(np.argmin(sizes))
            shard, document, offset, size = self.buffer[i].tolist()
            self.buffer[i, 3] = 0
            size = min(size, room)
            pieces.append((shard, document, offset, size))
            room -= size
        return pieces

    def _read(self, pieces: list[tuple[int, int, int, int]]) -> np.ndarray:
        row = np.empty(self.length + 1, np.int64)
        at = 0
        for shard, document, offset, size in pieces:
            row[at : at + size] = self.shards[shard].document(document)[offset : offset + size]
            row[at] = self.bos
            at += size
        return row

    def row(self) -> np.ndarray:
        """One row, ``(length + 1,)`` int64."""
        return self._read(self._plan())

    def batch(self, rows: int, rank: int = 0, size: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, each ``(rows, length)``: the part that process ``rank`` of ``size`` reads of the next
        ``rows · size`` rows.  A document's ``<|bos|>`` is the last target of the one before: it says where that ends.
        """
        plans = [self._plan() for _ in range(rows * size)][rank * rows : (rank + 1) * rows]
        block = torch.from_numpy(np.stack([self._read(plan) for plan in plans]))
        return block[:, :-1].contiguous(), block[:, 1:].contiguous()

    def state_dict(self) -> dict:
        return {"random": self.random.bit_generator.state, "buffer": self.buffer.copy()}

    def load_state_dict(self, state: dict) -> None:
        self.random.bit_generator.state = state["random"]
        self.buffer = state["buffer"].copy()


class Prefetch:
    """A thread that makes batches while the device computes, in pinned memory where that speeds the copy up.

    The batches come in order, and :meth:`state_dict` is the source's state after the last one handed out, however many
    lie ready: what is not yet used is made again after a resumption.

    Args:
        make: gives the next batch, a tuple of tensors.
        state: the source's state, copied.
        ready: batches made ahead at most.
        pin: whether batches are copied into pinned memory.
    """

    def __init__(
        self,
        make: Callable[[], tuple[torch.Tensor, ...]],
        state: Callable[[], dict],
        ready: int = 4,
        pin: bool = False,
    ) -> None:
        self._state = state()
        self._queue: queue.Queue = queue.Queue(ready)
        self._stop = threading.Event()

        def work() -> None:
            while not self._stop.is_set():
                item: tuple[tuple[torch.Tensor, ...] | BaseException, dict]
                try:
                    item = tuple(t.pin_memory() if pin else t for t in make()), state()
                except BaseException as error:  # it is the training loop's to raise
                    item = error, {}
                while not self._stop.is_set():
                    try:
                        self._queue.put(item, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if isinstance(item[0], BaseException):
                    return

        self._thread = threading.Thread(target=work, name="batches", daemon=True)
        self._thread.start()

    def next(self) -> tuple[torch.Tensor, ...]:
        """The next batch.  Raises what went wrong in making it."""
        batch, state = self._queue.get()
        if isinstance(batch, BaseException):
            raise batch
        self._state = state
        return batch

    def state_dict(self) -> dict:
        return self._state

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_mix(
    folder: Path, bos: int, kind: str = "bin", mix: dict[str, float] | None = None
) -> tuple[list[Shard], list[float]]:
    """The shards of ``mix`` (by default ``PRETRAIN_MIX``) in ``folder`` with their weights.

    Raises:
        LMError: a shard is missing.
    """
    shards, weights = [], []
    for pattern, weight in (PRETRAIN_MIX if mix is None else mix).items():
        path = folder / f"{shard_name(pattern)}.{kind}"
        if not path.exists():
            raise LMError(f"{path} is missing: run `python -m lm.data` first.")
        shards.append(Shard.open(path, bos))
        weights.append(weight)
    return shards, weights


def token_bytes(tokenizer: Tokenizer) -> torch.Tensor:
    """Bytes of text that each token stands for, ``(V,)``; none for special tokens."""
    # In a byte-level vocabulary every character of a token's name is one byte.
    names = [tokenizer.inner.id_to_token(i) or "" for i in range(tokenizer.vocab_size)]
    special = set(tokenizer.ids.values())
    return torch.tensor([0 if i in special else len(name) for i, name in enumerate(names)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with witcher/, lore/ and general/")
    parser.add_argument("--codex", type=Path, default=Path("corpus/codex"))
    parser.add_argument("--tokenizer", type=Path, default=Path("weights/tokenizer.json"))
    parser.add_argument("--out", type=Path, default=Path("runs/tokens"))
    parser.add_argument("--limit", type=int, default=None, help="documents a source at most (for a quick try)")
    parser.add_argument("--only", nargs="*", default=list(PRETRAIN_MIX), help="renew these sources alone")
    args = parser.parse_args()
    total = 0
    try:
        tokenizer = Tokenizer.load(args.tokenizer)
        for pattern in args.only:
            texts = itertools.islice(documents(args.data, pattern, args.codex), args.limit)
            counts = write_shard(texts, tokenizer, args.out / shard_name(pattern))
            total += counts["tokens"]
            read, made, ratio = counts["documents"], counts["tokens"], counts["bytes"] / max(1, counts["tokens"])
            print(f"{pattern}: {read:,} documents, {made:,} tokens, {ratio:.2f} bytes a token")
    except LMError as error:
        print(error, file=sys.stderr)
        return 1
    (args.out / "mix.json").write_text(json.dumps({shard_name(p): w for p, w in PRETRAIN_MIX.items()}, indent=1))
    print(f"together {total:,} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
