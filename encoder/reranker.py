"""The second stage: question and passage read together, every sentence of the passage scored.

A cross-encoder (Nogueira & Cho 2019) on the transformer of ``encoder/model.py``.  One pass over ``question passage``
gives each token a vector that has seen both; the mean over a sentence's tokens goes through a small head and comes out
as that sentence's score. So one pass ranks the passages (by their best sentence), points at the evidence, and says how
sure it is: scores are trained in a softmax over all sentences of all candidates *and* a silent one whose score is
always 0.  Its share is the probability that none of them answers, as in SQuAD 2's no-answer score (Devlin et al. 2019).

A small encoder trained from scratch learns meaning before it learns to compare spellings, so it is told: every token
carries a mark for its side and for whether its word occurs on the other side too (the exact-match feature of DrQA, Chen
et al. 2017).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from encoder import files
from encoder.encoder import best_dtype
from encoder.errors import EncoderError
from encoder.model import EncoderModel

QUESTION_TOKENS = 64
STEM = 5  # words that share so many first letters are taken for forms of one word
PLAIN, SAME, ALIKE = 0, 1, 2  # marks of a word that the other side lacks, has, has in another form
SIDES = 3  # marks of the question's tokens, the heading's and the text's stand behind one another
WEIGHTS = "reranker.safetensors"

_WORD = re.compile(r"\w+")
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage as the second stage reads it; ``spans`` are its sentences, offsets in characters of ``text``."""

    heading: str
    text: str
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True)
class Example:
    """A question and a candidate as numbers: token ids, their marks, and the sentence of each token (-1: none)."""

    ids: list[int]
    marks: list[int]
    sentences: list[int]


def _words(text: str) -> list[tuple[int, int, str]]:
    return [(m.start(), m.end(), m[0].casefold()) for m in _WORD.finditer(text)]


def _marks(offsets: Sequence[Span], words: Sequence[tuple[int, int, str]], others: set[str]) -> list[int]:
    """For each token the mark of the word that it is a part of."""
    stems = {word[:STEM] for word in others if len(word) >= STEM}
    out, at = [], 0
    for start, end in offsets:
        # A byte-level token may begin with the space before its word.
        while at < len(words) and words[at][1] <= start:
            at += 1
        mark = PLAIN
        if at < len(words) and words[at][0] < end:
            word = words[at][2]
            mark = SAME if word in others else ALIKE if len(word) >= STEM and word[:STEM] in stems else PLAIN
        out.append(mark)
    return out


def examples(
    tokenizer: tokenizers.Tokenizer, question: str, candidates: Sequence[Candidate], length: int
) -> list[Example]:
    """One example a candidate, cut at ``length`` tokens; sentences that do not fit keep no token."""
    asked = tokenizer.encode(question)
    head, head_offsets = asked.ids[:QUESTION_TOKENS], asked.offsets[:QUESTION_TOKENS]
    question_words = _words(question)
    wanted = {word for _, _, word in question_words}
    out = []
    for candidate, heading, text in zip(
        candidates,
        tokenizer.encode_batch([c.heading for c in candidates]),
        tokenizer.encode_batch([c.text for c in candidates], add_special_tokens=False),
        strict=True,
    ):
        heading_words, text_words = _words(candidate.heading), _words(candidate.text)
        there = {word for _, _, word in (*heading_words, *text_words)}
        ids = [*head, *heading.ids, *text.ids][:length]
        marks = [
            *_marks(head_offsets, question_words, there),
            *(SIDES + mark for mark in _marks(heading.offsets, heading_words, wanted)),
            *(2 * SIDES + mark for mark in _marks(text.offsets, text_words, wanted)),
        ][:length]
        sentences, at = [-1] * (len(head) + len(heading.ids)), 0
        for start, end in text.offsets:
            while at < len(candidate.spans) and candidate.spans[at][1] <= start:
                at += 1
            sentences.append(at if at < len(candidate.spans) and candidate.spans[at][0] < end else -1)
        out.append(Example(ids, marks, sentences[:length]))
    return out


