"""What `progress=` stands for: nothing, a bar, or the caller's own function."""

from __future__ import annotations

import importlib
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Report", "reporting"]

Report = Callable[[int, int], object]


@contextmanager
def reporting(progress: bool | Report | None, total: int) -> Iterator[Report | None]:
    """Yield the function to call with (done, total), or None; a bar is closed at the end.

    Parameters
    ----------
    progress : None, bool or callable
        None and False report nothing, True draws a bar with tqdm.
    total : int
        Rows in all.

    Raises
    ------
    ImportError
        If a bar is asked for and tqdm is not installed.
    TypeError
        If it is none of these.
    """
    if progress is None or progress is False:
        yield None
    elif progress is True:
        try:
            tqdm = importlib.import_module("tqdm.auto").tqdm
        except ImportError:
            raise ImportError(
                "progress: True draws its bar with tqdm, which is not installed: "
                "pip install tqdm, or give a callable (done, total)"
            ) from None
        with tqdm(total=total, unit=" rows", unit_scale=True) as bar:
            yield lambda done, total: bar.update(done - bar.n)
            bar.update(total - bar.n)
    elif callable(progress):
        yield progress
    else:
        raise TypeError(
            "progress: expected None, True or a callable (done, total), got "
            f"{reprlib.repr(progress)}"
        )
