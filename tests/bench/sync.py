"""How fast outputs reach the bucket: against rclone and against one process per file; latency; what idling costs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3

from fakes.r2 import R2
from hearmeman.sync.client import client_config
from hearmeman.sync.journal import Journal, Record, journal_file
from support.sync_process import Sync

LATENCY = 0.02
BENCH = Path(__file__).resolve().parent


@contextlib.contextmanager
def server(latency: float) -> Iterator[dict[str, str]]:
    """An R2 in a process of its own; gives the variables that point at it."""
    command = [sys.executable, str(BENCH / "r2_server.py"), str(latency)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(20)


def stored(environ: dict[str, str], prefix: str) -> int:
    """Count the objects whose keys begin with `prefix`."""
    client = boto3.client(
        "s3",
        endpoint_url=environ["R2_ENDPOINT"],
        aws_access_key_id=environ["R2_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["R2_SECRET_ACCESS_KEY"],
        config=client_config(1),
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=environ["R2_BUCKET"], Prefix=f"{prefix}/")
    return sum(len(page.get("Contents", [])) for page in pages)


def ours(folder: Path, environ: dict[str, str], count: int, state: Path) -> float:
    """Seconds from starting the daemon on a full folder until it has sent everything and ended."""
    daemon = Sync(state, {**environ, "COMFYUI_OUTPUT_DIR": str(folder), "R2_PREFIX": "ours"})
    began = time.monotonic()
    daemon.start(SYNC_DRAIN_SECONDS="3600")
    daemon.wait_said("sync.started")
    assert daemon.stop(3600) == 0, daemon.log()[-2000:]
    seconds = time.monotonic() - began
    assert stored(environ, "ours") == count
    return seconds


def rclone(folder: Path, environ: dict[str, str], count: int) -> float:
    """Seconds that `rclone copy --transfers 8` takes for the same."""
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Cloudflare",
        "REGION": "auto",
        "ENDPOINT": environ["R2_ENDPOINT"],
        "ACCESS_KEY_ID": environ["R2_ACCESS_KEY_ID"],
        "SECRET_ACCESS_KEY": environ["R2_SECRET_ACCESS_KEY"],
        "NO_CHECK_BUCKET": "true",
        "UPLOAD_CUTOFF": "100Mi",
        "CHUNK_SIZE": "50Mi",
    }
    env = {**os.environ, "RCLONE_CONFIG": "", **{f"RCLONE_CONFIG_R2_{name}": value for name, value in remote.items()}}
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    began = time.monotonic()
    subprocess.run(
        [program, "copy", "--transfers", "8", folder, f"r2:{environ['R2_BUCKET']}/rclone"], env=env, check=True
    )
    seconds = time.monotonic() - began
    assert stored(environ, "rclone") == count
    return seconds


def original(files: list[Path], environ: dict[str, str]) -> float:
    """Seconds that one process per file takes, eight at a time."""
    command = [sys.executable, str(BENCH / "one_process_per_file.py")]
    env = {**os.environ, **environ}
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for done in pool.map(lambda file: subprocess.run([*command, str(file)], env=env, check=False), files):
            assert done.returncode == 0
    return time.monotonic() - began


def children_cpu() -> float:
    """Seconds of CPU that processes used which this one started and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fill(folder: Path, count: int, size: int) -> list[Path]:
    """Make `count` different files of `size` bytes."""
    folder.mkdir(parents=True)
    block = random.randbytes(1024**2)
    for number in range(count):
        with (folder / f"ComfyUI_{number:05}_.png").open("wb") as file:
            file.write(b"%016d" % number)
            left = size - 16
            while left > 0:
                left -= file.write(block[:left])
    return sorted(folder.iterdir())


