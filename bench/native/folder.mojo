"""Vector sets in a folder, laid out as `tests/data` is."""
from std.os import listdir
from std.os.path import exists, isdir, join

from options import metric_names


@fieldwise_init
struct VectorSet(Copyable, Movable):
    """The files of one set."""

    var base: String
    var queries: String
    var truth: String
    """Empty if there is none."""
    var metric: String


def find_sets(path: String) raises -> List[VectorSet]:
    """Returns the sets in a folder, then in the folders in it; says which it cannot read.

    Raises:
        Where there is none.
    """
    var sets = List[VectorSet]()
    _add_set(path, sets)
    var names = listdir(path)
    sort(names)
    for name in names:
        var inner = join(path, name)
        if isdir(inner) and not name.startswith("."):
            _add_set(inner, sets)
    if not sets:
        raise Error(
            t"{path}: expected base.npy and queries.npy, or *_base.fvecs and *_query.fvecs, in it"
            t" or below"
        )
    return sets^


def _add_set(path: String, mut sets: List[VectorSet]) raises:
    """Adds the set that lies in a folder, if one does."""
    var metric = _metric_of(path)
    for ending in ["", "_u8"]:
        var base = join(path, "base" + ending + ".npy")
        var queries = join(path, "queries" + ending + ".npy")
        if exists(base) and exists(queries):
            var truth = join(path, "gt_ids.npy")
            sets.append(VectorSet(base, queries, truth if exists(truth) else "", metric))
            return
    var base = String("")
    var queries = String("")
    var truth = String("")
    for name in listdir(path):
        if name.endswith("base.fvecs") or name.endswith("base.bvecs"):
            base = join(path, name)
        elif name.endswith("query.fvecs") or name.endswith("query.bvecs"):
            queries = join(path, name)
        elif name.endswith("groundtruth.ivecs"):
            truth = join(path, name)
        elif name.endswith(".npz"):
            print(t"{join(path, name)}: left out, .npz files are not read")
    if base and queries:
        sets.append(VectorSet(base, queries, truth, metric))


def _metric_of(path: String) raises -> String:
    """Returns the metric that the manifest of a set names, l2 if there is none.

    Raises:
        Where the manifest names a metric that is not known.
    """
    var manifest = join(path, "manifest.json")
    if not exists(manifest):
        return "l2"
    var text: String
    with open(manifest, "r") as file:
        text = file.read()
    var key = text.find('"metric"')
    if key < 0:
        return "l2"
    var colon = text.find(":", key)
    var begin = text.find('"', colon) + 1 if colon >= 0 else 0
    var end = text.find('"', begin) if begin > 0 else -1
    var said = String(text[byte=begin:end]).lower() if end >= 0 else String("")
    var words: List[String] = ["l2", "ip", "cosine", "euclidean", "inner", "dot", "angular"]
    var codes: List[Int] = [0, 1, 2, 0, 1, 1, 2]
    for i in range(len(words)):
        if said.startswith(words[i]):
            return metric_names()[codes[i]]
    raise Error(
        t"{manifest}: expected a metric that begins with one of {', '.join(words)}, got '{said}'"
    )
