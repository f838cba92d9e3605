"""A file that takes the place of another only when it is whole and on the disk."""
from std.ffi import c_int, external_call
from std.sys import CompilationTarget

from vicinal.file.posix import (
    AT_FDCWD,
    EACCES,
    EBADF,
    EEXIST,
    EINVAL,
    EISDIR,
    ENOENT,
    ENOMEM,
    O_RDONLY,
    Status,
    close_file,
    last_errno,
    open_file,
    stat_file,
    sync_file,
)
from vicinal.system.memory import Bytes, allocate_zeroed, at, missing, release
from vicinal.system.pointer import copy_items

comptime AT_SYMLINK_NOFOLLOW = 0x100
comptime O_WRONLY = 1
comptime O_CREAT = 0o100
comptime O_EXCL = 0o200
comptime O_PATH = 0o10000000
comptime O_TMPFILE = 0o20000000 | (0o200000 if CompilationTarget.is_x86() else 0o40000)
"""Makes a file without a name. The flag for folders is part of it, which differs between machines."""
comptime AT_SYMLINK_FOLLOW: c_int = 0x400
comptime W_OK: c_int = 2
comptime PATH_ROOM = 4096
comptime TEMPORARY_ROOM = 64
comptime SLASH: UInt8 = 47


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
            _ = close_file(self.file)
        if self.named:
            _ = external_call["unlinkat", c_int](self.folder, Int(self.temporary), c_int(0))
        if self.folder >= 0:
            _ = close_file(self.folder)
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
        copy_items(dest=folder, src=text, count=start)
        var errno = 0
        self.folder = open_file(AT_FDCWD, Int(folder), O_RDONLY, 0, errno)
        if errno == EACCES:  # a folder that may be written but not listed cannot be synced either
            self.folder = open_file(AT_FDCWD, Int(folder), O_PATH, 0, errno)
        release(folder)
        return errno

    def _create(mut self, mode: Int) -> Int:
        """Makes the file, without a name if that is possible; returns the errno."""
        var errno = 0
        self.file = open_file(self.folder, Int(".".ptr()), O_WRONLY | O_TMPFILE, mode, errno)
        if errno == 0:
            if stat_file(AT_FDCWD, self._own_path(), 0).errno == 0:
                return 0
            _ = close_file(self.file)  # without /proc it could not get a name later
            self.file = -1
        return self._name_it(mode)

    def _own_path(self) -> Int:
        """Writes the path in /proc that leads to the open file into `temporary`; returns its address.
        """
        _ = external_call["snprintf", c_int, num_fixed_args=3](
            Int(self.temporary), TEMPORARY_ROOM, "/proc/self/fd/%zd".ptr(), Int(self.file)
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
            copy_items(dest=own_path, src=at[UInt8](self._own_path()), count=TEMPORARY_ROOM)
        var pid = Int(external_call["getpid", c_int]())
        var number = 0
        var errno = EEXIST
        while errno == EEXIST:
            _ = external_call["snprintf", c_int, num_fixed_args=3](
                Int(self.temporary), TEMPORARY_ROOM, ".vicinal-%zd-%zd.tmp".ptr(), pid, number
            )
            if made:
                errno = 0
                if (
                    external_call["linkat", c_int](
                        AT_FDCWD, own_path, self.folder, Int(self.temporary), AT_SYMLINK_FOLLOW
                    )
                    != 0
                ):
                    errno = last_errno()
            else:
                self.file = open_file(
                    self.folder, Int(self.temporary), O_WRONLY | O_CREAT | O_EXCL, mode, errno
                )
            number += 1
        release(own_path)
        self.named = errno == 0
        return errno

    def commit(mut self) -> Status:
        """Makes the new file durable and puts it under the path; the old one is gone then."""
        var errno = sync_file(self.file)
        if errno == 0 and not self.named:
            errno = self._name_it(0)
        if (
            errno == 0
            and external_call["renameat", c_int](
                self.folder, Int(self.temporary), self.folder, self.name
            )
            != 0
        ):
            errno = last_errno()
        if errno != 0:
            return Status.system(errno)
        self.named = False  # from here on there is nothing to unlink
        errno = close_file(self.file)
        self.file = -1
        if errno == 0:
            errno = sync_file(self.folder)
            if errno == EINVAL or errno == EBADF:  # some file systems cannot sync a folder
                errno = 0
        return Status.system(errno)
