"""Kill -9 at random moments while a writer works: the writer's own log and the bucket agree in the end.

`make soak` sets CRASHES=200; the moments are then others each time.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.r2 import R2
from support.sync_process import Sync

CRASHES = int(os.environ.get("CRASHES", "12"))
LARGE = 105 * 1024**2


@pytest.fixture
def r2() -> Iterator[R2]:
    with R2() as server:
        yield server


class Writer(threading.Thread):
    """Makes files as ComfyUI and its nodes do, and notes the sha256 of every version that it finished."""

    def __init__(self, root: Path, number: int, seed: int) -> None:
        """Write below `root`, names with `number` in them, in an order that `seed` decides."""
        super().__init__(daemon=True)
        self.root, self.number, self.random = root, number, random.Random(seed)
        self.done = threading.Event()
        self.versions: dict[str, list[str]] = {}
        self.count = 0

    def run(self) -> None:
        """Write until told to stop."""
        if self.number == 0:
            self.write("large.mp4", self.random.randbytes(1024) * (LARGE // 1024))
        while not self.done.is_set():
            self.random.choice((self.fresh, self.fresh, self.new_folder, self.rename_in, self.rewrite, self.slow))()
            time.sleep(self.random.expovariate(8))

    def content(self) -> bytes:
        return self.random.randbytes(self.random.choice((10, 5_000, 300_000)))

    def next_name(self, folder: str = "") -> str:
        self.count += 1
        return f"{folder}ComfyUI_{self.number}{self.count:05}_.png"

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Noted first: the daemon may be done with the file before this thread goes on.
        self.versions.setdefault(name, []).append(hashlib.sha256(content).hexdigest())
        path.write_bytes(content)

    def fresh(self) -> None:
        self.write(self.next_name(), self.content())

    def new_folder(self) -> None:
        folder = f"video/{self.number}{self.count}/take/"
        for _ in range(2):
            self.write(self.next_name(folder), self.content())

    def rename_in(self) -> None:
        name, content = self.next_name(), self.content()
        self.versions.setdefault(name, []).append(hashlib.sha256(content).hexdigest())
        (self.root / f"rendering{self.number}.tmp").write_bytes(content)
        (self.root / f"rendering{self.number}.tmp").rename(self.root / name)

    def rewrite(self) -> None:
        name = self.next_name()
        for _ in range(self.random.randint(2, 4)):
            self.write(name, self.content())
            time.sleep(self.random.choice((0.01, 0.1, 0.5)))

    def slow(self) -> None:
        name, content = self.next_name(), self.content()
        self.versions.setdefault(name, []).append(hashlib.sha256(content).hexdigest())
        with (self.root / name).open("wb", buffering=0) as file:
            file.write(content[: len(content) // 2])
            time.sleep(self.random.choice((0.1, 0.7)))
            file.write(content[len(content) // 2 :])


@pytest.mark.long
def test_nothing_is_lost_torn_or_doubled(r2: R2, tmp_path: Path) -> None:
    seed = random.randrange(10**9) if "CRASHES" in os.environ else 20
    print(f"seed {seed}")
    chance = random.Random(seed)
    daemon = Sync(tmp_path, r2.environ())
    writers = [Writer(daemon.output, number, seed + number) for number in range(4)]
    for writer in writers:
        writer.start()
    for _ in range(CRASHES):
        daemon.start()
        time.sleep(chance.uniform(0.3, 2.7))
        daemon.kill()
    started = daemon.log().count("sync.started")
    daemon.start(SYNC_DRAIN_SECONDS="150")
    daemon.wait_for(lambda: daemon.log().count("sync.started") > started, "the last start")
    for writer in writers:
        writer.done.set()
    for writer in writers:
        writer.join()
    versions = {name: found for writer in writers for name, found in writer.versions.items()}
    assert daemon.stop() == 0, daemon.log()[-3000:]

    by_file: dict[str, list[str]] = {}
    probes = "outputs/.hearmeman-test/"  # What finds out how the bucket takes conditions may be cut short too.
    for key, stored in r2.objects.items():
        if key.startswith(probes):
            continue
        name = key.split("/", 2)[2]  # After the prefix and the day.
        if name not in versions:  # Another version of a file: its hash stands before the extension.
            stem, _, extension = name.rpartition(".")
            name = f"{stem.rpartition('.')[0]}.{extension}"
        assert stored.sha256 in versions[name], f"{key} is no version of {name} that was ever finished"
        assert stored.metadata["sha256"] == stored.sha256
        by_file.setdefault(name, []).append(stored.sha256)
    for name, finished in versions.items():
        assert finished[-1] in by_file.get(name, []), f"{name} is not in the bucket as it is"
        assert len(set(by_file[name])) == len(by_file[name]), f"{name} appears twice"
    assert r2.overwritten == []
    assert [upload.key for upload in r2.uploads.values() if not upload.key.startswith(probes)] == []
