"""Shares STOP_SECONDS out among what is stopped one after another."""

from __future__ import annotations

from hearmeman.settings import Settings

_LAST_SECONDS = 1.0
_MARGIN_SECONDS = 2.0


def stop_shares(settings: Settings) -> tuple[float, float]:
    """Share STOP_SECONDS out: seconds for ComfyUI and for the sync.

    The doors close last and need a second; a margin stays for supervisord's own loop.
    """
    total = settings.stop_seconds - worker_share(settings)
    usable = total - min(_MARGIN_SECONDS, total / 5) - last_share(settings)
    if not settings.enable_r2_sync:
        return usable, 0.0
    comfyui = max(usable - settings.sync_drain_seconds - 1, min(5.0, usable * 0.3))
    return comfyui, usable - comfyui


def worker_share(settings: Settings) -> float:
    """Give the worker's part of STOP_SECONDS: for the job that runs."""
    return settings.stop_seconds / 2 if settings.enable_worker else 0.0


def last_share(settings: Settings) -> float:
    """Give the part of what closes last: the doors."""
    return min(_LAST_SECONDS, settings.stop_seconds / 10)
