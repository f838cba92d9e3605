"""What OpenTelemetry is told of an index, by its own SDK; and what it is never told."""

from __future__ import annotations

import gc
import json
import logging
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import vicinal
from support.pages import run_examples
from vicinal.integrations.opentelemetry import InstrumentedIndex, instrument

ROWS = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)


class Told:
    """The providers of one program, and what they were told."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def instrument(self, index: vicinal.Index, name: str) -> InstrumentedIndex:
        return instrument(index, name, meter_provider=self.meters, tracer_provider=self.tracers)

    def numbers(self) -> dict[tuple[str, str], Any]:
        """Return the points of all instruments by (instrument, index)."""
        data = self.reader.get_metrics_data()
        found = {}
        for resource in [] if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        found[metric.name, point.attributes["db.collection.name"]] = (
                            type(metric.data).__name__,
                            metric.unit,
                            point,
                        )
        return found


def made() -> vicinal.Index:
    index = vicinal.Index(8)
    index.add(ROWS)
    return index


def test_the_numbers_are_those_of_metrics(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    with caplog.at_level(logging.WARNING):
        one, other = made(), vicinal.Index(8)
        told.instrument(one, "one").search(ROWS[:3], 4)
        told.instrument(other, "other")
        for _ in range(2):
            found = told.numbers()
            for name, index in (("one", one), ("other", other)):
                for key, value in vicinal.metrics(index).items():
                    kind, unit, point = found[f"vicinal.{key.lower()}", name]
                    growing = key.startswith(("search_", "build_", "filtered_"))
                    assert kind == ("Sum" if growing else "Gauge"), key
                    assert point.value == pytest.approx(value), key
                    assert unit == ("By" if key.endswith("_bytes") else unit)
        other.add(ROWS[:7])
        assert told.numbers()["vicinal.count", "other"][2].value == 7
        del one, index
        gc.collect()
        names = {name for metric, name in told.numbers() if metric == "vicinal.count"}
        assert names == {"other"}
    assert caplog.records == []  # instruments that come twice would be warned of


def test_operations_are_spans_and_durations() -> None:
    told = Told()
    index = told.instrument(made(), "things")
    wanted = index.index.search(ROWS[:5], 3, ef_search=50)
    found = index.search(ROWS[:5], 3, ef_search=50, filter=np.ones(500, bool))
    np.testing.assert_array_equal(found.ids, wanted.ids)
    within = index.range_search(ROWS[0], 4.0)
    added = index.add(ROWS[:2])
    index.remove(added)
    assert len(index) == 500 and 3 in index and index.dim == 8
    search, near, add, remove = told.exporter.get_finished_spans()
    assert search.name == "search things" and search.kind.name == "CLIENT"
    assert dict(search.attributes) == {
        "db.system.name": "vicinal",
        "db.operation.name": "search",
        "db.collection.name": "things",
        "db.operation.batch.size": 5,
        "db.response.returned_rows": 15,
        "vicinal.k": 3,
        "vicinal.ef_search": 50,
        "vicinal.filtered": True,
    }
    assert near.attributes["db.response.returned_rows"] == len(within.ids)
    assert near.attributes["db.operation.batch.size"] == 1
    assert [each.attributes["db.operation.batch.size"] for each in (add, remove)] == [2, 2]
    kind, unit, point = told.numbers()["db.client.operation.duration", "things"]
    assert (kind, unit, point.count) == ("Histogram", "s", 1)


def test_errors_are_told_by_their_class_alone() -> None:
    told = Told()
    index = told.instrument(made(), "things")
    with pytest.raises(KeyError, match="987654"):
        index.remove([987654])
    (span,) = told.exporter.get_finished_spans()
    assert span.attributes["error.type"] == "KeyError" and span.status.status_code.name == "ERROR"
    assert span.events == () and span.status.description is None
    assert "987654" not in json.dumps(json.loads(span.to_json()))
    point = told.numbers()["db.client.operation.duration", "things"][2]
    assert point.attributes["error.type"] == "KeyError"


def test_without_a_program_that_listens() -> None:
    index = instrument(made(), "quiet")
    assert index.search(ROWS[3], 1).ids[0] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((ROWS, "x"), "index: expected an Index"), ((vicinal.Index(2), 5), "name: expected a string")],
)
def test_bad_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        instrument(*arguments)


def test_the_page() -> None:
    assert run_examples("observing.md") == 3
