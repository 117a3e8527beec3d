"""Metrics for Prometheus: what the page knows, through the client library; docs/metrics.md lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from hearmeman.page.comfyui import Job

BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
"""Seconds of a job: a picture takes a few, a video minutes."""


class Metrics:
    """Renders the page's facts; only the jobs' durations are kept, since they are in the past."""

    def __init__(self) -> None:
        self.found: Mapping[str, Any] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        # It would add a series for each, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._seconds = Histogram(
            "hearmeman_comfyui_job_seconds",
            "How long jobs ran, by how they ended.",
            ["result"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        for result in ("ok", "failed", "interrupted"):
            # From zero: a rate cannot tell that a series appeared with its first job.
            self._seconds.labels(result)
        self._registry.register(self)

    def ended(self, job: Job) -> None:
        """Count a job."""
        result = "ok" if job.ok else "interrupted" if job.interrupted else "failed"
        self._seconds.labels(result).observe(job.seconds or 0.0)

    def render(self, found: Mapping[str, Any], accept: str) -> tuple[bytes, str]:
        """Render the facts in the format that the scraper accepts: (text, content type)."""
        self.found = found
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Make the metrics; the library calls this."""
        found = self.found
        if found:
            yield from _pod(found)
            yield from _comfyui(found["comfyui"])
            yield from _fetch(found["models"] or {})
            yield from _sync(found["sync"], found["now"])
            yield from _machine(found["usage"] or {})
            yield from _voices(found["voices"])


def _gauge(name: str, text: str, value: object) -> Iterator[Metric]:
    if isinstance(value, int | float):
        yield GaugeMetricFamily(f"hearmeman_{name}", text, value=float(value))


def _counter(name: str, text: str, value: object) -> Iterator[Metric]:
    if isinstance(value, int | float):
        yield CounterMetricFamily(f"hearmeman_{name}", text, value=float(value))


def _pod(found: Mapping[str, Any]) -> Iterator[Metric]:
    boot, image = found["boot"], found["boot"].get("image", {})
    info = {"pod": boot.get("pod"), "tier": image.get("tier"), "comfyui_commit": image.get("comfyui_rev")}
    info |= {"digest": boot.get("digest")}
    yield InfoMetricFamily("hearmeman_pod", "What this pod is.", value={k: str(v) for k, v in info.items() if v})
    state = GaugeMetricFamily("hearmeman_state", "1 for the state that the pod is in.", labels=["state"])
    for word in ("starting", "ready", "failing", "stopped"):
        state.add_metric([word], float(found["state"]["word"] == word))
    yield state
    yield from _gauge("start_time_seconds", "When the pod started, Unix seconds.", boot.get("started"))
    phases = GaugeMetricFamily("hearmeman_phase_seconds", "When a phase of the start ended.", labels=["phase"])
    for name, seconds in found["phases"].items():
        phases.add_metric([name], float(seconds))
    yield phases
    problems = GaugeMetricFamily("hearmeman_problems", "Warnings and errors on the page.", labels=["level"])
    for level in ("error", "warning"):
        problems.add_metric([level], sum(one["level"] == level for one in found["problems"]))
    yield problems
    restarts = CounterMetricFamily("hearmeman_process_restarts", "Starts after the first.", labels=["process"])
    up = GaugeMetricFamily("hearmeman_process_up", "1 while the process runs.", labels=["process"])
    for process in found["processes"]:
        restarts.add_metric([process["name"]], max(0, int(process["keep"].get("starts") or 0) - 1))
        if not process["keep"].get("done"):
            up.add_metric([process["name"]], float(bool(process["keep"].get("pid"))))
    yield from (restarts, up)


def _comfyui(facts: Mapping[str, Any]) -> Iterator[Metric]:
    yield from _gauge("comfyui_up", "1 while ComfyUI answers.", int(facts["answers"]))
    queue = GaugeMetricFamily("hearmeman_comfyui_queue", "Prompts running and waiting.", labels=["state"])
    queue.add_metric(["running"], float(facts["running"] is not None))
    queue.add_metric(["waiting"], float(facts["waiting"]))
    yield queue


