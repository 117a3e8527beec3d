"""What tests of the boot plan share: an image, a machine, and plans made from variables."""

from __future__ import annotations

import dataclasses
from typing import Any

from hearmeman import settings
from hearmeman.boot import plan
from hearmeman.boot.facts import Listen, Machine, Place
from hearmeman.image import Image
from hearmeman.tune.machine import Memory
from hearmeman.tune.tuner import Tuning

SYNC = {
    "ENABLE_R2_SYNC": "true",
    "R2_ENDPOINT": "http://127.0.0.1:9",
    "R2_ACCESS_KEY_ID": "key-id-secret",
    "R2_SECRET_ACCESS_KEY": "key-secret",
}
SECRET = {**SYNC, "HF_TOKEN": "hf-secret", "RUNPOD_API_KEY": "rp-secret", "COPY_OF_IT": "x hf-secret y"}
IMAGE = Image("smoke", "abc", "/opt/python", "/opt/comfyui/main.py", "12.8")
TUNING = Tuning("consumer", "cpu", ("--cpu",), {"memory_mode": "no GPU found"}, ())


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGvMTvBrQcAwkNzBdSqrVfLoHsTBeSDvVDjLfmZQmrJK me"


def machine(**changes: Any) -> Machine:
    """A machine on which a pod can run, but for `changes`."""
    place = Place("VOLUME_DIR", "/workspace", 10**12, "")
    listen = Listen("0.0.0.0", 8188, "")
    return dataclasses.replace(Machine(True, (place,), (listen,), Memory((), "none", None, 0), (), ()), **changes)


def planned(
    environ: dict[str, str], here: Machine | None = None, image: Image = IMAGE, **changes: Any
) -> plan.BootPlan:
    """Plan a pod from variables, on a machine that has what it needs but for `changes`."""
    here = here or machine(**changes)
    return plan.make_plan(settings.load(environ), here, image, TUNING, environ, "/run/hearmeman", "python")
