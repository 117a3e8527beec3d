"""`hearmeman-pod template`: a RunPod template, so that others deploy with a click."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hearmeman_pod import schema
from hearmeman_pod.planned import planned
from hearmeman_pod.world import World


def template(args: argparse.Namespace, world: World) -> int:
    """Create the template, or update the one of this name."""
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
    if mine:
        found = api.change("PATCH", f"/v2/templates/{mine['id']}", "update the template", body)
    else:
        found = api.change("POST", "/v2/templates", "create the template", body)
    words = "updated" if mine else "created"
    print(json.dumps(found, indent=1) if args.json else f"template {found['name']} ({found['id']}) is {words}")
    return 0
