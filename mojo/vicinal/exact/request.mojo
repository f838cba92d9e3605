"""What a search is asked for, and where its answer goes."""
from vicinal.kernels.stop_rule import StopRule
from vicinal.system.memory import Ptr


struct SearchRequest(TrivialRegisterPassable):
    """Queries, and memory for the nearest rows of each; all of it is the caller's and stays until the search has ended.
    """

    var queries: Int
    """Address of count x dim elements, C-contiguous: float32 for float types, else the stored type."""
    var count: Int
    """Number of queries."""
    var k: Int
    """Neighbours wanted of each, at least 1."""
    var ef: Int
    """Candidates that walks keep, at least k in any case; who measures all rows has no use for it."""
    var ids: Ptr[Int64]
    """Receives count x k ids, nearest first, equal distances in order of row, -1 where there are fewer rows."""
    var distances: Ptr[Float32]
    """Receives count x k distances, infinity where there are fewer rows."""
    var threads: Int
    """Workers."""
    var rule: StopRule
    """When walks end besides."""
    var work: Int
    """Address of an int64 for each query that receives how many distances it took if it was walked for, or 0."""

    @always_inline
    def __init__(
        out self,
        queries: Int,
        count: Int,
        k: Int,
        ef: Int,
        ids: Ptr[Int64],
        distances: Ptr[Float32],
        threads: Int,
        rule: StopRule = StopRule.none(),
        work: Int = 0,
    ):
        """Makes one of its parts."""
        self.queries = queries
        self.count = count
        self.k = k
        self.ef = ef
        self.ids = ids
        self.distances = distances
        self.threads = threads
        self.rule = rule
        self.work = work
