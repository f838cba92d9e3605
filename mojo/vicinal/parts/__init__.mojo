"""Layer 9. One graph of graphs that were made of overlapping parts of the rows, each alone.

    1  join_parts           codes of all rows, duplicates apart, as in the first `add` of an index
    2  link_rows            the upper levels, whose rows are few, in rounds
    3  UnitePartLinks.run   each row selects its links on level 0 from all that it has in its parts, a range of rows at a time (`PartLists`)
    4  repair               all rows are made reachable

Must never know who built the parts.
"""
