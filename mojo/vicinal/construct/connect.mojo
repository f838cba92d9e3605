"""Reachability: every row can be reached from the entry point along links of level 0.

Pruning can take the last link to a row. A flood from the entry finds such rows; each is linked from the nearest row that
was reached.
"""
from vicinal.construct.work import LinkWork
from vicinal.graph.links import EMPTY, Graph
from vicinal.graph.reachability import Reachability
from vicinal.graph.undo import STRIPES, UndoLog
from vicinal.kernels.any_distance import AnyLink
from vicinal.rows.row_states import stays
from vicinal.system.atomics import publish
from vicinal.system.outcome import DONE, NO_MEMORY, Outcome, STOPPED
from vicinal.system.parallel import Watch
from vicinal.walk.beam_search import search_level
from vicinal.walk.scratch import Scratch

comptime ROUNDS = 16
"""Repairs tried; each but the last may cut off a row whose link it replaces."""


@no_inline
def repair[V: Watch](work: LinkWork, mut watch: V) -> Outcome:
    """Links every row that stays and cannot be reached from the entry point; all workers look for such rows, one links them.

    Args:
        work: What it is done with.
        watch: May end the work early.

    Returns:
        DONE; or STOPPED or NO_MEMORY: then not all rows are reached, and the caller undoes.
    """
    ref graph = work.graph[]
    ref log = work.log[]
    ref team = work.team[]
    ref scratch = work.scratch(0)[]
    var states = work.states
    var measured = work.rows
    for round in range(ROUNDS):
        var entry = graph.row_of(graph.entry)
        var flood = Reachability(graph.linked)
        if flood.failed():
            log.fail()
            return NO_MEMORY
        if not flood.flood(graph, entry, team, watch):
            return STOPPED
        var missed = flood.all_unreached(graph, states, team, watch)
        if missed < 0:
            return STOPPED
        if missed == 0:
            break
        for row in range(graph.linked):
            if not flood.unreached(graph, states, row):
                continue
            var room = scratch.room(AnyLink.query_bytes(measured))
            if scratch.failed():
                log.fail()
                return NO_MEMORY
            # every row found from the entry along level 0 has been reached
            search_level[True](
                graph,
                measured,
                AnyLink.query_of_row(measured, row, room),
                scratch,
                0,
                graph.linked,
                entry,
                work.ef_construction << round,
            )
            _attach(graph, row, states, log, flood, scratch)
            if log.failed() or scratch.failed():
                log.fail()
                return NO_MEMORY
            if not flood.flood(graph, row, team, watch):
                return STOPPED
    return DONE


def _attach(
    graph: Graph, row: Int, states: Int, log: UndoLog, mut flood: Reachability, scratch: Scratch
):
    """Links a row from the nearest candidate with a free slot, else in place of a link whose row has others.

    Candidates are rows that stay, or the entry point if that is a removed row: nothing else leads to the row for long.
    """
    var entry = graph.row_of(graph.entry)
    var cap = graph.cap(0)
    for i in range(scratch.beam.size):
        var from_row = scratch.beam.node(i)
        if from_row != entry and not stays(states, from_row):
            continue
        var block = graph.links(0, from_row)
        if block[unsafe_offset=cap - 1] != EMPTY:
            continue
        var free = cap - 1
        while free > 0 and block[unsafe_offset=free - 1] == EMPTY:
            free -= 1
        if log.keep(graph, 0, from_row, from_row % STRIPES):
            publish(block.unsafe_offset(free), row)
        return
    if not flood.know_links(graph):
        log.fail()
        return
    for i in range(scratch.beam.size):
        var from_row = scratch.beam.node(i)
        if from_row != entry and not stays(states, from_row):
            continue
        var block = graph.links(0, from_row)
        for j in range(cap - 1, -1, -1):
            var other = Int(block[unsafe_offset=j])
            if flood.links_in[unsafe_offset=other] > 1:
                if log.keep(graph, 0, from_row, from_row % STRIPES):
                    flood.links_in[unsafe_offset=other] -= 1
                    publish(block.unsafe_offset(j), row)
                return
