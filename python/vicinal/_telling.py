"""What an index tells about itself."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal import _validate, storage
from vicinal._cpu import native
from vicinal._quality import Quality
from vicinal._state import (
    BORROWED_BYTES,
    BUILD,
    BYTES,
    CODES,
    CODES_BYTES,
    COUNT,
    EF_SEARCH,
    EXACT_BELOW,
    FILTERED,
    GRAPH_BYTES,
    IDS_BYTES,
    IN_GRAPH,
    MAX_LEVEL,
    QUANTIZATION,
    REMOVED,
    SCRATCH_BYTES,
    SEARCHES,
    VECTORS_BYTES,
)

# Answers of native.index_check
_INVARIANTS = {
    1: "a row has more links than it may",
    2: "an empty slot stands before a used one",
    3: "a link leads to a row that is not there on its level",
    4: "a row links to itself",
    5: "a row links to another twice",
    6: "the tables of the upper levels are out of order",
    7: "the entry point is not a row of the highest level",
    8: "a row cannot be reached from the entry point",
    9: "rows without links are not as many as copies of other rows and freed rows",
    10: "a link leads to or from a row that was removed and freed",
    11: "copies of a row are not found through it, or do not hold the same",
}

_CODE_KINDS = (None, "u8", "sq8", "rabitq4")  # as native.index_info numbers them


# as native.index_info numbers them from FILTERED on
_WAYS_OF_FILTERING = ("scan", "beam", "two_hop", "scan_after_walk")

# likewise from SEARCHES on
_SEARCHES = ("queries", "walks", "scans", "distances", "hops")

# likewise from BUILD on
_PHASES = ("store", "encode", "sort", "search", "link_back", "fill", "repair")
_WORK = ("rows", "rounds", "distances", "hops", "selections", "prunes")


class Telling(Quality):
    """Properties, checks and statistics; safe at any time unless a docstring says otherwise."""

    __slots__ = ()

    @property
    def dim(self) -> int:
        """Dimension of the vectors."""
        return self._dim

    @property
    def metric(self) -> str:
        """Name of the distance: "l2", "ip" or "cosine"."""
        return self._metric

    @property
    def dtype(self) -> str:
        """What a value is stored as: "float32", "float16", "bfloat16", "int8" or "uint8"."""
        return self._dtype

    @property
    def M(self) -> int:
        """Links per row in the graph."""
        return self._M

    @property
    def ef_construction(self) -> int:
        """Candidates kept while a row is linked."""
        return self._ef_construction

    @property
    def seed(self) -> int:
        """What the graph's levels are drawn from."""
        return self._seed

    @property
    def read_only(self) -> bool:
        """True for an index opened with mode="r"."""
        return self._read_only

    @property
    def ef_search(self) -> int:
        """Search width of calls that give none, saved with the index; 64 unless set."""
        return self._ef_search

    @ef_search.setter
    def ef_search(self, value: int) -> None:
        self._ef_search = _validate.whole_number(value, "ef_search", 1, _validate.MAX_COUNT)

    @property
    def ids(self) -> NDArray[Any]:
        """Ids of all rows in their order, a new array of shape (len(self),).

        int64; string ids as an object array of `str`. Rows are in the order they were added, but
        that places of removed ones are used again.
        """
        return self._named(self._all_ids())

    def vectors(self, batch_size: int = 1024) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Go through all rows in the order of `ids`, a batch at a time.

        Parameters
        ----------
        batch_size : int
            Rows of a batch, at least 1; the last one has what is left.

        Yields
        ------
        ids : ndarray of shape (n,)
            As `ids` gives them.
        vectors : ndarray of shape (n, dim)
            As `get` gives them; new for every batch.

        Raises
        ------
        CorruptError
            As `ids`.

        Notes
        -----
        The rows are those that there are at the first batch; one that is gone when its batch comes
        is left out.
        Threads: safe at any time, also while vectors are added.
        """
        size = _validate.whole_number(batch_size, "batch_size", 1, _validate.MAX_COUNT)
        return self._batches(size)

    def _batches(self, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        ids = self._all_ids()
        dtype = _validate.STORED_DTYPES[self._dtype]
        for start in range(0, len(ids), size):
            batch = ids[start : start + size]
            out = np.empty((len(batch), self._dim), dtype)
            present = np.empty(len(batch), np.uint8)
            native.index_get_present(self._handle, batch, out, present)
            if not present.all():
                batch, out = batch[present != 0], out[present != 0]
            yield self._named(batch), out

    def __contains__(self, id: object) -> bool:
        if self._strings is not None:
            if not isinstance(id, str):
                raise TypeError(f"id: expected a string, got {reprlib.repr(id)}")
            return bool(self._rows(self._known([id])[0])[0] >= 0)
        number = _validate.as_id(id)
        return number is not None and self._rows(np.array([number], dtype=np.int64))[0] >= 0

    def __repr__(self) -> str:
        asked = _validate.QUANTIZATIONS[native.index_info(self._handle, QUANTIZATION)]
        others = ("" if asked == "auto" else f", quantization={asked!r}") + (
            "" if self._strings is None else ", ids='str'"
        )
        width = "" if self._ef_search == EF_SEARCH else f", ef_search {self._ef_search}"
        return (
            f"vicinal.Index(dim={self._dim}, metric={self._metric!r}, dtype={self._dtype!r}, "
            f"M={self._M}, ef_construction={self._ef_construction}, seed={self._seed}{others}) "
            f"with {len(self)} rows{width}{', read-only' if self._read_only else ''}"
        )

    def verify(self) -> None:
        """Compare every byte of the mapped file with the checksums in it.

        An index that is not read-only has its rows in memory, where there is nothing to compare.

        Raises
        ------
        CorruptError
            If the file is damaged.

        Notes
        -----
        Uses all cores and ends on Ctrl-C. Threads: safe at any time.
        """
        threads = _validate.thread_count(None)
        storage.call(
            lambda _, status: native.index_verify(self._handle, threads, status), self._path
        )

    def check(self) -> None:
        """Check what must hold of the graph; for tests and after a suspicion.

        Reads all links and rows, which takes about as long as a few thousand searches.

        Raises
        ------
        RuntimeError
            Naming the first rule that is broken.

        Notes
        -----
        Threads: waits for a writer; searches go on meanwhile.
        """
        with self._writing.held():
            code = native.index_check(self._handle)
        if code:
            rule = _INVARIANTS.get(code, f"rule {code}")
            raise RuntimeError(f"index: the graph is not as it must be: {rule}")

    def stats(self) -> dict[str, Any]:
        """Tell what the index is and how it answers.

        Returns
        -------
        dict
            `count` (rows), `dim`, `metric`, `dtype`, `M`, `ef_construction`, `ef_search`, `seed`,
            `read_only`; `search`, "exact" or "graph": how a search of the default width is
            answered now; `exact_below`, the number of rows from which on the graph is built;
            `graph_rows` and `max_level` of the graph; `removed`, rows that were removed and are not
            in use again, which `compact` gives back; `quantization`, what the graph is walked on,
            and `quantization_reason`, why; `ids`, "int64" or "str"; `tuned`, what `tune` has found,
            and `tuning_stale`, True if the number of rows has more than doubled or halved since one
            of these; `format_version`, that of the file `save` writes; and
            `filtered`, how many queries with a filter were answered since the index was made or
            opened by a `scan` of the allowed rows, by the usual `beam`, by a `two_hop` walk over
            allowed rows alone, and how many of those scans came after a walk (`scan_after_walk`).

        Notes
        -----
        Threads: safe at any time.
        """
        number = partial(native.index_info, self._handle)
        count, linked = number(COUNT), number(IN_GRAPH)
        return {
            "count": count,
            "dim": self._dim,
            "metric": self._metric,
            "dtype": self._dtype,
            "M": self._M,
            "ef_construction": self._ef_construction,
            "ef_search": self._ef_search,
            "seed": self._seed,
            "read_only": self._read_only,
            "search": "exact" if linked < count or count < number(EXACT_BELOW) else "graph",
            "exact_below": number(EXACT_BELOW),
            "graph_rows": linked,
            "max_level": number(MAX_LEVEL),
            "removed": number(REMOVED),
            "ids": "int64" if self._strings is None else "str",
            "tuned": self.tuned,
            "tuning_stale": any(tuning.stale(count) for tuning in self.tuned),
            "format_version": native.index_version(self._handle),
            "quantization": _CODE_KINDS[number(CODES)],
            "quantization_reason": self._quantization_reason(),
            "filtered": {name: number(FILTERED + i) for i, name in enumerate(_WAYS_OF_FILTERING)},
        }

    def search_stats(self) -> dict[str, int]:
        """Tell what searches of all kinds have done since the index was made or opened.

        Returns
        -------
        dict
            `queries` answered; `walks` on the graph and `scans` of rows begun for them (a query
            takes one of either, or more if too much of what it met is not to be shown); `distances`
            measured and `hops` made, those of additions among them.

        Notes
        -----
        Threads: safe at any time; searches under way may be counted in part.
        """
        number = partial(native.index_info, self._handle)
        return {name: number(SEARCHES + i) for i, name in enumerate(_SEARCHES)}

    def build_stats(self) -> dict[str, Any]:
        """Tell what changes of the index have done and taken since it was made or opened.

        Returns
        -------
        dict
            `rows` linked, in `rounds`; `distances` and `hops` of the walks that looked for
            neighbours, `selections` of links, `prunes` of full lists; and `seconds` by phase:
            "store" (rows are checked and copied), "encode" (codes are chosen, made, tried), "sort"
            (equal rows are told from others), "search" (rows find their links), "link_back" (those
            found link to them), "fill" (free slots are filled) and "repair" (links to rows that go
            are taken out, all others made reachable). Changes that were refused or stopped count.

        Notes
        -----
        Threads: safe at any time.
        """
        number = partial(native.index_info, self._handle)
        work = BUILD + len(_PHASES)
        return {
            **{name: number(work + i) for i, name in enumerate(_WORK)},
            "seconds": {name: number(BUILD + i) / 1e9 for i, name in enumerate(_PHASES)},
        }

    def _quantization_reason(self) -> str:
        """Say why the graph is walked on what it is walked on."""
        number = partial(native.index_info, self._handle)
        if number(IN_GRAPH) == 0:
            return "there is no graph yet"
        if number(QUANTIZATION) != 0:
            return "asked for"
        kind = _CODE_KINDS[number(CODES)]
        if kind == "u8":
            return "all values are whole numbers from 0 to 255, or stored as 8-bit integers"
        if self._dtype in ("int8", "uint8"):
            return "there are no exact codes for cosine"
        usual = None if self._dim < 32 else "sq8" if self._dim < 96 else "rabitq4"
        return f"floats of dimension {self._dim}" + (
            "" if kind == usual else f"; {usual} was too coarse for a sample of the rows"
        )

    def memory_usage(self) -> dict[str, int]:
        """Tell how many bytes the index holds, by part.

        Returns
        -------
        dict
            `vectors`, `ids` (with the table that finds them and, once something was removed, the
            marks of rows), `id_strings` (likewise; 0 for integer
            ids), `graph`, `codes` (what the graph is walked on), both with those that were replaced
            and are kept for searches under way, `scratch` (what searches and additions work with,
            kept for the next) and `total`, room to grow included;
            beside these `borrowed`: bytes of vectors that `add(copy=None)` or `copy=False` has left
            where the caller has them.
            For a read-only index these are parts of the file, of which the system keeps in memory
            what is used.

        Notes
        -----
        Threads: safe at any time.
        """
        number = partial(native.index_info, self._handle)
        return {
            "vectors": number(VECTORS_BYTES),
            "ids": number(IDS_BYTES),
            "id_strings": 0 if self._strings is None else self._strings.memory(),
            "graph": number(GRAPH_BYTES),
            "codes": number(CODES_BYTES),
            "scratch": number(SCRATCH_BYTES),
            "total": number(BYTES),
            "borrowed": number(BORROWED_BYTES),
        }
