"""Carries a plan out: lists snapshots, verifies what is there, fetches what is not, several files at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hearmeman.log import log
from hearmeman.models import engine, xet
from hearmeman.models.cache import Cache
from hearmeman.models.catalogue import File, Snapshot
from hearmeman.models.check import Check
from hearmeman.models.download import Download
from hearmeman.models.errors import AllFailedError, FetchError, SomeFailedError, TransientError
from hearmeman.models.http import Http
from hearmeman.models.lease import Lease
from hearmeman.models.plan import Plan, Step
from hearmeman.models.progress import STEP_PERCENT, Progress, Row
from hearmeman.models.sources import Remote, Sources
from hearmeman.models.statements import Statements
from hearmeman.models.store import Store
from hearmeman.settings import Settings

STALL_SECONDS = 30.0
"""A connection that brings nothing for so long is cut and made again, sooner where DOWNLOAD_TIMEOUT is short."""
_LIST_PAUSES = (0.5, 2.0, 5.0, 15.0)


class Fetch:
    """One run over a plan. `lease` is asked before a file gets its place."""

    def __init__(self, plan: Plan, store: Store, settings: Settings, lease: Lease) -> None:
        self.plan, self.store, self.settings, self.lease = plan, store, settings, lease
        self.lock = threading.Condition()
        self.http = Http(settings.download_connections, min(STALL_SECONDS, settings.download_timeout / 3))
        self.cache = Cache(settings) if settings.model_cache else None
        self.sources = Sources(settings, self.http, self.cache)
        self.statements = Statements(store, self.sources)
        self.downloads: dict[str, Download] = {}
        self.checks: dict[str, Check] = {}
        self.rows: dict[str, Row] = {}
        self.tasks: list[engine.Task] = []
        self.began: dict[str, float] = {}

    def run(self, failures: Mapping[str, str]) -> None:
        """Do every step; one that fails does not stop the others. `failures` are those of snapshots, by id.

        Raises:
            AllFailedError: no file is there in the end.
            SomeFailedError: some are.
        """
        for step in self.plan.steps:
            self._add(step, failures.get(step.file.id, ""))
        models = [model.id for model in self.plan.models]
        files = [Path(self.settings.state_path) / "models.json", self.store.own / "progress.json"]
        progress = Progress(self._look, files, models, sys.stderr)
        try:
            if self.tasks:
                progress.look(force=True)
            engine.run(self.tasks, self.http, self.lock, self.settings.download_connections, progress.look)
        finally:
            for download in self.downloads.values():
                download.pause()
            problems = {name: row.problem for name, row in self._look().items() if row.problem}
            whole = all(row.state == "present" for row in self.rows.values())
            progress.end("complete" if whole else "incomplete")
        if problems:
            raise _failed(len(self.rows), problems)

    def close(self) -> None:
        """Finish what goes on behind: the cache's uploads."""
        if self.cache:
            self.cache.close()

    def _add(self, step: Step, problem: str) -> None:
        file = step.file
        state = "present" if step.action == "present" else "failed" if problem else "waiting"
        size = file.expected
        if step.action in ("present", "verify"):
            size = (self.store.root / file.to).stat().st_size
        self.rows[file.id] = Row(file.to, state, size, size if state == "present" else 0, problem)
        if step.action == "verify":
            check = Check(
                file,
                self.store.root / file.to,
                self.lock,
                right=lambda digest: self._right(file, digest),
                wrong=lambda why: self._wrong(file, why),
                learn=self.statements.learn,
            )
            self.checks[file.id] = check
            self.tasks.append(check)
        elif step.action == "fetch" and file.size == 0:
            self._make_empty(file)
        elif step.action == "fetch":
            self._download(file)

    def _make_empty(self, file: File) -> None:
        # Nothing is to be fetched of a file without bytes, and no server gives a range of it.
        staged = self.store.staged(file)
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(b"")
        self.began[file.id] = time.monotonic()
        self._accept(file, hashlib.sha256().hexdigest())
        self.rows[file.id].state = "present"

    def _download(self, file: File) -> None:
        download = Download(
            file,
            self.store.staged(file),
            self.store.journal(file),
            self._resolve,
            self._accept,
            self.lock,
            self.settings.download_connections_per_file,
            self.settings.download_timeout,
            xet.TRIES if self.settings.download_xet else 0,
        )
        self.downloads[file.id] = download
        self.tasks.append(download)

    def _resolve(self, file: File, cached: bool) -> Remote:
        self.began.setdefault(file.id, time.monotonic())
        remote = self.sources.resolve(file, cached)
        self.statements.heard(file, remote)
        return remote

    def _accept(self, file: File, digest: str) -> None:
        self.lease.require()
        self.store.accept(file, digest, str(file.source))
        self.statements.placed(file, digest, (self.store.root / file.to).stat().st_size)
        if self.cache:
            self.cache.fill(self.store.root / file.to, digest)
        size = (self.store.root / file.to).stat().st_size
        log("model.present", file=file.to, how="fetch", bytes=size, seconds=time.monotonic() - self.began[file.id])

    def _right(self, file: File, digest: str) -> None:
        # The file is right even if a full disk keeps us from noting it.
        with contextlib.suppress(OSError):
            if digest:
                self.store.note(file, digest, "")
        self.rows[file.id].state, self.rows[file.id].done = "present", self.rows[file.id].size
        log("model.present", file=file.to, how="verify")

    def _wrong(self, file: File, why: str) -> None:
        log("model.corrupt", file=file.to, why=why, then="fetching it again")
        with self.lock:
            self._download(file)

    def _look(self) -> Mapping[str, Row]:
        with self.lock:
            for name, check in self.checks.items():
                if check.reading:
                    self.rows[name].state = "verifying"
            for name, download in self.downloads.items():
                row = self.rows[name]
                told = bool(row.problem)
                row.state, row.size, row.done = download.state, download.total, download.done
                row.problem = str(download.error or "")
                if row.problem and not told:
                    log("model.failed", file=row.to, why=row.problem)
        return self.rows


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
        with contextlib.suppress(OSError, ValueError, KeyError, ZeroDivisionError):
            state = json.loads(self.file.read_text(encoding="utf-8"))
            percent = str(int(100 * state["bytes_done"] / state["bytes_total"]) // STEP_PERCENT * STEP_PERCENT)
        percent = percent or "0"
        if percent != self._said:
            self._said = percent
            log("models.waiting", why="another fetch is at it", owner=words.get("owner"), percent=self._said)


def list_snapshots(
    plan: Plan, store: Store, settings: Settings, sleep: Callable[[float], None] = time.sleep
) -> dict[str, str]:
    """Ask what the plan's unlisted snapshots consist of and note it; the answer is the problems, by id."""
    from hearmeman.models.sources import hub

    problems = {}
    statements = Statements(store, Sources(settings, Http(1, STALL_SECONDS)))
    for step in plan.having("list"):
        source, name = step.file.source, f"{step.file.to}: {step.file.source}"
        why = ""
        for pause in (*_LIST_PAUSES, None):
            try:
                if isinstance(source, Snapshot):
                    store.note_listing(step.file, hub.listing(source, settings))
                else:
                    statements.name(step.file)
                why = ""
            except FetchError as error:
                why = f"{name}: {error}"
            except TransientError as error:
                why = f"{name}: {error}: try again later"
                if pause is not None:
                    log("model.retry", file=step.file.to, why=str(error), pause=max(pause, error.wait))
                    sleep(max(pause, error.wait))
                    continue
            break
        if why:
            problems[step.file.id] = why
            log("model.failed", file=step.file.to, why=why)
    return problems


def _failed(files: int, problems: Mapping[str, str]) -> AllFailedError | SomeFailedError:
    told = "\n".join(f"  {why}" for why in problems.values())
    kind = AllFailedError if len(problems) == files else SomeFailedError
    return kind(f"{len(problems)} of {files} files are missing, {files - len(problems)} are there:\n{told}")
