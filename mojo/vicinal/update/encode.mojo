"""Codes for rows that come, and other codes for all rows if the data want them."""
from vicinal.index.vector_index import Index
from vicinal.kernels.in_space import SpaceTask, in_space
from vicinal.kernels.space import Space
from vicinal.kernels.stored_type import is_float
from vicinal.quantization.choice import (
    AUTO,
    FIT,
    UNKNOWN,
    all_bytes,
    check_due,
    choose_kind,
    encode_rows,
    estimates_fit,
    finer,
    new_codes,
)
from vicinal.quantization.code_table import U8, drop_codes
from vicinal.rows.row_targets import TargetRows
from vicinal.system.memory import Ptr, missing
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome
from vicinal.system.parallel import Team, Watch


def encode[
    V: Watch
](
    mut index: Index, places: TargetRows, added: Int, until: Int, team: Team, mut watch: V
) -> Outcome:
    """Encodes new rows, and all rows anew if they make other codes the right ones.

    An index that was just opened does not know whether its estimates are good enough: then it is found out, also without new rows.

    Args:
        index: The index; searches may run meanwhile.
        places: Where the new rows are.
        added: Their number.
        until: Rows of the index, new ones included.
        team: Workers.
        watch: May end the work early.

    Returns:
        DONE, STOPPED or NO_MEMORY; the codes are those from before unless DONE.
    """
    var task = _Encode[V](
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        places,
        added,
        until,
        Pointer(to=team).unsafe_mut_cast[True]().unsafe_origin_cast[MutUntrackedOrigin](),
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        NO_MEMORY,
    )
    in_space(index.metric, index.dtype, task)
    return task.outcome


@fieldwise_init
struct _Encode[V: Watch](SpaceTask):
    var index: Ptr[Index]
    var places: TargetRows
    var added: Int
    var until: Int
    var team: Ptr[Team]
    var watch: Ptr[Self.V]
    var outcome: Outcome

    def run[S: Space](mut self):
        self.outcome = _encode[S](
            self.index[], self.places, self.added, self.until, self.team[], self.watch[]
        )


def _encode[
    S: Space, V: Watch
](
    mut index: Index, places: TargetRows, added: Int, until: Int, team: Team, mut watch: V
) -> Outcome:
    var first_time = index.graph[].linked == 0
    var kind = index.codes[].kind
    var bytes_only: Bool
    if first_time:
        bytes_only = all_bytes[S](
            index.rows(), TargetRows.from_row(0), until, team, watch, index.row_pages()
        )
    else:
        bytes_only = kind == U8 and all_bytes[S](index.rows(), places, added, team, watch)
    var codes = index.codes
    # of rows written over it is not known any more whether their estimates are good enough
    codes[].checked = max(codes[].checked - places.listed, 0)
    if first_time or (kind == U8 and is_float(index.dtype) and not bytes_only):
        kind = choose_kind(
            index.quantization, index.metric, index.dtype, index.dim, bytes_only, index.walk_dim
        )
        codes = new_codes[S](
            kind,
            index.dtype,
            index.rows(),
            index.states.address(),
            until,
            index.seed,
            index.row_pages(),
            index.walk_dim,
        )
    while True:
        if missing(codes):
            return NO_MEMORY
        var outcome = encode_rows[S](
            codes, index.rows(), places.listed_only(), until, team, watch, index.row_pages()
        )
        if outcome != DONE:
            if codes != index.codes:
                drop_codes(codes)
            return outcome
        if not check_due(codes[], until):
            break
        var verdict = estimates_fit[S](
            codes[],
            index.rows(),
            index.states.address(),
            0 if places.listed != 0 else codes[].checked,
            until,
            index.row_pages(),
        )
        if verdict == UNKNOWN:
            if codes != index.codes:
                drop_codes(codes)
            return NO_MEMORY
        codes[].fit = verdict == FIT
        if codes[].fit or index.quantization != AUTO or index.walk_dim != 0:
            codes[].checked = until
            break
        # first the same kind around a new centre, then a finer kind
        if codes != index.codes:
            drop_codes(codes)
            kind = finer(kind)
        codes = new_codes[S](
            kind,
            index.dtype,
            index.rows(),
            index.states.address(),
            until,
            index.seed,
            index.row_pages(),
            index.walk_dim,
        )
    if codes != index.codes:
        index.use_codes(codes)
    return DONE
