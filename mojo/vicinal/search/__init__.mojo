"""Layer 8. Answering queries. Reads an index, writes scratch and results; imports nothing of `construct`.

    1  search_many           checks every query, chooses between a scan and the graph, shares the queries among threads
    2  Answer.run            a share of the queries, with a scratch that pins the epoch
    3  Index.snapshot        which rows are visible, and the graph, the codes and the rows to use for them
    4  Answer.answer         what to walk on: stored rows, or codes of a kind
    5  run_interleaved       several walks of one thread at a time, each waiting for memory while the others work
    6  PlainSearches.start   prepares the query for the codes, then `start_beam_search` of `walk`
    7  PlainSearches.finish  drops rows that this search must not see
    8  measure_in_order      the best candidates of estimates, measured on the stored rows up to a bound
    9  Duplicates.expand     duplicates join the row that stands for them; distances and ids are written

`search_filtered`, `search_range` and `trace` differ in step 1 (which rows are allowed, which plan) and in what the walk keeps;
the walks of `search_filtered` go in turns as others do (`FilteredSearches`).
Must never know how a row came to be there.
"""
