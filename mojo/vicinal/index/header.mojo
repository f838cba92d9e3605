"""What a file says of an index beside its sections: 19 words, their limits, and the version of the format that they need."""
from vicinal.file.format import BAD_FIELD, FileFields, name_of
from vicinal.file.mapped import Mapped
from vicinal.file.posix import Status
from vicinal.kernels.distance import MAX_DIM
from vicinal.kernels.space import HAMMING, JACCARD
from vicinal.kernels.stored_type import CODED_4, PACKED, STORED_TYPES, is_coded
from vicinal.quantization.code_table import KINDS_OF_CODES


@fieldwise_init
struct Header(FileFields):
    """What the file says beside its sections, in the order of the file."""

    var metric: Int
    """Code of the metric."""
    var dtype: Int
    """Code of the stored type."""
    var dim: Int
    """Elements of a vector."""
    var count: Int
    """Vectors."""
    var linked: Int
    """Vectors that are in the graph, the first ones."""
    var M: Int
    """Links that a new row selects on each level."""
    var ef_construction: Int
    """Width of the search that places a row."""
    var ef_search: Int
    """Default width of a search; 0 for the library's."""
    var seed: Int
    """Seed of the levels, any 64 bits."""
    var entry: Int
    """Entry point of the graph, -1 for none."""
    var max_level: Int
    """Highest level of the graph."""
    var exact_below: Int
    """Up to this many rows, searches scan all."""
    var unrepaired: Int
    """Vectors that came into the graph since all were last made reachable."""
    var quantization: Int
    """Codes that were asked for, see `coding`; 0 also in files older than codes."""
    var codes: Int
    """Kind of codes that searches walk on, see `codes`; 0 also in files older than codes."""
    var duplicates: Int
    """Vectors that equal earlier ones and are found through those; 0 in version 1."""
    var strings: Int
    """1 if ids are the numbers of strings, 0 if they are the user's; 0 in version 1."""
    var removed: Int
    """Vectors that are not there any more and whose rows are not in use again, see `states`; 0 in version 1."""
    var shaded: Int
    """Those of them that take part in the graph still; 0 in version 1."""

    @staticmethod
    def none() -> Self:
        """Returns the header of no file."""
        return Self(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

    def version(self) -> Int:
        """Returns the oldest version whose readers understand the file."""
        return 2 if self.strings != 0 or self.duplicates != 0 or self.removed != 0 else 1

    def problem(self) -> Status:
        """Returns the first field that no index can have, or success."""
        var status = Status.done()
        _limit(status, "metric", self.metric, 0, JACCARD)
        var packed = self.metric >= HAMMING
        _limit(
            status,
            "dtype",
            self.dtype,
            PACKED if packed else 0,
            PACKED if packed else (CODED_4 if is_coded(self.dtype) else STORED_TYPES - 1),
        )
        _limit(status, "dim", self.dim, 1, MAX_DIM)
        _limit(status, "count", self.count, 0, Int(UInt32.MAX) - 1)
        _limit(status, "linked", self.linked, 0, self.count)
        _limit(status, "M", self.M, 0, Int(Int32.MAX))
        _limit(status, "ef_construction", self.ef_construction, 1, Int(Int32.MAX))
        _limit(status, "ef_search", self.ef_search, 0, Int(Int32.MAX))
        _limit(status, "entry", self.entry, -1, self.linked - 1)
        _limit(status, "max_level", self.max_level, 0, 255)
        _limit(status, "exact_below", self.exact_below, 0, Int.MAX)
        _limit(status, "unrepaired", self.unrepaired, 0, self.linked)
        _limit(status, "quantization", self.quantization, 0, KINDS_OF_CODES)
        _limit(status, "codes", self.codes, 0, KINDS_OF_CODES - 1)
        _limit(status, "copies", self.duplicates, 0, self.linked)
        _limit(status, "strings", self.strings, 0, 1)
        _limit(status, "removed", self.removed, 0, self.count)
        _limit(status, "shaded", self.shaded, 0, self.removed)
        return status


def _limit(mut status: Status, name: StringLiteral, value: Int, low: Int, high: Int):
    """Notes a field outside its limits, unless something was noted before."""
    if status.ok() and (value < low or value > high):
        status = Status(BAD_FIELD, value, 0, name_of(name))


comptime IndexFile = Mapped[Header]
"""A mapped file of an index."""
