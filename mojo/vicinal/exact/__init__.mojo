"""Layer 6. Exact search: every row is measured, or shown to be too far by a register tile and a bound on its rounding.

Must never know a graph.
"""
