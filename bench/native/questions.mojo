"""What is asked of an index, and how: queries, neighbours, widths, rounds, threads, the truth."""
from arrays import Matrix, as_ids, read_matrix, stored_as
from options import Options
from vicinal.kernels.stored_type import is_float


struct Questions(Movable):
    """Queries of one shape and what is wanted of each."""

    var queries: Matrix
    """In the type that searches take: float32 for float types, else the stored type."""
    var count: Int
    """Queries that are asked, the first ones."""
    var k: Int
    """Neighbours wanted of each."""
    var widths: List[Int]
    """Search widths (ef)."""
    var rounds: Int
    """How often everything is measured."""
    var threads: Int
    """Workers of a batch."""
    var truth: Matrix
    """True ids, int64, a line a query, nearest first; no rows if no file was named."""

    def __init__(out self, options: Options, dim: Int, dtype: Int, rows: Int) raises:
        """Reads the options and the files that they name.

        Args:
            options: --queries, and what else of the fields is not to have its default.
            dim: Dimension of the rows.
            dtype: Code of their stored type.
            rows: Their number.

        Raises:
            Where a number is out of range, or a file cannot be read or does not fit the others.
        """
        self.widths = options.wholes("ef", [16, 32, 64, 128, 256])
        self.rounds = options.whole("rounds", 3)
        self.threads = options.threads()
        var k = options.whole("k", 10, 1, rows)
        var queries = read_matrix("--queries", options.required("queries"))
        if queries.dim != dim:
            raise Error(t"{queries.label}: expected dimension {dim}, got {queries.dim}")
        var count = min(options.whole("num-queries", queries.rows), queries.rows)
        var truth = Matrix("", DType.int64, 0, k)
        if options.has("truth"):
            truth = as_ids(read_matrix("--truth", options.required("truth")))
            if truth.rows < count or truth.dim < k:
                raise Error(
                    t"{truth.label}: expected at least {count} queries with {k} neighbours each,"
                    t" got ({truth.rows}, {truth.dim})"
                )
        self.queries = stored_as(queries^, 0 if is_float(dtype) else dtype)
        self.count = count
        self.k = k
        self.truth = truth^

    def room(self) raises -> Matrix:
        """Returns a matrix for the ids or rows that are found."""
        var found = Matrix(self.queries.label, DType.int64, self.count, self.k)
        found.make_room(self.count * self.k * 8)
        return found^
