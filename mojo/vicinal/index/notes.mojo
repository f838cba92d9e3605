"""What the caller wants to be kept with an index and in its files; nothing in the library reads it."""
from vicinal.system.memory import Column

comptime TUNING_WORDS = 8
"""Words, int64, of one row of `Notes.tuning`."""


struct Notes(Movable):
    """Matters of the caller."""

    var ef_search: Int
    """Default search width that the file remembered, 0 for none."""
    var tuning: Column
    """Search widths that were found for a wanted recall, rows of TUNING_WORDS int64."""
    var tunings: Int
    """Rows of it."""
    var stop_rules: Column
    """For each of them an int64 that says when its walks end, unless it is empty."""
    var queries: Column
    """A sample of queries, bytes as files have them."""
    var query_bytes: Int
    """Bytes of it."""
    var attributes: Column
    """Bytes of any meaning."""
    var attribute_bytes: Int
    """How many they are."""

    def __init__(out self):
        """Keeps nothing."""
        self.ef_search = 0
        self.tuning = Column()
        self.tunings = 0
        self.stop_rules = Column()
        self.queries = Column()
        self.query_bytes = 0
        self.attributes = Column()
        self.attribute_bytes = 0
