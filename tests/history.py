"""What an index that several threads change may show to a call, and what it must.

Time is a count that goes up at the beginning and the end of every call. A change takes effect at
some moment between its own two: a vector may be seen from the beginning of the call that brings it
to the end of the call that takes it away, and must be seen from the end of the first to the
beginning of the second.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

NEVER = 1 << 62


@dataclass(eq=False)
class Version:
    """One vector of one id, the moments between which it came, and those between which it went."""

    value: Any
    coming: int
    came: int = NEVER
    going: int = NEVER
    gone: int = NEVER
    replaced: bool = False  # what went came back as another vector at the same moment


class History:
    """Versions of all ids; each id is changed by one thread only, and asked for by any."""

    def __init__(self) -> None:
        self._moments = itertools.count(1)
        self._versions: dict[int, list[Version]] = {}
        self._asking: dict[int, int] = {}  # when the call that a thread makes began

    # ---- for those who change

    def bring(self, ids: Iterable[int], values: Any) -> list[Version]:
        """Note that vectors are about to come; known ids are replaced. Returns what `end` takes."""
        now = next(self._moments)
        changed = []
        for id, value in zip(ids, values, strict=True):
            new = Version(value, now)
            old = self.current(id)
            if old is not None:
                old.going, old.replaced = now, True
                changed.append(old)
            kept = [v for v in self._versions.get(id, ()) if v.gone >= self._oldest()]
            self._versions[id] = [*kept, new]
            changed.append(new)
        return changed

    def take(self, ids: Iterable[int]) -> list[Version]:
        """Note that vectors are about to go."""
        now = next(self._moments)
        changed = []
        for id in ids:
            old = self.current(id)
            assert old is not None
            old.going, old.replaced = now, False
            changed.append(old)
        return changed

    def end(self, changed: list[Version]) -> None:
        """Note that a change has taken effect."""
        now = next(self._moments)
        for version in changed:
            if version.going == NEVER:
                version.came = now
            else:
                version.gone = now

    def current(self, id: int) -> Version | None:
        """Return the version that is there; only for the thread that changes the id."""
        versions = self._versions.get(id)
        last = versions[-1] if versions else None
        return last if last is not None and last.going == NEVER else None

    def _oldest(self) -> int:
        return min(list(self._asking.values()), default=NEVER)

    # ---- for those who ask

    def begin(self) -> int:
        """Begin a call and return the moment."""
        self._asking[threading.get_ident()] = 0  # nothing is forgotten until the moment is known
        now = next(self._moments)
        self._asking[threading.get_ident()] = now
        return now

    def finish(self) -> int:
        """Return the moment at which what was begun has ended; it may still be asked about."""
        return next(self._moments)

    def seen(self, id: int, begin: int, end: int) -> list[Any]:
        """Return the vectors that a call may have seen of an id."""
        versions = self._versions.get(id, ())
        return [v.value for v in versions if v.coming <= end and v.gone >= begin]

    def must(self, begin: int, end: int) -> dict[int, list[Any]]:
        """Return the ids that were there all the while, each with all that it may have been."""
        found = {}
        # a copy in one step: making tuples lets the collector, and so other threads, run
        for id, versions in self._versions.copy().items():
            here = [v for v in list(versions) if v.coming <= end and v.gone >= begin]
            # there at the beginning, and until the end or replaced by what stayed
            if (
                here
                and here[0].came <= begin
                and all(v.replaced for v in here[:-1])
                and here[-1].going >= end
            ):
                found[id] = [v.value for v in here]
        return found

    def rows(self) -> dict[int, Any]:
        """Return what is there, once nobody changes anything."""
        return {
            id: versions[-1].value
            for id, versions in self._versions.items()
            if versions and versions[-1].going == NEVER
        }
