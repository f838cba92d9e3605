"""The one switch from codes of metric and stored type, known at run time, to the space that code is compiled for."""
from std.sys.defines import get_defined_string

from vicinal.kernels.coded_space import CodedSpace
from vicinal.kernels.space import COSINE, HAMMING, JACCARD, L2, METRICS, MetricSpace, Space
from vicinal.kernels.stored_type import (
    CODED_4,
    CODED_8,
    PACKED,
    STORED,
    STORED_TYPES,
)

comptime TYPES = STORED_TYPES
"""Stored types that are compiled; benchmarks of variants compile the first alone."""
comptime SPACES = get_defined_string["SPACES", "all"]()
"""The spaces that are compiled: "all", or "few" (`-D SPACES=few`) in a development build, which takes a third of the time."""


trait SpaceTask:
    """Work that is the same for every space but must be compiled for each."""

    def run[S: Space](mut self):
        """Does the work in one space."""
        ...


def is_compiled(metric: Int, dtype: Int) -> Bool:
    """Tells whether this build has the space of two codes; the few are l2/float32, l2/uint8 and cosine/float32.
    """
    comptime assert SPACES == "all" or SPACES == "few", "SPACES is all or few"
    comptime if SPACES == "few":
        return (
            metric == L2
            and (dtype == 0 or dtype == 4)
            or metric == COSINE
            and (dtype == 0 or dtype == CODED_8)
        )
    return True


def is_space(metric: Int, dtype: Int) -> Bool:
    """Tells whether two codes name a space whose rows are stored as they are given."""
    if metric == HAMMING or metric == JACCARD:
        return dtype == PACKED
    return 0 <= metric < METRICS and 0 <= dtype < STORED_TYPES


def in_space[Task: SpaceTask](metric: Int, dtype: Int, mut task: Task):
    """Runs a task in the space that two run-time codes name: the one switch over all combinations.

    Preconditions:
        `is_compiled`, and `is_space` or one of METRICS over codes.
    """
    comptime for m in range(METRICS):
        comptime if is_compiled(m, CODED_8):
            if metric == m and dtype == CODED_8:
                task.run[CodedSpace[m, 8]]()
        comptime if is_compiled(m, CODED_4):
            if metric == m and dtype == CODED_4:
                task.run[CodedSpace[m, 4]]()
    in_given_space(metric, dtype, task)


def in_given_space[Task: SpaceTask](metric: Int, dtype: Int, mut task: Task):
    """Does it for spaces whose rows are stored as they are given.

    Preconditions:
        `is_space` and `is_compiled`.
    """
    comptime for m in range(METRICS):
        comptime for t in range(TYPES):
            comptime stored = STORED[t]
            comptime if is_compiled(m, t):
                if metric == m and dtype == t:
                    task.run[MetricSpace[m, stored]]()
    comptime if is_compiled(HAMMING, PACKED):
        if metric == HAMMING:
            task.run[MetricSpace[HAMMING, DType.uint8]]()
        elif metric == JACCARD:
            task.run[MetricSpace[JACCARD, DType.uint8]]()
