"""String ids: the native index knows rows by numbers, and here strings become numbers and back.

The strings lie with the native index, as one text and a table of offsets, so that they are saved,
mapped, copied and counted with the rest. The number of a string is its place among all strings in
the order they came.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vicinal._cpu import native
from vicinal._validate import refuse_unordered
from vicinal.errors import CorruptError

__all__ = ["ID_KINDS", "StringIds", "as_strings", "id_kind"]

ID_KINDS = ("int64", "str")
_COUNT, _MEMORY = range(2)  # `which` of native.strings_info
_NONE = -1

Names = NDArray[np.object_]


def id_kind(ids: object) -> str:
    """Return what ids are; TypeError if it is no string, ValueError if it is unknown."""
    if isinstance(ids, str) and ids in ID_KINDS:
        return ids
    kind = ValueError if isinstance(ids, str) else TypeError
    raise kind(f"ids: expected 'int64' or 'str', got {reprlib.repr(ids)}")


def as_strings(data: object, name: str = "ids") -> Names:
    """Return string ids of any shape as an object array of plain `str`.

    Parameters
    ----------
    data : str or array_like of str
        Also NumPy arrays of dtype `<U`, `StringDType` and object.
    name : str
        Argument's name for messages.

    Raises
    ------
    TypeError
        If there is anything but strings; bytes are none.
    """
    names = np.empty((), object)
    if isinstance(data, str):
        names[()] = data
    elif isinstance(data, np.ndarray) and data.dtype.kind not in "UTO" and data.size:
        raise TypeError(f"{name}: expected strings, got dtype {data.dtype}")
    else:
        try:
            names = np.array(data, dtype=object)
            refuse_unordered(data, names, name, "strings")
        except ValueError as error:
            raise TypeError(f"{name}: expected strings, got ragged ones: {error}") from None
    flat = names.reshape(-1)
    for position, item in enumerate(flat):
        if type(item) is not str:
            if not isinstance(item, str):
                shown = reprlib.repr(item)
                raise TypeError(f"{name}: expected strings, got {shown} at position {position}")
            flat[position] = str.__str__(item)  # of an enum `str` would be its name
    return flat.reshape(names.shape)


class StringIds:
    """The strings of one index.

    Threads: as `Index.get` for the methods that only look, as `Index.add` for `allocate`.
    """

    __slots__ = ("_handle", "_path")

    def __init__(self, handle: Any, path: Any) -> None:
        self._handle = handle
        self._path = path

    @staticmethod
    def of(handle: Any, path: Any) -> StringIds | None:
        """Return the strings of a native index, None if its ids are integers."""
        return None if native.strings_info(handle, _COUNT) < 0 else StringIds(handle, path)

    def __len__(self) -> int:
        return native.strings_info(self._handle, _COUNT)

    def memory(self) -> int:
        """Return the bytes that strings, offsets and the table that finds them take."""
        return native.strings_info(self._handle, _MEMORY)

    def to_numbers(self, names: Names) -> NDArray[np.int64]:
        """Return the number of each string, -1 for one that was never an id; same shape.

        Raises
        ------
        CorruptError
            If the index lies in a file whose table of strings is damaged.
        ValueError
            If a string is not valid Unicode.
        """
        return self._look_up(names, False)

    def to_strings(self, numbers: NDArray[np.int64]) -> Names:
        """Return the string of each number, None for -1; same shape.

        Raises
        ------
        CorruptError
            If the index lies in a file whose table of strings is damaged.
        """
        flat = np.ascontiguousarray(numbers).reshape(-1)
        offsets = np.empty(len(flat) + 1, np.int64)
        text = native.strings_read(self._handle, flat, offsets)
        if isinstance(text, int):
            raise self._damage(f"the id of number {flat[text]} is not where it must be")
        names = np.empty(len(flat), object)
        ends = offsets.tolist()
        try:
            names[:] = [text[ends[i] : ends[i + 1]].decode() for i in range(len(flat))]
        except UnicodeDecodeError as error:
            raise self._damage(f"an id is not UTF-8: {error}") from None
        names[flat == _NONE] = None
        return names.reshape(np.shape(numbers))

    @contextmanager
    def allocate(self, names: Names, changes: Callable[[], int]) -> Iterator[NDArray[np.int64]]:
        """Give a `with` block that adds rows the numbers of strings, new ones for unknown strings.

        Parameters
        ----------
        names : ndarray of str
            The strings.
        changes : callable
            Tells how many changes of the index have taken effect. If it were as many after an
            exception as before the block, new strings are forgotten again.
        """
        strings, before = len(self), changes()
        try:
            yield self._look_up(names, True)
        except BaseException:
            if changes() == before:
                native.strings_shrink(self._handle, strings)
            raise

    def _look_up(self, names: Names, add: bool) -> NDArray[np.int64]:
        flat = names.reshape(-1)
        try:
            encoded = [name.encode() for name in flat]
        except UnicodeEncodeError as error:
            raise ValueError(f"ids: {reprlib.repr(error.object)} is not valid Unicode") from None
        offsets = np.zeros(len(flat) + 1, np.int64)
        np.cumsum([len(item) for item in encoded], out=offsets[1:])
        numbers = np.empty(len(flat), np.int64)
        if native.strings_numbers(self._handle, b"".join(encoded), offsets, add, numbers):
            raise self._damage("the offsets of its ids do not ascend inside their text")
        return numbers.reshape(names.shape)

    def _damage(self, what: str) -> CorruptError:
        return CorruptError(f"{os.fsdecode(self._path) or 'index'}: {what}")
