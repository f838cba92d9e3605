"""A lock that is held for some instructions only: a word of memory, zero while it is free."""
from std.atomic import Atomic, Ordering
from std.ffi import c_int, external_call
from std.sys import CompilationTarget, llvm_intrinsic

from vicinal.system.memory import Ptr

comptime TRIES = 64
"""Tries to take a lock before a thread lets others go first: its holder may be one of them."""


@always_inline
def spin_lock(word: Ptr[Int32]):
    """Takes a lock."""
    var tries = 0
    while True:
        var free = Int32(0)
        if Atomic[Int32].compare_exchange[
            success_ordering=Ordering.ACQUIRE, failure_ordering=Ordering.RELAXED
        ](word.start, free, 1):
            return
        tries += 1
        if tries % TRIES == 0:
            _ = external_call["sched_yield", c_int]()
        else:
            comptime if CompilationTarget.is_x86():
                llvm_intrinsic["llvm.x86.sse2.pause", NoneType]()
            else:
                llvm_intrinsic["llvm.aarch64.hint", NoneType](Int32(1))


@always_inline
def spin_unlock(word: Ptr[Int32]):
    """Gives a lock back."""
    Atomic[Int32].store[ordering=Ordering.RELEASE](word.start, 0)
