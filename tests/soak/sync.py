"""Real encoders, the sync as the pod's user, faults and kills at random: what is broken, lost or there twice, and how long it takes.

ffmpeg writes as ComfyUI's user, in every format that is uploaded, with pauses of 4 to 7 s; PNGs are written, renamed into
place and rewritten beside it. In the end the folder and the bucket must agree.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fakes.r2 import R2
from hearmeman.sync.keys import utc_date
from support.outputs import png
from support.sync_process import Sync
from support.writers import KINDS, encode, plays, write_late

FAULTS = ((500, "InternalError"), (503, "ServiceUnavailable"), (429, "TooManyRequests"), (0, ""))


class Encoder(threading.Thread):
    """One encoder after the other, until the time is over."""

    def __init__(self, root: Path, number: int, seed: int, until: float) -> None:
        """Write names with `number` in them below `root`; `seed` decides the order."""
        super().__init__(daemon=True)
        self.root, self.number, self.until = root, number, until
        self.chance = random.Random(seed + number)
        self.ended: dict[str, float] = {}

    def run(self) -> None:
        """Write until the time is over."""
        count = 0
        while time.monotonic() < self.until:
            count += 1
            kind = self.chance.choice([*KINDS, "late", "png", "png", "rename"])
            folder = f"video/{self.number}{count}" if self.chance.random() < 0.2 else ""
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            (self.root / folder).chmod(0o777)
            stem = f"{folder}/" if folder else ""
            name = f"{stem}{kind}_{self.number}_{count:05}.{KINDS[kind][0] if kind in KINDS else 'png'}"
            self.ended[name] = self.write(self.root / name, kind)

    def write(self, path: Path, kind: str) -> float:
        """Write one file; Unix seconds of its close."""
        chance = self.chance
        content = png(chance.randbytes(chance.choice((10, 5_000, 2_000_000))))
        if kind in KINDS:
            pauses = [chance.uniform(4, 7) for _ in range(chance.randint(1, 2))]
            return encode(path, kind, [*pauses, 0.1], chance.randrange(10**9))
        if kind == "late":
            return write_late(path, content, chance.uniform(4, 8), chance.uniform(4, 7))
        if kind == "rename":
            beside = path.with_name(f"{path.stem}.tmp.png")
            beside.write_bytes(content)
            beside.rename(path)
        else:
            path.write_bytes(content)
        ended = time.time()
        time.sleep(chance.uniform(0.2, 2))
        return ended


@dataclass
class Disturbances:
    """What happened to the server and the daemon."""

    outages: int = 0
    kills: int = 0


def disturb(r2: R2, daemon: Sync, kill_every: float, chance: random.Random, until: float) -> Disturbances:
    """Let the server fail now and then, and kill the daemon every so many seconds (0: never), until the clock shows `until`.

    From the main thread: the daemon dies with the thread that started it.
    """
    done, next_kill = Disturbances(), time.monotonic() + kill_every
    while time.monotonic() < until:
        time.sleep(chance.uniform(5, 40))
        status, code = chance.choice(FAULTS)
        r2.fail(status, code, times=1_000_000, after=chance.random() < 0.3)
        time.sleep(chance.uniform(0.1, 3))
        if kill_every and time.monotonic() >= next_kill:
            daemon.kill()
            daemon.start()
            done.kills += 1
            started = done.kills + 1
            daemon.wait_for(lambda n=started: daemon.log().count("sync.started") == n, "the next start")  # type: ignore[misc]
            next_kill = time.monotonic() + kill_every
        r2.heal()
        done.outages += 1
    return done


def memory(daemon: Sync) -> float:
    """The most MiB that the daemon has held."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> int:
    """Soak, print figures, and end with 1 if anything is broken, lost or there twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--writers", type=int, default=6)
    parser.add_argument("--kill-every", type=float, default=0, metavar="SECONDS", help="kill -9 so often; 0: never")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.minutes:g} minutes, {args.writers} writers, kill -9 every {args.kill_every:g} s")
    until = time.monotonic() + args.minutes * 60
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, R2(latency=0.02) as r2:
        Path(folder).chmod(0o755)
        daemon = Sync(Path(folder), r2.environ())
        daemon.output.chmod(0o777)
        daemon.start()
        daemon.wait_said("sync.reconciled")
        writers = [Encoder(daemon.output, number, args.seed, until) for number in range(args.writers)]
        for writer in writers:
            writer.start()
        disturbed = disturb(r2, daemon, args.kill_every, random.Random(args.seed), until)
        for writer in writers:
            writer.join()
        most = memory(daemon)
        code = daemon.stop()
        ended = {name: at for writer in writers for name, at in writer.ended.items()}
        day = utc_date(time.time_ns())
        keys = {key.split("/", 2)[2]: stored for key, stored in r2.objects.items()}
        files = {name: hashlib.sha256((daemon.output / name).read_bytes()).hexdigest() for name in ended}
        lost = [name for name, sha256 in files.items() if name not in keys or keys[name].sha256 != sha256]
        broken = [name for name, stored in keys.items() if stored.sha256 not in files.values()]
        twice = [sha256 for sha256, count in Counter(stored.sha256 for stored in keys.values()).items() if count > 1]
        unplayable = [name for name in ended if "png" not in name and not plays(daemon.output / name)]
        took = sorted(keys[name].at - ended[name] for name in ended if name in keys)
        print(
            f"{len(ended)} files, {len(keys)} objects, {disturbed.outages} outages of up to 3 s, {disturbed.kills} kills, day {day}"
        )
        print(f"broken {len(broken)}, lost {len(lost)}, twice {len(twice)}, overwritten {len(r2.overwritten)}")
        print(
            f"seconds from close to object: p50 {statistics.median(took):.2f}, "
            f"p95 {took[int(len(took) * 0.95)]:.2f}, most {took[-1]:.2f}"
        )
        print(f"memory {most:.0f} MiB, exit code {code}, written files that ffmpeg cannot play {len(unplayable)}")
        for name in sorted({*broken, *lost}):
            print(f"  {name}")
        wrong = broken or lost or twice or r2.overwritten or r2.uploads or code
        if wrong:
            print(daemon.log()[-20_000:], file=sys.stderr)
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
