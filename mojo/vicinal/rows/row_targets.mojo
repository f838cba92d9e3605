"""Where new rows go: free rows first, the lowest first, then rows behind the last."""
from vicinal.system.memory import Ptr, at


@fieldwise_init
struct TargetRows(TrivialRegisterPassable):
    """A list of rows, and all rows from a first one on behind it."""

    var list: Ptr[UInt32]
    """Rows, ascending."""
    var listed: Int
    """Rows in the list."""
    var first: Int
    """The row that follows the list; the others follow it."""

    @staticmethod
    def from_row(first: Int) -> TargetRows:
        """Makes places without a list."""
        return TargetRows(at[UInt32](64), 0, first)

    @always_inline
    def row(self, i: Int) -> Int:
        """Returns place i."""
        if i < self.listed:
            return Int(self.list[unsafe_offset=i])
        return self.first + i - self.listed

    def find(self, row: Int) -> Int:
        """Returns the number of the place that a row is, which may be beyond the last; -1 if it is none.
        """
        if row >= self.first:
            return self.listed + row - self.first
        var low = 0
        var high = self.listed
        while low < high:
            var middle = (low + high) // 2
            if Int(self.list[unsafe_offset=middle]) < row:
                low = middle + 1
            else:
                high = middle
        return low if low < self.listed and Int(self.list[unsafe_offset=low]) == row else -1

    def listed_only(self) -> TargetRows:
        """Returns the listed rows as places of their own."""
        return TargetRows(self.list, self.listed, 0)
