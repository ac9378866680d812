"""Training of the second stage on groups of candidates (``python -m retrieval.candidates``).

    python -m encoder.rerank --groups runs/ranking/train.jsonl --start runs/encoder-mlm/model --out runs/reranker

Loss: minus the logarithm of the share that the right sentences get in a softmax over all sentences of a group's
candidates and the silent one, whose score is 0.  A group whose evidence is not among the chosen candidates (now and
then it is taken away on purpose) has the silent one as its right answer.  Sentences labelled -1 take no part.
Stops after ``--minutes``; goes on where it stopped when started again with the same ``--out``, with other groups too.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoder import files, training
from encoder.errors import EncoderError
from encoder.reranker import WEIGHTS, Candidate, RerankerModel, collate, examples, load_head, save


def choose(group: dict[str, Any], size: int, rng: random.Random, removed: float) -> list[dict[str, Any]]:
    """``size`` passages of a group: its evidence unless that is taken away, and others, better ones the likelier."""
    gold = [p for p in group["passages"] if 1 in p["labels"]]
    rest = [p for p in group["passages"] if 1 not in p["labels"]]
    kept = [] if rng.random() < removed else gold[:3]
    wanted = min(size - len(kept), len(rest))
    # Exponential gaps over the ranks: about half of the others come from the first few.
    keyed = sorted((rng.expovariate(1.0) * (rank + 2), rank) for rank in range(len(rest)))
    kept += [rest[rank] for _, rank in keyed[:wanted]]
    rng.shuffle(kept)
    return kept


def typed(query: str, rng: random.Random) -> str:
    """As people type: often in lower case, often without the question mark."""
    if rng.random() < 0.3:
        query = query.lower()
    return query.rstrip("?") if rng.random() < 0.3 else query


def group_loss(scores: Tensor, labels: Tensor, groups: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Sum of the groups' losses and how many of them put a right sentence, or rightly silence, first.

    Args:
        scores, labels: ``(sentences,)`` of all groups in a row; groups: the group of each; n: number of groups.
    """
    # The silent sentence of each group stands behind all others.  No loop over groups: a GPU is never waited for.
    group = torch.cat((groups, torch.arange(n, device=groups.device)))
    s = torch.cat((scores.masked_fill(labels < 0, -torch.inf), scores.new_zeros(n)))

    def sums(values: Tensor, of: Tensor) -> Tensor:  # (n,)
        return values.new_zeros(n).index_add(0, of, values)

    def log_sum_exp(values: Tensor) -> tuple[Tensor, Tensor]:  # (n,) and the greatest of each group, (n,)
        top = torch.full_like(values[:n], -torch.inf).scatter_reduce(0, group, values.detach(), "amax")
        return sums((values - top[group]).exp(), group).log() + top, top

    answered = sums((labels == 1).float(), groups) > 0
    good = torch.cat((labels == 1, ~answered))
    everything, top = log_sum_exp(s)
    right = sums((good & (s == top[group])).float(), group) > 0
    return (everything - log_sum_exp(s.masked_fill(~good, -torch.inf))[0]).sum(), right.sum()


