"""The attack on the booted pod: code in ComfyUI's process stays ComfyUI's user, whatever others do with what it planted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import attacker
from fakes.s3 import S3
from hearmeman.users import COMFYUI
from hearmeman_build.build import Image
from support.gated import GatedPod
from support.inside import here, parent, report
from support.outputs import png

EVIL = "/workspace/ComfyUI/evil"
KEPT = ("comfyui", "door", "sshd", "gate", "jupyter", "sync")
"""Processes that are started again when they end."""
COMMANDS = (
    "hearmeman status",
    "hearmeman overlay list",
    "hearmeman nodes update",
    "hearmeman models list",
    "timeout 3 hearmeman models fetch || true",
    "hearmeman models verify",
    "hearmeman upload --test",
    "hearmeman sync status",
    "hearmeman owners",
    "hearmeman env",
    "hearmeman tune",
    "hearmeman boot --plan",
    "timeout 3 /download_models.sh || true",
    "python3 -c pass",
    "python -c pass",
    "python -c 'import json'",
    "pip --version",
    "bash -lc true",
    "bash -ic true",
)
"""What a person types as root over SSH, here in ComfyUI's folder."""


class Attack:
    """A pod under attack, and what came of it."""

    def __init__(self, pod: GatedPod, s3: S3) -> None:
        self.pod, self.s3 = pod, s3
        self.own = pod.volume / "ComfyUI"

    def notes(self) -> dict[str, str]:
        """Uid and pid of whoever ran what was planted -> its command."""
        return {path.name: path.read_text() for path in (self.own / "pwned").iterdir()}


@pytest.fixture(scope="module")
def attack(jupyter_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    pod = GatedPod(jupyter_image, tmp_path_factory.mktemp("attack"))
    shutil.copy(attacker.__file__, pod.volume / "attacker.py")
    pod.own_image({"comfyui_main": "/workspace/attacker.py"})
    taken = {
        "PATH": f"{EVIL}/bin:{pod.environment['PATH']}",
        "PYTHONPATH": EVIL,
        "AWS_CONFIG_FILE": f"{EVIL}/aws",
        "BASH_ENV": f"{EVIL}/env.sh",
        "PIP_CONFIG_FILE": f"{EVIL}/pip.conf",
    }
    with S3() as s3:
        sync = {**s3.environ(), "ENABLE_R2_SYNC": "true"}
        try:
            pod.start({**pod.variables, **sync, **taken})
            pod.wait_line("Jupyter Server")
            pod.wait_line("process.started name=sshd")
            pod.wait_line("process.started name=sync")
            pod.wait_for((pod.volume / "ComfyUI/pwned").is_dir, "the attacker")
            pod.wait_for(lambda: all(report(pod, name).get("pid") for name in KEPT), "all processes")
            yield Attack(pod, s3)
        finally:
            pod.kill()


def test_nothing_is_others_for_the_taking(attack: Attack) -> None:
    pod = attack.pod
    if os.geteuid() != 0:
        assert "processes cannot be given users of their own" in pod.log()
        return
    (attack.own / "go").touch()
    pod.wait_for((attack.own / "seen.json").exists, "the attacker's report")
    seen = json.loads((attack.own / "seen.json").read_text())
    assert seen["found"] == []
    status = dict(line.split(":", 1) for line in seen["status"].splitlines() if ":" in line)
    assert {status[name].split()[0] for name in ("Uid", "Gid")} == {str(COMFYUI.uid)}
    assert status["Groups"].split() == []
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"


def test_what_comfyui_planted_is_run_by_nobody_else(attack: Attack) -> None:
    pod = attack.pod
    if os.geteuid() != 0:
        return
    assert "PYTHONPATH" in pod.wait_line("only ComfyUI gets them")
    # The wrappers of all others, killed: what starts them again must not come across what is planted.
    for name in KEPT:
        before = report(pod, name)["pid"]
        os.kill(parent(here(pod, before)), signal.SIGKILL)
        pod.wait_for(lambda name=name, before=before: report(pod, name).get("pid") not in (None, before), name)  # type: ignore[misc]
    pod.wait_for(lambda: pod.ssh("true").returncode == 0, "sshd again")
    for command in COMMANDS:
        done = pod.ssh(f"cd /workspace/ComfyUI && {command}")
        assert done.returncode in (0, 1, 2, 3), f"{command}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, f"{command}: {done.stderr}"
    notes = attack.notes()
    assert {name for name in notes if not name.startswith(f"{COMFYUI.uid}-")} == set(), notes
    assert notes, "ComfyUI's own commands do meet it, so the notes work"


def test_links_lead_nobody_astray(attack: Attack) -> None:
    pod = attack.pod
    whole = attack.own / "output/whole.png"
    whole.parent.mkdir(parents=True, exist_ok=True)
    whole.write_bytes(png("whole"))
    pod.wait_for(lambda: png("whole") in attack.s3.objects().values(), "the upload of a whole file")
    time.sleep(1)
    secrets = [pod.variables["HF_TOKEN"], pod.variables["ACCESS_TOKEN"], attack.s3.secret_key]
    for key, body in attack.s3.objects().items():
        assert not any(secret.encode() in body for secret in secrets), key
        assert "linked" not in key
        assert "folder" not in key
    folder = Path(f"/proc/{pod.init}/root/run/hearmeman/env")
    for path in folder.iterdir():
        seen = path.lstat()
        assert (seen.st_uid, seen.st_mode & 0o7777, path.suffix) == (os.geteuid(), 0o600, ".json"), path
