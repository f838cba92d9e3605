"""What /metrics tells, in the format of Prometheus; nothing is sent anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from vicinal.server.store import Store

__all__ = ["Metrics"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class _Collections:
    """Figures of the collections that are open, taken when they are asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Any]:
        label = ["collection"]
        documents = GaugeMetricFamily("vicinal_documents", "Documents", labels=label)
        pending = GaugeMetricFamily("vicinal_pending", "Not in the saved index yet", labels=label)
        size = GaugeMetricFamily("vicinal_file_bytes", "On the disk", labels=label)
        recall = GaugeMetricFamily("vicinal_recall", "Last measured recall", labels=label)
        filtered = CounterMetricFamily(
            "vicinal_filtered_searches",
            "Searches of the saved index behind filters, since it was opened",
            labels=[*label, "plan"],
        )
        for name, served in self._store.opened().items():
            try:
                with served.used():
                    stats = served.collection.stats()
            except Exception:  # deleted meanwhile, or damaged: its requests say so
                continue
            documents.add_metric([name], stats["documents"])
            pending.add_metric([name], stats["pending"])
            size.add_metric([name], stats["file_bytes"])
            if served.recall is not None:
                recall.add_metric([name], served.recall)
            for plan, times in stats["filtered"].items():
                filtered.add_metric([name, plan], times)
        yield from (documents, pending, size, recall, filtered)


class Metrics:
    """The metrics of one application."""

    def __init__(self, store: Store) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "vicinal_requests",
            "Requests by route and status",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "vicinal_request_seconds",
            "From the headers of a request to its answer",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.queue = Gauge(
            "vicinal_queue", "Requests being read, waiting or answered", registry=self._registry
        )
        self._registry.register(_Collections(store))

    def text(self) -> bytes:
        """Return all of them."""
        text: bytes = generate_latest(self._registry)
        return text
