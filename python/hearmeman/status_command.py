"""`hearmeman status`: what runs, what was fetched, what was uploaded."""

from __future__ import annotations

import argparse
import configparser
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman.boot.command import RUN_DIR

STATES = ("boot", "models", "sync")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman status`."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the pod's state; 1 when supervisord does not answer."""
    from hearmeman.settings import load

    state_path = Path(load(environ).state_path)
    states = {name: _read(state_path / f"{name}.json") for name in STATES}
    processes, problem = ask_supervisord(args.run_dir)
    for process in processes:
        process["keep"] = _read(args.run_dir / "keep" / f"{process['name']}.json")
    if args.json:
        print(json.dumps({"processes": processes, "problem": problem, **states}, indent=2))
    else:
        print("\n".join(lines(states, processes, problem, state_path)))
    return 1 if problem else 0


def ask_supervisord(run_dir: Path) -> tuple[list[dict[str, Any]], str]:
    """Ask supervisord over its socket: (processes, why it does not answer)."""
    import http.client
    import xmlrpc.client

    from supervisor.xmlrpc import SupervisorTransport

    config = configparser.RawConfigParser()
    try:
        if not config.read(run_dir / "supervisord.conf", encoding="utf-8"):
            return [], f"no pod was booted here: {run_dir}/supervisord.conf is missing"
        login = config["supervisorctl"]
        transport = SupervisorTransport(login["username"], login["password"], login["serverurl"])
        # The address is never used: the transport has the socket.
        proxy: Any = xmlrpc.client.ServerProxy("http://127.0.0.1", transport)
        found = proxy.supervisor.getAllProcessInfo()
    except (OSError, http.client.HTTPException, xmlrpc.client.Error, configparser.Error, KeyError) as error:
        return [], f"supervisord does not answer on {run_dir}/supervisor.sock ({error})"
    keys = ("name", "statename", "pid", "exitstatus", "start", "now")
    return [{key: info[key] for key in keys} for info in found], ""


def lines(states: Mapping[str, Any], processes: list[dict[str, Any]], problem: str, state_path: Path) -> list[str]:
    """Render the state for a person."""
    shown = []
    boot = states["boot"]
    if boot:
        image, tuning = boot.get("image", {}), boot.get("tuning", {})
        shown.append(f"image    tier {image.get('tier')}, ComfyUI {str(image.get('comfyui_rev'))[:12]}")
        shown.append(
            f"memory   {tuning.get('tier')}, {tuning.get('memory_mode')}, {' '.join(tuning.get('arguments', []))}"
        )
        phases = ", ".join(f"{name} {seconds} s" for name, seconds in boot.get("phases", {}).items())
        shown.append(f"boot     {phases}")
    for process in processes:
        keep = process["keep"] or {}
        if keep.get("done"):
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
        shown.append(f"{process['name']:8} {what}{again}{last}")
    for name in ("models", "sync"):
        content = states[name]
        simple = {k: v for k, v in content.items() if isinstance(v, str | int | float | bool)} if content else {}
        text = " ".join(f"{key}={value}" for key, value in simple.items())
        shown.append(f"{name + '.json':12} {text or 'nothing yet'} ({state_path}/{name}.json)")
    return shown + ([f"problem  {problem}"] if problem else [])


def _read(path: Path) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
