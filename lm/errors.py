"""Errors of this room, each with one line that a user can act on."""


class LMError(Exception):
    """Weights, tokenizer or training state cannot be used; the message names the remedy."""
