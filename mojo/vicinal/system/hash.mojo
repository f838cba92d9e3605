"""A hash of numbers, the same on every machine."""


@always_inline
def mix(seed: Int, row: Int) -> UInt64:
    """Returns a hash of seed and row (the finaliser of SplitMix64, Steele et al. 2014)."""
    var z = UInt64(seed) * 0x9E3779B97F4A7C15 + UInt64(row + 1) * 0xD1B54A32D192ED03
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)
