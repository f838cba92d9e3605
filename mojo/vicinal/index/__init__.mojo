"""Layer 7. The index: owns rows, ids, links, codes and statistics; saves and opens them as a file.

Must never know who calls it, or how a search or an update goes.
"""
