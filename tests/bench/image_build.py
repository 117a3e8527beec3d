"""Bench: layers built again from prefetched files, against zstd alone on the same tars; builder memory.

A tier's layers by Nix, or one wheel's layer (`--wheel triton`, or a file) by the plugin itself, without Nix.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hearmeman_build.build import build_image, build_output
from hearmeman_build.downloads import fetch_wheels
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT


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
        blob = (blobs / layer["digest"].partition(":")[2]).resolve()
        found.append((blob.parent.name.partition("-")[2], blob))
    return found


@dataclass
class Cost:
    """What something took."""

    wall: float = 0.0
    """Seconds."""
    cpu: float = 0.0
    """Processor seconds of everything that it started; they say more where other work runs beside."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """Measure the programs that are started and waited for inside."""
    cost, begun, before = Cost(), time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    yield cost
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost.wall = time.monotonic() - begun
    cost.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def zstd_alone(blob: Path, folder: Path) -> Cost:
    """What zstd -10 takes for the layer's tar, which lies in memory."""
    tar = folder / "layer.tar"
    with tar.open("wb") as file:
        subprocess.run(["zstd", "-dcq", str(blob)], stdout=file, check=True)
    with tar.open("rb") as file, measured() as cost:
        subprocess.run(["zstd", "-10", "-T0", "-cq"], stdin=file, stdout=subprocess.DEVNULL, check=True)
    tar.unlink()
    return cost


# What nix/environments.nix makes, for one wheel, without the sandbox.
_PLUGIN = """
import sys
from pathlib import Path
from hearmeman_build.plugins.environment import Environment, plan
from hearmeman_build.plugins.layer import write_layer
write_layer(plan(Environment("opt/env/bench"), [Path(sys.argv[1])]), Path(sys.argv[2]), "bench", ["zstd"])
"""


def wheel_file(name: str) -> Path:
    """The file `name`, or the locked wheel of that name, fetched."""
    if Path(name).is_file():
        return Path(name)
    lock = json.loads((ROOT / "nix/environments/lock.json").read_text())
    entries = [entry for environment in lock.values() for entry in environment if entry["name"] == name]
    if not entries:
        raise SystemExit(f"no wheel {name}: name a file, or a package of nix/environments/lock.json")
    [path] = fetch_wheels(ROOT, entries[:1]).values()
    return path


def bench_wheel(name: str, turns: int) -> None:
    """Make one wheel's layer some times, each time followed by zstd alone on its tar; print the ratios."""
    path = wheel_file(name)
    environ = {**os.environ, "NIX_BUILD_CORES": str(len(os.sched_getaffinity(0)))}
    ratios = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for turn in range(turns):
            out = Path(folder, "layer")
            with measured() as mine:
                subprocess.run([sys.executable, "-c", _PLUGIN, str(path), str(out)], env=environ, check=True)
            [layer] = json.loads((out / "layers.json").read_text())
            alone = zstd_alone(out / "layer.tar.zst", Path(folder))
            shutil.rmtree(out)
            ratios.append((mine.wall / alone.wall, mine.cpu / alone.cpu))
            print(
                f"turn {turn + 1}: {path.name}: {layer['unpacked'] / 1e6:.0f} MB to {layer['size'] / 1e6:.0f}: "
                f"{mine.wall:.1f} s ({mine.cpu:.1f} cpu), zstd alone {alone.wall:.1f} s ({alone.cpu:.1f} cpu)",
                flush=True,
            )
    report(f"layer of {path.name.partition('-')[0]}", ratios)


def report(what: str, ratios: list[tuple[float, float]]) -> None:
    """Print median and spread of the ratios of seconds, and of processor seconds."""
    for number, name in enumerate(("seconds", "processor seconds")):
        values = [ratio[number] for ratio in ratios]
        print(
            f"{what} / zstd alone, {name}: median {statistics.median(values):.2f}, "
            f"from {min(values):.2f} to {max(values):.2f}, {len(values)} turns"
        )


def main() -> int:
    """Build every layer again, one after another, and compress its tar by zstd in between."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", help="measure this wheel's layer alone: a package of the lock, or a file")
    parser.add_argument("--tier", default="smoke")
    parser.add_argument("--turns", type=int, default=3, help="how often, for median and spread (default: 3)")
    parser.add_argument("--only", default="", help="layers whose name holds this")
    arguments = parser.parse_args()
    if arguments.wheel:
        bench_wheel(arguments.wheel, arguments.turns)
        return 0
    layers = [item for item in attributes(build_image(arguments.tier).layout) if arguments.only in item[0]]
    ratios, peak = [], 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for turn in range(arguments.turns):
            built, alone = Cost(), Cost()
            for name, blob in layers:
                with Watch() as watch, measured() as mine:
                    try:
                        build_output(name, "--rebuild")
                    except BuildError as error:
                        print(f"{name} differs from the first build or failed: {error}", file=sys.stderr)
                        return 1
                zstd = zstd_alone(blob, Path(folder))
                built, alone, peak = built + mine, alone + zstd, max(peak, watch.peak)
                print(
                    f"{name:45} {mine.wall:7.1f} s ({mine.cpu:6.1f} cpu), zstd alone {zstd.wall:6.1f} s "
                    f"({zstd.cpu:6.1f} cpu), peak {watch.peak / 2**20:5.0f} MiB",
                    flush=True,
                )
            ratios.append((built.wall / alone.wall, built.cpu / alone.cpu))
            print(f"turn {turn + 1}: {built.wall:.1f} s, zstd alone {alone.wall:.1f} s", flush=True)
    report("image build", ratios)
    print(f"builder memory at most {peak / 2**20:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
