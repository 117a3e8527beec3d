"""supervisord, woken by signals and starting its programs at once; its exit code tells how the stop went.

Its programs are all our wrappers. They are forks of it in place of interpreters of their own: a wrapper then starts in
milliseconds, and shares what it does not change with the others.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from supervisor import supervisord
from supervisor.medusa import asyncore_25 as asyncore

from hearmeman import redact
from hearmeman.boot import keep
from hearmeman.log import log
from hearmeman.state_file import read_json

HEAD_START = 0.5
"""Seconds that ComfyUI's wrapper has for starting it before all else is started."""
PARTLY = 3
"""Exit code of a stop after which outputs may be left that were not uploaded."""


class _Wake:
    """A pipe that every signal writes to; it sits in supervisord's own poll loop, which else wakes once a second."""

    def __init__(self) -> None:
        self.fd, write_end = os.pipe()
        for end in (self.fd, write_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        os.read(self.fd, 4096)

    def handle_error(self) -> None:
        raise RuntimeError("the wake pipe failed")


class PromptSupervisor(supervisord.Supervisor):  # type: ignore[misc]
    """Supervisor without the first poll's second."""

    socket_group = -1
    """The group that may talk to it."""

    def runforever(self) -> None:
        """Start what is to be started, then run supervisord's own loop."""
        # What every wrapper is a fork of: a collection in one of them would write to all of its pages.
        gc.collect()
        gc.freeze()
        self.options.execve = _become_wrapper
        wake = _Wake()
        asyncore.socket_map[wake.fd] = wake
        for section, _ in self.options.httpservers:
            if self.socket_group >= 0 and section.get("file"):
                os.chown(section["file"], 0, self.socket_group)
                Path(section["file"]).chmod(0o770)
        self._start_first("comfyui")
        for group in self.process_groups.values():
            group.transition()
        super().runforever()

    def _start_first(self, name: str) -> None:
        # A moment's head start: the others' interpreters would else take its processors.
        for group in self.process_groups.values():
            process = group.processes.get(name)
            if process is None:
                continue
            process.transition()
            report = Path(self.options.configfile).parent / "keep" / f"{name}.json"
            end = time.monotonic() + HEAD_START
            while time.monotonic() < end and not read_json(report).get("pid"):
                time.sleep(0.01)


def _become_wrapper(program: str, argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Do in supervisord's fork what its command, `python -m hearmeman keep NAME …`, would do."""
    words = argv[argv.index("keep") + 1 :]
    for number in _SUPERVISORDS_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _LIBC.prctl(_PR_SET_NAME, f"keep {words[0]}".encode())
    code = 1
    try:
        with redact.guarded_streams():
            code = keep.run(_WRAPPERS.parse_args(words), environ)
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def verdict(reports: Iterable[dict[str, Any]]) -> tuple[int, list[str]]:
    """Judge a stop by the wrappers' reports: (exit code, what was killed or left undone)."""
    code, said = 0, []
    for report in reports:
        is_sync = report.get("name") == "sync"
        left = "outputs may be left; the next start sends them"
        if report.get("killed"):
            said.append(f"{report['name']} did not stop in time and was killed" + (f": {left}" if is_sync else ""))
        elif is_sync and report.get("exit") not in (0, None):
            said.append(f"sync ended with {report['exit']}: {left}")
        else:
            continue
        code = PARTLY if is_sync else code
    return code, said


def _append_to_stdout() -> None:
    # Programs' output goes to /dev/fd/1 opened anew: in a file, our own lines would else overwrite theirs.
    fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_APPEND)


def main(argv: list[str]) -> int:
    """Run supervisord with `argv`; `--socket-group=GID` before its own options is ours."""
    if argv and argv[0].startswith("--socket-group="):
        PromptSupervisor.socket_group = int(argv.pop(0).partition("=")[2])
    _append_to_stdout()
    supervisord.Supervisor = PromptSupervisor
    supervisord.main(argv)
    reports = Path(argv[argv.index("-c") + 1]).parent / "keep"
    code, told = verdict(read_json(path) for path in sorted(reports.glob("*.json")))
    for text in told:
        log("stop.unclean", what=text)
    log("stop.done", exit=code)
    return code


# Made here, once for all of them.
_WRAPPERS = argparse.ArgumentParser()
keep.add(_WRAPPERS)
_SUPERVISORDS_SIGNALS = (signal.SIGHUP, signal.SIGUSR2)
"""Those that it handles and the wrapper does not."""
_PR_SET_NAME = 15
_LIBC = ctypes.CDLL(None)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
