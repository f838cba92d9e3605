"""Files through libc: write one, read one, map one. Linux.

Nothing here knows what a file contains. Paths are NUL-terminated bytes, as the system takes them.
"""
from std.ffi import c_int, external_call

from vicinal.system.memory import MAP_FAILED, allocate_zeroed, missing, release
from vicinal.system.pages import page_bytes
from vicinal.system.pointer import RawPtr

comptime Name = SIMD[DType.uint8, 16]
"""Up to 16 ASCII letters, zero bytes after them."""
comptime DONE = 0
"""All is well."""
comptime SYSTEM = 1
"""The system refused; `a` is its errno."""
comptime INTERRUPTED = 2
"""The caller's watch ended the work; nothing was changed."""
comptime SPECIAL = 3
"""The path is a pipe, a socket or a device."""
comptime ENOENT = 2
comptime EINTR = 4
comptime EIO = 5
comptime ENOMEM = 12
comptime EACCES = 13
comptime EEXIST = 17
comptime EISDIR = 21
comptime EINVAL = 22
comptime EBADF = 9
comptime ENOSPC = 28
comptime EDQUOT = 122
comptime AT_FDCWD: c_int = -100
comptime STATX_DIOALIGN = 0x2000
comptime AT_EMPTY_PATH = 0x1000
comptime O_RDONLY = 0
comptime O_NOCTTY = 0o400
comptime O_NONBLOCK = 0o4000
comptime O_CLOEXEC = 0o2000000
comptime PROT_READ: c_int = 1
comptime MAP_SHARED: c_int = 1
comptime S_IFMT = 0o170000
comptime S_IFDIR = 0o040000
comptime S_IFREG = 0o100000
comptime MOST_AT_ONCE = 1 << 30
"""Linux moves at most 2 GiB in one call."""
comptime SYNC_RANGE: c_int = 2
"""Begins to write dirty pages to the disk."""
comptime SYNC_RANGE_AND_WAIT: c_int = 1 | 2 | 4
"""Writes dirty pages to the disk and waits until they are there."""
comptime DONT_NEED: c_int = 4
"""Advice that the cache need not keep pages of a file."""


@fieldwise_init
struct Status(TrivialRegisterPassable):
    """How a call on a file ended; the only way that these functions report."""

    var code: Int
    """DONE or what went wrong."""
    var a: Int
    """First detail, see the code."""
    var b: Int
    """Second detail."""
    var name: Name
    """The section that it is about, empty for none."""

    @staticmethod
    def done() -> Self:
        """Returns success."""
        return Self(DONE, 0, 0, Name(0))

    @staticmethod
    def system(errno: Int) -> Self:
        """Returns a refusal by the system, or success for errno 0."""
        return Self(DONE if errno == 0 else SYSTEM, errno, 0, Name(0))

    @always_inline
    def ok(self) -> Bool:
        """Tells whether all is well."""
        return self.code == DONE


def last_errno() -> Int:
    """Returns the errno of the call before."""
    return Int(external_call["__errno_location", RawPtr[c_int]]()[])


# ---- what a path leads to


@fieldwise_init
struct FileStatus(TrivialRegisterPassable):
    """What the system says about a file."""

    var errno: Int
    """0, or why nothing is known."""
    var mode: Int
    """Type and permissions."""
    var bytes: Int
    """Size."""

    def problem(self) -> Status:
        """Returns why this is not a regular file, or success."""
        if self.errno != 0:
            return Status.system(self.errno)
        if self.mode & S_IFMT == S_IFDIR:
            return Status.system(EISDIR)
        if self.mode & S_IFMT != S_IFREG:
            return Status(SPECIAL, self.mode & S_IFMT, 0, Name(0))
        return Status.done()


def stat_file(folder: c_int, path: Int, flags: Int) -> FileStatus:
    """Asks about a path, or with AT_EMPTY_PATH and an empty path about an open file.

    Safety:
        `path` must be the address of a NUL-terminated string.
    """
    # statx alone has one layout on all machines; wanted are type, permissions and size
    var answer = allocate_zeroed[UInt8](256)
    if missing(answer):
        return FileStatus(ENOMEM, 0, 0)
    var rc = external_call["statx", c_int](folder, path, c_int(flags), c_int(0x203), Int(answer))
    var errno = last_errno() if rc != 0 else 0
    var mode = Int(answer.unsafe_offset(28).unsafe_bitcast[UInt16]()[])
    var bytes = Int(answer.unsafe_offset(40).unsafe_bitcast[Int64]()[])
    release(answer)
    return FileStatus(errno, mode, bytes)


def direct_grain(file: c_int) -> Int:
    """Returns what places, numbers of bytes and addresses must be multiples of in reads past the cache: what the system says, Linux
    6.1, or a page.
    """
    var page = page_bytes()
    var answer = allocate_zeroed[UInt8](256)
    if missing(answer):
        return page
    var rc = external_call["statx", c_int](
        file, Int("".ptr()), c_int(AT_EMPTY_PATH), c_int(STATX_DIOALIGN), Int(answer)
    )
    var told = answer.unsafe_bitcast[UInt32]()[] & UInt32(STATX_DIOALIGN)
    var of_memory = Int(answer.unsafe_offset(152).unsafe_bitcast[UInt32]()[])
    var of_file = Int(answer.unsafe_offset(156).unsafe_bitcast[UInt32]()[])
    release(answer)
    var grain = max(of_memory, of_file, 64)
    # both are powers of two
    return grain if rc == 0 and told != 0 and of_file != 0 and grain <= page else page


