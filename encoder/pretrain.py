"""Masked-language-model pretraining: the encoder learns English and the lore by filling in hidden words.

    python -m encoder.pretrain --tokens runs/tokens --out runs/encoder-mlm --preset encoder-mini --minutes 20

Reads the token shards that ``python -m lm.data`` writes (flat uint16, see ``mix.json`` there for their weights).
With ``--pairs``, a share of the windows is questions, each followed by its passage as the second stage reads them: a
hidden word of one side is found by looking at the other (as in the translation pairs of Conneau & Lample 2019).
Stops after ``--minutes`` of wall-clock or ``--steps``, whichever comes first, writes ``model/``, and goes on from its
checkpoint when started again with the same ``--out``: the learning rate is warm-up, plateau, then a linear decay over
the last part of ``--steps`` (WSD, Hu et al. 2024), so the plateau can be prolonged at will.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
import torch
from torch import Tensor

from encoder import files, training
from encoder.errors import EncoderError
from encoder.model import PRESETS, MaskedLM, mask_tokens

MASK_ID, N_SPECIAL = 3, 16  # places in the shared vocabulary (lm/tokenizer.py)


class Windows:
    """Random windows of tokens from weighted shards; a window may hold several documents, split by ``<|bos|>``."""

    def __init__(
        self, folder: Path, length: int, seed: int, kind: str = "bin", pairs: np.ndarray | None = None, share: float = 0
    ) -> None:
        """``pairs``: one more flat shard, from which ``share`` of all windows are taken.

        Raises:
            EncoderError: a file is missing, or all shards, or the pairs, are shorter than a window.
        """
        try:
            mix = json.loads((folder / "mix.json").read_text())
            paths = {name: folder / f"{name}.{kind}" for name in mix}
            # A source too short for a single window (an empty codex, a tiny held-out part) is left out.
            self.shards: dict[str, np.ndarray] = {
                n: np.memmap(p, np.uint16, "r") for n, p in paths.items() if p.stat().st_size > 2 * length + 2
            }
        except (OSError, ValueError) as error:
            raise EncoderError(f"{folder} holds no token shards ({error}): run `python -m lm.data` first.") from error
        weights = np.array([mix[name] for name in self.shards])
        if not weights.sum():
            raise EncoderError(f"No .{kind} file in {folder} holds a window of {length} tokens: shorten --length.")
        self.share = weights / weights.sum()
        if pairs is not None and share:
            if len(pairs) <= length:
                raise EncoderError(f"The pairs have {len(pairs)} tokens, no window of {length}: shorten --length.")
            self.shards["pairs"] = pairs
            self.share = np.append(self.share * (1 - share), share)
        self.length, self.random = length, np.random.default_rng(seed)

    def batch(self, rows: int) -> Tensor:
        """``(rows, length)`` int64."""
        shards = list(self.shards.values())
        out = np.empty((rows, self.length), dtype=np.int64)
        for row, which in enumerate(self.random.choice(len(shards), size=rows, p=self.share)):
            start = self.random.integers(len(shards[which]) - self.length)
            out[row] = shards[which][start : start + self.length]
        return torch.from_numpy(out)


def pair_tokens(paths: Sequence[Path], tokenizer: tokenizers.Tokenizer, at_once: int = 4096) -> np.ndarray:
    """Pairs of question and passage (``corpus.pairs``), shuffled, as one flat uint16 array.

    Raises:
        EncoderError: there are none, or a file cannot be read.
    """
    pairs = [(row["query"], row["passage"]) for row in training.json_lines(paths)]
    order = np.random.default_rng(0).permutation(len(pairs))
    bos = tokenizer.token_to_id(files.BOS)
    out = []
    for at in range(0, len(order), at_once):
        rows = [pairs[i] for i in order[at : at + at_once]]
        asked = tokenizer.encode_batch_fast([query for query, _ in rows])
        read = tokenizer.encode_batch_fast([passage for _, passage in rows])
        out += [np.array([bos, *a.ids, bos, *b.ids], np.uint16) for a, b in zip(asked, read, strict=True)]
    return np.concatenate(out)


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Factor on the learning rate: warm-up, plateau, linear decay to zero over the last ``decay`` share of steps."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = min(1.0, (steps - step) / max(1.0, decay * steps))
    return min(rise, fall)


@torch.no_grad()
def held_out_loss(model: MaskedLM, batches: Sequence[tuple[Tensor, ...]], device: str) -> float:
    """Mean loss over batches of :func:`encoder.model.mask_tokens`, of documents that training never sees."""
    model.eval()
    with torch.autocast(device, dtype=torch.bfloat16):
        total = sum(model(*(t.to(device) for t in batch)).item() for batch in batches)
    model.train()
    return total / len(batches)


def train(args: argparse.Namespace) -> None:
    """One slice of a run.

    Raises:
        EncoderError: shards, pairs, checkpoint or ``--length`` do not fit.
    """
    began = time.monotonic()
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # On a CPU the fused attention's backward pass is slower than plain matrix products, for windows as short as these.
    torch.backends.cuda.enable_flash_sdp(device == "cuda")
    config = PRESETS[args.preset]
    if args.length > config.max_length:
        raise EncoderError(f"--length {args.length}: {args.preset} reads {config.max_length} tokens at most.")
    model = MaskedLM(config).to(device)
    optimizers = training.make_optimizers(model, args.lr, weight_decay=0.05)
    tokenizer = tokenizers.Tokenizer.from_file(str(args.tokenizer))
    tokenizer.encode_special_tokens = True  # a text that spells "<|mask|>" is text
    pairs = pair_tokens(args.pairs, tokenizer) if args.pairs else None
    windows = Windows(args.tokens, args.length, args.seed, pairs=pairs, share=args.pair_share)
    generator = torch.Generator().manual_seed(args.seed)

    def batch(windows: Windows, rows: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return mask_tokens(windows.batch(rows), MASK_ID, config.vocab_size, N_SPECIAL, generator=generator)

    quiet, fixed = Windows(args.tokens, args.length, seed=1, kind="heldout.bin"), torch.Generator().manual_seed(1)
    held_out = [batch(quiet, 32, fixed) for _ in range(8)]
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    step, seconds = 0, 0.0
    if state := training.load_checkpoint(checkpoint, model, optimizers):
        windows.random.bit_generator.state = state["windows"]
        generator.set_state(state["generator"])
        step, seconds = state["step"], state["seconds"]

    def save_checkpoint() -> None:
        at = {"windows": windows.random.bit_generator.state, "generator": generator.get_state()}
        training.save_checkpoint(checkpoint, model, optimizers, step=step, seconds=seconds, **at)

    wants_compiling = device == "cuda" if args.compile is None else args.compile
    forward = torch.compile(model) if wants_compiling else model
    # Arithmetic a token: six times the parameters it meets; only masked tokens meet the vocabulary (30 %).
    vocabulary = config.vocab_size * config.d_model
    flops_per_token = 6 * (sum(p.numel() for p in model.parameters()) - vocabulary + 0.3 * vocabulary)
    peak = training.peak_flops(device)
    losses: list[Tensor] = []
    last, saved = time.monotonic(), -1
    while step < args.steps and time.monotonic() - began < args.minutes * 60:
        inputs = [t.to(device) for t in batch(windows, args.batch, generator)]
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = forward(*inputs)
        loss.backward()
        training.update(model, optimizers, args.lr * schedule(step, args.steps, args.warmup, args.decay))
        step += 1
        losses.append(loss.detach())
        if step % 20 == 0 or step == args.steps:
            mean = torch.stack(losses).mean().item()  # waits for the GPU
            now = time.monotonic()
            seconds += now - last
            rate = len(losses) * args.batch * args.length / (now - last)
            row = {
                "step": step,
                "loss": round(mean, 4),
                "tokens_per_second": round(rate),
                "mfu": round(rate * flops_per_token / peak, 3) if peak else None,
                "minutes": round(seconds / 60, 2),
            }
            if step % 200 == 0 or step == args.steps:
                row["held_out_loss"] = round(held_out_loss(model, held_out, device), 4)
            training.log(args.out, row)
            losses, last = [], time.monotonic()
            if step % 200 == 0:
                save_checkpoint()
                saved = step
    if saved != step:
        seconds += time.monotonic() - last  # of the steps since the last line
        save_checkpoint()
    files.save(model.model, args.tokenizer, args.out / "model", dtype=torch.float32)
    early = "" if step >= args.steps else f" at step {step} of {args.steps}: the rate has not fallen to zero yet"
    print(f"wrote {args.out / 'model'}{early}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, default=Path("runs/tokens"), help="folder of token shards")
    parser.add_argument("--tokenizer", type=Path, default=Path("weights/tokenizer.json"))
    parser.add_argument("--pairs", type=Path, nargs="+", default=[], help="JSON lines with query and passage")
    parser.add_argument("--pair-share", type=float, default=0.35, help="of the windows, if there are --pairs")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, log and final weights go here")
    parser.add_argument("--preset", choices=PRESETS, default="encoder-mini")
    parser.add_argument("--steps", type=int, default=1000, help="length of the whole schedule")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop this run after so long; start again to go on"
    )
    parser.add_argument("--batch", type=int, default=64, help="windows a step")
    parser.add_argument("--length", type=int, default=128, help="tokens a window")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--decay", type=float, default=0.3, help="share of steps over which the rate falls")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="by default on a GPU")
    parser.add_argument("--seed", type=int, default=0)
    return training.launch(train, parser)


if __name__ == "__main__":
    sys.exit(main())
