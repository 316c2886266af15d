"""What a service counts, in the format of Prometheus.

Counting happens on the event loop alone, in plain numbers: a counter of `prometheus_client` takes a lock for each step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

#: Upper ends of buckets: seconds of a request, and rows of a batch.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384)


class Histogram:
    """Counts values by bucket."""

    def __init__(self, ends: Sequence[float]) -> None:
        self.ends, self.counts, self.total = ends, [0] * (len(ends) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.ends, value)] += 1
        self.total += value

    def family(self, name: str, text: str) -> Metric:
        """Return it as Prometheus has it: each bucket counts what is not above its end."""
        buckets, so_far = [], 0
        for end, count in zip([*map(str, map(float, self.ends)), "+Inf"], self.counts, strict=True):
            so_far += count
            buckets.append((end, float(so_far)))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self.total)


class Metrics:
    """The figures of a service.

    Attributes
    ----------
    responses : Counter
        Of statuses: how often each was answered by ``/predict``.
    active : int
        Requests to ``/predict`` that are not answered yet.
    """

    def __init__(self, model: str, version: str) -> None:
        self._about = {"model": model, "version": version}
        self.responses: Counter[int] = Counter()
        self.active = self.rows = 0
        self.seconds, self.batches = Histogram(SECONDS), Histogram(ROWS)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def count_batch(self, n_requests: int, n_rows: int) -> None:
        """Count a batch."""
        self.batches.add(n_rows)
        self.rows += n_rows

    def collect(self) -> Iterator[Metric]:
        """Yield all figures, as a registry asks for them."""
        yield InfoMetricFamily("nnx", "The model that is served, and nnx's version.", value=self._about)
        responses = CounterMetricFamily("nnx_requests", "Requests to /predict, by status.", labels=["status"])
        for status, count in sorted(self.responses.items()):
            responses.add_metric([str(status)], count)
        yield responses
        yield GaugeMetricFamily("nnx_requests_active", "Requests to /predict that wait for an answer.", self.active)
        yield CounterMetricFamily("nnx_rows", "Rows that were predicted.", self.rows)
        yield self.seconds.family("nnx_request_seconds", "From a request's head to its answer.")
        yield self.batches.family("nnx_batch_rows", "Rows that were predicted together.")

    def text(self) -> bytes:
        """Return all figures as text."""
        return generate_latest(self._registry)
