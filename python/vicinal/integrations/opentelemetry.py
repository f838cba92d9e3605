"""OpenTelemetry: the numbers of an index as metrics, its operations as spans and durations."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import vicinal
from vicinal import Index

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError(
        f"this module needs opentelemetry-api: pip install 'vicinal[otel]' ({error})"
    ) from error

__all__ = ["InstrumentedIndex", "instrument"]

_SCOPE = "vicinal"
# what only grows as long as an index is open; see `vicinal.metrics`
_GROWING = ("search_", "build_", "filtered_")
_UNITS = {"_bytes": "By", "_seconds": "s"}


class InstrumentedIndex:
    """An index whose searches and changes are told to OpenTelemetry; made by `instrument`.

    `search`, `range_search`, `add` and `remove` take and return what those of `Index` do. All else
    is that of the index.

    Attributes
    ----------
    index : Index
    name : str
    """

    def __init__(self, index: Index, name: str, tracer: Any, duration: Any) -> None:
        self.index, self.name = index, name
        self._tracer, self._duration = tracer, duration

    def __getattr__(self, name: str) -> Any:
        return getattr(self.index, name)

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, id: object) -> bool:
        return id in self.index

    def search(self, queries: Any, k: int = 10, **options: Any) -> vicinal.SearchResult:
        """Search; see `Index.search`."""
        with self._told("search", options, k=k) as span:
            found = self.index.search(queries, k, **options)
            if span.is_recording():
                _count(span, queries, np.isfinite(found.distances).sum())
            return found

    def range_search(self, queries: Any, radius: float, **options: Any) -> vicinal.RangeResult:
        """Search within a radius; see `Index.range_search`."""
        with self._told("range_search", options) as span:
            found = self.index.range_search(queries, radius, **options)
            if span.is_recording():
                _count(span, queries, len(found.ids))
            return found

    def add(self, vectors: Any, *arguments: Any, **options: Any) -> Any:
        """Add vectors; see `Index.add`."""
        with self._told("add", {}) as span:
            ids = self.index.add(vectors, *arguments, **options)
            span.set_attribute("db.operation.batch.size", len(ids))
            return ids

    def remove(self, ids: Any, *arguments: Any, **options: Any) -> None:
        """Remove vectors; see `Index.remove`."""
        with self._told("remove", {}) as span:
            before = len(self.index)
            self.index.remove(ids, *arguments, **options)
            span.set_attribute("db.operation.batch.size", max(before - len(self.index), 0))

    @contextmanager
    def _told(self, verb: str, options: dict[str, Any], **numbers: Any) -> Iterator[Span]:
        about: dict[str, Any] = {
            "db.system.name": "vicinal",
            "db.operation.name": verb,
            "db.collection.name": self.name,
        }
        more = {f"vicinal.{key}": value for key, value in numbers.items()}
        for key in ("ef_search", "recall"):
            if options.get(key) is not None:
                more[f"vicinal.{key}"] = options[key]
        if verb.endswith("search"):
            more["vicinal.filtered"] = options.get("filter") is not None
        more = {key: value for key, value in more.items() if isinstance(value, (bool, int, float))}
        start = time.perf_counter()
        # what an exception says may have ids in it: only its class is told
        with self._tracer.start_as_current_span(
            f"{verb} {self.name}",
            kind=SpanKind.CLIENT,
            attributes={**about, **more},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                about["error.type"] = type(error).__name__
                span.set_attribute("error.type", about["error.type"])
                span.set_status(Status(StatusCode.ERROR))
                raise
            finally:
                self._duration.record(time.perf_counter() - start, about)


def _count(span: Span, queries: Any, found: Any) -> None:
    shape = np.shape(queries)
    span.set_attribute("db.operation.batch.size", shape[0] if len(shape) > 1 else 1)
    span.set_attribute("db.response.returned_rows", int(found))


class _Numbers:
    """What `vicinal.metrics` tells of all indexes that one provider of meters was asked to watch.

    Instruments cannot be taken back, so there is one for each number, whichever indexes there are.
    """

    def __init__(self, meter: Any) -> None:
        self._meter = meter
        self._guard = threading.Lock()
        self._indexes: dict[str, weakref.ref[Index]] = {}
        self._made: set[str] = set()
        self._told: dict[str, dict[str, int | float]] = {}
        self._asked: set[str] = set()

    def watch(self, index: Index, label: str) -> None:
        with self._guard:
            self._indexes[label] = weakref.ref(index)
            fresh = [key for key in vicinal.metrics(index) if key not in self._made]
            self._made.update(fresh)
        for key in fresh:
            growing = key.startswith(_GROWING)
            make = self._meter.create_observable_counter if growing else None
            make = make or self._meter.create_observable_gauge
            unit = next((unit for end, unit in _UNITS.items() if key.endswith(end)), "1")
            make(
                f"vicinal.{key.lower()}", [self._observer(key)], unit, f"`{key}` of vicinal.metrics"
            )

    def _observer(self, key: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            with self._guard:
                # all instruments are read one after the other: one look at the indexes is enough
                # for them, and a number that is asked for again begins the next
                if key in self._asked or not self._asked:
                    self._look()
                self._asked.add(key)
                return [
                    Observation(numbers[key], _attributes(name))
                    for name, numbers in self._told.items()
                    if key in numbers
                ]

        return observe

    def _look(self) -> None:
        self._asked.clear()
        self._told = {}
        for name, held in list(self._indexes.items()):
            index = held()
            if index is None:
                del self._indexes[name]
            else:
                self._told[name] = vicinal.metrics(index)


def _attributes(name: str) -> dict[str, str]:
    return {"db.system.name": "vicinal", "db.collection.name": name}


_numbers: weakref.WeakKeyDictionary[Any, _Numbers] = weakref.WeakKeyDictionary()
_numbers_guard = threading.Lock()


def instrument(
    index: Index,
    name: str,
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
) -> InstrumentedIndex:
    """Tell OpenTelemetry about an index.

    Parameters
    ----------
    index : Index
    name : str
        What it is called in all that is told, as `db.collection.name`; each index its own.
    meter_provider, tracer_provider
        By default the global ones. Nothing is sent but by what the program has set up there.

    Returns
    -------
    InstrumentedIndex
        To be used in place of the index: its searches and changes are spans, and in the histogram
        `db.client.operation.duration` in seconds. Ids, texts, vectors and the words of errors are
        never told.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.

    Notes
    -----
    All numbers of `vicinal.metrics` become observable instruments `vicinal.count`,
    `vicinal.memory_total_bytes` and so on: counters where they only grow, else gauges. They are
    read when the program's reader asks, as long as the index exists. Threads: as `Index`.
    """
    if not isinstance(index, Index):
        raise TypeError(f"index: expected an Index, got {type(index).__name__}")
    if not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {type(name).__name__}")
    provider = meter_provider or metrics.get_meter_provider()
    meter = provider.get_meter(_SCOPE, vicinal.__version__)
    with _numbers_guard:
        numbers = _numbers.get(provider)
        if numbers is None:
            numbers = _numbers[provider] = _Numbers(meter)
    numbers.watch(index, name)
    duration = meter.create_histogram(
        "db.client.operation.duration", "s", "Seconds of searches and changes."
    )
    tracer = trace.get_tracer(_SCOPE, vicinal.__version__, tracer_provider)
    return InstrumentedIndex(index, name, tracer, duration)
