"""What can happen to a file of a folder of weights."""

from pathlib import Path

import pytest

from lm import files

DAMAGE = pytest.mark.parametrize("damage", ["gone", "cut", "garbage", "another"])


def done(path: Path, damage: str) -> bool:
    """Damage the file; False for another model's file, which only the caller can make."""
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "garbage":
        path.write_bytes(b"not what it should be")
    elif path.name == files.TOKENIZER:
        path.write_text("[]")
    else:
        return False
    return True
