"""A sentence encoder, BERT-style or a bag of words, and a second stage that reads, written and trained from scratch."""

from encoder.encoder import Encoder
from encoder.errors import EncoderError
from encoder.reranker import Candidate, Reranker

__all__ = ["Candidate", "Encoder", "EncoderError", "Reranker"]
