"""`hearmeman logs [NAME...]`: what the pod's processes wrote, merged by time."""

from __future__ import annotations

import argparse
import calendar
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hearmeman import terminal
from hearmeman.errors import HearmemanError, UsageError
from hearmeman.image import RUN_DIR
from hearmeman.status import logs

LINES = 200
FOLLOW_SECONDS = 0.25
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d)?", re.IGNORECASE)
_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_WRONG = re.compile(r"\b(error|failed|died|traceback|killed|exception)\b", re.IGNORECASE)


class NoLogsError(HearmemanError):
    """No pod has written logs here."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman logs`."""
    parser.add_argument("name", nargs="*", help="process, as `hearmeman status` names it; all without one")
    parser.add_argument("-f", "--follow", action="store_true", help="keep following new lines")
    parser.add_argument(
        "--since", type=moment, metavar="WHEN", help="only later lines: 10min, 2h, 1d, 2026-01-31T12:00:00Z"
    )
    parser.add_argument(
        "-n", "--lines", type=int, metavar="N", help=f"the last N lines (all with --since, else {LINES})"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line: at (Unix seconds), name, text"
    )
    parser.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")


def moment(text: str, now: float | None = None) -> float:
    """Read when: a span before now, or a time in UTC.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    now = time.time() if now is None else now
    if found := _SPAN.fullmatch(text.strip()):
        return now - float(found[1]) * _UNITS[(found[2] or "s").lower()]
    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"):
        try:
            return calendar.timegm(time.strptime(text.strip().removesuffix("Z"), form))
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a time: give a span such as 10min, 2h, 1d, or 2026-01-31T12:00:00Z"
    )


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the lines; with --follow until Ctrl-C, which ends with 0.

    Raises:
        NoLogsError: there are none here.
        UsageError: there is no such process.
    """
    folder: Path = args.run_dir / "logs"
    there = logs.names(folder)
    if not there:
        raise NoLogsError(
            f"there are no logs in {folder}/: run this in the pod; `hearmeman boot` starts what writes them"
        )
    wanted: Sequence[str] = args.name or there
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise UsageError(f"no log of {', '.join(unknown)}; there are {', '.join(there)}")
    most = args.lines if args.lines is not None else None if args.since is not None else LINES
    follower = logs.Follower(folder, args.name) if args.follow else None
    size = max(map(len, wanted))
    for line in logs.read(folder, wanted, args.since or 0.0, most):
        print(shown(line, args.json, size))
    try:
        while follower is not None:
            for line in follower.look():
                print(shown(line, args.json, size))
            sys.stdout.flush()
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        pass
    return 0


def shown(line: logs.Line, as_json: bool, size: int) -> str:
    """Render one line; `size` is the longest name's."""
    if as_json:
        return json.dumps({"at": round(line.at, 3), "name": line.name, "text": line.text})
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(line.at)) if line.at else "-".ljust(19)
    color = terminal.NAME_COLORS[sum(line.name.encode()) % len(terminal.NAME_COLORS)]
    text = terminal.colored(line.text, "red") if _WRONG.search(line.text) else line.text
    return f"{terminal.colored(at, 'dim')} {terminal.colored(line.name.ljust(size), color)} {text}"
