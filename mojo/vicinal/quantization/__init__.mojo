"""Layer 6. Compressed codes of rows: which kind, how a row is encoded, how a query meets it, how far an estimate is off.

Must never know links.
"""
