"""Living files: an index whose changes are journalled beside its file, and readers that follow it.

`records` is the journal byte by byte, `journal` writes one, `lock` keeps a second writer off,
`opening` finds the state of the last writer, `replay` makes the changes of records, `checkpoint`
folds them into a new file, `index` is what users hold, `follow` is what they read with.
"""
