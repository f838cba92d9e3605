"""The nodes that one search has seen.

Of few nodes each has a byte that holds the number of the search that saw it: nothing is faster, and a reset is free. Every worker has
sets of its own, though, 26 GB of them for 64 threads on 100,000,000 rows, and a byte that was not touched for long is a miss of the
caches and of the TLB. So from some millions of nodes on a set is a small hash table that grows with what the search sees, and only
becomes bytes once these would be fewer than those of the table.
"""
from vicinal.system.memory import Ptr, allocate_zeroed, missing, no_block, release
from vicinal.system.pointer import zero_items

comptime DENSE_NODES = 1 << 21
"""Up to so many nodes each has a byte."""
comptime FEWEST_PLACES = 4096
"""Places of the first table: a build sees some 2,000 nodes a row."""
comptime KEPT_PLACES = 1 << 16
"""Places of a table that is kept for later searches."""
comptime SPREAD: UInt64 = 0x9E3779B97F4A7C15


struct Visited(Movable):
    """Marks nodes 0 .. count-1; node `count` always counts as seen, so ids clamped to it are skipped.

    Who cares for speed reads and writes `states` itself unless the set is `sparse`.
    """

    var states: Ptr[UInt8]
    """One mark a node, unless the set is `sparse`; a node is seen when its mark equals `epoch`."""
    var room: Int
    """Marks allocated."""
    var epoch: UInt8
    """The number of the current search, 1..255."""
    var sparse: Bool
    """Whether `table` holds what the current search has seen, instead of `states`."""
    var table: Ptr[UInt64]
    """Open addressing with linear probing: the number of a search, and in the lower half a node that it saw."""
    var places: Int
    """Places of the table, a power of two; 0 while there is none."""
    var held: Int
    """Nodes of the current search in the table."""
    var search: UInt64
    """The number of the current search in the table, from 1 on."""
    var count: Int
    """Nodes of the current search."""
    var dense_nodes: Int
    """Up to so many nodes each has a byte; tests change it."""
    var failed: Bool
    """True once memory was refused. Set from the beginning, nothing may be done but to destroy it; set by `reset`, only nodes below
    `nodes` may be marked, and the search is worth nothing. A sparse set that has failed takes all nodes for seen."""

    def __init__(out self):
        """Makes an empty set."""
        self.states = allocate_zeroed[UInt8](64)
        self.room = 64
        self.epoch = 0
        self.sparse = False
        self.table = no_block[UInt64]()
        self.places = 0
        self.held = 0
        self.search = 0
        self.count = 0
        self.dense_nodes = DENSE_NODES
        self.failed = missing(self.states)

    def __deinit__(deinit self):
        release(self.states)
        release(self.table)

    def reset(mut self, count: Int):
        """Forgets all marks and makes room for `count` nodes."""
        self.count = count
        self.sparse = count > self.dense_nodes
        if self.sparse:
            self._reset_table()
        else:
            self._reset_states()

    def _reset_states(mut self):
        if self.count + 1 > self.room:
            self._make_room(self.count + self.count // 4 + 64)
        if self.epoch == 255:  # numbers are used up: marks of old searches must not come back
            zero_items(self.states, self.room)
            self.epoch = 0
        self.epoch += 1
        self.states[unsafe_offset=min(self.count, self.room - 1)] = self.epoch

    def _make_room(mut self, room: Int):
        """Makes new marks for more nodes."""
        var states = allocate_zeroed[UInt8](room)
        if missing(states):
            self.failed = True
            return
        release(self.states)
        self.states = states
        self.room = room
        self.epoch = 0

    @no_inline
    def _reset_table(mut self):
        self.held = 0
        if self.places == 0:
            self.table = allocate_zeroed[UInt64](FEWEST_PLACES)
            if missing(self.table):
                self.failed = True
                return
            self.places = FEWEST_PLACES
        if self.search == UInt64(0xFFFFFFFF):
            zero_items(self.table, self.places)
            self.search = 0
        self.search += 1
        _ = self._put(self.count)

    @always_inline
    def nodes(self) -> Int:
        """Returns how many nodes there is room for."""
        return self.count if self.sparse else self.room - 1

    @always_inline
    def bytes(self) -> Int:
        """Returns the bytes of memory that it takes."""
        return self.room + 8 * self.places

    def trim(mut self):
        """Gives back what only a wide search among many nodes needs, and forgets that memory was refused.
        """
        self.failed = False
        if self.places > KEPT_PLACES:
            release(self.table)
            self.table = no_block[UInt64]()
            self.places = 0
        if self.room > self.dense_nodes + self.dense_nodes // 4 + 64:
            var states = allocate_zeroed[UInt8](64)
            if not missing(states):
                release(self.states)
                self.states = states
                self.room = 64
                self.epoch = 0

    @always_inline
    def first_visit(mut self, node: Int) -> Bool:
        """Marks a node and tells whether this search had not seen it."""
        if self.sparse:
            return self.first_visit_sparse(node)
        var seen = self.states[unsafe_offset=node]
        self.states[unsafe_offset=node] = self.epoch
        return seen != self.epoch

    @always_inline
    def has_seen(self, node: Int) -> Bool:
        """Tells whether this search has seen a node."""
        if self.sparse:
            return self.has_seen_sparse(node)
        return self.states[unsafe_offset=node] == self.epoch

    @no_inline
    def first_visit_sparse(mut self, node: Int) -> Bool:
        """Does the same in a sparse set."""
        if not self._has_room(1):
            return False
        if not self.sparse:
            return self.first_visit(node)
        return self._put(node)

    @no_inline
    def keep_first_visits(mut self, links: Ptr[UInt32], count: Int, into: Ptr[Int64]) -> Int:
        """Marks `count` nodes of a sparse set and copies those that this search had not seen; returns how many.
        """
        if not self._has_room(count):
            return 0
        var kept = 0
        for i in range(count):
            var node = Int(links[unsafe_offset=i])
            into[unsafe_offset=kept] = Int64(node)
            kept += Int(self._put(node) if self.sparse else self.first_visit(node))
        return kept

    def has_seen_sparse(self, node: Int) -> Bool:
        """Tells whether this search has seen a node of a sparse set."""
        if self.failed:
            return True
        var entry = self.search << 32 | UInt64(node)
        var place = self._home(node)
        while True:
            var other = self.table[unsafe_offset=place]
            if other == entry:
                return True
            if other >> 32 != self.search:
                return False
            place = (place + 1) & (self.places - 1)

    @always_inline
    def _home(self, node: Int) -> Int:
        return Int((UInt64(node) * SPREAD) >> 32) & (self.places - 1)

    @always_inline
    def _put(mut self, node: Int) -> Bool:
        """Puts a node into the table, which has room; returns False if it was there."""
        var entry = self.search << 32 | UInt64(node)
        var place = self._home(node)
        while True:
            var other = self.table[unsafe_offset=place]
            if other == entry:
                return False
            if other >> 32 != self.search:
                self.table[unsafe_offset=place] = entry
                self.held += 1
                return True
            place = (place + 1) & (self.places - 1)

    @always_inline
    def _has_room(mut self, more: Int) -> Bool:
        """Makes room for more nodes in a sparse set, which may cease to be one; returns False when memory is out.
        """
        if self.failed:
            return False
        if 2 * (self.held + more) > self.places:
            self._grow(more)
        return not self.failed

    @no_inline
    def _grow(mut self, more: Int):
        var places = 2 * self.places
        while 2 * (self.held + more) > places:
            places *= 2
        if 8 * places > self.count:
            self._become_dense()
            return
        var table = allocate_zeroed[UInt64](places)
        if missing(table):
            self.failed = True
            return
        var old = self.table
        var before = self.places
        self.table = table
        self.places = places
        self.held = 0
        for i in range(before):
            var entry = old[unsafe_offset=i]
            if entry >> 32 == self.search:
                _ = self._put(Int(entry & 0xFFFFFFFF))
        release(old)

    def _become_dense(mut self):
        """Gives each node a byte for what is left of the search."""
        if self.count + 1 > self.room:
            self._make_room(self.count + 1)
            if self.failed:
                return
        self.sparse = False
        self._reset_states()
        for i in range(self.places):
            var entry = self.table[unsafe_offset=i]
            if entry >> 32 == self.search:
                self.states[unsafe_offset=Int(entry & 0xFFFFFFFF)] = self.epoch
