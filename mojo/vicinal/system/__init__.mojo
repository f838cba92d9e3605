"""Layer 1. Memory, threads, atomics, clock, checksum and hash, straight from libc.

Must never know what a vector is, and never starts a thread that outlives the call.
"""
