"""Writes a file: sections, checksums, header; the old file stays until the new one is whole."""
from vicinal.file.atomic_replacement import AtomicReplacement
from vicinal.file.format import (
    AT_BYTES,
    AT_CHECKSUMS_SUM,
    AT_COUNT,
    AT_FIELDS,
    AT_MARK,
    AT_SUM,
    AT_TABLE,
    AT_VERSION,
    BAD_TABLE,
    BLOCK,
    ENTRY,
    MAGIC,
    MARK,
    MAX_SECTIONS,
    PAGE,
    RULE_COUNT,
    UINT32_SECTION,
    FileFields,
    Section,
    block_count,
    entry_name,
    half,
    name_of,
    to_page,
    word,
)
from vicinal.file.posix import (
    ENOMEM,
    INTERRUPTED,
    Name,
    Status,
    begin_sync,
    sync_and_drop,
    write_at,
)
from vicinal.system.crc import crc32c
from vicinal.system.memory import Bytes, Ptr, allocate_zeroed, missing, release
from vicinal.system.pages import PageUse
from vicinal.system.parallel import Watch

comptime STEP = 1 << 20
"""Bytes summed and then written while they are in the cache."""
comptime SHORT_STEP = 1 << 18
"""The same where memory is short."""
comptime MOST_DIRTY = 1 << 20
"""Bytes that wait to be written to the disk where memory is short: pages that wait take the room of those asked for."""


struct _Stream(Movable):
    """Writes one piece after another and sums blocks on the way."""

    var file: Int32
    var offset: Int
    var sums: Ptr[UInt32]
    var sum: UInt32
    var filled: Int
    var pages: PageUse
    var synced: Int
    """Bytes from the beginning that are on the disk, or were given up there."""

    def __init__(out self, file: Int32, sums: Ptr[UInt32], pages: PageUse):
        self.file = file
        self.pages = pages
        self.offset = PAGE
        self.sums = sums
        self.sum = 0
        self.filled = 0
        self.synced = 0

    def put[V: Watch](mut self, address: Int, bytes: Int, mut watch: V) -> Status:
        """Writes bytes behind those before."""
        var done = 0
        while done < bytes:
            var piece = min(bytes - done, SHORT_STEP if self.pages.on_disk else STEP)
            self.pages.ask_for(address, 1, bytes, done, done + piece)
            self._add(address + done, piece)
            var status = write_at(self.file, address + done, piece, self.offset)
            if not status.ok():
                return status
            self.pages.have_read(address, 1, done, done + piece)
            if self.pages.on_disk:
                begin_sync(self.file, self.offset, piece)
                status = self._limit_dirty(self.offset + piece - MOST_DIRTY)
                if not status.ok():
                    return status
            done += piece
            self.offset += piece
            if not watch.proceed(self.offset):
                return Status(INTERRUPTED, 0, 0, Name(0))
        return Status.done()

    def _limit_dirty(mut self, end: Int) -> Status:
        """Waits until all bytes before a place in the file are on the disk."""
        var start = self.synced
        self.synced = max(start, end)
        return sync_and_drop(self.file, start, self.synced - start)

    def _add(mut self, address: Int, bytes: Int):
        """Sums bytes."""
        var done = 0
        while done < bytes:
            var piece = min(bytes - done, BLOCK - self.filled)
            self.sum = crc32c(address + done, piece, self.sum)
            done += piece
            self.filled += piece
            if self.filled == BLOCK:
                self.end_block()

    def end_block(mut self):
        """Notes the checksum of a block that has any bytes."""
        if self.filled != 0:
            self.sums[] = self.sum
            self.sums = self.sums.unsafe_offset(1)
            self.sum = 0
            self.filled = 0


