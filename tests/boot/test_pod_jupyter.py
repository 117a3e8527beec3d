"""JupyterLab in the booted pod: its terminals and notebooks are ComfyUI's user's, with ComfyUI's packages and no secret."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from hearmeman.users import COMFYUI
from hearmeman_build.build import Image
from support.gated import JUPYTER_TOKEN, GatedPod
from support.ports import listens
from support.waiting import PATIENCE

KERNEL = """
import json, os, pathlib, sys
connection = json.loads(pathlib.Path(sys.argv[sys.argv.index("-f") + 1]).read_text())
found = {"uid": os.geteuid(), "caps": pathlib.Path("/proc/self/status").read_text(), "env": dict(os.environ)}
found |= {"keys": sorted(connection), "python": sys.executable}
beside = pathlib.Path("/workspace/ComfyUI/kernel.tmp")
beside.write_text(json.dumps(found))
beside.rename("/workspace/ComfyUI/kernel.json")
import time
time.sleep(600)
"""
"""Stands for ipykernel, which the smoke image lacks."""


@pytest.fixture(scope="module")
def pod(jupyter_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedPod]:
    made = GatedPod(jupyter_image, tmp_path_factory.mktemp("jupyter"))
    try:
        made.start(made.variables)
        made.wait_line("pod.ready")
        made.wait_for(lambda: listens(made.ports["JUPYTER"]) and listens(made.ports["SSH"]), "JupyterLab and sshd")
        yield made
        assert made.stop() == 0
    finally:
        made.kill()


def overlay(pod: GatedPod) -> Path:
    """The folder of added packages."""
    [found] = (pod.volume / ".hearmeman/comfyui/overlays").glob("*-cp311")
    return found


async def _asked(pod: GatedPod, typed: str) -> None:
    base = f"http://127.0.0.1:{pod.ports['JUPYTER']}"
    headers = {"Authorization": f"token {JUPYTER_TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(f"{base}/api/terminals") as answer:
            name = (await answer.json())["name"]
        async with session.ws_connect(f"{base}/terminals/websocket/{name}") as terminal:
            await terminal.send_json(["stdin", typed + "\r"])
            end = asyncio.get_running_loop().time() + PATIENCE
            while not (pod.volume / "ComfyUI/typed").exists():
                assert asyncio.get_running_loop().time() < end, "the terminal did nothing"
                await asyncio.sleep(0.1)
        async with session.post(f"{base}/api/kernels", json={"name": "comfyui"}) as answer:
            assert answer.status == 201, await answer.text()
            kernel = (await answer.json())["id"]
        end = asyncio.get_running_loop().time() + PATIENCE
        while not (pod.volume / "ComfyUI/kernel.json").exists():
            assert asyncio.get_running_loop().time() < end, "the kernel did nothing"
            await asyncio.sleep(0.1)
        async with session.delete(f"{base}/api/kernels/{kernel}") as answer:
            assert answer.status == 204, "the server can end a notebook of another user"


def test_terminals_and_notebooks_are_comfyui_s(pod: GatedPod) -> None:
    (overlay(pod) / "lib/python3.11/site-packages/ipykernel_launcher.py").write_text(KERNEL)
    typed = "cd /workspace/ComfyUI && { id -u; umask; which pip python; env; } > typing && mv typing typed"
    asyncio.run(_asked(pod, typed))
    said = (pod.volume / "ComfyUI/typed").read_text()
    kernel = json.loads((pod.volume / "ComfyUI/kernel.json").read_text())
    for secret in (JUPYTER_TOKEN, pod.variables["HF_TOKEN"], pod.variables["ACCESS_TOKEN"]):
        assert secret not in said
        assert secret not in json.dumps(kernel["env"])
    lines = said.splitlines()
    assert lines[1:4] == ["0002", "/opt/hearmeman/bin/pip", "/opt/hearmeman/bin/python"]
    assert "HOME=/workspace/.hearmeman/comfyui/home" in lines
    assert {"key", "shell_port", "transport"} <= set(kernel["keys"])
    assert kernel["python"] == f"/workspace/{overlay(pod).relative_to(pod.volume)}/bin/python"
    assert kernel["env"]["PIP_CONSTRAINT"].endswith("/constraints.txt")
    if os.geteuid() == 0:
        assert (lines[0], kernel["uid"]) == (str(COMFYUI.uid), COMFYUI.uid)
        assert "CapEff:\t0000000000000000" in kernel["caps"]


def test_pip_and_python_of_a_root_shell_are_comfyui_s(pod: GatedPod) -> None:
    script = 'import os, sys; print(os.geteuid(), sys.executable, os.getenv(str.upper("home")))'
    done = pod.ssh(f"which pip python; python -c '{script}'; FOO=bar python -c 'import os; print(os.environ[\"FOO\"])'")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["/opt/hearmeman/bin/pip", "/opt/hearmeman/bin/python"]
    uid = COMFYUI.uid if os.geteuid() == 0 else 0
    python = f"/workspace/{overlay(pod).relative_to(pod.volume)}/bin/python"
    assert lines[2] == f"{uid} {python} /workspace/.hearmeman/comfyui/home"
    assert lines[3] == "bar", "what a person sets for one command reaches it"
    # The smoke image has no pip of its own; what stands for it says where it would install.
    (overlay(pod) / "lib/python3.11/site-packages/pip.py").write_text("import sys; print(sys.prefix, *sys.argv[1:])\n")
    done = pod.ssh("pip install thing")
    assert done.stdout.splitlines() == [f"{Path(python).parents[1]} install thing"], done.stderr


def test_what_root_copies_into_comfyui_s_folders_is_comfyui_s_to_change(pod: GatedPod) -> None:
    done = pod.ssh("mkdir /workspace/ComfyUI/models/mine && echo x > /workspace/ComfyUI/models/mine/file && id -u")
    assert done.stdout == "0\n", done.stderr
    if os.geteuid() != 0:
        return
    for name, mode in (("mine", 0o2775), ("mine/file", 0o664)):
        seen = (pod.volume / "ComfyUI/models" / name).stat()
        assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777) == (0, COMFYUI.gid, mode)
    assert pod.ssh("hearmeman owners").returncode == 0
    assert (pod.volume / "ComfyUI/models/mine/file").stat().st_uid == COMFYUI.uid


def test_a_login_with_a_terminal_complains_of_nothing(pod: GatedPod) -> None:
    for _ in range(2):
        done = pod.ssh("tty", options=("-tt",))
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().startswith("/dev/pts/")
    complaints = [line for line in pod.lines if line.startswith("[sshd]") and "lastlog" in line]
    assert complaints == []