def open_file(folder: c_int, path: Int, flags: Int, mode: Int, mut errno: Int) -> c_int:
    """Opens a file, again if a signal came in between."""
    while True:
        var fd = external_call["openat", c_int, num_fixed_args=3](
            folder, path, c_int(flags | O_CLOEXEC), c_int(mode)
        )
        errno = last_errno() if fd < 0 else 0
        if errno != EINTR:
            return fd


def sync_file(fd: c_int) -> Int:
    """Waits until a file's bytes are on the disk; returns the errno."""
    while external_call["fsync", c_int](fd) != 0:
        var errno = last_errno()
        if errno != EINTR:
            return errno
    return 0


def close_file(fd: c_int) -> Int:
    """Closes a file and returns the errno; EINTR has closed it too on Linux."""
    if external_call["close", c_int](fd) != 0:
        var errno = last_errno()
        return 0 if errno == EINTR else errno
    return 0


# ---- writing


def write_at(fd: c_int, address: Int, bytes: Int, offset: Int) -> Status:
    """Writes all the bytes at a place in a file.

    Safety:
        The bytes must be readable.
    """
    var done = 0
    while done < bytes:
        var piece = min(bytes - done, MOST_AT_ONCE)
        var moved = external_call["pwrite", Int](fd, address + done, piece, offset + done)
        if moved < 0:
            var errno = last_errno()
            if errno == EINTR:
                continue
            return Status.system(errno)
        if moved == 0:  # must not happen to a regular file; never turn in circles
            return Status.system(EIO)
        done += moved
    return Status.done()


def begin_sync(fd: c_int, offset: Int, bytes: Int):
    """Begins to write some bytes of a file from the cache to the disk."""
    if bytes > 0:
        _ = external_call["sync_file_range", c_int](fd, offset, bytes, SYNC_RANGE)


def sync_and_drop(fd: c_int, offset: Int, bytes: Int) -> Status:
    """Waits until some bytes of a file are on the disk, and takes them out of the cache.

    A file system that cannot do it for a part of a file is no error: the cache keeps the bytes.
    """
    if bytes <= 0:
        return Status.done()
    while external_call["sync_file_range", c_int](fd, offset, bytes, SYNC_RANGE_AND_WAIT) != 0:
        var errno = last_errno()
        if errno == EINTR:
            continue
        # told once only: the sync of the whole file would not say it again
        if errno == EIO or errno == ENOSPC or errno == EDQUOT:
            return Status.system(errno)
        return Status.done()
    _ = external_call["posix_fadvise", c_int](fd, offset, bytes, DONT_NEED)
    return Status.done()


# ---- reading


struct InputFile(Movable):
    """A regular file that is open for reading."""

    var status: Status
    """Whether it could be opened."""
    var file: c_int
    """The open file; -1 if there is none."""
    var bytes: Int
    """Its size."""

    def __init__(out self, path: Int):
        """Opens a file; does not wait for anybody, even if the path is a pipe.

        Safety:
            `path` must be the address of a NUL-terminated string.
        """
        var errno = 0
        self.bytes = 0
        self.file = open_file(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, errno)
        self.status = Status.system(errno)
        if errno == 0:
            var kind = stat_file(self.file, Int("".ptr()), AT_EMPTY_PATH)
            self.status = kind.problem()
            self.bytes = kind.bytes

    def __init__(out self, *, descriptor: Int):
        """Takes a file that is open for reading already; the descriptor stays open when this one is closed.
        """
        var file = external_call["dup", c_int](c_int(descriptor))
        self.bytes = 0
        self.file = file
        self.status = Status.system(last_errno() if file < 0 else 0)
        if file >= 0:
            var kind = stat_file(self.file, Int("".ptr()), AT_EMPTY_PATH)
            self.status = kind.problem()
            self.bytes = kind.bytes

    def __deinit__(deinit self):
        if self.file >= 0:
            _ = close_file(self.file)

    def read_at(self, address: Int, bytes: Int, offset: Int) -> Status:
        """Reads bytes from a place in the file; what lies behind its end is left as it was.

        Safety:
            The bytes must be writable.
        """
        var done = 0
        while done < bytes:
            var piece = min(bytes - done, MOST_AT_ONCE)
            var moved = external_call["pread", Int](self.file, address + done, piece, offset + done)
            if moved < 0:
                var errno = last_errno()
                if errno == EINTR:
                    continue
                return Status.system(errno)
            if moved == 0:
                break
            done += moved
        return Status.done()

    def map(self, mut address: Int) -> Status:
        """Maps the whole file read-only; the map outlives the open file and is ended by `unmap`."""
        var start = external_call["mmap", Int](
            Int(0), self.bytes, PROT_READ, MAP_SHARED, self.file, Int(0)
        )
        if start == MAP_FAILED:
            return Status.system(last_errno())
        address = start
        return Status.done()


def unmap(address: Int, bytes: Int):
    """Ends a map.

    Safety:
        Nothing may read there afterwards.
    """
    _ = external_call["munmap", c_int](address, bytes)
