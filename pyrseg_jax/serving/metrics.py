"""What the server counts, in the text format of Prometheus."""

import contextlib
from collections.abc import Iterator

import jax
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
_COMPILED = "/jax/core/compile/backend_compile_duration"  # jax reports programs that it reads from its cache, too
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, with a registry of their own: several servers in one process do not share them."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "pyrseg_requests", "Requests, by route and status.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "pyrseg_request_seconds",
            "Seconds from the headers of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.held = Gauge(
            "pyrseg_held_requests", "Requests for a segmentation that the server holds.", registry=registry
        )
        self.images = Counter("pyrseg_images", "Images that were segmented, by answer.", ["format"], registry=registry)
        self.batches = Histogram(
            "pyrseg_batch_images", "Images that went through the network together.", buckets=_SIZES, registry=registry
        )
        self.compilations = Counter(
            "pyrseg_compilations", "Programs that were compiled or read from the cache on disk.", registry=registry
        )
        self.is_ready = Gauge("pyrseg_ready", "Whether the sizes are warmed up: 0 or 1.", registry=registry)
        ProcessCollector(registry=registry)

    def text(self) -> bytes:
        """Return the page that Prometheus reads."""
        return generate_latest(self._registry)

    def value(self, name: str, labels: dict[str, str] | None = None) -> float:
        """Return a value by its name on the page, such as `pyrseg_compilations_total`; 0 if nothing was counted."""
        return self._registry.get_sample_value(name, labels or {}) or 0.0

    @contextlib.contextmanager
    def counting_compilations(self) -> Iterator[None]:
        """Count the programs that this process compiles inside of the context."""

        def note(event: str, duration_secs: float, **kwargs: str | int) -> None:
            if event == _COMPILED:
                self.compilations.inc()

        jax.monitoring.register_event_duration_secs_listener(note)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(note)
