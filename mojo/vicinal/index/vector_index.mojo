"""The index: owns the parts, knows its rows by number and by id; nothing clever."""
from std.atomic import Ordering, fence

from vicinal.construct.build_statistics import BuildStatistics
from vicinal.graph.links import Graph, drop_graphs, graph_on_heap
from vicinal.index.filter_statistics import FilterStatistics
from vicinal.index.header import IndexFile
from vicinal.index.ids import Ids
from vicinal.index.notes import Notes
from vicinal.index.snapshot import Snapshot
from vicinal.index.vectors import Vectors
from vicinal.kernels.space import COSINE, Rows
from vicinal.kernels.stored_type import is_float, row_stride
from vicinal.quantization.code_table import (
    NO_CODES,
    Codes,
    codes_on_heap,
    drop_all_codes,
    drop_codes,
)
from vicinal.rows.duplicates import Duplicates
from vicinal.rows.leaving import Leaving
from vicinal.rows.unlinked import Unlinked
from vicinal.rows.visibility import RowStates
from vicinal.system.atomics import store_release, store_release_at, load_acquire, load_acquire_at
from vicinal.system.memory import Ptr, allocate, at, missing, release
from vicinal.system.pages import PageUse
from vicinal.walk.readers import Readers

comptime EXACT_BELOW = 1000
"""Rows from which on the graph pays, and is built, unless a caller says otherwise.

One query at a time, the graph (ef 64) overtook a scan between 500 and 1,300 rows on three real
sets (d 784, 384, 128), and at 1,000 rows was 3.8, 1.5 and 0.8 times as fast.
"""
comptime LEAST_CANDIDATES = 64
"""Candidates that a walk for links keeps at least, whatever `ef_construction` says, and as many as M: with fewer, clusters came apart
(recall@10 .959 instead of 1 at M = 8, ef_construction = 40)."""


