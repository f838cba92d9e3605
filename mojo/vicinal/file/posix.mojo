"""Files through libc: replace one atomically and durably, read one, map one. Linux.

Nothing here knows what a file contains. Paths are NUL-terminated bytes, as the system takes them.
"""
from std.ffi import c_int, external_call
from std.memory import unsafe_memcpy
from std.sys import CompilationTarget

from vicinal.system.memory import MAP_FAILED, Bytes, Ptr, allocate_zeroed, at, missing, release

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
comptime AT_SYMLINK_NOFOLLOW = 0x100
comptime AT_EMPTY_PATH = 0x1000
comptime O_RDONLY = 0
comptime O_WRONLY = 1
comptime O_CREAT = 0o100
comptime O_EXCL = 0o200
comptime O_NOCTTY = 0o400
comptime O_NONBLOCK = 0o4000
comptime O_CLOEXEC = 0o2000000
comptime O_PATH = 0o10000000
comptime O_TMPFILE = 0o20000000 | (0o200000 if CompilationTarget.is_x86() else 0o40000)
"""Makes a file without a name. The flag for folders is part of it, which differs between machines."""
comptime AT_SYMLINK_FOLLOW: c_int = 0x400
comptime W_OK: c_int = 2
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
comptime PATH_ROOM = 4096
comptime TEMPORARY_ROOM = 64
comptime SLASH: UInt8 = 47


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
    return Int(external_call["__errno_location", Ptr[c_int]]()[])


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
    var rc = external_call["statx", c_int](folder, path, c_int(flags), c_int(0x203), answer)
    var errno = last_errno() if rc != 0 else 0
    var mode = Int(answer.unsafe_offset(28).unsafe_bitcast[UInt16]()[])
    var bytes = Int(answer.unsafe_offset(40).unsafe_bitcast[Int64]()[])
    release(answer)
    return FileStatus(errno, mode, bytes)


def _open(folder: c_int, path: Int, flags: Int, mode: Int, mut errno: Int) -> c_int:
    """Opens a file, again if a signal came in between."""
    while True:
        var fd = external_call["openat", c_int, num_fixed_args=3](
            folder, path, c_int(flags | O_CLOEXEC), c_int(mode)
        )
        errno = last_errno() if fd < 0 else 0
        if errno != EINTR:
            return fd


def _sync(fd: c_int) -> Int:
    """Waits until a file's bytes are on the disk; returns the errno."""
    while external_call["fsync", c_int](fd) != 0:
        var errno = last_errno()
        if errno != EINTR:
            return errno
    return 0


def _close(fd: c_int) -> Int:
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


