"""Preference tuning: of two answers to one prompt, the better becomes likelier than the worse.

    python -m lm.prefer --pairs runs/preferences.jsonl --start runs/cirilla-tuned/model --out runs/cirilla-preferred

Direct Preference Optimization (Rafailov et al. 2023).  With π the model that learns, r the one that it starts from, c
the chosen and w the rejected answer:

    margin = log π(c)/r(c) - log π(w)/r(w)          loss = -log σ(β · margin)

Before the first step π = r, the margin is 0 and the loss ln 2, but for rounding: both are computed in bf16, in batches
with other padding.  r never changes, so its log-probabilities are computed once, before training, and only one model
stays in memory.  ``--chosen-weight`` adds the chosen answer's own loss (Pang et al. 2024): without it DPO may lower
both answers' probabilities, as long as the rejected one's falls faster.

A pair is ``{"passages", "turns", "chosen", "rejected"}``; ``python -m lm.sample`` and
``python -m benchmarks.preferences`` make them.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lm import curves, files, optim
from lm.errors import LMError
from lm.model import Cirilla
from lm.tokenizer import Tokenizer
from lm.tune import Example, Row, collate, example, read_rows

Pair = tuple[Example, Example]
"""The chosen and the rejected answer, each with the prompt before it."""


def pair(tokenizer: Tokenizer, row: Row, length: int) -> Pair | None:
    """A pair of a file, or None where one of its answers does not fit into ``length`` tokens.

    Both answers stand behind the same prompt: where it had to be shortened differently, it cannot be used.
    """
    chosen = example(tokenizer, row, length, row["chosen"])
    rejected = example(tokenizer, row, length, row["rejected"])
    if not chosen or not rejected or chosen[0][: chosen[1]] != rejected[0][: rejected[1]]:
        return None
    return chosen, rejected


def answer_log_probability(model: Cirilla, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the log-probabilities of a row's targets, ``(B, T)`` twice → ``(B,)``, and how many they are, ``(B,)``."""
    wanted = targets != -100
    vectors = model.hidden(inputs)[wanted].float()  # (answers' tokens, D)
    # In float32 even under autocast: a margin is a small difference of sums over many tokens.
    with torch.autocast(inputs.device.type, enabled=False):
        logits = model.logits(vectors)  # (answers' tokens, V)
    each = -F.cross_entropy(logits, targets[wanted], reduction="none")
    total = torch.zeros(len(inputs), device=inputs.device, dtype=each.dtype)
    return total.index_add(0, wanted.nonzero()[:, 0], each), wanted.sum(1)


