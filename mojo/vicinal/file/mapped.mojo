"""Opens a file: checks all that takes no time by size, maps it, verifies every byte on request."""
from std.atomic import Atomic, Ordering
from std.sys import size_of

from vicinal.file.format import (
    AT_BYTES,
    AT_CHECKSUMS_SUM,
    AT_COUNT,
    AT_FIELDS,
    AT_MARK,
    AT_SUM,
    AT_TABLE,
    AT_VERSION,
    BAD_BLOCK,
    BAD_CHECKSUMS,
    BAD_HEADER,
    BAD_PADDING,
    BAD_SECTION,
    BAD_TABLE,
    BLOCK,
    EMPTY_FILE,
    ENTRY,
    FIELDS_END,
    FIELD_WORDS,
    MAGIC,
    MARK,
    MAX_SECTIONS,
    NOT_OURS,
    OTHER_ENDIAN,
    OTHER_VERSION,
    PAGE,
    RULE_CHECKSUMS,
    RULE_COUNT,
    RULE_NAME,
    RULE_PLACE,
    RULE_SHAPE,
    SWAPPED_MARK,
    TOO_LONG,
    TRUNCATED,
    UINT32_SECTION,
    VERSION,
    FileFields,
    Section,
    block_count,
    entry_name,
    first_nonzero,
    half,
    name_of,
    section_item_bytes,
    to_page,
    word,
)
from vicinal.file.posix import ENOMEM, INTERRUPTED, Name, InputFile, Status, unmap
from vicinal.system.crc import crc32c
from vicinal.system.memory import Bytes, Ptr, allocate, allocate_zeroed, at, missing, release
from vicinal.system.pages import ask_ahead
from vicinal.system.parallel import Body, Team, Watch

comptime BLOCKS_AT_ONCE = 16
"""Blocks that a thread takes at a time."""


struct Mapped[Fields: FileFields](Movable):
    """A file that was checked and mapped read-only.

    Everything that was checked is a copy: changing the file later cannot move a section. Shrinking
    it later can: reading behind its new end is a bus error, as with any map.
    """

    var status: Status
    """Whether it could be opened. Nothing else may be used otherwise."""
    var address: Int
    """Where the file begins in memory."""
    var bytes: Int
    """Its size."""
    var header: Self.Fields
    """The header."""
    var sections: Ptr[Section]
    """The sections in the order of the file, the last being `checksums`; addresses in the map."""
    var count: Int
    """Their number."""
    var compared: Int64
    """1 once the counts of the header were found to agree with the sections, see `trust.counts_agree`."""

    def __init__(out self, path: Int):
        """Opens, checks the header, the table and the size, and maps; takes no time by size.

        Safety:
            `path` must be the address of a NUL-terminated string.
        """
        self = Self(InputFile(path))

    def __init__(out self, var source: InputFile):
        """Does the same with a file that is open."""
        var status = source.status
        var page = allocate_zeroed[UInt8](PAGE)
        var sections = allocate[Section](MAX_SECTIONS)
        var count = 0
        var address = 0
        if missing(page) or missing(sections):
            status = Status.system(ENOMEM)
        if status.ok():
            status = source.read_at(Int(page), min(source.bytes, PAGE), 0)
        if status.ok():
            status = _check_page[Self.Fields](page, source.bytes)
        if status.ok():
            count = word(page, AT_COUNT)[]
            status = _read_table(page, source.bytes, sections, count)
        if status.ok():
            status = source.map(address)
        for i in range(count):
            sections[unsafe_offset=i].address += address
        self.status = status
        self.address = address
        self.bytes = source.bytes
        self.header = Self.Fields.none()
        if not missing(page):
            self.header = page.unsafe_offset(AT_FIELDS).unsafe_bitcast[Self.Fields]()[]
        self.sections = sections
        self.count = count
        self.compared = 0
        release(page)
        _ = source^

    def __deinit__(deinit self):
        if self.address != 0:
            unmap(self.address, self.bytes)
        release(self.sections)

    def find(self, name: Name) -> Int:
        """Returns the number of a section, -1 if there is none of that name."""
        return _find(self.sections, self.count, name)

    def require(self, name: Name, dtype: Int, rows: Int, columns: Int, mut status: Status) -> Int:
        """Returns the address of a section that must have a known shape.

        Args:
            name: Its name.
            dtype: Code of its type.
            rows: Its rows.
            columns: Elements of a row.
            status: Set to BAD_SECTION if it is not there or has another shape; if it tells of a
                failure already, the call does nothing, so that several can follow each other.
        """
        if not status.ok():
            return 0
        var i = self.find(name)
        if i >= 0:
            var s = self.sections[unsafe_offset=i]
            if s.dtype == dtype and s.rows == rows and s.columns == columns:
                return s.address
        status = Status(BAD_SECTION, rows, columns, name)
        return 0


