"""What can be wrong with a file, beyond what the system reports."""

from __future__ import annotations

__all__ = ["CorruptError", "FormatError"]


class FormatError(ValueError):
    """The file is not a saved index, or one that this release cannot read."""


class CorruptError(FormatError):
    """The file was a saved index once and has been damaged."""
