"""`hearmeman idle`: the process that ends a forgotten pod (used by boot)."""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from hearmeman.errors import HearmemanError
from hearmeman.idle import rest
from hearmeman.idle.activity import Activity, Places
from hearmeman.idle.rules import Limits
from hearmeman.idle.watch import Orders, Watch, World, boot_time
from hearmeman.image import RUN_DIR
from hearmeman.settings import Settings, load


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman idle`."""
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Watch the pod until SIGTERM.

    Raises:
        HearmemanError: no limit is set, or there is no key.
    """
    settings = load(environ)
    key = settings.runpod_api_key
    if not settings.idle_stop_minutes and not settings.max_minutes:
        raise HearmemanError("no limit is set: set IDLE_STOP_MINUTES or MAX_MINUTES")
    if not settings.ends_by_itself or key is None:
        raise HearmemanError("only a pod of RunPod's can end itself: RunPod gives it RUNPOD_POD_ID and RUNPOD_API_KEY")
    ends = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ends.set())
    orders = Orders(
        Limits(settings.idle_stop_minutes * 60, settings.max_minutes * 60),
        settings.idle_action,
        args.run_dir / "idle",
        Path(settings.state_path),
        bool(settings.runpod_volume_id),
        Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
    )
    base, pod, secret = settings.runpod_api_url, settings.runpod_pod_id, key.get_secret_value()
    world = World(
        look=Activity(places(settings), orders.limits.idle, clock=boot_time).look,
        act=lambda action: rest.act(base, pod, secret, action),
        clock=boot_time,
        wall=time.time,
        sleep=ends.wait,
    )
    Watch(orders, world).run()
    return 0


def places(settings: Settings) -> Places:
    """Find where the pod's parts are asked, without the gate."""
    inner = "inner_" if settings.gated else ""
    voices = {
        name: _url(
            "127.0.0.1" if inner else getattr(settings, f"{name}_host"), getattr(settings, f"{name}_{inner}port")
        )
        for name in ("xtts", "chatterbox")
        if getattr(settings, f"enable_{name}")
    }
    token = settings.jupyter_password
    return Places(
        comfyui=settings.inner_url,
        voices=voices,
        jupyter=_url(settings.jupyter_host, settings.jupyter_port) if token else "",
        jupyter_token=token.get_secret_value() if token else "",
        state=Path(settings.state_path),
    )


def _url(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