def _find(sections: Ptr[Section], count: Int, name: Name) -> Int:
    """Returns the number of the section of that name, -1 if there is none."""
    for i in range(count):
        if sections[unsafe_offset=i].name == name:
            return i
    return -1


def _check_page[Fields: FileFields](page: Bytes, size: Int) -> Status:
    """Checks the header in the order that gives the most telling answer."""
    comptime assert size_of[Fields]() == FIELD_WORDS * 8
    if size == 0:
        return Status(EMPTY_FILE, 0, 0, Name(0))
    for i in range(min(size, 8)):
        if UInt64(page[unsafe_offset=i]) != (MAGIC >> UInt64(8 * i)) & 255:
            return Status(NOT_OURS, size, 0, Name(0))
    if size < PAGE:
        return Status(TRUNCATED, size, PAGE, Name(0))
    var stored = Int(half(page, AT_SUM)[])
    var right = Int(crc32c(Int(page), AT_SUM))
    if half(page, AT_MARK)[] == SWAPPED_MARK:
        return Status(OTHER_ENDIAN, 0, 0, Name(0))
    var version = Int(half(page, AT_VERSION)[])
    if version < 1 or version > VERSION:
        return Status(OTHER_VERSION, version, Int(stored != right), Name(0))
    if stored != right or half(page, AT_MARK)[] != MARK:
        return Status(BAD_HEADER, stored, right, Name(0))
    var promised = word(page, AT_BYTES)[]
    if promised != size:
        return Status(TRUNCATED if size < promised else TOO_LONG, size, promised, Name(0))
    return page.unsafe_offset(AT_FIELDS).unsafe_bitcast[Fields]()[].problem()


def _read_table(page: Bytes, size: Int, sections: Ptr[Section], mut count: Int) -> Status:
    """Checks the section table and fills in the sections, with offsets for addresses.

    `count` is set to 0 if it is no possible number, so that nobody uses it.
    """
    var entries = count
    count = 0
    if entries < 1 or entries > MAX_SECTIONS:
        return Status(BAD_TABLE, entries, RULE_COUNT, Name(0))
    var used = AT_TABLE + entries * ENTRY
    var stray = first_nonzero(Int(page), FIELDS_END, AT_TABLE)
    if stray == AT_TABLE:
        stray = first_nonzero(Int(page), used, AT_CHECKSUMS_SUM)
    if stray != AT_CHECKSUMS_SUM:
        return Status(BAD_PADDING, stray, 0, Name(0))
    var end = PAGE
    for i in range(entries):
        var name = entry_name(page, i)[]
        var entry = AT_TABLE + i * ENTRY
        var offset = word(page, entry + 16)[]
        var bytes = word(page, entry + 24)[]
        var rows = word(page, entry + 32)[]
        var columns = word(page, entry + 40)[]
        var dtype = word(page, entry + 48)[]
        if name[0] == 0 or _find(sections, i, name) >= 0:
            return Status(BAD_TABLE, i, RULE_NAME, name)
        if offset != to_page(end) or offset > size or bytes < 0 or bytes > size - offset:
            return Status(BAD_TABLE, i, RULE_PLACE, name)
        if not _fits(dtype, rows, columns, bytes) or word(page, entry + 56)[] != 0:
            return Status(BAD_TABLE, i, RULE_SHAPE, name)
        end = offset + bytes
        sections[unsafe_offset=i] = Section(name, offset, dtype, rows, columns)
    var list = sections[unsafe_offset=entries - 1]
    if (
        list.name != name_of("checksums")
        or list.dtype != UINT32_SECTION
        or list.columns != 1
        or list.rows != block_count(list.address)
        or end != size
    ):
        return Status(BAD_TABLE, entries - 1, RULE_CHECKSUMS, list.name)
    count = entries
    return Status.done()


