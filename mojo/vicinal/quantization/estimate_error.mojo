"""How far estimates are off for one query: which of them may belong to a row within a given distance.

An estimate is off by a constant of the query, which changes no order, and by an error. Both are found from rows spread over
the index, measured both ways, so that it needs no formula per kind of codes.
"""
from std.math import sqrt

from vicinal.kernels.space import (
    COSINE,
    QueryDistance,
    Query,
    Rows,
    Space,
    prefetch_row,
    float_of_key,
    key_of_float,
)
from vicinal.rows.row_states import stays

comptime SAMPLE = 32
"""Rows measured both ways."""
comptime DEVIATIONS = 4.0
"""Standard deviations of the error that are allowed for: it is near to normal (docs/quantization.md)."""


@fieldwise_init
struct ErrorInterval(TrivialRegisterPassable):
    """Tells how small the estimate of a row can be, given its distance."""

    var offset: Float32
    """Mean of estimate minus distance."""
    var slack: Float32
    """What an estimate may be off besides."""
    var scale: Float32
    """Estimates for cosine are of squared distances: twice as large."""

    @staticmethod
    def of[
        S: Space, M: QueryDistance
    ](stored: Rows, query: Query, coded: Rows, prepared: Query, count: Int, states: Int) -> Self:
        """Measures a sample both ways.

        Parameters:
            S: What measures stored rows.
            M: What measures codes.

        Args:
            stored: The stored rows.
            query: The query for them.
            coded: The codes.
            prepared: The query for those.
            count: Rows that have codes, at least 1.
            marks: Address of the rows' marks, 0 if none has any; freed rows are left out.
        """
        comptime scale = Float32(2 if S.metric == COSINE else 1)
        var sampled = min(SAMPLE, count)
        for i in range(sampled):
            prefetch_row(stored, i * count // sampled)
            prefetch_row(coded, i * count // sampled)
        var sum = Float32(0)
        var squares = Float32(0)
        var first = Float32(0)
        var taken = 0
        for i in range(sampled):
            var row = i * count // sampled
            if not stays(states, row):
                continue
            var off = float_of_key(M.key(prepared, coded, row)) - scale * float_of_key(
                S.key(query, stored, row)
            )
            taken += 1
            if taken == 1:  # sums of differences to one of them do not cancel
                first = off
            sum += off - first
            squares += (off - first) * (off - first)
        if taken == 0:  # nothing is known: every row may be near
            return Self(0, Float32.MAX_FINITE, scale)
        var mean = sum / Float32(taken)
        var variance = max(squares / Float32(taken) - mean * mean, 0)
        return Self(first + mean, Float32(DEVIATIONS) * sqrt(variance), scale)

    @always_inline
    def limit(self, key: Int32) -> Int32:
        """Returns the largest key that the estimate of a row can have whose exact key is `key`."""
        return self.limit_of(float_of_key(key))

    @always_inline
    def limit_of(self, distance: Float32) -> Int32:
        """Returns the same for a distance that lacks the 1 of ip and cosine."""
        return key_of_float(self.scale * distance + self.offset + self.slack)
