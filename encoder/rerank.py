"""Training of the second stage on groups of candidates (``python -m retrieval.candidates``).

    python -m encoder.rerank --groups runs/ranking/train.jsonl --start runs/encoder-mlm/model --out runs/reranker

Loss: minus the logarithm of the share that the right sentences get in a softmax over all sentences of a group's
candidates and the silent one, whose score is 0.  A group whose evidence is not among the chosen candidates (now and
then it is taken away on purpose) has the silent one as its right answer.  Sentences labelled -1 take no part.
Stops after ``--minutes``; goes on where it stopped when started again with the same ``--out``, with other groups too.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import Tensor

from encoder import files
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=Path, nargs="+", required=True)
    parser.add_argument("--dev", type=Path, help="groups to report on")
    parser.add_argument("--start", type=Path, required=True, help="folder of a pretrained encoder, or second stage")
    parser.add_argument("--tokenizer", type=Path, default=Path("weights/tokenizer.json"))
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
    args = parser.parse_args()

    began = time.monotonic()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.enable_flash_sdp(device == "cuda")  # see encoder.pretrain
    tokenizer = tokenizers.Tokenizer.from_file(str(args.start / files.TOKENIZER))
    model = RerankerModel(files.load_layers(args.start)[0]).train().to(device)
    if (args.start / WEIGHTS).exists():  # a second stage already: its marks and head too
        load_head(model, args.start)
    head = [p for n, p in model.named_parameters() if not n.startswith("encoder.")]
    body = [p for n, p in model.named_parameters() if n.startswith("encoder.") and p.ndim == 2]
    norms = [p for n, p in model.named_parameters() if n.startswith("encoder.") and p.ndim != 2]
    assert len(head) + len(body) + len(norms) == len(list(model.parameters()))
    parameters: list[dict[str, Any]] = [
        {"params": body, "weight_decay": 0.01},
        {"params": norms},
        {"params": head, "scale": 3.0},
    ]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0,
    )  # fmt: skip
    data = [json.loads(line) for path in args.groups for line in path.open(encoding="utf-8")]
    pad = model.encoder.config.pad_id
    dev = [json.loads(line) for line in args.dev.open(encoding="utf-8")] if args.dev else []
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = args.out / "checkpoint.pt", args.out / "log.jsonl"
    step, seconds = 0, 0.0
    order: list[int] = []
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=False)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rng.setstate(state["rng"])
        step, seconds = state["step"], state["seconds"]
        order = state["order"] if state["groups"] == len(data) else []
        print(f"resumed at step {step}")

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

    def save_checkpoint() -> None:
        state = {
            "model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": rng.getstate(), "step": step,
            "seconds": seconds, "order": order, "groups": len(data),
        }  # fmt: skip
        torch.save(state, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").replace(checkpoint)
        save(model, args.tokenizer, args.out / "model")

    totals, last = torch.zeros(2, device=device), time.monotonic()  # of losses and of groups got right
    while step < args.steps and time.monotonic() - began < args.minutes * 60:
        rise = min(1.0, (step + 1) / args.warmup)
        factor = rise * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for param_group in optimizer.param_groups:
            param_group["lr"] = args.lr * factor * param_group.get("scale", 1.0)
        chosen = []
        for _ in range(args.batch):
            if not order:
                order = list(range(len(data)))
                rng.shuffle(order)
            group = data[order.pop()]
            chosen.append((typed(group["query"], rng), choose(group, args.size, rng, args.removed)))
        loss, right = scored(chosen)
        (loss / args.batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        totals += torch.stack((loss.detach() / args.batch, right))
        if step % 20 == 0 or step == args.steps:
            now = time.monotonic()
            seconds, last = seconds + now - last, now
            n = 20 if step % 20 == 0 else step % 20
            losses, rights = totals.tolist()
            row = {
                "step": step, "loss": round(losses / n, 4), "right": round(rights / n / args.batch, 4),
                "minutes": round(seconds / 60, 2),
            }  # fmt: skip
            if step % args.save_every == 0:
                row |= dev_scores() if dev else {}
                save_checkpoint()
                last = time.monotonic()
            print(json.dumps(row), flush=True)
            with log.open("a") as f:
                f.write(json.dumps(row) + "\n")
            totals.zero_()
    if dev and step == args.steps and step % args.save_every:
        with log.open("a") as f:
            f.write(json.dumps({"step": step} | dev_scores()) + "\n")
    save_checkpoint()
    print(f"wrote {args.out / 'model'}")


if __name__ == "__main__":
    main()
