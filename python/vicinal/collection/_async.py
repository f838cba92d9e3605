"""Async twins: each verb in a thread, so that an event loop goes on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["AsyncTwins"]


def _twin(name: str) -> Callable[..., Any]:
    async def twin(self: Any, /, *arguments: Any, **options: Any) -> Any:
        from asyncio import to_thread  # takes milliseconds to import

        return await to_thread(getattr(self, name), *arguments, **options)

    twin.__name__ = f"a{name}"
    twin.__qualname__ = f"Collection.a{name}"
    twin.__doc__ = f"Do what `{name}` does in a thread; the same arguments, answers and errors."
    return twin


class AsyncTwins:
    """Methods with an "a" before the name of the one that they await."""

    aadd = _twin("add")
    aupsert = _twin("upsert")
    aupdate = _twin("update")
    aupdate_metadata = _twin("update_metadata")
    adelete = _twin("delete")
    aget = _twin("get")
    acount = _twin("count")
    adistinct = _twin("distinct")
    amin_max = _twin("min_max")
    asearch = _twin("search")
    asearch_text = _twin("search_text")
    asearch_hybrid = _twin("search_hybrid")
    acheckpoint = _twin("checkpoint")
    aclose = _twin("close")
