"""A search told step by step: the same walk as in `query`, with a note of every hop written down in between."""
from std.memory import bitcast

from vicinal.exact.request import SearchRequest
from vicinal.index.snapshot import Snapshot
from vicinal.index.vector_index import Index
from vicinal.kernels.any_distance import AnyDistance
from vicinal.kernels.candidates import EMPTY_ENTRY, entry_of, key_of, node_of
from vicinal.kernels.space import COSINE, IP, float_of_key
from vicinal.quantization.code_table import Codes
from vicinal.search.answer import Answer, PlainSearches
from vicinal.search.stored_space import ON_ROWS, StoredSpace, estimates, measured
from vicinal.system.atomics import load_acquire
from vicinal.system.memory import Ptr, allocate, at, missing, release
from vicinal.system.outcome import DONE, FINE, NO_MEMORY, Outcome
from vicinal.system.pointer import copy_items
from vicinal.walk.beam_search import BeamSearch
from vicinal.walk.scratch import Scratch

comptime SCAN = 0
"""All rows were measured."""
comptime WALK = 1
"""The graph was walked."""
comptime HEADER = 7
"""Words before the first note."""
comptime NOTE = 3
"""Words of a note before its rows."""
comptime ROW = 3
"""Words of a row: its entry as the beam orders it, its id, the bits of its distance."""


struct Log(Movable):
    """Words that were written down.

    First come SCAN or WALK, 1 if distances are estimates, how many candidates are expanded, how many are kept, the rows that
    the search knew, how many were measured again at the end, and the bits of the factor of distance beyond which the walk may
    end, 0 if it goes to its end. Then a note for every step: the level, the number of rows that were measured, the largest
    entry that may become a candidate, the row that was expanded, and those measured.
    """

    var words: Ptr[Int64]
    var size: Int
    """Words written."""
    var room: Int
    """Words allocated."""
    var failed: Bool
    """Whether memory was refused: words are missing."""

    def __init__(out self):
        """Makes an empty log."""
        self.words = allocate[Int64](1024)
        self.size = 0
        self.room = 1024
        self.failed = missing(self.words)

    def __deinit__(deinit self):
        release(self.words)

    def put(mut self, word: Int64):
        """Writes a word behind those before."""
        if self.failed:
            return
        if self.size == self.room:
            var words = allocate[Int64](2 * self.room)
            if missing(words):
                self.failed = True
                return
            copy_items(dest=words, src=self.words, count=self.size)
            release(self.words)
            self.words = words
            self.room *= 2
        self.words[unsafe_offset=self.size] = word
        self.size += 1

    def set(self, place: Int, word: Int64):
        """Writes over a word."""
        if not self.failed:
            self.words[unsafe_offset=place] = word

    def begin(mut self, kind: Int, estimated: Bool, width: Int, kept: Int, known: Int):
        """Forgets everything and writes what comes first."""
        self.size = 0
        self.put(Int64(kind))
        self.put(Int64(Int(estimated)))
        self.put(Int64(width))
        self.put(Int64(kept))
        self.put(Int64(known))
        self.put(0)
        self.put(0)

    def note(mut self, level: Int, count: Int, bound: Int64 = EMPTY_ENTRY):
        """Begins the note of a step."""
        self.put(Int64(level))
        self.put(Int64(count))
        self.put(bound)


@fieldwise_init
struct Scale(TrivialRegisterPassable):
    """Distances of the keys of one walk."""

    var stored: StoredSpace
    var way: Int
    """What was walked on."""
    var shift: Float32
    """What estimates leave out because it is the same for all rows."""

    def distance(self, key: Int32) -> Float32:
        """Returns the distance that a key stands for, on the scale of results."""
        if not estimates(self.way):
            return self.stored.value_on(self.way)(key)
        var value = float_of_key(key) + self.shift
        if self.stored.metric == IP:
            return 1 + value
        if self.stored.metric == COSINE:  # rows and query have unit length: half of l2
            return value / 2
        return value


def shift_of(metric: Int, codes: Codes, query: Ptr[Float32], dim: Int) -> Float32:
    """Returns what the estimated distances of a query leave out: |q - c|**2, for ip -<c, q>."""
    var sum = Float32(0)
    for i in range(dim):
        var c = codes.centre[unsafe_offset=i]
        var q = query[unsafe_offset=i]
        if metric == IP:
            sum -= c * q
        else:
            sum += (q - c) * (q - c)
    return sum


