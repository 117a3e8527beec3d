"""The same plan for the tools that people already use: runpodctl's command line, SkyPilot's and dstack's files; pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

Body = Mapping[str, Any]


def runpodctl(body: Body) -> str:
    """A command for runpodctl 2.7 and later."""
    words = ["runpodctl", "pod", "create", "--name", body["name"], "--image", body["image"]]
    words += ["--gpu-id", body["gpu"]["id"], "--gpu-count", str(body["gpu"]["count"]), "--cloud-type", body["cloud"]]
    words += ["--container-disk-in-gb", str(body["disk"])]
    mounts = body.get("mounts", {})
    if "persistent" in mounts:
        words += [
            "--volume-in-gb",
            str(mounts["persistent"]["size"]),
            "--volume-mount-path",
            mounts["persistent"]["path"],
        ]
    for mount in mounts.get("network", []):
        words += ["--network-volume-id", mount["volumeId"], "--volume-mount-path", mount["path"]]
    words += ["--ports", ",".join(body["ports"]), "--env", json.dumps(body["env"], sort_keys=True)]
    if "minCudaVersion" in body["gpu"]:
        words += ["--min-cuda-version", body["gpu"]["minCudaVersion"]]
    if body.get("dataCenterIds"):
        words += ["--data-center-ids", ",".join(body["dataCenterIds"])]
    if body.get("registry"):
        words += ["--registry-auth-id", body["registry"]]
    return shlex.join(words)


def skypilot(body: Body) -> str:
    """A SkyPilot task; JSON is YAML. Secrets are for `sky launch --secret NAME`."""
    task = {
        "name": body["name"],
        "resources": {
            "infra": "runpod",
            "accelerators": {_short(body["gpu"]["id"]): body["gpu"]["count"]},
            "image_id": f"docker:{body['image']}",
            "disk_size": body["disk"] + _volume_gb(body),
            "ports": [int(port.partition("/")[0]) for port in body["ports"] if port.endswith("/http")],
        },
        "envs": {name: value for name, value in body["env"].items() if not _is_secret(value)},
        "secrets": {name: None for name, value in body["env"].items() if _is_secret(value)},
        "run": "hearmeman boot",
    }
    return json.dumps(task, indent=2)


def dstack(body: Body) -> str:
    """A dstack task; JSON is YAML. Secrets are dstack's own: `dstack secret set NAME VALUE`."""
    task = {
        "type": "task",
        "name": body["name"],
        "image": body["image"],
        "backends": ["runpod"],
        "commands": ["hearmeman boot"],
        "ports": [int(port.partition("/")[0]) for port in body["ports"] if port.endswith("/http")],
        "env": [
            f"{name}=${{{{ secrets.{name.lower()} }}}}" if _is_secret(value) else f"{name}={value}"
            for name, value in body["env"].items()
        ],
        "resources": {
            "gpu": {"name": _short(body["gpu"]["id"]), "count": body["gpu"]["count"]},
            "disk": f"{body['disk'] + _volume_gb(body)}GB..",
        },
    }
    return json.dumps(task, indent=2)


FORMATS: dict[str, Callable[[Body], str]] = {"runpodctl": runpodctl, "skypilot": skypilot, "dstack": dstack}


def _is_secret(value: str) -> bool:
    return value.startswith("{{ RUNPOD_SECRET_")


def _volume_gb(body: Body) -> int:
    return int(body.get("mounts", {}).get("persistent", {}).get("size", 0))


def _short(gpu: str) -> str:
    """NVIDIA GeForce RTX 4090 -> RTX4090, NVIDIA A100-SXM4-80GB -> A100-80GB-SXM, as these tools spell them."""
    if gpu == "NVIDIA A100-SXM4-80GB":
        return "A100-80GB-SXM"
    if gpu == "NVIDIA A100 80GB PCIe":
        return "A100-80GB"
    name = re.sub(r"^NVIDIA (GeForce )?", "", gpu)
    if name.startswith("H100"):
        return "H100" if "PCIe" in name else "H100-SXM"
    return re.sub(r" (80GB.*|Generation)$", "", name).replace(" Ada", "-Ada").replace(" ", "")