def _fetch(state: Mapping[str, Any]) -> Iterator[Metric]:
    for name, text in (("present", "Model files that are present."), ("failed", "Files that could not be fetched.")):
        yield from _gauge(f"fetch_files_{name}", text, state.get(f"files_{name}"))
    yield from _gauge("fetch_files_wanted", "Model files that are wanted.", state.get("files_total"))
    yield from _gauge("fetch_bytes_wanted", "Bytes that are wanted.", state.get("bytes_total"))
    yield from _gauge("fetch_bytes_present", "Bytes of them that are present.", state.get("bytes_done"))
    speed = state.get("bytes_per_second") if state.get("state") == "fetching" else 0 if state else None
    yield from _gauge("fetch_bytes_per_second", "How fast files are fetched now.", speed)


def _sync(state: Mapping[str, Any] | None, now: float) -> Iterator[Metric]:
    if not state:
        return
    yield from _counter("sync_files", "Outputs uploaded since the sync's start.", state.get("uploaded_files"))
    yield from _counter("sync_bytes", "Bytes uploaded since the sync's start.", state.get("uploaded_bytes"))
    yield from _gauge("sync_waiting_files", "Outputs that are not in the bucket yet.", state.get("backlog_files"))
    yield from _gauge("sync_waiting_bytes", "Their bytes.", state.get("backlog_bytes"))
    since = state.get("waiting_since")
    lag = max(0.0, now - since) if isinstance(since, int | float) else 0.0
    yield from _gauge("sync_lag_seconds", "How long the oldest of them waits.", lag)
    yield from _gauge("sync_failing_files", "Outputs whose last upload failed.", state.get("failing_files"))
    yield from _gauge(
        "sync_last_success_time_seconds", "When the last output was uploaded.", state.get("last_success_at")
    )
    failures = CounterMetricFamily("hearmeman_sync_failures", "Uploads that failed, by kind.", labels=["kind"])
    for kind, number in (state.get("failures_by_kind") or {}).items():
        failures.add_metric([kind], number)
    yield failures


def _machine(usage: Mapping[str, Any]) -> Iterator[Metric]:
    cpu, ram = usage.get("cpu") or {}, usage.get("ram") or {}
    yield from _counter("cpu_seconds", "Processor time that this container used.", cpu.get("seconds"))
    yield from _gauge("cpu_cores", "Cores that it may use.", cpu.get("cores"))
    yield from _gauge("memory_used_bytes", "Memory that this container uses.", ram.get("used"))
    yield from _gauge("memory_limit_bytes", "Memory that it may use.", ram.get("limit"))
    labels = ["gpu", "name"]
    made = {
        "percent": GaugeMetricFamily("hearmeman_gpu_utilization_percent", "How busy the GPU is.", labels=labels),
        "used": GaugeMetricFamily("hearmeman_gpu_memory_used_bytes", "GPU memory in use.", labels=labels),
        "total": GaugeMetricFamily("hearmeman_gpu_memory_bytes", "GPU memory in all.", labels=labels),
        "celsius": GaugeMetricFamily("hearmeman_gpu_celsius", "The GPU's temperature.", labels=labels),
        "watts": GaugeMetricFamily("hearmeman_gpu_watts", "The power that the GPU draws.", labels=labels),
    }
    for number, gpu in enumerate(usage.get("gpus", [])):
        for key, family in made.items():
            if gpu.get(key) is not None:
                family.add_metric([str(number), gpu["name"]], float(gpu[key]))
    yield from made.values()
    free = GaugeMetricFamily("hearmeman_disk_free_bytes", "Free space.", labels=["path"])
    total = GaugeMetricFamily("hearmeman_disk_bytes", "The filesystem's size.", labels=["path"])
    for disk in usage.get("disks", []):
        free.add_metric([disk["path"]], float(disk["free"]))
        total.add_metric([disk["path"]], float(disk["total"]))
    yield from (free, total)


def _voices(voices: Mapping[str, Any]) -> Iterator[Metric]:
    up = GaugeMetricFamily("hearmeman_voice_up", "1 while a voice engine can speak.", labels=["engine"])
    waiting = GaugeMetricFamily("hearmeman_voice_waiting", "Texts waiting for a voice.", labels=["engine"])
    for name, state in voices.items():
        up.add_metric([name], float(str(state["word"]).startswith("ready")))
        waiting.add_metric([name], float(state.get("waiting") or 0))
    yield from (up, waiting)
