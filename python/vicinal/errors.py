"""What can be wrong with a file, beyond what the system reports."""

from __future__ import annotations

__all__ = ["ConflictError", "CorruptError", "FormatError"]


class FormatError(ValueError):
    """The file is not a saved index, or one that this release cannot read."""


class CorruptError(FormatError):
    """The file was a saved index once and has been damaged."""


class ConflictError(RuntimeError):
    """A file has changes that would be lost, or is not the one that it was."""
