"""`hearmeman restart NAME...`: stop processes of the pod and start them again."""

from __future__ import annotations

import argparse
import configparser
from collections.abc import Mapping, Sequence
from pathlib import Path

from hearmeman.errors import HearmemanError, UsageError
from hearmeman.image import RUN_DIR


class RestartError(HearmemanError):
    """A process could not be restarted."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman restart`."""
    parser.add_argument("name", nargs="+", help="process, as `hearmeman status` names it")
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Restart one after another.

    Raises:
        UsageError, RestartError: as `restart`.
    """
    for name in restart(args.run_dir, args.name):
        print(f"{name}: restarted")
    return 0


def restart(run_dir: Path, names: Sequence[str]) -> list[str]:
    """Stop and start processes, one after another; the answer names them.

    Raises:
        UsageError: there is no such process; none was touched.
        RestartError: supervisord does not answer or refuses.
    """
    import http.client
    import xmlrpc.client

    from hearmeman.status import collect

    processes, problem = collect.ask_supervisord(run_dir)
    if problem:
        raise RestartError(f"{problem}: run this in the pod, as root")
    groups = {process["name"]: process["group"] for process in processes}
    unknown = [name for name in names if name not in groups]
    if unknown:
        raise UsageError(f"no process {', '.join(unknown)} in this pod; there are {', '.join(sorted(groups))}")
    done: list[str] = []
    try:
        supervisor = collect.supervisor(run_dir)
        for name in names:
            full = f"{groups[name]}:{name}"
            if supervisor.getProcessInfo(full)["statename"] in ("RUNNING", "STARTING", "STOPPING"):
                supervisor.stopProcess(full, True)
            supervisor.startProcess(full, True)
            done.append(name)
    except (OSError, http.client.HTTPException, xmlrpc.client.Error, configparser.Error) as error:
        before = f"; {', '.join(done)} were" if done else ""
        raise RestartError(f"{name} was not restarted: {error}{before}; `hearmeman status` shows its state") from error
    return done
