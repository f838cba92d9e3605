"""Refuse a Python or a C library that the native module is not made for, before it is loaded.

The module takes objects of CPython and functions of glibc by name, whatever their release; what it
knows of their layout is known for the releases below. A wrong guess would end the process, so there
is an ImportError instead.
"""

from __future__ import annotations

import os
import sys

__all__ = ["FREE_THREADED", "GLIBC", "VARIABLE", "check", "check_this", "glibc_version"]

FREE_THREADED = (3, 13)
"""The newest CPython without a GIL that the tests have run on; those with one are all alike."""
GLIBC = (2, 28)
"""The oldest glibc, as the wheel's tag says."""
VARIABLE = "VICINAL_UNTESTED"
"""Set to 1, it lets the module be loaded all the same."""


def glibc_version() -> str | None:
    """Return glibc's version as it tells it, such as "2.36"; None if the C library is another."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        return None
    name, _, version = text.partition(" ")
    return version if name == "glibc" else None


def check(version: tuple[int, ...], abiflags: str, glibc: str | None) -> None:
    """Check this process before the native module is loaded.

    Parameters
    ----------
    version : tuple of int
        CPython's, as in `sys.version_info`.
    abiflags : str
        As in `sys.abiflags`: a "t" stands for a build without a GIL.
    glibc : str or None
        See `glibc_version`.

    Raises
    ------
    ImportError
        If the module was never run on such a host.
    """
    if os.environ.get(VARIABLE) == "1":
        return
    ask = f"{VARIABLE}=1 loads it all the same, at the risk of a crash"
    if glibc is None:
        raise ImportError(
            "vicinal: the native module needs glibc; the C library here is another one, such as "
            f"musl of Alpine Linux. {ask}"
        )
    numbers = tuple(int(part) if part.isdigit() else 0 for part in glibc.split(".")[:2])
    if numbers < GLIBC:
        raise ImportError(
            f"vicinal: the native module needs glibc {_dotted(GLIBC)} or newer, here is {glibc}. "
            f"{ask}"
        )
    if "t" in abiflags and version[:2] > FREE_THREADED:
        raise ImportError(
            f"vicinal: the native module was tested on free-threaded CPython up to "
            f"{_dotted(FREE_THREADED)}, this is {_dotted(version[:2])}, whose objects may be laid "
            f"out in another way; the CPython {_dotted(version[:2])} with a GIL is fine. {ask}"
        )


def check_this() -> None:
    """Check the process that calls."""
    check(sys.version_info[:3], sys.abiflags, glibc_version())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
