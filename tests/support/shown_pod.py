"""Real pods of the smoke image in the states in which a person may find one: fetching, ready, failing, behind the gate."""

from __future__ import annotations

import contextlib
import hashlib
import json
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes.hub import Hub, Repo, Stored, safetensors
from fakes.r2 import R2
from hearmeman_build.build import Image
from support.pod import Pod
from support.ports import free_port
from support.waiting import PATIENCE

TOKEN = "the-token-of-this-page"
REPO = "hearmeman/shown"
COMMIT = "5e0d1a7c3b9f4e28860c2d7b1f3a9e64c8d2b075"
EVIL = "<img src=x onerror=alert(1)>"
"""A file's name that is markup."""
ANSI = "\x1b[31mred\x1b[0m \x1b]0;title\x07<script>alert(2)</script>"
"""A log line that moves cursors and is markup."""
_MODELS = {
    "checkpoints/tiny-dream.safetensors": 1,
    "loras/tiny-film-grain.safetensors": 8,
    "vae/tiny-vae.safetensors": 16,
}
"""Place in the models folder -> MiB of values."""
_MAINS = {
    "slow": "import time\nprint('Loading 38 custom nodes', flush=True)\ntime.sleep(3600)\n",
    "broken": f"""import sys
print({ANSI!r}, flush=True)
print("Traceback (most recent call last):", file=sys.stderr)
print("ModuleNotFoundError: No module named 'torchsde'", file=sys.stderr)
sys.exit(1)
""",
}
"""What stands in ComfyUI's place in a pod that does not get ready."""


@dataclass
class Shown:
    """One pod and the servers that it works with."""

    pod: Pod
    hub: Hub
    r2: R2
    ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.ports['STATUS']}/"

    @property
    def comfyui(self) -> str:
        """ComfyUI's."""
        return f"http://127.0.0.1:{self.ports['COMFYUI']}"

    def status(self) -> dict[str, Any]:
        """What the page shows, as JSON."""
        headers = {"Accept": "application/json", "Authorization": f"Bearer {TOKEN}"}
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.page}status?logs", headers=headers), timeout=PATIENCE
        ) as got:
            found: dict[str, Any] = json.load(got)
        return found

    def wait(self, what: str, condition: Any, seconds: float = 60) -> None:
        """Wait until `condition` holds of what the page shows."""

        def holds() -> bool:
            with contextlib.suppress(OSError):
                return bool(condition(self.status()))
            return False

        self.pod.wait_for(holds, what, seconds)

    def queue(self, prefix: str = "ComfyUI", color: int = 0x3366CC, size: int = 96, count: int = 1) -> None:
        """Queue a picture, as a script does."""
        graph = {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": size, "height": size, "batch_size": count, "color": color},
            },
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        asked = urllib.request.Request(f"{self.comfyui}/prompt", json.dumps({"prompt": graph}).encode(), headers)
        urllib.request.urlopen(asked, timeout=PATIENCE).close()


@contextlib.contextmanager
def shown(
    image: Image,
    folder: Path,
    variables: Mapping[str, str] | None = None,
    gated: bool = False,
    main: str = "",
    rate: float = 0.0,
) -> Iterator[Shown]:
    """Boot a pod whose models come at `rate` bytes a second and connection (0: at once).

    With `main`, ComfyUI is slow or broken; then a model is not where the catalogue says, and the bucket takes nothing.
    """
    broken = main == "broken"
    folder.mkdir(exist_ok=True)
    volume = folder / "volume"
    volume.mkdir()
    files = {path.partition("/")[2]: Stored(safetensors(mib << 18, path.encode())) for path, mib in _MODELS.items()}
    (volume / "catalogue.toml").write_text(_catalogue(files, "gone-" if broken else ""))
    with Hub({REPO: Repo(files)}) as hub, R2() as r2:
        hub.rate, r2.may_write = rate, not broken
        pod = Pod(image, volume)
        # Its processor and memory are those of this machine's own group.
        pod.mount = ["--ro-bind", "/sys", "/sys", *pod.mount]
        if main:
            (volume / "main.py").write_text(_MAINS[main])
            own = json.loads((pod.root / "opt/hearmeman/image.json").read_text())
            (volume / "image.json").write_text(json.dumps(own | {"comfyui_main": "/workspace/main.py"}))
            pod.entrypoint = [*pod.entrypoint, "--image-file", "/workspace/image.json"]
        given = variables or {}
        ports = {name: int(given.get(f"{name}_PORT") or free_port()) for name in ("COMFYUI", "STATUS", "XTTS")}
        made = Shown(pod, hub, r2, ports)
        try:
            pod.start(
                {
                    **{f"{name}_PORT": str(port) for name, port in ports.items()},
                    "COMFYUI_HOST": "127.0.0.1",
                    "STATUS_HOST": "127.0.0.1",
                    "HF_ENDPOINT": hub.url,
                    "MODEL_CATALOGUE": "/workspace/catalogue.toml",
                    "MODELS": "shown",
                    **r2.environ(),
                    **({"ACCESS_TOKEN": TOKEN} if gated else {}),
                    **given,
                }
            )
            pod.wait_line("door")
            made.wait("the page", lambda found: found["boot"])
            yield made
            # 3: what a broken bucket did not take is still on the volume.
            assert pod.stop() == (3 if broken else 0), pod.log()
        finally:
            pod.kill()


def _catalogue(files: Mapping[str, Stored], gone: str) -> str:
    tables = []
    for path, name in ((path, path.partition("/")[2]) for path in _MODELS):
        stored = files[name]
        digest = hashlib.sha256(stored.data).hexdigest()
        # The last of a failing pod is not where the catalogue says.
        place = gone + name if path.startswith("vae/") else name
        tables.append(
            f'[[file]]\nid = "{name}"\nto = "{path}"\nsize = {len(stored.data)}\nsha256 = "{digest}"\nlicence = "CC0-1.0"\n'
            f'[file.source]\nkind = "huggingface"\nrepo = "{REPO}"\nrevision = "{COMMIT}"\npath = "{place}"\n'
        )
    listed = ", ".join(f'"{path.partition("/")[2]}"' for path in _MODELS)
    return "\n".join([*tables, f'[[model]]\nid = "shown"\ntitle = "Three small files"\nfiles = [{listed}]\n'])
