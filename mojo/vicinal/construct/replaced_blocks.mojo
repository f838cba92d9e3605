"""Blocks of links that are to be replaced: noted by many owners while the graph stands still, then written, then answered by links back.
"""
from std.ffi import external_call

from vicinal.construct.insertion import AddBackEdges
from vicinal.construct.round import Round
from vicinal.construct.work import LinkWork
from vicinal.graph.links import EMPTY, Graph
from vicinal.graph.undo import STRIPES
from vicinal.system.array import GrowableArray
from vicinal.system.atomics import publish
from vicinal.system.memory import Ptr, allocate, at, missing, release
from vicinal.system.parallel import Body

comptime HEAD = 5
"""Words before the links of a patch."""


struct ReplacedBlocks(Movable):
    """A list of new blocks: level, node, links that are kept, links in all, whether a long one was lost; then the links.
    """

    var words: Int
    """Address of the list, 0 while it is empty."""
    var used: Int
    """Words."""
    var room: Int
    var failed: Bool
    """Whether memory was refused: the list lacks something."""

    def __init__(out self):
        """Makes an empty list."""
        self.words = 0
        self.used = 0
        self.room = 0
        self.failed = False

    def __deinit__(deinit self):
        external_call["free", NoneType](self.words)

    @always_inline
    def at(self, word: Int) -> Ptr[UInt32]:
        """Returns the block that begins with a word."""
        return at[UInt32](self.words).unsafe_offset(word)

    def append(
        mut self,
        level: Int,
        node: Int,
        kept: Int,
        count: Int,
        links: Ptr[UInt32],
        long: Bool = False,
    ):
        """Adds a block."""
        if self.used + HEAD + count > self.room:
            var room = 2 * (self.used + HEAD + count)
            var words = external_call["realloc", Int](self.words, 4 * room)
            if words == 0:
                self.failed = True
                return
            self.words = words
            self.room = room
        var block = self.at(self.used)
        block[unsafe_offset=0] = UInt32(level)
        block[unsafe_offset=1] = UInt32(node)
        block[unsafe_offset=2] = UInt32(kept)
        block[unsafe_offset=3] = UInt32(count)
        block[unsafe_offset=4] = UInt32(Int(long))
        for i in range(count):
            block[unsafe_offset=HEAD + i] = links[unsafe_offset=i]
        self.used += HEAD + count


@fieldwise_init
struct WriteReplacements(Body):
    """Item p writes the blocks of nodes with node % STRIPES == p."""

    var work: LinkWork
    var patches: Ptr[ReplacedBlocks]
    var mixed: Bool
    """Whether an owner's list may hold blocks of others: rows are listed with the ordinals that they have above."""

    def run(self, begin: Int, end: Int, worker: Int):
        """Writes blocks, the last slots last to first: no empty slot comes before a used one."""
        ref graph = self.work.graph[]
        for part in range(begin, end):
            for owner in range(0 if self.mixed else part, STRIPES if self.mixed else part + 1):
                ref patches = self.patches[unsafe_offset=owner]
                var word = 0
                while word < patches.used:
                    var patch = patches.at(word)
                    var level = Int(patch[unsafe_offset=0])
                    var node = Int(patch[unsafe_offset=1])
                    var count = Int(patch[unsafe_offset=3])
                    word += HEAD + count
                    if node % STRIPES != part:
                        continue
                    if not self.work.log[].keep(graph, level, node, part):
                        return
                    var block = graph.links(level, node)
                    for i in range(count):
                        publish(block.unsafe_offset(i), Int(patch[unsafe_offset=HEAD + i]))
                    for i in range(graph.cap(level) - 1, count - 1, -1):
                        publish(block.unsafe_offset(i), Int(EMPTY))


@fieldwise_init
struct AddReplacementBackEdges(Body):
    """The links back. Item p changes the blocks of nodes with node % STRIPES == p."""

    var work: LinkWork
    var patches: Ptr[ReplacedBlocks]

    def run(self, begin: Int, end: Int, worker: Int):
        """Goes through all new links once for each owner."""
        ref graph = self.work.graph[]
        ref scratch = self.work.scratch(worker)[]
        var back = AddBackEdges(Round.of_none(self.work))
        for part in range(begin, end):
            for owner in range(STRIPES):
                ref patches = self.patches[unsafe_offset=owner]
                var word = 0
                while word < patches.used:
                    var patch = patches.at(word)
                    var level = Int(patch[unsafe_offset=0])
                    var node = Int(patch[unsafe_offset=1])
                    var count = Int(patch[unsafe_offset=3])
                    for i in range(Int(patch[unsafe_offset=2]), count):
                        var target = Int(patch[unsafe_offset=HEAD + i])
                        if target % STRIPES != part or leads_to(graph, level, target, node):
                            continue
                        back.link(level, target, node, part, scratch)
                    word += HEAD + count


def rows_without_long(patches: Ptr[ReplacedBlocks], mut rows: GrowableArray):
    """Lists the rows that have lost a long link on level 0, each once."""
    for owner in range(STRIPES):
        ref list = patches[unsafe_offset=owner]
        var word = 0
        while word < list.used:
            var patch = list.at(word)
            if patch[unsafe_offset=0] == 0 and patch[unsafe_offset=4] != 0:
                rows.push(Int64(patch[unsafe_offset=1]))
            word += HEAD + Int(patch[unsafe_offset=3])


def leads_to(graph: Graph, level: Int, node: Int, target: Int) -> Bool:
    """Tells whether a node links to another."""
    var block = graph.links(level, node)
    for i in range(graph.cap(level)):
        if Int(block[unsafe_offset=i]) == target:
            return True
    return False


def new_patches() -> Ptr[ReplacedBlocks]:
    """Makes an empty list for each of STRIPES owners, or what `missing` knows; `drop_patches` must follow.
    """
    var patches = allocate[ReplacedBlocks](STRIPES)
    for part in range(0 if missing(patches) else STRIPES):
        patches.unsafe_offset(part).unsafe_write(ReplacedBlocks())
    return patches


def lacks_any(work: LinkWork, patches: Ptr[ReplacedBlocks]) -> Bool:
    """Tells whether memory was refused for any list, or to any worker, and lets the log know."""
    for part in range(STRIPES):
        if patches[unsafe_offset=part].failed:
            work.log[].fail()
    return work.out_of_memory()


def drop_patches(patches: Ptr[ReplacedBlocks]):
    """Frees the lists."""
    for part in range(STRIPES):
        patches.unsafe_offset(part).unsafe_deinit_pointee()
    release(patches)
