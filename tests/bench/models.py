"""Fetching models against wget, `hf download` and aria2c: wall time, CPU and memory, from a server on loopback."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MB = 1_000_000
REPO = "bench/files"
PIECE = 4 * MB


@dataclass(frozen=True)
class Run:
    """One run of one program."""

    seconds: float
    cpu: float
    """CPU seconds, user and system."""
    rss: float
    """Peak of resident memory in MB."""


@dataclass(frozen=True)
class World:
    """What the programs fetch, and from where."""

    files: dict[str, tuple[int, int, str]]
    """Name -> offset, size, sha256."""
    hub: str
    folder: Path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size, _ in self.files.values())

    def url(self, name: str) -> str:
        """Where a file is."""
        return f"{self.hub}/{REPO}/resolve/main/{name}"


@contextlib.contextmanager
def world(sizes: Sequence[int], rate: float, latency: float, slow: int = 0) -> Iterator[World]:
    """Files of these sizes on a server, in memory, so that no disk is measured."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as name:
        folder = Path(name)
        files: dict[str, tuple[int, int, str]] = {}
        offset = 0
        with (folder / "blob").open("wb") as blob:
            for number, size in enumerate(sizes):
                hasher = hashlib.sha256()
                for start in range(0, size, PIECE):
                    data = os.urandom(min(PIECE, size - start))
                    blob.write(data)
                    hasher.update(data)
                files[f"{number:02}.bin"] = (offset, size, hasher.hexdigest())
                offset += size
        (folder / "files.json").write_text(json.dumps(files))
        command = [sys.executable, str(ROOT / "tests/bench/range_server.py"), str(folder / "blob")]
        command += [str(folder / "files.json"), "--rate", str(rate), "--latency", str(latency)]
        command += ["--slow", str(slow)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            hub, _ = json.loads(server.stdout.readline())
            yield World(files, f"http://127.0.0.1:{hub}", folder)
        finally:
            server.kill()
            server.wait()


@contextlib.contextmanager
def xet_world(size: int) -> Iterator[World]:
    """One file on the tests' own Hub, which has it both in Xet's storage and in plain storage; its server is Python."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as name:
        data = os.urandom(size)
        (Path(name) / "data").write_bytes(data)
        script = (
            "import sys, threading, pathlib; from fakes.hub import Hub, Repo, Stored\n"
            f"stored = Stored(pathlib.Path({name!r}, 'data').read_bytes()); stored.sha256\n"
            f"hub = Hub({{{REPO!r}: Repo({{'00.bin': stored}}, xet=True)}})\n"
            "with hub: print(hub.url, flush=True); threading.Event().wait()"
        )
        environ = {**plain(), "PYTHONPATH": f"{ROOT / 'python'}:{ROOT / 'tests'}"}
        server = subprocess.Popen([sys.executable, "-c", script], env=environ, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            hub = server.stdout.readline().strip()
            yield World({"00.bin": (0, size, hashlib.sha256(data).hexdigest())}, hub, Path(name))
        finally:
            server.kill()
            server.wait()


def measured(command: Sequence[str], environ: dict[str, str], cwd: Path) -> Run:
    """Run a program to its end."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, env=environ, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} failed with {process.returncode}: {said[-2000:].decode()}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MB)


def plain() -> dict[str, str]:
    """The environment that every program gets."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8"}


def ours(made: World, out: Path, **variables: str) -> Run:
    """`hearmeman models fetch`, which verifies sha256 too."""
    tables = []
    for name, (_, size, sha256) in made.files.items():
        tables.append(f'[[file]]\nid = "{name}"\nto = "vae/{name}"\nsize = {size}\nsha256 = "{sha256}"')
        tables.append(f'[file.source]\nkind = "huggingface"\nrepo = "{REPO}"\npath = "{name}"')
    names = ", ".join(f'"{name}"' for name in made.files)
    tables.append(f'[[model]]\nid = "all"\ntitle = ""\nfiles = [{names}]')
    (out / "catalogue.toml").write_text("\n".join(tables))
    environ = {
        **plain(),
        "PYTHONPATH": str(ROOT / "python"),
        "VOLUME_DIR": str(out),
        "MODEL_CATALOGUE": str(out / "catalogue.toml"),
        "MODELS": "all",
        "ENABLE_CONTROLNET": "false",
        "HF_ENDPOINT": made.hub,
        **variables,
    }
    return measured([sys.executable, "-m", "hearmeman", "models", "fetch"], environ, out)


def wget(made: World, out: Path) -> Run:
    """One file after another, as the original downloader did; it verifies nothing."""
    return measured(["wget", "-q", "-c", *(made.url(name) for name in made.files)], plain(), out)


def hf(made: World, out: Path) -> Run:
    """`hf download` of the repository."""
    environ = {**plain(), "HF_ENDPOINT": made.hub, "HF_HOME": str(out / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [str(Path(sys.executable).with_name("hf")), "download", REPO, "--local-dir", str(out / "got")]
    return measured(command, environ, out)


def aria2c(made: World, out: Path, check: bool = False) -> Run:
    """Sixteen connections a file, eight files at once; with `check`, sha256 too."""
    lines = []
    for name, (_, _, sha256) in made.files.items():
        lines += [made.url(name), f"  out={name}", *([f"  checksum=sha-256={sha256}"] if check else [])]
    (out / "list").write_text("\n".join(lines) + "\n")
    command = ["aria2c", "-q", "-x16", "-s16", "-k1M", "-j8", "--file-allocation=none", "-i", "list"]
    return measured(command, plain(), out)


Program = Callable[[World, Path], Run]


def bench(made: World, programs: dict[str, Program], repeat: int) -> dict[str, list[Run]]:
    """Run all programs in turn, `repeat` times."""
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for number in range(repeat):
        for name, program in programs.items():
            out = made.folder / "out"
            out.mkdir()
            runs[name].append(program(made, out))
            _check(made, out)
            shutil.rmtree(out)
            print(f"  {number + 1}/{repeat} {name}: {runs[name][-1].seconds:.2f} s", file=sys.stderr, flush=True)
    return runs


def _check(made: World, out: Path) -> None:
    found = {path.name: path.stat().st_size for path in out.rglob("*.bin")}
    wanted = {name: size for name, (_, size, _) in made.files.items()}
    if found != wanted:
        raise SystemExit(f"{out} holds other files than were to be fetched")


def report(title: str, made: World, runs: dict[str, list[Run]], base: str) -> None:
    """Print a table: median and spread of wall time, its ratio to `base`, speed, CPU, memory."""
    print(f"\n{title}: {len(made.files)} files, {made.size / MB:.0f} MB")
    print(f"{'':24}{'seconds':>18}{f'{base} is':>20}{'MB/s':>8}{'CPU s/GB':>10}{'peak MB':>9}")
    mine = statistics.median(run.seconds for run in runs[base])
    for name, all_of_it in runs.items():
        seconds = [run.seconds for run in all_of_it]
        median = statistics.median(seconds)
        spread = f"{median:.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        ratio = "" if name == base else f"{median / mine:.2f} times as fast"
        cpu = statistics.median(run.cpu for run in all_of_it) / (made.size / 1e9)
        rss = max(run.rss for run in all_of_it)
        print(f"{name:24}{spread:>18}{ratio:>20}{made.size / MB / median:8.0f}{cpu:10.2f}{rss:9.0f}")


def sha256_alone(size: int) -> float:
    """CPU seconds that hashing one GB in memory takes."""
    block, hasher, began = bytes(1 << 20), hashlib.sha256(), time.process_time()
    for _ in range(size >> 20):
        hasher.update(block)
    return (time.process_time() - began) / ((size >> 20) * (1 << 20) / 1e9)


def main() -> None:
    """Run the benches that are named, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("only", nargs="*", choices=["limited", "unlimited", "slow", "xet", []], help="which benches")
    args = parser.parse_args()
    if not args.only or "limited" in args.only:
        sizes = [600 * MB, *[20 * MB] * 20]
        with world(sizes, rate=40 * MB, latency=0.03) as made:
            programs: dict[str, Program] = {
                "hearmeman": ours,
                "wget": wget,
                "hf download": hf,
                "aria2c -x16 -j8": aria2c,
                "aria2c with sha256": lambda made, out: aria2c(made, out, check=True),
            }
            runs = bench(made, programs, args.repeat)
            report("Each connection limited to 40 MB/s, 30 ms before each answer", made, runs, "hearmeman")
    if not args.only or "unlimited" in args.only:
        with world([2000 * MB], rate=0, latency=0) as made:
            checked: dict[str, Program] = {
                "hearmeman": ours,
                "aria2c with sha256": lambda made, out: aria2c(made, out, check=True),
            }
            report("No limit", made, bench(made, checked, args.repeat), "hearmeman")
            print(f"{'sha256 alone':24}{'':46}{sha256_alone(1000 * MB):10.2f}")
    if not args.only or "slow" in args.only:
        with world([150 * MB], rate=20 * MB, latency=0.03, slow=9) as made:
            slow: dict[str, Program] = {
                "hearmeman": ours,
                "aria2c with sha256": lambda made, out: aria2c(made, out, check=True),
            }
            report(
                "One slow connection: the ninth answer of each run at 128 KB/s", made, bench(made, slow, 1), "hearmeman"
            )
    if not args.only or "xet" in args.only:
        with xet_world(200 * MB) as made:
            both: dict[str, Program] = {
                "hearmeman": lambda made, out: ours(made, out, DOWNLOAD_XET="false"),
                "hearmeman through Xet": ours,
                "hf download (hf_xet)": hf,
            }
            report("Plain storage and Xet's, both served by Python", made, bench(made, both, args.repeat), "hearmeman")


if __name__ == "__main__":
    main()