class RerankerModel(nn.Module):
    """Encoder, marks and the head that scores sentences."""

    def __init__(self, encoder: EncoderModel) -> None:
        super().__init__()
        width = encoder.config.d_model
        self.encoder = encoder
        self.marks = nn.Embedding(3 * SIDES, width)
        self.dense = nn.Linear(2 * width, width)
        self.score = nn.Linear(width, 1)
        nn.init.normal_(self.marks.weight, std=0.02)
        nn.init.zeros_(self.score.weight)
        nn.init.constant_(self.score.bias, -2.0)  # few sentences answer

    def forward(self, ids: Tensor, keep: Tensor, marks: Tensor, pool: Tensor) -> Tensor:
        """Scores of sentences.

        Args:
            ids, keep, marks: ``(B, T)``.
            pool: ``(B, S, T)``, row s the weights by which sentence s is the mean of its tokens; zero rows are padding.

        Returns:
            ``(B, S)`` float32.
        """
        x = self.encoder(ids, keep, self.marks(marks))  # (B, T, D)
        sentences = torch.bmm(pool.to(x.dtype), x)  # (B, S, D)
        # What surrounds a sentence counts too: the whole pair's vector stands beside each.
        weight = keep.to(x.dtype) / keep.sum(1, keepdim=True)
        whole = torch.einsum("bt,btd->bd", weight, x)[:, None].expand_as(sentences)  # (B, S, D)
        hidden = nn.functional.gelu(self.dense(torch.cat((sentences, whole), -1)))
        return self.score(hidden)[..., 0].float()


def collate(made: Sequence[Example], counts: Sequence[int], pad: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ids, keep, marks ``(B, T)`` and pool ``(B, S, T)``; ``counts`` are the candidates' numbers of sentences."""
    B, T, S = len(made), max(len(e.ids) for e in made), max(1, *counts)
    ids = torch.full((B, T), pad)
    marks = torch.zeros((B, T), dtype=torch.long)
    keep = torch.zeros((B, T), dtype=torch.bool)
    pool = torch.zeros((B, S, T))
    for row, e in enumerate(made):
        n = len(e.ids)
        ids[row, :n], marks[row, :n], keep[row, :n] = torch.tensor(e.ids), torch.tensor(e.marks), True
        sentences = torch.tensor(e.sentences)
        places = (sentences >= 0).nonzero()[:, 0]
        pool[row, sentences[places], places] = 1.0
    return ids, keep, marks, pool / pool.sum(-1, keepdim=True).clamp(min=1.0)


class Reranker:
    """A loaded second stage."""

    def __init__(self, model: RerankerModel, tokenizer: tokenizers.Tokenizer, length: int = 320) -> None:
        self.model, self.tokenizer, self.length = model.eval(), tokenizer, length

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype | None = None) -> Reranker:
        """Open a released folder; ``dtype`` is :func:`encoder.encoder.best_dtype` unless given.

        Raises:
            EncoderError: see :func:`encoder.files.load_layers`.
        """
        folder = Path(folder)
        encoder, tokenizer = files.load_layers(folder)
        model = RerankerModel(encoder)
        load_head(model, folder)
        return cls(model.to(dtype or best_dtype()), tokenizer)

    def score(self, question: str, candidates: Sequence[Candidate], batch: int = 8) -> list[np.ndarray]:
        """For each candidate the scores of its sentences, float32; a sentence beyond the length limit gets -inf."""
        made = examples(self.tokenizer, question, candidates, self.length)
        return self.score_examples(made, [len(candidate.spans) for candidate in candidates], batch)

    @torch.inference_mode()
    def score_examples(self, made: Sequence[Example], sentences: Sequence[int], batch: int = 8) -> list[np.ndarray]:
        """As :meth:`score`, for pairs of any questions that were made into numbers; ``sentences`` of each pair."""
        device = self.model.score.weight.device
        order = sorted(range(len(made)), key=lambda i: len(made[i].ids))
        out: list[np.ndarray] = [np.empty(0, np.float32)] * len(made)
        for at in range(0, len(order), batch):
            rows = order[at : at + batch]
            counts = [sentences[i] for i in rows]
            tensors = collate([made[i] for i in rows], counts, self.model.encoder.config.pad_id)
            scores = self.model(*(t.to(device) for t in tensors)).cpu()
            scores = scores.masked_fill(tensors[3].sum(-1) == 0, -torch.inf)
            for row, (i, n) in enumerate(zip(rows, counts, strict=True)):
                out[i] = scores[row, :n].numpy()
        return out


def load_head(model: RerankerModel, folder: Path) -> None:
    """Fill in the marks and the head that :func:`save` wrote beside the encoder.

    Raises:
        EncoderError: when the file is missing, damaged or another model's.
    """
    try:
        head = {k: v.float() for k, v in load_file(folder / WEIGHTS).items()}
        missing, unexpected = model.load_state_dict(head, strict=False)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise EncoderError(f"{folder / WEIGHTS} cannot be read ({str(error).splitlines()[0]}).") from error
    if unexpected or any(not name.startswith("encoder.") for name in missing):
        raise EncoderError(f"{folder / WEIGHTS} does not hold the second stage's marks and head.")


def save(model: RerankerModel, tokenizer_json: Path, folder: Path) -> None:
    """Write the folder: the encoder's own files, and marks and head beside them."""
    files.save(model.encoder, tokenizer_json, folder)
    head = {k: v.detach().half().contiguous() for k, v in model.state_dict().items() if not k.startswith("encoder.")}
    save_file(head, folder / WEIGHTS)
