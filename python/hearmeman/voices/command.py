"""`hearmeman voices`: lists, adds and removes the voices that the pod's voice APIs speak with."""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3

from hearmeman import terminal
from hearmeman.errors import HearmemanError, PassingError, UsageError
from hearmeman.image import RUN_DIR
from hearmeman.state_file import read_json

MOST_BYTES = 50_000_000
"""The most bytes in a recording that the APIs accept."""
_PATIENCE = urllib3.Timeout(connect=5, read=120)


class VoicesError(HearmemanError):
    """A voice could not be listed, added or removed."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hearmeman voices`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the image's voices and your own")
    adding = actions.add_parser("add", help="add a recording of a voice, 6 to 20 seconds, in any usual format")
    adding.add_argument("file", type=Path, metavar="FILE", help="the recording")
    adding.add_argument("--name", help="its name (default: the file's)")
    adding.add_argument("--language", help="its language, such as en, unless a request names another")
    adding.add_argument("--replace", action="store_true", help="replace your voice of that name")
    removing = actions.add_parser("remove", help="remove one of your own voices")
    removing.add_argument("name", metavar="NAME", help="its name")
    for action in (listing, adding, removing):
        action.add_argument("--json", action="store_true", help="print JSON")
        action.add_argument("--run-dir", type=Path, default=RUN_DIR, help="boot's run folder")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Do it through a voice API of this pod: it decodes a recording before saving it, and both APIs share a folder.

    Raises:
        UsageError: the file is not there or too large.
        VoicesError: no voice API runs here, or it refuses.
        PassingError: it does not answer now.
    """
    api = _api(args.run_dir)
    if args.action == "list":
        return _list(_ask(api, "GET", "/voices"), args.json)
    answer = _add(api, args) if args.action == "add" else _ask(api, "DELETE", f"/voices/{quote(args.name, safe='')}")
    print(json.dumps(answer) if args.json else answer["message"])
    return 0


def _api(run_dir: Path) -> str:
    found: Mapping[str, str] = read_json(run_dir / "boot.json").get("voices", {})
    if not found:
        raise VoicesError(
            "no voice API runs in this pod: set ENABLE_XTTS=true or ENABLE_CHATTERBOX=true (`hearmeman status` "
            "says more)"
        )
    return next(iter(found.values()))


def _add(api: str, args: argparse.Namespace) -> Any:
    try:
        size = args.file.stat().st_size
        if size > MOST_BYTES:
            raise UsageError(
                f"{args.file} has {size / 1e6:.0f} MB, and the limit is {MOST_BYTES // 10**6} MB: cut it to 20 s"
            )
        content = args.file.read_bytes()
    except OSError as error:
        raise UsageError(f"{args.file} cannot be read: {error.strerror}") from error
    # As the API spells it, so that the voice to replace is found.
    name = unicodedata.normalize("NFC", args.name or args.file.stem).strip()
    # The file's name does not matter there, and a header cannot hold every byte.
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", args.file.name)[:100]
    fields: dict[str, Any] = {"voice_name": name, "voice_file": (plain, content, "application/octet-stream")}
    if args.language:
        fields["language"] = args.language
    if args.replace and any(voice["name"] == name for voice in _ask(api, "GET", "/voices")["voices"]):
        return _ask(api, "PUT", f"/voices/{quote(name, safe='')}", fields)
    return _ask(api, "POST", "/voices", fields)


def _list(answer: Mapping[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps(answer))
        return 0
    rows = []
    for voice in answer["voices"]:
        kind = "the image's" if voice["builtin"] else "yours"
        notes = [voice["language"] or "any language", kind]
        if voice["aliases"]:
            notes.append(f"also {', '.join(voice['aliases'])}")
        rows.append((voice["name"], "; ".join(notes)))
    print("\n".join(terminal.table(rows)))
    return 0


def _ask(api: str, method: str, path: str, fields: Mapping[str, Any] | None = None) -> Any:
    try:
        answer = urllib3.request(method, api + path, fields=fields, timeout=_PATIENCE, retries=False, redirect=False)
    except urllib3.exceptions.HTTPError as error:
        raise PassingError(
            f"the voice API at {api} does not answer ({error}): it may be starting; `hearmeman logs` shows what "
            "it is doing"
        ) from error
    try:
        found = json.loads(answer.data)
    except ValueError:
        found = {}
    if answer.status < 300:
        return found
    message = found.get("error", {}).get("message") if isinstance(found.get("error"), dict) else None
    raise VoicesError(message or f"the voice API at {api} answered {answer.status}")
