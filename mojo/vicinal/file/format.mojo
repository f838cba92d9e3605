"""The layout of a file: a header of one page, sections on page boundaries, checksums of it all.

Arrays are (name, address, shape); what they mean is the caller's. `writer` writes the layout,
`mapped` reads it; docs/design/format.md has the bytes and the reasons.
"""

from vicinal.file.posix import Name, Status
from vicinal.system.memory import Bytes, Ptr, at

comptime VERSION = 2
"""The newest version that is read, and written where version 1 cannot say what has to be said."""
comptime PAGE = 4096
comptime BLOCK = 65536
"""Bytes under one checksum."""

# ---- how a call can end, beyond the codes of file/posix.mojo

comptime EMPTY_FILE = 4
"""The file has no byte."""
comptime NOT_OURS = 5
"""The file begins otherwise."""
comptime OTHER_VERSION = 6
"""`a` is the file's version; `b` is 1 if the header's checksum fails as well."""
comptime OTHER_ENDIAN = 7
"""Written by a machine with the other byte order."""
comptime BAD_HEADER = 8
"""The checksum of the header fails: `a` is in the file, `b` is right."""
comptime TRUNCATED = 9
"""The file has `a` bytes and should have `b`."""
comptime TOO_LONG = 10
"""The file has `a` bytes and should have `b`."""
comptime BAD_FIELD = 11
"""The header field `name` has the impossible value `a`."""
comptime BAD_TABLE = 12
"""Entry `a` of the section table, `name`, breaks rule `b` below."""
comptime BAD_SECTION = 13
"""The section `name` is not there, or not with `a` rows of `b` elements of the right type."""
comptime BAD_BLOCK = 14
"""The checksum fails of the `b` bytes from byte `a` on, which begin in section `name`."""
comptime BAD_PADDING = 15
"""Byte `a`, between sections or in the header, is not zero."""
comptime BAD_CHECKSUMS = 16
"""The list of checksums, at byte `a`, does not fit the checksum that the header has of it."""
comptime BAD_CONTENT = 17
"""Item `a` of section `name` contradicts the rest; for callers that know what the section means."""
comptime BAD_COUNT = 18
"""The header counts `a` rows in the field `name`, the section that marks them `b`."""
comptime RULE_COUNT = 1
"""There are more or fewer sections than there may be."""
comptime RULE_NAME = 2
"""A name is empty or comes twice."""
comptime RULE_SHAPE = 3
"""The type is unknown or rows x columns x item size is not the length."""
comptime RULE_PLACE = 4
"""The section is not where the one before it ends, rounded up to a page, or not inside the file."""
comptime RULE_CHECKSUMS = 5
"""The last section is not the list of checksums that the others need."""

# ---- types of sections, beyond the stored types 0 .. 4

comptime INT64_SECTION = 5
comptime UINT32_SECTION = 6

# ---- the bytes of the header, all little-endian

comptime MAGIC: UInt64 = 0x4C414E49434956F7
"""F7 "VICINAL": the first byte is none of a text in UTF-8."""
comptime MARK: UInt32 = 0x01020304
comptime SWAPPED_MARK: UInt32 = 0x04030201
comptime AT_VERSION = 8
comptime AT_MARK = 12
comptime AT_BYTES = 16
comptime AT_COUNT = 24
comptime AT_FIELDS = 32
comptime FIELD_WORDS = 19
"""Words of the header that belong to the caller."""
comptime FIELDS_END = AT_FIELDS + FIELD_WORDS * 8
comptime AT_TABLE = 256
comptime ENTRY = 64
comptime AT_CHECKSUMS_SUM = 4088
comptime AT_SUM = 4092
comptime MAX_SECTIONS = (AT_CHECKSUMS_SUM - AT_TABLE) // ENTRY


def name_of(text: StringLiteral) -> Name:
    """Makes a section name of at most 16 ASCII letters."""
    var name = Name(0)
    for i in range(min(text.byte_length(), 16)):
        name[i] = text.ptr()[unsafe_offset=i]
    return name


def section_item_bytes(dtype: Int) -> Int:
    """Returns the bytes of one element of a section type, 0 for an unknown one."""
    if dtype == INT64_SECTION:
        return 8
    if dtype == 0 or dtype == UINT32_SECTION:
        return 4
    if dtype == 1 or dtype == 2:
        return 2
    return 1 if dtype == 3 or dtype == 4 else 0


trait FileFields(TrivialRegisterPassable):
    """What a file says beside its sections: FIELD_WORDS words, which the owner of the format's content lays out and judges.
    """

    @staticmethod
    def none() -> Self:
        """Returns the words of no file."""
        ...

    def version(self) -> Int:
        """Returns the oldest version of the format whose readers understand the file."""
        ...

    def problem(self) -> Status:
        """Returns the first field that cannot be, as BAD_FIELD, or success."""
        ...


@fieldwise_init
struct Section(TrivialRegisterPassable):
    """One array: where it is in memory, and its shape."""

    var name: Name
    """Name, see `name_of`."""
    var address: Int
    """Where it begins; anything if it is empty."""
    var dtype: Int
    """Code of a stored type, INT64_SECTION or UINT32_SECTION."""
    var rows: Int
    """Rows."""
    var columns: Int
    """Elements of a row, padding to its stride included."""

    def bytes(self) -> Int:
        """Returns the length."""
        return self.rows * self.columns * section_item_bytes(self.dtype)


def to_page(offset: Int) -> Int:
    """Rounds up to a page boundary."""
    return (offset + PAGE - 1) // PAGE * PAGE


def block_count(end: Int) -> Int:
    """Returns how many checksums cover everything from the header to `end`."""
    return (end - PAGE + BLOCK - 1) // BLOCK


@always_inline
def word(page: Bytes, offset: Int) -> Ptr[Int]:
    """Returns the 64-bit field at an offset."""
    return page.unsafe_offset(offset).unsafe_bitcast[Int]()


@always_inline
def half(page: Bytes, offset: Int) -> Ptr[UInt32]:
    """Returns the 32-bit field at an offset."""
    return page.unsafe_offset(offset).unsafe_bitcast[UInt32]()


@always_inline
def entry_name(page: Bytes, i: Int) -> Ptr[Name]:
    """Returns the name in entry i of the section table; 16-byte aligned as the page is."""
    return page.unsafe_offset(AT_TABLE + i * ENTRY).unsafe_bitcast[Name]()


def first_nonzero(start: Int, begin: Int, end: Int) -> Int:
    """Returns the first of the offsets begin .. end-1 where a byte is not zero, else `end`."""
    var p = at[UInt8](start)
    for i in range(begin, end):
        if p[unsafe_offset=i] != 0:
            return i
    return end
