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
import time
from collections.abc import Mapping
from pathlib import Path

from hearmeman import redact
from hearmeman.boot import ended
from hearmeman.boot.ended import oom_kills
from hearmeman.boot.output import Output
from hearmeman.errors import PassingError
from hearmeman.log import line
from hearmeman.state_file import read_json, write_json

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
STEADY_SECONDS = 60.0
LINES_SECONDS = 2.0
DRAWN_SECONDS = 0.5
FINAL_CODES = (0, 2, 3)
"""Exit codes after which a process that runs once is not tried again: done, wrongly asked, partly done."""
LONGEST_PAUSE_ONCE = 600.0
"""Between the starts of a process that runs once and has not ended for good, as 75 says: what it lacks may come."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman keep`."""
    parser.add_argument("name", help="the process's name, put before each line of its output")
    parser.add_argument("--env-file", type=Path, required=True, help="JSON object: the process's whole environment")
    parser.add_argument("--log", type=Path, required=True, help="file that its output is appended to")
    parser.add_argument("--once", action="store_true", help=f"end with the process if it exits with {FINAL_CODES}")
    parser.add_argument("--report", type=Path, help="file that holds its pid, starts and last exit, as JSON")
    parser.add_argument("--after", type=Path, action="append", default=[], help="start when this report says it ended")
    parser.add_argument("--needs", type=Path, action="append", default=[], help="the same, and only if it ended with 0")
    parser.add_argument("--directory", default="/", help="folder that the process starts in (%(default)s)")
    parser.add_argument("--oom-score", type=int, default=0, help="how much sooner the kernel ends it, 0 to 1000")
    parser.add_argument("--note", default="", help="regular expression of lines to keep in the report")
    parser.add_argument("--umask", type=lambda text: int(text, 8), help="the process's umask, octal")
    parser.add_argument("--stop-seconds", type=float, default=10.0, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("--boot-started", type=float, help="CLOCK_BOOTTIME at the entrypoint's start")
    parser.add_argument("argv", nargs="+", help="-- and the command")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Keep the process until it is done or this one is told to stop."""
    return Keeper(args).run()


def next_pause(pause: float, alive: float, once: bool = False) -> float:
    """Give the pause after a process that lived `alive` seconds, when the one before was `pause` (0: none yet).

    One that runs `once` does not become steady by living long.
    """
    if pause == 0 or (alive >= STEADY_SECONDS and not once):
        return FIRST_PAUSE
    if once:
        return min(pause * 2, LONGEST_PAUSE_ONCE)
    return min(pause * 2, LONGEST_PAUSE)


class Keeper:
    """One process and what is known of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.name: str = args.name
        self.environment: dict[str, str] = json.loads(args.env_file.read_text(encoding="utf-8"))
        redact.learn(self.environment)
        self.output = Output(self.name, args.log, args.note)
        self.reported = 0.0
        self.stopping = False
        self.facts: dict[str, object] = {
            "name": self.name,
            "pid": None,
            "starts": 0,
            "exit": None,
            "done": False,
            "killed": False,
        }
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
        self._follow_an_earlier_one()
        self._report()
        self._wait_for_others()
        pause = 0.0
        while not self.stopping:
            began, kills = time.monotonic(), oom_kills()
            code = self._one_life()
            if self.stopping:
                self._report(exit=code)
                break
            alive = time.monotonic() - began
            if self.args.once and code in FINAL_CODES:
                self._report(pid=None, exit=code, done=True)
                self._say("process.done", exit=code, seconds=alive)
                return code
            pause = next_pause(pause, alive, self.args.once)
            why, last = ended.why(code, kills, oom_kills()), self.output.last
            if self.args.once and code == PassingError.exit_code:
                self._say("process.unfinished", exit=code, again_in=pause)
            else:
                self._say("process.died", exit=code, why=why or None, last=last or None, alive=alive, again_in=pause)
            self._report(pid=None, exit=code, why=why, last_line=last, again_at=time.time() + pause)
            self._sleep(pause)
        self._report(pid=None)
        return 0

    def _follow_an_earlier_one(self) -> None:
        before = read_json(self.args.report) if self.args.report else {}
        if "exec_seconds" in before:
            # How long the pod's start took; this is a restart.
            self.facts["exec_seconds"] = before["exec_seconds"]
        # A wrapper before this one was killed: its process died with it, but that one's children may hold the port.
        pid = before.get("pid")
        if isinstance(pid, int) and pid > 1:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
                self._say("process.leftovers_ended", group=pid)

    def _wait_for_others(self) -> None:
        said = ""
        while not self.stopping:
            why = "; ".join(filter(None, (self._lacks(path) for path in (*self.args.after, *self.args.needs))))
            if not why:
                self._report(waits="")
                return
            if why != said:
                self._say("process.waiting", why=why)
                self._report(waits=why)
                said = why
            self._sleep(0.2)

    def _lacks(self, path: Path) -> str:
        report = read_json(path)
        if not report.get("done"):
            tried = report.get("exit")
            return f"{path.stem} is not done yet" + (f" (it ended with {tried} and is being retried)" if tried else "")
        return f"{path.stem} ended with {report['exit']}" if path in self.args.needs and report.get("exit") else ""

    def _one_life(self) -> int:
        try:
            # A session of its own: what it leaves behind can be ended with it, and it can signal nobody of ours.
            child = subprocess.Popen(
                self.args.argv,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.args.directory,
                preexec_fn=self._before_exec,
                umask=-1 if self.args.umask is None else self.args.umask,
            )
        except OSError as error:
            self._say("process.not_started", command=self.args.argv[0], file=error.filename, why=error.strerror)
            return 127
        seconds = self._since_boot() if "exec_seconds" not in self.facts else None
        starts = self.facts["starts"]
        assert isinstance(starts, int)
        self.output.notes.clear()
        self._report(pid=child.pid, starts=starts + 1, done=False, notes=[], drawn="", since=time.time())
        if seconds is not None:
            self._report(exec_seconds=seconds)
            self._say("process.started", name=self.name, seconds=seconds)
        code = self._watch(child)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        return code

    def _before_exec(self) -> None:
        # If this wrapper is killed, the next one must find the port free.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.args.oom_score:
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
                file.write(str(self.args.oom_score))

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
                self._report(killed=True)
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

    def _report_lines(self) -> None:
        """Keep the report's lines fresh: what ComfyUI could not load, and what a process that runs once is doing."""
        if len(self.output.notes) != len(self.facts.get("notes", ())):  # type: ignore[arg-type]
            self._report(notes=list(self.output.notes))
        elif self.args.once and time.monotonic() - self.reported > LINES_SECONDS:
            self.reported = time.monotonic()
            self._report(last_line=self.output.last)
        elif not self.args.once:
            self._report_drawn()

    def _report_drawn(self) -> None:
        """Keep what is redrawn fresh: a progress bar of ComfyUI's is all that it says of its steps."""
        drawn, before = self.output.drawn, self.facts.get("drawn", "")
        if drawn != before and (not drawn or time.monotonic() - self.reported > DRAWN_SECONDS):
            self.reported = time.monotonic()
            self._report(drawn=drawn)

    def _poll_ms(self, deadline: float | None) -> float | None:
        if deadline is None or deadline == float("inf"):
            return None
        return max(0.0, (deadline - time.monotonic()) * 1000) + 1

    def _pass_on(self, pipe: int) -> bool:
        try:
            while data := os.read(pipe, 65536):
                self.output.feed(data)
                self._report_lines()
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
            write_json(path, self.facts, durable=False)


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
