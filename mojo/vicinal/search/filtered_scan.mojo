"""Scans of the rows that a filter allows, and the copies of rows found."""
from std.bit import count_trailing_zeros
from std.memory import pack_bits

from vicinal.kernels.any_distance import AnyDistance
from vicinal.kernels.candidates import EMPTY_ENTRY, LANES, Candidates, entry_of, key_of, node_of
from vicinal.kernels.space import Query, Rows, prefetch_measured, prefetch_row
from vicinal.quantization.estimate_error import EstimateError
from vicinal.rows.duplicates import Duplicates
from vicinal.search.filter import LISTED_AT_ONCE, SCAN, WORD, Filter, list_bits
from vicinal.system.memory import Ptr
from vicinal.walk.ask import ask_for_rows
from vicinal.walk.scratch import HOP_ROOM, Scratch

comptime AHEAD = 32
"""Rows that are asked for before they are measured: a scan waits for nothing else than memory."""
comptime ASKED_AT_ONCE = 256
"""Rows on disk that a scan of listed ones asks for before it measures them."""


trait Scanner(TrivialRegisterPassable):
    """Measures rows and keeps the nearest."""

    def scan(self, listed: Ptr[UInt32], count: Int, mut nearest: Candidates):
        """Measures some rows."""
        ...


@fieldwise_init
struct EachRow(Scanner):
    """Measures every row."""

    var rows: Rows
    """Rows that `AnyDistance` measures."""
    var query: Query
    var scratch: Ptr[Scratch]
    """Tells whether the rows are on disk, and counts."""

    def scan(self, listed: Ptr[UInt32], count: Int, mut nearest: Candidates):
        """Measures some rows."""
        var on_disk = self.scratch[].disk == self.rows.base
        for begin in range(0, count, ASKED_AT_ONCE):
            var some = min(ASKED_AT_ONCE, count - begin)
            var here = listed.unsafe_offset(begin)
            if on_disk:
                ask_for_rows(self.rows, self.scratch[], here, some)
            var entries = self.scratch[].unvisited
            measure_listed(self.query, self.rows, here, some, entries)
            for i in range(0, some, LANES):
                var better = entries.unsafe_load[width=LANES](i).lt(
                    SIMD[DType.int64, LANES](nearest.worst())
                )
                var mask = Int(pack_bits(better)) & ((1 << min(some - i, LANES)) - 1)
                while mask != 0:
                    var entry = entries[unsafe_offset=i + Int(count_trailing_zeros(mask))]
                    mask &= mask - 1
                    if entry < nearest.worst():
                        nearest.insert(entry)


@always_inline
def measure_listed(query: Query, rows: Rows, listed: Ptr[UInt32], count: Int, entries: Ptr[Int64]):
    """Makes entries of some rows."""
    var constants = AnyDistance.constants(rows)
    for i in range(min(AHEAD, count)):
        prefetch_measured(rows, constants, Int(listed[unsafe_offset=i]))
    for i in range(count):
        entries[unsafe_offset=i] = Int64(listed[unsafe_offset=i])
    AnyDistance.measure(query, rows, entries, count, AHEAD)


def scan_allowed[
    F: Scanner
](scanner: F, filter: Filter, piece: Ptr[UInt32], mut nearest: Candidates):
    """Measures all allowed rows.

    Args:
        scanner: What measures.
        filter: The rows allowed.
        piece: Room for HOP_ROOM rows.
        nearest: Receives the nearest.
    """
    if filter.plan == SCAN:
        scanner.scan(filter.listed, filter.num_listed, nearest)
        nearest.arrange()
        return
    # listed bit by bit: a walk was to have done it
    var count = 0
    for i in range(filter.rows // WORD + 1):
        var bits = filter.words[unsafe_offset=i]
        count = list_bits(bits, i * WORD, piece, count)
        if count > HOP_ROOM - WORD - LISTED_AT_ONCE:
            scanner.scan(piece, count, nearest)
            count = 0
    scanner.scan(piece, count, nearest)
    nearest.arrange()


def expand_allowed(
    duplicates: Duplicates, filter: Filter, found: Candidates, mut into: Candidates, kept: Int
):
    """Puts the allowed ones of rows that a walk has found, and of their copies, into another buffer.
    """
    into.reset(kept)
    var known = duplicates.known()
    var left = known  # all rings together have no more, but those of a damaged file may have no end
    for i in range(found.size):
        var entry = found.entries[unsafe_offset=i] & ~1
        if entry >= into.worst():
            break
        if filter.has(node_of(entry)):
            into.insert(entry)
        var last = duplicates.last_of(node_of(entry), known)
        var copy = duplicates.first_of(last, known)
        while copy >= 0 and left > 0:
            left -= 1
            var other = entry_of(key_of(entry), copy)
            if other >= into.worst():
                break
            if copy < filter.rows and filter.has(copy):
                into.insert(other)
            copy = duplicates.after(copy, last, known)
    into.arrange()


@fieldwise_init
struct WithinLimit(Scanner):
    """Measures exactly those rows whose estimate does not rule them out; the k nearest are kept. `AnyDistance` measures both.
    """

    var stored: Rows
    var query: Query
    var coded: Rows
    var prepared: Query
    var error: EstimateError
    var scratch: Ptr[Scratch]
    """Room for entries."""

    def scan(self, listed: Ptr[UInt32], count: Int, mut nearest: Candidates):
        """Measures some rows."""
        var entries = self.scratch[].unvisited
        for begin in range(0, count, AHEAD):
            var some = min(AHEAD, count - begin)
            measure_listed(self.prepared, self.coded, listed.unsafe_offset(begin), some, entries)
            var limit = Int32.MAX
            if nearest.worst() != EMPTY_ENTRY:
                limit = self.error.limit(key_of(nearest.worst()))
            # rows that are not ruled out are collected first, so that they come from memory side by side
            var open = 0
            for i in range(some):
                var entry = entries[unsafe_offset=i]
                if key_of(entry) <= limit:
                    prefetch_row(self.stored, node_of(entry))
                    entries[unsafe_offset=open] = Int64(node_of(entry))
                    open += 1
            AnyDistance.measure(self.query, self.stored, entries, open, open)
            for i in range(open):
                if entries[unsafe_offset=i] < nearest.worst():
                    nearest.insert(entries[unsafe_offset=i])
