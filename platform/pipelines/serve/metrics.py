"""What `/metrics` says, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from derain.pipelines.serve.limits import Queue

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts of one server."""

    def __init__(self, queue: Queue) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "derain_requests", "Requests to /v1/derain.", ("status",), registry=self._registry
        )
        self.seconds = Histogram(
            "derain_request_seconds", "From request to answer.", registry=self._registry
        )
        waiting = Gauge("derain_requests_in_hand", "Not answered yet.", registry=self._registry)
        waiting.set_function(lambda: queue.in_hand)

    def text(self) -> bytes:
        """The text of the page."""
        return generate_latest(self._registry)
