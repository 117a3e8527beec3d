"""What is known of the running pod: phases, memory, models, sync, processes, and whether ComfyUI is ready."""

from __future__ import annotations

import configparser
import json
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearmeman.state_file import read_json

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


def status(run_dir: Path) -> dict[str, Any]:
    """Collect everything as one JSON object; `problem` says why supervisord does not answer."""
    boot = read_json(run_dir / "boot.json")
    state = Path(boot.get("state_dir") or "/nonexistent")
    processes, problem = ask_supervisord(run_dir)
    for process in processes:
        process["keep"] = read_json(run_dir / "keep" / f"{process['name']}.json")
        process["what"] = words(process)
    phases = dict(boot.get("phases", {}))
    for process in processes:
        seconds = process["keep"].get("exec_seconds")
        if process["name"] == "comfyui" and seconds is not None:
            phases["comfyui_exec"] = seconds
    door = read_json(run_dir / "gate" / "door.json")
    phases.update(door.get("phases", {}))
    return {
        "problem": problem,
        "ready": door.get("ready", False),
        "ready_why": door.get("why", "" if door else "not looked at yet"),
        "phases": phases,
        "boot": boot,
        **{name: read_json(state / f"{name}.json") or None for name in STATES},
        "processes": processes,
        "not_working": boot.get("failed", {}),
    }


def words(process: Mapping[str, Any]) -> str:
    """Say in a few words what a process does."""
    keep = process["keep"]
    if process["statename"] == "STOPPED":
        what = "stopped by hand"
    elif keep.get("done"):
        what = f"ended with {keep.get('exit')}"
    elif keep.get("pid"):
        what = f"running, pid {keep['pid']}, up {process['now'] - process['start']} s"
    elif keep.get("starts") and process["statename"] == "RUNNING":
        what = "died, waits to be started again"
    elif process["statename"] == "RUNNING":
        what = "not started yet"
    else:
        what = f"not running ({process['statename'].lower()})"
    last = f", last exit {keep['exit']}" if keep.get("exit") is not None and not keep.get("done") else ""
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
