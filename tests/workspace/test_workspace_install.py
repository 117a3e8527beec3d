"""`hearmeman nodes install`: added nodes at their commit and packages by name, as ComfyUI, and what is there stays."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hearmeman.users import COMFYUI
from hearmeman.workspace.contents import Node, Save, dump
from support.as_pod import as_user, give_to_comfyui
from support.sync_process import PYTHON
from support.toywheel import make_wheel

_GIT = ("git", "-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=main")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that every user of the pod can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="install-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """What `folder/web` holds over https on loopback; its certificate is `folder/cert.pem`."""
    (folder / "web").mkdir()
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder / "web"))) as made:
        made.socket = context.wrap_socket(made.socket, server_side=True)
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        yield f"https://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


@pytest.fixture(scope="module")
def commits(folder: Path) -> tuple[str, str]:
    """A repository of two commits at `web/node.git`; the newer one is its branch's."""
    work = folder / "work"

    def git(*words: str) -> str:
        command = [*_GIT, "-C", str(work), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    work.mkdir()
    git("init", "-q")
    found = []
    for version in ("1", "2"):
        (work / "node.py").write_text(f"VERSION = {version}\n")
        git("add", "-A")
        git("commit", "-q", "-m", version)
        found.append(git("rev-parse", "HEAD"))
    git("clone", "-q", "--bare", str(work), str(folder / "web/node.git"))
    subprocess.run(["git", "-C", str(folder / "web/node.git"), "update-server-info"], check=True)
    return found[0], found[1]


def test_nodes_and_packages_come_back_as_they_were(folder: Path, server: str, commits: tuple[str, str]) -> None:
    volume = folder / "volume"
    custom_nodes, state = volume / "ComfyUI/custom_nodes", volume / ".hearmeman/local"
    own = volume / ".hearmeman/comfyui"
    for path in (custom_nodes / "There", state, own):
        path.mkdir(parents=True)
    (custom_nodes / "There/mine.py").write_text("mine")
    url = f"{server}/node.git"
    nodes = {
        "A-Node": Node(url, commits[0]),
        "There": Node(url, commits[0]),
        "Gone": Node(f"{server}/gone.git", commits[0]),
        "Other-Commit": Node(url, "c" * 40),
        "by_hand": Node(version="1.2"),
    }
    saved = Save(1, "a", nodes=nodes, packages={"toy": "0.9", "already": "1.0"})
    (state / "workspace-added.json").write_bytes(dump(saved))
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    wheels = folder / "wheels"
    wheels.mkdir()
    for name in ("toy", "already"):
        make_wheel(wheels, name, {f"{name}.py": "VERSION = '1.0'\n"})
    pip = [str(folder / "env/bin/python"), "-m", "pip", "install", "-q", "--no-index", "--find-links", str(wheels)]
    subprocess.run([*pip, "already"], check=True)
    image = {"tier": "smoke", "comfyui_rev": "x", "comfyui_python": str(folder / "env/bin/python")}
    image |= {"comfyui_main": "main.py", "cuda_floor": "12.8", "environment_key": "key"}
    (folder / "image.json").write_text(json.dumps(image))
    give_to_comfyui(volume / "ComfyUI")
    give_to_comfyui(own)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": PYTHON,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(own),
        "VOLUME_DIR": str(volume),
        "GIT_SSL_CAINFO": str(folder / "cert.pem"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
    }

    def install(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hearmeman", "nodes", "install", "--image-file", str(folder / "image.json")]
        argv = as_user([*command, *words], COMFYUI)
        return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=300, check=False)

    shown = install("--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "package  toy" in shown.stdout
    assert "already" not in shown.stdout
    done = install()
    assert done.returncode == 3, done.stderr
    assert "not fetched: Gone, Other-Commit" in done.stderr
    assert re.search(r"node.not_restored name=by_hand version=1.2 why=.*: install it again", done.stderr)
    assert "by_hand" in install("--dry-run").stdout
    assert sorted(path.name for path in custom_nodes.iterdir()) == ["A-Node", "There"]
    assert (custom_nodes / "A-Node/node.py").read_text() == "VERSION = 1\n"
    assert [path.name for path in (custom_nodes / "There").iterdir()] == ["mine.py"]
    (site,) = own.glob("overlays/key-cp3*/lib/python3.*/site-packages")
    assert (site / "toy.py").is_file()
    assert not (site / "already.py").exists()
    if os.geteuid() == 0:
        assert (custom_nodes / "A-Node/node.py").stat().st_uid == COMFYUI.uid
    (custom_nodes / "by_hand").mkdir()
    assert "by_hand" not in install("--dry-run").stdout
    again = install()
    assert (again.returncode, "node.restored" in again.stderr) == (3, False)
