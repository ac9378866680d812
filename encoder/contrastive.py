"""Contrastive training: pull a question towards its passage and away from every other passage in the batch.

    python -m encoder.contrastive --pairs runs/mined.jsonl --start runs/encoder-mlm/model --out runs/encoder
    python -m encoder.contrastive --pairs runs/pairs.jsonl --bag --out runs/encoder-bag --batch 2048 --lr 0.05

Takes pairs as they are (``corpus.pairs``), or with passages beside them that only look right (``retrieval.mine``, or
the second stage's groups, ``retrieval.candidates``): each question is then pushed away from its own and from those of
all others in the batch.  With ``--bag`` there are no layers at all: one vector a token is learnt (``encoder/bag.py``),
from nothing or from a bag that is there.

The loss is multiple-negatives ranking (Henderson et al. 2017) through sentence-transformers' trainer, with gradient
caching (Gao et al. 2021) so that the batch, which is the number of negatives, need not fit in memory, wrapped in a
Matryoshka loss (Kusupati et al. 2022) so that a vector's first 64 or 128 numbers already work.  A batch never holds
the same text twice, be it the passage of one question and a negative of another: that negative would be right.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.modules import InputModule
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor
from transformers import TrainerCallback

from encoder import files, training
from encoder.bag import Bag, BagConfig
from encoder.errors import EncoderError
from encoder.model import EncoderModel, mean_pool

CHECKPOINT = "encoder.pt"  # in a folder of the trainer's
AMONG, FEWEST = 10, 3  # wrong passages of a group: drawn from the first so many; groups with fewer are left out
WIDTHS = (384, 256, 128, 64)  # of a vector's first numbers that are trained to work alone


class EncoderModule(InputModule):
    """Our encoder as a sentence-transformers module: tokenises, encodes, pools by mean, normalises."""

    def __init__(self, folder: Path, max_length: int) -> None:
        """``max_length``: tokens at which texts are cut.

        Raises:
            EncoderError: ``folder`` cannot be read, or its encoder reads fewer tokens.
        """
        super().__init__()
        self.model, self.tokenizer = files.load_layers(folder)
        if max_length > (most := self.model.config.max_length):
            raise EncoderError(f"--max-length {max_length}: {folder} reads {most} tokens at most.")
        self.tokenizer.enable_truncation(max_length)
        self.tokenizer.enable_padding(pad_id=self.model.config.pad_id)

    def preprocess(self, inputs, prompt: str | None = None, **kwargs) -> dict[str, Tensor]:
        """B texts → ``input_ids`` and ``attention_mask`` (1 on tokens, 0 on padding), ``(B, T)`` int64 each."""
        batch = self.tokenizer.encode_batch([(prompt or "") + text for text in inputs])
        return {
            "input_ids": torch.tensor([e.ids for e in batch]),
            "attention_mask": torch.tensor([e.attention_mask for e in batch]),
        }

    def forward(self, features: dict[str, Tensor], **kwargs) -> dict[str, Tensor]:
        """What :meth:`preprocess` gives, with ``sentence_embedding`` added: unit vectors, ``(B, D)`` float32."""
        keep = features["attention_mask"].bool()
        features["sentence_embedding"] = mean_pool(self.model(features["input_ids"], keep), keep)
        return features

    def get_embedding_dimension(self) -> int:
        return self.model.config.d_model

    def save(self, output_path: str, *args, **kwargs) -> None:
        """The trainer's own checkpoints: parameters alone (the released folder is written by :mod:`encoder.files`)."""
        torch.save(self.state_dict(), Path(output_path) / CHECKPOINT)

    def encoder(self) -> EncoderModel:
        return self.model


class BagModule(StaticEmbedding):
    """A table of token vectors, whose mean is a text's."""

    def __init__(self, start: Path | None, tokenizer_json: Path, config: BagConfig) -> None:
        """``config`` and ``tokenizer_json`` are for one that starts from nothing, else ``start`` has them.

        Raises:
            EncoderError: ``start`` holds an encoder with layers.
        """
        if start is None:
            bag, tokenizer = Bag(config), tokenizers.Tokenizer.from_file(str(tokenizer_json))
            tokenizer.encode_special_tokens = True  # a text that spells "<|mask|>" is text
            tokenizer.enable_truncation(config.max_length)
        else:
            loaded, tokenizer, _ = files.load(start)
            if not isinstance(loaded, Bag):
                raise EncoderError(f"The encoder in {start} has layers and is no bag.")
            bag = loaded
        super().__init__(tokenizer, embedding_weights=bag.embedding.weight.detach())
        self.config = bag.config

    def save(self, output_path: str, *args, **kwargs) -> None:
        torch.save(self.state_dict(), Path(output_path) / CHECKPOINT)

    def encoder(self) -> Bag:
        bag = Bag(self.config)
        bag.load_state_dict(self.state_dict())
        return bag


class Trainer(SentenceTransformerTrainer):
    """The library's trainer, but for reading its checkpoints, which our modules' ``save`` writes."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state = torch.load(Path(resume_from_checkpoint) / CHECKPOINT, map_location="cpu", weights_only=True)
        module: Any = (model or self.model)[0]
        module.load_state_dict(state)


def rows_of(paths: Sequence[Path], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Rows with query, passage and perhaps negatives; those of a group are drawn from the ten that were found first."""
    for row in training.json_lines(paths):
        if "passages" not in row:
            yield row
            continue
        texts = [f"{p['heading']}\n{p['text']}" for p in row["passages"]]
        right = [text for text, p in zip(texts, row["passages"], strict=True) if 1 in p["labels"]]
        wrong = [text for text, p in zip(texts, row["passages"], strict=True) if not any(p["labels"])][:AMONG]
        if right and len(wrong) >= FEWEST:
            yield {"query": row["query"], "passage": right[0], "negatives": rng.sample(wrong, len(wrong))}


