"""Training text: which files, how often, tokenised once into shards, packed into rows.

    python -m lm.data --data DIR --out runs/tokens          # tokenise everything the mix names

A data folder holds JSON lines under zstd in ``witcher/``, ``lore/`` and ``general/``; each line has ``text`` and
usually ``title``.  A shard is a flat ``uint16`` file in which every document starts with ``<|bos|>``, and a ``.json``
beside it counts documents, tokens and bytes (bytes turn a loss into bits per byte).
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
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

# Share of pretraining tokens by source.  The domain and its neighbours in kind come round more often than their size;
# Star Wars is a third of all lore and is held to a tenth of the mix, cartoon trivia to a fiftieth.
PRETRAIN_MIX = {
    "codex": 0.06,
    "witcher/*": 0.06,
    "lore/got*": 0.09,
    "lore/lotr*": 0.02,
    "lore/myth*": 0.08,
    "lore/mahabharata*": 0.01,
    "lore/wookieepedia_full*": 0.10,
    "lore/comics*": 0.05,
    "lore/pathfinder*": 0.02,
    "lore/open5e*": 0.01,
    "lore/critical*": 0.01,
    "lore/cairn*": 0.005,
    "lore/fairytaleqa*": 0.02,
    "lore/disney_wiki_fantasy*": 0.02,
    "general/enwiki*": 0.19,
    "general/simplewiki*": 0.12,
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
        for path in sorted(codex.glob("*/*.md")):
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


@dataclass
class Shard:
    """One tokenised source: its documents as (start, end) into a memory-mapped token array."""

    tokens: np.ndarray
    starts: np.ndarray

    @classmethod
    def open(cls, path: Path, bos: int) -> Shard:
        tokens = np.memmap(path, dtype=np.uint16, mode="r") if path.stat().st_size else np.zeros(0, np.uint16)
        return cls(tokens, np.flatnonzero(tokens == bos))

    def __len__(self) -> int:
        return len(self.starts)

    def document(self, i: int) -> np.ndarray:
        end = self.starts[i + 1] if i + 1 < len(self.starts) else len(self.tokens)
        return self.tokens[self.starts[i] : end]


class PackedRows:
    """Rows of ``length + 1`` tokens drawn from weighted shards by best-fit packing.

    A row takes, again and again, the longest document in a small buffer that still fits, and when none fits, crops
    one to fill up: no padding, no row that starts in the middle of a document, and far fewer documents cut than by
    concatenating and slicing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling").

    The state is the random generator and the buffer, so ``state_dict`` resumes exactly.
    """

    def __init__(self, shards: list[Shard], weights: list[float], length: int, seed: int, buffer: int = 256) -> None:
        keep = [i for i, shard in enumerate(shards) if len(shard)]
        self.shards = [shards[i] for i in keep]
        # Weights are shares of *tokens*; a document is drawn with a chance of share / mean document length.
        mean = np.array([len(s.tokens) / len(s) for s in self.shards])
        chance = np.array([weights[i] for i in keep]) / np.minimum(mean, length)
        self.chance = chance / chance.sum()
        self.length, self.buffer_size = length, buffer
        self.random = np.random.default_rng(seed)
        self.buffer: list[tuple[int, int, int, int]] = []  # (shard, document, offset, tokens from there)

    def _draw(self) -> tuple[int, int, int, int]:
        shard = int(self.random.choice(len(self.shards), p=self.chance))
        document = int(self.random.integers(len(self.shards[shard])))
        size = len(self.shards[shard].document(document))
        # A document longer than a row enters at a random place, or its tail would never be seen.
        offset = int(self.random.integers(size - self.length)) if size > 2 * self.length else 0
        return shard, document, offset, min(size - offset, self.length + 1)

    def row(self) -> np.ndarray:
        """One row, ``(length + 1,)`` int64."""
        parts: list[np.ndarray] = []
        room = self.length + 1
        while room:
            while len(self.buffer) < self.buffer_size:
                self.buffer.append(self._draw())
            best, best_size, shortest = -1, 0, 0
            for i, item in enumerate(self.buffer):
                if best_size < item[3] <= room:
                    best, best_size = i, item[3]
                if item[3] < self.buffer[shortest][3]:
                    shortest = i
            # When nothing fits, crop the shortest: it loses the least.
            shard, document, offset, size = self.buffer.pop(best if best >= 0 else shortest)
            size = min(size, room)
            parts.append(self.shards[shard].document(document)[offset : offset + size])
            room -= size
        return np.concatenate(parts).astype(np.int64)

    def batch(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, each ``(rows, length)``; a document's first token is never a target."""
        block = torch.from_numpy(np.stack([self.row() for _ in range(rows)]))
        return block[:, :-1].contiguous(), block[:, 1:].contiguous()

    def state_dict(self) -> dict:
        return {"random": self.random.bit_generator.state, "buffer": self.buffer}

    def load_state_dict(self, state: dict) -> None:
        self.random.bit_generator.state = state["random"]
        self.buffer = list(state["buffer"])


def open_mix(folder: Path, bos: int, kind: str = "bin") -> tuple[list[Shard], list[float]]:
    """The shards of ``PRETRAIN_MIX`` in ``folder`` with their weights.

    Raises:
        LMError: a shard is missing.
    """
    shards, weights = [], []
    for pattern, weight in PRETRAIN_MIX.items():
        path = folder / f"{shard_name(pattern)}.{kind}"
        if not path.exists():
            raise LMError(f"{path} is missing: run `python -m lm.data` first.")
        shards.append(Shard.open(path, bos))
        weights.append(weight)
    return shards, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with witcher/, lore/ and general/")
    parser.add_argument("--codex", type=Path, default=Path("corpus/codex"))
    parser.add_argument("--tokenizer", type=Path, default=Path("weights/tokenizer.json"))
    parser.add_argument("--out", type=Path, default=Path("runs/tokens"))
    parser.add_argument("--limit", type=int, default=None, help="documents a source at most (for a quick try)")
    parser.add_argument("--only", nargs="*", default=list(PRETRAIN_MIX), help="renew these sources alone")
    args = parser.parse_args()
    import itertools

    tokenizer = Tokenizer.load(args.tokenizer)
    total = 0
    for pattern in args.only:
        texts = itertools.islice(documents(args.data, pattern, args.codex), args.limit)
        counts = write_shard(texts, tokenizer, args.out / shard_name(pattern))
        total += counts["tokens"]
        ratio = counts["bytes"] / max(1, counts["tokens"])
        print(f"{pattern}: {counts['documents']:,} documents, {counts['tokens']:,} tokens, {ratio:.2f} bytes a token")
    (args.out / "mix.json").write_text(json.dumps({shard_name(p): w for p, w in PRETRAIN_MIX.items()}, indent=1))
    print(f"together {total:,} tokens")


if __name__ == "__main__":
    main()
