"""A usual handler of RunPod's SDK, as images for ComfyUI bring it: it waits for ComfyUI in the job, and polls /history."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

import runpod

COMFYUI = os.environ["COMFYUI_URL"]
POLL_SECONDS = 0.25
"""What such handlers have as their default."""


def ask(path: str, body: object = None) -> Any:
    """Ask ComfyUI; JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{COMFYUI}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job."""
    while True:
        try:
            ask("/system_stats")
            break
        except urllib.error.URLError:
            time.sleep(0.05)
    prompt = ask("/prompt", {"prompt": job["input"]["workflow"]})["prompt_id"]
    while prompt not in (history := ask(f"/history/{prompt}")):
        time.sleep(POLL_SECONDS)
    images = []
    for node in history[prompt]["outputs"].values():
        for image in node["images"]:
            query = urlencode({name: image[name] for name in ("filename", "subfolder", "type")})
            with urllib.request.urlopen(f"{COMFYUI}/view?{query}", timeout=30) as answer:
                data = base64.b64encode(answer.read()).decode()
            images.append({"filename": image["filename"], "type": "base64", "data": data})
    return {"images": images}


runpod.serverless.start({"handler": handler})