struct AtomicReplacement(Movable):
    """A new file that takes its place under a path only when it is whole, or leaves no trace.

    It is written without a name, so that a process that is killed leaves nothing behind. When it is
    on the disk it gets another name in the same folder, is renamed, and the folder is synced: a
    reader, or a crash at any moment, sees the old file or the new one. Where files must have a name
    (some network and FUSE file systems; no /proc) it has the other name from the beginning. Who has
    the old file open or mapped keeps it. A link at the path is followed. The new file has the
    permissions of the old one, or what the umask leaves of 0666.
    """

    var status: Status
    """Whether the file could be made."""
    var file: c_int
    """Where to write; -1 while there is no file."""
    var folder: c_int
    """The folder of the path, held open: renaming it in between does no harm."""
    var target: Int
    """Address of the path with links followed, from malloc."""
    var name: Int
    """Address of the last part of `target`."""
    var temporary: Bytes
    """The other name."""
    var named: Bool
    """Whether the file has that name by now."""

    def __init__(out self, path: Int):
        """Makes the file under its temporary name.

        Safety:
            `path` must be the address of a NUL-terminated string.
        """
        self.status = Status.done()
        self.file = -1
        self.folder = -1
        self.target = 0
        self.name = 0
        self.temporary = allocate_zeroed[UInt8](TEMPORARY_ROOM)
        self.named = False
        self.status = Status.system(ENOMEM)
        if not missing(self.temporary):
            self.status = self._start(path)

    def __deinit__(deinit self):
        if self.file >= 0:
            _ = _close(self.file)
        if self.named:
            _ = external_call["unlinkat", c_int](self.folder, self.temporary, c_int(0))
        if self.folder >= 0:
            _ = _close(self.folder)
        external_call["free", NoneType](self.target)
        release(self.temporary)

    def _start(mut self, path: Int) -> Status:
        """Finds the folder, looks whether the path may be replaced, and makes the file."""
        var mode = 0o666
        var old = stat_file(AT_FDCWD, path, 0)
        if old.errno == 0:
            var problem = old.problem()
            if not problem.ok():
                return problem
            # renaming needs no permission on the file itself; who took that away meant to keep it
            if external_call["access", c_int](path, W_OK) != 0:
                return Status.system(last_errno())
            mode = old.mode & 0o777
            # with room of its own: the oldest realpath of glibc, the one that a symbol without a
            # version is bound to, makes none
            var room = external_call["malloc", Int](PATH_ROOM)
            if room == 0:
                return Status.system(ENOMEM)
            self.target = external_call["realpath", Int](path, room)
            if self.target == 0:
                var errno = last_errno()
                external_call["free", NoneType](room)
                return Status.system(errno)
        elif old.errno == ENOENT and stat_file(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW).errno == ENOENT:
            self.target = external_call["strdup", Int](path)
        else:  # a link that leads nowhere, among others
            return Status.system(old.errno)
        if self.target == 0:
            return Status.system(last_errno())
        var errno = self._open_folder()
        if errno != 0:
            return Status.system(errno)
        errno = self._create(mode)
        if errno == 0 and old.errno == 0:
            # gives back what the umask took; where the file system cannot, it stays narrower
            _ = external_call["fchmod", c_int](self.file, c_int(mode))
        return Status.system(errno)

    def _open_folder(mut self) -> Int:
        """Splits the path and opens its folder; returns the errno."""
        var text = at[UInt8](self.target)
        var length = external_call["strlen", Int](self.target)
        var start = length
        while start > 0 and text[unsafe_offset=start - 1] != SLASH:
            start -= 1
        self.name = self.target + start
        if start == length:
            return ENOENT if length == 0 else EISDIR
        var folder = allocate_zeroed[UInt8](start + 2)
        if missing(folder):
            return ENOMEM
        folder[] = 46  # "." for a bare name
        unsafe_memcpy(dest=folder, src=text, count=start)
        var errno = 0
        self.folder = _open(AT_FDCWD, Int(folder), O_RDONLY, 0, errno)
        if errno == EACCES:  # a folder that may be written but not listed cannot be synced either
            self.folder = _open(AT_FDCWD, Int(folder), O_PATH, 0, errno)
        release(folder)
        return errno

    def _create(mut self, mode: Int) -> Int:
        """Makes the file, without a name if that is possible; returns the errno."""
        var errno = 0
        self.file = _open(self.folder, Int(".".ptr()), O_WRONLY | O_TMPFILE, mode, errno)
        if errno == 0:
            if stat_file(AT_FDCWD, self._own_path(), 0).errno == 0:
                return 0
            _ = _close(self.file)  # without /proc it could not get a name later
            self.file = -1
        return self._name_it(mode)

    def _own_path(self) -> Int:
        """Writes the path in /proc that leads to the open file into `temporary`; returns its address.
        """
        _ = external_call["snprintf", c_int, num_fixed_args=3](
            self.temporary, TEMPORARY_ROOM, "/proc/self/fd/%zd".ptr(), Int(self.file)
        )
        return Int(self.temporary)

    def _name_it(mut self, mode: Int) -> Int:
        """Gives the file, or a new one if it was not made yet, a name that nobody has; returns the errno.
        """
        var made = self.file >= 0
        var own_path = allocate_zeroed[UInt8](TEMPORARY_ROOM)
        if missing(own_path):
            return ENOMEM
        if made:
            unsafe_memcpy(dest=own_path, src=at[UInt8](self._own_path()), count=TEMPORARY_ROOM)
        var pid = Int(external_call["getpid", c_int]())
        var number = 0
        var errno = EEXIST
        while errno == EEXIST:
            _ = external_call["snprintf", c_int, num_fixed_args=3](
                self.temporary, TEMPORARY_ROOM, ".vicinal-%zd-%zd.tmp".ptr(), pid, number
            )
            if made:
                errno = 0
                if (
                    external_call["linkat", c_int](
                        AT_FDCWD, own_path, self.folder, self.temporary, AT_SYMLINK_FOLLOW
                    )
                    != 0
                ):
                    errno = last_errno()
            else:
                self.file = _open(
                    self.folder, Int(self.temporary), O_WRONLY | O_CREAT | O_EXCL, mode, errno
                )
            number += 1
        release(own_path)
        self.named = errno == 0
        return errno

    def commit(mut self) -> Status:
        """Makes the new file durable and puts it under the path; the old one is gone then."""
        var errno = _sync(self.file)
        if errno == 0 and not self.named:
            errno = self._name_it(0)
        if (
            errno == 0
            and external_call["renameat", c_int](
                self.folder, self.temporary, self.folder, self.name
            )
            != 0
        ):
            errno = last_errno()
        if errno != 0:
            return Status.system(errno)
        self.named = False  # from here on there is nothing to unlink
        errno = _close(self.file)
        self.file = -1
        if errno == 0:
            errno = _sync(self.folder)
            if errno == EINVAL or errno == EBADF:  # some file systems cannot sync a folder
                errno = 0
        return Status.system(errno)


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
        self.file = _open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, errno)
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
            _ = _close(self.file)

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
