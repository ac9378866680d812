"""Cirilla, a small language model written and trained from scratch, and the reader that answers with it."""

from lm.errors import LMError
from lm.reader import Reader

__all__ = ["LMError", "Reader"]
