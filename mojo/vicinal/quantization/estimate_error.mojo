"""How far estimates are off for one query: which of them may belong to a row within a given distance.

An estimate is off by a constant of the query, which changes no order, and by an error. Both are found from rows that were
measured both ways, so that it needs no formula per kind of codes: a search has measured its first candidates both ways
anyway, a range search measures some rows spread over the index.
"""
from std.math import sqrt

from vicinal.kernels.any_distance import AnyDistance
from vicinal.kernels.space import (
    COSINE,
    Query,
    Rows,
    prefetch_row,
    float_of_key,
    key_of_float,
)
from vicinal.rows.visibility import Visibility

comptime SAMPLE = 32
"""Rows measured both ways."""
comptime DEVIATIONS = 4.0
"""Standard deviations of the error that are allowed for: it is near to normal (docs/measurements/quantization.md)."""


struct EstimateError(TrivialRegisterPassable):
    """Tells how small the estimate of a row can be, given its distance; learns from rows measured both ways.
    """

    var scale: Float32
    """Estimates for cosine are of squared distances: twice as large."""
    var count: Int
    """Rows measured both ways."""
    var first: Float32
    """Estimate minus distance of the first; sums of differences to one of them do not cancel."""
    var sum: Float32
    var squares: Float32

    def __init__(out self, metric: Int):
        """Knows nothing yet."""
        self.scale = 2 if metric == COSINE else 1
        self.count = 0
        self.first = 0
        self.sum = 0
        self.squares = 0

    @always_inline
    def learn(mut self, estimate: Int32, exact: Int32):
        """Takes in the keys of a row that was measured both ways."""
        var off = float_of_key(estimate) - self.scale * float_of_key(exact)
        if self.count == 0:
            self.first = off
        off -= self.first
        self.count += 1
        self.sum += off
        self.squares += off * off

    @always_inline
    def limit(self, exact: Int32, deviations: Float32 = DEVIATIONS) -> Int32:
        """Returns the largest key that the estimate of a row can have whose exact key is `exact`.
        """
        return self.limit_of(float_of_key(exact), deviations)

    @always_inline
    def limit_of(self, distance: Float32, deviations: Float32 = DEVIATIONS) -> Int32:
        """Returns the same for a distance that lacks the 1 of ip and cosine."""
        if self.count == 0:  # nothing is known: every row may be near
            return Int32.MAX
        var mean = self.sum / Float32(self.count)
        var variance = max(self.squares / Float32(self.count) - mean * mean, 0)
        return key_of_float(self.scale * distance + self.first + mean + deviations * sqrt(variance))

    @staticmethod
    def of_sample(
        metric: Int,
        stored: Rows,
        query: Query,
        coded: Rows,
        prepared: Query,
        count: Int,
        visible: Visibility,
    ) -> Self:
        """Measures a sample both ways.

        Args:
            metric: The metric.
            stored: The stored rows, which `AnyDistance` can measure.
            query: The query for them.
            coded: The codes, which it can measure, too.
            prepared: The query for those.
            count: Rows that have codes, at least 1.
            visible: Which rows the search sees: others may be written over meanwhile, and are left out.
        """
        var error = Self(metric)
        var sampled = min(SAMPLE, count)
        for i in range(sampled):
            prefetch_row(stored, i * count // sampled)
            prefetch_row(coded, i * count // sampled)
        for i in range(sampled):
            var row = i * count // sampled
            if visible.is_visible(row):
                error.learn(
                    AnyDistance.key(prepared, coded, row), AnyDistance.key(query, stored, row)
                )
        return error
