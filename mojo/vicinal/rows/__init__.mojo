"""Layer 3. What a row is: its state, who sees it, its id, its duplicates, where a new one goes.

Must never know which rows are near each other, nor that there is a graph.
"""
