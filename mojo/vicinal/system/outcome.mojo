"""How work ended: the one way in which the library tells it. Calls on files tell more: `file/posix.Status`."""


@fieldwise_init
struct Outcome(Equatable, TrivialRegisterPassable, Writable):
    """DONE, STOPPED, NO_MEMORY, or a refusal: what was refused, by its position in the batch, and why.

    One number, since the bindings hand it to Python: 0, -1, -2, or 8 * position + kind.
    """

    var code: Int

    @staticmethod
    @always_inline
    def refusal(position: Int, kind: Int) -> Self:
        """Makes the refusal of a whole batch for one of its items."""
        return Self(8 * position + kind)

    @always_inline
    def __eq__(self, other: Self) -> Bool:
        """Tells whether work ended in the same way."""
        return self.code == other.code

    @always_inline
    def __ne__(self, other: Self) -> Bool:
        """Tells whether work ended in another way."""
        return self.code != other.code

    def write_to(self, mut writer: Some[Writer]):
        """Writes the code."""
        writer.write(self.code)


comptime DONE = Outcome(0)
"""All of it is done."""
comptime STOPPED = Outcome(-1)
"""A watch ended the work."""
comptime NO_MEMORY = Outcome(-2)
"""Memory, address space or row numbers are out."""

# Kinds of refusal, 1 to 7; `python/vicinal/_validate.py` makes exceptions of them.
comptime FINE = 0
"""No refusal."""
comptime NOT_FINITE = 1
"""NaN or infinity."""
comptime ZERO_VECTOR = 2
"""Length 0 for cosine."""
comptime TOO_LARGE = 3
"""Distances would overflow."""
comptime KNOWN_ID = 4
"""An id that is present already or twice in its batch."""
comptime NOT_BYTES = 5
"""A row that the exact codes asked for cannot hold."""
comptime TOO_SMALL = 6
"""A float row with elements that are all too small to tell distances."""
comptime UNKNOWN_ROW = 7
"""A row to be removed that is not there, or twice in its batch."""
