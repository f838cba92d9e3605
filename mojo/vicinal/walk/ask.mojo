"""Rows that lie in a file: all that are going to be measured are asked for before the first is, so that the disk brings them at once."""
from vicinal.graph.links import Graph
from vicinal.kernels.space import Rows
from vicinal.system.memory import Ptr, missing
from vicinal.system.pages import WANTED, advise, page_bytes
from vicinal.system.uring import Ring
from vicinal.walk.arrivals import FAULT, PLACES, Arrivals
from vicinal.walk.scratch import HOP_ROOM, Scratch

comptime TOGETHER = 16 << 10
"""Bytes that one request may grow to; on the disks that were measured so many take as long as one page."""


def ask_for_candidates(rows: Rows, mut scratch: Scratch, first: Int, until: Int):
    """Asks for the rows of candidates first .. until-1 of the beam."""
    var arrivals = scratch.arrivals()
    if not missing(arrivals):
        _ask_ring(arrivals[], scratch.ring()[], rows, scratch, first, until)
        return
    for begin in range(first, until, HOP_ROOM):
        var count = min(HOP_ROOM, until - begin)
        for i in range(count):
            scratch.selected[unsafe_offset=i] = UInt32(scratch.beam.node(begin + i))
        ask_for_selected(rows, scratch, count)


def ask_for_nodes[
    base_layer: Bool
](graph: Graph, rows: Rows, mut scratch: Scratch, nodes: Ptr[Int64], count: Int):
    """Asks for the rows of the nodes of a hop, which are those of level 0 or ordinals."""
    for i in range(count):
        var node = Int(nodes[unsafe_offset=i])
        scratch.selected[unsafe_offset=i] = UInt32(node if base_layer else graph.row_of(node))
    ask_for_selected(rows, scratch, count)


def ask_for_selected(rows: Rows, mut scratch: Scratch, count: Int):
    """Asks for the rows whose numbers lie at `scratch.selected`, which are put in order."""
    _sort(scratch.selected, count)
    ask_for_rows(rows, scratch, scratch.selected, count)


def ask_for_rows(rows: Rows, mut scratch: Scratch, numbers: Ptr[UInt32], count: Int):
    """Asks for rows whose numbers ascend; neighbouring ones become one request."""
    var page = page_bytes()
    var start = 0
    var end = 0
    for i in range(count):
        var row = rows.base + Int(numbers[unsafe_offset=i]) * rows.stride
        var low = row // page * page
        var high = (row + rows.stride + page - 1) // page * page
        if i > 0 and (low <= end or high - start <= TOGETHER):
            end = max(end, high)
            continue
        if i > 0:
            _request(start, end, scratch)
        start = low
        end = high
    if count > 0:
        _request(start, end, scratch)


def _ask_ring(
    mut arrivals: Arrivals,
    mut ring: Ring,
    rows: Rows,
    mut scratch: Scratch,
    first: Int,
    until: Int,
):
    """Asks for the rows of candidates first .. until-1 by a ring; of those that it has no room for the system is told.
    """
    if first == 0:
        arrivals.begin()
    var grain = scratch.source.grain
    var here = first
    while here < until:
        var count = min(HOP_ROOM, until - here)
        var left = 0
        var wanted = scratch.unvisited  # row and candidate, so that rows are in order
        for i in range(count):
            if here + i < PLACES:
                wanted[unsafe_offset=i] = Int64(scratch.beam.node(here + i)) << 16 | Int64(here + i)
                arrivals.places[unsafe_offset=here + i] = 0
            else:
                scratch.selected[unsafe_offset=left] = UInt32(scratch.beam.node(here + i))
                left += 1
        var asked = count - left
        _sort(wanted, asked)
        var i = 0
        while i < asked:
            var offset = scratch.source.offset + Int(wanted[unsafe_offset=i] >> 16) * rows.stride
            var low = offset // grain * grain
            var end = offset + rows.stride
            var after = i + 1
            while after < asked:
                var next = scratch.source.offset + rows.stride * (
                    Int(wanted[unsafe_offset=after] >> 16) + 1
                )
                if next - low > TOGETHER:
                    break
                end = next
                after += 1
            var high = (end + grain - 1) // grain * grain
            var begins = arrivals.room + arrivals.used - low
            var room = arrivals.ask(ring, scratch.source.file, low, high - low, end - low)
            scratch.requests += Int(room)
            scratch.request_bytes += high - low if room else 0
            for j in range(i, after):
                var row = Int(wanted[unsafe_offset=j] >> 16)
                var candidate = Int(wanted[unsafe_offset=j] & 0xFFFF)
                if room:
                    arrivals.places[unsafe_offset=candidate] = (
                        begins + scratch.source.offset + row * rows.stride
                    )
                    arrivals.brought_by[unsafe_offset=candidate] = UInt8(arrivals.requests - 1)
                else:
                    scratch.selected[unsafe_offset=left] = UInt32(row)
                    left += 1
            i = after
        here += count
        ask_for_selected(rows, scratch, left)
    arrivals.until = min(until, PLACES)
    ring.hand_over()


def _request(start: Int, end: Int, mut scratch: Scratch):
    """Asks for pages."""
    if scratch.source.how == FAULT:
        return
    _ = advise(start, end - start, WANTED)
    scratch.requests += 1
    scratch.request_bytes += end - start


def _sort[T: DType](numbers: Ptr[Scalar[T]], count: Int):
    """Puts a few numbers in order."""
    for i in range(1, count):
        var number = numbers[unsafe_offset=i]
        var place = i
        while place > 0 and numbers[unsafe_offset=place - 1] > number:
            numbers[unsafe_offset=place] = numbers[unsafe_offset=place - 1]
            place -= 1
        numbers[unsafe_offset=place] = number
