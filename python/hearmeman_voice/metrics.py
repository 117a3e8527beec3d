"""An API's metrics for Prometheus, at /metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from hearmeman_voice.errors import ApiError

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0, 90.0)
_FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """The metrics of one API; `state` is called when they are read."""

    def __init__(self, api: str, state: Callable[[], Mapping[str, Any]]) -> None:
        self._registry = CollectorRegistry()
        # One more series for each, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self._registry)
        counter, gauge = self._counter, self._gauge
        self.requests = Counter(
            "voice_requests", "Answers by address and status", ("address", "status"), registry=self._registry
        )
        self.first_byte = Histogram(
            "voice_first_byte_seconds",
            "From the request to its first byte of audio",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.realtime = Histogram(
            "voice_realtime_factor",
            "Seconds of work per second of audio, waiting excluded",
            buckets=_FACTORS,
            registry=self._registry,
        )
        self.cancelled = counter("voice_cancelled", "Clients that hung up before the end")
        self.audio = counter("voice_audio_seconds", "Seconds of audio made")
        self.characters = counter("voice_characters", "Characters spoken")
        self._refusals = Counter(
            "voice_refusals", "Speech that was refused or broke off", ("code",), registry=self._registry
        )
        for name, words in (("waiting", "Requests waiting for the engine"), ("in_flight", "Requests being spoken")):
            gauge(f"voice_{name}", words).set_function(lambda name=name: float(state()[name]))  # type: ignore[misc]
        gauge("voice_queue", "Requests that may wait").set_function(lambda: float(state()["queue"]))
        gauge("voice_vram_bytes", "GPU memory held by the engine").set_function(lambda: float(state()["vram"] or 0))
        gauge("voice_loaded", "Whether the model is in memory").set_function(lambda: float(bool(state()["loaded"])))
        about = Gauge("voice_engine", "The engine", ("api", "engine", "version"), registry=self._registry)
        found = state()
        about.labels(api, found["name"], found["version"]).set(1)

    def _counter(self, name: str, words: str) -> Counter:
        return Counter(name, words, registry=self._registry)

    def _gauge(self, name: str, words: str) -> Gauge:
        return Gauge(name, words, registry=self._registry)

    def spoke(self, characters: int, seconds: float) -> None:
        """Record a text that was spoken to the end."""
        self.characters.inc(characters)
        self.audio.inc(seconds)

    def measured(self, work: float, sound: float) -> None:
        """Record the engine's own seconds for some seconds of sound."""
        if sound > 0:
            self.realtime.observe(work / sound)

    def refused(self, error: ApiError) -> None:
        """Record what was not spoken, or not to the end."""
        self._refusals.labels(error.code or str(error.status)).inc()

    def page(self) -> tuple[bytes, str]:
        """All metrics, and their Content-Type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
