"""Carries a plan out: lists snapshots, verifies what is there, fetches what is not, several files at once."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hearmeman.log import log
from hearmeman.models import engine
from hearmeman.models.cache import Cache
from hearmeman.models.catalogue import File
from hearmeman.models.download import Download
from hearmeman.models.errors import AllFailedError, DiskFullError, FetchError, MissingForNowError, SomeFailedError
from hearmeman.models.http import Http
from hearmeman.models.lease import Lease
from hearmeman.models.listing import ListingTask
from hearmeman.models.plan import DiskTooSmallError, Plan, Step
from hearmeman.models.progress import STEP_PERCENT, Progress, Row
from hearmeman.models.sources import Sources
from hearmeman.models.statements import Statements
from hearmeman.models.store import Store
from hearmeman.models.tools import Tools
from hearmeman.settings import Settings
from hearmeman.state_file import read_json

STALL_SECONDS = 30.0
"""A connection that brings nothing for so long is cut and made again, sooner where DOWNLOAD_TIMEOUT is short."""


class Fetch:
    """One run over a plan. `replan` looks at the disk again, and refuses what does not fit."""

    def __init__(
        self,
        plan: Plan,
        replan: Callable[[], Plan],
        store: Store,
        settings: Settings,
        lease: Lease | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.plan, self.replan, self.store, self.settings = plan, replan, store, settings
        self.http = Http(settings.download_connections, min(STALL_SECONDS, settings.download_timeout / 3))
        sources = Sources(settings, self.http)
        self.tools = Tools(settings, store, sources, Statements(store, sources), cache, lease)
        self.lock: threading.Condition = self.tools.lock
        self.downloads: dict[str, Download] = {}
        self.listings: dict[str, ListingTask] = {}
        self.present: dict[str, Row] = {}
        self.tasks: list[engine.Task] = []

    def run(self) -> None:
        """Do every step; one that fails does not stop the others.

        Raises:
            MissingForNowError: files are missing, some of them for a cause that may pass.
            AllFailedError: no file is there in the end.
            SomeFailedError: some are.
        """
        for step in self.plan.steps:
            self._add(step)
        models = [model.id for model in self.plan.models]
        files = [Path(self.settings.state_path) / "models.json", self.store.own / "progress.json"]
        progress = Progress(self._rows, files, models, sys.stderr)
        try:
            if self.tasks:
                progress.look(force=True)
            engine.run(self.tasks, self.http, self.lock, self.settings.download_connections, progress.look)
        finally:
            for download in self.downloads.values():
                download.pause()
            whole = all(row.state == "present" for row in self._rows().values())
            progress.end("complete" if whole else "incomplete")
        ends = [*(one.error for one in self.listings.values()), *(one.error for one in self.downloads.values())]
        if errors := [error for error in ends if error is not None]:
            raise _failed(len(self._rows()), errors)

    def _add(self, step: Step) -> None:
        """Make a step a task; the lock is held once the fetch runs."""
        file = step.file
        if step.action == "list":
            self.listings[file.id] = ListingTask(file, self.tools, self._listed)
            self.tasks.append(self.listings[file.id])
            return
        there = None if step.action == "fetch" else (self.store.root / file.to).stat().st_size
        if step.action == "present":
            self.present[file.id] = Row(file.to, "present", there or 0, there or 0)
            return
        if step.action == "fetch" and file.size == 0:
            self._make_empty(file)
            return
        self.downloads[file.id] = Download(file, self.tools, there)
        self.tasks.append(self.downloads[file.id])

    def _make_empty(self, file: File) -> None:
        # Nothing is to be fetched of a file without bytes, and no server gives a range of it.
        staged = self.store.staged(file)
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(b"")
        self.tools.place(file, hashlib.sha256().hexdigest(), cached=False)
        self.present[file.id] = Row(file.to, "present", 0, 0)

    def _listed(self, asked: File) -> None:
        """Add the files of a snapshot that was listed just now, or the file whose name is known now."""
        try:
            steps = self.replan().steps
        except DiskTooSmallError as error:
            raise DiskFullError(str(error)) from error
        with self.lock:
            for step in steps:
                if step.file.id.startswith(f"{asked.id}/") or (step.file.id == asked.id and step.action != "list"):
                    self._add(step)

    def _rows(self) -> Mapping[str, Row]:
        with self.lock:
            rows = {name: task.row for name, task in self.listings.items()}
            found = {name: row for name, row in rows.items() if row is not None}
            return {**self.present, **found, **{name: task.row for name, task in self.downloads.items()}}


class Waiting:
    """Tells how far the fetch is that holds the lease."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.waited = False
        self._said = ""

    def __call__(self, words: Mapping[str, Any]) -> None:
        """Say so when something changed."""
        self.waited = True
        percent = ""
        with contextlib.suppress(KeyError, TypeError, ZeroDivisionError):
            state = read_json(self.file)
            percent = str(int(100 * state["bytes_done"] / state["bytes_total"]) // STEP_PERCENT * STEP_PERCENT)
        percent = percent or "0"
        if percent != self._said:
            self._said = percent
            log("models.waiting", why="another fetch is running", owner=words.get("owner"), percent=self._said)


def _failed(files: int, errors: list[FetchError]) -> AllFailedError | SomeFailedError | MissingForNowError:
    kind: type[AllFailedError | SomeFailedError | MissingForNowError]
    kind = AllFailedError if len(errors) == files else SomeFailedError
    end = ""
    if passing := sum(error.passing for error in errors):
        kind, end = MissingForNowError, f"\n{passing} of them may work later: run the same command again."
    lines = "\n".join(f"  {error}" for error in errors)
    return kind(f"{len(errors)} of {files} files are missing, {files - len(errors)} are present:\n{lines}{end}")
