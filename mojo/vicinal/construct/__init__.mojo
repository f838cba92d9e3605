"""Layer 6. How rows are linked, and how links to removed rows are replaced.

    1  link_rows         insertion in rounds, in passes drawn from the seed (`Passes`): every row of a round searches the graph as
                         it stands, and sees rows of its round
    2  robust_prune      which of the nearest rows become its neighbours
    3  AddBackEdges.run  each block that gets back edges is changed by one owner
    4  refine_new_nodes  slots left free go to neighbours of neighbours
    5  unlink_removed    links to removed rows are replaced by links past them
    6  look_again        rows that lost links which nothing near replaces look for all their links anew
    7  repair            rows that the entry point no longer reaches are linked once more

The same rows, seed and parameters give the same links for any number of threads. Must never know files, ids, or who asked for
the change.
"""
