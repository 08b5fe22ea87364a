"""The agent's health for Prometheus, over HTTP: the only prometheus_client import."""

import time
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from edgernn.errors import EdgernnError
from edgernn_device.health import BUCKETS_S, STATES, Report, by_unit

IRREGULAR_HELP = {
    "messages": "Messages refused or dropped, by reason.",
    "samples": "Samples refused, filled in or lost, by reason.",
    "values": "Values of samples left out, by reason.",
    "publishes": "Publishes lost, by reason.",
    "events": "What happened to streams and should not, by reason.",
}


class Metrics:
    """Serves the report it was last shown, at /metrics, until closed.

    A scrape runs in a thread of its own, so it sees reports and never what the worker works on.
    """

    def __init__(self, host: str, port: int) -> None:
        """Raises EdgernnError if it cannot listen there."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._board = _Board()
        registry.register(self._board)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as exc:
            why = exc.strerror or exc
            raise EdgernnError(f"metrics.listen: {host}:{port}: cannot listen: {why}") from exc

    def show(self, report: Report) -> None:
        """From here on scrapes see this."""
        self._board.report = report
        self._board.shown_s = time.monotonic()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Board(Collector):
    """What a scrape reads. Label values come from edgernn alone, none from topics or payloads."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.shown_s = 0.0

    def collect(self) -> Iterator[Metric]:
        if (report := self.report) is None:
            return
        health = report.health
        yield InfoMetricFamily(
            "edgernn_agent",
            "What runs.",
            {
                "version": health.version,
                "model": health.model,
                "model_hash": health.model_hash,
            },
        )
        yield _gauge(
            "report_age_seconds",
            "Time since the worker last came round; it does each second, unless busy or stuck.",
            time.monotonic() - self.shown_s,
        )
        yield _gauge("broker_connected", "1 while the broker has us, else 0.", report.is_connected)
        yield _counter("broker_reconnects", "Connections after the first.", health.reconnects)
        yield _counter("messages", "Messages received and done with.", health.messages)
        yield _counter("samples", "Samples scored, filled in ones included.", health.samples)
        yield _gauge("inbox_messages", "Messages that wait to be scored.", health.inbox)
        yield _gauge("outbox_publishes", "Publishes that wait to be confirmed.", health.outbox)
        yield _gauge(
            "store_failing",
            "1 while the last transaction on disk failed, else 0.",
            bool(health.store),
        )
        yield _counter("store_failures", "Transactions on disk that failed.", health.store_failures)
        streams = GaugeMetricFamily("edgernn_streams", "Streams, by state.", labels=["state"])
        for state in dict.fromkeys([*STATES, *health.states]):
            streams.add_metric([state], health.states.get(state, 0))
        yield streams
        alerts = _labelled("alerts", "Alarms that went on, by severity.", "severity")
        for severity in dict.fromkeys(["warning", "critical", *health.alerts]):
            alerts.add_metric([severity], health.alerts.get(severity, 0))
        yield alerts
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        yield HistogramMetricFamily(
            "edgernn_batch_latency_seconds",
            "From a batch's first message received to its effect published.",
            buckets=list(zip(bounds, accumulate(report.latency_counts), strict=True)),
            sum_value=report.latency_sum_s,
        )
        for unit, counts in by_unit(health.dropped).items():
            family = _labelled(f"irregular_{unit}", IRREGULAR_HELP[unit], "reason")
            for reason, count in counts.items():
                family.add_metric([reason], count)
            yield family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"edgernn_{name}", text, value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"edgernn_{name}", text, value)


def _labelled(name: str, text: str, label: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"edgernn_{name}", text, labels=[label])
