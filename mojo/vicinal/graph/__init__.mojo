"""Layer 4. Links between rows: blocks of neighbours, their invariants, reachability, and the log that takes a change back.

Must never know a vector or a distance.
"""
