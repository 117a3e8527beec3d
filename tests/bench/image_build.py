"""Bench: a tier's layers built again from prefetched files, against zstd alone on the same tars; builder memory."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from hearmeman_build.build import build_image, build_output
from hearmeman_build.errors import BuildError
from hearmeman_build.host import store_file


class Watch:
    """The largest resident size of the build plugins and their zstd, sampled."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.peak = max(self.peak, sum(_resident(folder) for folder in Path("/proc").glob("[0-9]*")))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _resident(folder: Path) -> int:
    try:
        command = (folder / "cmdline").read_bytes()
        if b"-buildroot/usr/" not in command:
            return 0
        return int((folder / "statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def attributes(layout: Path) -> list[tuple[str, Path]]:
    """The image's layers as flake attributes, and their blobs."""
    manifest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    blobs = layout / "blobs/sha256"
    layers = json.loads((blobs / manifest.partition(":")[2]).read_text())["layers"]
    found = []
    for layer in layers:
        blob = store_file(str((blobs / layer["digest"].partition(":")[2]).readlink()))
        found.append((blob.parent.name.partition("-")[2], blob))
    return found


def zstd_alone(blob: Path, folder: Path) -> float:
    """Seconds of zstd -10 on the layer's tar, which lies in memory."""
    tar = folder / "layer.tar"
    with tar.open("wb") as file:
        subprocess.run(["zstd", "-dcq", str(blob)], stdout=file, check=True)
    begun = time.monotonic()
    with tar.open("rb") as file:
        subprocess.run(["zstd", "-10", "-T0", "-cq"], stdin=file, stdout=subprocess.DEVNULL, check=True)
    seconds = time.monotonic() - begun
    tar.unlink()
    return seconds


def main() -> int:
    """Build every layer again, one after another, and compress its tar by zstd in between."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", default="smoke")
    parser.add_argument("--turns", type=int, default=3, help="how often, for median and spread (default: 3)")
    parser.add_argument("--only", default="", help="layers whose name holds this")
    arguments = parser.parse_args()
    layers = [item for item in attributes(build_image(arguments.tier).layout) if arguments.only in item[0]]
    ratios, peak = [], 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for turn in range(arguments.turns):
            built = alone = 0.0
            for name, blob in layers:
                with Watch() as watch:
                    begun = time.monotonic()
                    try:
                        build_output(name, "--rebuild")
                    except BuildError as error:
                        print(f"{name} differs from the first build or failed: {error}", file=sys.stderr)
                        return 1
                    mine = time.monotonic() - begun
                zstd = zstd_alone(blob, Path(folder))
                built, alone, peak = built + mine, alone + zstd, max(peak, watch.peak)
                print(
                    f"{name:45} {mine:7.1f} s, zstd alone {zstd:6.1f} s, peak {watch.peak / 2**20:5.0f} MiB", flush=True
                )
            ratios.append(built / alone)
            print(f"turn {turn + 1}: {built:.1f} s, zstd alone {alone:.1f} s, ratio {built / alone:.2f}", flush=True)
    print(
        f"image build / zstd alone: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}, "
        f"{len(ratios)} turns; builder memory at most {peak / 2**20:.0f} MiB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
