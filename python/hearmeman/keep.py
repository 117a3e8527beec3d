"""Keeps one process running: its own environment, prefixed output, growing pauses between starts, a clean stop."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from hearmeman.log import line

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
STEADY_SECONDS = 60.0
LOG_BYTES = 10 * 1024**2
LONGEST_LINE = 64 * 1024
FINAL_CODES = (0, 2, 3)
"""Exit codes after which a process that runs once is not tried again: done, wrongly asked, partly done."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman keep`."""
    parser.add_argument("name", help="the process's name, put before each line of its output")
    parser.add_argument("--env-file", type=Path, required=True, help="JSON object: the process's whole environment")
    parser.add_argument("--log", type=Path, required=True, help="file that its output is appended to")
    parser.add_argument("--once", action="store_true", help=f"end with the process if it exits with {FINAL_CODES}")
    parser.add_argument("--report", type=Path, help="file that holds its pid, starts and last exit, as JSON")
    parser.add_argument("--wait-file", type=Path, help="start only when this report says the process has ended with 0")
    parser.add_argument("--stop-seconds", type=float, default=10.0, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("--boot-started", type=float, help="CLOCK_BOOTTIME at the entrypoint's start")
    parser.add_argument("argv", nargs="+", help="-- and the command")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Keep the process until it is done or this one is told to stop."""
    return Keeper(args).run()


def next_pause(pause: float, alive: float) -> float:
    """Give the pause after a process that lived `alive` seconds, when the one before was `pause` (0: none yet)."""
    if alive >= STEADY_SECONDS or pause == 0:
        return FIRST_PAUSE
    return min(pause * 2, LONGEST_PAUSE)


class Keeper:
    """One process and what is known of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.name: str = args.name
        self.environment: dict[str, str] = json.loads(args.env_file.read_text(encoding="utf-8"))
        self.output = Output(self.name, args.log)
        self.stopping = False
        self.facts: dict[str, object] = {"name": self.name, "pid": None, "starts": 0, "exit": None, "done": False}
        self.wake, self.woken = os.pipe()
        for end in (self.wake, self.woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.woken, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._told_to_stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _told_to_stop(self, number: int, frame: object) -> None:
        self.stopping = True

    def run(self) -> int:
        """Start, watch and start again; the exit code is 0, or that of a process that runs once."""
        self._report()
        self._wait_for_file()
        pause = 0.0
        while not self.stopping:
            began = time.monotonic()
            code = self._one_life()
            if self.stopping:
                break
            alive = time.monotonic() - began
            if self.args.once and code in FINAL_CODES:
                self._report(pid=None, exit=code, done=True)
                self._say("process.done", exit=code, seconds=alive)
                return code
            pause = next_pause(pause, alive)
            self._report(pid=None, exit=code)
            self._say("process.died", exit=code, alive=alive, again_in=pause)
            self._sleep(pause)
        self._report(pid=None)
        return 0

    def _wait_for_file(self) -> None:
        said = ""
        while self.args.wait_file and not self.stopping:
            report = _read_json(self.args.wait_file)
            if report.get("done") and report.get("exit") == 0:
                return
            why = f"ended with {report['exit']}" if report.get("done") else "not done yet"
            if why != said:
                self._say("process.waiting", file=self.args.wait_file.name, why=why)
                said = why
            self._sleep(0.2)

    def _one_life(self) -> int:
        try:
            # The process's own group, so that what it leaves behind can be ended with it.
            child = subprocess.Popen(
                self.args.argv,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=_die_with_keeper,
            )
        except OSError as error:
            self._say("process.unstartable", command=self.args.argv[0], why=error.strerror)
            return 127
        seconds = self._since_boot() if self.facts["starts"] == 0 else None
        starts = self.facts["starts"]
        assert isinstance(starts, int)
        self._report(pid=child.pid, starts=starts + 1, done=False)
        if seconds is not None:
            self._report(exec_seconds=seconds)
            self._say(f"{self.name} exec", seconds=seconds)
        code = self._watch(child)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        return code

    def _watch(self, child: subprocess.Popen[bytes]) -> int:
        assert child.stdout is not None
        pipe = child.stdout.fileno()
        os.set_blocking(pipe, False)
        poller = select.poll()
        poller.register(pipe, select.POLLIN)
        poller.register(self.wake, select.POLLIN)
        deadline: float | None = None
        while True:
            if self.stopping and deadline is None:
                deadline = time.monotonic() + self.args.stop_seconds
                child.send_signal(signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                self._say("process.killed", after=self.args.stop_seconds)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                deadline = float("inf")
            for ready, _ in poller.poll(self._poll_ms(deadline)):
                if ready == self.wake:
                    self._drain_wake()
                elif not self._pass_on(pipe):
                    poller.unregister(pipe)
            if child.poll() is not None:
                self._pass_on(pipe)
                self.output.flush()
                child.stdout.close()
                return child.returncode

    def _poll_ms(self, deadline: float | None) -> float | None:
        if deadline is None or deadline == float("inf"):
            return None
        return max(0.0, (deadline - time.monotonic()) * 1000) + 1

    def _pass_on(self, pipe: int) -> bool:
        try:
            while data := os.read(pipe, 65536):
                self.output.feed(data)
                if self.output.broken:
                    self.stopping = True  # Nobody reads this any more: supervisord is gone.
                if len(data) < 65536:
                    return True
        except BlockingIOError:
            return True
        return False

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake, 512):
                pass

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            select.select([self.wake], [], [], left)
            self._drain_wake()

    def _since_boot(self) -> float | None:
        if self.args.boot_started is None:
            return None
        return time.clock_gettime(time.CLOCK_BOOTTIME) - float(self.args.boot_started)

    def _say(self, event: str, **fields: object) -> None:
        self.output.write(line(event, fields, time.time()).encode())
        if self.output.broken:
            self.stopping = True

    def _report(self, **facts: object) -> None:
        self.facts.update(facts)
        path: Path | None = self.args.report
        if path is not None:
            beside = path.with_suffix(".tmp")
            beside.write_text(json.dumps(self.facts), encoding="utf-8")
            beside.replace(path)


class Output:
    """Lines of a process, each with its name before it, to stdout and to a log file that is rotated by size."""

    def __init__(self, name: str, log: Path) -> None:
        self.prefix = f"[{name}] ".encode()
        self.log = log
        self.rest = b""
        self.broken = False
        self.log_failed = False

    def feed(self, data: bytes) -> None:
        """Take what the process wrote; whole lines go on, of a line redrawn with carriage returns the last state."""
        *lines, rest = (self.rest + data).split(b"\n")
        for text in lines:
            self.write(_last_drawn(text.rstrip(b"\r")))
        self.rest = _last_drawn(rest)
        if len(self.rest) > LONGEST_LINE:
            self.flush()

    def flush(self) -> None:
        """Write a last line that has no end."""
        if self.rest:
            self.write(self.rest)
            self.rest = b""

    def write(self, text: bytes) -> None:
        """Write one line to both places; a full disk stops the log file and not the process."""
        try:
            sys.stdout.buffer.write(self.prefix + text + b"\n")
            sys.stdout.buffer.flush()
        except (BrokenPipeError, ValueError):
            self.broken = True
        try:
            if self.log.exists() and self.log.stat().st_size + len(text) > LOG_BYTES:
                self.log.replace(self.log.with_name(self.log.name + ".1"))
            with self.log.open("ab") as file:
                file.write(text + b"\n")
            self.log_failed = False
        except OSError as error:
            if not self.log_failed:
                self.log_failed = True
                warning = line("log.unwritable", {"file": self.log, "why": error.strerror}, time.time())
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.buffer.write(self.prefix + warning.encode() + b"\n")
                    sys.stdout.buffer.flush()


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _die_with_keeper() -> None:
    # If this wrapper is killed, the next one must find the port free.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_drawn(text: bytes) -> bytes:
    # A carriage return at the very end may be the first half of "\r\n".
    kept = text[:-1] if text.endswith(b"\r") else text
    return kept.rsplit(b"\r", 1)[-1] + text[len(kept) :]


def _read_json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
