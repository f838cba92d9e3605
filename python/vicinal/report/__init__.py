"""A page about one index: what it is, how much it finds, how fast, and where it is weak.

`vicinal report FILE -o report.html` is the command. The page is one file that opens without a
network: styles and plots are in it, and the numbers as JSON. Needs no package but NumPy.
"""

from __future__ import annotations

from vicinal.report._measure import measure
from vicinal.report._page import page
from vicinal.report._peers import PEERS

__all__ = ["PEERS", "measure", "page"]
