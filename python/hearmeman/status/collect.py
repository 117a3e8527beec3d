"""What is known of the running pod: phases, memory, models, sync, processes, and whether ComfyUI is ready."""

from __future__ import annotations

import configparser
import json
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman.state_file import read_json
from hearmeman.terminal import duration

STATES = ("models", "sync", "machine")


@dataclass(frozen=True)
class Readiness:
    """Whether a person can work with ComfyUI now."""

    ready: bool
    """Whether it answers and has every expected node."""
    why: str
    """What is missing; empty when nothing is."""
    pid: int = 0
    """ComfyUI's process that this was said of."""


def status(run_dir: Path, read: Callable[[Path], dict[str, Any]] = read_json) -> dict[str, Any]:
    """Collect everything as one JSON object; `problem` says why supervisord does not answer, `read` reads state files."""
    boot = read(run_dir / "boot.json")
    state = Path(boot.get("state_dir") or "/nonexistent")
    processes, problem = ask_supervisord(run_dir)
    for process in processes:
        process["keep"] = read(run_dir / "keep" / f"{process['name']}.json")
        process["what"] = words(process)
    phases = dict(boot.get("phases", {}))
    comfyui = read(run_dir / "keep/comfyui.json")
    for process in processes:
        seconds = process["keep"].get("exec_seconds")
        if process["name"] == "comfyui" and seconds is not None:
            phases["comfyui_exec"] = seconds
    door = read(run_dir / "gate" / "door.json")
    phases.update(door.get("phases", {}))
    return {
        "problem": problem,
        "ready": door.get("ready", False),
        "ready_why": door.get("why", "" if door else "not checked yet"),
        "ready_pid": door.get("pid", 0),
        "ready_changed": door.get("changed", 0),
        "phases": phases,
        "boot": boot,
        **{name: read(state / f"{name}.json") or None for name in STATES},
        "processes": processes,
        "not_working": boot.get("failed", {}),
        "failed_nodes": failed_nodes(comfyui.get("notes", [])),
        "idle": (idle := read(run_dir / "idle" / "idle.json")) or None,
        "warnings": [*boot.get("warnings", []), *filling(boot), *ending(idle, time.time())],
    }


_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z ")
_FULL = 0.95
_CANNOT_IMPORT = re.compile(r"Cannot import (.+) module for custom nodes: ?(.*)")
_IMPORT_FAILED = re.compile(r"\(IMPORT FAILED\): (.+)")


def failed_nodes(notes: Iterable[str]) -> dict[str, str]:
    """Name the custom nodes that ComfyUI could not load, each with its reason, from lines of ComfyUI's output."""
    found: dict[str, str] = {}
    for note in notes:
        if match := _CANNOT_IMPORT.search(note):
            found[Path(match[1]).name] = match[2] or "see ComfyUI's log"
        elif match := _IMPORT_FAILED.search(note):
            found.setdefault(Path(match[1].strip()).name, "see ComfyUI's log")
    return found


def filling(boot: Mapping[str, Any]) -> list[str]:
    """Warn of a volume that filled up since the boot."""
    path = str(boot.get("volume", {}).get("path", ""))
    try:
        seen = os.statvfs(path)
    except OSError:
        return []
    used = 1 - seen.f_bavail / seen.f_blocks if seen.f_blocks else 0.0
    if used < _FULL:
        return []
    free = seen.f_bavail * seen.f_frsize / 1e9
    return [
        f"{path} is {used:.0%} full, {free:.1f} GB are free: outputs and models may not fit; "
        "delete files there, `hearmeman models prune` removes models that are not enabled"
    ]


