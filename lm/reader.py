"""Question and passages in, streamed answer out: what the rest of the house sees of Cirilla."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lm import chat, files, generate
from lm.model import Cirilla
from lm.tokenizer import EOS, USER, Tokenizer


@dataclass(frozen=True, slots=True)
class TracedToken:
    """One token of a draft as the model saw it, for those who look inside."""

    text: str
    probability: float  # under the model's own distribution
    runners_up: tuple[tuple[str, float], ...] = ()  # the next likeliest tokens, best first
    speculated: bool = False  # proposed from the prompt and verified, not decoded one by one
    experts: tuple[tuple[int, ...], ...] = ()  # for each layer with experts, those it was sent to


class Reader:
    """A loaded Cirilla that answers from numbered passages."""

    name = "cirilla"

    def __init__(self, model: Cirilla, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.stop = frozenset({tokenizer.end, tokenizer.special(EOS), tokenizer.special(USER), tokenizer.bos})

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> Reader:
        """Open a released folder.

        Raises:
            LMError: see :func:`lm.files.load`.
        """
        return cls(*files.load(Path(folder), dtype))

    def stream(
        self,
        question: str,
        passages: Sequence[tuple[str, str]],
        history: Sequence[tuple[str, str]] = (),
        max_new_tokens: int = 96,
        trace: list[TracedToken] | None = None,
    ) -> Iterator[str]:
        """Pieces of an answer with ``[n]`` citations (``n`` counts ``passages`` from 1), decoded greedily.

        An answer that is exactly :data:`lm.chat.DECLINE` says that the passages do not hold one.

        Args:
            passages: (heading, text) pairs, best first.
            history: ("user" or "assistant", text) pairs before the question.
            trace: every token is appended to it as it is written.
        """
        budget = self.model.config.max_length - max_new_tokens
        prompt = chat.render(self.tokenizer, passages, [*history, ("user", question)], budget=budget)
        ids: list[int] = []
        given = ""
        for token in generate.stream(self.model, prompt, max_new_tokens=max_new_tokens, stop=self.stop):
            ids.append(token.id)
            if trace is not None:
                trace.append(TracedToken(self.tokenizer.decode([token.id]), token.probability))
            text = self.tokenizer.decode(ids)
            # A character may be spread over several byte tokens: hold back what is not yet whole.
            if not text.endswith("\ufffd"):
                yield text[len(given) :]
                given = text
