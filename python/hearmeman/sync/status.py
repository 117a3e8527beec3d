"""`hearmeman sync status`: whether the sync runs, what waits, what was sent last, and what fails."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman.errors import HearmemanError
from hearmeman.settings import Settings
from hearmeman.state_file import read_json
from hearmeman.terminal import age, count, size


class NoReportError(HearmemanError):
    """No sync has run here."""


def show(settings: Settings, as_json: bool) -> int:
    """Print the state; 1 when the sync does not run, cannot upload, or fails with some files.

    Raises:
        NoReportError: no sync has run here.
    """
    state = Path(settings.state_path)
    facts = read_json(state / "sync.json")
    if not facts:
        why = "set ENABLE_R2_SYNC=true" if not settings.enable_r2_sync else "see the pod's log"
        raise NoReportError(f"no sync has run here: {state}/sync.json cannot be read: {why}")
    facts["running"] = is_locked(state / "sync.lock")
    print(json.dumps(facts, indent=2) if as_json else "\n".join(lines(facts, time.time())))
    wrong = any(facts.get(name) for name in ("problem", "failing_files", "workspace_problem"))
    return 0 if facts["running"] and not wrong else 1


def is_locked(path: Path) -> bool:
    """Tell whether a process has the sync's lock."""
    try:
        with path.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def lines(facts: Mapping[str, Any], now: float) -> list[str]:
    """Render the state for a person at `now` (Unix seconds)."""
    running = f"running, pid {facts.get('pid')}" if facts["running"] else "not running"
    shown = [
        f"sync      {running}: {facts.get('folder')} to s3://{facts.get('bucket')} at {facts.get('endpoint')}",
        f"backlog   {count(facts.get('backlog_files', 0), 'file')}, {size(facts.get('backlog_bytes', 0))}, "
        f"{facts.get('uploading', 0)} of them on their way",
        f"sent      {count(facts.get('uploaded_files', 0), 'file')}, {size(facts.get('uploaded_bytes', 0))} since the start; "
        f"{facts.get('journaled_files', 0)} known to be in the bucket",
    ]
    if "last_success_at" in facts:
        shown.append(f"last      {facts['last_success_key']}, {age(now - facts['last_success_at'])}")
    if facts.get("removed_files"):
        shown.append(
            f"removed   {count(facts['removed_files'], 'file')}, {size(facts['removed_bytes'])}, that are in the bucket"
        )
    if space := facts.get("workspace"):
        made = f", {age(now - space['at'])}" if space["save"] else ""
        shown.append(f"workspace save {space['save']}{made}: {count(space['files'], 'file')}, {size(space['bytes'])}")
    if facts.get("workspace_problem"):
        shown.append(f"workspace is not saved: {facts['workspace_problem']}")
    if facts.get("problem"):
        shown.append(f"problem   {facts['problem']}")
    shown += _failing(facts, now)
    if "last_error_at" in facts and not facts.get("problem") and not facts.get("failing_files"):
        # One that was not fixed is of a file that is gone or was written anew.
        fixed = facts.get("last_error_fixed_at")
        word, at = ("solved   ", fixed) if fixed else ("last error", facts["last_error_at"])
        shown.append(f"{word} {facts['last_error']}, {age(now - at)}")
    return shown + [f"left      {path}" for path in facts.get("left", [])[:20] if not facts["running"]]


def _failing(facts: Mapping[str, Any], now: float) -> list[str]:
    """Name the files that failed and have not been sent since."""
    total, named = facts.get("failing_files", 0), facts.get("failing", [])
    if not total:
        return []
    shown = [f"failing   {count(total, 'file')}; tried again until each is sent"]
    for one in named:
        since = f", {one['failures']} times, first {age(now - one['since'])}"
        shown.append(f"          {one['file']}: {one['why']}{since}")
    return shown + ([f"          and {total - len(named)} more"] if total > len(named) else [])