def countdown(idle: Mapping[str, Any], now: float) -> str:
    """Say when the pod ends itself by what `hearmeman idle` noted; nothing where it does not."""
    if "ends_at" not in idle:
        return ""
    word = {"stop": "stops", "terminate": "is terminated"}.get(str(idle.get("action")), "ends")
    seconds = max(0.0, float(idle["ends_at"]) - now)
    # Whole minutes, while there are some: what counts down by the second lets the page have no rest.
    left = duration(seconds if seconds < 300 else seconds // 60 * 60)
    return f"{word} in {left}" + (" unless it is used" if idle.get("unless_used") else ", used or not")


def ending(idle: Mapping[str, Any], now: float) -> list[str]:
    """Warn that the pod ends itself soon, or cannot."""
    if idle.get("problem"):
        return [str(idle["problem"])]
    if not idle.get("warns"):
        return []
    left = duration(max(0.0, float(idle.get("ends_at", now)) - now))
    word = {"stop": "stopped", "terminate": "terminated"}.get(str(idle.get("action")), "ended")
    to_do = "use it to postpone that" if idle.get("unless_used") else "copy what you need first"
    return [f"the pod is {word} in {left}: {idle.get('why')}; {to_do}"]


def end_of(keep: Mapping[str, Any]) -> str:
    """Say how a process ended that does not run now; nothing while it runs."""
    return "" if keep.get("pid") else last_end_of(keep)


def last_end_of(keep: Mapping[str, Any]) -> str:
    """Say how a process ended last, whether or not it runs again; nothing where it never ended."""
    if keep.get("exit") is None:
        return ""
    said = [f"it ended with exit {keep['exit']}", keep.get("why", "")]
    said.append(f"its last line: {keep['last_line']}" if keep.get("last_line") else "")
    return "; ".join(filter(None, said))


def words(process: Mapping[str, Any]) -> str:
    """Say in a few words what a process does."""
    keep = process["keep"]
    if process["statename"] == "STOPPED":
        what = "stopped by hand"
    elif keep.get("done"):
        what = f"ended with {keep.get('exit')}"
    elif keep.get("pid"):
        what = f"running, pid {keep['pid']}, up {duration(process['now'] - process['start'])}"
        last = _STAMP.sub("", str(keep.get("last_line") or ""))
        what += f": {last}" if last and keep.get("exit") is None else ""
    elif keep.get("starts") and process["statename"] == "RUNNING":
        left = max(0, round(keep.get("again_at", 0) - process["now"]))
        what = "died, restarting" + (f" in {duration(left)}" if left else "")
    elif process["statename"] == "RUNNING":
        what = "not started yet" + (f": {keep['waits']}" if keep.get("waits") else "")
    else:
        what = f"not running ({process['statename'].lower()})"
    last = f", last exit {keep['exit']}" if keep.get("exit") is not None and not keep.get("done") else ""
    last += f": {keep['why']}" if last and keep.get("why") else ""
    last += f"; its last line: {keep['last_line']}" if last and keep.get("last_line") and not keep.get("pid") else ""
    again = f", started {keep['starts']} times" if keep.get("starts", 0) > 1 else ""
    return f"{what}{again}{last}"


def supervisor(run_dir: Path) -> Any:
    """Make the proxy for supervisord's calls over its socket.

    Raises:
        FileNotFoundError: no pod was booted here.
        configparser.Error, KeyError, PermissionError: its configuration cannot be read.
    """
    import xmlrpc.client

    from supervisor.xmlrpc import SupervisorTransport

    config = configparser.RawConfigParser()
    with (run_dir / "supervisord.conf").open(encoding="utf-8") as file:
        config.read_file(file)
    login = config["supervisorctl"]
    transport = SupervisorTransport(login["username"], login["password"], login["serverurl"])
    # The address is never used: the transport has the socket.
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport).supervisor


def ask_supervisord(run_dir: Path) -> tuple[list[dict[str, Any]], str]:
    """Ask supervisord over its socket: (processes, why it does not answer)."""
    import http.client
    import xmlrpc.client

    try:
        found = supervisor(run_dir).getAllProcessInfo()
    except FileNotFoundError:
        if held := read_json(run_dir / "held.json").get("reason"):
            return [], f"this pod could not start: {held}"
        return [], f"no pod was booted here: {run_dir}/supervisord.conf is missing"
    except (OSError, http.client.HTTPException, xmlrpc.client.Error, configparser.Error, KeyError) as error:
        return [], f"supervisord does not answer on {run_dir}/supervisor.sock ({error})"
    keys = ("name", "group", "statename", "pid", "exitstatus", "start", "now")
    return [{key: info[key] for key in keys} for info in found], ""


def missing_nodes(classes: Mapping[str, Any], expected: Iterable[str]) -> list[str]:
    """Name the expected custom nodes of which /object_info shows no class."""
    modules = {str(info.get("python_module", "")) for info in classes.values() if isinstance(info, dict)}
    loaded = {module.removeprefix("custom_nodes.").partition(".")[0] for module in modules}
    return [name for name in expected if name.removesuffix(".py") not in loaded]


def readiness(boot: Mapping[str, Any], pid: int, before: Readiness | None = None, timeout: float = 5) -> Readiness:
    """Ask ComfyUI; /object_info is large, so a process that was ready once is only asked whether it answers."""
    url = str(boot.get("comfyui_url", ""))
    try:
        _get(f"{url}/system_stats", timeout)
        if before is not None and before.ready and before.pid == pid:
            return before
        missing = missing_nodes(_get(f"{url}/object_info", timeout * 6), boot.get("expected_nodes", []))
    except (OSError, ValueError) as error:
        return Readiness(False, f"ComfyUI does not answer at {url} ({getattr(error, 'reason', error)})", pid)
    if missing:
        return Readiness(False, f"ComfyUI answers without the nodes {', '.join(missing)}: see its log", pid)
    return Readiness(True, "", pid)


def _get(url: str, timeout: float) -> Any:
    # No proxy: this is loopback, whatever http_proxy says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout) as answer:
        return json.load(answer)


def since_start(boot: Mapping[str, Any]) -> float:
    """Give the seconds since the entrypoint's start."""
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - float(boot.get("started_boottime", 0)), 3)
