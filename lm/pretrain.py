"""Pretraining: Cirilla learns to write by predicting the next token.

    python -m lm.pretrain --tokens runs/tokens --out runs/cirilla --preset cirilla-mini --steps 2000 --minutes 40
    torchrun --nproc-per-node 4 -m lm.pretrain …             # several GPUs, each with its part of every batch
    python -m lm.pretrain … --optimizer adamw --schedule cosine        # the baseline: the same model, GPT-2's recipe

Reads the shards of ``python -m lm.data``.  Stops after ``--minutes`` of wall-clock or at ``--steps``, whichever comes
first, and goes on exactly where it stopped, or was killed, when started again with the same ``--out``.  A line of
``log.jsonl`` has the mean loss of its window (with experts, their balance loss included), bits per byte on held-out
text, tokens a second and MFU while training, and the minutes that are left; ``curve.png`` draws it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lm import curves, files, optim
from lm.data import PackedRows, Prefetch, open_mix, token_bytes
from lm.errors import LMError
from lm.model import PRESETS, Cirilla
from lm.tokenizer import Tokenizer


def documents_of(ids: Tensor, bos: int) -> Tensor:
    """Number of the document that each token of a packed row belongs to, ``(B, T)``: each begins with ``bos``."""
    return (ids == bos).cumsum(1)


@torch.no_grad()
def bits_per_byte(model: Cirilla, batches: list[tuple[Tensor, Tensor]], bytes_of: Tensor, bos: int) -> float:
    """Loss in bits per byte of text, comparable between vocabularies; ends of documents are not text and left out.

    Every document is read by itself, however the model was trained, so that runs can be compared; and by a mask, so
    that a run needs FlexAttention only where it trains with it.

    Args:
        batches: inputs and targets, ``(B, T)`` each.
        bytes_of: ``(V,)``, see :func:`lm.data.token_bytes`.
        bos: id of the token that begins a document.
    """
    device = model.embed_tokens.weight.device
    training = model.training
    model.eval()
    nats = bytes_ = 0.0
    for ids, targets in batches:
        size = int(bytes_of[targets].sum())
        ids, targets = ids.to(device), torch.where(targets == bos, -100, targets).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = model.loss(ids, targets, documents_of(ids, bos), flex=False)
        nats += loss.item() * int((targets != -100).sum())
        bytes_ += size
    model.train(training)
    return nats / math.log(2) / bytes_


@torch.no_grad()
def routing_load(model: Cirilla, ids: Tensor) -> dict[str, float]:
    """How evenly experts are used, worst layer of all: 1 is even; the busiest and the idlest expert's share × E."""
    routing: list = []
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        model.hidden(ids, routing=routing, flex=False)
    load = torch.stack([r.load() for r in routing]) * model.config.n_experts  # (layers, E)
    return {"busiest_expert": round(load.max().item(), 3), "idlest_expert": round(load.min().item(), 3)}


def mean_context(ids: Tensor, bos: int, masked: bool) -> float:
    """Tokens that a token of these rows ``(B, T)`` sees on the mean, itself included."""
    if not masked:
        return (ids.shape[1] + 1) / 2
    lengths = torch.cat([documents_of(row[None], bos)[0].bincount() for row in ids]).double()
    return float((lengths * (lengths + 1) / 2).sum() / lengths.sum())


