"""Candidates that have estimates, measured on the stored rows: in the order of the estimates, and no more than may matter."""
from vicinal.kernels.any_distance import AnyDistance
from vicinal.kernels.candidates import EMPTY_ENTRY, entry_of, key_of
from vicinal.kernels.space import Query, Rows, prefetch_row
from vicinal.quantization.estimate_error import EstimateError
from vicinal.system.memory import missing, no_block
from vicinal.system.uring import Ring
from vicinal.walk.arrivals import Arrivals
from vicinal.walk.ask import ask_for_candidates
from vicinal.walk.beam_search import LOOK_AHEAD
from vicinal.walk.scratch import Scratch

comptime AT_LEAST = 16
"""Candidates measured before the error that they show is believed; k if that is more."""

comptime DEVIATIONS = 3.0
"""Standard deviations of the error that are allowed for. Recall@10 to @1,000 of minilm-10k and sift-photo-10k was within 0.0005 of
that on the stored rows with 3, up to 0.0015 below it with 2, 0.003 with 1.5; the candidates measured were 1.3, 1.2 and 1.15 k."""


def expanded_for(k: Int) -> Int:
    """Returns how many candidates a search for k rows expands at least that goes by estimates: some more than one that measures.

    A sixteenth of k more makes up for the order of expansion being a little wrong: 20,000 rows in 300 heaps lost up to
    0.0036 of recall@100 without it, and found 0.001 to 0.005 more than on the stored rows with it, at 5 % more work.
    """
    return k + k // 16


def kept_for(k: Int, width: Int) -> Int:
    """Returns how many candidates a search keeps that goes by estimates and expands `width`: some more than k, since the k nearest
    need not be those with the k smallest estimates.

    A third of k more is enough: a tenth lost up to 0.003 of recall on sift-photo-10k, all of k gained 0.001 in the worst case tried.
    """
    return max(width, k + k // 3 + 16)


def ask_for_first(rows: Rows, mut scratch: Scratch, k: Int) -> Bool:
    """Asks for the candidates of the beam that `measure_in_order` will measure in any case, ahead of it; tells whether there are any.
    """
    scratch.asked = min(max(k, AT_LEAST), scratch.beam.size)
    ask_for_candidates(rows, scratch, 0, scratch.asked)
    return scratch.asked != 0


def measure_in_order(
    metric: Int, rows: Rows, on_disk: Bool, query: Query, mut scratch: Scratch, k: Int
) -> Bool:
    """Measures candidates of the beam on the stored rows; leaves the k nearest in `scratch.pruning_candidates`.

    The beam's keys are estimates. Candidates are taken in their order until the next estimate is larger than that of a row as
    far as the k-th nearest can be, as far as the error goes that was seen up to there: neither that one nor those behind it
    would change the result. Each row is asked for some places before it is measured, and none is that is ruled out by then;
    rows that are `on_disk` are asked for all at once, as soon as it is known that they may matter.

    Returns:
        Whether it ended like that; if not, rows that the beam has no place for could change the result, too.
    """
    ref chosen = scratch.pruning_candidates
    ref beam = scratch.beam
    var entries = beam.entries
    var size = beam.size
    var until = min(max(k, AT_LEAST), size)  # those before it are to be measured
    var error = EstimateError(metric)
    var ruled_out = False
    chosen.reset(k)
    var asked = until
    if on_disk and scratch.asked == 0:
        _ = ask_for_first(rows, scratch, k)
    scratch.asked = 0
    var arrivals = scratch.arrivals() if on_disk else no_block[Arrivals]()
    var ring = no_block[Ring]() if missing(arrivals) else scratch.ring()
    for i in range(min(LOOK_AHEAD, until)):
        prefetch_row(rows, beam.node(i))
    var i = 0
    while i < until:
        if i + LOOK_AHEAD < until:
            prefetch_row(rows, beam.node(i + LOOK_AHEAD))
        var row = beam.node(i)
        var there = rows
        if not missing(arrivals):
            var place = arrivals[].row(ring[], i)
            if place != 0:
                there.base = place - row * rows.stride
        var key = AnyDistance.key(query, there, row)
        error.learn(key_of(entries[unsafe_offset=i]), key)
        var entry = entry_of(key, row)
        if entry < chosen.worst():
            chosen.insert(entry)
        i += 1
        if i + LOOK_AHEAD >= until and until < size and chosen.worst() != EMPTY_ENTRY:
            var limit = error.limit(key_of(chosen.worst()), DEVIATIONS)
            ruled_out = beam.key(until) > limit
            if on_disk and asked <= until and not ruled_out:
                asked = until
                while asked < size and beam.key(asked) <= limit:
                    asked += 1
                ask_for_candidates(rows, scratch, until, asked)
            while until < min(size, i + LOOK_AHEAD + 1) and beam.key(until) <= limit:
                prefetch_row(rows, beam.node(until))
                until += 1
    chosen.arrange()
    scratch.reranked += until
    return ruled_out and until < size
