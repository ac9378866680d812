"""Masked-language-model pretraining: the encoder learns English and the lore by filling in hidden words.

    python -m encoder.pretrain --tokens runs/tokens --out runs/encoder-mlm --preset encoder-mini --minutes 20

Reads the token shards that ``python -m lm.data`` writes (flat uint16, see ``mix.json`` there for their weights).
With ``--pairs``, a share of the windows is questions, each followed by its passage as the second stage reads them: a
hidden word of one side is found by looking at the other (as in the translation pairs of Conneau & Lample 2019).
Stops after ``--minutes`` of wall-clock or ``--steps``, whichever comes first, and goes on from its checkpoint when
started again with the same ``--out``: the learning rate is warm-up, plateau, then a linear decay over the last part
of ``--steps`` (WSD, Hu et al. 2024), so the plateau can be prolonged at will.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
import torch
from torch import Tensor, nn

from encoder import files
from encoder.model import PRESETS, MaskedLM, mask_tokens

MASK_ID, N_SPECIAL = 3, 16  # places in the shared vocabulary (lm/tokenizer.py)


class Windows:
    """Random windows of tokens from weighted shards; a window may hold several documents, split by ``<|bos|>``."""

    def __init__(
        self, folder: Path, length: int, seed: int, kind: str = "bin", pairs: np.ndarray | None = None, share: float = 0
    ) -> None:
        """``pairs``: one more flat shard, from which ``share`` of all windows are taken."""
        mix = json.loads((folder / "mix.json").read_text())
        paths = {name: folder / f"{name}.{kind}" for name in mix}
        # A source too short for a single window (an empty codex, a tiny held-out part) is left out.
        self.shards: dict[str, np.ndarray] = {
            n: np.memmap(p, np.uint16, "r") for n, p in paths.items() if p.stat().st_size > 2 * length + 2
        }
        weights = np.array([mix[name] for name in self.shards])
        self.share = weights / weights.sum()
        if pairs is not None and share:
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
    """Pairs of question and passage (``corpus.pairs``), shuffled, as one flat uint16 array."""
    lines = [line for path in paths for line in path.open(encoding="utf-8")]
    order = np.random.default_rng(0).permutation(len(lines))
    bos = tokenizer.token_to_id(files.BOS)
    out = []
    for at in range(0, len(order), at_once):
        rows = [json.loads(lines[i]) for i in order[at : at + at_once]]
        asked = tokenizer.encode_batch_fast([row["query"] for row in rows])
        read = tokenizer.encode_batch_fast([row["passage"] for row in rows])
        out += [np.array([bos, *a.ids, bos, *b.ids], np.uint16) for a, b in zip(asked, read, strict=True)]
    return np.concatenate(out)


def optimizers(model: nn.Module, lr: float, weight_decay: float = 0.05) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for embeddings, norms and biases.

    Muon's step is rescaled to the size of an AdamW step (Liu et al. 2025), so that one learning rate serves both.
    """
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and "embedding" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embedding" in n]
    assert len(hidden) + len(others) == len(list(model.parameters())), "a parameter has no optimiser"
    return [
        torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(step: int, steps: int, warmup: int, decay: float) -> float:
    """Factor on the learning rate: warm-up, plateau, linear decay to zero over the last ``decay`` share of steps."""
    rise = min(1.0, (step + 1) / max(1, warmup))
    fall = min(1.0, (steps - step) / max(1.0, decay * steps))
    return min(rise, fall)


@torch.no_grad()
def held_out_loss(model: MaskedLM, folder: Path, length: int, device: str, batches: int = 8) -> float:
    """Loss on documents that training never sees, with fixed windows and masks."""
    model.eval()
    windows, generator = Windows(folder, length, seed=1, kind="heldout.bin"), torch.Generator().manual_seed(1)
    total = 0.0
    for _ in range(batches):
        ids, targets = mask_tokens(
            windows.batch(32), MASK_ID, model.model.config.vocab_size, N_SPECIAL, generator=generator
        )
        ids, targets = ids.to(device), targets.to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            total += model(ids, torch.ones_like(ids, dtype=torch.bool), targets).item()
    model.train()
    return total / batches


def main() -> None:
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
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    began = time.monotonic()
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # On a CPU the fused attention's backward pass is slower than plain matrix products, for windows as short as these.
    torch.backends.cuda.enable_flash_sdp(device == "cuda")
    config = PRESETS[args.preset]
    model = MaskedLM(config).to(device)
    groups = optimizers(model, args.lr)
    pairs = pair_tokens(args.pairs, tokenizers.Tokenizer.from_file(str(args.tokenizer))) if args.pairs else None
    windows = Windows(args.tokens, args.length, args.seed, pairs=pairs, share=args.pair_share)
    generator = torch.Generator().manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = args.out / "checkpoint.pt", args.out / "log.jsonl"
    step, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=False)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(groups, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        windows.random.bit_generator.state = state["windows"]
        generator.set_state(state["generator"].cpu())
        step, seconds = state["step"], state["seconds"]
        print(f"resumed at step {step}")

    def save_checkpoint() -> None:
        torch.save(
            {
                "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in groups],
                "windows": windows.random.bit_generator.state,
                "generator": generator.get_state(),
                "step": step,
                "seconds": seconds,
            },
            checkpoint.with_suffix(".part"),
        )
        checkpoint.with_suffix(".part").replace(checkpoint)

    forward = torch.compile(model) if device == "cuda" else model
    # Arithmetic a token: six times the parameters it meets; only masked tokens meet the vocabulary (30 %).
    vocabulary = config.vocab_size * config.d_model
    flops_per_token = 6 * (sum(p.numel() for p in model.parameters()) - vocabulary + 0.3 * vocabulary)
    peak = 989e12 if device == "cuda" else math.nan
    last, losses, window_start = time.monotonic(), [], step
    while step < args.steps and time.monotonic() - began < args.minutes * 60:
        factor = schedule(step, args.steps, args.warmup, args.decay)
        for optimizer in groups:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * factor
        ids, targets = mask_tokens(
            windows.batch(args.batch), MASK_ID, config.vocab_size, N_SPECIAL, generator=generator
        )
        ids, targets = ids.to(device), targets.to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = forward(ids, torch.ones_like(ids, dtype=torch.bool), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in groups:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        losses.append(loss.detach())
        if step % 20 == 0 or step == args.steps:
            now = time.monotonic()
            seconds += now - last
            rate = (step - window_start) * args.batch * args.length / (now - last)
            row = {
                "step": step,
                "loss": round(torch.stack(losses).mean().item(), 4),
                "tokens_per_second": round(rate),
                "mfu": round(rate * flops_per_token / peak, 3) if device == "cuda" else None,
                "minutes": round(seconds / 60, 2),
            }
            if step % 200 == 0 or step == args.steps:
                row["held_out_loss"] = round(held_out_loss(model, args.tokens, args.length, device), 4)
            print(json.dumps(row), flush=True)
            with log.open("a") as f:
                f.write(json.dumps(row) + "\n")
            losses, window_start, last = [], step, time.monotonic()
            if step % 200 == 0:
                save_checkpoint()
    save_checkpoint()
    if step >= args.steps:
        files.save(model.model, args.tokenizer, args.out / "model", dtype=torch.float32)
        print(f"wrote {args.out / 'model'}")


if __name__ == "__main__":
    main()
