"""When a walk ends whose width was found by measurement: a share of the k-th distance instead of a number of candidates.

Source: distance-adaptive beam search, arXiv:2505.15636.
"""

comptime UNIT = 1024
"""`StopRule.far` counts in parts of this."""


@fieldwise_init
struct StopRule(TrivialRegisterPassable):
    """Walks hold `held` candidates, and end before one that is `far` times as far as the k-th nearest, once a part of the
    width is expanded: queries that are easy take less than the width, hard ones more.
    """

    var held: Int
    """Candidates held; 0 for no such rule."""
    var far: Int
    """Factor of what keys stand for (l2: squared distances), in parts of UNIT."""

    @staticmethod
    @always_inline
    def none() -> Self:
        """Makes the rule that changes nothing."""
        return Self(0, UNIT)

    @staticmethod
    @always_inline
    def of_word(word: Int) -> Self:
        """Reads a rule from the upper half of a word, whose lower half is a width: a call passes one number for both.
        """
        return Self(word >> 32 & 0x7FFF, word >> 47 & 0x7FFF)

    @always_inline
    def factor(self) -> Float32:
        """Returns `far` as a number."""
        return Float32(self.far) / UNIT

    @always_inline
    def expanded(self, width: Int) -> Int:
        """Returns how many candidates are expanded in any case."""
        return width // 4


@always_inline
def width_of_word(word: Int) -> Int:
    """Returns the width that a word holds beside a rule."""
    return word & 0xFFFFFFFF
