"""Asking for memory before it is needed."""
from std.sys import PrefetchOptions, prefetch

from vicinal.system.memory import at

comptime CACHE_LINE = 64


@always_inline
def prefetch_line(address: Int):
    """Asks for the cache line of an address."""
    prefetch[PrefetchOptions().for_read().high_locality().to_data_cache()](at[UInt8](address).start)
