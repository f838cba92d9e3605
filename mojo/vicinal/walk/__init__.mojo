"""Layer 5. Best-first search through links, with the scratch, the visited set and the epoch of one worker.

    1  descend             greedy search of the upper layers, down to the base layer
    2  start_beam_search   descends and begins the base layer
    3  BeamSearch.collect  the unvisited neighbours of the node to expand; False when the walk has ended
    4  measure_nodes       their distances, with memory asked for ahead
    5  BeamSearch.measure  nearer ones enter the beam

Reads graph and rows, writes scratch. Must never know how a row came to be there, what codes mean, files, or ids.
"""
