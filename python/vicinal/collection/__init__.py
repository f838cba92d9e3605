"""Documents with ids, text and metadata over an index, in a folder; needs no package but NumPy.

SQLite (`sqlite3` of the standard library) holds what is true, the index makes searches fast. Search
by words needs the extra `hybrid`. docs/guide/collection.md says how it is used.
"""

from __future__ import annotations

from vicinal.collection.collection import Collection
from vicinal.collection.documents import Document, Hit

__all__ = ["Collection", "Document", "Hit"]
