"""A Python or C library that the native module is not made for is refused, not crashed on."""

from __future__ import annotations

import os
import sys

import pytest

from support import processes
from vicinal import _host


@pytest.mark.parametrize(
    ("version", "abiflags", "glibc"),
    [
        ((3, 10, 0), "", "2.28"),
        ((3, 99, 0), "", "2.36"),
        ((3, 99, 0), "d", "3.0"),
        ((3, 13, 5), "t", "2.36.9000"),
        ((3, 13, 5), "td", "2.40"),
    ],
)
def test_hosts_that_are_fine(version, abiflags, glibc):
    _host.check(version, abiflags, glibc)


@pytest.mark.parametrize(
    ("version", "abiflags", "glibc", "says"),
    [
        ((3, 14, 0), "t", "2.36", r"free-threaded CPython up to 3\.13, this is 3\.14"),
        ((4, 0, 1), "td", "2.36", r"this is 4\.0"),
        ((3, 12, 0), "", None, "needs glibc; .* musl"),
        ((3, 12, 0), "", "2.17", r"needs glibc 2\.28 or newer, here is 2\.17"),
    ],
)
def test_hosts_that_are_refused(monkeypatch, version, abiflags, glibc, says):
    with pytest.raises(ImportError, match=f"^vicinal: .*{says}"):
        _host.check(version, abiflags, glibc)
    monkeypatch.setenv("VICINAL_UNTESTED", "1")
    _host.check(version, abiflags, glibc)


def test_libraries_that_are_no_glibc(monkeypatch):
    assert _host.glibc_version() == os.confstr("CS_GNU_LIBC_VERSION").split()[1]
    for answer in (ValueError("unrecognized configuration name"), OSError(), None, "musl 1.2.5"):

        def confstr(name, answer=answer):
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(os, "confstr", confstr)
        assert _host.glibc_version() is None


@pytest.mark.skipif("t" in sys.abiflags, reason="says that this CPython has no GIL")
def test_import_asks_first():
    code = """
        import sys
        sys.abiflags = "t"
        sys.version_info = (3, 99, 0)
        try:
            import vicinal
        except ImportError as error:
            print(error)
        assert "vicinal._native" not in sys.modules
    """
    assert "this is 3.99" in processes.printed(code)
