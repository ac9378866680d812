"""Tuning: Cirilla learns to answer from numbered passages and to cite them.

    python -m lm.tune --data runs/grounded.jsonl --start runs/cirilla/model --out runs/cirilla-tuned --minutes 15

A row is ``{"passages": [[heading, text], …], "turns": [["user", …], …], "answer": "… [n]", "kind"}``, as
``corpus.grounded`` and ``corpus.instruct`` write them.  The loss counts the answer alone.  With ``--copy-steps N`` the
first N steps see only rows of the kinds that begin with "copy", whose answers are word for word in a passage: a small
model ignores its passages until it has learnt that copying from them pays.

``--pack`` (the default on a GPU) puts several conversations into a row, each seeing itself alone: no padding, and rows
of one shape, which torch.compile wants.  Stops, resumes and runs under ``torchrun`` like pretraining.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm import chat, curves, files, optim
from lm.data import Prefetch
from lm.errors import LMError
from lm.model import Cirilla
from lm.tokenizer import Tokenizer

Row = dict[str, Any]
Example = tuple[list[int], int]
"""Token ids of prompt and answer, and where the answer begins."""

_CITED = re.compile(r"\[(\d{1,3})\]")
WAITING = 64  # tokenised conversations from which packing chooses
TOGETHER = 128  # conversations tokenised in one go


# -- rows into tensors -------------------------------------------------------------------------------------------


def example(tokenizer: Tokenizer, row: Row, length: int, answer: str | None = None) -> Example | None:
    """A row as the model reads it; ``answer`` stands in for the row's own.

    What is too long is shortened as in answering, but at the passages that the answer does not cite: a model that must
    cite what was cut away would learn to invent.  None where the rest alone is too long.
    """
    answer = row["answer"] if answer is None else answer
    said = [*tokenizer.encode(answer), tokenizer.end]
    room = length - len(said)
    if room < length // 2:
        return None
    passages = [(heading, text) for heading, text in row["passages"]]
    cited = {n for n in map(int, _CITED.findall(answer)) if 1 <= n <= len(passages)}
    prompt = chat.render(tokenizer, passages, row["turns"], budget=room, whole=cited)
    return ([*prompt, *said], len(prompt)) if len(prompt) <= room else None


def collate(examples: Sequence[Example], pad: int) -> tuple[Tensor, Tensor]:
    """Right-padded inputs and targets, ``(B, T)`` each; targets are -100 on padding and on the prompt.

    Right padding needs no mask: attention is causal, so no real token ever sees the padding behind it.
    """
    width = max(len(ids) for ids, _ in examples) - 1
    inputs = torch.full((len(examples), width), pad)
    targets = torch.full((len(examples), width), -100)
    for row, (ids, start) in enumerate(examples):
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        targets[row, start - 1 : len(ids) - 1] = torch.tensor(ids[start:])
    return inputs, targets


def pack(rows: Sequence[Sequence[Example]], length: int, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and document numbers, ``(B, length)`` each: in every row the examples one after the other.

    The padding at the end of a row is a document too, one that nobody learns from.
    """
    inputs = torch.full((len(rows), length), pad)
    targets = torch.full((len(rows), length), -100)
    documents = torch.zeros((len(rows), length), dtype=torch.long)
    for row, examples in enumerate(rows):
        at = 0
        for number, (ids, start) in enumerate(examples, 1):
            end = at + len(ids) - 1
            inputs[row, at:end] = torch.tensor(ids[:-1])
            targets[row, at + start - 1 : end] = torch.tensor(ids[start:])
            documents[row, at:end] = number
            at = end
    return inputs, targets, documents


class Encoded(Tokenizer):
    """The tokenizer, which knows the tokens of some rows already.

    They are found in one go, on all cores and without the interpreter's lock: one row after the other, a GPU would wait
    for its conversations most of the time.
    """

    def __init__(self, tokenizer: Tokenizer, rows: Sequence[Row]) -> None:
        super().__init__(tokenizer.inner)
        texts = {text for row in rows for text in (*chat.numbered(row["passages"]), row["answer"])}
        texts |= {text for row in rows for _, text in row["turns"]}
        self.known = dict(zip(texts, tokenizer.encode_batch(list(texts)), strict=True))

    def encode(self, text: str) -> list[int]:
        return self.known[text] if text in self.known else super().encode(text)