def _fits(dtype: Int, rows: Int, columns: Int, bytes: Int) -> Bool:
    """Tells whether rows x columns x item size is `bytes`, whatever the numbers are."""
    var item = section_item_bytes(dtype)
    if item == 0 or rows < 0 or columns < 0:
        return False
    if rows == 0 or columns == 0:
        return bytes == 0
    # divisions first: the product cannot overflow then
    return rows <= bytes // item // columns and rows * columns * item == bytes


# ---- checking every byte


@fieldwise_init
struct _Blocks(Body):
    """Compares blocks with their checksums."""

    var start: Int
    var bytes: Int
    var sums: Ptr[UInt32]
    var first_bad: Ptr[Int64]
    var on_disk: Bool

    def run(self, begin: Int, end: Int, worker: Int):
        """Checks blocks begin .. end-1 and notes the first that is wrong."""
        if self.on_disk:
            ask_ahead(self.start, self.bytes, begin * BLOCK, end * BLOCK)
        for i in range(begin, end):
            var length = min(BLOCK, self.bytes - i * BLOCK)
            if crc32c(self.start + i * BLOCK, length) != self.sums[unsafe_offset=i]:
                Atomic[Int64].min[ordering=Ordering.RELAXED](self.first_bad.start, Int64(i))


def verify[
    Fields: FileFields, V: Watch
](mapped: Mapped[Fields], threads: Int, mut watch: V, on_disk: Bool = False) -> Status:
    """Checks every byte of a mapped file: header, checksums, sections and the zeros between them.

    Args:
        mapped: The file, opened without complaint.
        threads: Threads to use.
        watch: Asked once per piece; ends the work with INTERRUPTED.
        on_disk: Whether the file does not fit the memory: then blocks are asked for some way ahead.

    Returns:
        DONE, or the first damage in the order header, list of checksums, blocks, padding.
    """
    var page = at[UInt8](mapped.address)
    var stored = half(page, AT_SUM)[]
    var right = crc32c(mapped.address, AT_SUM)
    if stored != right:
        return Status(BAD_HEADER, Int(stored), Int(right), Name(0))
    var list = mapped.sections[unsafe_offset=mapped.count - 1]
    if crc32c(list.address, list.bytes()) != half(page, AT_CHECKSUMS_SUM)[]:
        return Status(BAD_CHECKSUMS, list.address - mapped.address, list.bytes(), list.name)
    var first_bad = Int64(list.rows)
    var start = mapped.address + PAGE
    var body = _Blocks(
        start,
        list.address - start,
        at[UInt32](list.address),
        Pointer(to=first_bad).unsafe_origin_cast[MutUntrackedOrigin](),
        on_disk,
    )
    var team = Team(min(threads, list.rows // BLOCKS_AT_ONCE + 1))
    var finished = team.run(list.rows, BLOCKS_AT_ONCE, body, watch)
    _ = team^
    var bad = Int(first_bad)
    if bad < list.rows:
        return _bad_block(mapped, PAGE + bad * BLOCK, list.address - mapped.address)
    if not finished:
        return Status(INTERRUPTED, 0, 0, Name(0))
    return _check_padding(mapped)


def _bad_block[Fields: FileFields](mapped: Mapped[Fields], offset: Int, end: Int) -> Status:
    """Returns the status of a wrong block at an offset in the file."""
    var holder = 0
    for i in range(mapped.count):
        if mapped.sections[unsafe_offset=i].address - mapped.address <= offset:
            holder = i
    var name = mapped.sections[unsafe_offset=holder].name
    return Status(BAD_BLOCK, offset, min(BLOCK, end - offset), name)


def _check_padding[Fields: FileFields](mapped: Mapped[Fields]) -> Status:
    """Checks that what lies between sections is zero; a checksum can be right and they are not."""
    for i in range(mapped.count - 1):
        var section = mapped.sections[unsafe_offset=i]
        var end = section.address + section.bytes() - mapped.address
        var next = mapped.sections[unsafe_offset=i + 1].address - mapped.address
        var stray = first_nonzero(mapped.address, end, next)
        if stray != next:
            return Status(BAD_PADDING, stray, 0, section.name)
    return Status.done()
