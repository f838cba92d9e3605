"""Rows that are read where their owner has put them: an array of the caller serves as the column of vectors.

Nothing is ever written there. Before rows are to be written or to follow the last one, all of them are copied into memory of
the index; searches under way may go on in the array, so whoever lent it must keep it until `returnable`.
"""

from vicinal.index.vector_index import Index
from vicinal.index.vectors import OWN, BORROWED, GIVEN_UP
from vicinal.kernels.space import COSINE
from vicinal.kernels.stored_type import is_coded, is_float, item_bytes, row_stride
from vicinal.quantization.code_products import CODE_LINE
from vicinal.system.atomics import store_release
from vicinal.system.memory import Column, at
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Body, Team, Watch
from vicinal.system.pointer import copy_items

comptime FREE_TO_STAY = 0
comptime HAS_ROWS = 1
comptime UNIT_LENGTH = 2
comptime GAPS = 3
comptime CODES = 4
comptime PIECE = 1 << 20
"""Bytes that a worker copies at once."""


def must_copy(index: Index) -> Int:
    """Tells why the next rows of an index cannot stay where they are: FREE_TO_STAY if they can.

    HAS_ROWS: all rows lie in one piece. UNIT_LENGTH: float rows are changed for cosine. GAPS: long rows begin on cache lines.
    CODES: they are stored as codes alone.
    """
    if index.count != 0 or index.vectors.borrowed != OWN:
        return HAS_ROWS
    if is_coded(index.dtype):
        return CODES
    if index.metric == COSINE and is_float(index.dtype):
        return UNIT_LENGTH
    if row_stride(index.dim, index.dtype) != index.dim * item_bytes(index.dtype):
        return GAPS
    return FREE_TO_STAY


def borrow(mut index: Index, address: Int, rows: Int):
    """Makes rows at an address those of an index that has none.

    Preconditions:
        `must_copy(index)` is FREE_TO_STAY.

    Safety:
        The memory must stay as it is until `returnable`. No kernel reads behind the last row.
    """
    index.vectors.column = (
        Column()
    )  # an addition that was taken back may have left memory; nobody reads rows of an empty index
    index.vectors.column.view(address, rows * row_stride(index.dim, index.dtype))
    index.vectors.borrowed = BORROWED


def forget_borrowed(mut index: Index):
    """Takes `borrow` back; no row has shown meanwhile."""
    if index.vectors.borrowed == BORROWED and index.count == 0:
        index.vectors.column.view(0, 0)
        index.vectors.borrowed = OWN


@fieldwise_init
struct CopyBytes(Body):
    """Copies memory."""

    var source: Int
    var target: Int
    var bytes: Int

    def run(self, begin: Int, end: Int, worker: Int):
        """Copies pieces begin .. end-1."""
        var first = begin * PIECE
        copy_items(
            dest=at[UInt8](self.target + first),
            src=at[UInt8](self.source + first),
            count=min(end * PIECE, self.bytes) - first,
        )


def own_rows[V: Watch](mut index: Index, until: Int, team: Team, mut watch: V) -> Outcome:
    """Copies borrowed rows into memory of the index; searches may run meanwhile.

    Args:
        index: The index.
        until: Rows to make room for.
        team: Workers.
        watch: May end the work early.

    Returns:
        DONE, STOPPED or NO_MEMORY; the index is as it was unless DONE.
    """
    if index.vectors.borrowed != BORROWED:
        return DONE
    var own = Column()
    var bytes = index.vectors.column.usable
    if not own.grow(until * row_stride(index.dim, index.dtype) + CODE_LINE):
        return NO_MEMORY
    var copy = CopyBytes(index.vectors.column.address, own.address, bytes)
    if not team.run((bytes + PIECE - 1) // PIECE, 1, copy, watch):
        return STOPPED
    # rows behind these are announced later: who sees one of them sees the new address
    store_release(index.vectors.column.address, own.address)
    index.vectors.column.reserved = own.reserved
    index.vectors.column.usable = own.usable
    own.reserved = 0  # it is the index's now
    index.vectors.borrowed = GIVEN_UP
    index.vectors.on_disk = False
    index.vectors.lent_until = index.readers.retire()
    return DONE


def returnable(mut index: Index) -> Bool:
    """Tells, once, that no search reads given up rows any more.

    To be asked by a writer, or by somebody who keeps writers away.
    """
    if index.vectors.borrowed != GIVEN_UP or not index.readers.passed(index.vectors.lent_until):
        return False
    index.vectors.borrowed = OWN
    return True
