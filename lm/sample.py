"""Sampled answers to the prompts of a file, many at once: what preference tuning is made from.

    python -m lm.sample --model runs/cirilla-tuned/model --data runs/grounded.jsonl --out runs/samples.jsonl

Every row of the data comes out again with ``samples``, a list of answers.  ``python -m benchmarks.preferences`` scores
them.  That needs the packages of the whole app and no GPU, this needs a GPU and nothing but torch, tokenizers and
safetensors: so the two can run on different computers.  What is already in the file that it writes is kept, and a
sample's random numbers depend on its place alone: a run that was cut short goes on where it stopped.  A hash beside the
file, ``samples.jsonl.made-from``, sees to it that model, data and settings are still the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from lm import chat, files, generate
from lm.errors import LMError
from lm.model import Cirilla
from lm.tokenizer import EOS, USER, Tokenizer
from lm.tune import Row, read_rows

NEW_TOKENS = 96  # of a sample at most


def sampled(
    model: Cirilla,
    tokenizer: Tokenizer,
    rows: Sequence[Row],
    samples: int,
    together: int,
    temperature: float,
    seed: int,
    first: int = 0,
) -> Iterator[tuple[Row, list[str]]]:
    """Every row from the ``first`` on with ``samples`` answers, those of ``together`` rows drawn side by side."""
    stop = frozenset({tokenizer.end, tokenizer.special(EOS), tokenizer.special(USER), tokenizer.bos})
    budget = model.config.max_length - NEW_TOKENS
    for at in range(first, len(rows), together):
        part = rows[at : at + together]
        prompts = [
            chat.render(tokenizer, [(h, t) for h, t in row["passages"]], row["turns"], budget=budget) for row in part
        ]
        found = generate.batch(
            model,
            [prompt for prompt in prompts for _ in range(samples)],
            max_new_tokens=NEW_TOKENS,
            stop=stop,
            temperature=temperature,
            top_p=0.95,
            seeds=[seed + at * samples + i for i in range(len(part) * samples)],
        )
        for i, row in enumerate(part):
            yield row, [tokenizer.decode(ids) for ids in found[i * samples : (i + 1) * samples]]


def made_from(model: Path, rows: Sequence[Row], *settings: float) -> str:
    """A hash of everything that samples depend on: the model's files, the prompts in their order, and settings."""
    digest = hashlib.sha256(json.dumps([NEW_TOKENS, *settings, *rows]).encode())
    for path in (*files.weight_files(model), model / files.CONFIG, model / files.TOKENIZER):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept_lines(out: Path, key: str) -> int:
    """How many rows of an earlier run stand in ``out``; half a line at its end is cut off.

    Raises:
        LMError: they were made from something else than ``key`` says, or it is not known from what.
    """
    done = out.read_bytes() if out.exists() else b""
    done = done[: done.rfind(b"\n") + 1]  # without the line that was being written when a run was killed
    mark = out.with_name(f"{out.name}.made-from")
    if done and not (mark.exists() and mark.read_text() == key):
        raise LMError(
            f"{out} was made from another model, other data or other settings: give another --out, or delete it."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(key)
    out.write_bytes(done)
    return done.count(b"\n")


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m lm.sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = flags.add_argument
    add("--model", type=Path, required=True, help="folder of the tuned model")
    add("--data", type=Path, required=True, nargs="+", help="rows of corpus.grounded")
    add("--out", type=Path, default=Path("runs/samples.jsonl"))
    add("--prompts", type=int, default=4000, help="rows to sample for, the last ones of the data")
    add("--samples", type=int, default=8, help="answers to each")
    add("--together", type=int, default=16, help="rows sampled side by side")
    add("--temperature", type=float, default=0.8)
    add("--minutes", type=float, default=math.inf, help="stop this run after so long")
    add("--seed", type=int, default=0)
    return flags


def main() -> int:
    args = parser().parse_args()
    began = time.monotonic()
    try:
        model, tokenizer = files.load(args.model)
        # Rows that say what a right answer is; lm.tune measures on the first ones, so the last ones are taken.
        rows = [row for row in read_rows(args.data) if "gold" in row and not row["kind"].startswith("copy")]
        rows = rows[-args.prompts :]
        count = kept_lines(args.out, made_from(args.model, rows, args.samples, args.temperature, args.seed))
    except LMError as error:
        print(error, file=sys.stderr)
        return 1
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device, torch.bfloat16 if device == "cuda" else torch.float32)
    model.init_rotation()  # its angles must not be rounded with the weights
    model.to(device)
    settings = (args.samples, args.together, args.temperature, args.seed)
    with args.out.open("a", encoding="utf-8") as f:
        for row, said in sampled(model, tokenizer, rows, *settings, first=count):
            f.write(json.dumps({**row, "samples": said}, ensure_ascii=False) + "\n")
            count += 1
            if time.monotonic() - began >= args.minutes * 60:
                break
    print(f"{args.out}: {count:,} of {len(rows):,} prompts with {args.samples} answers each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
