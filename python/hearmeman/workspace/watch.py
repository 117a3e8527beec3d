"""Saves the workspace when it has changed and is quiet again, beside the sync, and once more at the stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hearmeman.errors import HearmemanError
from hearmeman.log import log
from hearmeman.sync.explain import explained
from hearmeman.workspace.save import MOMENT, fingerprint, save
from hearmeman.workspace.space import Space

LOOK_SECONDS = 5.0
"""Between two looks; a change is saved when the next look finds no other."""
LOOK_SHARE = 0.02
"""The part of the time that looking may take: many inputs on a network volume take a while."""
ADDED_SECONDS = 60.0
"""Between two looks at the nodes and packages that were added."""
LONGEST_PAUSE = 300.0
"""Between two tries while saving fails."""


class Watch(threading.Thread):
    """A thread that saves what changes, until it is asked to stop."""

    def __init__(self, space: Space, note: Callable[..., None], look_seconds: float = LOOK_SECONDS) -> None:
        """Take what it saves; `note` is called with facts for the sync's state file."""
        super().__init__(name="workspace", daemon=True)
        self.space, self.note, self.look_seconds = space, note, look_seconds
        self.asked_to_stop = threading.Event()
        self.is_saved = False
        self._problem = ""
        self._said: set[str] = set()
        self._added_at = 0.0
        self._added_seen: object = None

    def stop(self) -> None:
        """Ask it to save once more and end; can be called from a signal handler."""
        self.asked_to_stop.set()

    def end(self, until: float) -> bool:
        """Wait for its end, until the clock is `until`; whether all is saved."""
        self.join(max(1.0, until - time.monotonic()))
        if not self.is_saved:
            log("workspace.left", means="the last changes of the workspace are not in the bucket")
        return self.is_saved

    def run(self) -> None:
        """Look and save."""
        saved: object = None
        before: object = None
        pause, again_at = self.look_seconds, 0.0
        wait = self.look_seconds
        while not self.asked_to_stop.wait(wait):
            began = time.monotonic()
            seen = (fingerprint(self.space), self._added(began))
            wait = max(self.look_seconds, (time.monotonic() - began) / LOOK_SHARE)
            if seen != saved and seen == before and began >= again_at:
                if self._try(self._save):
                    saved, pause = seen, self.look_seconds
                else:
                    pause = min(pause * 2, LONGEST_PAUSE)
                    again_at = time.monotonic() + pause
            before = seen
        self.is_saved = self._try(lambda: self._save(settle=0.0))

    def _added(self, now: float) -> object:
        if now >= self._added_at:
            self._added_at, self._added_seen = now + ADDED_SECONDS, self.space.added()
        return self._added_seen

    def _save(self, settle: float | None = None) -> None:
        done = save(self.space) if settle is None else save(self.space, settle=settle)
        if done.is_new:
            counts = {what: len(paths) for what, paths in done.changes().items()}
            log("workspace.saved", save=done.save.number, files=len(done.save.files), **counts)
        for path, why in done.unread.items():
            if why != MOMENT and path not in self._said:
                self._said.add(path)
                log("workspace.left_out", file=path, why=why)
        newest = done.save
        self.note(workspace={"save": newest.number, "files": len(newest.files), "bytes": newest.size, "at": newest.at})

    def _try(self, action: Callable[[], None]) -> bool:
        """Do it; a failure is logged when it is a new one, and noted for `hearmeman sync status`."""
        try:
            with explained(self.space.store.bucket):
                action()
        except HearmemanError as error:
            if str(error) != self._problem:
                log("workspace.failed", why=error, means="it will be retried")
            self._problem = str(error)
            self.note(workspace_problem=self._problem)
            return False
        if self._problem:
            log("workspace.healed")
            self._problem = ""
        self.note(workspace_problem="")
        return True
