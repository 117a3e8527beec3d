"""A pod with everything before it that can stand there: the gate, SSH, JupyterLab, and an echo service as XTTS."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from fakes import echo
from hearmeman_build.build import Image
from support.pod import Pod
from support.ports import free_port
from support.waiting import PATIENCE

TOKEN = "the-token-of-this-gate"
JUPYTER_TOKEN = "the-token-of-jupyter"
PYTHON = "/opt/env/runtime/bin/python"


class GatedPod(Pod):
    """A pod behind the gate; `ports` are what it is reached at."""

    def __init__(self, image: Image, folder: Path) -> None:
        volume = folder / "volume"
        volume.mkdir()
        super().__init__(image, volume)
        shutil.copy(echo.__file__, volume / "echo.py")
        self.own_image({"services": {"xtts": [PYTHON, "/workspace/echo.py", "{host}", "{port}"]}})
        self.key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        names = ("COMFYUI", "STATUS", "XTTS", "SSH", "JUPYTER", "COMFYUI_INNER", "XTTS_INNER", "CHATTERBOX_INNER")
        self.ports = {name: free_port() for name in names}
        hosts = {f"{name}_HOST": "127.0.0.1" for name in ("COMFYUI", "STATUS", "JUPYTER")}
        self.variables = {
            **{f"{name}_PORT": str(port) for name, port in self.ports.items()},
            **hosts,
            "ACCESS_TOKEN": TOKEN,
            "JUPYTER_PASSWORD": JUPYTER_TOKEN,
            "PUBLIC_KEY": f"{self.key.with_suffix('.pub').read_text()}\nnot a key\n",
            "ENABLE_XTTS": "true",
            "COQUI_TOS_AGREED": "true",
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "HF_TOKEN": "hf_planted-secret",
            "RUNPOD_API_KEY": "rpa_planted-secret",
        }

    def own_image(self, changes: dict[str, object]) -> None:
        """Boot with the image's facts but for `changes`."""
        own = json.loads((self.root / "opt/hearmeman/image.json").read_text()) | changes
        (self.volume / "image.json").write_text(json.dumps(own))
        self.entrypoint = [*self.entrypoint, "--image-file", "/workspace/image.json"]

    def ssh(self, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command through sshd, by key."""
        options = (
            *options,
            "-oStrictHostKeyChecking=no",
            "-oUserKnownHostsFile=/dev/null",
            "-oBatchMode=yes",
            "-oLogLevel=ERROR",
        )
        command = ["ssh", "-i", str(self.key), "-p", str(self.ports["SSH"]), *options, "root@127.0.0.1", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
