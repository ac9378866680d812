"""Tuning: Cirilla learns to answer from numbered passages and to cite them.

    python -m lm.tune --data runs/grounded.jsonl --start runs/cirilla/model --out runs/cirilla-tuned --minutes 15

A row is ``{"passages": [[heading, text], …], "turns": [["user", …], …], "answer": "… [n]"}``.  The loss counts the
answer alone (with ``--prompt-weight`` a small share of the prompt too: it keeps a barely trained model's language
alive).  Stops and resumes like pretraining.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch

from lm import chat, files, optim
from lm.tokenizer import Tokenizer


def example(tokenizer: Tokenizer, row: dict, length: int) -> tuple[list[int], int] | None:
    """Token ids of prompt and answer, and where the answer begins; None when the answer is cut."""
    answer = [*tokenizer.encode(row["answer"]), tokenizer.end]
    if len(answer) > length // 2:
        return None
    prompt = chat.render(tokenizer, row["passages"], row["turns"], budget=length - len(answer))
    return [*prompt, *answer], len(prompt)


def collate(examples: list[tuple[list[int], int]], pad: int, learn_prompt: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded inputs and targets, ``(B, T)`` each; targets are -100 on padding and (usually) on the prompt.

    Right padding needs no mask: attention is causal, so no real token ever sees the padding behind it.
    """
    width = max(len(ids) for ids, _ in examples) - 1
    inputs = torch.full((len(examples), width), pad)
    targets = torch.full((len(examples), width), -100)
    for row, (ids, start) in enumerate(examples):
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        first = 1 if learn_prompt else start
        targets[row, first - 1 : len(ids) - 1] = torch.tensor(ids[first:])
    return inputs, targets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines of grounded conversations")
    parser.add_argument("--start", type=Path, required=True, help="folder of the pretrained model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=448, help="tokens of prompt and answer at most")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument(
        "--prompt-weight", type=float, default=0.0, help="share of batches whose loss counts the prompt"
    )
    parser.add_argument("--held-out", type=int, default=200, help="rows kept for measuring")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    began = time.monotonic()
    torch.manual_seed(args.seed)
    device, _ = optim.device_and_peak()
    model, tokenizer = files.load(args.start)
    model = model.to(device).train()
    groups = optim.optimizers(model, args.lr, weight_decay=0.0)
    rows = [json.loads(line) for line in args.data.open(encoding="utf-8")]
    held_out, rows = rows[: args.held_out], rows[args.held_out :]
    rng = random.Random(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = args.out / "checkpoint.pt", args.out / "log.jsonl"
    step, seconds = 0, 0.0
    if checkpoint.exists():
        state = optim.load_checkpoint(checkpoint, model, groups, device)
        step, seconds = state["step"], state["seconds"]
        rng.setstate(state["rng"])
        print(f"resumed at step {step}")

    def batch(source: list[dict], learn_prompt: bool) -> tuple[torch.Tensor, torch.Tensor]:
        made = [e for e in (example(tokenizer, row, args.length) for row in source) if e]
        inputs, targets = collate(made, tokenizer.pad, learn_prompt)
        return inputs.to(device), targets.to(device)

    @torch.no_grad()
    def held_out_loss() -> float:
        model.eval()
        parts = [held_out[i : i + 25] for i in range(0, len(held_out), 25)]
        with torch.autocast(device, dtype=torch.bfloat16):
            losses = [model.loss(*batch(part, False)).item() for part in parts]
        model.train()
        return sum(losses) / len(losses)

    def save() -> None:
        optim.save_checkpoint(checkpoint, model, groups, step=step, seconds=seconds, rng=rng.getstate())

    losses: list[float] = []
    last = time.monotonic()
    while step < args.steps and time.monotonic() - began < args.minutes * 60:
        optim.set_lr(groups, args.lr * optim.schedule(step, args.steps, args.warmup, decay=0.5))
        learn_prompt = rng.random() < args.prompt_weight
        inputs, targets = batch(rng.sample(rows, args.batch), learn_prompt)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model.loss(inputs, targets)
        loss.backward()
        optim.update(model, groups)
        step += 1
        if not learn_prompt:
            losses.append(loss.item())
        if step % 20 == 0 or step == args.steps:
            now = time.monotonic()
            seconds, last = seconds + now - last, now
            mean = sum(losses) / max(1, len(losses))
            row = {"step": step, "answer_loss": round(mean, 4), "minutes": round(seconds / 60, 2)}
            if step % 200 == 0 or step == args.steps:
                row["held_out_answer_loss"] = round(held_out_loss(), 4)
                save()
            print(json.dumps(row), flush=True)
            with log.open("a") as f:
                f.write(json.dumps(row) + "\n")
            losses = []
    save()
    if step >= args.steps:
        files.save(model, tokenizer, args.out / "model")
        print(f"wrote {args.out / 'model'}")


if __name__ == "__main__":
    main()