def dataset(paths: Sequence[Path], negatives: int | None, seed: int = 0) -> Dataset:
    """Columns anchor, positive, negative_1, … from JSON lines with query, passage and perhaps negatives, or of groups.

    Args:
        negatives: how many of each row's to use; all that every row has, if None.

    Raises:
        EncoderError: there is no row, or one with fewer, or a file cannot be read.
    """
    rng = random.Random(seed)
    rows = list(rows_of(paths, rng))
    names = ", ".join(map(str, paths))
    if not rows:
        raise EncoderError(f"No group of {names} has evidence and {FEWEST} wrong passages.")
    held = min(len(row.get("negatives", ())) for row in rows)
    if negatives is not None and negatives > held:
        raise EncoderError(f"A row of {names} has {held} negatives, not {negatives}: see `python -m retrieval.mine`.")
    columns = {"anchor": [row["query"] for row in rows], "positive": [row["passage"] for row in rows]}
    for n in range(held if negatives is None else negatives):
        columns[f"negative_{n + 1}"] = [row["negatives"][n] for row in rows]
    return Dataset.from_dict(columns)


class StopAfter(TrainerCallback):
    """Ends training after so many minutes; the trainer saves a checkpoint and a later run resumes from it."""

    def __init__(self, minutes: float) -> None:
        self.deadline = time.monotonic() + minutes * 60

    def on_step_end(self, args, state, control, **kwargs):
        if time.monotonic() > self.deadline:
            control.should_training_stop = control.should_save = True


def train(args: argparse.Namespace) -> None:
    """One slice of a run.

    Raises:
        EncoderError: start, pairs or ``--max-length`` do not fit.
    """
    if not (args.start or args.bag):
        raise EncoderError("--start is needed: layers begin from a pretrained encoder.")
    torch.manual_seed(args.seed)
    data = dataset(args.pairs, args.negatives, args.seed)
    module: EncoderModule | BagModule
    if args.bag:
        module = BagModule(args.start, args.tokenizer, BagConfig(d_model=args.width))
    else:
        module = EncoderModule(args.start, args.max_length)
    print(f"{len(data):,} rows of {', '.join(data.column_names)}", flush=True)
    width = module.get_embedding_dimension()
    model = SentenceTransformer(modules=[module], device="cuda" if torch.cuda.is_available() else "cpu")
    ranking: dict[str, Any] = {  # a question among passages, and a passage among questions
        "scale": args.scale, "directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction",
    }  # fmt: skip
    loss: torch.nn.Module
    if args.mini_batch < args.batch and not args.bag:
        loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=args.mini_batch, **ranking)
    else:  # everything fits: caching would only encode each batch twice
        loss = MultipleNegativesRankingLoss(model, **ranking)
    training = SentenceTransformerTrainingArguments(
        output_dir=str(args.out / "trainer"),
        max_steps=args.steps,
        per_device_train_batch_size=args.batch,
        learning_rate=args.lr,
        warmup_steps=max(1, args.steps // 20),
        lr_scheduler_type="cosine",
        weight_decay=0.0 if args.bag else 0.01,  # it would wear away the vectors of rare names
        bf16=not args.bag,
        use_cpu=not torch.cuda.is_available(),
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        logging_steps=10,
        save_steps=100,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        seed=args.seed,
        dataloader_drop_last=True,
    )
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=data,
        loss=MatryoshkaLoss(model, loss, matryoshka_dims=[width, *(d for d in WIDTHS if d < width)]),
        callbacks=[StopAfter(args.minutes)],
    )
    resume = any((args.out / "trainer").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=resume)
    (args.out / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1))
    tokenizer_json = args.start / files.TOKENIZER if args.start else args.tokenizer
    files.save(module.encoder(), tokenizer_json, args.out / "model")
    print(f"wrote {args.out / 'model'} after {trainer.state.global_step} steps")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pairs", type=Path, nargs="+", required=True, help="JSON lines: pairs, with negatives or without, or groups"
    )
    parser.add_argument("--negatives", type=int, help="mined negatives a pair to use (default: all that there are)")
    parser.add_argument("--start", type=Path, help="folder of the pretrained encoder; only a bag may do without")
    parser.add_argument("--bag", action="store_true", help="no layers: learn one vector a token")
    parser.add_argument("--width", type=int, default=BagConfig.d_model, help="of a bag that starts from nothing")
    parser.add_argument(
        "--tokenizer", type=Path, default=Path("weights/tokenizer.json"), help="where there is no --start"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument(
        "--mini-batch", type=int, default=128, help="texts encoded at once within a cached batch; not --bag"
    )
    parser.add_argument("--max-length", type=int, default=160, help="tokens of a passage seen in training; not --bag")
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--scale", type=float, default=30.0, help="inverse temperature of the softmax")
    parser.add_argument("--seed", type=int, default=0)
    return training.launch(train, parser)


if __name__ == "__main__":
    sys.exit(main())
