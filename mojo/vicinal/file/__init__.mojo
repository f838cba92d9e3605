"""Layer 6. A file of named arrays: written atomically, mapped, every byte under a checksum.

Must never know what an index is: the words of the header are the caller's.
"""