def train(args: argparse.Namespace) -> None:
    """One slice of a run.

    Raises:
        EncoderError: start, groups, checkpoint or ``--length`` do not fit.
    """
    began = time.monotonic()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.enable_flash_sdp(device == "cuda")  # see encoder.pretrain
    layers, tokenizer = files.load_layers(args.start)
    if args.length > layers.config.max_length:
        raise EncoderError(f"--length {args.length}: {args.start} reads {layers.config.max_length} tokens at most.")
    model = RerankerModel(layers).train().to(device)
    if (args.start / WEIGHTS).exists():  # a second stage already: its marks and head too
        load_head(model, args.start)
    head = [p for n, p in model.named_parameters() if not n.startswith("encoder.")]
    optimizers = training.make_optimizers(model, args.lr, weight_decay=0.01, head=head)
    data = list(training.json_lines(args.groups))
    dev = list(training.json_lines([args.dev])) if args.dev else []
    pad = model.encoder.config.pad_id
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    step, seconds = 0, 0.0
    order: list[int] = []
    if state := training.load_checkpoint(checkpoint, model, optimizers):
        rng.setstate(state["rng"])
        step, seconds = state["step"], state["seconds"]
        order = state["order"] if state["groups"] == len(data) else []

    def scored(chosen: list[tuple[str, list[dict[str, Any]]]]) -> tuple[Tensor, Tensor]:
        made, counts, labels, groups = [], [], [], []
        for g, (query, passages) in enumerate(chosen):
            candidates = [Candidate(p["heading"], p["text"], p["spans"]) for p in passages]
            made += examples(tokenizer, query, candidates, args.length)
            counts += [len(p["spans"]) for p in passages]
            labels += [p["labels"] for p in passages]
            groups += [g] * len(passages)
        # Alike lengths together: half of a batch of all lengths would be padding.
        order = sorted(range(len(made)), key=lambda row: len(made[row].ids))
        scores, flat, which = [], [], []
        for at in range(0, len(order), args.mini_batch):
            rows = order[at : at + args.mini_batch]
            tensors = collate([made[row] for row in rows], [counts[row] for row in rows], pad)
            with torch.autocast(device, dtype=torch.bfloat16):
                out = model(*(t.to(device) for t in tensors))  # (B, S)
            real = tensors[3].sum(-1) > 0  # a sentence beyond the length limit has no token
            scores.append(out[real.to(device)])
            for line, row in enumerate(rows):
                kept = real[line, : counts[row]].tolist()
                flat += [label for label, has_tokens in zip(labels[row], kept, strict=True) if has_tokens]
                which += [groups[row]] * sum(kept)
        return group_loss(
            torch.cat(scores), torch.tensor(flat, device=device), torch.tensor(which, device=device), len(chosen)
        )

    @torch.no_grad()
    def dev_scores(limit: int = 300) -> dict[str, float]:
        model.eval()
        some = random.Random(1).sample(dev, min(limit, len(dev)))
        total, right = 0.0, 0
        for g in some:
            loss, good = scored([(g["query"], g["passages"][:12])])
            total, right = total + loss.item(), right + int(good)
        model.train()
        return {"dev_loss": round(total / len(some), 4), "dev_right": round(right / len(some), 4)}

    def save_all() -> None:
        at = {"rng": rng.getstate(), "order": order, "groups": len(data)}
        training.save_checkpoint(checkpoint, model, optimizers, step=step, seconds=seconds, **at)
        save(model, args.start / files.TOKENIZER, args.out / "model")

    results: list[Tensor] = []  # loss and groups got right, of each step since the last line
    last, saved = time.monotonic(), -1
    while step < args.steps and time.monotonic() - began < args.minutes * 60:
        chosen = []
        for _ in range(args.batch):
            if not order:
                order = list(range(len(data)))
                rng.shuffle(order)
            group = data[order.pop()]
            chosen.append((typed(group["query"], rng), choose(group, args.size, rng, args.removed)))
        loss, right = scored(chosen)
        (loss / args.batch).backward()
        rise = min(1.0, (step + 1) / max(1, args.warmup))
        training.update(model, optimizers, args.lr * rise * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        step += 1
        results.append(torch.stack((loss.detach(), right)) / args.batch)
        saves = step % args.save_every == 0 or step == args.steps
        if step % 20 == 0 or saves:
            losses, rights = torch.stack(results).mean(0).tolist()
            now = time.monotonic()
            seconds += now - last
            row = {"step": step, "loss": round(losses, 4), "right": round(rights, 4), "minutes": round(seconds / 60, 2)}
            if saves:
                row |= dev_scores() if dev else {}
                save_all()
                saved = step
            training.log(args.out, row)
            results, last = [], time.monotonic()
    if saved != step:
        seconds += time.monotonic() - last  # of the steps since the last line
        save_all()
    print(f"wrote {args.out / 'model'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=Path, nargs="+", required=True)
    parser.add_argument("--dev", type=Path, help="groups to report on")
    parser.add_argument("--start", type=Path, required=True, help="folder of a pretrained encoder, or second stage")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--batch", type=int, default=8, help="groups a step")
    parser.add_argument("--mini-batch", type=int, default=16, help="pairs of question and passage in one pass")
    parser.add_argument("--size", type=int, default=6, help="candidates a group")
    parser.add_argument("--length", type=int, default=224, help="tokens of question and passage")
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--removed", type=float, default=0.12, help="share of groups that lose their evidence")
    parser.add_argument("--save-every", type=int, default=200, help="steps between checkpoints, and looks at --dev")
    parser.add_argument("--seed", type=int, default=0)
    return training.launch(train, parser)


if __name__ == "__main__":
    sys.exit(main())