def throughput(work: Path, count: int, size: int, repeats: int, sample: int) -> None:
    """Compare the three ways on `count` files of `size` bytes; one process per file only for `sample` of them."""
    files = fill(work / "files", count, size)
    seconds: dict[str, list[float]] = {"sync": [], "rclone": [], "original": []}
    work_seconds: dict[str, list[float]] = {name: [] for name in seconds}
    for number in range(repeats):
        # A fresh server each time, and the order turned round, so that nobody profits from the other.
        ways: list[tuple[str, Callable[[dict[str, str]], float]]] = [
            ("sync", lambda environ, n=number: ours(work / "files", environ, count, work / f"state{n}")),  # type: ignore[misc]
            ("rclone", lambda environ: rclone(work / "files", environ, count)),
        ]
        for name, way in ways if number % 2 == 0 else reversed(ways):
            with server(LATENCY) as environ:
                before = children_cpu()
                seconds[name].append(way(environ))
                work_seconds[name].append(children_cpu() - before)
    if sample:
        with server(LATENCY) as environ:
            before = children_cpu()
            seconds["original"].append(original(files[:sample], environ) * count / sample)
            work_seconds["original"].append((children_cpu() - before) * count / sample)
    print(f"{count} files of {size / 1e6:g} MB, {LATENCY * 1000:g} ms of latency:")
    for name, values in seconds.items():
        if values:
            middle = statistics.median(values)
            ratio = middle / statistics.median(seconds["sync"])
            print(
                f"  {name:9} {middle:7.1f} s (from {min(values):.1f} to {max(values):.1f}), "
                f"{count * size / middle / 1e6:6.0f} MB/s, {ratio:5.2f} times sync's, "
                f"{statistics.median(work_seconds[name]):.1f} s of CPU"
                + (f", from {sample} files" if name == "original" else "")
            )
    shutil.rmtree(work / "files")


def latency(work: Path, count: int) -> None:
    """Seconds from a 2 MB PNG's last byte to its object, each file at a random moment."""
    end = b"\0\0\0\0IEND\xaeB`\x82"
    for name, head in (("whole PNG", b"\x89PNG\r\n\x1a\n"), ("no sign of an end", b"")):
        with R2(latency=LATENCY, keep=False) as r2:
            daemon = Sync(work / name, r2.environ()).start()
            daemon.wait_said("sync.started")
            written = {}
            for number in range(count):
                file = f"{number:05}.png"
                (daemon.output / file).write_bytes(head + random.randbytes(2_000_000) + end)
                written[file] = time.time()
                time.sleep(random.uniform(0.05, 0.6))
            assert daemon.stop() == 0
            took = sorted(o.at - written[key.rpartition("/")[2]] for key, o in r2.objects.items())
        assert len(took) == count
        print(
            f"latency, {name}: p50 {took[count // 2]:.2f} s, p95 {took[int(count * 0.95)]:.2f} s, "
            f"most {took[-1]:.2f} s, of {count} PNGs of 2 MB"
        )


def idle(work: Path, count: int, seconds: float) -> None:
    """What the daemon costs while `count` files are journaled and nothing happens."""
    with R2() as r2:
        daemon = Sync(work, r2.environ())
        journal = Journal(journal_file(daemon.state, r2.url, r2.bucket))
        records = []
        for number in range(count):
            name = f"{number % 50}/ComfyUI_{number:05}_.png"
            path = daemon.output / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
            records.append(Record(name, 1, path.stat().st_mtime_ns, "0" * 64, f"outputs/2026-01-01/{name}", 0.0))
        journal.record(records, {})
        journal.close()
        daemon.start()
        daemon.wait_said("sync.reconciled")
        reconciled = next(line for line in daemon.log().splitlines() if "sync.reconciled" in line)
        before, began = cpu(daemon.process.pid), time.monotonic()
        time.sleep(seconds)
        share = (cpu(daemon.process.pid) - before) / (time.monotonic() - began)
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        memory = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        assert daemon.stop() == 0
        assert r2.requests == []
        said = reconciled.partition("sync.reconciled ")[2]
        print(
            f"idle with {count} journaled files: {said}; CPU {share:.2%} over {seconds:g} s, {memory:.0f} MiB of memory"
        )


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files, one repeat")
    parser.add_argument("--only", choices=("small", "large", "latency", "idle"), help="one part")
    args = parser.parse_args()
    scale, repeats = (10, 1) if args.quick else (1, 3)
    with tempfile.TemporaryDirectory(prefix="sync-bench-") as folder:
        work = Path(folder)
        if args.only in (None, "small"):
            throughput(work / "small", 1000 // scale, 2_000_000, repeats, 40 // min(scale, 2))
        if args.only in (None, "large"):
            throughput(work / "large", max(20 // scale, 2), 300_000_000, repeats, 0)
        if args.only in (None, "latency"):
            latency(work, 100 // scale)
        if args.only in (None, "idle"):
            idle(work / "idle", 50_000 // scale, 60 / scale)


if __name__ == "__main__":
    main()
