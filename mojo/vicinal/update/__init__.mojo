"""Layer 8. Changing an index: one writer at a time, searches beside it.

    1  Change.begin_insert, Change.begin_delete  target rows, ids and row states of what comes and goes
    2  do_change                                 the work, without the GIL: checks and stores the new rows
    3  own_rows                                  rows that lie in memory of the caller are copied first
    4  encode                                    codes of the new rows; of all rows where the data want another kind
    5  link_change                               duplicates apart (`SplitDuplicates`), then `link_rows` of `construct`
    6  Change.commit                             the moment from which on everybody sees the change
    7  Change.finish                             frees what nobody needs any more
    8  consolidate                               removed rows are unlinked, then wiped, each once no search may meet them
    -  Change.roll_back                          instead of 6 to 8: the index is as it was, byte for byte

Must never know how a query is answered.
"""
