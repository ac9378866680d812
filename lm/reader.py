"""Question and passages in, streamed answer out: what the rest of the house sees of Cirilla."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from lm import chat, files, generate, quantize
from lm.model import Cirilla
from lm.tokenizer import EOS, SPECIAL_TOKENS, USER, Tokenizer

GLUE = (
    " is was are were the a an of in on at by to from for with and as he she it they his her its their, -."
    " [1] [2] [3] [4] [5] [6] [7] [8]. [1]."
)
"""What a sentence is held together by: always allowed where an answer is to copy."""


@dataclass(frozen=True, slots=True)
class TracedToken:
    """One token of a draft as the model saw it, for those who look inside."""

    text: str
    probability: float  # under the model's own distribution
    runners_up: tuple[tuple[str, float], ...] = ()  # the next likeliest tokens, best first
    speculated: bool = False  # proposed from the prompt and verified, not decoded one by one
    experts: tuple[tuple[int, ...], ...] = ()  # for each layer with experts, those that worked on its choice


class Reader:
    """A loaded Cirilla that answers from numbered passages.

    Threads may share it: every answer in progress has a cache of its own.  The last ``KEPT`` caches wait for a question
    about the same passages, or the next turn of the same conversation, which then need not be read again.
    """

    name = "cirilla"
    room = 160  # words of all passages together in most rows that the released weights were tuned on
    KEPT = 2  # 73 MB each for the release

    def __init__(self, model: Cirilla, tokenizer: Tokenizer, lookup: int = generate.LONGEST_DRAFT) -> None:
        self.model, self.tokenizer, self.lookup = model, tokenizer, lookup
        self.stop = frozenset({tokenizer.end, tokenizer.special(EOS), tokenizer.special(USER), tokenizer.bos})
        self._glue = frozenset(tokenizer.encode(GLUE))
        self._special = frozenset(tokenizer.special(token) for token in SPECIAL_TOKENS)
        self._lock = threading.Lock()
        self._waiting: list[generate.Context] = []  # oldest first

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype = torch.float32, int8: bool = True) -> Reader:
        """Open a released folder, of floats or of int8.

        Args:
            int8: compute in int8 where the computer can, when ``dtype`` is float32.

        Raises:
            LMError: see :func:`lm.files.load`.
        """
        int8 = int8 and dtype == torch.float32
        model, tokenizer = files.load(Path(folder), dtype, int8)
        if int8 and quantize.supported() and not isinstance(model, quantize.Int8Cirilla):
            model = quantize.to_int8(model)
        return cls(model, tokenizer)

    def stream(
        self,
        question: str,
        passages: Sequence[tuple[str, str]],
        history: Sequence[tuple[str, str]] = (),
        max_new_tokens: int = 96,
        trace: list[TracedToken] | None = None,
        copying: bool = False,
    ) -> Generator[str, None, None]:
        """Pieces of an answer with ``[n]`` citations (``n`` counts ``passages`` from 1), decoded greedily.

        An answer that is exactly :data:`lm.chat.DECLINE` says that the passages do not hold one.

        Args:
            passages: (heading, text) pairs, best first.
            history: ("user" or "assistant", text) pairs before the question.
            trace: every token is appended to it as it is written.
            copying: write only tokens of the prompt, and of ``GLUE``.
        """
        budget = self.model.config.max_length - max_new_tokens
        prompt = chat.render(self.tokenizer, passages, [*history, ("user", question)], budget=budget)
        with self._context(prompt) as context:
            tokens: Iterator[generate.Token] = generate.stream(
                self.model,
                prompt,
                max_new_tokens=max_new_tokens,
                stop=self.stop,
                allowed=self.stop | self._glue | {id for id in prompt if id not in self._special} if copying else None,
                context=context,
                lookup=self.lookup,
                trace=trace is not None,
            )
            if trace is not None:
                tokens = self._traced(tokens, trace)
            for _, piece in generate.text(tokens, self.tokenizer.decode):
                if piece:
                    yield piece

    def _traced(self, tokens: Iterator[generate.Token], trace: list[TracedToken]) -> Iterator[generate.Token]:
        decode = self.tokenizer.decode
        for token in tokens:
            others = tuple((decode([id]), probability) for id, probability in token.runners_up)
            trace.append(TracedToken(decode([token.id]), token.probability, others, token.speculated, token.experts))
            yield token

    @contextmanager
    def _context(self, prompt: Sequence[int]) -> Iterator[generate.Context]:
        """A cache for this prompt alone: of those that wait the one that knows most of it, else a new one."""
        with self._lock:
            best = max(self._waiting, key=lambda waiting: waiting.common(prompt), default=None)
            # Nearly every prompt shares its first few tokens with every other: that is no reason to lose another
            # conversation's cache while there is room for a new one.
            if best is not None and best.common(prompt) < len(prompt) // 4:
                best = self._waiting[0] if len(self._waiting) >= self.KEPT else None
            if best is not None:
                self._waiting.remove(best)
        context = best or generate.Context(self.model)
        try:
            yield context
        finally:
            with self._lock:
                self._waiting.append(context)
                del self._waiting[: -self.KEPT]