@fieldwise_init
struct Tracer(TrivialRegisterPassable):
    """Answers a query and writes down how."""

    var answer: Ptr[Answer]
    var log: Ptr[Log]

    def follow(self, scratch: Ptr[Scratch], snapshot: Snapshot):
        """Answers it."""
        ref answer = self.answer[]
        scratch[].queries += 1
        if snapshot.exact(max(answer.request.k, answer.request.ef)):
            self.scan_all(scratch, snapshot)
        else:
            self.walk(scratch, snapshot)

    def scan_all(self, scratch: Ptr[Scratch], snapshot: Snapshot):
        """Notes a scan of all rows as one step that measures the nearest ones only."""
        ref answer = self.answer[]
        ref log = self.log[]
        ref beam = scratch[].beam
        var kept = min(answer.request.k, snapshot.live)
        log.begin(SCAN, False, kept, kept, snapshot.visible.bound)
        var query = answer.query(0, scratch[])
        if scratch[].failed():
            return
        answer.scan_for(0, query, snapshot, scratch[])
        log.note(0, beam.size)
        if beam.size != 0:
            self.put(beam.entries[], beam.node(0))
        else:
            log.size = HEADER  # there are no rows: no step
        for i in range(beam.size):
            self.put(beam.entries[unsafe_offset=i], beam.node(i))
        self.measure_all(Scale(answer.stored, ON_ROWS, 0))

    def walk(self, scratch: Ptr[Scratch], snapshot: Snapshot):
        """Walks the graph and notes every hop."""
        ref answer = self.answer[]
        ref log = self.log[]
        var way = answer.way(0, snapshot, scratch[])
        var walks = PlainSearches[](
            self.answer,
            snapshot,
            way,
            measured(way, answer.stored, snapshot.walked(way != ON_ROWS), scratch[].walked),
            snapshot.known(way != ON_ROWS),
        )
        var ordinals = load_acquire(snapshot.graph[].ordinals)
        var task = walks.no_state()
        var walk = walks.start(0, scratch, task)
        if scratch[].failed():
            return
        var scale = Scale(answer.stored, way, 0)
        if estimates(way):
            scale.shift = shift_of(
                answer.stored.metric,
                snapshot.codes[],
                at[Float32](task.query.address),
                answer.index[].dim,
            )
        var kept = scratch[].beam.limit
        log.begin(WALK, estimates(way), min(scratch[].beam.width, kept), kept, walk.nodes)
        ref beam = scratch[].beam
        if beam.nearby != 0:
            log.set(HEADER - 1, Int64(bitcast[DType.int32, 1](beam.far)))
        self.descend(walk, ordinals)
        log.note(0, 1)
        # the step that begins on level 0 expands nothing yet: its one row stands for both
        for _ in range(2):
            self.put(beam.entries[], beam.node(0))
        while True:
            beam.arrange()  # so that the row expanded is the one at the cursor
            if not walk.collect():
                break
            log.note(0, walk.count, beam.bound)
            self.put(beam.entries[unsafe_offset=beam.cursor], beam.node(beam.cursor))
            walk.measure_apart()
            for i in range(walk.count):
                var entry = scratch[].unvisited[unsafe_offset=i]
                self.put(entry, node_of(entry))
        var before = scratch[].reranked
        walks.finish(walk, task, scratch[])
        log.set(HEADER - 2, Int64(scratch[].reranked - before))
        self.measure_all(scale)

    def descend(self, walk: BeamSearch[True], ordinals: Int):
        """Notes the hops above level 0: those of `walk.descend`, which went the same way before."""
        ref graph = walk.graph[]
        ref log = self.log[]
        var nearest = graph.entry
        var top = graph.level_of(nearest)
        var best = AnyDistance.key(
            walk.query, walk.rows, min(graph.row_of(nearest), walk.nodes - 1)
        )
        for level in range(top, 0, -1):
            var moved = True
            while moved:
                moved = False
                var block = graph.links(level, nearest)
                var place = log.size + 1
                log.note(level, 0)
                self.put(entry_of(best, graph.row_of(nearest)), graph.row_of(nearest))
                var count = 0
                for i in range(graph.slots_at(level)):
                    var node = Int(block[unsafe_offset=i])
                    if node >= ordinals or graph.row_of(node) >= walk.nodes:
                        continue
                    var row = graph.row_of(node)
                    var key = AnyDistance.key(walk.query, walk.rows, row)
                    self.put(entry_of(key, row), row)
                    count += 1
                    if key < best:
                        best = key
                        nearest = node
                        moved = True
                log.set(place, Int64(count))

    def put(self, entry: Int64, row: Int):
        """Writes a row, whose distance comes later."""
        ref log = self.log[]
        log.put(entry & ~1)
        log.put(self.answer[].index[].ids.column.ptr[Int64]()[unsafe_offset=row])
        log.put(0)

    def measure_all(self, scale: Scale):
        """Writes the distances of all rows in the log."""
        ref log = self.log[]
        if log.failed:
            return
        var place = HEADER
        while place < log.size:
            var count = Int(log.words[unsafe_offset=place + 1]) + 1
            place += NOTE
            for _ in range(count):
                var key = key_of(log.words[unsafe_offset=place])
                var bits = SIMD[DType.float32, 2](scale.distance(key), 0)
                log.words[unsafe_offset=place + 2] = bitcast[DType.int64, 1](bits)
                place += ROW


def trace(mut index: Index, request: SearchRequest, mut log: Log) -> Outcome:
    """Finds the k nearest rows of one query and writes down how.

    Args:
        index: The index; like a search the call may run beside others and one writer.
        request: What is asked of one query; the answer is that of `search_many`.
        log: Receives the steps.

    Returns:
        DONE, STOPPED, NO_MEMORY, or the refusal of a query.
    """
    var stored = StoredSpace.named(index.metric, index.dtype)
    var found = stored.inspect(request.queries, index.dim)
    if found != FINE:
        return Outcome.refusal(0, found)
    var status = NO_MEMORY
    var scratches = allocate[Ptr[Scratch]](1)
    if index.readers.claim_many(scratches, 1, 1):
        var scratch = scratches[]
        var answer = Answer(
            Pointer(to=index).unsafe_origin_cast[MutUntrackedOrigin](),
            stored,
            request,
            scratches,
            1,
        )
        Tracer(
            Pointer(to=answer).unsafe_origin_cast[MutUntrackedOrigin](),
            Pointer(to=log).unsafe_origin_cast[MutUntrackedOrigin](),
        ).follow(scratch, index.snapshot())
        _ = answer
        if not log.failed and not scratch[].failed():
            status = DONE
        index.readers.release(scratch)
    release(scratches)
    return status
