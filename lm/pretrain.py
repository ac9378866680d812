"""Pretraining: Cirilla learns to write by predicting the next token.

    python -m lm.pretrain --tokens runs/tokens --out runs/cirilla --preset cirilla-mini --steps 2000 --minutes 40

Reads the shards of ``python -m lm.data``.  Stops after ``--minutes`` of wall-clock or at ``--steps``, whichever comes
first, and goes on exactly where it stopped when started again with the same ``--out``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch

from lm import files, optim
from lm.data import PackedRows, open_mix
from lm.model import PRESETS, Cirilla
from lm.tokenizer import Tokenizer


@torch.no_grad()
def bits_per_byte(model: Cirilla, rows: PackedRows, bytes_per_token: float, device: str, batches: int = 4) -> float:
    """Loss on held-out rows in bits per byte of text: comparable between vocabularies."""
    model.eval()
    total = 0.0
    for _ in range(batches):
        ids, targets = (t.to(device) for t in rows.batch(8))
        with torch.autocast(device, dtype=torch.bfloat16):
            total += model.loss(ids, targets).item()
    model.train()
    return total / batches / math.log(2) / bytes_per_token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, default=Path("runs/tokens"), help="folder of token shards")
    parser.add_argument("--tokenizer", type=Path, default=Path("weights/tokenizer.json"))
    parser.add_argument("--out", type=Path, required=True, help="checkpoint, log and final weights go here")
    parser.add_argument("--preset", choices=PRESETS, default="cirilla-mini")
    parser.add_argument("--steps", type=int, default=2000, help="length of the whole schedule")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop this run after so long")
    parser.add_argument("--batch", type=int, default=16, help="rows at once")
    parser.add_argument("--accumulate", type=int, default=1, help="batches a step")
    parser.add_argument("--length", type=int, default=256, help="tokens a row")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--decay", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    began = time.monotonic()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device, peak = optim.device_and_peak()
    tokenizer = Tokenizer.load(args.tokenizer)
    model = Cirilla(PRESETS[args.preset]).to(device)
    groups = optim.optimizers(model, args.lr)
    shards, weights = open_mix(args.tokens, tokenizer.bos)
    rows = PackedRows(shards, weights, args.length, args.seed)
    counts = [json.loads(p.read_text()) for p in args.tokens.glob("*.json") if p.name != "mix.json"]
    bytes_per_token = sum(c["heldout_bytes"] for c in counts) / sum(c["heldout_tokens"] for c in counts)

    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = args.out / "checkpoint.pt", args.out / "log.jsonl"
    step, seconds = 0, 0.0
    if checkpoint.exists():
        state = optim.load_checkpoint(checkpoint, model, groups, device)
        rows.load_state_dict(state["rows"])
        step, seconds = state["step"], state["seconds"]
        print(f"resumed at step {step}")

    compiled = torch.compile(model.loss) if device == "cuda" else model.loss
    tokens_per_step = args.batch * args.accumulate * args.length
    cost = optim.flops_per_token(model, args.length)
    losses: list[torch.Tensor] = []
    last, first = time.monotonic(), step
    while step < args.steps and time.monotonic() - began < args.minutes * 60:
        optim.set_lr(groups, args.lr * optim.schedule(step, args.steps, args.warmup, args.decay))
        for _ in range(args.accumulate):
            ids, targets = (t.to(device, non_blocking=True) for t in rows.batch(args.batch))
            with torch.autocast(device, dtype=torch.bfloat16):
                loss = compiled(ids, targets) / args.accumulate
            loss.backward()
            losses.append(loss.detach() * args.accumulate)
        optim.update(model, groups)
        step += 1
        if step % 20 == 0 or step == args.steps:
            now = time.monotonic()
            seconds += now - last
            rate = (step - first) * tokens_per_step / (now - last)
            row = {
                "step": step,
                "loss": round(torch.stack(losses).mean().item(), 4),
                "tokens": step * tokens_per_step,
                "tokens_per_second": round(rate),
                "mfu": None if math.isnan(peak) else round(rate * cost / peak, 3),
                "minutes": round(seconds / 60, 2),
                "eta_minutes": round((args.steps - step) * tokens_per_step / rate / 60, 1),
            }
            if step % 200 == 0 or step == args.steps:
                held_out = PackedRows(*open_mix(args.tokens, tokenizer.bos, "heldout.bin"), args.length, seed=1)
                row["bits_per_byte"] = round(bits_per_byte(model, held_out, bytes_per_token, device), 4)
            print(json.dumps(row), flush=True)
            with log.open("a") as f:
                f.write(json.dumps(row) + "\n")
            if step % 200 == 0:
                optim.save_checkpoint(checkpoint, model, groups, rows=rows.state_dict(), step=step, seconds=seconds)
            losses, first, last = [], step, time.monotonic()
    optim.save_checkpoint(checkpoint, model, groups, rows=rows.state_dict(), step=step, seconds=seconds)
    if step >= args.steps:
        files.save(model, tokenizer, args.out / "model", dtype=torch.float32)
        print(f"wrote {args.out / 'model'}")


if __name__ == "__main__":
    main()
