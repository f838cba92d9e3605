"""Layer 7. The nearest others of every row of an array, without an index: rows meet in groups, then by way of what they have in common.

    1  Codes.encode         all rows as signed bytes around their mean
    2  Partition.make       groups of rows that lie near one centre, each row in a few of them
    3  JoinGroups.run       all pairs of a group, by register tiles; every row keeps the nearest that it has met
    4  JoinNeighbours.run   pairs of rows that have a neighbour in common, again as long as it pays
    5  OrderExactly.run     what was kept, measured on the rows themselves

Must never know a graph that is walked, nor an index.
"""