class Conversations:
    """An endless stream of examples: every row once an epoch, each epoch in an order of its own.

    Rows that do not fit are passed over.  The state is the place in the stream and the rows that packing still holds
    back, so ``state_dict`` resumes exactly.

    Raises:
        LMError: no row at all fits.
    """

    def __init__(self, rows: Sequence[Row], tokenizer: Tokenizer, length: int, seed: int) -> None:
        self.rows, self.tokenizer, self.length, self.seed = rows, tokenizer, length, seed
        self.epoch, self.at = 0, 0
        self.order = self._shuffled()
        self.ready: deque[tuple[int, Example | None]] = deque()  # what comes at ``at`` and after it
        self.waiting: list[tuple[int, Example]] = []
        self.passed_over = 0  # in a row

    def _shuffled(self) -> list[int]:
        order = list(range(len(self.rows)))
        random.Random(f"{self.seed} {self.epoch}").shuffle(order)
        return order

    def _next(self) -> tuple[int, Example]:
        while True:
            if self.at == len(self.order):
                self.epoch, self.at = self.epoch + 1, 0
                self.order = self._shuffled()
            if self.passed_over >= max(1, len(self.rows)) or not self.rows:
                raise LMError(f"No row fits into {self.length} tokens: give a larger --length, or other data.")
            if not self.ready:
                self.ready.extend(self._made(self.order[self.at : self.at + TOGETHER]))
            index, made = self.ready.popleft()
            self.at += 1
            if made:
                self.passed_over = 0
                return index, made
            self.passed_over += 1

    def _made(self, indices: Sequence[int]) -> list[tuple[int, Example | None]]:
        tokenizer = Encoded(self.tokenizer, [self.rows[i] for i in indices])
        return [(i, example(tokenizer, self.rows[i], self.length)) for i in indices]

    def padded(self, size: int) -> tuple[Tensor, Tensor]:
        """``size`` conversations, one a row, see :func:`collate`."""
        return collate([self._next()[1] for _ in range(size)], self.tokenizer.pad)

    def packed(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """``size`` rows of ``length`` tokens, filled by best fit, see :func:`pack`."""
        rows: list[list[Example]] = []
        for _ in range(size):
            row: list[Example] = []
            room = self.length
            while True:
                while len(self.waiting) < WAITING:
                    self.waiting.append(self._next())
                # An example takes one place less than it has tokens: the last one is only a target.
                fits = [i for i, (_, (ids, _)) in enumerate(self.waiting) if len(ids) - 1 <= room]
                if not fits:
                    break
                _, found = self.waiting.pop(max(fits, key=lambda i: len(self.waiting[i][1][0])))
                row.append(found)
                room -= len(found[0]) - 1
            rows.append(row)
        return pack(rows, self.length, self.tokenizer.pad)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "at": self.at, "waiting": [index for index, _ in self.waiting]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.at = state["epoch"], state["at"]
        self.order = self._shuffled()
        self.ready.clear()
        self.waiting = [(i, made) for i, made in self._made(state["waiting"]) if made]


class Lessons:
    """The batches of a run in order: first copying, if asked for, then everything; padded or packed.

    With several processes all make the same batch, and each takes its rows of it.
    """

    def __init__(
        self, rows: Sequence[Row], tokenizer: Tokenizer, args: argparse.Namespace, packs: bool, world: optim.World
    ) -> None:
        copies = [row for row in rows if row.get("kind", "").startswith("copy")]
        if args.copy_steps and not copies:
            raise LMError(
                "--copy-steps needs rows whose kind begins with 'copy': python -m corpus.grounded makes some."
            )
        self.everything = Conversations(rows, tokenizer, args.length, args.seed)
        self.copies = Conversations(copies, tokenizer, args.length, args.seed + 1)
        self.copy_batches = args.copy_steps * args.accumulate
        self.made = 0
        self.args, self.packs, self.world = args, packs, world

    def batch(self) -> tuple[Tensor, ...]:
        """Inputs, targets and, if packed, documents, ``(B, T)`` each."""
        source = self.copies if self.made < self.copy_batches else self.everything
        self.made += 1
        size = self.args.batch * self.world.size
        made = source.packed(size) if self.packs else source.padded(size)
        mine = slice(self.world.rank * self.args.batch, (self.world.rank + 1) * self.args.batch)
        return tuple(t[mine].contiguous() for t in made)

    def state_dict(self) -> dict[str, Any]:
        parts = {"everything": self.everything.state_dict(), "copies": self.copies.state_dict()}
        return {**parts, "made": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.everything.load_state_dict(state["everything"])
        self.copies.load_state_dict(state["copies"])
        self.made = state["made"]


# -- measuring ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(model: Cirilla, rows: Sequence[Row], tokenizer: Tokenizer, length: int, batch: int = 16) -> Row:
    """Mean loss of answers' tokens, and the share of answers that greedy decoding would give word for word.

    Whether it would is seen in one pass, without decoding: exactly when every token of the answer is the likeliest
    after those before it.  ``by_kind`` has that share for each kind of row.
    """
    device = model.embed_tokens.weight.device
    training = model.training
    model.eval()
    nats, count = 0.0, 0
    right: dict[str, list[float]] = defaultdict(list)
    made = [(row.get("kind", ""), found) for row in rows if (found := example(tokenizer, row, length))]
    for at in range(0, len(made), batch):
        part = made[at : at + batch]
        inputs, targets = (t.to(device) for t in collate([e for _, e in part], tokenizer.pad))
        wanted = targets != -100
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model.logits(model.hidden(inputs, flex=False)[wanted]).float()  # (answers' tokens, V)
        nats += torch.nn.functional.cross_entropy(logits, targets[wanted], reduction="sum").item()
        count += len(logits)
        wrong = torch.zeros(len(part), device=device)
        wrong.index_add_(0, wanted.nonzero()[:, 0], (logits.argmax(-1) != targets[wanted]).float())
        for (kind, _), errors in zip(part, wrong.tolist(), strict=True):
            right[kind].append(float(errors == 0))
    model.train(training)
    if not made:
        return {}
    every = [value for values in right.values() for value in values]
    return {
        "held_out_answer_loss": round(nats / count, 4),
        "held_out_exact": round(sum(every) / len(every), 4),
        "by_kind": {kind: round(sum(v) / len(v), 3) for kind, v in sorted(right.items())},
    }


def read_rows(paths: Sequence[Path]) -> list[Row]:
    """Rows of all files.  Raises LMError if one cannot be read or none has a row."""
    rows: list[Row] = []
    for path in paths:
        try:
            with path.open(encoding="utf-8") as f:
                rows += [json.loads(line) for line in f if line.strip()]
        except (OSError, ValueError) as error:
            raise LMError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise LMError("There is no row in the data.")
    return rows


def split_rows(rows: Sequence[Row], held_out: int) -> tuple[list[Row], list[Row]]:
    """The first rows for measuring, and of the others those that do not ask the same."""

    def asked(row: Row) -> tuple[str, ...]:
        # A question that means nothing without the passages ("What does passage 2 begin with?") is asked of many: there
        # they count too.  Elsewhere they do not: the same conversation comes again among other distractors.
        turns = tuple(text.casefold().rstrip(" ?") for _, text in row["turns"])
        copies = row.get("kind", "").startswith("copy")
        return (*turns, *(text for _, text in row["passages"])) if copies else turns

    kept = list(rows[:held_out])
    known = {asked(row) for row in kept}
    return kept, [row for row in rows[held_out:] if asked(row) not in known]


# -- training ----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m lm.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = flags.add_argument
    add("--data", type=Path, required=True, nargs="+", help="JSON lines of grounded conversations")
    add("--start", type=Path, required=True, help="folder of the pretrained model")
    add("--out", type=Path, required=True)
    add("--steps", type=int, default=1000)
    add("--minutes", type=float, default=math.inf)
    add("--batch", type=int, default=16, help="rows at once, in each process")
    add("--accumulate", type=int, default=1, help="batches a step")
    add("--length", type=int, default=448, help="tokens of a row: of prompt and answer, or of several when packed")
    add("--pack", action=argparse.BooleanOptionalAction, default=None, help="several a row; by default on a GPU")
    add("--copy-steps", type=int, default=0, help="steps at the beginning with nothing but copying")
    add("--optimizer", choices=optim.LEARNING_RATE, default="muon")
    add("--lr", type=float, default=1e-3)
    add("--warmup", type=int, default=20)
    add("--decay", type=float, default=0.5, help="share of the steps in which the rate falls")
    add("--held-out", type=int, default=200, help="rows kept for measuring, the first ones")
    add("--window", type=int, default=20, help="steps a line of the log")
    add("--eval-every", type=int, default=200, help="steps between measurements on the rows kept")
    add("--save-every", type=int, default=200, help="steps between checkpoints; the end of a run always saves")
    add("--compile", action=argparse.BooleanOptionalAction, default=None, help="by default on a GPU, when packed")
    add("--flex", action=argparse.BooleanOptionalAction, help="FlexAttention instead of a mask, by default on a GPU")
    add("--seed", type=int, default=0)
    return flags


def train(args: argparse.Namespace, world: optim.World) -> None:
    """One slice of a run.  Raises LMError where data, model or checkpoint do not fit."""
    began = time.monotonic()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = world.device
    packs = device == "cuda" if args.pack is None else args.pack

    model, tokenizer = files.load(args.start)
    if args.length > model.config.max_length:
        raise LMError(f"The model was made for {model.config.max_length} tokens, not for --length {args.length}.")
    model = model.to(device).train()
    groups = optim.optimizers(model, args.lr, weight_decay=0.0, kind=args.optimizer)
    held_out, rows = split_rows(read_rows(args.data), args.held_out)
    lessons = Lessons(rows, tokenizer, args, packs, world)
    sizes = [len(rows), len(lessons.copies.rows)]

    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"
    step, seconds = 0, 0.0
    pending: list[Tensor] = []  # (loss of answers · tokens, tokens) a step of the window that is not yet finished
    if checkpoint.exists():
        state = optim.load_checkpoint(checkpoint, model, groups, device, "tune", sizes)
        lessons.load_state_dict(state["lessons"])
        step, seconds, pending = state["step"], state["seconds"], list(state["losses"])
        if world.is_main:
            print(f"resumed at step {step}")
    log = optim.Log(args.out, step, world.is_main)
    wants_compiling = device == "cuda" and packs if args.compile is None else args.compile
    loss_of: Callable[..., Tensor] = torch.compile(model.loss) if wants_compiling else model.loss
    started, first_step, saved = time.monotonic(), step, step

    def save() -> None:
        nonlocal pending, saved
        if pending:
            pending = list(world.mean(torch.stack(pending)))
        if world.is_main:
            at = {"step": step, "seconds": seconds + time.monotonic() - started}
            left = torch.stack(pending) if pending else torch.zeros(0, 2)
            state = {"lessons": loader.state_dict(), "losses": left, **at}
            optim.save_checkpoint(checkpoint, model, groups, "tune", sizes, **state)
        saved = step

    loader = Prefetch(lessons.batch, lessons.state_dict, ready=8, pin=device == "cuda")
    with loader:
        while step < args.steps and not world.agree(time.monotonic() - began >= args.minutes * 60):
            optim.set_lr(groups, args.lr * optim.schedule(step, args.steps, args.warmup, args.decay))
            parts = [loader.next() for _ in range(args.accumulate)]
            # Batches have different numbers of answer tokens: each weighs by them, over all processes.
            counts = torch.tensor([float((part[1] != -100).sum()) for part in parts])
            share = counts * world.size / float(world.sum(counts).sum())
            measured = torch.zeros(2, device=device)
            for batch, weight, count in zip(parts, share.tolist(), counts.tolist(), strict=True):
                tensors = [t.to(device, non_blocking=True) for t in batch]
                with torch.autocast(device, dtype=torch.bfloat16):
                    loss = loss_of(*tensors, flex=args.flex)
                (loss * weight).backward()
                measured[0] += loss.detach() * count  # nothing here waits for the GPU
                measured[1] += count
            world.average_gradients(model)
            optim.update(model, groups)
            pending.append(measured)
            step += 1

            if step % args.window == 0 or step == args.steps:
                total, tokens = world.sum(torch.stack(pending)).sum(0).tolist()
                now = time.monotonic()
                row: dict[str, Any] = {
                    "step": step,
                    "answer_loss": round(total / max(1.0, tokens), 4),
                    "minutes": round((seconds + now - started) / 60, 2),
                    "eta_minutes": round((args.steps - step) * (now - started) / (step - first_step) / 60, 1),
                }
                if world.is_main and (step % args.eval_every == 0 or step == args.steps):
                    row |= measure(model, held_out, tokenizer, args.length)
                log.add(row)
                pending = []
            if step % args.save_every == 0:
                save()
        if saved != step:
            save()
    if step >= args.steps and world.is_main:
        files.save(model, tokenizer, args.out / "model")
        curves.try_to_draw(args.out)
        print(f"wrote {args.out / 'model'}")


def main() -> int:
    return optim.launch(train, parser())


if __name__ == "__main__":
    sys.exit(main())
