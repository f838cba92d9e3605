"""The file: layout, round trips, damage, atomic replacement. docs/design/format.md in code."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import vicinal
from support.files import sections_of
from support.processes import assert_lived
from support.processes import run as child
from support.rows import stored
from vicinal import _file_status
from vicinal._cpu import native

PAGE = 4096
BLOCK = 65536
ITEM_BYTES = [4, 2, 2, 1, 1, 8, 4]
DTYPES = ["float32", "float16", "bfloat16", "int8", "uint8"]


def crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc_table()


def crc32c(data: bytes, start: int = 0) -> int:
    """The slow and obvious one."""
    state = start ^ 0xFFFFFFFF
    for byte in data:
        state = (state >> 8) ^ CRC_TABLE[(state ^ byte) & 255]
    return state ^ 0xFFFFFFFF


def boundaries(data: bytes) -> list[int]:
    """First byte and end of each section."""
    places = [(part.offset, part.offset + part.size) for part in sections_of(data).values()]
    return sorted(set(sum(places, ())))


def resum(data: bytearray) -> None:
    """Makes the checksum of a changed header right."""
    struct.pack_into("<I", data, 4092, crc32c(bytes(data[:4092])))


def rows_of(dtype: str, count: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "int8":
        return rng.integers(-128, 128, (count, dim), dtype=np.int8)
    if dtype == "uint8":
        return rng.integers(0, 256, (count, dim), dtype=np.uint8)
    rows = rng.standard_normal((count, dim)).astype(np.float32)
    return stored(rows, dtype)


def queries_of(dtype: str, count: int, dim: int) -> np.ndarray:
    if dtype in ("int8", "uint8"):
        return rows_of(dtype, count, dim, seed=1)
    return rows_of("float32", count, dim, seed=1)


QUERIES = queries_of("float32", 20, 20)


@pytest.fixture(scope="module")
def index() -> vicinal.Index:
    """Large enough for a graph with upper levels, with ids of its own."""
    made = vicinal.Index(20, M=8, ef_construction=40, quantization="rabitq4", seed=3)
    made.add(rows_of("float32", 3000, 20), ids=np.arange(3000, dtype=np.int64) * 7 - 5)
    return made


@pytest.fixture(scope="module")
def image(index: vicinal.Index, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("image") / "index.vicinal"
    index.save(path)
    return path.read_bytes()


@pytest.fixture
def path(image: bytes, tmp_path: Path) -> Path:
    file = tmp_path / "index.vicinal"
    file.write_bytes(image)
    return file


def assert_same_answers(a: vicinal.Index, b: vicinal.Index, queries: np.ndarray) -> None:
    first, second = a.search(queries, 10), b.search(queries, 10)
    np.testing.assert_array_equal(first.ids, second.ids)
    np.testing.assert_array_equal(first.distances, second.distances)


# ---- the checksum


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 32, 1007, 1008, 1009, 4096, 65519, 65520, 65537])
def test_crc32c_equals_the_obvious_one(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size + 3, dtype=np.uint8)
    for shift in (0, 3):
        part = data[shift : shift + size]
        assert native.crc32c(part, 0) == crc32c(part.tobytes())
        cut = size // 3
        assert native.crc32c(part[cut:], native.crc32c(part[:cut], 0)) == native.crc32c(part, 0)


def test_crc32c_check_value() -> None:
    assert native.crc32c(b"123456789", 0) == 0xE3069283
    with pytest.raises(ValueError, match="start: expected 32 bits"):
        native.crc32c(b"", -1)


# ---- the bytes


def test_layout_is_as_documented(image: bytes, index: vicinal.Index) -> None:
    magic, version, mark, size, _ = struct.unpack_from("<8sIIqq", image, 0)
    assert magic == b"\xf7VICINAL"
    assert (version, mark, size) == (1, 0x01020304, len(image))
    assert index.stats()["format_version"] == 1 < _file_status.FORMAT_VERSION
    fields = struct.unpack_from("<17q", image, 32)
    metric, dtype, dim, count, linked, m, ef_construction, ef_search, seed, entry = fields[:10]
    assert fields[15:] == (0, 0)
    assert (metric, dtype, dim, count, linked) == (0, 0, 20, 3000, 3000)
    assert (m, ef_construction, ef_search, seed) == (8, 40, index.ef_search, 3)
    assert entry >= 0
    sections = sections_of(image)
    assert list(sections) == [
        *("vectors", "links0", "upper_rows", "upper_start", "upper_links", "ids"),
        *("codes", "code_constants", "code_centre", "code_reach", "checksums"),
    ]
    assert not any(image[168:256])
    assert not any(image[256 + 64 * len(sections) : 4088])
    end = PAGE
    for _, start, length, rows, columns, kind in sections.values():
        assert start == -(-end // PAGE) * PAGE
        assert length == rows * columns * ITEM_BYTES[kind]
        assert not any(image[end:start])
        end = start + length
    assert end == len(image)
    _, start, length, *_ = sections["ids"]
    ids = np.frombuffer(image, np.int64, length // 8, start)
    np.testing.assert_array_equal(ids, np.arange(3000) * 7 - 5)
    _, start, length, *_ = sections["vectors"]
    rows = np.frombuffer(image, np.float32, length // 4, start).reshape(3000, -1)[:, :20]
    np.testing.assert_array_equal(rows, rows_of("float32", 3000, 20))


def test_every_byte_has_a_checksum(image: bytes) -> None:
    _, start, length, *_ = sections_of(image)["checksums"]
    sums = np.frombuffer(image, np.uint32, length // 4, start)
    blocks = [image[at : min(at + BLOCK, start)] for at in range(PAGE, start, BLOCK)]
    assert sums.tolist() == [crc32c(block) for block in blocks]
    sum_of_sums, sum_of_header = struct.unpack_from("<II", image, 4088)
    assert sum_of_sums == crc32c(image[start:])
    assert sum_of_header == crc32c(image[:4092])


def test_same_index_same_bytes(index: vicinal.Index, image: bytes, tmp_path: Path) -> None:
    index.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == image


# ---- round trips


@pytest.mark.parametrize("mode", ["r", "copy"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_round_trip(metric: str, dtype: str, mode: str, tmp_path: Path) -> None:
    made = vicinal.Index(33, metric, dtype=dtype, M=4, ef_construction=20)
    made.add(rows_of(dtype, 2200, 33))
    made.save(tmp_path / "file")
    opened = vicinal.open(tmp_path / "file", mode=mode, verify=True)
    assert (opened.dim, opened.metric, opened.dtype, len(opened)) == (33, metric, dtype, 2200)
    assert_same_answers(made, opened, queries_of(dtype, 10, 33))
    np.testing.assert_array_equal(made.ids, opened.ids)
    np.testing.assert_array_equal(made.get([5, 2199]), opened.get([5, 2199]))
    opened.check()


@pytest.mark.parametrize("mode", ["r", "copy"])
@pytest.mark.parametrize("quantization", [None, "u8", "sq8", "rabitq4"])
def test_round_trip_of_codes(quantization: str | None, mode: str, tmp_path: Path) -> None:
    made = vicinal.Index(33, M=4, ef_construction=20, quantization=quantization)
    rows = rows_of("uint8", 2200, 33).astype(np.float32)
    made.add(rows)
    made.save(tmp_path / "file")
    opened = vicinal.open(tmp_path / "file", mode=mode, verify=True)
    assert opened.stats()["quantization"] == made.stats()["quantization"] == quantization
    found = made.search(rows[:10], 10, ef_search=40), opened.search(rows[:10], 10, ef_search=40)
    np.testing.assert_array_equal(found[0].ids, found[1].ids)
    np.testing.assert_array_equal(found[0].distances, found[1].distances)
    opened.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("count", [0, 1, 100])
def test_round_trip_without_a_graph(count: int, tmp_path: Path) -> None:
    made = vicinal.Index(7)
    if count:
        made.add(rows_of("float32", count, 7))
    made.save(tmp_path / "file")
    opened = vicinal.open(tmp_path / "file", verify=True)
    assert len(opened) == count
    assert_same_answers(made, opened, queries_of("float32", 3, 7))


def test_a_copy_goes_on_as_the_original_would(tmp_path: Path) -> None:
    rows = rows_of("float32", 4000, 12)
    made = vicinal.Index(12, M=6, ef_construction=30, seed=9)
    made.add(rows[:3000])
    made.save(tmp_path / "half")
    opened = vicinal.open(tmp_path / "half", mode="copy")
    np.testing.assert_array_equal(made.add(rows[3000:]), opened.add(rows[3000:]))
    made.save(tmp_path / "a")
    opened.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_read_only_map_refuses_to_grow(path: Path) -> None:
    opened = vicinal.open(path)
    with pytest.raises((ValueError, TypeError), match=r"read-only|mode"):
        opened.add(rows_of("float32", 1, 20))
    assert len(opened) == 3000


SEARCH = """
    import json, sys
    import numpy as np, vicinal
    queries = np.load(sys.argv[2])
    found = vicinal.open(sys.argv[1], verify=True).search(queries, 10)
    print(json.dumps([found.ids.tolist(), found.distances.tolist()]))
