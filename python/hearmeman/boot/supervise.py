"""supervisord, woken by signals and starting its programs at once: as it comes it polls up to a second for either."""

from __future__ import annotations

import fcntl
import os
import signal
import sys

from supervisor import supervisord
from supervisor.medusa import asyncore_25 as asyncore


class _Wake:
    """A pipe that every signal writes to; it sits in supervisord's own poll loop."""

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

    def runforever(self) -> None:
        """Start what is to be started, then run supervisord's own loop."""
        wake = _Wake()
        asyncore.socket_map[wake.fd] = wake
        for group in sorted(self.process_groups.values()):
            group.transition()
        super().runforever()


def _append_to_stdout() -> None:
    # Programs' output goes to /dev/fd/1 opened anew: in a file, our own lines would else overwrite theirs.
    fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_APPEND)


if __name__ == "__main__":
    _append_to_stdout()
    supervisord.Supervisor = PromptSupervisor
    supervisord.main(sys.argv[1:])
