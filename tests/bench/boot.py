"""Bench of the start: seconds from the entrypoint to ComfyUI's exec, against supervisord alone, and our memory."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from fakes.hub import Hub
from hearmeman_build.build import Image, build_image, prefetch_tier
from support.pod import Pod
from support.ports import free_port

ROUNDS = 7
EVERYTHING = {
    "ACCESS_TOKEN": "a-token-for-this-bench",
    "ENABLE_R2_SYNC": "true",
    "R2_ENDPOINT": "http://127.0.0.1:9",
    "R2_ACCESS_KEY_ID": "bench-key-id",
    "R2_SECRET_ACCESS_KEY": "bench-secret-key",
}


def boot(image: Image, more: dict[str, str]) -> tuple[float, float, int]:
    """Boot once: (seconds to ComfyUI's exec, seconds until it is ready, KiB of memory that is ours with the model there)."""
    with tempfile.TemporaryDirectory() as folder, Hub() as hub:
        pod = Pod(image, Path(folder))
        ports = {f"{name}_PORT": str(free_port()) for name in ("COMFYUI", "COMFYUI_INNER", "STATUS")}
        try:
            here = {"COMFYUI_HOST": "127.0.0.1", "STATUS_HOST": "127.0.0.1", "HF_ENDPOINT": hub.url}
            pod.start({**ports, **here, **more})
            ready = _seconds(pod.wait_line("pod.ready"))
            taken = _seconds(pod.wait_line("process.started name=comfyui"))
            pod.wait_for(lambda: any("[models]" in x and "process.done" in x for x in list(pod.lines)), "the model")
            time.sleep(3)
            memory = sum(_pss(pid) for pid in _tree(pod.init) if not _is_comfyui(pid))
            pod.stop()
        finally:
            pod.kill()
    return taken, ready, memory


def bare(image: Image) -> float:
    """Seconds until supervisord alone, in the same image, has started one program."""
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder)
        (volume / "s.conf").write_text(
            "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\nuser=root\npidfile=/run/s.pid\n"
            "[program:one]\ncommand=/usr/bin/touch /workspace/started\nstartsecs=0\nautorestart=false\n"
        )
        pod = Pod(image, volume)
        python = "/opt/env/runtime/bin/python"
        pod.entrypoint = ["/usr/bin/tini", "--", python, "-m", "supervisor.supervisord", "-c", "/workspace/s.conf"]
        try:
            pod.start({})
            while not (volume / "started").exists():
                time.sleep(0.002)
            return time.monotonic() - pod.started
        finally:
            pod.kill()


def _seconds(line: str) -> float:
    found = re.search(r"seconds=([\d.]+)", line)
    assert found is not None
    return float(found[1])


def _tree(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [pid, *(inner for child in found for inner in _tree(int(child)))]


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def _is_comfyui(pid: int) -> bool:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"/opt/comfyui/main.py" in words and b"keep" not in words


def main() -> int:
    """Print medians and spreads."""
    prefetch_tier("smoke")
    image = build_image("smoke")
    boot(image, {})  # Files that are read for the first time would be charged to the first round.
    alone = [bare(image) for _ in range(ROUNDS)]
    print(f"supervisord alone, one program   {_spread(alone)} s")
    for name, more in (("plain pod", {}), ("with gate and sync", EVERYTHING)):
        rounds = [boot(image, more) for _ in range(ROUNDS)]
        taken, ready, memory = zip(*rounds, strict=True)
        ratio = statistics.median(taken) / statistics.median(alone)
        print(f"{name:20} ComfyUI's exec {_spread(taken)} s, ratio {ratio:.2f}; ready {_spread(ready)} s")
        print(f"{'':20} memory of all that is ours {_spread([kib / 1024 for kib in memory])} MiB (PSS)")
    return 0


def _spread(values: Iterable[float]) -> str:
    numbers = sorted(values)
    return f"{statistics.median(numbers):.2f} ({numbers[0]:.2f} to {numbers[-1]:.2f})"


if __name__ == "__main__":
    sys.exit(main())
