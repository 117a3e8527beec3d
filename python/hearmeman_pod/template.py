"""`hearmeman-pod template`: a RunPod template, so that others deploy with a click."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearmeman.settings import GROUPS, RUNPOD_SECRETS, Settings
from hearmeman.settings.declare import extra_of
from hearmeman_pod import schema
from hearmeman_pod.errors import UsageError
from hearmeman_pod.planned import planned
from hearmeman_pod.say import say
from hearmeman_pod.world import World


def template(args: argparse.Namespace, world: World) -> int:
    """Create the template, or update the one of this name."""
    if args.json and args.readme == "-":
        raise UsageError("--json and --readme - both want standard output: give --readme a file")
    api = world.api()
    made = planned(args, world, api)
    kept = ("name", "image", "disk", "ports", "env", "startSsh", "registry")
    body: dict[str, Any] = {key: made.body[key] for key in kept if key in made.body}
    body |= {"public": args.public, "startJupyter": False}
    if "persistent" in made.body.get("mounts", {}):
        body["mounts"] = made.body["mounts"]
    schema.check("CreateTemplateRequest", body)
    known = api.get("/v2/templates", "list the templates")["templates"]
    mine = next((item for item in known if item["name"] == body["name"]), None)
    about = readme(body["name"], body["image"], body.get("env", {})) if args.readme else ""
    if args.readme not in (None, "", "-"):
        _write(args.readme, about)
    if mine:
        found = api.change("PATCH", f"/v2/templates/{mine['id']}", "update the template", body)
    else:
        found = api.change("POST", "/v2/templates", "create the template", body)
    words = "updated" if mine else "created"
    line = f"template {found['name']} ({found['id']}) is {words}"
    if args.readme == "-":
        say(line)
    else:
        print(json.dumps(found, indent=1) if args.json else line)
    if args.readme == "-":
        sys.stdout.write(about)
    return 0


def readme(name: str, image: str, env: Mapping[str, str]) -> str:
    """Write the README, in Markdown, to paste into RunPod's console: its API takes none.

    `env` is the template's own; every variable is listed, and a secret by the reference that RunPod replaces.
    """
    lines = [
        f"# {name}",
        "",
        f"Image: `{image}`",
        "",
        "Create each secret in RunPod's console, under the name in its reference.",
    ]
    for heading, names in GROUPS:
        rows = [
            _row(variable, env) for variable in names if not extra_of(Settings.model_fields[variable.lower()])["given"]
        ]
        if rows:
            lines += ["", f"## {heading}", "", "| Variable | Here | Meaning |", "| --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def _row(variable: str, env: Mapping[str, str]) -> str:
    secret = RUNPOD_SECRETS.get(variable)
    here = f"`{env[variable]}`" if variable in env else ""
    mark = f" Secret: `{{{{ RUNPOD_SECRET_{secret} }}}}`." if secret else ""
    cells = (
        f"`{variable}`",
        here,
        (Settings.model_fields[variable.lower()].description or "").rstrip(".") + "." + mark,
    )
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _write(where: str, text: str) -> None:
    beside = Path(f"{where}.part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(where)
    except OSError as error:
        raise UsageError(
            f"the README cannot be written to {where}: {error.strerror}; nothing was changed in the account"
        ) from error
