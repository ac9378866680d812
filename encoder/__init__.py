"""A BERT-style sentence encoder, written and trained from scratch."""

from encoder.encoder import Encoder
from encoder.errors import EncoderError

__all__ = ["Encoder", "EncoderError"]