@torch.no_grad()
def begin_with(model: Cirilla, path: Path) -> None:
    """Take over the token embeddings of a transformer encoder that was trained with the same tokenizer.

    Half of a small model's weights are embeddings, and masked prediction has learnt them from more text than two cores
    read again in an hour (as in Rothe et al. 2020, "Leveraging Pre-trained Checkpoints").  They are scaled to the
    spread that this model starts with, since here they also predict.

    Raises:
        LMError: no such file, or no embeddings of this shape in it.
    """
    own = model.embed_tokens.weight
    try:
        found = [tensor for name, tensor in load_file(path).items() if name.endswith("tok_embeddings.weight")]
    except (OSError, SafetensorError) as error:
        raise LMError(f"{path} cannot be read: {error}") from error
    if not found or found[0].shape != own.shape:
        raise LMError(f"{path} holds no token embeddings of shape {tuple(own.shape)}.")
    taken = found[0].float()
    own.copy_(taken * (own.std() / taken.std()))


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m lm.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = flags.add_argument
    add("--tokens", type=Path, default=Path("runs/tokens"), help="folder of token shards")
    add("--mix", type=Path, help="JSON file {source: share of tokens} instead of lm.data.PRETRAIN_MIX")
    add("--tokenizer", type=Path, default=Path("weights/tokenizer.json"))
    add("--out", type=Path, required=True, help="checkpoint, log, curve and final weights go here")
    add("--preset", choices=PRESETS, default="cirilla-mini")
    add(
        "--embeddings",
        type=Path,
        help="safetensors of encoder.pretrain or weights/reranker: token embeddings, of the same shape, to begin with",
    )
    add("--steps", type=int, default=2000, help="length of the whole schedule")
    add("--minutes", type=float, default=math.inf, help="stop this run after so long")
    add("--batch", type=int, default=16, help="rows at once, in each process")
    add("--accumulate", type=int, default=1, help="batches a step")
    add("--length", type=int, default=256, help="tokens a row")
    add("--mask-documents", action="store_true", help="attention stays within a document")
    add("--optimizer", choices=optim.LEARNING_RATE, default="muon", help="adamw is the baseline")
    add("--schedule", choices=("wsd", "cosine"), default="wsd", help="cosine is the baseline's")
    add("--lr", type=float, help="at the plateau; by default 2e-3 with muon, 1e-3 with adamw")
    add("--warmup", type=int, default=50, help="steps")
    add("--decay", type=float, default=0.3, help="share of the steps in which the rate falls (wsd)")
    add("--weight-decay", type=float, default=0.1)
    add("--balance", type=float, help="weight of the experts' balance loss instead of the preset's")
    add("--window", type=int, default=20, help="steps a line of the log")
    add("--eval-rows", type=int, default=32, help="held-out rows, the same in every window")
    add("--save-every", type=int, default=200, help="steps between checkpoints; the end of a run always saves")
    add("--compile", action=argparse.BooleanOptionalAction, default=None, help="by default on a GPU")
    add("--flex", action=argparse.BooleanOptionalAction, help="FlexAttention instead of a mask, by default on a GPU")
    add("--seed", type=int, default=0)
    return flags


