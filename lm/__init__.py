"""Cirilla, a small language model written and trained from scratch, and the reader that answers with it."""

from typing import TYPE_CHECKING, Any

from lm.errors import LMError

if TYPE_CHECKING:
    from lm.reader import Reader

__all__ = ["LMError", "Reader"]


def __getattr__(name: str) -> Any:
    """``Reader`` when first asked for: the programs of this package are imported after it, and would be run twice."""
    if name == "Reader":
        from lm.reader import Reader

        return Reader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
