"""A BERT-style sentence encoder and a second stage on it, written and trained from scratch."""

from encoder.encoder import Encoder
from encoder.errors import EncoderError
from encoder.reranker import Candidate, Reranker

__all__ = ["Candidate", "Encoder", "EncoderError", "Reranker"]
