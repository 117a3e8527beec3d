"""The worker's settings, from the pod's variables and worker-comfyui's; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from hearmeman.errors import UsageError
from hearmeman.image import WORKFLOWS_DIR
from hearmeman.settings import load
from hearmeman.worker.request import Bucket

BUCKET_VARIABLES = ("BUCKET_ENDPOINT_URL", "BUCKET_NAME", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY")
"""The variables that worker-comfyui reads: with them every output is uploaded."""


@dataclass(frozen=True)
class Config:
    """The worker's settings."""

    comfyui: str
    """Where ComfyUI answers inside the pod."""
    workflows: Path
    """Folder of the image's workflows."""
    environ: Mapping[str, str] = field(repr=False)
    """The process's environment: the source of defaults for workflows' choices."""
    input_bytes: int = 200_000_000
    """The most bytes in a job's file."""
    input_seconds: float = 120
    """How long fetching a file may take."""
    private_urls: bool = False
    """Whether jobs may name addresses in private networks."""
    always: Bucket | None = None
    """The bucket for every output."""
    overflow: Bucket | None = None
    """The bucket for outputs that do not fit into an answer."""
    prefix: str = "outputs"
    """Prefix of an uploaded object's key."""
    public: str = ""
    """Public address of the pod's bucket; empty means signed addresses."""
    comfy_org_key: str = field(default="", repr=False)
    """The key for nodes that call Comfy.org, for jobs without one."""
    warmup: str = ""
    """The workflow to run before the first job; empty means none."""


def read(environ: Mapping[str, str], workflows: Path = WORKFLOWS_DIR) -> Config:
    """Read the variables.

    Raises:
        UsageError: one of them cannot be used.
    """
    settings = load(environ)
    key, secret = settings.r2_access_key_id, settings.r2_secret_access_key
    own = None
    if settings.r2_endpoint and key is not None and secret is not None:
        own = Bucket(settings.r2_endpoint, settings.r2_bucket, key.get_secret_value(), secret.get_secret_value())
    return Config(
        comfyui=environ.get("COMFYUI_URL") or f"http://127.0.0.1:{settings.comfyui_port}",
        workflows=workflows,
        environ=environ,
        input_bytes=int(settings.worker_input_mb * 1e6),
        input_seconds=settings.worker_input_seconds,
        private_urls=settings.worker_private_urls,
        always=_theirs(environ),
        overflow=own,
        prefix=settings.r2_prefix,
        public=settings.worker_public_url,
        comfy_org_key=environ.get("COMFY_ORG_API_KEY", ""),
        warmup=settings.worker_warmup,
    )


def _theirs(environ: Mapping[str, str]) -> Bucket | None:
    url = environ.get("BUCKET_ENDPOINT_URL", "")
    if not url:
        return None
    keys = {name: environ.get(name, "") for name in BUCKET_VARIABLES[2:]}
    missing = [name for name, value in keys.items() if not value]
    if missing:
        raise UsageError(f"BUCKET_ENDPOINT_URL is set, and {' and '.join(missing)} is not: set it, or unset all")
    parts = urlsplit(url)
    host, name = parts.netloc, environ.get("BUCKET_NAME", "") or parts.path.strip("/")
    # https://NAME.s3.REGION.amazonaws.com, as in worker-comfyui's instructions.
    found = re.fullmatch(r"([a-z0-9.-]+)\.(s3[.-][a-z0-9.-]*amazonaws\.com)", host)
    if found:
        name, host = name or found[1], found[2]
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password or "/" in name:
        # Not shown: it may hold a password.
        raise UsageError(
            "BUCKET_ENDPOINT_URL must be an address such as https://HOST/BUCKET, without a user name or password"
        )
    if not name:
        raise UsageError("BUCKET_ENDPOINT_URL names no bucket: set BUCKET_NAME too, or write https://HOST/BUCKET")
    return Bucket(f"{parts.scheme}://{host}", name, *keys.values())
