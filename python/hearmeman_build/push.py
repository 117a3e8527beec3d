"""Shows a built image, and pushes it to a registry by skopeo, recording its digest."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hearmeman_build.build import Image, build_image
from hearmeman_build.errors import BuildError
from hearmeman_build.host import ROOT, write_atomically


@dataclass(frozen=True)
class Pushed:
    """Where an image went."""

    reference: str
    """REGISTRY/NAME, without tag or digest."""
    digest: str


def inspect_image(image: Image, as_json: bool) -> str:
    """The image as a person reads it, or as JSON."""
    blobs = image.layout / "blobs/sha256"
    manifest = json.loads((blobs / image.digest.partition(":")[2]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"].partition(":")[2]).read_text())
    layers = [
        {"size": layer["size"], "digest": layer["digest"], "made_by": history["created_by"]}
        for layer, history in zip(manifest["layers"], config["history"], strict=True)
    ]
    if as_json:
        document = {"digest": image.digest, "size": image.size, "config": config["config"], "layers": layers}
        return json.dumps(document, indent=1)
    lines = [f"{image.digest}  {image.size / 1e6:.1f} MB in {len(layers)} layers"]
    lines += [f"{layer['size'] / 1e6:10.2f} MB  {layer['digest'][7:19]}  {layer['made_by']}" for layer in layers]
    return "\n".join(lines)


def push(tier: str, to: str, tag: str = "", plain_http: bool = False) -> Pushed:
    """Push `tier`'s image to `to` and record it in images.lock.json.

    Raises:
        BuildError: skopeo is missing or failed, or the registry holds another digest than was built.
    """
    if "@" in to or ":" in to.rpartition("/")[2]:
        raise BuildError(f"--to {to} has a tag or digest: give REGISTRY/NAME, and the tag by --tag")
    image = build_image(tier)
    with tempfile.TemporaryDirectory() as folder:
        digest_file = Path(folder, "digest")
        command = ["skopeo", "--insecure-policy", "copy", "--digestfile", str(digest_file)]
        if plain_http:
            command.append("--dest-tls-verify=false")
        command += [f"oci:{image.layout}:{tier}", f"docker://{to}:{tag or tier}"]
        try:
            done = subprocess.run(
                command, stdout=None, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": folder}
            )
        except FileNotFoundError as error:
            raise BuildError("skopeo is not installed: run `./setup.sh test`") from error
        if done.returncode != 0:
            raise BuildError(f"skopeo could not push to {to}: {done.stderr.strip()[-800:]}")
        digest = digest_file.read_text().strip()
    if digest != image.digest:
        raise BuildError(f"{to} holds {digest}, built was {image.digest}: the registry changed the manifest")
    record(ROOT / "images.lock.json", tier, to, image)
    return Pushed(to, digest)


def record(path: Path, tier: str, repository: str, image: Image) -> None:
    """Put what was pushed into the lock of images, one entry for each tier and repository."""
    entries = json.loads(path.read_text()) if path.exists() else []
    entries = [e for e in entries if (e["tier"], e["repository"]) != (tier, repository)]
    manifest = json.loads((image.layout / "blobs/sha256" / image.digest.partition(":")[2]).read_text())
    entries.append(
        {
            "tier": tier,
            "repository": repository,
            "digest": image.digest,
            "comfyui_rev": manifest["annotations"]["io.hearmeman.comfyui-commit"],
            "size": image.size,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
    )
    write_atomically(path, (json.dumps(entries, indent=1) + "\n").encode())
