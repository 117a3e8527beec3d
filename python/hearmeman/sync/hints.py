"""Listens for changes below the output folder; what it hears are hints, never the truth."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from watchfiles import watch

from hearmeman.log import log


class Hints(threading.Thread):
    """Passes on each path that changed, absolute, until told to stop; starts again when the watcher breaks."""

    def __init__(self, root: Path, heard: Callable[[set[str]], None]) -> None:
        """Watch `root`; `heard` is called from this thread."""
        super().__init__(name="hints", daemon=True)
        self.root = root
        self.heard = heard
        self.stop = threading.Event()

    def run(self) -> None:
        """Watch until told to stop."""
        told = ""
        while not self.stop.is_set():
            try:
                for changes in watch(
                    self.root,
                    watch_filter=None,
                    debounce=250,
                    step=50,
                    stop_event=self.stop,
                    rust_timeout=1000,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    self.heard({path for _, path in changes})
            except (OSError, RuntimeError) as error:
                if str(error) != told:
                    told = str(error)
                    log(
                        "sync.unwatched", folder=self.root, why=error, means="changes are found by looking now and then"
                    )
                self.stop.wait(5)