struct Index(Movable):
    """Vectors, ids and graph. One writer at a time; searches may run beside it."""

    var metric: Int
    var dtype: Int
    var dim: Int
    var ef_construction: Int
    var seed: Int
    var exact_below: Int
    """The graph is built once there are this many rows; until then search is exact."""
    var count: Int
    """Rows that searches look at, removed ones included."""
    var states: RowStates
    """Which of them are removed."""
    var vectors: Vectors
    """The stored rows."""
    var ids: Ids
    """Their ids."""
    var notes: Notes
    """What the caller wants to be kept in files."""
    var graph: Ptr[Graph]
    """The links that writers work on; not yet those of searches while a graph is made for the first time or anew."""
    var searched: Ptr[Graph]
    """The links that searches walk on."""
    var quantization: Int
    """What the user asked to walk on: `coding.AUTO`, or 1 + a kind of codes."""
    var walk_dim: Int
    """Elements of a row that walks are to look at, the first ones, by estimating codes of them; 0 for all. Set before there are rows.
    """
    var codes: Ptr[Codes]
    """What searches walk on; of kind NO_CODES until the graph is built."""
    var duplicates: Duplicates
    """Rows of the graph's range that hold the same as earlier ones, and are found through those."""
    var unrepaired: Int
    """Rows linked since all rows were last made reachable."""
    var mended: Int
    """Rows taken out of the graph since all rows were last linked anew, less those added since."""
    var replaced_links: Int
    """Bytes of links that were replaced and are kept for searches."""
    var replaced_codes: Int
    """The same of codes."""
    var changes: Int
    """Changes that took effect in this process."""
    var committed: Int64
    """The epoch that ended when the last change took effect: searches that began in it or before may see what was before."""
    var unlinked: Unlinked
    """Removed rows that nothing leads to any more, which searches may be at still."""
    var leaving: Leaving
    """Removed rows that links are being led past."""
    var leftovers: Bool
    """Whether rows are pending that have no links: a first graph has left them out, or their addition was refused while a
    search was at them."""
    var waited_for: Int64
    """The epoch that a writer waited for last; in vain if it has not passed: nobody waits for it a second time."""
    var moved: Int64
    """The epoch in which searches may have begun to read where columns have moved out since."""
    var moved_mark: Int
    """What tells which have, see `free_retired`; 0 if none has."""
    var readers: Readers
    var filter_statistics: FilterStatistics
    var build_statistics: BuildStatistics
    var file: Int
    """Address of the `IndexFile` that the columns are views of, 0 if they are the index's own memory."""
    var locked: Int
    """Bytes of the file that the system keeps in memory for certain."""
    var copied: Int
    """Bytes of the file that were copied into memory of the index, since they could not be locked."""

    def __init__(
        out self,
        metric: Int,
        dtype: Int,
        dim: Int,
        M: Int,
        ef_construction: Int,
        seed: Int,
        exact_below: Int,
        quantization: Int,
    ):
        """Makes an empty index."""
        self.metric = metric
        self.dtype = dtype
        self.dim = dim
        self.ef_construction = ef_construction
        self.seed = seed
        self.exact_below = exact_below
        self.count = 0
        self.states = RowStates()
        self.vectors = Vectors()
        self.ids = Ids()
        self.notes = Notes()
        self.graph = graph_on_heap(M)
        self.searched = self.graph
        self.quantization = quantization
        self.walk_dim = 0
        self.codes = codes_on_heap(NO_CODES, metric, dtype, 1, 0)
        self.duplicates = Duplicates()
        self.unrepaired = 0
        self.mended = 0
        self.replaced_links = 0
        self.replaced_codes = 0
        self.changes = 0
        self.committed = 0
        self.unlinked = Unlinked()
        self.leaving = Leaving()
        self.leftovers = False
        self.waited_for = 0
        self.moved = 0
        self.moved_mark = 0
        self.readers = Readers()
        self.filter_statistics = FilterStatistics()
        self.build_statistics = BuildStatistics()
        self.file = 0
        self.locked = 0
        self.copied = 0

    def __deinit__(deinit self):
        drop_all_codes(Int(self.codes))
        drop_graphs(Int(self.graph))
        if self.file != 0:
            var mapped = at[IndexFile](self.file)
            mapped.unsafe_deinit_pointee()
            release(mapped)

    def keep_file(mut self, var mapped: IndexFile) -> Bool:
        """Takes over the map that the columns are views of; the index is read-only from now on. Returns False when memory is out: then
        it is of no use.
        """
        var kept = allocate[IndexFile](1)
        if missing(kept):
            return False
        kept.unsafe_write(mapped^)
        self.file = Int(kept)
        return True

    def failed(self) -> Bool:
        """Tells whether memory was refused when the index was made: then it is of no use."""
        return (
            missing(self.codes)
            or self.filter_statistics.failed()
            or self.build_statistics.failed()
            or missing(self.graph)
            or self.readers.failed()
        )

    @always_inline
    def has_norms(self) -> Bool:
        """Tells whether rows carry reciprocal norms."""
        return self.metric == COSINE and not is_float(self.dtype)

    @always_inline
    def rows(self) -> Rows:
        """Returns the rows as kernels see them."""
        return self.vectors.rows(self.dim, self.dtype)

    def row_pages(self) -> PageUse:
        """Returns what whoever reads many rows does about their pages."""
        return self.vectors.pages(self.count * row_stride(self.dim, self.dtype))

    @always_inline
    def snapshot(self) -> Snapshot:
        """Takes a snapshot of the index as it is now.

        The moment is read before and after all that goes with it, and all again if a change took effect in between. The rows that
        are linked are read before the address of the rows: those that come later may lie elsewhere.

        Safety:
            The caller has claimed a scratch, which is pinned, or keeps writers away.
        """
        while True:
            var moment = self.states.now()
            var live = self.states.live_at(moment)
            var graph = load_acquire_at(self.searched)
            var linked = load_acquire(graph[].linked) if load_acquire(graph[].entry) >= 0 else 0
            var codes = load_acquire_at(self.codes)
            var coded = load_acquire(codes[].count)
            var rows = self.rows()
            var visible = self.states.visibility(moment)
            fence[Ordering.ACQUIRE]()
            if self.states.now() == moment:
                return Snapshot(
                    visible,
                    live,
                    graph,
                    linked,
                    codes,
                    coded,
                    rows,
                    self.vectors.on_disk,
                    self.vectors.row_file,
                    self.exact_below,
                )

    def walked_row_bytes(self) -> Int:
        """Returns the bytes of what a search measures of a row: its code, or the stored row."""
        ref codes = load_acquire_at(self.codes)[]
        if codes.kind != NO_CODES and not codes.in_place():
            return codes.stride
        return row_stride(self.dim, self.dtype)

    @always_inline
    def live(self) -> Int:
        """Returns how many rows there are, removed ones left out."""
        return Int(self.states.live_at(self.states.now()))

    def candidates(self) -> Int:
        """Returns how many candidates walks for links keep."""
        return max(self.ef_construction, self.graph[].M, LEAST_CANDIDATES)

    def num_in_graph(self) -> Int:
        """Returns how many rows take part in the graph."""
        if self.graph[].linked == 0:
            return 0
        return (
            self.graph[].linked - self.duplicates.count - self.states.free() - self.unlinked.count
        )

    def count_invisible(mut self):
        """Tells searches how many rows they may meet but not show, while no change is under way."""
        store_release(
            self.states.shaded,
            self.states.pending - self.unlinked.count + self.states.holding,
        )

    def wait_for(mut self, epoch: Int64, patience: Int) -> Bool:
        """Waits for the searches that began in an epoch or before, unless a wait for one of them has been in vain.

        The GIL must not be held.

        Returns:
            Whether none is left.
        """
        if self.readers.passed(epoch):
            return True
        if not self.readers.passed(self.waited_for):
            return False
        self.waited_for = epoch
        return self.readers.wait(epoch, patience)

    def walked_bytes(self) -> Int:
        """Returns the bytes of what a search walks on: links of level 0, and codes or rows."""
        ref graph = load_acquire_at(self.searched)[]  # writers may give up theirs at any time
        return load_acquire(graph.linked) * (self.walked_row_bytes() + graph.slots_at(0) * 4)

    def bytes(self) -> Int:
        """Returns the bytes of memory that everything by the row takes."""
        return (
            self.vectors.owned_bytes()
            + self.vectors.norms.memory()
            + self.ids.memory()
            + self.graph_bytes()
            + self.duplicates.bytes()
            + self.code_bytes()
            + self.states.bytes.memory()
            + self.states.stamps.memory()
            + self.readers.bytes()
        )

    def graph_bytes(self) -> Int:
        """Returns the bytes of all links, replaced ones that searches may be on still included; safe beside a writer.
        """
        var pinned = self.readers.claim()
        var sum = load_acquire(self.replaced_links) + load_acquire_at(self.searched)[].bytes()
        if not missing(pinned):
            self.readers.release(pinned)
        return sum

    def code_bytes(self) -> Int:
        """Returns the bytes of all codes, replaced ones that searches may be on still included; safe beside a writer.
        """
        var pinned = self.readers.claim()
        var sum = load_acquire(self.replaced_codes) + load_acquire_at(self.codes)[].memory()
        if not missing(pinned):
            self.readers.release(pinned)
        return sum

    def use_codes(mut self, codes: Ptr[Codes]):
        """Lets searches walk on other codes; those before stay until no search is on them."""
        codes[].older = Int(self.codes)
        store_release_at(self.codes, codes)
        at[Codes](codes[].older)[].retired = self.readers.retire()
        self._count_replaced()

    def give_up_codes(mut self):
        """Goes back to the codes before."""
        var given_up = self.codes
        var before = at[Codes](given_up[].older)
        store_release_at(self.codes, before)
        given_up[].retired = self.readers.retire()
        # behind those that stay: from now on it is one of the replaced ones
        given_up[].older = before[].older
        before[].older = Int(given_up)
        self._count_replaced()

    def use_graph(mut self):
        """Lets searches walk on the links that writers have made; those before stay until no search is on them.
        """
        if Int(self.searched) == Int(self.graph):
            return
        store_release_at(self.searched, self.graph)
        at[Graph](self.graph[].older)[].retired = self.readers.retire()
        self._count_replaced()

    def new_graph(mut self, var graph: Graph) -> Bool:
        """Gives writers other links to work on, which searches do not see until `use_graph`; returns False when memory is out.
        """
        var place = allocate[Graph](1)
        if missing(place):
            return False
        place.unsafe_write(graph^)
        place[].older = Int(self.graph)
        self.graph = place
        return True

    def give_up_graph(mut self):
        """Goes back to the links before; no search has seen the others."""
        if Int(self.searched) == Int(self.graph):
            return
        var given_up = self.graph
        given_up[].older = 0
        self.graph = self.searched
        drop_graphs(Int(given_up))

    def free_retired(mut self):
        """Frees memory that columns have moved out of, once no search that began before is left; for writers, before and after
        changes.
        """
        var mark = self._retired_mark()
        if mark != self.moved_mark:  # some have moved since the last call
            self.moved_mark = mark
            self.moved = self.readers.retire()
        elif mark != 0 and self.readers.passed(self.moved):
            self.moved_mark = 0
            self.vectors.free_retired()
            self.ids.free_retired()
            self.duplicates.next.free_retired()
            self.states.bytes.free_retired()
            self.states.stamps.free_retired()
            self.graph[].free_retired()
            self.codes[].free_retired()

    def _retired_mark(self) -> Int:
        """Returns a number that changes when a column moves, 0 if none has."""
        return (
            self.vectors.retired_mark()
            + self.ids.retired_mark()
            + self.duplicates.next.retired
            + self.states.bytes.retired
            + self.states.stamps.retired
            + self.graph[].retired_mark()
            + self.codes[].bytes.retired
            + self.codes[].constants.retired
        )

    def free_replaced(mut self):
        """Frees replaced codes and links that no search is on any more."""
        var address = Int(self.codes)
        while at[Codes](address)[].older != 0:
            ref codes = at[Codes](address)[]
            if self.readers.passed(at[Codes](codes.older)[].retired):
                var gone = codes.older
                codes.older = at[Codes](gone)[].older
                drop_codes(at[Codes](gone))
            else:
                address = codes.older
        address = Int(self.graph)
        while at[Graph](address)[].older != 0:
            ref graph = at[Graph](address)[]
            if self.readers.passed(at[Graph](graph.older)[].retired):
                drop_graphs(graph.older)  # those before are older still
                graph.older = 0
            else:
                address = graph.older
        self._count_replaced()

    def _count_replaced(mut self):
        """Counts the bytes of what was replaced and is kept."""
        var links = 0
        var address = self.graph[].older
        while address != 0:
            links += at[Graph](address)[].bytes()
            address = at[Graph](address)[].older
        var codes = 0
        address = self.codes[].older
        while address != 0:
            codes += at[Codes](address)[].memory()
            address = at[Codes](address)[].older
        store_release(self.replaced_links, links)
        store_release(self.replaced_codes, codes)

    def forgotten_id(self) -> Int64:
        """Returns the largest id that a row ever had if the rows that are there do not tell the next automatic one, else -1.
        """
        return self.ids.forgotten_id(self.count, self.live(), self.states)

    def row_of(mut self, id: Int64) -> Int:
        """Returns the row of an id, or -1; `know_ids` of `first_use` must have made the table."""
        return self.ids.row_of(id, self.count, self.states)
