"""The vocabulary that all models share: byte-level BPE, 16,384 tokens, trained on the project's own mix.

Byte-level (as in GPT-2) means that every string round-trips: there is no unknown token.  A vocabulary of our own,
rather than a big general one, keeps *Yennefer* and *Scoia'tael* at one or two tokens and the embedding table, the
largest single matrix of a small model, at a quarter of GPT-2's.

    python -m lm.tokenizer --data DIR --out weights/tokenizer.json
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from lm.errors import LMError

VOCAB_SIZE = 16_384

PAD, BOS, EOS, MASK = "<|pad|>", "<|bos|>", "<|eos|>", "<|mask|>"
SYSTEM, PASSAGE, USER, ASSISTANT, END = "<|system|>", "<|passage|>", "<|user|>", "<|assistant|>", "<|end|>"
# Ids 0–15: a fixed head of the vocabulary, so that a new special token never moves an old one.
SPECIAL_TOKENS = [
    PAD,
    BOS,
    EOS,
    MASK,
    SYSTEM,
    PASSAGE,
    USER,
    ASSISTANT,
    END,
    *(f"<|reserved-{i}|>" for i in range(9, 16)),
]

# GPT-4's split pattern, but with digits in runs of at most two: years and levels stay readable to a small model
# without a token for every three-digit number (the choice of nanochat for vocabularies under 32 k).
SPLIT = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"


class Tokenizer:
    """Text to token ids and back.  Special tokens in user text are never recognised: only ``special`` makes them."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self.inner = inner
        # Without this a passage that spells "<|assistant|>" would become the control token itself.
        self.inner.encode_special_tokens = True
        ids = {token: inner.token_to_id(token) for token in SPECIAL_TOKENS}
        missing = [token for token, id in ids.items() if id is None]
        if missing:
            raise LMError(f"The tokenizer has no {', '.join(missing)}: it belongs to another model.")
        self.ids: dict[str, int] = {token: id for token, id in ids.items() if id is not None}
        self.pad, self.bos, self.eos, self.end = (self.ids[t] for t in (PAD, BOS, EOS, END))

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read ``tokenizer.json``.

        Raises:
            LMError: the file is missing or not a tokenizer.
        """
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises a bare Exception for every cause
            raise LMError(f"Cannot read the tokenizer {path}: {error}. Restore it from the repository.") from error
        return cls(inner)

    @property
    def vocab_size(self) -> int:
        return self.inner.get_vocab_size()

    def special(self, token: str) -> int:
        return self.ids[token]

    def encode(self, text: str) -> list[int]:
        return self.inner.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; special tokens are left out."""
        return self.inner.decode(list(ids), skip_special_tokens=True)


def train(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Learn the merges (Sennrich et al. 2016, byte-level as in GPT-2) from ``texts``."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(inner)


def main() -> int:
    from lm.data import TOKENIZER_MIX, documents

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of training text (see lm/data.py)")
    parser.add_argument("--codex", type=Path, default=Path("corpus/codex"), help="the codex's articles")
    parser.add_argument("--out", type=Path, default=Path("weights/tokenizer.json"))
    args = parser.parse_args()

    def texts() -> Iterator[str]:
        for pattern, repeats, limit in TOKENIZER_MIX:
            for _ in range(repeats):
                yield from itertools.islice(documents(args.data, pattern, codex=args.codex), limit)

    try:
        tokenizer = train(texts())
    except LMError as error:
        print(error, file=sys.stderr)
        return 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.inner.save(str(args.out))
    for word in ("Yennefer", "Geralt of Rivia", "Scoia'tael", "Nilfgaard", "Cintra", "Kaer Morhen", "witcher"):
        print(f"{word}: {len(tokenizer.encode(' ' + word))} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
