"""The same plan for the tools that people already use: runpodctl's command line, SkyPilot's and dstack's files; pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from hearmeman_pod.errors import UsageError

Body = Mapping[str, Any]
_SKYPILOT_GPUS = {
    "NVIDIA A100 80GB PCIe": "A100-80GB",
    "NVIDIA A100-SXM4-80GB": "A100-80GB-SXM",
    "NVIDIA H100 80GB HBM3": "H100-SXM",
    "NVIDIA H100 NVL": "H100-NVL",
    "NVIDIA H100 PCIe": "H100",
    "NVIDIA H200": "H200-SXM",
    "NVIDIA RTX 4000 SFF Ada Generation": "RTX4000-Ada-SFF",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "RTXPRO6000-WK",
}
"""Names that follow no rule. Source: SkyPilot 0.14.1, sky/provision/runpod/utils.py."""
_SKYPILOT_SSH_PORT = "2222"
"""SkyPilot starts an SSH server of its own at 22."""


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
    """A SkyPilot task; JSON is YAML. Secrets are for `sky launch --secret NAME`.

    Raises:
        UsageError: SkyPilot has no words for a part of the plan.
    """
    _refuse_unsaid(body, "skypilot")
    places = body.get("dataCenterIds", [])
    task = {
        "name": _slug(body["name"]),
        "resources": {
            "infra": f"runpod/*/{places[0]}" if places else "runpod",
            "accelerators": {_skypilot_gpu(body["gpu"]["id"]): body["gpu"]["count"]},
            "image_id": f"docker:{body['image']}",
            "disk_size": body["disk"] + _volume_gb(body),
            "ports": [int(port.partition("/")[0]) for port in body["ports"] if port.endswith("/http")],
        },
        "envs": {
            "SSH_PORT": _SKYPILOT_SSH_PORT,
            **{name: value for name, value in body["env"].items() if not _is_secret(value)},
        },
        "secrets": {name: None for name, value in body["env"].items() if _is_secret(value)},
        "run": "hearmeman boot",
    }
    return json.dumps(task, indent=2)


def dstack(body: Body) -> str:
    """A dstack task; JSON is YAML. Secrets are dstack's own: `dstack secret set NAME VALUE`.

    Raises:
        UsageError: dstack has no words for a part of the plan.
    """
    _refuse_unsaid(body, "dstack")
    task = {
        "type": "task",
        "name": _slug(body["name"]),
        "image": body["image"],
        "backends": ["runpod"],
        **({"regions": body["dataCenterIds"]} if body.get("dataCenterIds") else {}),
        "commands": ["hearmeman boot"],
        "ports": [int(port.partition("/")[0]) for port in body["ports"] if port.endswith("/http")],
        "env": [
            f"{name}=${{{{ secrets.{name.lower()} }}}}" if _is_secret(value) else f"{name}={value}"
            for name, value in body["env"].items()
        ],
        "resources": {
            "gpu": {"name": _dstack_gpu(body["gpu"]["id"]), "count": body["gpu"]["count"]},
            "disk": f"{body['disk'] + _volume_gb(body)}GB..",
        },
    }
    return json.dumps(task, indent=2)


FORMATS: dict[str, Callable[[Body], str]] = {"runpodctl": runpodctl, "skypilot": skypilot, "dstack": dstack}


def _is_secret(value: str) -> bool:
    return value.startswith("{{ RUNPOD_SECRET_")


def _volume_gb(body: Body) -> int:
    return int(body.get("mounts", {}).get("persistent", {}).get("size", 0))


def _refuse_unsaid(body: Body, tool: str) -> None:
    ways = {"skypilot": "SkyPilot's own `volumes`", "dstack": "dstack's own `volumes`"}
    if body.get("mounts", {}).get("network"):
        raise UsageError(f"--as {tool} cannot name a RunPod network volume: use {ways[tool]}, without --network-volume")
    if body.get("registry"):
        raise UsageError(
            f"--as {tool} cannot name RunPod's registry credentials: give {tool} its own, without --registry"
        )


def _slug(name: str) -> str:
    """A name as both take it: lower case, digits and dashes, a letter first."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (text if text[:1].isalpha() else f"hearmeman-{text}".rstrip("-"))[:40].rstrip("-")


def _skypilot_gpu(gpu: str) -> str:
    """NVIDIA GeForce RTX 4090 -> RTX4090, NVIDIA RTX 6000 Ada Generation -> RTX6000-Ada."""
    if gpu in _SKYPILOT_GPUS:
        return _SKYPILOT_GPUS[gpu]
    name = re.sub(r" (Blackwell.*|Generation)$", "", re.sub(r"^NVIDIA (GeForce )?", "", gpu))
    return name.replace(" Ada", "-Ada").replace(" ", "")


def _dstack_gpu(gpu: str) -> str:
    """NVIDIA RTX A6000 -> A6000, NVIDIA A100-SXM4-80GB -> A100. Source: gpuhunt 0.1.34, providers/runpod.py."""
    name = re.sub(r"^NVIDIA (GeForce )?(RTX (?=A))?", "", gpu)
    if name.startswith(("A", "B", "H", "L")):
        first, *rest = re.split(r"[ -]", name)
        return first + ("NVL" if "NVL" in rest else "")
    return re.sub(r" (Blackwell.*|Generation)$", "", name).replace(" ", "")
