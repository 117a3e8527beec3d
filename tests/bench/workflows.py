"""Bench of `workflows run` and `batch` against comfy-cli on the same server, and of the check of all graphs."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakes.comfyui import busy, comfyui
from hearmeman.models import catalogue
from hearmeman_build.host import WORK
from support.peers import peer
from support.repository import ROOT

FOLDER = ROOT / "workflows"
HEARMEMAN = (sys.executable, "-m", "hearmeman", "workflows")
ROUNDS = 7
"""Runs of each, by turns."""
JOBS = 100
"""Tiny jobs in a row; comfy-cli has no command for many, so each is a run of its own, as its documentation has it."""


@dataclass(frozen=True)
class Cost:
    """What a client took beside what ComfyUI did."""

    seconds: float
    processor: float
    """Seconds of processor time, the system's included: the same on a busy machine."""


def cost(commands: Iterable[Sequence[str]], environ: dict[str, str]) -> Cost:
    """Run commands one after another; each must succeed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stdout[-500:]} {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.perf_counter() - began, used)


def graph(folder: Path, color: int) -> Path:
    """A graph that ComfyUI has not seen, in a file."""
    made = json.loads((FOLDER / "smoke-image.json").read_text(encoding="utf-8"))
    made["1"]["inputs"]["color"] = color
    path = folder / f"{color}.json"
    path.write_text(json.dumps(made), encoding="utf-8")
    return path


class Bench:
    """Both clients before one server; every graph is new, so that none comes from ComfyUI's cache."""

    def __init__(self, comfy: Path, url: str, folder: Path) -> None:
        self.comfy, self.url, self.folder, self.color = comfy, url, folder, 0
        home = {"HOME": str(folder), "PATH": os.environ["PATH"], "DO_NOT_TRACK": "1"}
        self.environ = home | {"PYTHONPATH": str(ROOT / "python"), "MODEL_CATALOGUE": str(CATALOGUE)}

    def run_ours(self) -> Cost:
        """One job by `run`, its file saved."""
        self.color += 1
        words = [*HEARMEMAN, "run", str(graph(self.folder, self.color)), "--url", self.url, "--dir", str(FOLDER)]
        return cost([[*words, "--out", str(self.folder / "ours"), "--json"]], self.environ)

    def run_theirs(self, jobs: int = 1) -> Cost:
        """One job after another by `comfy run --wait`; it prints addresses and saves nothing."""
        port = self.url.rpartition(":")[2]
        words = [str(self.comfy), "--skip-prompt", "--no-enable-telemetry", "--json", "run", "--wait", "--no-notify"]
        words += ["--host", "127.0.0.1", "--port", port, "--workflow"]
        first, self.color = self.color + 1, self.color + jobs
        files = [graph(self.folder, color) for color in range(first, self.color + 1)]
        return cost([[*words, str(file)] for file in files], self.environ)

    def batch_ours(self, jobs: int) -> Cost:
        """So many jobs by `batch`, their files saved."""
        first, self.color = self.color + 1, self.color + jobs
        rows = self.folder / "jobs.csv"
        rows.write_text("color\n" + "".join(f"{color}\n" for color in range(first, self.color + 1)), encoding="utf-8")
        words = [*HEARMEMAN, "batch", "smoke-image", str(rows), "--url", self.url, "--dir", str(FOLDER)]
        return cost([[*words, "--out", str(self.folder / f"batch-{first}")]], self.environ)

    def check(self) -> Cost:
        """All graphs with all choices."""
        return cost([[*HEARMEMAN, "check", "--dir", str(FOLDER)]], self.environ)

    def stop(self) -> float:
        """Seconds from Ctrl-C until ComfyUI is at rest, in the middle of a job that would take a minute."""
        self.color += 1
        words = [*HEARMEMAN, "run", "smoke-image", "--url", self.url, "--dir", str(FOLDER), "--json"]
        words += ["--set", "count=600", "--set", f"color={self.color}"]
        process = subprocess.Popen(
            words, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("step"):
                break
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        while busy(self.url):
            time.sleep(0.005)
        seconds = time.monotonic() - began
        process.communicate(timeout=60)
        return seconds


CATALOGUE = Path(catalogue.__file__).with_name("catalogue.toml")


def main() -> int:
    """Print medians, spreads and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    comfy = peer("comfy", WORK / "peers")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with comfyui(folder / "comfyui", write_seconds=0) as server:
            bench = Bench(comfy, server.url, folder)
            bench.run_ours(), bench.run_theirs()  # What is compiled or written once is no part of it.
            ours, theirs, checks = [], [], []
            for _ in range(arguments.rounds):
                ours.append(bench.run_ours())
                theirs.append(bench.run_theirs())
                checks.append(bench.check())
            _say("one job, workflows run", ours)
            _say("one job, comfy run --wait", theirs)
            _ratio(ours, theirs)
            many, of_theirs = [bench.batch_ours(arguments.jobs)], [bench.run_theirs(arguments.jobs)]
            _say(f"{arguments.jobs} jobs, workflows batch", many)
            _say(f"{arguments.jobs} jobs, comfy run --wait each", of_theirs)
            _ratio(many, of_theirs)
            _say("workflows check, all graphs", checks)
        with comfyui(folder / "slow", write_seconds=0.1) as server:
            bench = Bench(comfy, server.url, folder)
            print(
                f"{'from Ctrl-C until ComfyUI rests':36} {_spread([bench.stop() for _ in range(arguments.rounds)])} s"
            )
    return 0


def _say(what: str, costs: Sequence[Cost]) -> None:
    seconds, processor = _spread([c.seconds for c in costs]), _spread([c.processor for c in costs])
    print(f"{what:36} {seconds} s, {processor} s of processor time", flush=True)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _ratio(ours: Sequence[Cost], theirs: Sequence[Cost]) -> None:
    seconds = [statistics.median(c.seconds for c in costs) for costs in (ours, theirs)]
    processor = [statistics.median(c.processor for c in costs) for costs in (ours, theirs)]
    text = (
        f"{seconds[0] / seconds[1]:.2f} of comfy-cli's seconds, {processor[0] / processor[1]:.2f} of its processor time"
    )
    print(f"{'':36} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
