"""What a build was made of: the times of its phases, and counts."""
from report import Record, fixed
from vicinal.construct.build_statistics import (
    DISTANCES,
    HOPS,
    PHASES,
    PRUNES,
    ROUNDS,
    ROWS,
    SELECTIONS,
    BuildStatistics,
)


def phase_names() -> List[String]:
    """Returns the names of the phases in the order of their numbers."""
    return ["store", "encode", "sort", "search", "link back", "fill", "repair"]


def show_phases(build_statistics: BuildStatistics, rows: Int, seconds: Float64, mut record: Record):
    """Prints two lines and adds to a record.

    Args:
        ledger: What the build has noted.
        rows: Rows of the index.
        seconds: Wall time of all of it.
        record: The record of the build.
    """
    var names = phase_names()
    var line = String("phases  ")
    var inner = Record("")
    for i in range(PHASES):
        var spent = Float64(build_statistics.of(i)) / 1e9
        line += " " + names[i] + " " + fixed(spent * 1e3, 1) + " ms"
        line += " (" + fixed(100 * spent / seconds, 1) + " %)" + ("," if i + 1 < PHASES else "")
        inner.number(String(names[i].replace(" ", "_")), spent)
    print(line)
    record.raw("phase_seconds", inner.json())
    var all = Float64(max(rows, 1))
    var hops = fixed(Float64(build_statistics.of(HOPS)) / all, 1)
    var selections = fixed(Float64(build_statistics.of(SELECTIONS)) / all, 3)
    var prunes = fixed(Float64(build_statistics.of(PRUNES)) / all, 3)
    print(
        t"counts   {build_statistics.of(ROWS)} rows linked in {build_statistics.of(ROUNDS)} rounds;"
        t" a row: {hops} hops, {selections} selections, {prunes} prunes"
    )
    record.whole("rows_linked", build_statistics.of(ROWS))
    record.whole("rounds", build_statistics.of(ROUNDS))
    record.whole("distances", build_statistics.of(DISTANCES))
    record.whole("hops", build_statistics.of(HOPS))
    record.whole("selections", build_statistics.of(SELECTIONS))
    record.whole("prunes", build_statistics.of(PRUNES))
