"""What a search sees of an index, taken once when it begins: which rows, and what it walks on to find them."""
from vicinal.graph.links import Graph
from vicinal.kernels.space import Rows
from vicinal.quantization.code_table import Codes
from vicinal.rows.visibility import Visibility
from vicinal.system.memory import Ptr
from vicinal.system.point import EXPLORED
from vicinal.walk.arrivals import RowFile

comptime WIDE = 0 if EXPLORED else 8
"""A search of 1/8 of all rows scans them; not where schedules are explored, on fewer rows than that."""


@fieldwise_init
struct Snapshot(TrivialRegisterPassable):
    """One moment of an index; valid as long as the scratch of the search pins the epoch in which it was taken.

    Source: the read view of multi-version storage; what is visible is decided row by row, see `rows/row_states.mojo`.
    """

    var visible: Visibility
    """Which rows are seen."""
    var live: Int
    """How many they are."""
    var graph: Ptr[Graph]
    """The links; they may change meanwhile, but all rows seen can be reached through them."""
    var linked: Int
    """Rows that walks may meet, some of which may not be seen."""
    var codes: Ptr[Codes]
    """The codes."""
    var coded: Int
    """Rows that have them for certain."""
    var rows: Rows
    """Where the rows are."""
    var rows_on_disk: Bool
    """Whether they may have to be read from a file first."""
    var row_file: RowFile
    """How they are read then."""
    var exact_below: Int
    """From so many rows on walks are made."""

    @always_inline
    def known(self, coded: Bool) -> Int:
        """Returns how many rows a walk may meet, on codes or on rows."""
        return min(self.linked, self.coded) if coded else self.linked

    @always_inline
    def walked(self, coded: Bool) -> Rows:
        """Returns what a walk measures, codes or rows."""
        return self.codes[].rows(self.rows) if coded else self.rows

    @always_inline
    def exact(self, width: Int) -> Bool:
        """Tells whether a search of this width scans all rows: few rows, no links, or so wide that a walk would see most.
        """
        return (
            self.live < self.exact_below
            or self.linked < self.visible.bound
            or self.linked == 0
            or width * WIDE >= self.live
        )

    @always_inline
    def hides(self) -> Bool:
        """Tells whether a walk may meet rows that are not seen."""
        return self.visible.states != 0 or self.linked > self.visible.bound
