"""The one place that knows the prompt: numbered passages, then the conversation, then the answer.

    <|bos|> <|passage|>[1] heading⏎text <|passage|>[2] … <|user|>question<|assistant|>answer [1]<|end|>

Passages come first so that their keys and values can be kept for a follow-up about the same passages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain

from lm.tokenizer import ASSISTANT, BOS, END, PASSAGE, USER, Tokenizer

DECLINE = "The archives do not say."
"""The whole answer of a model that finds no answer in its passages."""


def render(
    tokenizer: Tokenizer,
    passages: Sequence[tuple[str, str]],
    turns: Sequence[tuple[str, str]],
    *,
    budget: int,
    whole: Collection[int] = (),
) -> list[int]:
    """Token ids of a prompt that ends where the answer begins.

    Args:
        passages: (heading, text) pairs; they are numbered from 1 in this order.
        turns: ("user" or "assistant", text) pairs; the last one is the question.
        budget: tokens at most.  Old turns go first, then the ends of the longest passages, never the question.
        whole: numbers of passages that are never cut: with them the prompt may be longer than ``budget``.

    Raises:
        ValueError: the last turn is not the user's.
    """
    if not turns or turns[-1][0] != "user":
        raise ValueError("a prompt ends with the user's turn")
    special = tokenizer.special

    def turn_ids(role: str, text: str) -> list[int]:
        ids = tokenizer.encode(text)
        return [special(USER), *ids] if role == "user" else [special(ASSISTANT), *ids, special(END)]

    rendered = [turn_ids(role, text) for role, text in turns]
    # The question itself may take half of the room; what is longer is cut at its end.
    rendered[-1] = rendered[-1][: budget // 2]
    while len(rendered) > 1 and sum(map(len, rendered)) > budget // 2:
        rendered.pop(0)
    bodies = [[special(PASSAGE), *tokenizer.encode(text)] for text in numbered(passages)]
    room = budget - 2 - sum(map(len, rendered)) - sum(len(bodies[n - 1]) for n in whole)
    others = [i for i in range(len(bodies)) if i + 1 not in whole]
    for i, limit in zip(others, _shares([len(bodies[i]) for i in others], room), strict=True):
        bodies[i] = bodies[i][:limit]
    return [special(BOS), *chain(*bodies, *rendered), special(ASSISTANT)]


def numbered(passages: Sequence[tuple[str, str]]) -> list[str]:
    """Each passage as the model reads it."""
    return [f"[{n}] {heading}\n{text}" for n, (heading, text) in enumerate(passages, 1)]


def _shares(sizes: list[int], room: int) -> list[int]:
    """Cut the longest until all fit into ``room``: short passages stay whole, long ones end at the same length."""
    limit, left, out = 0, room, dict.fromkeys(range(len(sizes)), 0)
    for place, i in enumerate(sorted(out, key=sizes.__getitem__)):
        limit = max(0, left) // (len(sizes) - place)
        out[i] = min(sizes[i], limit)
        left -= out[i]
    return [out[i] for i in range(len(sizes))]