def train(args: argparse.Namespace, world: optim.World) -> None:
    """One slice of a run.  Raises LMError where the shards or the checkpoint do not fit."""
    began = time.monotonic()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = world.device
    tokenizer = Tokenizer.load(args.tokenizer)
    bos = tokenizer.bos

    # Model and optimisers; the same seed gives every process the same weights.
    config = PRESETS[args.preset]
    if args.balance is not None:
        config = replace(config, balance=args.balance)
    model = Cirilla(config).to(device).train()
    lr = args.lr or optim.LEARNING_RATE[args.optimizer]
    groups = optim.optimizers(model, lr, args.weight_decay, args.optimizer)

    # Text: one stream for all processes, of which each reads its part.
    mix = json.loads(args.mix.read_text()) if args.mix else None
    source = open_mix(args.tokens, bos, mix=mix)
    rows = PackedRows(*source, args.length, args.seed)
    sizes = [len(shard) for shard in rows.shards]
    held_out: list[tuple[Tensor, Tensor]] = []
    if world.is_main:
        quiet = PackedRows(*open_mix(args.tokens, bos, "heldout.bin", mix), args.length, seed=1)
        held_out = [quiet.batch(min(8, args.eval_rows - i)) for i in range(0, args.eval_rows, 8)]
    bytes_of = token_bytes(tokenizer)

    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    step, seconds = 0, 0.0
    pending: list[Tensor] = []  # losses of the window that is not yet finished, one a step
    if checkpoint.exists():
        state = optim.load_checkpoint(checkpoint, model, groups, device, "pretrain", sizes)
        rows.load_state_dict(state["rows"])
        step, seconds, pending = state["step"], state["seconds"], list(state["losses"])
        if world.is_main:
            print(f"resumed at step {step}")
    elif args.embeddings:
        begin_with(model, args.embeddings)
    log = optim.Log(args.out, step, world.is_main)

    wants_compiling = device == "cuda" if args.compile is None else args.compile
    loss_of: Callable[..., Tensor] = torch.compile(model.loss) if wants_compiling else model.loss
    tokens_per_step = args.batch * args.accumulate * args.length * world.size
    sample = PackedRows(*source, args.length, seed=2, buffer=64).batch(16)[0]
    cost = optim.flops_per_token(model, mean_context(sample, bos, args.mask_documents))
    peak = optim.peak_flops(device) * world.size

    # Three clocks: the whole run's, this slice's, and this window's, from which pauses are taken away: a window's speed
    # is that of training, not of measuring or of the disk.
    started, first_step = time.monotonic(), step
    window, window_step, pause = started, step, 0.0
    saved = step

    def save() -> None:
        nonlocal pending, saved, pause
        since = time.monotonic()
        if pending:  # the mean over the processes, of which one saves
            pending = list(world.mean(torch.stack(pending)))
        if world.is_main:
            at = {"step": step, "seconds": seconds + since - started}
            left = torch.stack(pending) if pending else torch.zeros(0)
            state = {"rows": loader.state_dict(), "losses": left, **at}
            optim.save_checkpoint(checkpoint, model, groups, "pretrain", sizes, **state)
        saved, pause = step, pause + time.monotonic() - since

    loader = Prefetch(lambda: rows.batch(args.batch, world.rank, world.size), rows.state_dict, pin=device == "cuda")
    with loader:
        while step < args.steps and not world.agree(time.monotonic() - began >= args.minutes * 60):
            optim.set_lr(groups, lr * optim.schedule(step, args.steps, args.warmup, args.decay, args.schedule))
            total = torch.zeros((), device=device)
            for _ in range(args.accumulate):
                ids, targets = (t.to(device, non_blocking=True) for t in loader.next())
                documents = documents_of(ids, bos) if args.mask_documents else None
                with torch.autocast(device, dtype=torch.bfloat16):
                    loss = loss_of(ids, targets, documents, flex=args.flex) / args.accumulate
                loss.backward()
                total += loss.detach()
            world.average_gradients(model)
            optim.update(model, groups)
            pending.append(total)
            step += 1

            if step % args.window == 0 or step == args.steps:
                mean = float(world.sum(torch.stack(pending)).mean()) / world.size  # waits for the GPU
                busy = time.monotonic() - window - pause
                rate = (step - window_step) * tokens_per_step / max(busy, 1e-9)
                row: dict[str, Any] = {
                    "step": step,
                    "loss": round(mean, 4),
                    "tokens": step * tokens_per_step,
                    "tokens_per_second": round(rate),
                    "mfu": None if math.isnan(peak) else round(rate * cost / peak, 3),
                }
                if world.is_main:
                    row["bits_per_byte"] = round(bits_per_byte(model, held_out, bytes_of, bos), 4)
                    if config.n_experts:
                        row |= routing_load(model, ids[:8])
                    if device == "cuda":
                        row["memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 1)
                now = time.monotonic()
                row["minutes"] = round((seconds + now - started) / 60, 2)
                row["eta_minutes"] = round((args.steps - step) * (now - started) / (step - first_step) / 60, 1)
                log.add(row)
                pending, window, window_step, pause = [], now, step, 0.0
            if step % args.save_every == 0:
                save()
        if saved != step:
            save()
    if step >= args.steps and world.is_main:
        files.save(model, tokenizer, args.out / "model", dtype=torch.float32)
        curves.try_to_draw(args.out)
        print(f"wrote {args.out / 'model'}")


def main() -> int:
    return optim.launch(train, parser())


if __name__ == "__main__":
    sys.exit(main())