"""


def test_two_processes_read_what_a_third_wrote(
    index: vicinal.Index, path: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "queries.npy", QUERIES)
    command = [sys.executable, "-c", textwrap.dedent(SEARCH), path, tmp_path / "queries.npy"]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = index.search(QUERIES, 10)
    for reader in readers:
        out, _ = reader.communicate(timeout=600)
        assert reader.returncode == 0
        assert json.loads(out) == [found.ids.tolist(), found.distances.tolist()]


def test_pickle_and_copy(index: vicinal.Index) -> None:
    for other in (pickle.loads(pickle.dumps(index)), copy.deepcopy(index)):
        assert_same_answers(index, other, QUERIES)
        other.add(rows_of("float32", 2, 20, seed=5))
        assert len(other) == len(index) + 2


FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.mark.parametrize("mode", ["r", "copy"])
@pytest.mark.parametrize(
    "name",
    [
        *("graph_l2_float32", "graph_cosine_uint8", "scan_ip_float16", "empty"),
        *("u8_l2_float32", "sq8_ip_float16", "rabitq4_l2_float32"),
    ],
)
def test_files_of_version_1_stay_readable(name: str, mode: str) -> None:
    folder = FIXTURES / "format_v1"
    expected = json.loads((folder / "expected.json").read_text())[name]
    opened = vicinal.open(folder / f"{name}.vicinal", mode=mode, verify=True)
    opened.check()
    assert opened.ids.tolist() == expected["ids"]
    assert (opened.M, opened.ef_construction, opened.ef_search, opened.seed) == (3, 40, 32, 11)
    assert opened.get(opened.ids).tolist() == expected["rows"]
    kind, *_ = name.split("_")
    assert (opened.stats()["graph_rows"] > 0) == (kind not in ("scan", "empty"))
    assert opened.stats()["quantization"] == (kind if kind in ("u8", "sq8", "rabitq4") else None)
    dtype = np.uint8 if "uint8" in name else np.float32
    found = opened.search(np.array(expected["queries"], dtype), 5, ef_search=150)
    assert found.ids.tolist() == expected["found"]
    np.testing.assert_allclose(found.distances, expected["distances"], rtol=1e-5, atol=1e-6)
    if expected["rows"]:  # a width that walks the graph where there is one
        walked = opened.search(np.array(expected["queries"], dtype), 5, ef_search=15)
        # 17 of 20 are found in the coarsest graph, three links a row and inner products
        assert vicinal.recall_at_k(walked.ids, found.ids) >= 0.85


# ---- saving


def test_saves_over_the_file_it_is_mapped_from(path: Path, image: bytes) -> None:
    opened = vicinal.open(path)
    before = opened.search(QUERIES, 10)
    opened.save(path)
    assert path.read_bytes() == image
    np.testing.assert_array_equal(opened.search(QUERIES, 10).ids, before.ids)
    opened.verify()


def test_who_has_the_old_file_open_keeps_it(path: Path, index: vicinal.Index) -> None:
    old = vicinal.open(path)
    other = vicinal.Index(3)
    other.add(np.eye(3, dtype=np.float32))
    other.save(path)
    assert_same_answers(old, index, QUERIES)
    old.verify()
    assert len(vicinal.open(path, verify=True)) == 3
    path.unlink()
    assert_same_answers(old, index, QUERIES)


def test_full_disk_leaves_the_old_file_and_no_other(path: Path, image: bytes) -> None:
    code = """
        import errno, resource, sys
        import vicinal
        index = vicinal.open(sys.argv[1], mode="copy")
        for room in (0, 4096, 100_000, int(sys.argv[2]) - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            try:
                index.save(sys.argv[1])
            except OSError as error:
                assert error.errno == errno.EFBIG, error
                assert error.filename == sys.argv[1], error
            else:
                sys.exit("saved without room")
    """
    assert_lived(child(code, path, len(image)))
    assert path.read_bytes() == image
    assert os.listdir(path.parent) == [path.name]


def test_killed_at_any_moment_leaves_a_whole_file(path: Path) -> None:
    code = """
        import sys
        import vicinal
        indexes = [vicinal.open(sys.argv[1], mode="copy") for _ in range(2)]
        indexes[1].add(indexes[1].get(indexes[1].ids[:200]))
        print("ready", flush=True)
        while True:
            for index in indexes:
                index.save(sys.argv[1])
    """
    seen = set()
    for pause in (0.0, 0.003, 0.007, 0.011, 0.02, 0.03):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), path], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        opened = vicinal.open(path, verify=True)
        opened.check()
        seen.add(len(opened))
        # the next round starts from the file of 3,000 rows
        if len(opened) != 3000:
            copied = vicinal.Index(20, M=8, ef_construction=40, seed=3)
            copied.add(rows_of("float32", 3000, 20), ids=np.arange(3000, dtype=np.int64) * 7 - 5)
            copied.save(path)
    assert seen <= {3000, 3200}


def test_permissions_are_respected(index: vicinal.Index, path: Path, image: bytes) -> None:
    path.chmod(0o444)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(PermissionError) as caught:
        index.save(path)
    assert caught.value.filename == str(path)
    path.parent.chmod(0o555)
    try:
        with pytest.raises(PermissionError):
            index.save(path.parent / "new")
    finally:
        path.parent.chmod(0o755)
    assert path.read_bytes() == image
    path.chmod(0o000)
    with pytest.raises(PermissionError):
        vicinal.open(path)


def test_new_files_obey_the_umask_and_old_ones_keep_their_mode(
    index: vicinal.Index, path: Path
) -> None:
    before = os.umask(0o027)
    try:
        index.save(path.parent / "new")
        path.chmod(0o606)
        index.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((path.parent / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE(path.stat().st_mode) == 0o606


def test_links_are_followed(index: vicinal.Index, path: Path, image: bytes) -> None:
    folder = path.parent / "links"
    folder.mkdir()
    (folder / "link").symlink_to("../index.vicinal")
    path.write_bytes(b"old")
    index.save(folder / "link")
    assert (folder / "link").is_symlink()
    assert path.read_bytes() == image
    assert len(vicinal.open(folder / "link")) == 3000
    (folder / "nowhere").symlink_to("none")
    with pytest.raises(FileNotFoundError):
        index.save(folder / "nowhere")
    assert os.listdir(folder) in (["link", "nowhere"], ["nowhere", "link"])


def test_targets_that_cannot_be_replaced(index: vicinal.Index, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        index.save(tmp_path / "none" / "file")
    assert caught.value.filename == str(tmp_path / "none" / "file")
    with pytest.raises(IsADirectoryError):
        index.save(tmp_path)
    with pytest.raises(IsADirectoryError):
        index.save(f"{tmp_path}/new/")
    with pytest.raises(FileNotFoundError):
        index.save("")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        index.save(tmp_path / "file" / "below")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Not a regular file"):
        index.save(tmp_path / "pipe")
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]


@pytest.mark.parametrize("name", ["a b", "ünï", b"\xff\xfe".decode("utf-8", "surrogateescape")])
def test_names(index: vicinal.Index, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for form in (path, str(path), os.fsencode(path)):
        index.save(form)  # type: ignore[arg-type]
        assert len(vicinal.open(form)) == 3000  # type: ignore[arg-type]
    assert [os.fsencode(entry) for entry in os.listdir(tmp_path)] == [os.fsencode(name)]


def test_a_bare_name_is_in_the_current_folder(
    index: vicinal.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    index.save("x" * 255)
    assert len(vicinal.open("x" * 255)) == 3000
    with pytest.raises(OSError) as caught:
        index.save("x" * 256)
    assert caught.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("wrong", [3, None, 1.5, ["a"]])
def test_a_path_must_be_a_path(index: vicinal.Index, wrong: object) -> None:
    for use in (index.save, vicinal.open):
        with pytest.raises(TypeError, match=r"path: expected str, bytes or os\.PathLike, got"):
            use(wrong)  # type: ignore[operator]


def test_a_path_has_no_nul(index: vicinal.Index) -> None:
    for use in (index.save, vicinal.open):
        with pytest.raises(ValueError, match="path: expected no NUL character"):
            use("a\0b")  # type: ignore[operator]


# ---- what is refused


def test_missing_folder_and_special_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        vicinal.open(tmp_path / "none")
    assert caught.value.filename == str(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        vicinal.open(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", "/dev/null", "/dev/zero"):
        with pytest.raises(OSError, match="Not a regular file") as refused:
            vicinal.open(special)
        assert refused.value.filename == str(special)


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04 something zipped",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}",
        b"{}",
        b"\0" * 10_000,
        b"vicinal\n" * 1000,
        np.random.default_rng(8).bytes(100_000),
    ],
)
def test_garbage_is_not_ours(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(vicinal.FormatError, match="not an index that vicinal saved") as caught:
        vicinal.open(tmp_path / "file")
    assert not isinstance(caught.value, vicinal.CorruptError)
    assert str(caught.value).startswith(f"{tmp_path / 'file'}: ")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(vicinal.FormatError, match="file: the file is empty; expected an index"):
        vicinal.open(tmp_path / "file")


def test_a_newer_version_says_so(path: Path, image: bytes) -> None:
    data = bytearray(image)
    struct.pack_into("<I", data, 8, 3)
    path.write_bytes(data)
    with pytest.raises(vicinal.FormatError, match="version 3, written by a newer") as caught:
        vicinal.open(path)
    assert not isinstance(caught.value, vicinal.CorruptError)
    assert "may be damaged" in str(caught.value)
    resum(data)
    path.write_bytes(data)
    with pytest.raises(vicinal.FormatError, match=r"this one reads versions up to 2$"):
        vicinal.open(path)
    struct.pack_into("<I", data, 8, 0)
    path.write_bytes(data)
    with pytest.raises(vicinal.CorruptError, match="format version 0 does not exist"):
        vicinal.open(path)


def test_the_other_byte_order(path: Path, image: bytes) -> None:
    data = bytearray(image)
    data[12:16] = data[12:16][::-1]
    path.write_bytes(data)
    with pytest.raises(vicinal.FormatError, match="other byte order"):
        vicinal.open(path)


def test_cut_at_every_boundary(path: Path, image: bytes) -> None:
    ends = {1, 7, 8, 9, 100, PAGE - 1, PAGE, PAGE + 1, len(image) - 1}
    ends |= {p + d for p in boundaries(image) for d in (-1, 0, 1)}
    for end in sorted(ends & set(range(1, len(image)))):
        path.write_bytes(image[:end])
        promise = "alone takes 4096" if end < PAGE else f"promises {len(image)}"
        message = f"{path.name}: file ends at byte {end}, its header {promise}"
        with pytest.raises(vicinal.CorruptError, match=message):
            vicinal.open(path)


def test_grown_by_a_byte(path: Path, image: bytes) -> None:
    path.write_bytes(image + b"\0")
    message = f"file ends at byte {len(image) + 1}, its header promises {len(image)}"
    with pytest.raises(vicinal.CorruptError, match=message):
        vicinal.open(path)


def test_any_header_byte_flipped_is_noticed(path: Path, image: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        for at in range(PAGE):
            os.pwrite(file.fileno(), bytes([image[at] ^ (1 << at % 8)]), at)
            with pytest.raises(vicinal.FormatError):
                vicinal.open(path)
            os.pwrite(file.fileno(), image[at : at + 1], at)
    vicinal.open(path, verify=True)


def places_to_flip(image: bytes) -> list[int]:
    chosen = {p + d for p in boundaries(image) for d in (-1, 0, 1)}
    chosen |= set(np.random.default_rng(4).integers(PAGE, len(image), 200).tolist())
    return sorted(chosen & set(range(len(image))))


def test_verify_notices_every_flipped_bit(path: Path, image: bytes) -> None:
    opened = vicinal.open(path)
    with path.open("r+b", buffering=0) as file:
        for at in places_to_flip(image):
            os.pwrite(file.fileno(), bytes([image[at] ^ (1 << at % 8)]), at)
            with pytest.raises(vicinal.CorruptError):
                vicinal.open(path, verify=True)
            with pytest.raises(vicinal.CorruptError):
                opened.verify()
            os.pwrite(file.fileno(), image[at : at + 1], at)
    opened.verify()


def test_verify_tells_where(path: Path, image: bytes) -> None:
    start = sections_of(image)["links0"].offset
    block = PAGE + -(-(start - PAGE) // BLOCK) * BLOCK
    data = bytearray(image)
    data[block] ^= 1
    path.write_bytes(data)
    message = f"{path.name}: 65536 bytes from byte {block} on, in section 'links0', do not fit"
    with pytest.raises(vicinal.CorruptError, match=message):
        vicinal.open(path, verify=True)


USE = """
    import os, sys
    import numpy as np, vicinal
    path, seed, image = sys.argv[1], int(sys.argv[2]), open(sys.argv[1], "rb").read()
    places = [int(place) for place in sys.argv[3].split(",")]
    used = 0
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((3, 20)).astype(np.float32)
    with open(path, "r+b", buffering=0) as file:
        for at in places:
            length = min(int(sys.argv[4]), len(image) - at)
            damage = bytes([image[at] ^ (1 << at % 8)]) if length == 1 else rng.bytes(length)
            os.pwrite(file.fileno(), damage, at)
            for mode in ("r", "copy"):
                try:
                    index = vicinal.open(path, mode=mode)
                    index.search(queries, 10, ef_search=50)
                    used += 1
                    index.get(index.ids[:3])
                    try:
                        index.check()
                    except (RuntimeError, vicinal.CorruptError):
                        pass
                    if mode == "copy":
                        index.add(queries, ids=[10**12, 10**12 + 1, 10**12 + 2])
                except (vicinal.FormatError, KeyError, ValueError):
                    pass
            os.pwrite(file.fileno(), image[at : at + length], at)
    print(used)
"""


@pytest.mark.parametrize("length", [1, 64, 5000])
def test_damage_that_open_does_not_see_never_crashes(path: Path, image: bytes, length: int) -> None:
    places = places_to_flip(image) if length == 1 else boundaries(image)[:-1]
    done = child(USE, path, length, ",".join(map(str, places)), length)
    assert_lived(done)
    assert int(done.stdout) >= len(places)  # most damage is not seen, in either mode
    assert path.read_bytes() == image


def test_hostile_links_never_crash(path: Path, image: bytes) -> None:
    code = """
        import sys
        import numpy as np, vicinal
        index = vicinal.open(sys.argv[1])
        for ef in (10, 200):
            index.search(np.zeros((5, 20), np.float32), 10, ef_search=ef)
    """
    for value in (0, 2999, 3000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF):
        data = bytearray(image)
        for name, (_, start, length, *_) in sections_of(image).items():
            if name in ("vectors", "ids", "checksums"):
                continue
            data[start : start + length] = struct.pack("<I", value) * (length // 4)
        path.write_bytes(data)
        assert_lived(child(code, path))
        with pytest.raises(vicinal.CorruptError):
            vicinal.open(path, verify=True)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (32, 4, "the header gives 'dtype' the impossible value 0"),
        (32, 5, "the header gives 'metric' the impossible value 5"),
        (40, 5, "the header gives 'dtype' the impossible value 5"),
        (48, 0, "the header gives 'dim' the impossible value 0"),
        (48, 21, "section 'vectors' is missing or has not 3000 rows of 21 elements"),
        (56, 1 << 40, "the header gives 'count' the impossible value"),
        (56, 3001, "section 'vectors' is missing or has not 3001 rows of 20 elements"),
        (64, 2999, "section 'links0' is missing or has not 2999 rows"),
        (72, 1 << 30, "the header gives 'M' the impossible value"),
        (104, 2999, "the header gives 'entry' the impossible value 2999"),
        (24, 0, "there cannot be 0 sections"),
        (24, 1 << 62, "there cannot be 4611686018427387904 sections"),
        (256 + 16, 8192, r"section 0 \('vectors'\) is not where it must be"),
        (256 + 24, 1 << 62, r"section 0 \('vectors'\) is not where it must be"),
        (256 + 32, 1 << 62, r"type and shape of section 0 \('vectors'\) do not make its length"),
        (256 + 48, 9, r"type and shape of section 0 \('vectors'\) do not make its length"),
        (200, 1, "byte 200 must be zero and is not"),
    ],
)
def test_a_forged_header(path: Path, image: bytes, offset: int, value: int, message: str) -> None:
    data = bytearray(image)
    struct.pack_into("<q", data, offset, value)
    resum(data)
    path.write_bytes(data)
    with pytest.raises(vicinal.CorruptError, match=message):
        vicinal.open(path)


def test_a_forged_largest_id(path: Path) -> None:
    index = vicinal.Index(3)
    index.add(np.ones((20, 3)))
    index.remove(19)
    index.save(path)
    data = bytearray(path.read_bytes())
    assert vicinal.open(path, mode="copy").add(np.zeros(3)).tolist() == [20]
    struct.pack_into("<q", data, sections_of(data)["largest_id"].offset, -1)
    path.write_bytes(data)
    for mode in ("r", "copy"):
        with pytest.raises(vicinal.CorruptError, match="section 'largest_id' contradicts"):
            vicinal.open(path, mode=mode)
    struct.pack_into("<q", data, sections_of(data)["largest_id"].offset, 2**63 - 1)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="no automatic ones are left"):
        vicinal.open(path, mode="copy").add(np.zeros(3))


def test_statuses_nobody_sends() -> None:
    name = struct.unpack("<2q", b"upper_start".ljust(16, b"\0"))
    with pytest.raises(vicinal.CorruptError, match="f: item 7 of section 'upper_start' contra"):
        _file_status.raise_for_status([_file_status.Code.BAD_CONTENT, 7, 0, *name], "f")
    with pytest.raises(RuntimeError, match="status 99"):
        _file_status.raise_for_status([99, 0, 0, 0, 0], "f")


def test_a_file_with_all_sections_that_go_together(tmp_path: Path) -> None:
    rows = rows_of("float32", 3000, 40)
    rows[2900:] = rows[:100]
    index = vicinal.Index(40, ids="str")
    index.add(rows, [f"row {i}" for i in range(3000)])
    index.tune(0.9, 3)
    index.remove([f"row {i}" for i in range(500, 700)])
    index.remove([f"row {i}" for i in range(700, 705)])
    index.save(tmp_path / "all")
    assert sorted(sections_of((tmp_path / "all").read_bytes())) == sorted(
        [
            *("vectors", "links0", "upper_rows", "upper_start", "upper_links", "ids", "codes"),
            *("code_constants", "code_centre", "code_reach", "copies", "id_text", "id_offsets"),
            *("tombstones", "tuning", "mended", "checksums"),
        ]
    )
    again = vicinal.open(tmp_path / "all", verify=True)
    queries = rows[:20]
    assert again.search(queries, 5).ids.tolist() == index.search(queries, 5).ids.tolist()
