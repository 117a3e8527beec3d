"""`hearmeman-pod template`: a RunPod template, so that others deploy with a click."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hearmeman.settings import GROUPS, RUNPOD_SECRETS, Settings
from hearmeman.settings.declare import extra_of
from hearmeman.state_file import write_named
from hearmeman_pod import schema
from hearmeman_pod.api import Api
from hearmeman_pod.errors import UsageError
from hearmeman_pod.gpus import cuda_from
from hearmeman_pod.planned import planned
from hearmeman_pod.say import note, say
from hearmeman_pod.world import World

DEPLOY = "https://console.runpod.io/deploy?template="
"""RunPod's page that makes a pod of a template."""


def template(args: argparse.Namespace, world: World) -> int:
    """Create the template, or update the one of this name."""
    if args.json and args.readme == "-":
        raise UsageError("--json and --readme - both want standard output: give --readme a file")
    if args.network_volume:
        raise UsageError(
            "a template holds no network volume: who deploys it chooses one, so leave out --network-volume"
        )
    api = world.api()
    made = planned(args, world, api)
    for text in [*made.notes, *_left_out(args)]:
        note(text)
    known = api.get("/v2/templates", "list the templates")["templates"]
    mine = next((item for item in known if item["name"] == made.body["name"]), None)
    body = template_body(made.body, args.public, _cuda(api, made.body["gpu"]), update=mine is not None)
    if mine and mine.get("mounts") and "mounts" not in body:
        note("RunPod keeps the volume that the template had: give another --name for one without")
    about = readme(body["name"], body["image"], body.get("env", {})) if args.readme else ""
    if args.readme not in (None, "", "-"):
        _write(args.readme, about)
    if mine:
        found = api.change("PATCH", f"/v2/templates/{mine['id']}", "update the template", body)
    else:
        found = api.change("POST", "/v2/templates", "create the template", body)
    words = "updated" if mine else "created"
    line = f"template {found['name']} ({found['id']}) is {words}, its link is {DEPLOY}{found['id']}"
    if args.readme == "-":
        say(line)
    else:
        print(json.dumps(found, indent=1) if args.json else line)
    if args.readme == "-":
        sys.stdout.write(about)
    return 0


def template_body(pod: Mapping[str, Any], public: bool, cuda: Sequence[str], update: bool) -> dict[str, Any]:
    """The request for a template of pods like the one that `pod` asks for; pure.

    Raises:
        UsageError: RunPod would refuse it.
    """
    kept = ("name", "image", "disk", "ports", "env", "startSsh", "registry")
    body = {key: pod[key] for key in kept if key in pod}
    body |= {"public": public, "startJupyter": False, "allowedCudaVersions": [*cuda]}
    if "persistent" in pod.get("mounts", {}):
        body["mounts"] = pod["mounts"]
    if update:
        # What an update leaves out stays as it was.
        body = {"registry": None, **body}
    schema.check("UpdateTemplateRequest" if update else "CreateTemplateRequest", body)
    return body


def _left_out(args: argparse.Namespace) -> list[str]:
    """What was asked for and no template can hold."""
    given = {
        "--cloud": args.cloud != "secure",
        "--datacenter": args.datacenter,
        "--gpu-count": args.gpu_count > 1,
        "--max-price": args.max_price,
    }
    names = [name for name, wanted in given.items() if wanted]
    return [f"a template holds no {' or '.join(names)}: who deploys it chooses"] if names else []


def _cuda(api: Api, gpu: Mapping[str, Any]) -> list[str]:
    """The CUDA versions that the template allows: a list, since RunPod's templates know no lowest one."""
    floor = gpu.get("minCudaVersion", "")
    if not floor:
        return []
    entries = api.get("/v2/catalog/gpus", "list the CUDA versions", include="AVAILABILITY", product="POD")["gpus"]
    found = cuda_from(entries, floor)
    if not found:
        note(f"RunPod names no CUDA version from {floor} on now, so the template allows any: run this again later")
    return found


def readme(name: str, image: str, env: Mapping[str, str]) -> str:
    """Write the README, in Markdown, to paste into RunPod's console: its API takes none.

    `env` is the template's own; every variable is listed, and a secret by the reference that RunPod replaces.
    """
    lines = [
        f"# {name}",
        "",
        f"Image: `{image}`",
        "",
        "Create each secret of the column Here in RunPod's console, under the name in its reference.",
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
    try:
        write_named(Path(where), text)
    except OSError as error:
        raise UsageError(
            f"the README cannot be written to {where}: {error.strerror}; nothing was changed in the account"
        ) from error
