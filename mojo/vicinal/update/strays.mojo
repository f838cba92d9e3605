"""Strays: a few rows so far from all others that estimates, made for these, do not tell them apart.

They are linked on the stored rows, and queries among them walk on those (`quantization/code_centre.mojo`). Hardly any other row
has a link to them, since all have nearer ones; so some are on the highest level, where every walk comes past.
"""
from vicinal.graph.links import Graph
from vicinal.quantization.code_table import Codes
from vicinal.system.memory import Ptr, allocate, missing, release
from vicinal.update.split_duplicates import SplitDuplicates

comptime RAISED = 4
"""Strays of a change that are put on the highest level, spread over the order in which they come."""


def any_strays(codes: Codes, places: Ptr[UInt32], count: Int) -> Bool:
    """Tells whether any of some rows is beyond the reach of estimating codes."""
    for i in range(count):
        if codes.strays(Int(places[unsafe_offset=i])):
            return True
    return False


def put_strays_last(codes: Codes, places: Ptr[UInt32], count: Int, first: Int) -> Int:
    """Puts rows beyond the reach of estimating codes behind the others, both in the order that they have; the very first, which
    may have to lead, stays.

    Returns:
        How many they are, or -1 when memory is out.
    """
    var strays = 0
    for i in range(first, count):
        strays += Int(codes.strays(Int(places[unsafe_offset=i])))
    if strays == 0:
        return 0
    var found = allocate[UInt32](strays)
    if missing(found):
        return -1
    var near = first
    strays = 0
    for i in range(first, count):
        var row = places[unsafe_offset=i]
        if codes.strays(Int(row)):
            found[unsafe_offset=strays] = row
            strays += 1
        else:
            places[unsafe_offset=near] = row
            near += 1
    for i in range(strays):
        places[unsafe_offset=near + i] = found[unsafe_offset=i]
    release(found)
    return strays


def raise_strays(codes: Codes, graph: Graph, new: SplitDuplicates):
    """Puts some of the strays among new rows on the highest level that there is; rows in places of others stay where those were.
    """
    var count = 0
    var top = 0
    if graph.linked > 0:
        top = graph.top()
    for i in range(new.count):
        var row = Int(new.places[unsafe_offset=i])
        if row >= new.first:
            count += Int(codes.strays(row))
            top = max(top, Int(new.levels[unsafe_offset=row - new.first]))
    if count == 0:
        return
    var seen = 0
    for i in range(new.count):
        var row = Int(new.places[unsafe_offset=i])
        if row >= new.first and codes.strays(row):
            if seen * RAISED % count < RAISED:
                new.levels[unsafe_offset=row - new.first] = UInt8(top)
            seen += 1
