"""Errors of this room, each with one line that a user can act on."""


class EncoderError(Exception):
    """Weights or tokenizer cannot be used; the message names the remedy."""
