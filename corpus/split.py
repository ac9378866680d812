"""Which articles may be trained on: questions are split by article, and an article is in one split for ever."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "dev", "test"]


def split_of(title: str) -> Split:
    """80 % train, 10 % dev, 10 % test, by a hash of the title, so that a new article never moves an old one."""
    bucket = int.from_bytes(hashlib.blake2b(title.encode(), digest_size=4).digest(), "big") % 10
    return "test" if bucket == 0 else "dev" if bucket == 1 else "train"
