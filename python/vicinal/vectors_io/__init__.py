"""Vectors from files and from other libraries, a batch at a time, and back into files.

`read_vectors` opens any source and tells its shape before anything is read; `build` and `Index.add`
take what it returns. NumPy is all that most formats need; Arrow and Parquet need the extra `arrow`,
HDF5 the extra `hdf5`. docs/guide/files.md has the table of formats.
"""

from __future__ import annotations

from vicinal.vectors_io._open import FORMATS, read_vectors
from vicinal.vectors_io._source import RowError, VectorSource
from vicinal.vectors_io._to_index import build
from vicinal.vectors_io._write import write_vectors

__all__ = ["FORMATS", "RowError", "VectorSource", "build", "read_vectors", "write_vectors"]
