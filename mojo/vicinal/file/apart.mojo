"""A child process that writes what its parent held in memory at one moment, while the parent goes on."""
from std.ffi import c_int, external_call

from vicinal.file.posix import EINTR, Status, last_errno, sync_file
from vicinal.system.memory import allocate_zeroed, missing

comptime PR_SET_PDEATHSIG: c_int = 1
comptime SIGKILL: c_int = 9
comptime CLOSE_RANGE = 436
"""Number of the system call, the same on all machines."""
comptime STATUS_WORDS = 5
comptime ALL_ABOVE = 0xFFFFFFFF


def fork_child(kept: c_int, other: c_int) -> Int:
    """Forks a process that runs nothing but the caller's code: no handler of Python is called.

    The child has the memory of this moment, is killed when the calling thread ends before it, and keeps two files open
    and no others: neither locks nor sockets of the parent outlive it there.

    Args:
        kept: Descriptor of a file that stays open in the child.
        other: Another.

    Returns:
        The child's process id in the parent, 0 in the child, or the negative errno where the system refuses.

    Safety:
        In the child the calling thread is the only one: it must not wait for others and ends by `end_child`.
    """
    var child = external_call["fork", c_int]()
    if child < 0:
        return -last_errno()
    if child == 0:
        _ = external_call["prctl", c_int, num_fixed_args=1](PR_SET_PDEATHSIG, Int(SIGKILL))
        var low = Int(min(kept, other))
        var high = Int(max(kept, other))
        # kernels that do not know the call leave them open; nothing relies on it
        _close_all(0, low - 1)
        _close_all(low + 1, high - 1)
        _close_all(high + 1, ALL_ABOVE)
    return Int(child)


def _close_all(first: Int, last: Int):
    """Closes all open files of a range of descriptors."""
    if first <= last:
        _ = external_call["syscall", Int, num_fixed_args=1](CLOSE_RANGE, first, last, 0)


def end_child(status: Status, file: c_int, report: c_int):
    """Syncs what a child has written, writes how it went into a pipe, and ends the process.

    Args:
        status: How writing went.
        file: Descriptor of the file.
        report: Descriptor of the pipe; receives five int64 as `_file_status.py` reads them, or nothing where memory is out.
    """
    var told = status
    if told.ok():
        told = Status.system(sync_file(file))
    var words = allocate_zeroed[Int64](STATUS_WORDS)
    if not missing(words):
        words[unsafe_offset=0] = Int64(told.code)
        words[unsafe_offset=1] = Int64(told.a)
        words[unsafe_offset=2] = Int64(told.b)
        words.unsafe_offset(3).unsafe_bitcast[UInt8]().unsafe_store(0, told.name)
        _write_all(report, Int(words), STATUS_WORDS * 8)
    external_call["_exit", NoneType](c_int(0))


def _write_all(pipe: c_int, address: Int, bytes: Int):
    """Writes bytes to a pipe, as far as anybody reads them."""
    var done = 0
    while done < bytes:
        var moved = external_call["write", Int](pipe, address + done, bytes - done)
        if moved < 0 and last_errno() == EINTR:
            continue
        if moved <= 0:
            return
        done += moved