def write[
    Fields: FileFields, V: Watch
](
    file: Int32,
    header: Fields,
    sections: Ptr[Section],
    count: Int,
    mut watch: V,
    pages: PageUse = PageUse.in_memory(),
) -> Status:
    """Writes a whole file into an open one that is empty, the header last.

    Args:
        file: Descriptor of a regular file, open for writing.
        header: The header.
        sections: The arrays; nobody may change them meanwhile.
        count: Their number.
        watch: Asked after each MiB; ends the work with INTERRUPTED.
        pages: What is done about pages of arrays that lie in a map. If that does not fit the memory, what is written leaves the cache of
            files, too.

    Returns:
        DONE, SYSTEM, INTERRUPTED, or BAD_TABLE for too many sections.

    Safety:
        The arrays must be readable.
    """
    if count < 0 or count >= MAX_SECTIONS:
        return Status(BAD_TABLE, count, RULE_COUNT, Name(0))
    var page = allocate_zeroed[UInt8](PAGE)
    if missing(page):
        return Status.system(ENOMEM)
    var offset = PAGE
    for i in range(count):
        _put_entry(page, i, sections[unsafe_offset=i], offset)
        offset = to_page(offset + sections[unsafe_offset=i].bytes())
    var blocks = block_count(offset)
    var sums = allocate_zeroed[UInt32](blocks)
    if missing(sums):
        release(page)
        return Status.system(ENOMEM)
    var list = Section(name_of("checksums"), Int(sums), UINT32_SECTION, blocks, 1)
    _put_entry(page, count, list, offset)

    var status = _write_body(file, sections, count, sums, pages, watch)
    if status.ok():
        status = write_at(file, Int(sums), list.bytes(), offset)
    if status.ok():
        word(page, 0).unsafe_bitcast[UInt64]()[] = MAGIC
        half(page, AT_VERSION)[] = UInt32(header.version())
        half(page, AT_MARK)[] = MARK
        word(page, AT_BYTES)[] = offset + list.bytes()
        word(page, AT_COUNT)[] = count + 1
        page.unsafe_offset(AT_FIELDS).unsafe_bitcast[Fields]()[] = header
        half(page, AT_CHECKSUMS_SUM)[] = crc32c(Int(sums), list.bytes())
        half(page, AT_SUM)[] = crc32c(Int(page), AT_SUM)
        status = write_at(file, Int(page), PAGE, 0)
    release(sums)
    release(page)
    return status


def _put_entry(page: Bytes, i: Int, section: Section, offset: Int):
    """Writes one entry of the section table."""
    entry_name(page, i)[] = section.name
    var entry = AT_TABLE + i * ENTRY
    word(page, entry + 16)[] = offset
    word(page, entry + 24)[] = section.bytes()
    word(page, entry + 32)[] = section.rows
    word(page, entry + 40)[] = section.columns
    word(page, entry + 48)[] = section.dtype


def _write_body[
    V: Watch
](
    file: Int32,
    sections: Ptr[Section],
    count: Int,
    sums: Ptr[UInt32],
    pages: PageUse,
    mut watch: V,
) -> Status:
    """Writes the sections with zeros up to the next page behind each, and fills in their checksums.
    """
    var zeros = allocate_zeroed[UInt8](PAGE)
    if missing(zeros):
        return Status.system(ENOMEM)
    var stream = _Stream(file, sums, pages)
    var status = Status.done()
    for i in range(count):
        var section = sections[unsafe_offset=i]
        if status.ok():
            status = stream.put(section.address, section.bytes(), watch)
        if status.ok():
            status = stream.put(Int(zeros), to_page(stream.offset) - stream.offset, watch)
    stream.end_block()
    release(zeros)
    return status


def save[
    Fields: FileFields, V: Watch
](
    path: Int,
    header: Fields,
    sections: Ptr[Section],
    count: Int,
    mut watch: V,
    pages: PageUse = PageUse.in_memory(),
) -> Status:
    """Writes a file that takes its place under `path` once it is whole and on the disk.

    Args:
        path: Address of a NUL-terminated string. May be the file that the arrays are mapped from.
        header: The header.
        sections: The arrays; nobody may change them meanwhile.
        count: Their number.
        watch: Asked after each MiB; ends the work with INTERRUPTED.
        pages: As for `write`.

    Returns:
        DONE, SYSTEM, SPECIAL, INTERRUPTED or BAD_TABLE; the old file is untouched unless DONE, or
        unless syncing the folder failed last.

    Safety:
        The arrays must be readable.

    Performance:
        Checksums cost about a tenth of what copying into the page cache does.
    """
    var replacement = AtomicReplacement(path)
    var status = replacement.status
    if status.ok():
        status = write(replacement.file, header, sections, count, watch, pages)
    if status.ok():
        status = replacement.commit()
    _ = replacement^
    return status