def preference_loss(policy: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """DPO's loss, a scalar, and the margins ``(n,)``.

    Args:
        policy, reference: ``(2n,)`` log-probabilities, those of the n chosen answers first, then the n rejected.
    """
    chosen, rejected = (policy - reference).chunk(2)
    margin = chosen - rejected
    return -F.logsigmoid(beta * margin).mean(), margin


def tensors(pairs: Sequence[Pair], pad: int, device: str) -> tuple[Tensor, Tensor]:
    """Inputs and targets ``(2n, T)`` of n pairs, the chosen first."""
    inputs, targets = collate([*(c for c, _ in pairs), *(r for _, r in pairs)], pad)
    return inputs.to(device), targets.to(device)


@torch.no_grad()
def reference_of(model: Cirilla, pairs: Sequence[Pair], pad: int, device: str, batch: int) -> Tensor:
    """The starting model's log-probabilities of all pairs, ``(pairs, 2)``, on the CPU."""
    found = []
    for at in range(0, len(pairs), batch):
        inputs, targets = tensors(pairs[at : at + batch], pad, device)
        with torch.autocast(device, dtype=torch.bfloat16):
            both, _ = answer_log_probability(model, inputs, targets)
        found.append(torch.stack(both.chunk(2), dim=1).cpu())
    return torch.cat(found)


@torch.no_grad()
def measure(model: Cirilla, pairs: Sequence[Pair], reference: Tensor, pad: int, device: str, batch: int) -> Row:
    """Mean margin on pairs that were kept back, and the share of them in which it is on the right side."""
    now = reference_of(model, pairs, pad, device, batch)
    margin = (now - reference) @ torch.tensor([1.0, -1.0])
    return {
        "held_out_margin": round(margin.mean().item(), 3),
        "held_out_accuracy": round((margin > 0).float().mean().item(), 3),
    }


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m lm.prefer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = flags.add_argument
    add("--pairs", type=Path, required=True, nargs="+", help="JSON lines of pairs")
    add("--start", type=Path, required=True, help="folder of the tuned model: where it starts, and the reference")
    add("--out", type=Path, required=True)
    add("--epochs", type=float, default=1.0, help="times that every pair is seen")
    add("--minutes", type=float, default=math.inf)
    add("--batch", type=int, default=8, help="pairs a step")
    add("--length", type=int, default=1024, help="tokens of prompt and answer at most")
    add("--beta", type=float, default=0.1, help="how dear it is to depart from the reference")
    add("--chosen-weight", type=float, default=0.1, help="weight of the chosen answer's own loss, a token")
    add("--optimizer", choices=optim.LEARNING_RATE, default="adamw")
    add("--lr", type=float, default=1e-5)
    add("--warmup", type=int, default=10)
    add("--held-out", type=int, default=100, help="pairs kept for measuring, the first ones")
    add("--window", type=int, default=10, help="steps a line of the log")
    add("--save-every", type=int, default=100, help="steps between checkpoints; the end of a run always saves")
    add("--seed", type=int, default=0)
    return flags


def main() -> int:
    args = parser().parse_args()
    try:
        train(args)
    except LMError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def train(args: argparse.Namespace) -> None:
    """One slice of a run, on one device.  Raises LMError where pairs, model or checkpoint do not fit."""
    began = time.monotonic()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, tokenizer = files.load(args.start)
    # Evaluation mode: there is nothing random in this model, and experts' balance is not what is learnt here.
    model = model.to(device).eval()
    length = min(args.length, model.config.max_length)
    made = [p for row in read_rows(args.pairs) if (p := pair(tokenizer, row, length))]
    held_out, pairs = made[: args.held_out], made[args.held_out :]
    if len(pairs) < args.batch:
        raise LMError(f"{len(pairs)} usable pairs are fewer than a batch of {args.batch}.")
    sizes = [len(held_out), len(pairs)]
    groups = optim.optimizers(model, args.lr, weight_decay=0.0, kind=args.optimizer)
    steps = max(1, round(args.epochs * len(pairs) / args.batch))
    order: list[int] = []
    for epoch in range(math.ceil(args.epochs) + 1):
        indices = list(range(len(pairs)))
        random.Random(f"{args.seed} {epoch}").shuffle(indices)
        order += indices

    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    step, seconds = 0, 0.0
    pending: list[Tensor] = []  # (loss, margin, share preferred) a step of the window that is not yet finished
    if checkpoint.exists():
        state = optim.load_checkpoint(checkpoint, model, groups, device, "prefer", sizes)
        step, seconds, pending = state["step"], state["seconds"], list(state["losses"])
        reference, kept = state["reference"].cpu(), state["kept"].cpu()
        print(f"resumed at step {step}")
    else:
        kept = reference_of(model, held_out, tokenizer.pad, device, args.batch) if held_out else torch.zeros(0, 2)
        reference = reference_of(model, pairs, tokenizer.pad, device, args.batch)
    log = optim.Log(args.out, step)
    started, first_step = time.monotonic(), step

    def save() -> None:
        at = {"step": step, "seconds": seconds + time.monotonic() - started}
        left = torch.stack(pending) if pending else torch.zeros(0, 3)
        state = {"losses": left, "reference": reference, "kept": kept, **at}
        optim.save_checkpoint(checkpoint, model, groups, "prefer", sizes, **state)

    while step < steps and time.monotonic() - began < args.minutes * 60:
        optim.set_lr(groups, args.lr * optim.schedule(step, steps, args.warmup, decay=0.5))
        chosen = order[step * args.batch : (step + 1) * args.batch]
        inputs, targets = tensors([pairs[i] for i in chosen], tokenizer.pad, device)
        with torch.autocast(device, dtype=torch.bfloat16):
            policy, count = answer_log_probability(model, inputs, targets)
        loss, margin = preference_loss(policy, reference[chosen].T.flatten().to(device), args.beta)
        own = -policy[: len(chosen)].sum() / count[: len(chosen)].sum()
        (loss + args.chosen_weight * own).backward()
        optim.update(model, groups)
        pending.append(torch.stack([loss, margin.mean(), (margin > 0).float().mean()]).detach())
        step += 1
        if step % args.window == 0 or step == steps:
            mean = torch.stack(pending).mean(0).tolist()
            now = time.monotonic()
            row: dict[str, Any] = {
                "step": step,
                "loss": round(mean[0], 4),
                "margin": round(mean[1], 3),
                "accuracy": round(mean[2], 3),
                "minutes": round((seconds + now - started) / 60, 2),
                "eta_minutes": round((steps - step) * (now - started) / (step - first_step) / 60, 1),
            }
            if held_out:
                row |= measure(model, held_out, kept, tokenizer.pad, device, args.batch)
            log.add(row)
            pending = []
        if step % args.save_every == 0:
            save()
    save()
    if step >= steps:
        files.save(model, tokenizer, args.out / "model")
        curves.try_to_draw(args.out)
        print(f"wrote {args.out / 'model'}")


if __name__ == "__main__":
    sys.exit(main())
