"""Answering the queries of one call: all are checked, then threads share them."""
from vicinal.exact.flat import search_exact
from vicinal.exact.request import SearchRequest
from vicinal.exact.scan import RowSource
from vicinal.index.snapshot import WIDE, Snapshot
from vicinal.index.vector_index import Index
from vicinal.kernels.in_space import SpaceTask, in_space
from vicinal.kernels.space import Space
from vicinal.search.answer import PIECE, Answer, refused
from vicinal.search.stored_space import StoredSpace
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import Ptr, allocate, missing, no_block, release
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Team, Watch
from vicinal.walk.interleaved import (
    DISK_SEARCHES,
    MEMORY_SEARCHES,
    MOST_SEARCHES,
    walks_in_flight,
)
from vicinal.walk.scratch import Scratch, any_failed

comptime TILED = 8
"""From so many queries on, a scan of all rows measures several rows and queries together."""
comptime SCAN_WORK = 1 << 24
"""Products of a scan, a few milliseconds of them, from which on its rows are cut into pieces between which the watch is asked."""
comptime THREAD_WORK = 1 << 21
"""Products that are worth a thread of their own."""
comptime SCAN_BYTES = 64 << 20
"""Scratch of such a scan."""

comptime ExactSearch[V: Watch] = def(
    RowSource, Bool, SearchRequest, Team, Int, mut V
) thin -> Outcome
"""`search_exact` of some space."""


@fieldwise_init
struct SearchMany[V: Watch](SpaceTask):
    """Checks all queries, then answers them."""

    var index: Ptr[Index]
    var request: SearchRequest
    var watch: Ptr[Self.V]
    var status: Outcome

    def run[S: Space](mut self):
        """Does it in one space."""
        self.answer(StoredSpace.of[S](), search_exact[S, Self.V])

    def answer(mut self, stored: StoredSpace, scan: ExactSearch[Self.V]):
        """Does it in a space of which functions are given."""
        ref index = self.index[]
        self.status = refused(stored, self.request, index.dim)
        if self.status != DONE:
            return
        if (self.request.count >= TILED or self.is_long()) and self.scan_all(scan):
            return
        var team = Team(min(self.request.threads, (self.request.count + PIECE - 1) // PIECE))
        var lanes = 1
        if self.request.count > 1:
            var pinned = index.readers.claim()  # what is walked on must not be freed meanwhile
            if missing(pinned):
                self.status = NO_MEMORY
                return
            lanes = DISK_SEARCHES if index.vectors.on_disk else walks_in_flight(
                index.walked_bytes(), MEMORY_SEARCHES
            )
            lanes = min(lanes, self.request.count)
            index.readers.release(pinned)
        var few = Array[Ptr[Scratch], MOST_SEARCHES](  # a list of no more needs no allocation
            fill=no_block[Scratch]()
        )
        var scratches = Ptr(
            Pointer(to=few).unsafe_bitcast[Ptr[Scratch]]().unsafe_origin_cast[MutUntrackedOrigin]()
        )
        if team.size() * lanes > MOST_SEARCHES:
            scratches = allocate[Ptr[Scratch]](team.size() * lanes)
        # the first of a worker pins what the others are at as well
        if index.readers.claim_many(scratches, team.size() * lanes, lanes):
            var answer = Answer(
                self.index,
                stored,
                self.request,
                scratches,
                lanes,
            )
            if not team.run(self.request.count, PIECE, answer, self.watch[]):
                self.status = STOPPED
            elif any_failed(scratches, team.size() * lanes):
                self.status = NO_MEMORY
            index.readers.release_many(scratches, team.size() * lanes)
        else:
            self.status = NO_MEMORY
        if team.size() * lanes > MOST_SEARCHES:
            release(scratches)
        _ = few

    @always_inline
    def is_long(self) -> Bool:
        """Tells whether the queries look as if to scan for them took long; a snapshot decides whether they are scanned for.
        """
        ref index = self.index[]
        if self.request.count * load_acquire(index.count) * index.dim < SCAN_WORK:
            return False
        var live = index.live()
        return live < index.exact_below or max(self.request.k, self.request.ef) * WIDE >= live

    def scan_all(mut self, scan: ExactSearch[Self.V]) -> Bool:
        """Measures all rows for many queries at once; returns False if a search of this width makes walks.
        """
        ref index = self.index[]
        var scratch = index.readers.claim()
        if missing(scratch):
            self.status = NO_MEMORY
            return True
        var snapshot = index.snapshot()
        var scans = snapshot.exact(max(self.request.k, self.request.ef))
        if scans:
            self.scan_snapshot(snapshot, scan)
            scratch[].queries += self.request.count
            scratch[].scans += self.request.count
            scratch[].distances += self.request.count * snapshot.live
        index.readers.release(scratch)
        return scans

    def scan_snapshot(mut self, snapshot: Snapshot, scan: ExactSearch[Self.V]):
        """Measures all rows of a snapshot."""
        ref index = self.index[]
        var rows = snapshot.visible.bound
        var team = Team(
            min(self.request.threads, 1 + rows * index.dim * self.request.count // THREAD_WORK)
        )
        self.status = scan(
            RowSource(snapshot.rows, snapshot.rows_on_disk, snapshot.visible),
            False,
            self.request,
            team,
            SCAN_BYTES,
            self.watch[],
        )
        if self.status != DONE or rows == 0:
            return
        var known = index.ids.column.ptr[Int64]()
        for i in range(self.request.count * self.request.k):
            var row = self.request.ids[unsafe_offset=i]
            if row >= 0:
                self.request.ids[unsafe_offset=i] = known[unsafe_offset=Int(row)]


def search_many[V: Watch](mut index: Index, request: SearchRequest, mut watch: V) -> Outcome:
    """Finds the k nearest rows of each query.

    Args:
        index: The index; any number of searches and one writer may use it at once.
        request: What is asked.
        watch: May end the call early.

    Returns:
        DONE, STOPPED, NO_MEMORY, or the refusal of a query.
    """
    var task = SearchMany[V](
        Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
        request,
        Pointer(to=watch).unsafe_origin_cast[MutUntrackedOrigin](),
        DONE,
    )
    in_space(index.metric, index.dtype, task)
    return task.status
