"""Recall: the share of the true neighbours that were found."""
from arrays import Matrix
from questions import Questions
from vicinal.kernels.convert import to_float
from vicinal.kernels.in_space import SpaceTask, in_space
from vicinal.kernels.space import IP, L2, Rows, Space
from vicinal.system.memory import Ptr, at


@no_inline
def real_distance[S: Space](query: Ptr[Scalar[S.Q]], row: Ptr[Scalar[S.T]], dim: Int) -> Float64:
    """Measures in float64, with the order of the distances but not their scale.

    Safety:
        Both must have `dim` elements.
    """
    var squares = Float64(0)
    var dot = Float64(0)
    var norm_a = Float64(0)
    var norm_b = Float64(0)
    for i in range(dim):
        var a = query[unsafe_offset=i].cast[DType.float64]()
        var b: Float64
        comptime if S.T.is_floating_point():
            b = to_float[S.T, 1](row[unsafe_offset=i]).cast[DType.float64]()
        else:
            b = row[unsafe_offset=i].cast[DType.float64]()
        squares += (a - b) * (a - b)
        dot += a * b
        norm_a += a * a
        norm_b += b * b
    comptime if S.metric == L2:
        return squares
    elif S.metric == IP:
        return -dot
    else:
        return -dot / (norm_a * norm_b) ** 0.5


@fieldwise_init
struct CountHits(SpaceTask):
    """Counts true neighbours among what was found, as `recall_at_k` of `bench/datasets.py` does."""

    var rows: Rows
    var queries: Int
    var count: Int
    var k: Int
    var found: Ptr[Int64]
    """`k` row numbers a query, -1 for none."""
    var truth: Ptr[Int64]
    """`width` row numbers a query, nearest first."""
    var width: Int
    var hits: Int

    def run[S: Space](mut self):
        """Counts distinct rows that are among the first k true ones, or no farther than the k-th.
        """
        var dim = self.rows.dim
        for q in range(self.count):
            var query = at[Scalar[S.Q]](self.queries).unsafe_offset(q * dim)
            var found = self.found.unsafe_offset(q * self.k)
            var truth = self.truth.unsafe_offset(q * self.width)
            for i in range(self.k):
                var row = found[unsafe_offset=i]
                if row < 0 or _position(found, i, row) < i:
                    continue
                if _position(truth, self.k, row) < self.k:
                    self.hits += 1
                    continue
                var last = self.rows.row[S.T](Int(truth[unsafe_offset=self.k - 1]))
                var here = self.rows.row[S.T](Int(row))
                if real_distance[S](query, here, dim) <= real_distance[S](query, last, dim):
                    self.hits += 1


def _position(list: Ptr[Int64], count: Int, row: Int64) -> Int:
    """Returns where a row is among the first `count`, `count` if it is not there."""
    for i in range(count):
        if list[unsafe_offset=i] == row:
            return i
    return count


def check_truth(truth: Matrix, asked: Questions, rows: Int) raises:
    """Checks that all row numbers that will be used exist.

    Raises:
        With the first query that has another.
    """
    for q in range(asked.count):
        for i in range(asked.k):
            var row = truth.data.ptr[Int64]()[unsafe_offset=q * truth.dim + i]
            if row < 0 or Int(row) >= rows:
                raise Error(
                    t"{truth.label}: expected neighbours among the {rows} rows, got another one for"
                    t" query {q}; the truth belongs to other vectors"
                )


def recall(
    metric: Int, dtype: Int, rows: Rows, asked: Questions, found: Matrix, truth: Matrix
) -> Float64:
    """Returns the mean share of the k true neighbours found; a tie with the k-th counts as found.

    Args:
        metric: Code of the metric.
        dtype: Code of the stored type.
        rows: The rows.
        asked: The queries.
        found: Row numbers, a line a query, -1 for none.
        truth: Row numbers that `check_truth` has seen.

    Returns:
        A number from 0 to 1.
    """
    var task = CountHits(
        rows,
        asked.queries.data.address,
        asked.count,
        asked.k,
        found.data.ptr[Int64](),
        truth.data.ptr[Int64](),
        truth.dim,
        0,
    )
    in_space(metric, dtype, task)
    return Float64(task.hits) / Float64(asked.k * asked.count)
