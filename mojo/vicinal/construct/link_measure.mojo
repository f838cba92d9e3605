"""How rows are linked, told at run time: what the rows of a `LinkWork` carry."""
from vicinal.construct.prune import robust_prune
from vicinal.graph.links import Graph
from vicinal.kernels.any_distance import MeasureBetween, as_they_were
from vicinal.kernels.space import Rows, SymmetricDistance
from vicinal.system.memory import Ptr, at
from vicinal.walk.scratch import Scratch


struct LinkMeasure(Movable):
    """How some rows are measured against each other, and what of linking is compiled for that; `rows` leads to it, so that it must
    stay where it is while those are in use.
    """

    var between: MeasureBetween
    """First, so that its address is this one's."""
    var prune: def(Graph, Rows, Int, Ptr[Int64], Int, Int, mut Scratch) thin -> Int
    """`robust_prune`."""
    var find: def(Int, Int, Int, Ptr[Ptr[Scratch]]) thin -> None
    """`find_neighbors`, given the address of `FindNeighbors`."""

    def __init__(out self):
        """Links nothing yet."""
        self.between = MeasureBetween()
        self.prune = _no_prune
        self.find = _find_none

    def rows[
        M: SymmetricDistance, find: def(Int, Int, Int, Ptr[Ptr[Scratch]]) thin -> None
    ](mut self, rows: Rows) -> Rows:
        """Returns rows that are linked by `M`."""
        self.prune = robust_prune[M]
        self.find = find
        return self.between.rows[M](rows)


def _no_prune(
    graph: Graph,
    rows: Rows,
    level: Int,
    candidates: Ptr[Int64],
    count: Int,
    wanted: Int,
    mut scratch: Scratch,
) -> Int:
    return 0


def _find_none(find: Int, begin: Int, end: Int, scratches: Ptr[Ptr[Scratch]]):
    pass


@always_inline
def prune(
    graph: Graph,
    rows: Rows,
    level: Int,
    candidates: Ptr[Int64],
    count: Int,
    wanted: Int,
    mut scratch: Scratch,
) -> Int:
    """Picks candidates as `robust_prune` does, of rows of a `LinkMeasure`."""
    return at[LinkMeasure](rows.norms)[].prune(
        graph, as_they_were(rows), level, candidates, count, wanted, scratch
    )
