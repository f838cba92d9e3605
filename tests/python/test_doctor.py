"""`python -m vicinal doctor`: passes on what is installed, notices what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import vicinal
from vicinal import __main__, _cpu, _self_test

NATIVE = _cpu.native


class Spoiled:
    """The native module with one function replaced."""

    def __init__(self, name, function):
        self._name, self._function = name, function

    def __getattr__(self, name):
        return self._function if name == self._name else getattr(NATIVE, name)


def longer(array):
    """The same array with the element after its end, as a kernel without a right tail reads it."""
    return np.lib.stride_tricks.as_strided(array, (len(array) + 1,), array.strides)


def loses_last_element(metric, dtype, a, b):
    if len(a) == 1025:
        a, b = a[:-1], b[:-1]
    return good(metric, dtype, a, b)


def reads_past_the_end(metric, dtype, a, b):
    return NATIVE.distance(metric, dtype, longer(a), longer(b))


def wrong_in_one_type(metric, dtype, a, b):
    return good(metric, dtype, a, b) * (1.001 if (metric, dtype) == (0, 1) else 1)


def overflows_at_65536(metric, dtype, a, b):
    value = good(metric, dtype, a, b)
    return value - 2.0**32 if metric == 0 and dtype > 2 and value >= 2.0**31 else value


def not_a_number(metric, dtype, a, b):
    return float("nan") if len(a) == 1 else good(metric, dtype, a, b)


def good(*arguments):
    return NATIVE.distance(*arguments)


def swaps_first_two(*arguments):
    status = NATIVE.exact_search(*arguments)
    ids = arguments[-2]
    if ids.shape[1] > 1:
        ids[:, [0, 1]] = ids[:, [1, 0]]
    return status


def repeats_an_id(*arguments):
    status = NATIVE.exact_search(*arguments)
    arguments[-2][:, -1] = arguments[-2][:, 0]
    return status


def scales_distances(*arguments):
    status = NATIVE.exact_search(*arguments)
    arguments[-1][:] *= np.float32(1.001)
    return status


def refuses(*arguments):
    return 1


def leaves_ids_alone(*arguments):
    return 0


def farther_rows(index, queries, k, ef, threads, ids, distances):
    more = np.empty((len(queries), 100), np.int64)
    values = np.empty((len(queries), 100), np.float32)
    status = NATIVE.index_search(index, queries, 100, ef, threads, more, values)
    ids[:], distances[:] = more[:, -k:], values[:, -k:]
    return status


def finds_nothing(index, queries, k, ef, threads, ids, distances):
    ids[:], distances[:] = -1, np.inf
    return 0


def crc_without_chaining(data, start):
    return NATIVE.crc32c(data, 0)


def crc_of_seven_bytes(data, start):
    value = NATIVE.crc32c(data, start)
    return value ^ 1 if len(data) == 7 else value


@pytest.mark.full_build
def test_all_kernels_of_this_level_agree(capsys):
    assert __main__.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"vicinal {vicinal.__version__}, CPU level {vicinal.build_info()['level']} " in printed
    kernels = 2 * len(_self_test.SPACES) + len(_self_test.graphs()) + 1
    kernels += len(_self_test.codes_alone())
    assert f"all {kernels} kernels agree with the reference" in printed
    assert printed.count("  ok\n") == kernels
    for metric in _self_test.METRICS:
        for dtype in _self_test.DTYPES:
            assert f"distance {metric} {dtype} " in printed
            assert f"exact_search {metric} {dtype} " in printed
            assert f"graph {metric} {dtype}, codes none " in printed


@pytest.mark.parametrize("level", vicinal.build_info()["available"])
def test_level_option(level):
    done = doctor("--level", level)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"CPU level {level} (chosen by VICINAL_CPU" in done.stdout


def test_level_all_checks_each():
    done = doctor("--level", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    for level in vicinal.build_info()["available"]:
        assert f"CPU level {level} (chosen by VICINAL_CPU" in done.stdout


def test_level_that_is_not_available():
    level = "neon" if vicinal.build_info()["machine"] == "x86_64" else "v3"
    done = doctor("--level", level)
    assert done.returncode == 1
    assert f"ImportError: vicinal: VICINAL_CPU='{level}'" in done.stderr


@pytest.mark.parametrize(
    ("name", "function", "kernel"),
    [
        ("distance", loses_last_element, "distance l2 uint8: 1025 dimensions"),
        ("distance", reads_past_the_end, "distance cosine int8: 1 dimensions"),
        ("distance", wrong_in_one_type, "distance l2 float16: "),
        ("distance", overflows_at_65536, "distance l2 uint8: 65536 dimensions"),
        ("distance", not_a_number, "distance ip bfloat16: 1 dimensions"),
        ("exact_search", swaps_first_two, "exact_search l2 float32: "),
        ("exact_search", repeats_an_id, "exact_search ip uint8: "),
        ("exact_search", scales_distances, "exact_search l2 int8: "),
        ("exact_search", refuses, "exact_search cosine float16: 1 rows, 1 dimensions, status"),
        ("exact_search", leaves_ids_alone, "exact_search l2 float32: "),
        ("index_add", refuses, "graph l2 uint8, codes none: 300 rows, 33 dimensions, add"),
        ("index_check", refuses, "graph cosine int8, codes none: 300 rows, 33 dimensions, check"),
        (
            "index_search",
            farther_rows,
            "graph ip float32, codes none: 300 rows, 33 dimensions, recall",
        ),
        (
            "index_search",
            finds_nothing,
            "graph l2 int8, codes u8: 300 rows, 33 dimensions, query 0, id",
        ),
        ("crc32c", crc_without_chaining, "crc32c: "),
        ("crc32c", crc_of_seven_bytes, "crc32c: 7 bytes from 0"),
    ],
)
@pytest.mark.full_build
def test_a_wrong_kernel_is_noticed(monkeypatch, capsys, name, function, kernel):
    monkeypatch.setattr(_cpu, "native", Spoiled(name, function))
    assert __main__.main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "MISMATCH\n" in printed
    assert any(line.startswith(kernel) for line in printed.splitlines()), printed
    assert "kernels are wrong on this machine" in printed


def test_sizes_lie_around_the_loop():
    for lanes in (4, 8, 16):
        sizes = set(_self_test.sizes(lanes))
        assert {1, lanes - 1, lanes, lanes + 1, 4 * lanes, 223, 1024, 65536} <= sizes


def doctor(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vicinal", "doctor", *arguments],
        env={name: value for name, value in os.environ.items() if name != "VICINAL_CPU"},
        capture_output=True,
        text=True,
        timeout=600,
    )
