"""Layer 2. How far a row is from a query: metric x stored type, and the bounded sorted buffer of what is nearest.

Knows the bytes of one row and of one query. Must never know threads, nor memory that it was not given.
"""
