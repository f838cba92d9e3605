"""Vicinal's kernels, graph and storage: needs libc alone at run time."""
