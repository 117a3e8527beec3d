"""Makes docs/page-*.png again: the pod's page as a person finds it, taken from real pods of the smoke image."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from hearmeman_build.build import Image, build_image, prefetch_tier
from support.browser import chromium, tab
from support.repository import ROOT
from support.shown_pod import TOKEN, Shown, shown

MOST_BYTES = 150_000
"""What a picture may weigh: everybody who clones the repository takes it along."""
AS_ON_RUNPOD = {
    "RUNPOD_POD_ID": "k3x9demo7q",
    "RUNPOD_API_KEY": "rpa_nobody",
    "IDLE_STOP_MINUTES": "30",
    "DOLLARS_PER_HOUR": "0.69",
    "COMFYUI_PORT": "8188",
    "STATUS_PORT": "19123",
    "COMFYUI_HOST": "0.0.0.0",
    "STATUS_HOST": "0.0.0.0",
}
"""What a pod knows there; the sign-on to its API is never used."""


def main() -> None:
    """Take every picture."""
    prefetch_tier("smoke-voice")
    image = build_image("smoke-voice")
    with tempfile.TemporaryDirectory() as made, chromium() as browser:
        folder = Path(made)
        # ComfyUI's user goes through it to the volume.
        folder.chmod(0o755)
        _ready(browser, image, folder / "ready")
        _starting(browser, image, folder / "starting")
        _failing(browser, image, folder / "failing")


def _ready(browser: Browser, image: Image, folder: Path) -> None:
    theirs = {**AS_ON_RUNPOD, "ENABLE_XTTS": "true"}
    with shown(image, folder, theirs, gated=True) as pod:
        pod.wait("ComfyUI", lambda found: found["state"]["word"] == "ready")
        for prefix, color in (("fox", 0xC8643C), ("harbour", 0x3C6EA0), ("meadow", 0x6EA050), ("dusk", 0x785A96)):
            pod.queue(prefix=prefix, color=color, size=512)
        pod.wait("the outputs", lambda found: (found["sync"] or {}).get("uploaded_files", 0) == 4 and found["idle"])
        pod.wait("the voice", lambda found: found["voices"]["xtts"]["word"].startswith("ready"))
        _take(browser, pod, "ready", 1000, 860)


def _starting(browser: Browser, image: Image, folder: Path) -> None:
    with shown(image, folder, AS_ON_RUNPOD, gated=True, main="slow", rate=60_000) as pod:
        pod.wait("the fetch", lambda found: (found["models"] or {}).get("bytes_done", 0) > 4_000_000)
        _take(browser, pod, "starting", 360, 780, dark=True)
        pod.hub.rate = 0.0


def _failing(browser: Browser, image: Image, folder: Path) -> None:
    with shown(image, folder, AS_ON_RUNPOD, gated=True, main="broken") as pod:
        output = pod.pod.volume / "ComfyUI/output"
        pod.pod.wait_for(output.is_dir, "the output folder")
        (output / "lost.png").write_bytes(b"\x89PNG")
        pod.wait("the failures", lambda found: found["state"]["word"] == "failing" and len(found["problems"]) >= 3)
        _take(browser, pod, "failing", 360, 780)


def _take(browser: Browser, pod: Shown, name: str, width: int, height: int, dark: bool = False) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    path = ROOT / f"docs/page-{name}.png"
    with tab(browser, width, dark, extra_http_headers=headers) as seen:
        seen.page.set_viewport_size({"width": width, "height": height})
        seen.page.goto(pod.page)
        seen.page.wait_for_selector(".state-" + name)
        # All pictures on it, and the machine's shares, which are differences of two looks.
        seen.page.wait_for_function("[...document.images].every(one => one.complete)")
        seen.page.wait_for_timeout(2500)
        seen.page.screenshot(path=path)
        seen.expect_none()
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"{path} is {size} bytes, and {MOST_BYTES} are allowed: take a smaller part of the page")


if __name__ == "__main__":
    main()
